"""Translation with trained generators."""

import functools
from collections.abc import Callable

import jax

from cyclegan_jax.config import Config
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
  """Applies one generator: a pure function.

  Args:
    config: of the run that made the parameters.
    params: of the generator of this direction: `state.gen[direction]`.
    direction: 'ab' or 'ba'.
    images: [B, H, W, C] in [-1, 1].
    key: for dropout, where the network has it.
    axis_name: the devices' axis under `parallel.data_parallel`.

  Returns:
    [B, H, W, C'] in [-1, 1], in the images' dtype.
  """
  network = make_generator(
    config.generator,
    channels=config.channels(direction[1]),
    axis_name=axis_name,
  )
  translated = network.apply({'params': params}, images, rngs={'dropout': key})
  return translated.astype(images.dtype)  # type: ignore[union-attr]


_translate = jax.jit(translate, static_argnums=(0, 2))


def make_translator(
  config: Config, gen_params: Params, direction: str, *, key: Key | None = None
) -> Callable[[Array], Array]:
  """A jitted function from images of one domain to the other.

  Batch norm takes the statistics of the images given together, and dropout
  is on with the same masks at each call: see the network's docstring.

  Args:
    config: of the run that made the parameters.
    gen_params: both generators: `state.gen`, or `state.gen_ema`.
    direction: 'ab' or 'ba'.
    key: for dropout; None for a fixed one.

  Returns:
    A function from [B, H, W, C] in [-1, 1] to [B, H, W, C'] in [-1, 1].
  """
  if direction not in gen_params:
    known = ' or '.join(repr(each) for each in gen_params)
    raise ValueError(f'direction {direction!r} is unknown: {known}')
  key = jax.random.key(0) if key is None else key
  return functools.partial(
    _apply, config, gen_params[direction], direction, key
  )


def _apply(
  config: Config, params: Params, direction: str, key: Key, images: Array
) -> Array:
  return _translate(config, params, direction, images, key)
