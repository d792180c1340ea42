"""Watches for what goes wrong most in training, and says so once.

Each disease has a sign: a number that `examine` takes at each sample time
from the sample pictures or from the losses on record. It is written among the
metrics as 'doctor/<sign>_<where>'. A sign that is beyond its limit several
times in a row is told, with advice. While the generators are held for a warm-up
nothing is judged of how the networks do: they are not in training together.
"""

import collections
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cyclegan_jax.config import Config
from cyclegan_jax.report.samples import NOISE, Translations

# The losses of so many records are looked at together.
_WINDOW = 20
# A loss is near zero below this share of an undecided discriminator's. In
# healthy runs of vanilla and LSGAN the median is at 0.7, and the lowest
# hundredth at 0.24.
_NEAR_ZERO = 0.05
# What the discriminator loses that can't tell real from fake. A critic of
# wgan_gp has no such number: its loss is a distance, near zero when it is lost.
_UNDECIDED = {
  'vanilla': 2 * math.log(2),
  'minimax': 2 * math.log(2),
  'lsgan': 0.5,
  'hinge': 2.0,
}
# Below one of 255 levels images do not differ: nothing can be compared.
_SAME = 2 / 255


class Sign(NamedTuple):
  """Where a number becomes a disease, and the words for it.

  What one moment shows may be chance, and what mends itself is no disease:
  hence the patience. A run has about sixteen sample times.
  """

  limit: float
  is_high: bool  # whether the disease is above the limit, or below
  words: str
  # Share of the generators' training before which it does not count; None
  # where it counts at any step.
  after: float | None = 0.1
  patience: int = 3  # times in a row that it is seen before it is told


SIGNS = {
  # Nine of ten: a batch now and then is hard for a discriminator that has won.
  'near_zero': Sign(
    0.9,
    is_high=True,
    words='the discriminator of {source} has won: its loss is near zero in '
    '{value:.0%} of the last records, so the generator learns nothing from '
    'it; lower config.optimizer.disc_learning_rate_ratio or raise '
    'config.loss.r1',
  ),
  # Healthy runs begin at 0.4 and have 0.7 to 1.1 after their first tenth; a
  # generator that always paints the same picture has 0.
  'diversity': Sign(
    0.15,
    is_high=False,
    words='{source} to {target} has no diversity: it makes nearly the same of '
    'different images ({value:.0%} of the differences between images are '
    'left); raise config.loss.cycle_{source}, lower '
    'config.optimizer.learning_rate, or start anew with another config.seed',
  ),
  # Root of the mean square, which a small part that changes much raises: 0.03
  # is 36 dB, where the eye takes two pictures for the same. Healthy runs have
  # 0.3 to 0.5. Generators may well begin near the identity, so that comes
  # later than the others.
  'change': Sign(
    0.03,
    is_high=False,
    words='{source} to {target} changes nothing: its translations are nearly '
    'its input (they differ by {value:.3f} on the scale of -1 to 1); lower '
    'config.loss.identity_{target} or config.loss.cycle_{source}, or make the '
    'networks larger by config.generator.filters',
    after=0.3,
  ),
  # Healthy runs have 0.6 to 0.9, an untrained generator 0.
  'luminance': Sign(
    -0.5,
    is_high=False,
    words='{source} to {target} inverts colours: what is bright becomes dark '
    '(correlation {value:.2f}), which the cycle allows; unless {target} is a '
    'negative of {source}, set config.loss.identity_{target} to 5 (it needs '
    'equal channels) or start anew with another config.seed',
  ),
  # Healthy runs have 0.9 to 1.0.
  'hidden': Sign(
    2.0,
    is_high=True,
    words='{source} to {target} hides its input in noise: the way back is '
    '{value:.1f} times as wrong as it should be when noise that no eye sees is '
    "added to the translations, so 'back again' shows less than it seems "
    '(arXiv:1712.02950); lower config.loss.cycle_{source}',
  ),
  # Recorded for each step that was left out.
  'not_finite': Sign(
    0,
    is_high=True,
    words='the loss was NaN or infinite, so this step was left out; if there '
    'are more, lower config.optimizer.learning_rate, look at the images of '
    'these steps, and try config.generator.dtype=float32 if it is another',
    after=None,
    patience=1,
  ),
}


class Doctor:
  """Keeps the losses on record and how often each sign was seen.

  All of it follows from the records: a run that goes on reads them back.
  """

  def __init__(self, config: Config):
    """Nothing is seen yet.

    Args:
      config: resolved.
    """
    self._steps = config.steps
    self._held = config.warmup_steps
    self._undecided = _UNDECIDED.get(config.loss.adversarial)
    self._losses: dict[str, collections.deque[float]] = {
      domain: collections.deque(maxlen=_WINDOW) for domain in 'ab'
    }
    self._times_seen: collections.Counter[str] = collections.Counter()
    self._told: dict[str, str] = {}

  @property
  def told(self) -> list[str]:
    """What was told so far, in the order of telling."""
    return list(self._told.values())

  def examine(self, samples: Mapping[str, Translations]) -> dict[str, float]:
    """The signs at a sample time, as metrics of its step.

    Args:
      samples: by direction, 'ab' and 'ba'.
    """
    signs: dict[str, float | None] = {}
    for domain, losses in self._losses.items():
      if self._undecided is not None and len(losses) == _WINDOW:
        limit = _NEAR_ZERO * self._undecided
        signs[f'near_zero_{domain}'] = share_below(losses, limit)
    for direction, made in samples.items():
      target = samples[direction[::-1]].real
      signs |= {
        f'diversity_{direction}': diversity(made.fake, made.real, target),
        f'change_{direction}': change(made.real, made.fake),
        f'luminance_{direction}': luminance_correlation(made.real, made.fake),
        f'hidden_{direction}': hidden(made),
      }
    return {f'doctor/{k}': v for k, v in signs.items() if v is not None}

  def read(self, step: int, metrics: Mapping[str, float]) -> list[str]:
    """Takes note of a record.

    Args:
      step: the number of steps done.
      metrics: of that step; the losses and what `examine` returned are read.

    Returns:
      What is to be told, for the first time.
    """
    for domain, losses in self._losses.items():
      if f'discriminator/{domain}' in metrics and step > self._held:
        losses.append(metrics[f'discriminator/{domain}'])
    news = []
    for name, sign in SIGNS.items():
      for where in ('', '_a', '_b', '_ab', '_ba'):
        key = f'doctor/{name}{where}'
        if key not in metrics or not self._counts(sign, step):
          continue
        value = metrics[key]
        is_seen = value > sign.limit if sign.is_high else value < sign.limit
        self._times_seen[key] = self._times_seen[key] + 1 if is_seen else 0
        if self._times_seen[key] >= sign.patience and key not in self._told:
          source, target = where[1:2], where[-1:]
          text = sign.words.format(source=source, target=target, value=value)
          self._told[key] = f'{text} (step {step:,})'
          news.append(self._told[key])
    return news

  def _counts(self, sign: Sign, step: int) -> bool:
    if sign.after is None:
      return True
    done, total = step - self._held, self._steps - self._held
    return done > 0 and done >= sign.after * total

  def reread(self, records: Iterable[Mapping[str, float]]) -> None:
    """Begins anew from these records, but tells nothing twice.

    Args:
      records: each with its 'step', as `read_metrics` gives them.
    """
    self._times_seen.clear()
    for losses in self._losses.values():
      losses.clear()
    for record in records:
      self.read(int(record['step']), record)


def share_below(values: Sequence[float], limit: float) -> float:
  """The share of the values that are below the limit, 0 to 1."""
  return float(np.mean(np.asarray(values) < limit))


def diversity(
  fake: np.ndarray, real: np.ndarray, target: np.ndarray
) -> float | None:
  """How much of the differences between images is left in translations.

  Args:
    fake: [N, H, W, C'] translations of `real`.
    real: [N, H, W, C].
    target: [M, H, W, C'] real images of the side of the translations: its
      images may differ less than those of the source.

  Returns:
    0 where all translations are one picture, about 1 where they differ as
    the images do; None where the images themselves do not differ.
  """

  def spread(images: np.ndarray) -> float:
    return float(images.std(axis=0).mean())

  possible = min(spread(real), spread(target))
  return spread(fake) / possible if possible > _SAME else None


def change(real: np.ndarray, fake: np.ndarray) -> float | None:
  """Root of the mean square of what a translation changes.

  Args:
    real: [N, H, W, C] in [-1, 1].
    fake: [N, H, W, C'] translations of them.

  Returns:
    0 to 2; None where the channels are not the same.
  """
  if real.shape != fake.shape:
    return None
  return float(np.sqrt(np.mean(np.square(fake - real))))


def luminance_correlation(real: np.ndarray, fake: np.ndarray) -> float:
  """Pearson's correlation of luminance over the pixels of an image.

  Args:
    real: [N, H, W, C] in [-1, 1].
    fake: [N, H, W, C'] translations of them.

  Returns:
    The mean over the images, -1 to 1; an image of one colour counts as 0.
  """
  x, y = _luminance(real), _luminance(fake)
  spread = x.std(axis=1) * y.std(axis=1)
  products = (x * y).mean(axis=1) - x.mean(axis=1) * y.mean(axis=1)
  return float(np.mean(products / np.where(spread > _SAME**2, spread, np.inf)))


def hidden(made: Translations) -> float | None:
  """How much worse than it should the way back gets by a little noise.

  Noise that merely passed through would add itself to the error. Where a
  translation carries its input in differences that no eye sees, noise of that
  size wipes them out (arXiv:1712.02950).

  Returns:
    Error with noise / (error without + noise): about 1, or much more; None
    where the way back was not tried with noise.
  """
  if made.noisy_back is None:
    return None
  noise = NOISE * math.sqrt(2 / math.pi)  # mean distance from 0
  return _l1(made.noisy_back, made.real) / (_l1(made.back, made.real) + noise)


def _l1(x: np.ndarray, y: np.ndarray) -> float:
  return float(np.mean(np.abs(x - y)))


def _luminance(images: np.ndarray) -> Any:
  """float64 [N, H * W]; of fewer than three channels the first is grey."""
  weights = (0.299, 0.587, 0.114) if images.shape[-1] >= 3 else (1.0,)
  grey = images[..., : len(weights)].astype(np.float64) @ np.array(weights)
  return grey.reshape(len(images), -1)
