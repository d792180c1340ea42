"""Real images against real ones, image by image: what unrelated ones have."""

from collections.abc import Sequence

import numpy as np

from cyclegan_jax import images as pixels
from cyclegan_jax.evaluation.image_set import ImageSet
from cyclegan_jax.evaluation.pair_scores import LABEL_METRICS
from cyclegan_jax.evaluation.table import Figure
from cyclegan_jax.metrics import paired
from cyclegan_jax.metrics.label_maps import Palette, label_scores


def compare_halves(
  images: ImageSet,
  metrics: Sequence[str],
  *,
  seed: int,
  palette: Palette | None = None,
) -> dict[str, Figure]:
  """Compares each image of a random half of a set with one of the other half.

  Args:
    images: N of them, the last of an odd number left out.
    metrics: of `metrics.paired`, by name.
    seed: of the halves.
    palette: for the scores of label maps too, where the images are such.

  Returns:
    Means over the N / 2 pairs by the metric's name; none of fewer than two
    images.

  Raises:
    DataError: an image can't be read any more.
  """
  # At random, as for distances of sets: neighbours may be alike.
  order = np.random.default_rng(seed).permutation(len(images))
  half = len(order) // 2
  if not half:
    return {}
  values: dict[str, list[float]] = {name: [] for name in metrics}
  maps: list[list[np.ndarray]] = [[], []]
  for pair in zip(order[:half], order[half : 2 * half], strict=True):
    one, other = (images.read(images.indices[at])[None] for at in pair)
    for name in metrics:
      values[name] += getattr(paired, name)(one, other).tolist()
    if palette is not None:
      for side, each in zip(maps, (one, other), strict=True):
        side.append(pixels.to_rgb(each))
  found = {name: float(np.mean(each)) for name, each in values.items()}
  if palette is not None:
    one, other = (np.concatenate(side) for side in maps)
    scores = label_scores(one, other, palette)
    found |= {name: float(getattr(scores, name)) for name in LABEL_METRICS}
  return {name: Figure(value, (half,)) for name, value in found.items()}
