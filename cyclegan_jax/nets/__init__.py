"""Generators and discriminators, by name."""

from collections.abc import Callable

import flax.linen as nn

from cyclegan_jax import register
from cyclegan_jax.config import DiscriminatorConfig, GeneratorConfig
from cyclegan_jax.nets.patchgan import PatchGAN, PixelGAN
from cyclegan_jax.nets.resnet import ResNetGenerator
from cyclegan_jax.nets.unet import KerasUNet, TorchUNet
from cyclegan_jax.nets.vit_unet import ViTUNet

GENERATORS: dict[str, Callable[..., nn.Module]] = {
  'keras_unet': KerasUNet,
  'resnet': ResNetGenerator,
  'torch_unet': TorchUNet,
  'vit_unet': ViTUNet,
}
DISCRIMINATORS: dict[str, Callable[..., nn.Module]] = {
  'keras_patchgan': PatchGAN,
  'patchgan': PatchGAN,
  'pixelgan': PixelGAN,
}


def make_generator(
  config: GeneratorConfig, *, channels: int = 3, axis_name: str | None = None
) -> nn.Module:
  """Builds a generator as a Flax module.

  Args:
    config: name of the network and its options.
    channels: number of output channels.
    axis_name: device axis under `parallel.data_parallel`.

  Returns:
    A module that maps [B, H, W, C] in [-1, 1] to [B, H, W, channels] in
    [-1, 1] by `apply({'params': params}, x, rngs={'dropout': key})`.
  """
  make = GENERATORS.get(config.name) or register.find('generator', config.name)
  return make(config=config, channels=channels, axis_name=axis_name)


def make_discriminator(
  config: DiscriminatorConfig, *, axis_name: str | None = None
) -> nn.Module:
  """Builds a discriminator: [B, H, W, C] to logits [B, h, w, 1]."""
  make = DISCRIMINATORS.get(config.name)
  make = make or register.find('discriminator', config.name)
  return make(config=config, axis_name=axis_name)


def is_per_example(config: GeneratorConfig | DiscriminatorConfig) -> bool:
  """Whether an example's output depends on nothing else in its batch.

  Such a network may be applied to several batches as one.
  """
  is_built_in = config.name in {**GENERATORS, **DISCRIMINATORS}
  is_random = isinstance(config, GeneratorConfig) and config.dropout > 0
  return is_built_in and not is_random and config.norm != 'batch'
