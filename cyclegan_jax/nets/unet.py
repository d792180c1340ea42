"""U-Nets of the Keras note and of the authors' PyTorch code."""

import math

import flax.linen as nn
import jax.numpy as jnp

from cyclegan_jax.config import GeneratorConfig
from cyclegan_jax.nets.layers import (
  Conv,
  Dropout,
  Upsample,
  leaky_relu,
  make_norm,
)
from cyclegan_jax.types import Array


class KerasUNet(nn.Module):
  """The Keras note's generator, from the Keras notebook GANotebooks/CycleGAN.

  Each level halves height and width, runs the next level, concatenates its
  output to its input, and doubles height and width again. At isize 128 with
  64 filters and 3 channels: 41,829,571 parameters.

  Attributes:
    config: options of the network. The depth is log2(isize). With
      fixed_input_size, images are isize x isize; without it, height and width
      are multiples of isize.
    channels: number of output channels.
    axis_name: device axis for the statistics of batch norm and for dropout.

  Call with [B, H, W, C]; returns [B, H, W, channels] in [-1, 1].
  """

  config: GeneratorConfig
  channels: int = 3
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    c = self.config
    if c.fixed_input_size and x.shape[1:3] != (c.isize, c.isize):
      raise ValueError(f'takes {c.isize} x {c.isize}, not {x.shape[1:3]}')
    if any(size % c.isize for size in x.shape[1:3]):
      raise ValueError(f'takes multiples of {c.isize}, not {x.shape[1:3]}')
    x = self._block(x, c.isize, self.channels, c.filters, outermost=True)
    return jnp.tanh(x)

  def _block(
    self, x: Array, size: int, out: int, inner: int, *, outermost: bool = False
  ) -> Array:
    """Applies one level and, by recursion, all levels inside it.

    Args:
      x: input of the level.
      size: its height and width for an image of isize x isize.
      out: number of output channels.
      inner: number of channels of the next level's input.
      outermost: whether this is the first level.
    """
    c = self.config
    normed = c.norm != 'none' and not outermost
    x = Conv(
      inner,
      4,
      stride=2,
      pads=(1, 1),
      padding=c.padding,
      use_bias=not (normed and size > 2),
      initializer=c.init,
      dtype=c.dtype,
      name=f'conv_{size}',
    )(x)
    if size > 2:
      if normed:
        x = make_norm(c, self.axis_name, f'norm_{size}')(x)
      deeper = min(2 * inner, 8 * c.filters)
      inside = self._block(leaky_relu(x), size // 2, inner, deeper)
      x = jnp.concatenate([x, inside], axis=-1)
    x = Upsample(
      out,
      4,
      c.upsample,
      padding=c.padding,
      use_bias=not normed,
      initializer=c.init,
      dtype=c.dtype,
      name=f'convt_{size}',
    )(nn.relu(x))
    if normed:
      x = make_norm(c, self.axis_name, f'normt_{size}')(x)
    if size <= 8:
      x = Dropout(c.dropout, self.axis_name, name=f'dropout_{size}')(x)
    return x


class TorchUNet(nn.Module):
  """The U-Net of the authors' PyTorch code, which has isize 128 and 256.

  Unlike the Keras note's U-Net, it has no norm before the 1 x 1 bottleneck,
  and dropout, if any, only in the inner blocks of full width.

  Attributes: see KerasUNet.

  Call with [B, H, W, C], H and W multiples of isize; returns
  [B, H, W, channels] in [-1, 1].
  """

  config: GeneratorConfig
  channels: int = 3
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    c = self.config
    if any(size % c.isize for size in x.shape[1:3]):
      raise ValueError(f'takes multiples of {c.isize}, not {x.shape[1:3]}')
    depth = int(math.log2(c.isize))
    # As in the PyTorch code: no bias before a batch norm, which has its own.
    use_bias = c.norm != 'batch'
    filters = [c.filters * min(2**level, 8) for level in range(depth)]
    skips = []
    for level in range(depth):
      is_edge = level in (0, depth - 1)
      if level:
        x = leaky_relu(x)
        skips.append(x)
      x = Conv(
        filters[level],
        4,
        stride=2,
        pads=(1, 1),
        padding=c.padding,
        use_bias=use_bias,
        initializer=c.init,
        dtype=c.dtype,
        name=f'down_{level}',
      )(x)
      if not is_edge:
        x = make_norm(c, self.axis_name, f'down_norm_{level}')(x)
    for level in reversed(range(depth)):
      out = filters[level - 1] if level else self.channels
      x = Upsample(
        out,
        4,
        c.upsample,
        padding=c.padding,
        use_bias=use_bias or level == 0,
        initializer=c.init,
        dtype=c.dtype,
        name=f'up_{level}',
      )(nn.relu(x))
      if level:
        x = make_norm(c, self.axis_name, f'up_norm_{level}')(x)
        if 4 <= level < depth - 1:
          x = Dropout(c.dropout, self.axis_name, name=f'dropout_{level}')(x)
        x = jnp.concatenate([skips.pop(), x], axis=-1)
    return jnp.tanh(x)
