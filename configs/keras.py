"""The Keras note as published: 128 px, 64 filters, on horse2zebra.

The note's networks with the notebook's data and optimizer: bilinear to 143,
centre 128, flips, batch 1, 150 epochs, Adam 2e-4 at a constant rate; log loss
with lambda 10. 83.7 million parameters in both generators. Not run in full
yet: it wants an accelerator. The data is downloaded by TFDS:

  pip install -e .
  python main.py --config=configs/keras.py
"""

from configs import default


def get_config():
  config = default.get_config()
  config.batch_size = 1
  config.epochs = 150
  config.data.name = 'tfds'
  config.data.dataset = 'cycle_gan/horse2zebra'
  config.data.size = 128
  config.data.preprocess = 'resize_and_center_crop'
  config.data.interpolation = 'bilinear'
  config.generator.filters = 64
  config.generator.isize = 128
  config.discriminator.filters = 64
  config.optimizer.learning_rate = 2e-4
  return config
