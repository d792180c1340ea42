"""Convolutions written for what XLA does well."""

from cyclegan_jax.ops.conv import conv, conv_transpose, conv_valid

__all__ = ['conv', 'conv_transpose', 'conv_valid']
