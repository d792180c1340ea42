"""Translation of images that are larger than memory, by tiles."""

import functools
import logging
import math
import pathlib
import tempfile
from collections.abc import Callable

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

# Side of a tile with 64 filters; with others, as much memory. Whole networks
# take less than stages, and fewer borders have to be blended.
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
  on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
  """Translates an image of which neither side has to be in memory.

  The output of the ResNet generator without dropout equals the untiled output
  up to rounding: it is computed layer by layer, with the statistics of the
  whole image. For other networks overlapping tiles are blended, and a warning
  says why.

  The image is reflect-padded at its bottom and right to a multiple of what
  the network takes, and the output is cropped.

  Memory, beside the parameters and JAX itself: less than
  200 * filters * tile ** 2 bytes for the ResNet in float32, whatever the
  image's size (experiments/bench_tiling.py). Scratch files: 6 * filters bytes
  per pixel of the image, and 4 * C' where tiles are blended.

  Args:
    config: config of the training run.
    params: parameters of the generator of this direction.
    direction: 'ab' or 'ba'.
    read_window: (y0, y1, x0, x1) to float32 [y1 - y0, x1 - x0, C] in
      [-1, 1], within the image; windows overlap and come in any order.
    write_window: takes (y0, x0, float32 [h, w, C'] in [-1, 1]); the windows
      cover the output, each pixel once.
    shape: height and width of the image, at least 1.
    key: PRNG key of dropout; every tile has the same masks.
    tile: side of a tile in pixels, rounded up to what the network takes; 0
      for one that needs less than a gigabyte.
    scratch: folder of the scratch files, on a disk rather than in memory;
      None for the system's temporary folder.
    on_progress: called with the number of tiles done and their total.

  Raises:
    WorkdirError: the scratch folder cannot be written, or has too little
      space.
  """
  multiple = size_multiple(config.generator)
  scratch = pathlib.Path(tempfile.gettempdir()) if scratch is None else scratch
  side = round_up(tile or default_tile(config.generator), max(multiple, 8))
  channels = config.channels(direction[1])
  height, width = (round_up(length, multiple) for length in shape)
  image = PaddedImage(
    read_window, shape, (height, width), config.channels(direction[0])
  )
  write = functools.partial(_write_inside, write_window, shape)
  reason = why_inexact(config.generator)
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
    tile=(min(side, height), min(side, width)),
    scratch=scratch,
    on_progress=on_progress,
  )


def why_inexact(generator: GeneratorConfig) -> str | None:
  """Why tiling changes the output of a generator; None if it does not."""
  if generator.name != 'resnet':
    return (
      f'{generator.name} depends on the whole image, but each tile has its '
      'own statistics. Overlapping tiles are blended'
    )
  if generator.dropout > 0:
    return (
      f'config.generator.dropout={generator.dropout} draws masks for the '
      'whole image, but each tile has its own. Overlapping tiles are blended'
    )
  return None


def default_tile(generator: GeneratorConfig) -> int:
  """Side of a tile that takes about as much memory with any filters."""
  side: float = _BLENDED_SIDE if why_inexact(generator) else _SIDE
  side *= math.sqrt(_FILTERS / generator.filters)
  # A transformer's memory grows with the square of its pixels.
  max_exponent = 10 if generator.name == 'vit_unet' else 11
  return 1 << max(6, min(max_exponent, math.floor(math.log2(side))))


@functools.cache
def _warn_once(reason: str) -> None:
  logging.getLogger('cyclegan_jax').warning('not exact: %s', reason)


def _write_inside(
  write_window: WriteWindow,
  shape: tuple[int, int],
  y0: int,
  x0: int,
  window: np.ndarray,
) -> None:
  """Writes the part of a window that is not padding."""
  inside = window[: max(0, shape[0] - y0), : max(0, shape[1] - x0)]
  if inside.size:
    write_window(y0, x0, inside)
