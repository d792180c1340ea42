"""Losses between an image and what it should be."""

import jax.numpy as jnp

from cyclegan_jax.types import Array


def l1_loss(images: Array, targets: Array) -> Array:
  """Mean absolute difference (arXiv:1703.10593, eq. 2).

  Args:
    images: [B, H, W, C].
    targets: [B, H, W, C].

  Returns:
    Scalar.
  """
  return jnp.mean(jnp.abs(images - targets))
