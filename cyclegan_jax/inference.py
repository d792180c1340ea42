"""Translation with trained generators."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.typing import ArrayLike

from cyclegan_jax.config import Config, GeneratorConfig
from cyclegan_jax.nets import make_generator
from cyclegan_jax.types import Array, Key, Params


def translate(
  config: Config,
  params: Params,
  direction: str,
  images: Array,
  key: Key,
  *,
  axis_name: str | None = None,
) -> Array:
  """Applies one generator; a pure function.

  Args:
    config: config of the training run.
    params: the generator's parameters, `state.gen[direction]`.
    direction: 'ab' or 'ba'.
    images: [B, H, W, C] in [-1, 1].
    key: PRNG key of dropout; unused by networks without it.
    axis_name: device axis under `parallel.data_parallel`.

  Returns:
    [B, H, W, C'] in [-1, 1], in the images' dtype.
  """
  channels = config.channels(direction[1])
  return _apply(config.generator, channels, axis_name, params, images, key)


# Jitted, since a training step applies a generator up to six times: tracing it
# takes long, and it is traced once per shape.
@functools.partial(jax.jit, static_argnums=(0, 1, 2), inline=True)
def _apply(
  config: GeneratorConfig,
  channels: int,
  axis_name: str | None,
  params: Params,
  images: Array,
  key: Key,
) -> Array:
  network = make_generator(config, channels=channels, axis_name=axis_name)
  translated: Any = network.apply(
    {'params': params}, images, rngs={'dropout': key}
  )
  return translated.astype(images.dtype)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _translate_each(
  config: Config, direction: str, params: Params, key: Key, images: Array
) -> Array:
  def translate_one(image: Array) -> Array:
    return translate(config, params, direction, image[None], key)[0]

  return jax.vmap(translate_one)(images)


def make_translator(
  config: Config, gen_params: Params, direction: str, *, key: Key | None = None
) -> Callable[[ArrayLike], Array]:
  """Makes a jitted function from images of one domain to the other.

  Each image is translated independently: batch norm takes its statistics over
  that image alone, and dropout uses the same masks for all images. So a
  translation does not depend on the rest of the batch.

  Args:
    config: config of the training run.
    gen_params: parameters by direction, `state.gen` or `state.gen_ema`.
    direction: 'ab' or 'ba'.
    key: PRNG key of dropout; None for a fixed one.

  Returns:
    A function from [B, H, W, C] in [-1, 1] to [B, H, W, C'] in [-1, 1].

  Raises:
    ValueError: gen_params has no such direction.
  """
  if direction not in gen_params:
    known = ' or '.join(map(repr, gen_params))
    raise ValueError(f'direction={direction!r} is unknown: use {known}')
  key = jax.random.key(0) if key is None else key
  return functools.partial(
    _translate_each, config, direction, gen_params[direction], key
  )
