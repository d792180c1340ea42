"""Scores of images against their targets, one target for each image."""

from collections.abc import Mapping, Sequence

import numpy as np

from cyclegan_jax import images as pixels
from cyclegan_jax.evaluation.image_set import ImageSet, random_halves
from cyclegan_jax.evaluation.results import Figure
from cyclegan_jax.metrics import paired
from cyclegan_jax.metrics.label_maps import (
  LabelScores,
  Palette,
  confusion_matrix,
  label_scores,
)

LABEL_METRICS = LabelScores._fields


def paired_metrics(size: int) -> list[str]:
  """Names of the metrics of `metrics.paired` for images of a size."""
  return ['l1', 'psnr', *(['ssim'] if size >= paired.MIN_SSIM_SIZE else [])]


class PairScores:
  """Mean scores over pairs of image and target, added batch by batch."""

  def __init__(self, metrics: Sequence[str], *, palette: Palette | None = None):
    """Starts without any pairs.

    Args:
      metrics: names of functions of `metrics.paired`.
      palette: colors of the classes, if the targets are label maps.
    """
    self._metrics = metrics
    self._palette = palette
    self._values: dict[str, list[float]] = {}
    self._confusion: np.ndarray | None = None
    self._num_pairs = 0

  def add(self, images: np.ndarray, targets: np.ndarray) -> None:
    """Adds a batch of pairs.

    Args:
      images: float [N, H, W, C] in [-1, 1]. If their number of channels
        differs from the targets', only label maps are scored.
      targets: float [N, H, W, C'] in [-1, 1].
    """
    self._num_pairs += len(targets)
    if images.shape == targets.shape:
      for name in self._metrics:
        scores = getattr(paired, name)(images, targets)
        self._values.setdefault(name, []).extend(scores.tolist())
    if self._palette is not None:
      confusion = confusion_matrix(
        pixels.to_rgb(images), pixels.to_rgb(targets), self._palette
      )
      before = 0 if self._confusion is None else self._confusion
      self._confusion = before + confusion

  def figures(self) -> dict[str, Figure]:
    """The means over all pairs by the metrics' names; {} without pairs."""
    means = {
      name: float(np.mean(values)) for name, values in self._values.items()
    }
    if self._palette is not None and self._confusion is not None:
      means |= label_scores(self._confusion, self._palette)._asdict()
    return {
      name: Figure(mean, (self._num_pairs,)) for name, mean in means.items()
    }


def compare_halves(
  images: ImageSet,
  metrics: Sequence[str],
  *,
  seed: int,
  palette: Palette | None = None,
) -> dict[str, Figure]:
  """Scores one random half of a set against the other: unrelated images.

  Args:
    images: N images; an odd one is left out.
    metrics: names of functions of `metrics.paired`.
    seed: random seed of the halves.
    palette: colors of the classes, if the images are label maps.

  Returns:
    Means over N // 2 pairs by the metrics' names; {} if N is 1.

  Raises:
    DataError: an image is no longer readable.
  """
  scores = PairScores(metrics, palette=palette)
  for i, j in zip(*random_halves(len(images), seed), strict=True):
    image, target = (images.read(images.indices[k])[None] for k in (i, j))
    scores.add(image, target)
  return scores.figures()


def find_label_domain(palette: Palette, sets: Mapping[str, ImageSet]) -> str:
  """The domain of the label maps: the one nearer to the palette's colors."""
  distances = {
    domain: distance_to_palette(palette, next(image_set.batches(8))[1])
    for domain, image_set in sets.items()
  }
  return min(distances, key=lambda domain: distances[domain])


def distance_to_palette(palette: Palette, images: np.ndarray) -> float:
  """Mean distance of pixels to the nearest color, in levels of 255.

  Args:
    palette: colors of the classes.
    images: float [N, H, W, C] in [-1, 1].
  """
  colors = pixels.to_rgb(images).reshape(-1, 3)
  colors = colors[:: max(1, len(colors) // 20_000)].astype(np.float64)
  differences = colors[:, None] - palette.colors.astype(np.float64)
  return float(np.sqrt(np.square(differences).sum(-1)).min(-1).mean())
