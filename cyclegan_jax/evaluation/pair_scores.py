"""Scores against the truth, where each image has one."""

from collections.abc import Mapping

import numpy as np

from cyclegan_jax import images
from cyclegan_jax.config import Direction
from cyclegan_jax.evaluation.image_set import ImageSet
from cyclegan_jax.evaluation.table import (
  Figure,
  Row,
)
from cyclegan_jax.metrics import paired
from cyclegan_jax.metrics.label_maps import Palette, label_scores

LABEL_METRICS = ('pixel_accuracy', 'class_accuracy', 'mean_iou')

_MIN_SSIM_SIZE = 11  # of its window


def paired_metrics(size: int) -> list[str]:
  """The names of what can be measured on images of a size."""
  return ['l1', 'psnr', *(['ssim'] if size >= _MIN_SSIM_SIZE else [])]


class PairScores:
  """Gathers scores, a batch at a time, of translations and of copies."""

  def __init__(self, *, palette: Palette | None = None):
    """Nothing is gathered yet.

    Args:
      palette: of `label_maps`, where the truth is label maps.
    """
    self._palette = palette
    self._scores: dict[str, dict[str, list[float]]] = {'fake': {}, 'copy': {}}
    self._maps: dict[str, list[np.ndarray]] = {}

  def add(
    self, source: np.ndarray, fake: np.ndarray, target: np.ndarray
  ) -> None:
    """Compares.

    Args:
      source: float [N, H, W, C] in [-1, 1].
      fake: its translations, float [N, H, W, C'] in [-1, 1].
      target: what these should be, likewise.
    """
    has_copy = source.shape == target.shape
    for name in paired_metrics(min(target.shape[1:3])):
      metric = getattr(paired, name)
      for kind, each in (('fake', fake), ('copy', source)):
        if kind == 'fake' or has_copy:
          values = self._scores[kind].setdefault(name, [])
          values.extend(metric(each, target).tolist())
    if self._palette is not None:
      for kind, each in (('fake', fake), ('copy', source), ('true', target)):
        self._maps.setdefault(kind, []).append(images.to_rgb(each))

  def rows(self, direction: Direction, sources: str) -> list[Row]:
    """Means over all pairs.

    Args:
      direction: 'ab' or 'ba'.
      sources: which images these are.
    """
    copies, palette = self._scores['copy'], self._palette
    rows = [
      Row(
        direction,
        name,
        _mean(values),
        _mean(copies[name]) if name in copies else None,
        None,
        sources,
      )
      for name, values in self._scores['fake'].items()
    ]
    if palette is not None and self._maps:
      fake, copy, true = (
        np.concatenate(self._maps[kind]) for kind in ('fake', 'copy', 'true')
      )
      scores, of_copy = (
        label_scores(each, true, palette) for each in (fake, copy)
      )
      rows += [
        Row(
          direction,
          name,
          Figure(float(getattr(scores, name)), (len(true),)),
          Figure(float(getattr(of_copy, name)), (len(true),)),
          None,
          sources,
        )
        for name in LABEL_METRICS
      ]
    return rows


def _mean(values: list[float]) -> Figure:
  return Figure(float(np.mean(values)), (len(values),))


def find_label_domain(palette: Palette, sets: Mapping[str, ImageSet]) -> str:
  """The domain of label maps: nearer than the other to the palette."""
  distances = {
    domain: distance_to_palette(palette, next(each.batches(8))[1])
    for domain, each in sets.items()
  }
  return min(distances, key=lambda domain: distances[domain])


def distance_to_palette(palette: Palette, pixels: np.ndarray) -> float:
  """How far images are from being label maps, in levels of 255.

  Args:
    palette: the colours.
    pixels: float [N, H, W, C] in [-1, 1].

  Returns:
    The mean distance of a pixel to the nearest colour.
  """
  found = images.to_rgb(pixels).reshape(-1, 3)
  found = found[:: max(1, len(found) // 20_000)].astype(np.float64)
  gaps = found[:, None] - palette.colours.astype(np.float64)
  return float(np.sqrt(np.square(gaps).sum(-1)).min(-1).mean())
