"""Warnings about common failures of GAN training.

Each check is a number, measured from the sample images or from the recorded
losses whenever samples are drawn. It is recorded as the metric
'diagnostics/<check>_<where>'. A check that fails several times in a row causes
one warning with advice. While only the discriminators are trained
(`config.warmup_steps`), no check counts but 'not_finite'.
"""

import collections
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cyclegan_jax.config import Config
from cyclegan_jax.report.samples import NOISE, Translations

PREFIX = 'diagnostics/'

_NUM_LOSSES = 20  # records of the losses that are checked together
# Share of an undecided discriminator's loss below which a loss counts as near
# zero. In healthy runs with vanilla and LSGAN the median is at 0.7 of it, and
# the lowest percentile at 0.24.
_NEAR_ZERO = 0.05
# Loss of a discriminator that cannot tell real from fake. The critic of
# wgan_gp has none: its loss is a distance, near zero when it has lost.
_UNDECIDED_LOSSES = {
  'vanilla': 2 * math.log(2),
  'minimax': 2 * math.log(2),
  'lsgan': 0.5,
  'hinge': 2.0,
}
# Images that differ by less than one of 255 levels are equal.
_LEVEL = 2 / 255


class Check(NamedTuple):
  """Threshold and warning of a check.

  One measurement may be chance, and some failures pass: hence the patience. A
  run has about sixteen measurements.
  """

  threshold: float
  fails_above: bool  # whether it fails above the threshold, or below
  message: str
  # Share of the generators' training before which it does not count; None if
  # it counts at any step.
  start: float | None = 0.1
  patience: int = 3  # failures in a row before the warning


CHECKS = {
  # Nine of ten: some batches are hard even for a discriminator that has won.
  'near_zero': Check(
    0.9,
    fails_above=True,
    message='the discriminator of {source_name} has won: its loss is near zero '
    'in {value:.0%} of the last records, so the generator learns nothing from '
    'it; lower config.optimizer.disc_learning_rate_ratio or raise '
    'config.loss.r1',
  ),
  # Healthy runs begin at 0.4 and are at 0.7 to 1.1 after a tenth of the run; a
  # generator with a constant output is at 0.
  'diversity': Check(
    0.15,
    fails_above=False,
    message='{way} has no diversity: different images have '
    'nearly the same translation ({value:.0%} of the differences are left); '
    'raise config.loss.cycle_{source}, lower config.optimizer.learning_rate, '
    'or restart with another config.seed',
  ),
  # A root mean square, which a small region that changes much raises. 0.03 is
  # 36 dB, where images look the same. Healthy runs have 0.3 to 0.5. Generators
  # may start near the identity, so this check starts later than the others.
  'change': Check(
    0.03,
    fails_above=False,
    message='{way} changes nothing: its translations are '
    'nearly its inputs (difference {value:.3f} on the scale of -1 to 1); lower '
    'config.loss.identity_{target} or config.loss.cycle_{source}, or enlarge '
    'the networks with config.generator.filters',
    start=0.3,
  ),
  # Healthy runs have 0.6 to 0.9, an untrained generator 0.
  'luminance': Check(
    -0.5,
    fails_above=False,
    message='{way} inverts colors: bright becomes dark '
    '(correlation {value:.2f}), which the cycle loss allows; unless '
    '{target_name} is a negative of {source_name}, set '
    'config.loss.identity_{target}=5 (it needs equal channels) or restart with '
    'another config.seed',
  ),
  # Healthy runs have 0.9 to 1.0.
  'hidden': Check(
    2.0,
    fails_above=True,
    message='{way} hides its input in invisible noise '
    '(arXiv:1712.02950): with other noise added to the translations, the '
    "error of the way back is {value:.1f} times as large, so 'back again' is "
    'misleading; lower config.loss.cycle_{source}',
  ),
  # Recorded at each step that is skipped.
  'not_finite': Check(
    0,
    fails_above=True,
    message='the loss was NaN or infinite, so this step was skipped; if this '
    'happens again, lower config.optimizer.learning_rate, look at the images '
    'of these steps, or set config.generator.dtype=float32',
    start=None,
    patience=1,
  ),
}
_PLACES = ('', '_a', '_b', '_ab', '_ba')


class Diagnostics:
  """Measures the checks of a run and collects their warnings.

  All of its state follows from the recorded metrics, so a resumed run restores
  it from them.
  """

  def __init__(self, config: Config):
    """Starts without measurements.

    Args:
      config: resolved config of the run.
    """
    self._data = config.data
    self._steps = config.steps
    self._warmup_steps = config.warmup_steps
    self._undecided_loss = _UNDECIDED_LOSSES.get(config.loss.adversarial)
    self._losses: dict[str, collections.deque[float]] = {
      domain: collections.deque(maxlen=_NUM_LOSSES) for domain in 'ab'
    }
    self._num_failures: collections.Counter[str] = collections.Counter()
    self._warnings: dict[str, str] = {}

  @property
  def warnings(self) -> list[str]:
    """All warnings so far, in order."""
    return list(self._warnings.values())

  def measure(self, samples: Mapping[str, Translations]) -> dict[str, float]:
    """Measures all checks.

    Args:
      samples: translations of the sample images by direction, 'ab' and 'ba'.

    Returns:
      Metrics of the step at which the samples were drawn.
    """
    values: dict[str, float | None] = {}
    for domain, losses in self._losses.items():
      if self._undecided_loss is not None and len(losses) == _NUM_LOSSES:
        limit = _NEAR_ZERO * self._undecided_loss
        values[f'near_zero_{domain}'] = share_below(losses, limit)
    for direction, images in samples.items():
      target = samples[direction[::-1]].real
      values |= {
        f'diversity_{direction}': diversity(images.fake, images.real, target),
        f'change_{direction}': change(images.real, images.fake),
        f'luminance_{direction}': luminance_correlation(
          images.real, images.fake
        ),
        f'hidden_{direction}': noise_sensitivity(images),
      }
    return {f'{PREFIX}{k}': v for k, v in values.items() if v is not None}

  def update(self, step: int, metrics: Mapping[str, float]) -> list[str]:
    """Adds the recorded metrics of a step.

    Args:
      step: number of completed steps.
      metrics: metrics of that step: the losses and what `measure` returned.

    Returns:
      New warnings.
    """
    for domain, losses in self._losses.items():
      name = f'discriminator/{domain}'
      if name in metrics and step > self._warmup_steps:
        losses.append(metrics[name])
    warnings = []
    for name, check in CHECKS.items():
      for place in _PLACES:
        key = f'{PREFIX}{name}{place}'
        if key not in metrics or not self._counts(check, step):
          continue
        value, limit = metrics[key], check.threshold
        has_failed = value > limit if check.fails_above else value < limit
        count = self._num_failures[key] + 1 if has_failed else 0
        self._num_failures[key] = count
        if count >= check.patience and key not in self._warnings:
          source, target = place[1:2], place[-1:]
          text = check.message.format(
            source=source,
            target=target,
            value=value,
            **self._names(source, target),
          )
          self._warnings[key] = f'{text} (step {step:,})'
          warnings.append(self._warnings[key])
    return warnings

  def restore(self, records: Iterable[Mapping[str, float]]) -> None:
    """Replaces the measurements by recorded ones; keeps the warnings.

    Args:
      records: metrics of each step with its 'step', as from `read_metrics`.
    """
    self._num_failures.clear()
    for losses in self._losses.values():
      losses.clear()
    for record in records:
      self.update(int(record['step']), record)

  def _names(self, source: str, target: str) -> dict[str, str]:
    """The names in a warning; none for a check of the whole run."""
    if not source:
      return {}
    return {
      'source_name': self._data.name_of(source),
      'target_name': self._data.name_of(target),
      'way': self._data.way(source + target, ' to '),
    }

  def _counts(self, check: Check, step: int) -> bool:
    if check.start is None:
      return True
    done = step - self._warmup_steps
    total = self._steps - self._warmup_steps
    return done > 0 and done >= check.start * total


def share_below(values: Sequence[float], limit: float) -> float:
  """Returns the share of the values that are below the limit, 0 to 1."""
  return float(np.mean(np.asarray(values) < limit))


def diversity(
  fake: np.ndarray, real: np.ndarray, target: np.ndarray
) -> float | None:
  """Measures how much of the differences between images translations keep.

  Args:
    fake: [N, H, W, C'] translations of `real`.
    real: [N, H, W, C] images.
    target: [M, H, W, C'] real images of the target domain, which may differ
      less than those of the source.

  Returns:
    0 if all translations are equal, about 1 if they differ as the images do;
    None if the images do not differ.
  """

  def spread(images: np.ndarray) -> float:
    return float(images.std(axis=0).mean())

  possible = min(spread(real), spread(target))
  return spread(fake) / possible if possible > _LEVEL else None


def change(real: np.ndarray, fake: np.ndarray) -> float | None:
  """Returns the root mean square difference of images and translations.

  Args:
    real: [N, H, W, C] images in [-1, 1].
    fake: [N, H, W, C'] translations of them.

  Returns:
    0 to 2; None if the numbers of channels differ.
  """
  if real.shape != fake.shape:
    return None
  return float(np.sqrt(np.mean(np.square(fake - real))))


def luminance_correlation(real: np.ndarray, fake: np.ndarray) -> float:
  """Returns Pearson's correlation of luminance over the pixels of an image.

  Args:
    real: [N, H, W, C] images in [-1, 1].
    fake: [N, H, W, C'] translations of them.

  Returns:
    The mean over the images, -1 to 1; an image of one color counts as 0.
  """
  x, y = _luminance(real), _luminance(fake)
  spread = x.std(axis=1) * y.std(axis=1)
  products = (x * y).mean(axis=1) - x.mean(axis=1) * y.mean(axis=1)
  return float(np.mean(products / np.where(spread > _LEVEL**2, spread, np.inf)))


def noise_sensitivity(images: Translations) -> float | None:
  """Measures how much invisible noise disturbs the way back.

  Noise that merely passes through adds itself to the error. If translations
  carry their inputs in invisible differences, noise of that size destroys them
  (arXiv:1712.02950).

  Returns:
    Error with noise / (error without + noise): about 1, or much more; None
    if the images have no `noisy_back`.
  """
  if images.noisy_back is None:
    return None
  noise = NOISE * math.sqrt(2 / math.pi)  # mean absolute value
  error = _l1(images.back, images.real)
  return _l1(images.noisy_back, images.real) / (error + noise)


def _l1(x: np.ndarray, y: np.ndarray) -> float:
  return float(np.mean(np.abs(x - y)))


def _luminance(images: np.ndarray) -> Any:
  """Returns float64 [N, H * W]; below three channels, the first is gray."""
  weights = (0.299, 0.587, 0.114) if images.shape[-1] >= 3 else (1.0,)
  gray = images[..., : len(weights)].astype(np.float64) @ np.array(weights)
  return gray.reshape(len(images), -1)
