"""One tile of one stage of the ResNet generator."""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cyclegan_jax.config import GeneratorConfig
from cyclegan_jax.nets.layers import Conv, ConvTranspose, Norm, param_dtype
from cyclegan_jax.nets.resnet import Stage
from cyclegan_jax.translate.tiling.windows import Span, span
from cyclegan_jax.types import Array, Params


class TileProgram(NamedTuple):
  """Static arguments of `compute_tile`: equal ones are compiled once.

  Attributes:
    stage: the stage, without its names.
    config: config of the generator.
    has_norm: whether the input has to be normalized.
    has_relu: whether a ReLU has to be applied to the input.
    is_last: whether the stage is the network's last.
    height: height of the output's tile.
    width: width of the output's tile.
  """

  stage: Stage
  config: GeneratorConfig
  has_norm: bool
  has_relu: bool
  is_last: bool
  height: int
  width: int


class TileResult(NamedTuple):
  """Output of a tile.

  Attributes:
    output: [h, w, O], not normalized.
    means: [h, O], mean of each row.
    squares: [h, O], each row's sum of squared differences from its mean.
    skip: [h, w, I], the block's input if the stage opens a block.
  """

  output: Array
  means: Array
  squares: Array
  skip: Array | None


def input_span(
  stage: Stage, upsample: str, start: int, length: int, size: int
) -> Span:
  """The input of `length` pixels of a stage's output from `start` on."""
  if not stage.is_up:
    pad = stage.size // 2
    return span(
      start * stage.stride - pad,
      (length - 1) * stage.stride + stage.size,
      size,
      stage.padding,
      pad,
    )
  if upsample == 'transpose':  # a pixel is spread over two, and the next
    return span(start // 2, length // 2 + 1, size, 'zero', 1)
  # A reflection after each pixel was doubled repeats the edge.
  border = 'edge' if stage.padding == 'reflect' else 'zero'
  return span(start // 2 - 1, length // 2 + 2, size, border, 1)


@functools.partial(jax.jit, static_argnums=0)
def compute_tile(
  program: TileProgram,
  params: Params,
  norm: dict[str, Array],
  window: Array,
  skip: Array | None,
  rows: Array,
  columns: Array,
  num_columns: Array,
) -> TileResult:
  """Computes one tile of a stage.

  Args:
    program: static arguments.
    params: parameters of the stage's convolution.
    norm: [C] mean, variance, scale and bias of the input's norm.
    window: [h, w, I], the previous stage's output, by `input_span`.
    skip: [h, w, I], added to the input where a block was closed; else None.
    rows: [h] bool, false beyond the border.
    columns: [w] bool, false beyond the border.
    num_columns: number of the output's columns that are within the image.
  """
  stage, config = program.stage, program.config
  x = window
  if program.has_norm:
    x = _normalize(x, norm, config)
  if program.has_relu:
    x = nn.relu(x)
  if skip is not None:
    x = skip + x
  block_input = None
  if stage.opens_block:
    low = stage.size // 2
    block_input = x[low : low + program.height, low : low + program.width]
  if stage.padding == 'zero' or (
    stage.is_up and config.upsample == 'transpose'
  ):
    # The convolution's input is zero beyond the border, not the norm's.
    inside = rows[:, None, None] & columns[None, :, None]
    x = jnp.where(inside, x, jnp.zeros_like(x))
  y = _convolve(stage, config, params, x[None])[0]
  if stage.is_up:
    first = 0 if config.upsample == 'transpose' else 1
    y = y[first : first + program.height, first : first + program.width]
  if program.is_last:
    y = jnp.tanh(y)
  wide = y.astype(param_dtype(config.dtype))
  used = (jnp.arange(program.width) < num_columns)[None, :, None]
  count = num_columns.astype(wide.dtype)
  means = jnp.sum(jnp.where(used, wide, jnp.zeros_like(wide)), 1) / count
  centered = jnp.where(used, wide - means[:, None], jnp.zeros_like(wide))
  return TileResult(y, means, jnp.sum(jnp.square(centered), 1), block_input)


def _normalize(
  x: Array, norm: dict[str, Array], config: GeneratorConfig
) -> Array:
  """`nets.layers.Norm` with given statistics."""
  wide = x.astype(param_dtype(config.dtype)) - norm['mean']
  y = wide * jax.lax.rsqrt(norm['variance'] + Norm.epsilon)
  if config.affine:
    y = y * norm['scale'] + norm['bias']
  return y.astype(x.dtype)


def _convolve(
  stage: Stage, config: GeneratorConfig, params: Params, x: Array
) -> Array:
  """The stage's convolution without padding."""
  common: dict[str, Any] = {
    'use_bias': stage.use_bias,
    'dtype': config.dtype,
  }
  conv: nn.Module
  if not stage.is_up:
    conv = Conv(stage.features, stage.size, stride=stage.stride, **common)
  else:
    (params,) = params.values()
    if config.upsample == 'transpose':
      conv = ConvTranspose(stage.features, stage.size, **common)
    else:
      x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
      conv = Conv(stage.features, 3, **common)
  y: Any = conv.apply({'params': params}, x)
  return y
