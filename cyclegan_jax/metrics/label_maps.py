"""Segmentation scores of label maps, images with one color per class.

Translators output colors, not classes, so each pixel is assigned the class
with the nearest color. Pixels that are void in the target are not scored.
"""

import json
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np

from cyclegan_jax.errors import DataError

Array = np.ndarray

_VOID = 'void'
_HEX = re.compile(r'#[0-9a-fA-F]{6}')

_CITYSCAPES = {
  'road': (128, 64, 128),
  'sidewalk': (244, 35, 232),
  'building': (70, 70, 70),
  'wall': (102, 102, 156),
  'fence': (190, 153, 153),
  'pole': (153, 153, 153),
  'traffic light': (250, 170, 30),
  'traffic sign': (220, 220, 0),
  'vegetation': (107, 142, 35),
  'terrain': (152, 251, 152),
  'sky': (70, 130, 180),
  'person': (220, 20, 60),
  'rider': (255, 0, 0),
  'car': (0, 0, 142),
  'truck': (0, 0, 70),
  'bus': (0, 60, 100),
  'train': (0, 80, 100),
  'motorcycle': (0, 0, 230),
  'bicycle': (119, 11, 32),
  # Colors in the benchmark's label maps that it does not score.
  'void': (0, 0, 0),
  'void dynamic': (111, 74, 0),
  'void ground': (81, 0, 81),
  'void parking': (250, 170, 160),
  'void rail track': (230, 150, 140),
  'void guard rail': (180, 165, 180),
  'void bridge': (150, 100, 100),
  'void tunnel': (150, 120, 90),
  'void caravan': (0, 0, 90),
  'void trailer': (0, 0, 110),
}


class Palette(NamedTuple):
  """Colors of the classes.

  Attributes:
    names: names of K colors; those that begin with 'void' are not scored.
    colors: uint8 [K, 3], all different.
  """

  names: tuple[str, ...]
  colors: Array

  @property
  def is_void(self) -> Array:
    """bool [K], true for colors that are not scored."""
    is_void = [name.lower().startswith(_VOID) for name in self.names]
    return np.array(is_void, bool)


class LabelScores(NamedTuple):
  """Scores in [0, 1] over the pixels of all images together.

  Attributes:
    pixel_accuracy: fraction of pixels with the right class.
    class_accuracy: mean over the target's classes of that fraction within a
      class, so that small classes count as much as large ones.
    mean_iou: intersection over union, mean over the classes that either the
      translations or the targets have.
  """

  pixel_accuracy: float
  class_accuracy: float
  mean_iou: float


def read_palette(name: str) -> Palette | None:
  """Reads the colors of classes.

  Args:
    name: 'cityscapes' for its 19 training classes; or the path of a JSON file
      with an object {"road": [128, 64, 128], "sky": "#4682b4"} or an array of
      such colors, or of a text file with lines `128 64 128 road` (the name is
      optional, `//` starts a comment); '' or 'none' for none. A name that
      begins with 'void' marks pixels that are not scored.

  Returns:
    The colors in the file's order; None without a name.

  Raises:
    DataError: the file is unreadable or has fewer than two classes.
  """
  if name in ('', 'none'):
    return None
  if name == 'cityscapes':
    return _make_palette(list(_CITYSCAPES.items()), name)
  try:
    text = pathlib.Path(name).read_text(encoding='utf-8-sig')
  except (OSError, UnicodeDecodeError) as error:
    reason = getattr(error, 'strerror', None) or 'it is not text'
    raise DataError(
      f'palette {name} cannot be read ({reason}): give a JSON or text file of '
      "colors, or 'cityscapes'"
    ) from error
  if text.lstrip().startswith(('{', '[')):
    return _make_palette(_parse_json(text, name), name)
  return _make_palette(_parse_lines(text, name), name)


def confusion_matrix(
  translated: Array, target: Array, palette: Palette
) -> Array:
  """Counts pixels by their class in the target and in the translation.

  Args:
    translated: uint8 [N, H, W, 3].
    target: uint8 [N, H, W, 3].
    palette: K colors of both.

  Returns:
    int64 [K, K], indexed by the classes of target and translation. Pixels of
    several batches add up.
  """
  size = len(palette.names)
  confusion = np.zeros((size, size), np.int64)
  # Image by image, as distances take K times an image's memory.
  for fake, real in zip(translated, target, strict=True):
    pairs = size * _classify(real, palette) + _classify(fake, palette)
    confusion += np.bincount(pairs, minlength=size**2).reshape(size, size)
  return confusion


def label_scores(confusion: Array, palette: Palette) -> LabelScores:
  """Computes the scores of a confusion matrix.

  Void in the translation is of no class, so it is wrong wherever the target
  has a class.

  Args:
    confusion: [K, K] from `confusion_matrix`.
    palette: the K colors.

  Returns:
    The scores; NaN if the target is void everywhere.
  """
  confusion = np.where(palette.is_void[:, None], 0, confusion)
  right, real = np.diag(confusion), confusion.sum(axis=1)
  union = real + confusion.sum(axis=0) - right
  present = real > 0
  # A class that only translations have has an IoU of 0.
  seen = (union > 0) & ~palette.is_void
  if not present.any():
    return LabelScores(np.nan, np.nan, np.nan)
  return LabelScores(
    pixel_accuracy=float(right.sum() / real.sum()),
    class_accuracy=float(np.mean(right[present] / real[present])),
    mean_iou=float(np.mean(right[seen] / union[seen])),
  )


def _classify(image: Array, palette: Palette) -> Array:
  """Index [H * W] of each pixel's nearest color; the first of equals."""
  # |p - c|^2 without |p|^2; integers below 2^24, so float32 is exact.
  colors = palette.colors.astype(np.float32)
  pixels = image.reshape(-1, 3).astype(np.float32)
  return np.argmax(2 * pixels @ colors.T - np.square(colors).sum(1), axis=1)


def _make_palette(entries: list[tuple[str, Any]], path: str) -> Palette:
  colors: list[tuple[int, ...]] = []
  for name, value in entries:
    color = _parse_color(value)
    if color is None:
      raise DataError(
        f'palette {path}: {name} has the color {json.dumps(value)[:40]}: '
        'give three whole numbers from 0 to 255'
      )
    if color in colors:
      other = entries[colors.index(color)][0]
      raise DataError(
        f'palette {path}: {other} and {name} have the same color, '
        f'{list(color)}: give each its own'
      )
    colors.append(color)
  palette = Palette(
    tuple(name for name, _ in entries),
    np.array(colors, np.uint8).reshape(-1, 3),
  )
  if len(colors) - palette.is_void.sum() < 2:
    raise DataError(
      f'palette {path} has fewer than two classes: give a color for each'
    )
  return palette


def _parse_color(value: Any) -> tuple[int, ...] | None:
  if isinstance(value, str) and _HEX.fullmatch(value):
    return tuple(bytes.fromhex(value[1:]))
  if not isinstance(value, list | tuple) or len(value) != 3:
    return None
  # Python's bool is an int.
  if any(type(level) is not int or not 0 <= level <= 255 for level in value):
    return None
  return tuple(value)


def _parse_json(text: str, path: str) -> list[tuple[str, Any]]:
  try:
    content = json.loads(text)
  except (ValueError, RecursionError) as error:
    line = getattr(error, 'lineno', None)
    place = f' (line {line})' if line else ''
    raise DataError(f'palette {path} is not valid JSON{place}') from error
  if isinstance(content, dict):
    return list(content.items())
  return [(f'color {n}', value) for n, value in enumerate(content, start=1)]


def _parse_lines(text: str, path: str) -> list[tuple[str, Any]]:
  entries: list[tuple[str, Any]] = []
  for number, line in enumerate(text.splitlines(), start=1):
    words = line.partition('//')[0].replace(',', ' ').split()
    if not words:
      continue
    if len(words) < 3 or not all(word.isdecimal() for word in words[:3]):
      raise DataError(
        f'palette {path}, line {number} is {line.strip()[:40]!r}: write '
        '`128 64 128 road`'
      )
    name = ' '.join(words[3:]) or f'color {len(entries) + 1}'
    entries.append((name, [int(word[:9]) for word in words[:3]]))
  return entries
