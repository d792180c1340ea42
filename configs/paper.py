"""The paper's recipe (arXiv:1703.10593) on horse2zebra at 256 px.

ResNet-9 and PatchGAN with instance norm, least squares, lambda 10, identity
5, a pool of 50, Adam 2e-4 for 100 epochs and 100 more in which it falls. Not
run in full yet: it wants an accelerator. The data is downloaded by TFDS:

  pip install -e .
  python main.py --config=configs/paper.py
"""

from configs import folder


def get_config():
  config = folder.get_config()
  config.epochs = 200
  config.data.name = 'tfds'
  config.data.dataset = 'cycle_gan/horse2zebra'
  config.data.size = 256
  config.generator.filters = 64
  config.generator.blocks = 9
  config.discriminator.filters = 64
  return config
