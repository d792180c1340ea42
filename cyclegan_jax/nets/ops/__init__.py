"""Convolutions written for what XLA does well."""

from cyclegan_jax.nets.ops.conv import (
  conv,
  conv_transpose,
  conv_valid,
)
from cyclegan_jax.nets.ops.reflected import conv_reflected
from cyclegan_jax.nets.ops.spectral import spectral_norm

__all__ = [
  'conv',
  'conv_reflected',
  'conv_transpose',
  'conv_valid',
  'spectral_norm',
]
