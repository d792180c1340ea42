"""Adversarial losses on raw logits; each side is to be minimised.

With a logit z the discriminator's probability is D = sigmoid(z), so
-log D = softplus(-z) and -log(1 - D) = softplus(z), which neither overflow
nor need an epsilon.
"""

import flax.linen as nn
import jax.numpy as jnp

from cyclegan_jax.types import Array


def vanilla_discriminator_loss(real_logits: Array, fake_logits: Array) -> Array:
  """Cross-entropy -log D(real) - log(1 - D(fake)) (arXiv:1406.2661, eq. 1).

  Args:
    real_logits: [B, h, w, 1] scores of real patches.
    fake_logits: [B, h, w, 1] scores of translated patches.

  Returns:
    Scalar; 2 log 2 where the discriminator is undecided.
  """
  real = jnp.mean(nn.softplus(-real_logits))
  return real + jnp.mean(nn.softplus(fake_logits))


def vanilla_generator_loss(fake_logits: Array) -> Array:
  """The non-saturating -log D(fake) (arXiv:1406.2661, section 3).

  Args:
    fake_logits: [B, h, w, 1] scores of translated patches.

  Returns:
    Scalar; its gradient is large where the discriminator is sure.
  """
  return jnp.mean(nn.softplus(-fake_logits))


def minimax_generator_loss(fake_logits: Array) -> Array:
  """log(1 - D(fake)), the formula as first written (arXiv:1406.2661, eq. 1).

  Args:
    fake_logits: [B, h, w, 1] scores of translated patches.

  Returns:
    Scalar, negative; its gradient vanishes where the discriminator is sure.
  """
  return -jnp.mean(nn.softplus(fake_logits))


def lsgan_discriminator_loss(real_logits: Array, fake_logits: Array) -> Array:
  """Least squares to the targets 1 and 0 (arXiv:1611.04076, eq. 9).

  Args:
    real_logits: [B, h, w, 1] scores of real patches.
    fake_logits: [B, h, w, 1] scores of translated patches.

  Returns:
    Scalar; not halved, as the paper of CycleGAN halves it by its weight.
  """
  real = jnp.mean(jnp.square(real_logits - 1))
  return real + jnp.mean(jnp.square(fake_logits))


def lsgan_generator_loss(fake_logits: Array) -> Array:
  """Least squares of the fakes' scores to 1 (arXiv:1611.04076, eq. 9).

  Args:
    fake_logits: [B, h, w, 1] scores of translated patches.

  Returns:
    Scalar, zero once every fake scores as real.
  """
  return jnp.mean(jnp.square(fake_logits - 1))


def hinge_discriminator_loss(real_logits: Array, fake_logits: Array) -> Array:
  """Discriminator side of the hinge loss (arXiv:1705.02894, eq. 16).

  Args:
    real_logits: [B, h, w, 1] scores of real patches.
    fake_logits: [B, h, w, 1] scores of translated patches.

  Returns:
    Scalar, zero once every patch is past its margin.
  """
  return jnp.mean(nn.relu(1 - real_logits)) + jnp.mean(nn.relu(1 + fake_logits))


def hinge_generator_loss(fake_logits: Array) -> Array:
  """Generator side of the hinge loss (arXiv:1705.02894, eq. 16).

  Args:
    fake_logits: [B, h, w, 1] scores of translated patches.

  Returns:
    Scalar, unbounded on both sides.
  """
  return -jnp.mean(fake_logits)


def wgan_discriminator_loss(real_logits: Array, fake_logits: Array) -> Array:
  """The critic's negated estimate of the Wasserstein distance.

  arXiv:1704.00028, eq. 3 without its penalty (`penalties.gradient_penalty`).

  Args:
    real_logits: [B, h, w, 1] scores of real patches.
    fake_logits: [B, h, w, 1] scores of translated patches.

  Returns:
    Scalar, unbounded on both sides.
  """
  return jnp.mean(fake_logits) - jnp.mean(real_logits)


def wgan_generator_loss(fake_logits: Array) -> Array:
  """The critic's score of the fakes, negated (arXiv:1704.00028, alg. 1).

  Args:
    fake_logits: [B, h, w, 1] scores of translated patches.

  Returns:
    Scalar, unbounded on both sides.
  """
  return -jnp.mean(fake_logits)
