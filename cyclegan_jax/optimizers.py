"""Optimizers by name, with the run's schedule inside."""

import jax.numpy as jnp
import optax

from cyclegan_jax.config import Config, ScheduleConfig
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
  of_generators = make_schedule(
    config.schedule,
    config.optimizer.learning_rate,
    epochs=config.epochs,
    steps_per_epoch=max(config.steps_per_epoch, 1),
  )
  limit, ratio = config.schedule.max_rate, 1.0
  if side == 'disc':
    ratio = config.optimizer.disc_learning_rate_ratio

  def schedule(step: Array) -> Array:
    rate = of_generators(step)
    rate = jnp.minimum(rate, limit) if limit else rate
    return rate if ratio == 1 else rate * ratio

  return schedule


def make_schedule(
  config: ScheduleConfig,
  learning_rate: float,
  *,
  epochs: int,
  steps_per_epoch: int,
) -> optax.Schedule:
  """The learning rate as a function of the step.

  Args:
    config: which schedule.
    learning_rate: at the start.
    epochs: of the whole run.
    steps_per_epoch: at least 1.

  Returns:
    A function from an int32 step to a float32 rate. With e the epoch:
    constant: the rate; linear: rate * (1 - max(0, e + 1 - n) / (d + 1)) with
    d = decay_epochs after n others, as the authors' code has it, and never
    below the last epoch's; cosine: half a cosine over the run, to zero;
    step: rate * factor^(e // step_epochs).
  """

  def schedule(step: Array) -> Array:
    epoch = jnp.asarray(step) // steps_per_epoch
    if config.name == 'constant':
      factor = jnp.ones(())
    elif config.name == 'linear':
      decay = min(decay_epochs(config, epochs), epochs)
      past = jnp.clip(epoch + 1 - (epochs - decay), 0, decay)
      factor = 1 - past / (decay + 1)
    elif config.name == 'cosine':
      share = jnp.minimum(step / (epochs * steps_per_epoch), 1)
      factor = 0.5 * (1 + jnp.cos(jnp.pi * share))
    else:
      falls = (epoch // config.step_epochs).astype(jnp.float32)
      factor = config.step_factor**falls
    return jnp.asarray(learning_rate * factor, jnp.float32)

  return schedule


def decay_epochs(config: ScheduleConfig, epochs: int) -> int:
  """Epochs of the linear schedule's fall: by default half of the run's."""
  return epochs // 2 if config.decay_epochs < 0 else config.decay_epochs


def cycle_factor(config: Config, step: Array) -> Array | float:
  """Factor of the cycle loss's weights (arXiv:2408.15374, section 4).

  Args:
    config: its schedule's cycle_end, and how many steps it has.
    step: int32.

  Returns:
    1 at first; it falls, or rises, linearly to cycle_end after the last step.
  """
  if config.schedule.cycle_end == 1:
    return 1.0
  steps = config.steps or config.epochs * max(config.steps_per_epoch, 1)
  share = jnp.minimum(step / steps, 1)
  return 1 + share * (config.schedule.cycle_end - 1)
