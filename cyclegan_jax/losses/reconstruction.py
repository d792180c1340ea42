"""Losses between an image and what it should be."""

import jax.numpy as jnp

from cyclegan_jax.losses.blur import blurred_l1_loss
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


def cycle_loss(
  images: Array, targets: Array, *, blur: float = 0.0, sigma: float = 3.0
) -> Array:
  """`l1_loss`, in part or as a whole of blurred images.

  Args:
    images: [B, H, W, C] that went round the cycle.
    targets: [B, H, W, C].
    blur: share in [0, 1] of `blurred_l1_loss`.
    sigma: of the blur, in pixels.

  Returns:
    Scalar.
  """
  if not blur:
    return l1_loss(images, targets)
  blurred = blurred_l1_loss(images, targets, sigma)
  return (1 - blur) * l1_loss(images, targets) + blur * blurred


def paired_l1_loss(images: Array, targets: Array, is_pair: Array) -> Array:
  """L1 to the true translation, where there is one (arXiv:1611.07004, eq. 3).

  As a mean over all examples it is the same over any parts of a batch, and
  what a pair weighs does not depend on how many others there are.

  Args:
    images: [B, H, W, C] translations.
    targets: [B, H, W, C] what they should be; of no meaning for others.
    is_pair: bool [B].

  Returns:
    Scalar: the mean of `|images - targets|`, zero for what is no pair.
  """
  errors = jnp.abs(images - targets)
  return jnp.mean(jnp.where(is_pair[:, None, None, None], errors, 0))
