"""U-Nets: the Keras note's, and the one of the authors' PyTorch code."""

import math

import flax.linen as nn
import jax.numpy as jnp

from cyclegan_jax.config import GeneratorConfig
from cyclegan_jax.nets.layers import Conv, Dropout, Norm, Upsample, leaky_relu
from cyclegan_jax.types import Array

KERAS_EPSILON = 1.01e-5


class KerasUNet(nn.Module):
  """The Keras note's generator, from the Keras notebook GANotebooks/CycleGAN.

  Each level halves height and width, runs the level inside it, and doubles
  them again; what the convolution gave is concatenated to what comes back.
  At isize 128 with 64 filters and 3 channels: 41,829,571 parameters.

  Attributes:
    config: isize sets the depth, log2(isize); with fixed_input_size an
      input is isize x isize, else any multiple of it.
    channels: of the output.
    axis_name: devices' axis for statistics and dropout.

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
    """One level: `inner` filters below it, `out` filters above it."""
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
        x = self._norm(f'norm_{size}')(x)
      deeper = min(2 * inner, 8 * c.filters)
      below = self._block(leaky_relu(x), size // 2, inner, deeper)
      x = jnp.concatenate([x, below], axis=-1)
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
      x = self._norm(f'normt_{size}')(x)
    if size <= 8:
      x = Dropout(c.dropout, self.axis_name, name=f'dropout_{size}')(x)
    return x

  def _norm(self, name: str) -> Norm:
    c = self.config
    return Norm(
      c.norm,
      affine=c.affine,
      epsilon=KERAS_EPSILON,
      initializer=c.init,
      dtype=c.dtype,
      axis_name=self.axis_name,
      name=name,
    )


class TorchUNet(nn.Module):
  """The U-Net of the authors' PyTorch code; isize 128 or 256 there.

  Unlike the Keras note's, it has no norm before the 1 x 1 bottleneck, and
  dropout, if any, only in the inner blocks of full width.

  Attributes and call: as KerasUNet; takes multiples of isize.
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
    # As in PyTorch's code: none before a batch norm, which has its own.
    use_bias = c.norm != 'batch'
    filters = [c.filters * min(2**level, 8) for level in range(depth)]
    skips = []
    for level in range(depth):
      edge = level in (0, depth - 1)
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
      if not edge:
        x = self._norm(f'down_norm_{level}')(x)
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
        x = self._norm(f'up_norm_{level}')(x)
        if 4 <= level < depth - 1:
          x = Dropout(c.dropout, self.axis_name, name=f'dropout_{level}')(x)
        x = jnp.concatenate([skips.pop(), x], axis=-1)
    return jnp.tanh(x)

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
