"""Penalties on a discriminator's gradient with respect to its input."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cyclegan_jax.types import Array, Key

Judge = Callable[[Array], Array]  # images [B, H, W, C] -> logits [B, h, w, 1]


def _squared_norms(judge: Judge, images: Array) -> Array:
  """[B]: square of the norm of the gradient of an image's mean logit.

  The mean over patches, not the sum, so that a weight means the same at any
  size of image.
  """

  def total(x: Array) -> Array:
    return jnp.sum(jnp.mean(judge(x), axis=(1, 2, 3)))

  gradient = jax.grad(total)(images)
  if gradient.dtype.itemsize < 4:
    # A sum of squares in bfloat16 loses all but the first digits.
    gradient = gradient.astype(jnp.float32)
  return jnp.sum(jnp.square(gradient), axis=(1, 2, 3))


def gradient_penalty(judge: Judge, images: Array) -> Array:
  """`(|grad D| - 1)^2` of WGAN-GP (arXiv:1704.00028, eq. 3).

  Args:
    judge: the discriminator: [B, H, W, C] to logits [B, h, w, 1].
    images: [B, H, W, C] points between real and fake, from `interpolate`.

  Returns:
    Scalar, the mean over images.
  """
  # The epsilon keeps the root's gradient finite where D is flat.
  norms = jnp.sqrt(_squared_norms(judge, images) + 1e-12)
  return jnp.mean(jnp.square(norms - 1))


def r1_penalty(judge: Judge, images: Array) -> Array:
  """`|grad D(real)|^2 / 2`, zero-centred (arXiv:1801.04406, eq. 9).

  Args:
    judge: the discriminator: [B, H, W, C] to logits [B, h, w, 1].
    images: [B, H, W, C] real images.

  Returns:
    Scalar, the mean over images.
  """
  return 0.5 * jnp.mean(_squared_norms(judge, images))


def interpolate(keys: Key, real: Array, fake: Array) -> Array:
  """A uniformly drawn point between each pair (arXiv:1704.00028, alg. 1).

  Args:
    keys: [B] one key an example.
    real: [B, H, W, C].
    fake: [B, H, W, C].

  Returns:
    [B, H, W, C].
  """
  share = jax.vmap(jax.random.uniform)(keys)[:, None, None, None]
  share = share.astype(real.dtype)
  return share * real + (1 - share) * fake
