"""Windows of images, tiles of outputs, and pixels beyond an image's border."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np

# (y0, y1, x0, x1) to the window [y1 - y0, x1 - x0, C].
ReadWindow = Callable[[int, int, int, int], np.ndarray]
# Takes (y0, x0) of a window and the window [h, w, C].
WriteWindow = Callable[[int, int, np.ndarray], None]


class WindowSource(Protocol):
  """An image that is read by windows: in memory, or in a file.

  Attributes:
    shape: (height, width, channels).
  """

  shape: tuple[int, int, int]

  def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    """Reads the window [y1 - y0, x1 - x0, C]."""
    ...


class PaddedImage:
  """An image read by windows, padded at its bottom and right as by `pad`."""

  def __init__(
    self,
    read_window: ReadWindow,
    size: tuple[int, int],
    padded: tuple[int, int],
    channels: int,
  ):
    """Reads nothing yet.

    Args:
      read_window: reads windows of the image.
      size: height and width of the image.
      padded: height and width with padding.
      channels: channels of the image.
    """
    self.shape = (*padded, channels)
    self._read_window = read_window
    self._rows, self._columns = map(reflected_indices, size, padded)

  def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    """Reads the window [y1 - y0, x1 - x0, C]."""
    return gather(self._read_window, self._rows[y0:y1], self._columns[x0:x1])


def array_reader(array: np.ndarray) -> ReadWindow:
  """A function that reads windows of an array [H, W, C]."""

  def read(y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    return array[y0:y1, x0:x1]

  return read


def array_writer(array: np.ndarray) -> WriteWindow:
  """A function that writes windows into an array [H, W, C]."""

  def write(y0: int, x0: int, window: np.ndarray) -> None:
    array[y0 : y0 + window.shape[0], x0 : x0 + window.shape[1]] = window

  return write


def reflected_indices(size: int, padded: int) -> np.ndarray:
  """Indices [padded] of the pixels that fill a side with padding at its end.

  The side is reflected without repeating its last pixel. A side shorter than
  its padding is reflected repeatedly, with the ends repeated.
  """
  added = padded - size
  return np.pad(
    np.arange(size), (0, added), 'reflect' if added < size else 'symmetric'
  )


def pad(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """Pads images [h, w, C] or [B, h, w, C] by reflection at bottom and right.

  Returns:
    [height, width, C] or [B, height, width, C]; the array itself if it has
    that size.
  """
  if image.shape[-3:-1] == (height, width):
    return image
  rows = reflected_indices(image.shape[-3], height)
  columns = reflected_indices(image.shape[-2], width)
  return image[..., rows[:, None], columns, :]


def gather(
  read: ReadWindow, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
  """Pixels at rows x columns, from the one window that holds them all."""
  y0, x0 = int(rows.min()), int(columns.min())
  window = read(y0, int(rows.max()) + 1, x0, int(columns.max()) + 1)
  if (np.diff(rows) == 1).all() and (np.diff(columns) == 1).all():
    return window
  return window[np.ix_(rows - y0, columns - x0)]


class Span(NamedTuple):
  """One side of the input of a tile.

  Attributes:
    pixels: indices within the image; beyond the border, those that stand in.
    inside: bool, false beyond the border.
  """

  pixels: np.ndarray
  inside: np.ndarray


def span(start: int, length: int, size: int, border: str, halo: int) -> Span:
  """The pixels from `start` on, of a side that ends at 0 and at `size`.

  Args:
    start: first place; may be negative.
    length: number of places; they may end beyond the border.
    size: length of the side.
    border: 'reflect' or 'edge' beyond the border. For zeros use 'edge' and
      mask what is not inside.
    halo: width of the border; places beyond it are not used.
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
  """A part of an output; smaller than others at the bottom and right."""

  y: int
  x: int
  height: int
  width: int


def tiles(size: tuple[int, int], side: int) -> Iterator[Tile]:
  """Square tiles that cover an output, row by row."""
  height, width = size
  for y in range(0, height, side):
    for x in range(0, width, side):
      yield Tile(y, x, min(side, height - y), min(side, width - x))


def count_tiles(size: tuple[int, int], side: int) -> int:
  """Number of tiles of `tiles`."""
  return math.prod(round_up(length, side) // side for length in size)


def round_up(value: int, multiple: int) -> int:
  """The least multiple that is not below the value."""
  return math.ceil(value / multiple) * multiple
