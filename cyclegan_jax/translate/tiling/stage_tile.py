"""One tile of one stage of the ResNet generator."""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cyclegan_jax.config import GeneratorConfig
from cyclegan_jax.nets.layers import Conv, ConvTranspose, Norm, param_dtype
from cyclegan_jax.nets.resnet import Stage
from cyclegan_jax.translate.tiling.windows import (
  Span,
  span,
)
from cyclegan_jax.types import Array, Params


class Given(NamedTuple):
  """What is done to what the stage before gave, before it is used."""

  norm: bool = False
  relu: bool = False
  adds: bool = False  # what was kept when the block opened


class Recipe(NamedTuple):
  """What a tile's program depends on: equal ones are compiled once."""

  stage: Stage  # without its names
  config: GeneratorConfig
  given: Given
  is_last: bool
  height: int  # of the output's tile
  width: int


class Result(NamedTuple):
  """What a tile gives."""

  output: Array  # [h, w, O], without norm
  means: Array  # [h, O] of each row
  squares: Array  # [h, O], sums of squared differences from it
  taken: Array | None  # [h, w, I] what the convolution saw, to be kept


def taken_span(
  stage: Stage, upsample: str, start: int, length: int, size: int
) -> Span:
  """What a stage takes for `length` pixels of its output from `start` on."""
  if not stage.is_up:
    pad = stage.size // 2
    return span(
      start * stage.stride - pad,
      (length - 1) * stage.stride + stage.size,
      size,
      stage.padding,
      pad,
    )
  if upsample == 'transpose':  # one pixel is spread over two, and the next
    return span(start // 2, length // 2 + 1, size, 'zero', 1)
  # Reflected after each pixel became two, the nearest repeats the edge.
  border = 'edge' if stage.padding == 'reflect' else 'zero'
  return span(start // 2 - 1, length // 2 + 2, size, border, 1)


@functools.partial(jax.jit, static_argnums=0)
def compute_tile(
  recipe: Recipe,
  params: Params,
  norm: dict[str, Array],
  window: Array,
  kept: Array | None,
  rows: Array,
  columns: Array,
  num_columns: Array,
) -> Result:
  """One tile of a stage: jitted.

  Args:
    recipe: static.
    params: of the stage's convolution.
    norm: of what the stage before gave: [C] mean, variance, scale and bias.
    window: [h, w, I], what it gave, by the indices of `taken_span`.
    kept: [h, w, I], what is added to it, or None.
    rows: [h] bool, false beyond the border.
    columns: [w] likewise.
    num_columns: of the output that are within the image, for its statistics.
  """
  stage, config = recipe.stage, recipe.config
  x = window
  if recipe.given.norm:
    x = _normalise(x, norm, config)
  if recipe.given.relu:
    x = nn.relu(x)
  if kept is not None:
    x = kept + x
  taken = None
  if stage.opens_block:
    low = stage.size // 2
    taken = x[low : low + recipe.height, low : low + recipe.width]
  if stage.padding == 'zero' or (
    stage.is_up and config.upsample == 'transpose'
  ):
    # Beyond the border are zeros of what the convolution takes, not of what
    # the norm does.
    inside = rows[:, None, None] & columns[None, :, None]
    x = jnp.where(inside, x, jnp.zeros_like(x))
  y = _convolve(stage, config, params, x[None])[0]
  if stage.is_up:
    first = 0 if config.upsample == 'transpose' else 1
    y = y[first : first + recipe.height, first : first + recipe.width]
  if recipe.is_last:
    y = jnp.tanh(y)
  wide = y.astype(param_dtype(config.dtype))
  used = (jnp.arange(recipe.width) < num_columns)[None, :, None]
  count = num_columns.astype(wide.dtype)
  means = jnp.sum(jnp.where(used, wide, jnp.zeros_like(wide)), 1) / count
  centred = jnp.where(used, wide - means[:, None], jnp.zeros_like(wide))
  return Result(y, means, jnp.sum(jnp.square(centred), 1), taken)


def _normalise(
  x: Array, norm: dict[str, Array], config: GeneratorConfig
) -> Array:
  """As `nets.layers.Norm`, by statistics that are given."""
  wide = x.astype(param_dtype(config.dtype)) - norm['mean']
  y = wide * jax.lax.rsqrt(norm['variance'] + Norm.epsilon)
  if config.affine:
    y = y * norm['scale'] + norm['bias']
  return y.astype(x.dtype)


def _convolve(
  stage: Stage, config: GeneratorConfig, params: Params, x: Array
) -> Array:
  """The stage's convolution, without any padding."""
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
