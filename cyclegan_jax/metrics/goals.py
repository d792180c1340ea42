"""The best value of each metric, and the choice of the best checkpoint."""

import math
from collections.abc import Sequence

from cyclegan_jax.config import Config
from cyclegan_jax.errors import ConfigError

LOWER, HIGHER = -math.inf, math.inf

# Scores of evaluations. The stripes score of zebras is best at 1, as there can
# be too many stripes; horses have none.
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
_ALL_SCORES = [
  f'{_EVALUATION}{direction}/{name.rpartition("/")[2]}'
  for direction in ('ab', 'ba')
  for name in dict.fromkeys(n.rpartition('/')[2] for n in _BEST_AT)
]
_LOSSES = 'generator/'


def best_at(metric: str) -> float | None:
  """The best value of a metric.

  Args:
    metric: name in a run's metrics, such as 'evaluation/ab/psnr' or
      'generator/loss'; or 'psnr' alone if it is the same in both directions.

  Returns:
    A number, `LOWER` or `HIGHER`; None if it is not known.
  """
  if metric.startswith(_LOSSES):
    return LOWER
  score = metric.removeprefix(_EVALUATION)
  return _BEST_AT.get(score, _BEST_AT.get(score.partition('/')[2]))


def badness(metric: str, value: float, *, mode: str = 'auto') -> float:
  """A number that is lower the better a metric's value is.

  Args:
    metric: its name in the records of a run.
    value: its value, finite.
    mode: 'auto', 'min' or 'max', as `config.checkpoint.best_mode`; 'auto'
      minimizes a metric of which nothing is known.
  """
  goal = best_at(metric) if mode == 'auto' else None
  if mode == 'max' or goal == HIGHER:
    return -value
  return value if goal in (None, LOWER) else abs(value - goal)


def check_best_metric(
  config: Config, names: Sequence[str], *, scores: Sequence[str] | None = None
) -> None:
  """Checks that the run has `checkpoint.best_metric`, and that its mode fits.

  Args:
    config: its checkpoint and evaluation sections.
    names: the metrics of a step.
    scores: the metrics of an evaluation; None before they are known.

  Raises:
    ConfigError: there is no such metric, the mode would keep the worst
      checkpoint, or 'auto' cannot know which value is better.
  """
  metric, mode = config.checkpoint.best_metric, config.checkpoint.best_mode
  if not metric:
    return
  is_score = metric.startswith(_EVALUATION)
  if is_score and not config.evaluation.every_steps:
    raise ConfigError(
      f'config.checkpoint.best_metric={metric!r} is a score of evaluations, '
      'and this run has none: set config.evaluation.every_steps'
    )
  goal = best_at(metric)
  is_known = metric in [*names, *(scores or ())] or (
    is_score and scores is None and best_at(metric.removesuffix('_std'))
  )
  if not is_known:
    known = [*names, *(scores or _ALL_SCORES * is_score)]
    raise ConfigError(
      f'config.checkpoint.best_metric={metric!r} does not exist in this run: '
      f'choose from {", ".join(known)}'
    )
  if goal is not None and mode == ('max' if goal == LOWER else 'min'):
    better = {LOWER: 'lower', HIGHER: 'higher'}.get(goal, f'nearer to {goal:g}')
    raise ConfigError(
      f'config.checkpoint.best_mode={mode!r} would keep the worst checkpoint: '
      f'{metric} is better when it is {better}. Leave out best_mode'
    )
  if goal is None and mode == 'auto':
    raise ConfigError(
      f'config.checkpoint.best_metric={metric!r} has no known best value: set '
      "config.checkpoint.best_mode to 'min' or 'max', or choose another "
      "metric, such as 'generator/loss'"
    )
