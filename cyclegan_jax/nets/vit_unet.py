"""UVCGAN's generator: a U-Net with a transformer as its bottleneck."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from cyclegan_jax.config import GeneratorConfig, size_multiple
from cyclegan_jax.nets.layers import Conv, Upsample, leaky_relu, make_norm
from cyclegan_jax.nets.vit import PixelwiseViT
from cyclegan_jax.types import Array

NUM_LEVELS = 4


class ViTUNet(nn.Module):
  """Four U-Net levels with a pixel-wise ViT inside them (arXiv:2203.02557).

  The paper's network has 48 filters, 12 blocks of 6 heads, instance norm
  without affine, no dropout and upsample='resize': 31,360,239 parameters.
  Unlike there, the leaky ReLU has slope 0.2, as in the other U-Nets here, and
  the output passes through tanh.

  Attributes:
    config: options of the network.
    channels: number of output channels.
    axis_name: device axis for the statistics of batch norm and for dropout.

  Call with [B, H, W, C], H and W multiples of 16; returns
  [B, H, W, channels] in [-1, 1]. The transformer's memory grows with the
  square of H * W / 256.
  """

  config: GeneratorConfig
  channels: int = 3
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    c = self.config
    multiple = size_multiple(c)
    if any(size % multiple for size in x.shape[1:3]):
      raise ValueError(f'takes multiples of {multiple}, not {x.shape[1:3]}')
    filters = [c.filters * 2**level for level in range(NUM_LEVELS)]
    x = leaky_relu(self._conv(x, 'stem', c.filters))
    skips = []
    for level, inner in enumerate(filters):
      x = self._convolve_twice(x, f'down_{level}', inner, inner)
      skips.append(x)
      x = Conv(
        inner, 2, stride=2, name=f'halve_{level}', **self._conv_options()
      )(x)
    x = PixelwiseViT(c, self.axis_name, name='vit')(x)
    for level in reversed(range(NUM_LEVELS)):
      inner, outer = filters[level], filters[max(level - 1, 0)]
      x = Upsample(
        inner,
        4,
        c.upsample,
        padding=c.padding,
        name=f'double_{level}',
        **self._conv_options(),
      )(x)
      x = jnp.concatenate([x, skips.pop()], axis=-1)
      x = self._convolve_twice(x, f'up_{level}', inner, outer)
    x = Conv(self.channels, 1, name='head', **self._conv_options())(x)
    return jnp.tanh(x)

  def _convolve_twice(self, x: Array, name: str, mid: int, out: int) -> Array:
    for index, features in enumerate((mid, out)):
      x = make_norm(self.config, self.axis_name, f'{name}_norm_{index}')(x)
      x = leaky_relu(self._conv(x, f'{name}_conv_{index}', features))
    return x

  def _conv(self, x: Array, name: str, features: int) -> Array:
    padding = self.config.padding
    return Conv(
      features,
      3,
      pads=(1, 1),
      padding=padding,
      name=name,
      **self._conv_options(),
    )(x)

  def _conv_options(self) -> dict[str, Any]:
    return {'initializer': self.config.init, 'dtype': self.config.dtype}
