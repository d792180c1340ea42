"""Which pixels a tile needs, and which pixels stand in beyond the border."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np

ReadWindow = Callable[[int, int, int, int], np.ndarray]
WriteWindow = Callable[[int, int, np.ndarray], None]


class Source(Protocol):
  """What windows are read of: a spool, or the image."""

  shape: tuple[int, int, int]

  def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    """The window [y1 - y0, x1 - x0, C]."""
    ...


class PaddedImage:
  """An image by its windows, padded at its bottom and right as by `pad`."""

  def __init__(
    self,
    read_window: ReadWindow,
    size: tuple[int, int],
    padded: tuple[int, int],
    channels: int,
  ):
    self.shape = (*padded, channels)
    self._read_window = read_window
    self._size = size

  def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    """The window [y1 - y0, x1 - x0, C], float32."""
    rows, columns = (
      mirrored(np.arange(first, last), size, padded)
      for first, last, size, padded in zip(
        (y0, x0), (y1, x1), self._size, self.shape[:2], strict=True
      )
    )
    return gather(self._read_window, rows, columns)


def mirrored(index: np.ndarray, size: int, padded: int) -> np.ndarray:
  """Where the pixels of a padded side come from.

  The side is reflected, its last pixel not repeated; where it is shorter than
  what is added, it is mirrored back and forth, with its ends repeated.

  Args:
    index: places in 0 ... padded - 1.
    size: of the side.
    padded: of the side with its padding after it.
  """
  if padded - size < size:
    return np.where(index < size, index, 2 * (size - 1) - index)
  index = index % (2 * size)
  return np.where(index < size, index, 2 * size - 1 - index)


def pad(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """An image [h, w, C], or images [B, h, w, C], reflected to a size.

  Returns:
    [height, width, C] or [B, height, width, C]; the same pixels at the top
    and left. The array itself where it has that size.
  """
  if image.shape[-3:-1] == (height, width):
    return image
  rows = mirrored(np.arange(height), image.shape[-3], height)
  columns = mirrored(np.arange(width), image.shape[-2], width)
  return image[..., rows[:, None], columns, :]


def gather(
  read: ReadWindow, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
  """Pixels at rows x columns, of the one window that holds all of them."""
  y0, x0 = int(rows.min()), int(columns.min())
  window = read(y0, int(rows.max()) + 1, x0, int(columns.max()) + 1)
  if _is_a_range(rows) and _is_a_range(columns):
    return window
  return window[np.ix_(rows - y0, columns - x0)]


def _is_a_range(index: np.ndarray) -> bool:
  return bool((np.diff(index) == 1).all())


class Span(NamedTuple):
  """One side of what a tile is computed from: `length` indices."""

  pixels: np.ndarray  # indices of those that stand for them
  inside: np.ndarray  # false where the span is beyond the border


def span(start: int, length: int, size: int, border: str, halo: int) -> Span:
  """The pixels from `start` on, of a side that ends at 0 and at `size`.

  Args:
    start: may be negative.
    length: of the span; it may end behind the border.
    size: of the side.
    border: what lies beyond: 'reflect', or 'edge', which 'zero' has too, to
      be masked.
    halo: how far it does; what is further is not used.
  """
  place = np.arange(start, start + length)
  index = np.clip(place, 0, size - 1)
  if border == 'reflect':
    last = size - 1
    index = np.where(place < 0, -place, index)
    beyond = (place > last) & (place <= last + halo)
    index = np.clip(np.where(beyond, 2 * last - place, index), 0, last)
  return Span(index, (place >= 0) & (place < size))


class Tile(NamedTuple):
  """A part of an output."""

  y: int
  x: int
  height: int  # less than a whole tile's at the bottom
  width: int


def cut(size: tuple[int, int], side: int) -> Iterator[Tile]:
  """Square tiles that cover an output, row by row."""
  height, width = size
  for y in range(0, height, side):
    for x in range(0, width, side):
      yield Tile(y, x, min(side, height - y), min(side, width - x))


def count_tiles(size: tuple[int, int], side: int) -> int:
  """How many tiles `cut` makes."""
  return math.prod(round_up(length, side) // side for length in size)


def round_up(value: int, multiple: int) -> int:
  """The least multiple that is not below the value."""
  return math.ceil(value / multiple) * multiple
