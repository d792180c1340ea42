"""Which value of a metric is the best: the one table of that."""

import math
from collections.abc import Sequence

from cyclegan_jax.config import LogConfig
from cyclegan_jax.errors import ConfigError

LOWER, HIGHER = -math.inf, math.inf

# Of evaluations. Stripes are those of a zebra at 1, of which there can be too
# many; a horse has none.
_BEST_AT = {
  'fid': LOWER,
  'kid': LOWER,
  'fd_effnet': LOWER,
  'kd_effnet': LOWER,
  'l1': LOWER,
  'psnr': HIGHER,
  'ssim': HIGHER,
  'cycle_l1': LOWER,
  'background_l1': LOWER,
  'pixel_accuracy': HIGHER,
  'class_accuracy': HIGHER,
  'mean_iou': HIGHER,
  'ab/stripes': 1.0,
  'ba/stripes': LOWER,
}
_EVALUATION = 'evaluation/'
# Of a step: what generators learn to lower; and what tells by neither
# direction how good they are.
_LOSSES = 'generator/'
_UNRANKED = ('discriminator/', 'doctor/', 'learning_rate')


def best_at(metric: str) -> float | None:
  """The value at which a metric is best.

  Args:
    metric: its name in the records of a run: 'evaluation/ab/psnr',
      'generator/loss'; of evaluations also 'psnr' alone, where both
      directions have one.

  Returns:
    A number, `LOWER` or `HIGHER`; None where it is not known.
  """
  if metric.startswith(_LOSSES):
    return LOWER
  inner = metric.removeprefix(_EVALUATION)
  return _BEST_AT.get(inner, _BEST_AT.get(inner.partition('/')[2]))


def badness(metric: str, value: float, *, mode: str = 'auto') -> float:
  """A number that is the lower the better a metric's value is.

  Args:
    metric: its name in the records of a run.
    value: of it, finite.
    mode: 'auto', 'min' or 'max', as `config.log.best_mode`; 'auto' takes a
      metric that is not known for one to be lowered.
  """
  goal = best_at(metric) if mode == 'auto' else None
  if mode == 'max' or goal == HIGHER:
    return -value
  return value if goal in (None, LOWER) else abs(value - goal)


def check_best(log: LogConfig, names: Sequence[str] = ()) -> None:
  """Makes sure that the best checkpoint is not the worst.

  Args:
    log: its best_metric and best_mode.
    names: of the run's metrics, once they are known.

  Raises:
    ConfigError: the mode does not fit the metric, it takes a mode and has
      none, or no evaluation has such a metric.
  """
  metric, mode = log.best_metric, log.best_mode
  goal = best_at(metric)
  is_evaluation = metric.startswith(_EVALUATION)
  if is_evaluation and goal is None and not _is_spread(metric):
    known = dict.fromkeys(name.rpartition('/')[2] for name in _BEST_AT)
    raise ConfigError(
      f'config.log.best_metric={metric!r} is unknown: evaluations have '
      f'{_EVALUATION}ab/ and {_EVALUATION}ba/ with {", ".join(known)}'
    )
  if goal is not None and mode == ('max' if goal == LOWER else 'min'):
    better = {LOWER: 'the lower', HIGHER: 'the higher'}.get(
      goal, f'the nearer to {goal:g}'
    )
    raise ConfigError(
      f'config.log.best_mode={mode!r} would keep the worst checkpoint, as '
      f'{metric} is the better {better} it is: leave out best_mode'
    )
  is_real = is_evaluation or metric in names or metric.startswith(_UNRANKED)
  if goal is None and mode == 'auto' and metric and is_real:
    raise ConfigError(
      f'config.log.best_metric={metric!r} says by neither direction what is '
      "best: set config.log.best_mode to 'min' or 'max', or choose another "
      "such as 'generator/loss'"
    )


def _is_spread(metric: str) -> bool:
  name = metric.removesuffix('_std')
  return name != metric and best_at(name) is not None
