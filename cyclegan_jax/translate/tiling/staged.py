"""Exact translation with the ResNet generator, one stage after the other.

A stage is a convolution, computed tile by tile. Its output goes to a scratch
file without its norm, whose statistics are gathered meanwhile. The next stage
reads windows with the border that its kernel needs, and normalizes them with
the statistics of the whole image before its own convolution. So nothing but
norms in borders is computed twice, and the output equals that of the untiled
network.
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
from cyclegan_jax.translate.tiling.scratch_array import ScratchArray
from cyclegan_jax.translate.tiling.stage_tile import (
  TileProgram,
  TileResult,
  compute_tile,
  input_span,
)
from cyclegan_jax.translate.tiling.windows import (
  Tile,
  WindowSource,
  WriteWindow,
  count_tiles,
  gather,
  tiles,
)
from cyclegan_jax.types import Params


class Moments:
  """Mean and variance of each channel, accumulated in float64."""

  def __init__(self, channels: int):
    self._count = 0
    self._mean = np.zeros(channels)
    self._squares = np.zeros(channels)  # sum of squared differences from it

  def add(self, width: int, means: np.ndarray, squares: np.ndarray) -> None:
    """Adds rows of equal width (Chan, Golub and LeVeque's formula).

    Args:
      width: pixels in a row.
      means: [rows, C], mean of each row.
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
    """Mean and variance, each [C]."""
    return self._mean.astype(dtype), (self._squares / self._count).astype(dtype)


class StageInput(NamedTuple):
  """Input of a stage, before its norm, ReLU and sum.

  Attributes:
    source: output of the previous stage, or the image.
    norm: [C] mean and variance, and scale and bias if affine; {} for no norm.
    has_relu: whether a ReLU follows the norm.
    skip: the block's input, to be added; None if no block was closed.
  """

  source: WindowSource
  norm: dict[str, Any]
  has_relu: bool
  skip: ScratchArray | None


class StagePlan(NamedTuple):
  """A stage with the height and width of its output and its tiles' side."""

  stage: Stage
  size: tuple[int, int]
  side: int


def translate_staged(
  config: GeneratorConfig,
  params: Params,
  image: WindowSource,
  channels: int,
  write_window: WriteWindow,
  *,
  tile: int,
  scratch: pathlib.Path,
  on_progress: Callable[[int, int], None],
) -> None:
  """Translates one image with the ResNet generator.

  Args:
    config: config of a generator without dropout.
    params: parameters of the generator.
    image: [H, W, C] in [-1, 1], H and W multiples of 4.
    channels: channels of the output.
    write_window: called with (y0, x0, float32 [h, w, channels]).
    tile: side of the tiles at full resolution, a multiple of 4. At other
      resolutions it is half of that, as there are more channels.
    scratch: folder of the scratch files.
    on_progress: called with the number of tiles done and their total.

  Raises:
    WorkdirError: the folder cannot be written, or has too little space.
  """
  plans = _plan(config, image.shape[:2], channels, tile)
  _check_space(scratch, config, image.shape[:2])
  total, done = sum(count_tiles(plan.size, plan.side) for plan in plans), 0
  stage_input = StageInput(image, norm={}, has_relu=False, skip=None)
  skip: ScratchArray | None = None
  with contextlib.ExitStack() as files:
    for plan in plans:
      stage, output = plan.stage, None
      if plan is not plans[-1]:
        output = files.enter_context(
          ScratchArray((*plan.size, stage.features), config.dtype, scratch)
        )
      if stage.opens_block:
        skip = files.enter_context(
          ScratchArray(stage_input.source.shape, config.dtype, scratch)
        )
      moments = Moments(stage.features)
      for part, result in _compute_tiles(config, params, plan, stage_input):
        if output:
          output.write(part.y, part.x, np.asarray(result.output))
          moments.add(
            part.width, np.asarray(result.means), np.asarray(result.squares)
          )
        else:
          pixels = np.asarray(result.output, np.float32)
          write_window(part.y, part.x, pixels)
        if skip and result.skip is not None:
          skip.write(part.y, part.x, np.asarray(result.skip))
        done += 1
        on_progress(done, total)
      for used in (stage_input.source, stage_input.skip):
        if isinstance(used, ScratchArray):
          used.close()
      if output:
        stage_input = StageInput(
          output,
          _norm_of(config, params, stage, moments),
          stage.relu,
          skip if stage.closes_block else None,
        )


def _plan(
  config: GeneratorConfig, size: tuple[int, int], channels: int, tile: int
) -> list[StagePlan]:
  plans, full = [], size
  for stage in stages(config, channels):
    if stage.is_up:
      size = (size[0] * 2, size[1] * 2)
    else:
      size = (size[0] // stage.stride, size[1] // stage.stride)
    plans.append(StagePlan(stage, size, tile if size == full else tile // 2))
  return plans


def _check_space(
  folder: pathlib.Path, config: GeneratorConfig, size: tuple[int, int]
) -> None:
  # The peak is where full resolution meets half of it: F + 2F / 4 values per
  # pixel. Inside the blocks it is four times 4F / 16.
  item = 2 if config.dtype == 'bfloat16' else 4
  needed = math.prod(size) * config.filters * 3 // 2 * item
  with explain_disk_errors(folder, option='scratch folder'):
    free = shutil.disk_usage(folder).free
  if free < needed:
    height, width = size
    raise WorkdirError(
      f'{folder} has {free / 2**20:.0f} MiB free, but an image of {width} x '
      f'{height} needs {needed / 2**20:.0f} MiB of scratch files. Free some, '
      'or use another scratch folder'
    )


def _norm_of(
  config: GeneratorConfig, params: Params, stage: Stage, moments: Moments
) -> dict[str, Any]:
  if config.norm == 'none':
    return {}
  mean, variance = moments.result(param_dtype(config.dtype))
  return {'mean': mean, 'variance': variance, **params.get(stage.norm, {})}


def _compute_tiles(
  config: GeneratorConfig,
  params: Params,
  plan: StagePlan,
  stage_input: StageInput,
) -> Iterator[tuple[Tile, TileResult]]:
  """Yields each tile with its result, after starting the next one."""
  stage = plan.stage
  # Short sides have small tiles, in powers of two, so that few are compiled.
  height, width = (
    min(plan.side, 1 << (length - 1).bit_length()) for length in plan.size
  )
  program = TileProgram(
    stage._replace(name='', norm='', dropout=''),
    config,
    has_norm=bool(stage_input.norm),
    has_relu=stage_input.has_relu,
    is_last=not stage.norm,
    height=height,
    width=width,
  )
  pending = None
  for part in tiles(plan.size, plan.side):
    rows, columns = (
      input_span(stage, config.upsample, start, length, size)
      for start, length, size in zip(
        (part.y, part.x),
        (height, width),
        stage_input.source.shape[:2],
        strict=True,
      )
    )
    read = functools.partial(gather, rows=rows.pixels, columns=columns.pixels)
    window = read(stage_input.source.read)
    skip = read(stage_input.skip.read) if stage_input.skip else None
    result = compute_tile(
      program,
      params[stage.name],
      stage_input.norm,
      window,
      skip,
      rows.inside,
      columns.inside,
      np.int32(part.width),
    )
    if pending:
      yield _crop_result(*pending)
    pending = part, result
  if pending:
    yield _crop_result(*pending)


def _crop_result(part: Tile, result: TileResult) -> tuple[Tile, TileResult]:
  """Copies a result to the host and crops it to its tile."""
  h, w = part.height, part.width
  output, means, squares, skip = jax.device_get(result)
  skip = None if skip is None else skip[:h, :w]
  return part, TileResult(output[:h, :w], means[:h], squares[:h], skip)
