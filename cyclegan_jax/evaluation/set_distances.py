"""Distances between sets of images, next to their baselines."""

from collections.abc import Mapping

import numpy as np

from cyclegan_jax.config import Direction
from cyclegan_jax.evaluation.image_set import random_halves
from cyclegan_jax.evaluation.results import Figure, Row
from cyclegan_jax.metrics.distances import frechet_distance, kernel_distance
from cyclegan_jax.metrics.feature_network import FeatureExtractor

_SUBSET_SIZE = 1000  # of the kernel distance, where there are enough images
_MIN_IMAGES = 2  # of either set


class SetDistances:
  """Distances of translations to real images in the features of a network.

  The baselines depend on real images only and are computed once.
  """

  def __init__(
    self,
    extractor: FeatureExtractor,
    features: Mapping[str, np.ndarray],
    *,
    seed: int,
  ):
    """Takes the features of the real images.

    Args:
      extractor: the feature network, which names the metrics.
      features: float32 [N, D] by domain.
      seed: random seed of halves and subsets.
    """
    self._extractor = extractor
    self._features = features
    self._seed = seed
    self._baselines: dict[Direction, list[tuple[Figure, Figure | None]]] = {}

  @property
  def names(self) -> list[str]:
    """Names of a direction's metrics; [] if there are too few images."""
    if min(map(len, self._features.values())) < _MIN_IMAGES:
      return []
    kernel = self._extractor.kernel_name
    return [self._extractor.frechet_name, kernel, f'{kernel}_std']

  def rows(
    self, direction: Direction, translated: np.ndarray, sources: str
  ) -> list[Row]:
    """Fréchet and kernel distance of a direction's translations.

    Args:
      direction: 'ab' or 'ba'.
      translated: features [N, D] of the translated images.
      sources: which images were compared, for the table.
    """
    if not self.names:
      return []
    source, target = (self._features[domain] for domain in direction)
    distances = (self._frechet, self._kernel)
    if direction not in self._baselines:
      halves = [target[half] for half in random_halves(len(target), self._seed)]
      is_enough = min(map(len, halves)) >= _MIN_IMAGES
      self._baselines[direction] = [
        (distance(source, target), distance(*halves) if is_enough else None)
        for distance in distances
      ]
    return [
      Row(direction, name, distance(translated, target), copy, real, sources)
      for name, distance, (copy, real) in zip(
        self.names[:2], distances, self._baselines[direction], strict=True
      )
    ]

  def notes(self) -> list[str]:
    """Sentences that explain the metrics."""
    frechet, kernel = self._extractor.frechet_name, self._extractor.kernel_name
    if not self.names:
      return [f'too few images for {frechet} and {kernel}']
    return [
      f'{frechet} and {kernel}: distances to the real images of the target in '
      f'the features of {self._extractor.name}; in brackets the images of both '
      f'sets; ± is the standard deviation of {kernel} over subsets',
      "real vs real: between two random halves of the target's images. They "
      f'hold half as many images, which raises {frechet} but not the average '
      f'{kernel}. Few images raise {frechet} too, so compare {frechet} only at '
      'equal counts',
    ]

  def _frechet(self, x: np.ndarray, y: np.ndarray) -> Figure:
    return Figure(frechet_distance(x, y), (len(x), len(y)))

  def _kernel(self, x: np.ndarray, y: np.ndarray) -> Figure:
    # Subsets of the size of a set would all be equal and have no spread.
    smaller = min(len(x), len(y))
    size = min(_SUBSET_SIZE, max(_MIN_IMAGES, smaller // 2))
    mean, std = kernel_distance(x, y, subset_size=size, seed=self._seed)
    return Figure(mean, (len(x), len(y)), std)
