"""The paper's recipe on all cores of a TPU host, in bfloat16.

One pair a core on eight cores, so an eighth of the paper's updates in as many
epochs. Not measured yet.

  pip install -e '.[tpu]'
  python main.py --config=configs/tpu.py
"""

from configs import paper


def get_config():
  config = paper.get_config()
  config.batch_size = 8
  config.generator.dtype = 'bfloat16'
  config.discriminator.dtype = 'bfloat16'
  return config
