"""Any generator, by tiles that overlap and are blended: not exact."""

import math
import pathlib
from collections.abc import Callable

import numpy as np

from cyclegan_jax.translate.tiling.scratch_array import Spool
from cyclegan_jax.translate.tiling.windows import (
  Source,
  WriteWindow,
)


def translate_blended(
  translate: Callable[[np.ndarray], np.ndarray],
  image: Source,
  channels: int,
  write_window: WriteWindow,
  *,
  tile: tuple[int, int],
  scratch: pathlib.Path,
  on_progress: Callable[[int, int], None],
) -> None:
  """Translates one image by tiles, each as if it were an image of its own.

  Neighbours overlap by a quarter of their side at least; there the weight of
  one falls as the other's rises, along a cosine.

  Args:
    translate: [h, w, C] in [-1, 1] to [h, w, channels], of a tile's size.
    image: [H, W, C] in [-1, 1], no smaller than a tile.
    channels: of the output.
    write_window: called with (y0, x0, float32 [h, w, channels]).
    tile: height and width.
    scratch: folder of the scratch file.
    on_progress: called with (tiles done, tiles in all).

  Raises:
    WorkdirError: the folder can't be written.
  """
  height, width = image.shape[:2]
  tops, lefts = starts(height, tile[0]), starts(width, tile[1])
  total, done = len(tops) * len(lefts), 0
  # An output so far; what was not yet written reads as zero.
  with Spool((height, width, channels), np.float32, scratch) as spool:
    for row, y in enumerate(tops):
      end_y = tops[row + 1] if row + 1 < len(tops) else height
      for column, x in enumerate(lefts):
        end_x = lefts[column + 1] if column + 1 < len(lefts) else width
        window = image.read(y, y + tile[0], x, x + tile[1])
        weights = (
          tile_weights(tops, row, tile[0])[:, None, None]
          * tile_weights(lefts, column, tile[1])[:, None]
        ).astype(np.float32)
        total_so_far = spool.read(y, y + tile[0], x, x + tile[1])
        total_so_far += translate(window) * weights
        spool.write(y, x, total_so_far)
        # No later tile reaches what lies before the next one's start.
        write_window(y, x, total_so_far[: end_y - y, : end_x - x])
        done += 1
        on_progress(done, total)


def starts(size: int, tile: int) -> list[int]:
  """Where the tiles of one side begin: at even distances, in order."""
  overlap = tile // 4
  count = max(1, math.ceil((size - overlap) / (tile - overlap)))
  if count == 1:
    return [0]
  return [round(i * (size - tile) / (count - 1)) for i in range(count)]


def tile_weights(starts: list[int], index: int, tile: int) -> np.ndarray:
  """A tile's share [tile] along one side; all tiles' add up to one."""
  place = starts[index] + np.arange(tile)
  total = np.zeros(tile)
  for other in range(max(0, index - 2), min(len(starts), index + 3)):
    shape = _ramps(
      place - starts[other],
      tile,
      rises=other > 0,
      falls=other < len(starts) - 1,
    )
    total += shape
    if other == index:
      own = shape
  return own / total


def _ramps(
  place: np.ndarray, tile: int, *, rises: bool, falls: bool
) -> np.ndarray:
  """Zero outside of a tile, one in its middle, half a cosine between."""
  length = max(1, tile // 4)
  weights = ((place >= 0) & (place < tile)).astype(np.float64)
  for is_there, depth in ((rises, place + 0.5), (falls, tile - 0.5 - place)):
    if is_there:
      share = np.clip(depth / length, 0, 1)
      weights *= (1 - np.cos(math.pi * share)) / 2
  return weights
