"""The ResNet generator, stage by stage, each of them tile by tile: exact.

A stage is a convolution. What it gives is spooled as it is, and its
statistics are gathered meanwhile; the next stage reads a window with the
border that its kernel needs and applies the norm, which is the whole image's,
before its own convolution. So nothing is computed twice but norms in borders,
and the only thing that a pixel needs from afar, the statistics, is exact.
"""

import contextlib
import functools
import math
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from cyclegan_jax.config import GeneratorConfig
from cyclegan_jax.errors import WorkdirError
from cyclegan_jax.nets.layers import param_dtype
from cyclegan_jax.nets.resnet import Stage, stages
from cyclegan_jax.storage.disk_errors import explain_disk_errors
from cyclegan_jax.translate.tiling.scratch_array import Spool
from cyclegan_jax.translate.tiling.stage_tile import (
  Given,
  Recipe,
  Result,
  compute_tile,
  taken_span,
)
from cyclegan_jax.translate.tiling.windows import (
  Source,
  Tile,
  WriteWindow,
  count_tiles,
  cut,
  gather,
)
from cyclegan_jax.types import Params


class Moments:
  """Mean and variance of each channel, gathered row by row in float64."""

  def __init__(self, channels: int):
    self._count = 0
    self._mean = np.zeros(channels)
    self._squares = np.zeros(channels)  # sum of squared differences from it

  def add(self, width: int, means: np.ndarray, squares: np.ndarray) -> None:
    """Adds rows of equal width (Chan, Golub and LeVeque's formula).

    Args:
      width: pixels of a row.
      means: [rows, C], of each row.
      squares: [rows, C], each row's sum of squared differences from its mean.
    """
    means, squares = means.astype(np.float64), squares.astype(np.float64)
    mean, count = means.mean(0), width * len(means)
    inner = squares.sum(0) + width * np.square(means - mean).sum(0)
    total, delta = self._count + count, mean - self._mean
    self._squares += inner + delta**2 * (self._count * count / total)
    self._mean += delta * (count / total)
    self._count = total

  def result(self, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """(mean, variance), each [C]."""
    return self._mean.astype(dtype), (self._squares / self._count).astype(dtype)


class Value(NamedTuple):
  """What a stage takes, by its parts."""

  source: Source
  given: Given
  norm: dict[str, Any]  # [C] mean, variance, and scale and bias if affine
  kept: Spool | None  # what is added, where something is


class Step(NamedTuple):
  """A stage, its output's height and width, and the side of its tiles."""

  stage: Stage
  size: tuple[int, int]
  side: int


def translate_staged(
  config: GeneratorConfig,
  params: Params,
  image: Source,
  channels: int,
  write_window: WriteWindow,
  *,
  tile: int,
  scratch: pathlib.Path,
  on_progress: Callable[[int, int], None],
) -> None:
  """Translates one image with the ResNet generator.

  Args:
    config: of a network without dropout.
    params: of the generator.
    image: [H, W, C] in [-1, 1], H and W multiples of 4.
    channels: of the output.
    write_window: called with (y0, x0, float32 [h, w, channels]).
    tile: side of an output's tiles at full resolution, a multiple of 4; at
      the others half of it, since there are more channels.
    scratch: folder of the scratch files.
    on_progress: called with (tiles done, tiles in all).

  Raises:
    WorkdirError: the folder can't be written, or has too little room.
  """
  steps = _plan(config, image.shape[:2], channels, tile)
  _check_room(scratch, config, image.shape[:2])
  total, done = sum(count_tiles(step.size, step.side) for step in steps), 0
  value, kept = Value(image, Given(), {}, None), None
  with contextlib.ExitStack() as files:
    for step in steps:
      stage, spool = step.stage, None
      if step is not steps[-1]:
        spool = files.enter_context(
          Spool((*step.size, stage.features), config.dtype, scratch)
        )
      if stage.opens_block:
        kept = files.enter_context(
          Spool(value.source.shape, config.dtype, scratch)
        )
      moments = Moments(stage.features)
      for part, result in _compute_tiles(config, params, step, value):
        if spool:
          spool.write(part.y, part.x, np.asarray(result.output))
          moments.add(
            part.width, np.asarray(result.means), np.asarray(result.squares)
          )
        else:
          output = np.asarray(result.output, np.float32)
          write_window(part.y, part.x, output)
        if kept and result.taken is not None:
          kept.write(part.y, part.x, np.asarray(result.taken))
        done += 1
        on_progress(done, total)
      for used in (value.source, value.kept):
        if isinstance(used, Spool):
          used.close()
      if spool:
        value = _next_value(config, params, stage, spool, moments, kept)


def _plan(
  config: GeneratorConfig, size: tuple[int, int], channels: int, tile: int
) -> list[Step]:
  steps, full = [], size
  for stage in stages(config, channels):
    if stage.is_up:
      size = (size[0] * 2, size[1] * 2)
    else:
      size = (size[0] // stage.stride, size[1] // stage.stride)
    side = tile if size == full else tile // 2
    steps.append(Step(stage, size, side))
  return steps


def _check_room(
  folder: pathlib.Path, config: GeneratorConfig, size: tuple[int, int]
) -> None:
  # Most is taken where full resolution meets half of it: F + 2F / 4 values a
  # pixel. Inside of the blocks it is 4F / 16 four times.
  item = 2 if config.dtype == 'bfloat16' else 4
  needed = math.prod(size) * config.filters * 3 // 2 * item
  with explain_disk_errors(folder, option='scratch folder'):
    free = shutil.disk_usage(folder).free
  if free < needed:
    height, width = size
    raise WorkdirError(
      f'{folder} has {free / 2**20:.0f} MiB free, but an image of {width} x '
      f'{height} takes {needed / 2**20:.0f} MiB of scratch files: free some, '
      'or give another scratch folder'
    )


def _next_value(
  config: GeneratorConfig,
  params: Params,
  stage: Stage,
  spool: Spool,
  moments: Moments,
  kept: Spool | None,
) -> Value:
  has_norm = config.norm != 'none'
  norm: dict[str, Any] = {}
  if has_norm:
    mean, variance = moments.result(param_dtype(config.dtype))
    norm = {'mean': mean, 'variance': variance, **params.get(stage.norm, {})}
  given = Given(norm=has_norm, relu=stage.relu, adds=stage.closes_block)
  return Value(spool, given, norm, kept if stage.closes_block else None)


def _compute_tiles(
  config: GeneratorConfig, params: Params, step: Step, value: Value
) -> Iterator[tuple[Tile, Result]]:
  """Each tile's result, cut to the tile; the next one is begun before."""
  stage = step.stage
  # Small sides have small tiles, in steps, so that few are compiled.
  height, width = (
    min(step.side, 1 << (length - 1).bit_length()) for length in step.size
  )
  nameless = stage._replace(name='', norm='', dropout='')
  recipe = Recipe(nameless, config, value.given, not stage.norm, height, width)
  waiting = None
  for part in cut(step.size, step.side):
    rows, columns = (
      taken_span(stage, config.upsample, start, length, size)
      for start, length, size in zip(
        (part.y, part.x), (height, width), value.source.shape, strict=False
      )
    )
    read = functools.partial(gather, rows=rows.pixels, columns=columns.pixels)
    window = read(value.source.read)
    kept = read(value.kept.read) if value.kept else None
    result = compute_tile(
      recipe,
      params[stage.name],
      value.norm,
      window,
      kept,
      rows.inside,
      columns.inside,
      np.int32(part.width),
    )
    if waiting:
      yield _cropped(*waiting)
    waiting = part, result
  if waiting:
    yield _cropped(*waiting)


def _cropped(part: Tile, result: Result) -> tuple[Tile, Result]:
  h, w = part.height, part.width
  output, means, squares, taken = jax.device_get(result)
  taken = None if taken is None else taken[:h, :w]
  return part, Result(output[:h, :w], means[:h], squares[:h], taken)
