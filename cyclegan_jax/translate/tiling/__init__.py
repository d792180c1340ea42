"""Translation of images that are larger than memory, by tiles."""

import functools
import logging
import math
import pathlib
import tempfile
from collections.abc import Callable

import jax
import numpy as np

from cyclegan_jax.config import Config, GeneratorConfig, size_multiple
from cyclegan_jax.inference import make_translator
from cyclegan_jax.translate.tiling.blended import translate_blended
from cyclegan_jax.translate.tiling.staged import translate_staged
from cyclegan_jax.translate.tiling.windows import (
  PaddedImage,
  ReadWindow,
  WriteWindow,
  round_up,
)
from cyclegan_jax.types import Key, Params

# A tile's side with 64 filters; with others, as much memory. Whole networks
# take less than stages, and the fewer borders are blended the better.
_SIDE, _BLENDED_SIDE = 256, 1024
_FILTERS = 64


def translate_tiled(
  config: Config,
  params: Params,
  direction: str,
  read_window: ReadWindow,
  write_window: WriteWindow,
  shape: tuple[int, int],
  *,
  key: Key,
  tile: int = 0,
  scratch: pathlib.Path | None = None,
  on_progress: Callable[[int, int], None] | None = None,
) -> None:
  """Translates an image of which neither side need be in memory.

  The ResNet generator without dropout gives what it gives without tiles, to
  rounding: layer by layer, with the statistics of the whole image. Of other
  networks tiles that overlap are blended, and a warning says why.

  The image is reflected at its bottom and right to a multiple of what the
  network takes, and the output is cut back.

  Memory, beside the parameters and what JAX takes for itself: less than
  200 * filters * tile ** 2 bytes for the ResNet in float32, whatever the
  image's size (experiments/bench_tiling.py). Scratch files: 6 * filters bytes
  a pixel of the image, and 4 * C' where tiles are blended.

  Args:
    config: of the run that made the parameters.
    params: of the generator of this direction.
    direction: 'ab' or 'ba'.
    read_window: (y0, y1, x0, x1) to float32 [y1 - y0, x1 - x0, C] in
      [-1, 1], within the image; windows overlap and come in any order.
    write_window: takes (y0, x0, float32 [h, w, C'] in [-1, 1]); the windows
      cover the output, each pixel once.
    shape: height and width of the image, at least 1.
    key: for dropout, where the network has it; the same masks in each tile.
    tile: side of a tile in pixels, rounded up to what the network takes; 0
      for one that takes less than a gigabyte.
    scratch: folder of the scratch files, on a disk rather than in memory;
      None for the system's folder of temporary files.
    on_progress: called with (tiles done, tiles in all).

  Raises:
    WorkdirError: the scratch folder can't be written or has too little room.
  """
  multiple = size_multiple(config.generator)
  scratch = pathlib.Path(tempfile.gettempdir()) if scratch is None else scratch
  side = round_up(tile or default_tile(config.generator), max(multiple, 8))
  if (
    config.generator.name == 'keras_unet' and config.generator.fixed_input_size
  ):
    side = multiple
  on_progress = on_progress or _no_progress
  channels = config.channels(direction[1])
  height, width = (round_up(length, multiple) for length in shape)
  reason = why_inexact(config.generator)
  tile_shape = (min(side, height), min(side, width))
  image = PaddedImage(
    read_window, shape, (height, width), config.channels(direction[0])
  )
  write = functools.partial(_write_inside, write_window, shape)
  if reason is None:
    translate_staged(
      config.generator,
      params,
      image,
      channels,
      write,
      tile=side,
      scratch=scratch,
      on_progress=on_progress,
    )
    return
  _warn_once(reason)
  translator = make_translator(config, {direction: params}, direction, key=key)
  translate_blended(
    lambda window: np.asarray(translator(window[None]))[0],
    image,
    channels,
    write,
    tile=tile_shape,
    scratch=scratch,
    on_progress=on_progress,
  )


def translate_array(
  config: Config,
  params: Params,
  direction: str,
  image: np.ndarray,
  *,
  key: Key | None = None,
  tile: int = 0,
  scratch: pathlib.Path | None = None,
) -> np.ndarray:
  """`translate_tiled` of an array: float32 [H, W, C] to [H, W, C']."""
  channels = config.channels(direction[1])
  output = np.empty((*image.shape[:2], channels), np.float32)

  def write(y0: int, x0: int, window: np.ndarray) -> None:
    output[y0 : y0 + window.shape[0], x0 : x0 + window.shape[1]] = window

  translate_tiled(
    config,
    params,
    direction,
    lambda y0, y1, x0, x1: image[y0:y1, x0:x1],
    write,
    (image.shape[0], image.shape[1]),
    key=jax.random.key(0) if key is None else key,
    tile=tile,
    scratch=scratch,
  )
  return output


def why_inexact(generator: GeneratorConfig) -> str | None:
  """Why tiles can't give what the whole image would; None if they do."""
  if generator.name != 'resnet':
    return (
      f'{generator.name} sees the whole image at once: in tiles each has '
      'statistics of its own, so overlapping tiles are blended'
    )
  if generator.dropout > 0:
    return (
      f'config.generator.dropout={generator.dropout} draws masks for the '
      'whole image: in tiles each has its own, so overlapping tiles are '
      'blended'
    )
  return None


def default_tile(generator: GeneratorConfig) -> int:
  """The side of a tile that takes about as much memory for any filters."""
  side: float = _BLENDED_SIDE if why_inexact(generator) else _SIDE
  side *= math.sqrt(_FILTERS / generator.filters)
  # A transformer's memory grows with the square of its pixels.
  most = 10 if generator.name == 'vit_unet' else 11
  return 1 << max(6, min(most, math.floor(math.log2(side))))


@functools.cache
def _warn_once(reason: str) -> None:
  logging.getLogger('cyclegan_jax').warning('not exact: %s', reason)


def _no_progress(done: int, total: int) -> None:
  del done, total


def _write_inside(
  write_window: WriteWindow,
  shape: tuple[int, int],
  y0: int,
  x0: int,
  window: np.ndarray,
) -> None:
  """Writes what is not padding."""
  inside = window[: max(0, shape[0] - y0), : max(0, shape[1] - x0)]
  if inside.size:
    write_window(y0, x0, inside)
