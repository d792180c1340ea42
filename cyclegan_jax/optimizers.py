"""Optimizers by name, with the run's schedule inside."""

import optax

from cyclegan_jax.config import Config
from cyclegan_jax.schedules import make_schedule
from cyclegan_jax.types import Array


def make_optimizer(
  config: Config, *, side: str
) -> optax.GradientTransformation:
  """The joint optimizer of both generators or of both discriminators.

  Args:
    config: its optimizer and schedule sections, epochs, steps_per_epoch.
    side: 'gen' or 'disc', which has a learning rate of its own.

  Returns:
    An optax transformation whose state counts the steps for the schedule.
  """
  options = config.optimizer
  rate = learning_rate_schedule(config, side=side)
  # Held generators count no steps, but their rates are those of the run's.
  held = config.warmup_steps if side == 'gen' else 0

  def schedule(count: Array) -> Array:
    return rate(count + held)

  match options.name:
    case 'adam':
      return optax.adam(schedule, options.b1, options.b2, options.eps)
    case 'adamw':
      return optax.adamw(
        schedule,
        options.b1,
        options.b2,
        options.eps,
        weight_decay=options.weight_decay,
      )
    case 'rmsprop':
      return optax.rmsprop(schedule, decay=options.b2, eps=options.eps)
    case _:
      return optax.sgd(schedule, momentum=options.b1)


def learning_rate_schedule(config: Config, *, side: str) -> optax.Schedule:
  """The learning rate of one side, 'gen' or 'disc', by step."""
  rate = config.optimizer.learning_rate
  if side == 'disc':
    rate *= config.optimizer.disc_learning_rate_ratio
  return make_schedule(
    config.schedule,
    rate,
    epochs=config.epochs,
    steps_per_epoch=max(config.steps_per_epoch, 1),
  )
