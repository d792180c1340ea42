"""Distances between sets of images, beside their baselines."""

from collections.abc import Mapping

import numpy as np

from cyclegan_jax.config import Direction
from cyclegan_jax.evaluation.feature_cache import Extractor
from cyclegan_jax.evaluation.table import (
  Figure,
  Row,
)
from cyclegan_jax.metrics.distances import (
  frechet_distance,
  gather_statistics,
  kernel_distance,
)

_SUBSET_SIZE = 1000  # of the kernel distance, where there are enough images
_MIN_IMAGES = 2  # of either set


class SetDistances:
  """Distances of translations to real images, in the features of a network.

  The baselines depend on real images alone: each is computed once.
  """

  def __init__(
    self, extractor: Extractor, features: Mapping[str, np.ndarray], *, seed: int
  ):
    """Takes the features of the real images.

    Args:
      extractor: that they were taken with; it names the metrics.
      features: by domain, float32 [N, D].
      seed: of the halves and of the subsets.
    """
    self._extractor = extractor
    self._features = features
    self._seed = seed
    self._baselines: dict[Direction, list[tuple[Figure, Figure | None]]] = {}

  @property
  def names(self) -> list[str]:
    """Of the metrics of a direction; none where there are too few images."""
    if min(map(len, self._features.values())) < _MIN_IMAGES:
      return []
    kernel = self._extractor.kernel_name
    return [self._extractor.frechet_name, kernel, f'{kernel}_std']

  def rows(
    self, direction: Direction, translated: np.ndarray, sources: str
  ) -> list[Row]:
    """The Fréchet and the kernel distance of a direction's translations.

    Args:
      direction: 'ab' or 'ba'.
      translated: features of the source's images translated, [N, D].
      sources: which images these are.
    """
    if not self.names:
      return []
    source, target = (self._features[domain] for domain in direction)
    if direction not in self._baselines:
      halves = _halves(target, self._seed)
      is_enough = min(map(len, halves)) >= _MIN_IMAGES
      self._baselines[direction] = [
        (distance(source, target), distance(*halves) if is_enough else None)
        for distance in (self._frechet, self._kernel)
      ]
    names = (self._extractor.frechet_name, self._extractor.kernel_name)
    figures = (
      self._frechet(translated, target),
      self._kernel(translated, target),
    )
    return [
      Row(direction, name, figure, copy, real, sources)
      for name, figure, (copy, real) in zip(
        names, figures, self._baselines[direction], strict=True
      )
    ]

  def explain(self) -> list[str]:
    """What a reader has to know."""
    frechet, kernel = (
      self._extractor.frechet_name,
      self._extractor.kernel_name,
    )
    if not self.names:
      return [f'too few images for {frechet} and {kernel}']
    return [
      f'{frechet} and {kernel}: distances to the real images of the target in '
      f'the features of {self._extractor.name}; in brackets the images of both '
      f"sets; ± is {kernel}'s standard deviation over subsets",
      "real vs real: between two random halves of the target's images. They "
      f'hold half as many, which raises {frechet}, but not {kernel} on '
      f'average; so does having few images at all, so compare {frechet} at '
      'equal counts only',
    ]

  def _frechet(self, x: np.ndarray, y: np.ndarray) -> Figure:
    value = frechet_distance(gather_statistics(x), gather_statistics(y))
    return Figure(float(value), (len(x), len(y)))

  def _kernel(self, x: np.ndarray, y: np.ndarray) -> Figure:
    # Subsets of all the images would all be one, and show no spread.
    least = min(len(x), len(y))
    size = min(_SUBSET_SIZE, max(_MIN_IMAGES, least // 2))
    found = kernel_distance(x, y, subset_size=size, seed=self._seed)
    return Figure(float(found.mean), (len(x), len(y)), float(found.std))


def _halves(features: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Two disjoint halves at random: neighbours may be alike, as in a video."""
  order = np.random.default_rng(seed).permutation(len(features))
  half = len(order) // 2
  return features[order[:half]], features[order[half : 2 * half]]
