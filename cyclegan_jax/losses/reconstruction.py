"""Losses between an image and its target."""

import jax
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


def cycle_loss(
  images: Array, targets: Array, *, blur: float = 0.0, sigma: float = 3.0
) -> Array:
  """L1 loss, a share of which compares blurred images.

  Blurring both images leaves their colors and large shapes to be compared
  and no texture, as in DPED's color loss (arXiv:1704.02470, eq. 2), which
  squares the difference.

  Args:
    images: [B, H, W, C] reconstructed images.
    targets: [B, H, W, C].
    blur: share in [0, 1] of the blurred L1 loss.
    sigma: standard deviation of the Gaussian blur in pixels.

  Returns:
    Scalar.
  """
  if not blur:
    return l1_loss(images, targets)
  # The blur is linear: that of the difference is the difference of both.
  blurred = jnp.mean(jnp.abs(gaussian_blur(images - targets, sigma)))
  return (1 - blur) * l1_loss(images, targets) + blur * blurred


def gaussian_blur(images: Array, sigma: float) -> Array:
  """Blurs each channel; at borders the weights are normalized to sum to 1.

  Args:
    images: [B, H, W, C].
    sigma: standard deviation in pixels.

  Returns:
    [B, H, W, C], of the images' dtype.
  """
  rows, columns = (
    _gaussian_weights(size, sigma).astype(images.dtype)
    for size in images.shape[1:3]
  )
  # Two matrix products: no borders to pad, and any sigma costs the same.
  return jnp.einsum(
    'ih,bhwc,jw->bijc',
    rows,
    images,
    columns,
    precision=jax.lax.Precision.HIGHEST,
  )


def _gaussian_weights(size: int, sigma: float) -> Array:
  """Weights [size, size]: row i holds those of all places around place i."""
  place = jnp.arange(size, dtype=jnp.float32)
  distance = (place[:, None] - place[None, :]) / sigma
  return jax.nn.softmax(-0.5 * jnp.square(distance), axis=1)


def paired_l1_loss(images: Array, targets: Array, is_pair: Array) -> Array:
  """L1 loss over the examples that have a target (arXiv:1611.07004, eq. 3).

  The mean is taken over all examples, paired or not: so it is the same over
  any partition of a batch, and the weight of one pair does not depend on the
  number of others.

  Args:
    images: [B, H, W, C] translations.
    targets: [B, H, W, C] targets; ignored for unpaired examples.
    is_pair: bool [B].

  Returns:
    Scalar: the mean of `|images - targets|`, zero for unpaired examples.
  """
  errors = jnp.abs(images - targets)
  return jnp.mean(jnp.where(is_pair[:, None, None, None], errors, 0))
