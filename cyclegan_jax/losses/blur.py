"""A reconstruction that need not have every hair in its place."""

import jax
import jax.numpy as jnp

from cyclegan_jax.types import Array


def blurred_l1_loss(images: Array, targets: Array, sigma: float) -> Array:
  """Mean absolute difference of both as a Gaussian blurs them.

  The blur is that of DPED's colour loss (arXiv:1704.02470, eq. 2), which
  leaves colours and large shapes to be compared, and no texture; that takes
  squares of a photo's pairs, this L1 as the cycle does.

  Args:
    images: [B, H, W, C].
    targets: [B, H, W, C].
    sigma: of the Gaussian, in pixels.

  Returns:
    Scalar; 0 for a difference that is finer than the blur.
  """
  # The blur is linear: that of the difference is the difference of both.
  return jnp.mean(jnp.abs(gaussian_blur(images - targets, sigma)))


def gaussian_blur(images: Array, sigma: float) -> Array:
  """Each channel by itself, with weights that add up to one at borders too.

  Args:
    images: [B, H, W, C].
    sigma: in pixels.

  Returns:
    [B, H, W, C], of the images' type.
  """
  rows, columns = (
    _weights(size, sigma).astype(images.dtype) for size in images.shape[1:3]
  )
  # Two products of matrices: no borders to pad, and any sigma costs the same.
  return jnp.einsum(
    'ih,bhwc,jw->bijc',
    rows,
    images,
    columns,
    precision=jax.lax.Precision.HIGHEST,
  )


def _weights(size: int, sigma: float) -> Array:
  """[size, size]: a row has the shares of all places in one."""
  place = jnp.arange(size, dtype=jnp.float32)
  distance = (place[:, None] - place[None, :]) / sigma
  return jax.nn.softmax(-0.5 * jnp.square(distance), axis=1)
