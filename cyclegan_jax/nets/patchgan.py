"""Discriminators: a logit for each patch, or for each pixel."""

from typing import Any

import flax.linen as nn

from cyclegan_jax.config import DiscriminatorConfig
from cyclegan_jax.nets.layers import Conv, Norm, leaky_relu
from cyclegan_jax.nets.unet import KERAS_EPSILON
from cyclegan_jax.types import Array


class PatchGAN(nn.Module):
  """The n-layer PatchGAN of the paper, and the Keras note's.

  n strided 4x4 convolutions, one of stride 1, and one to a logit. The
  paper's pads each by one pixel: a 70 x 70 patch, 30 x 30 logits at 256 and
  2,764,737 parameters with three layers, 64 filters and instance norm. The
  seed's pads the last two as Keras's 'same': 16 x 16 at 128 and 2,765,633.

  Attributes:
    config: layers, filters, norm; `last_layers` for the Keras note's.
    axis_name: devices' axis for batch norm's statistics.

  Call with [B, H, W, C]; returns logits [B, h, w, 1], not probabilities.
  """

  config: DiscriminatorConfig
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    c = self.config
    is_keras = c.name == 'keras_patchgan'
    pads = None if is_keras else (1, 1)  # None is Keras's 'same'
    last_pads = pads if c.last_layers == 'same' else (1, 1)
    # The Keras note's convolutions before a norm have no bias; PyTorch's code
    # keeps it where the norm is not a batch norm.
    use_bias = c.norm == 'none' or (not is_keras and c.norm != 'batch')
    for level in range(c.layers + 1):
      strided = level < c.layers
      x = Conv(
        c.filters * min(2**level, 8),
        4,
        stride=2 if strided else 1,
        pads=pads if strided else last_pads,
        use_bias=use_bias or level == 0,
        initializer=c.init,
        dtype=c.dtype,
        spectral_norm=c.spectral_norm,
        name=f'conv_{level}',
      )(x)
      if level:
        x = Norm(
          c.norm,
          affine=c.affine,
          epsilon=KERAS_EPSILON if is_keras else 1e-5,
          initializer=c.init,
          dtype=c.dtype,
          axis_name=self.axis_name,
          name=f'norm_{level}',
        )(x)
      x = leaky_relu(x)
    return Conv(
      1,
      4,
      pads=last_pads,
      initializer=c.init,
      dtype=c.dtype,
      spectral_norm=c.spectral_norm,
      name='logits',
    )(x)


class PixelGAN(nn.Module):
  """Judges each pixel by itself: three 1x1 convolutions.

  Attributes and call: as PatchGAN; returns logits [B, H, W, 1].
  """

  config: DiscriminatorConfig
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    c = self.config
    use_bias = c.norm != 'batch'
    common: dict[str, Any] = {
      'initializer': c.init,
      'dtype': c.dtype,
      'spectral_norm': c.spectral_norm,
    }
    x = Conv(c.filters, 1, name='conv_0', **common)(x)
    x = Conv(2 * c.filters, 1, use_bias=use_bias, name='conv_1', **common)(
      leaky_relu(x)
    )
    x = Norm(
      c.norm,
      affine=c.affine,
      initializer=c.init,
      dtype=c.dtype,
      axis_name=self.axis_name,
      name='norm_1',
    )(x)
    return Conv(1, 1, use_bias=use_bias, name='logits', **common)(leaky_relu(x))
