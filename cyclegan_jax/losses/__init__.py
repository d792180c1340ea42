"""Losses: arrays in, a scalar out."""

from cyclegan_jax.losses.adversarial import (
  ADVERSARIAL_LOSSES,
  adversarial_loss,
)
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

__all__ = [
  'ADVERSARIAL_LOSSES',
  'adversarial_loss',
  'cycle_loss',
  'gradient_penalty',
  'interpolate',
  'l1_loss',
  'paired_l1_loss',
  'r1_penalty',
]
