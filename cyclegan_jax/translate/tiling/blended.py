"""Translation by overlapping tiles that are blended: any generator, inexact."""

import math
import pathlib
from collections.abc import Callable

import numpy as np

from cyclegan_jax.translate.tiling.scratch_array import ScratchArray
from cyclegan_jax.translate.tiling.windows import WindowSource, WriteWindow


def translate_blended(
  translate: Callable[[np.ndarray], np.ndarray],
  image: WindowSource,
  channels: int,
  write_window: WriteWindow,
  *,
  tile: tuple[int, int],
  scratch: pathlib.Path,
  on_progress: Callable[[int, int], None],
) -> None:
  """Translates one image by tiles, each as an image of its own.

  Neighbors overlap by at least a quarter of their side, where the weight of
  one falls along a cosine as the other's rises.

  Args:
    translate: [h, w, C] in [-1, 1] to [h, w, channels], of a tile's size.
    image: [H, W, C] in [-1, 1], no smaller than a tile.
    channels: channels of the output.
    write_window: called with (y0, x0, float32 [h, w, channels]).
    tile: height and width of a tile.
    scratch: folder of the scratch file.
    on_progress: called with the number of tiles done and their total.

  Raises:
    WorkdirError: the folder cannot be written.
  """
  height, width = image.shape[:2]
  tops, lefts = tile_starts(height, tile[0]), tile_starts(width, tile[1])
  total, done = len(tops) * len(lefts), 0
  # The weighted sum so far; zero where nothing was written.
  with ScratchArray((height, width, channels), np.float32, scratch) as sums:
    for row, y in enumerate(tops):
      end_y = tops[row + 1] if row + 1 < len(tops) else height
      for column, x in enumerate(lefts):
        end_x = lefts[column + 1] if column + 1 < len(lefts) else width
        window = image.read(y, y + tile[0], x, x + tile[1])
        weights = (
          tile_weights(tops, row, tile[0])[:, None, None]
          * tile_weights(lefts, column, tile[1])[:, None]
        ).astype(np.float32)
        output = sums.read(y, y + tile[0], x, x + tile[1])
        output += translate(window) * weights
        sums.write(y, x, output)
        # No later tile reaches pixels before the next one's start.
        write_window(y, x, output[: end_y - y, : end_x - x])
        done += 1
        on_progress(done, total)


def tile_starts(size: int, tile: int) -> list[int]:
  """Evenly spaced starts of the tiles along a side, in order."""
  overlap = tile // 4
  count = max(1, math.ceil((size - overlap) / (tile - overlap)))
  if count == 1:
    return [0]
  return [round(i * (size - tile) / (count - 1)) for i in range(count)]


def tile_weights(starts: list[int], index: int, tile: int) -> np.ndarray:
  """Weights [tile] of a tile along one side; those of all tiles sum to 1."""
  place = starts[index] + np.arange(tile)
  neighbors = range(max(0, index - 2), min(len(starts), index + 3))
  weights = {
    other: _cosine_window(
      place - starts[other],
      tile,
      rises=other > 0,
      falls=other < len(starts) - 1,
    )
    for other in neighbors
  }
  return weights[index] / sum(weights.values())


def _cosine_window(
  place: np.ndarray, tile: int, *, rises: bool, falls: bool
) -> np.ndarray:
  """Zero outside of a tile, one in its middle, half a cosine between."""
  length = max(1, tile // 4)
  weights = ((place >= 0) & (place < tile)).astype(np.float64)
  for has_ramp, depth in ((rises, place + 0.5), (falls, tile - 0.5 - place)):
    if has_ramp:
      share = np.clip(depth / length, 0, 1)
      weights *= (1 - np.cos(math.pi * share)) / 2
  return weights
