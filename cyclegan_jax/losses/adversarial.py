"""Adversarial losses on raw logits.

Logits are the discriminator's scores of patches, [B, h, w, 1]; every loss is
a scalar, the mean over all patches, and each side minimizes its own. With a
logit z the discriminator's probability is D = sigmoid(z), so
-log D = softplus(-z) and -log(1 - D) = softplus(z), which neither overflow
nor need an epsilon.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from cyclegan_jax import register
from cyclegan_jax.types import Array


class AdversarialLoss(NamedTuple):
  """Both sides of a GAN's objective.

  Attributes:
    generator: fake logits to a scalar.
    discriminator: real logits and fake logits to a scalar.
  """

  generator: Callable[[Array], Array]
  discriminator: Callable[[Array, Array], Array]


def vanilla_discriminator_loss(real_logits: Array, fake_logits: Array) -> Array:
  """Cross-entropy -log D(real) - log(1 - D(fake)) (arXiv:1406.2661, eq. 1)."""
  real = jnp.mean(nn.softplus(-real_logits))
  return real + jnp.mean(nn.softplus(fake_logits))


def vanilla_generator_loss(fake_logits: Array) -> Array:
  """Non-saturating loss -log D(fake) (arXiv:1406.2661, section 3).

  Its gradient is large where the discriminator is sure.
  """
  return jnp.mean(nn.softplus(-fake_logits))


def minimax_generator_loss(fake_logits: Array) -> Array:
  """log(1 - D(fake)), the formula as first written (arXiv:1406.2661, eq. 1).

  Negative; its gradient vanishes where the discriminator is sure.
  """
  return -jnp.mean(nn.softplus(fake_logits))


def lsgan_discriminator_loss(real_logits: Array, fake_logits: Array) -> Array:
  """Least squares to the targets 1 and 0 (arXiv:1611.04076, eq. 9).

  Not halved here: the CycleGAN paper halves it by its weight.
  """
  real = jnp.mean(jnp.square(real_logits - 1))
  return real + jnp.mean(jnp.square(fake_logits))


def lsgan_generator_loss(fake_logits: Array) -> Array:
  """Least squares of the fakes' logits to 1 (arXiv:1611.04076, eq. 9)."""
  return jnp.mean(jnp.square(fake_logits - 1))


def hinge_discriminator_loss(real_logits: Array, fake_logits: Array) -> Array:
  """Hinge loss (arXiv:1705.02894, eq. 16); zero beyond a margin of 1."""
  return jnp.mean(nn.relu(1 - real_logits)) + jnp.mean(nn.relu(1 + fake_logits))


def wgan_discriminator_loss(real_logits: Array, fake_logits: Array) -> Array:
  """Negated estimate of the Wasserstein distance (arXiv:1704.00028, eq. 3).

  Without the penalty of that equation, which is `gradient_penalty`.
  """
  return jnp.mean(fake_logits) - jnp.mean(real_logits)


def negated_score_generator_loss(fake_logits: Array) -> Array:
  """Negated mean logit: the generator's side of both hinge and WGAN."""
  return -jnp.mean(fake_logits)


ADVERSARIAL_LOSSES = {
  'minimax': AdversarialLoss(
    minimax_generator_loss, vanilla_discriminator_loss
  ),
  'vanilla': AdversarialLoss(
    vanilla_generator_loss, vanilla_discriminator_loss
  ),
  'lsgan': AdversarialLoss(lsgan_generator_loss, lsgan_discriminator_loss),
  'hinge': AdversarialLoss(
    negated_score_generator_loss, hinge_discriminator_loss
  ),
  'wgan_gp': AdversarialLoss(
    negated_score_generator_loss, wgan_discriminator_loss
  ),
}


def adversarial_loss(name: str) -> AdversarialLoss:
  """The adversarial loss of a name, built in or registered."""
  loss = ADVERSARIAL_LOSSES.get(name)
  return loss or register.find('adversarial_loss', name)
