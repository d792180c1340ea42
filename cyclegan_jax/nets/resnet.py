"""The paper's generator: residual blocks between down- and upsampling."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from cyclegan_jax.config import GeneratorConfig
from cyclegan_jax.nets.layers import Conv, Dropout, Upsample, make_norm
from cyclegan_jax.types import Array


class Stage(NamedTuple):
  """One convolution of the network and the operations after it.

  These are applied in the order norm, ReLU, dropout, residual sum.
  """

  name: str  # of the convolution's parameters
  features: int
  size: int  # of the kernel
  padding: str
  use_bias: bool
  stride: int = 1
  is_up: bool = False  # doubles height and width
  norm: str = ''  # name of its parameters; '' for no norm
  relu: bool = False
  dropout: str = ''
  opens_block: bool = False  # its input is the block's shortcut
  closes_block: bool = False  # adds the shortcut to its output


def stages(config: GeneratorConfig, channels: int) -> Iterator[Stage]:
  """Yields the network's convolutions in order; only the last tanh is left out.

  Args:
    config: options of the network.
    channels: number of output channels.
  """
  c = config
  # As in the PyTorch code: no bias before a batch norm, which has its own.
  common: dict[str, Any] = {'use_bias': c.norm != 'batch', 'relu': True}
  yield Stage('stem', c.filters, 7, c.padding, norm='stem_norm', **common)
  for level in (1, 2):
    yield Stage(
      f'down_{level}',
      c.filters * 2**level,
      3,
      # The paper pads by reflection only around the 7x7 and in the blocks.
      'zero',
      stride=2,
      norm=f'down_norm_{level}',
      **common,
    )
  for block in range(c.blocks):
    first = Stage(
      f'block_{block}_conv_0',
      c.filters * 4,
      3,
      c.padding,
      norm=f'block_{block}_norm_0',
      dropout=f'block_{block}_dropout',
      opens_block=True,
      **common,
    )
    yield first
    yield first._replace(
      name=f'block_{block}_conv_1',
      norm=f'block_{block}_norm_1',
      relu=False,
      dropout='',
      opens_block=False,
      closes_block=True,
    )
  for level in (1, 0):
    yield Stage(
      f'up_{level}',
      c.filters * 2**level,
      3,
      c.padding,
      is_up=True,
      norm=f'up_norm_{level}',
      **common,
    )
  yield Stage('head', channels, 7, c.padding, use_bias=True)


class ResNetGenerator(nn.Module):
  """c7s1-64, d128, d256, n x R256, u128, u64, c7s1-3 (arXiv:1703.10593).

  With instance norm without affine, as in the authors' PyTorch code, 64
  filters and 3 channels: 11,378,179 parameters at nine blocks.

  Attributes:
    config: options of the network.
    channels: number of output channels.
    axis_name: device axis for the statistics of batch norm and for dropout.

  Call with [B, H, W, C], H and W multiples of 4; returns
  [B, H, W, channels] in [-1, 1].
  """

  config: GeneratorConfig
  channels: int = 3
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    c = self.config
    if any(size % 4 for size in x.shape[1:3]):
      raise ValueError(f'takes multiples of 4, not {x.shape[1:3]}')
    shortcut = x
    for stage in stages(c, self.channels):
      if stage.opens_block:
        shortcut = x
      x = self._convolve(x, stage)
      if stage.norm:
        x = make_norm(c, self.axis_name, stage.norm)(x)
      if stage.relu:
        x = nn.relu(x)
      if stage.dropout:
        x = Dropout(c.dropout, self.axis_name, name=stage.dropout)(x)
      if stage.closes_block:
        x = shortcut + x
    return jnp.tanh(x)

  def _convolve(self, x: Array, stage: Stage) -> Array:
    common: dict[str, Any] = {
      'padding': stage.padding,
      'use_bias': stage.use_bias,
      'initializer': self.config.init,
      'dtype': self.config.dtype,
      'name': stage.name,
    }
    if stage.is_up:
      method = self.config.upsample
      return Upsample(stage.features, stage.size, method, **common)(x)
    pads = (stage.size // 2, stage.size // 2)
    return Conv(
      stage.features, stage.size, stride=stage.stride, pads=pads, **common
    )(x)
