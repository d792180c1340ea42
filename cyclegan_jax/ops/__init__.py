"""Convolutions written for what XLA does well."""

from cyclegan_jax.ops.conv import conv, conv_transpose

__all__ = ['conv', 'conv_transpose']
