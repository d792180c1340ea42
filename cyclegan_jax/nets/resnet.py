"""The paper's generator: residual blocks between two samplings."""

import flax.linen as nn
import jax.numpy as jnp

from cyclegan_jax.config import GeneratorConfig
from cyclegan_jax.nets.layers import Conv, Dropout, Norm, Upsample
from cyclegan_jax.types import Array


class ResNetGenerator(nn.Module):
  """c7s1-64, d128, d256, n x R256, u128, u64, c7s1-3 (arXiv:1703.10593).

  With instance norm without affine, as in the authors' PyTorch code, 64
  filters and 3 channels: 11,378,179 parameters at nine blocks.

  Attributes:
    config: number of blocks, filters, norm, padding, upsampling.
    channels: of the output.
    axis_name: devices' axis for batch norm's statistics and dropout.

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
    x = self._conv(x, c.filters, 7, 'stem')
    x = nn.relu(self._norm(x, 'stem_norm'))
    for level in (1, 2):
      x = self._conv(x, c.filters * 2**level, 3, f'down_{level}', stride=2)
      x = nn.relu(self._norm(x, f'down_norm_{level}'))
    for block in range(c.blocks):
      y = self._conv(x, x.shape[-1], 3, f'block_{block}_conv_0')
      y = nn.relu(self._norm(y, f'block_{block}_norm_0'))
      y = Dropout(c.dropout, self.axis_name, name=f'block_{block}_dropout')(y)
      y = self._conv(y, x.shape[-1], 3, f'block_{block}_conv_1')
      x = x + self._norm(y, f'block_{block}_norm_1')
    for level in (1, 0):
      x = Upsample(
        c.filters * 2**level,
        3,
        c.upsample,
        padding=c.padding,
        use_bias=self._use_bias,
        initializer=c.init,
        dtype=c.dtype,
        name=f'up_{level}',
      )(x)
      x = nn.relu(self._norm(x, f'up_norm_{level}'))
    return jnp.tanh(self._conv(x, self.channels, 7, 'head', use_bias=True))

  @property
  def _use_bias(self) -> bool:
    # As in PyTorch's code: none before a batch norm, which has its own.
    return self.config.norm != 'batch'

  def _conv(
    self,
    x: Array,
    features: int,
    size: int,
    name: str,
    stride: int = 1,
    use_bias: bool | None = None,
  ) -> Array:
    c = self.config
    return Conv(
      features,
      size,
      stride=stride,
      pads=(size // 2, size // 2),
      # The paper reflects around the 7x7 and in the blocks alone.
      padding='zero' if stride == 2 else c.padding,
      use_bias=self._use_bias if use_bias is None else use_bias,
      initializer=c.init,
      dtype=c.dtype,
      name=name,
    )(x)

  def _norm(self, x: Array, name: str) -> Array:
    c = self.config
    return Norm(
      c.norm,
      affine=c.affine,
      initializer=c.init,
      dtype=c.dtype,
      axis_name=self.axis_name,
      name=name,
    )(x)
