"""Convolutions in forms that XLA compiles well, and spectral norm."""

from cyclegan_jax.nets.ops.conv import conv, conv_transpose
from cyclegan_jax.nets.ops.spectral import spectral_norm

__all__ = ['conv', 'conv_transpose', 'spectral_norm']
