"""Losses: arrays in, a scalar out; the adversarial ones by name."""

from collections.abc import Callable
from typing import NamedTuple

from cyclegan_jax.losses.adversarial import (
  hinge_discriminator_loss,
  hinge_generator_loss,
  lsgan_discriminator_loss,
  lsgan_generator_loss,
  minimax_generator_loss,
  vanilla_discriminator_loss,
  vanilla_generator_loss,
  wgan_discriminator_loss,
  wgan_generator_loss,
)
from cyclegan_jax.losses.blur import blurred_l1_loss, gaussian_blur
from cyclegan_jax.losses.penalties import (
  gradient_penalty,
  interpolate,
  r1_penalty,
)
from cyclegan_jax.losses.reconstruction import (
  cycle_loss,
  l1_loss,
  paired_l1_loss,
)
from cyclegan_jax.types import Array


class AdversarialLoss(NamedTuple):
  """Both sides of a GAN's objective, each to be minimised."""

  generator: Callable[[Array], Array]  # fake logits -> scalar
  discriminator: Callable[[Array, Array], Array]  # real, fake -> scalar


ADVERSARIAL_LOSSES = {
  'minimax': AdversarialLoss(
    minimax_generator_loss, vanilla_discriminator_loss
  ),
  'vanilla': AdversarialLoss(
    vanilla_generator_loss, vanilla_discriminator_loss
  ),
  'lsgan': AdversarialLoss(lsgan_generator_loss, lsgan_discriminator_loss),
  'hinge': AdversarialLoss(hinge_generator_loss, hinge_discriminator_loss),
  'wgan_gp': AdversarialLoss(wgan_generator_loss, wgan_discriminator_loss),
}

__all__ = [
  'ADVERSARIAL_LOSSES',
  'AdversarialLoss',
  'blurred_l1_loss',
  'cycle_loss',
  'gaussian_blur',
  'gradient_penalty',
  'hinge_discriminator_loss',
  'hinge_generator_loss',
  'interpolate',
  'l1_loss',
  'lsgan_discriminator_loss',
  'lsgan_generator_loss',
  'minimax_generator_loss',
  'paired_l1_loss',
  'r1_penalty',
  'vanilla_discriminator_loss',
  'vanilla_generator_loss',
  'wgan_discriminator_loss',
  'wgan_generator_loss',
]
