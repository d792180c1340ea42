"""Scores of images that are maps of labels, a colour for each class.

A translator paints colours, not classes: a pixel is of the class whose colour
is nearest. Pixels that the target leaves void are not scored.
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
  # What the benchmark leaves out, in the colours that its maps have.
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
  """The colours of the classes.

  Attributes:
    names: of K colours; those that begin with 'void' are not scored.
    colours: uint8 [K, 3], no two alike.
  """

  names: tuple[str, ...]
  colours: Array

  @property
  def is_void(self) -> Array:
    """bool [K]: the colours that stand for no class."""
    void = [name.lower().startswith(_VOID) for name in self.names]
    return np.array(void, bool)


class LabelScores(NamedTuple):
  """Shares of 1, over the pixels of all images together.

  Attributes:
    pixel_accuracy: pixels of the right class.
    class_accuracy: the same within each class of the target, then their mean:
      small classes count as much as large ones.
    mean_iou: pixels of both over pixels of either, their mean over the classes
      that either has.
  """

  pixel_accuracy: float
  class_accuracy: float
  mean_iou: float


def read_palette(path: str | pathlib.Path) -> Palette:
  """Reads colours of classes.

  Args:
    path: 'cityscapes' for its 19 training classes; or a JSON file, of an
      object {"road": [128, 64, 128], "sky": "#4682b4"} or of an array of such
      colours; or a text file with a line `128 64 128 road` for each, the name
      left out or not, and comments behind `//`. A name that begins with
      'void' marks pixels that are not scored.

  Returns:
    The colours in the file's order.

  Raises:
    DataError: it can't be read, or does not say two colours or more.
  """
  if str(path) == 'cityscapes':
    return _make_palette(list(_CITYSCAPES.items()), 'cityscapes')
  try:
    text = pathlib.Path(path).read_text(encoding='utf-8-sig')
  except (OSError, UnicodeDecodeError) as error:
    reason = getattr(error, 'strerror', None) or 'it is no text'
    raise DataError(
      f"palette {path} can't be read ({reason}): give a JSON or text file of "
      "colours, or 'cityscapes'"
    ) from error
  if text.lstrip().startswith(('{', '[')):
    return _make_palette(_parse_json(text, path), path)
  return _make_palette(_parse_lines(text, path), path)


def label_scores(
  translated: Array, target: Array, palette: Palette
) -> LabelScores:
  """Compares maps of labels, class by class.

  A translated pixel nearest to a void colour is of no class: it is wrong
  wherever the target has one.

  Args:
    translated: uint8 [N, H, W, 3].
    target: uint8 [N, H, W, 3].
    palette: of both.

  Returns:
    The scores; NaN where the target is void all over.

  Raises:
    ValueError: they are not uint8 of one shape.
  """
  for name, each in (('translated', translated), ('target', target)):
    if (
      each.dtype != np.uint8
      or each.ndim != 4
      or each.shape[-1] != 3
      or each.shape != target.shape
    ):
      raise ValueError(
        f'{name} is {each.dtype} {list(each.shape)}: both must be uint8 of '
        'one [N, H, W, 3]'
      )
  number = len(palette.names)
  # [target, translated]; image by image, as distances take K times as much.
  confusion = np.zeros((number, number), np.int64)
  for fake, real in zip(translated, target, strict=True):
    pairs = number * _classify(real, palette) + _classify(fake, palette)
    confusion += np.bincount(pairs, minlength=number**2).reshape(number, number)
  confusion[palette.is_void] = 0
  right, real = np.diag(confusion), confusion.sum(axis=1)
  either = real + confusion.sum(axis=0) - right
  present = real > 0
  # A class that is painted where none is has an IoU of 0.
  seen = (either > 0) & ~np.asarray(palette.is_void)
  if not present.any():
    return LabelScores(np.nan, np.nan, np.nan)
  return LabelScores(
    pixel_accuracy=float(right.sum() / real.sum()),
    class_accuracy=float(np.mean(right[present] / real[present])),
    mean_iou=float(np.mean(right[seen] / either[seen])),
  )


def _classify(image: Array, palette: Palette) -> Array:
  """The nearest colour of each pixel, [H * W]; of equals the first."""
  # |p - c|^2 without |p|^2; whole numbers below 2^24, so float32 is exact.
  colours = palette.colours.astype(np.float32)
  pixels = image.reshape(-1, 3).astype(np.float32)
  return np.argmax(2 * pixels @ colours.T - np.square(colours).sum(1), axis=1)


def _make_palette(
  entries: list[tuple[str, Any]], path: str | pathlib.Path
) -> Palette:
  colours: list[tuple[int, int, int]] = []
  for name, value in entries:
    colour = _parse_colour(value)
    if colour is None:
      raise DataError(
        f'palette {path}: {name} has the colour {json.dumps(value)[:40]}: '
        'give three whole numbers from 0 to 255'
      )
    if colour in colours:
      other = entries[colours.index(colour)][0]
      raise DataError(
        f'palette {path}: {other} and {name} have one colour, '
        f'{list(colour)}: give each its own'
      )
    colours.append(colour)
  palette = Palette(
    tuple(name for name, _ in entries),
    np.array(colours, np.uint8).reshape(-1, 3),
  )
  if (~palette.is_void).sum() < 2:
    raise DataError(
      f'palette {path} has fewer than two classes: give a colour for each'
    )
  return palette


def _parse_colour(value: Any) -> tuple[int, int, int] | None:
  if isinstance(value, str) and _HEX.fullmatch(value):
    value = list(bytes.fromhex(value[1:]))
  if not isinstance(value, list | tuple) or len(value) != 3:
    return None
  # bool is an int to Python.
  if any(type(each) is not int or not 0 <= each <= 255 for each in value):
    return None
  red, green, blue = value
  return red, green, blue


def _parse_json(text: str, path: str | pathlib.Path) -> list[tuple[str, Any]]:
  try:
    content = json.loads(text)
  except (ValueError, RecursionError) as error:
    where = getattr(error, 'lineno', None)
    place = f' (line {where})' if where else ''
    raise DataError(f'palette {path} is no valid JSON{place}') from error
  if isinstance(content, dict):
    return list(content.items())
  return [(f'colour {n}', value) for n, value in enumerate(content, start=1)]


def _parse_lines(text: str, path: str | pathlib.Path) -> list[tuple[str, Any]]:
  entries: list[tuple[str, Any]] = []
  for number, line in enumerate(text.splitlines(), start=1):
    words = line.partition('//')[0].replace(',', ' ').split()
    if not words:
      continue
    if len(words) < 3 or not all(each.isdecimal() for each in words[:3]):
      raise DataError(
        f'palette {path}, line {number} is {line.strip()[:40]!r}: write '
        '`128 64 128 road`'
      )
    name = ' '.join(words[3:]) or f'colour {len(entries) + 1}'
    entries.append((name, [int(each[:9]) for each in words[:3]]))
  return entries
