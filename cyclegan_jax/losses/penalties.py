"""Penalties on a discriminator's gradient with respect to its input."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cyclegan_jax.types import Array, Key

# Images [B, H, W, C] to logits [B, h, w, 1].
Discriminator = Callable[[Array], Array]


def gradient_penalty(discriminator: Discriminator, images: Array) -> Array:
  """`(|grad D| - 1)^2` of WGAN-GP (arXiv:1704.00028, eq. 3).

  Args:
    discriminator: [B, H, W, C] to logits [B, h, w, 1].
    images: [B, H, W, C] points between real and fake, from `interpolate`.

  Returns:
    Scalar, the mean over images.
  """
  # The epsilon keeps the root's gradient finite where D is flat.
  norms = jnp.sqrt(_squared_gradient_norms(discriminator, images) + 1e-12)
  return jnp.mean(jnp.square(norms - 1))


def r1_penalty(discriminator: Discriminator, images: Array) -> Array:
  """`|grad D(real)|^2 / 2`, zero-centered (arXiv:1801.04406, eq. 9).

  Args:
    discriminator: [B, H, W, C] to logits [B, h, w, 1].
    images: [B, H, W, C] real images.

  Returns:
    Scalar, the mean over images.
  """
  return 0.5 * jnp.mean(_squared_gradient_norms(discriminator, images))


def interpolate(keys: Key, real: Array, fake: Array) -> Array:
  """Draws a uniform point between each pair (arXiv:1704.00028, alg. 1).

  Args:
    keys: [B], one key per example.
    real: [B, H, W, C].
    fake: [B, H, W, C].

  Returns:
    [B, H, W, C].
  """
  share = jax.vmap(jax.random.uniform)(keys)[:, None, None, None]
  share = share.astype(real.dtype)
  return share * real + (1 - share) * fake


def _squared_gradient_norms(
  discriminator: Discriminator, images: Array
) -> Array:
  """Squared norm [B] of the gradient of each image's mean logit.

  The mean over patches, not the sum, so that a penalty's weight means the
  same at any image size.
  """

  def sum_of_mean_logits(x: Array) -> Array:
    return jnp.sum(jnp.mean(discriminator(x), axis=(1, 2, 3)))

  gradient = jax.grad(sum_of_mean_logits)(images)
  if gradient.dtype.itemsize < 4:
    # A sum of squares in bfloat16 loses all but the first digits.
    gradient = gradient.astype(jnp.float32)
  return jnp.sum(jnp.square(gradient), axis=(1, 2, 3))
