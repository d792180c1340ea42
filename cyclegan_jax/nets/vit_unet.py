"""UVCGAN's generator: a U-Net with a transformer at its bottom."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from cyclegan_jax.config import GeneratorConfig, size_multiple
from cyclegan_jax.nets.layers import Conv, Norm, Upsample, leaky_relu
from cyclegan_jax.nets.vit import PixelwiseViT
from cyclegan_jax.types import Array

NUM_LEVELS = 4


class ViTUNet(nn.Module):
  """Four levels, and a pixel-wise ViT in place of deeper ones.

  (arXiv:2203.02557.) The paper's has 48 filters, 12 blocks of 6 heads,
  instance norm without affine, no dropout and upsample='resize':
  31,360,239 parameters. Other than there, the leaky ReLU's slope is 0.2, as
  in the other U-Nets here, and tanh is last.

  Attributes:
    config: filters of the first level, and the transformer's blocks, heads.
    channels: of the output.
    axis_name: devices' axis for statistics and dropout.

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
      x = self._norm(f'{name}_norm_{index}')(x)
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

  def _norm(self, name: str) -> Norm:
    c = self.config
    return Norm(
      c.norm,
      affine=c.affine,
      initializer=c.init,
      dtype=c.dtype,
      axis_name=self.axis_name,
      name=name,
    )
