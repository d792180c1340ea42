"""Discriminators with a logit per patch or per pixel."""

from typing import Any

import flax.linen as nn

from cyclegan_jax.config import DiscriminatorConfig
from cyclegan_jax.nets.layers import Conv, leaky_relu, make_norm
from cyclegan_jax.types import Array


class PatchGAN(nn.Module):
  """The n-layer PatchGAN of the paper, and the Keras note's.

  It has n strided 4x4 convolutions, one with stride 1, and one to a logit.
  The paper's network pads each by one pixel: with three layers, 64 filters
  and instance norm, a logit sees 70 x 70 pixels, an image of 256 px gets
  30 x 30 logits, and there are 2,764,737 parameters. The Keras note's network
  pads the last two like Keras's 'same': 16 x 16 logits at 128 px, and
  2,765,633 parameters.

  Attributes:
    config: options of the network.
    axis_name: device axis for the statistics of batch norm.

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
        x = make_norm(c, self.axis_name, f'norm_{level}')(x)
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
  """Three 1x1 convolutions, so that each logit depends on one pixel.

  Attributes: see PatchGAN.

  Call with [B, H, W, C]; returns logits [B, H, W, 1].
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
    x = make_norm(c, self.axis_name, 'norm_1')(x)
    return Conv(1, 1, use_bias=use_bias, name='logits', **common)(leaky_relu(x))
