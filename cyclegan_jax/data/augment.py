"""Random crop and flip, on the device and by the step's key."""

import jax
import jax.numpy as jnp

from cyclegan_jax import images, parallel
from cyclegan_jax.config import DataConfig
from cyclegan_jax.types import Array, Batch, Key

# fold_in(key, step) is the training step's own; no step comes this far.
_TAG = 2**32 - 1


def augment_key(run_key: Key, step: Array) -> Key:
  """The key of a step's crops and flips."""
  return jax.random.fold_in(jax.random.fold_in(run_key, _TAG), step)


def augment(
  raw: Batch, key: Key, config: DataConfig, *, axis_name: str | None = None
) -> Batch:
  """Crops and flips each image by its own key.

  Args:
    raw: {'a', 'b'}: [B, H, W, C], H and W at least config.size: uint8, or
      float32 in [-1, 1]; with 'is_pair' the images of a pair have one key.
    key: from `augment_key`.
    config: size and flip.
    axis_name: the devices' axis under `parallel.data_parallel`.

  Returns:
    {'a', 'b'}: float32 [B, size, size, C] in [-1, 1], and what else there is.
  """
  batch = dict(raw)
  keys = {
    domain: parallel.example_keys(each, raw[domain].shape[0], axis_name)
    for domain, each in zip('ab', jax.random.split(key), strict=True)
  }
  if 'is_pair' in raw:
    keys['b'] = jnp.where(raw['is_pair'], keys['a'], keys['b'])
  for domain, of_domain in keys.items():
    x = jax.vmap(lambda key, image: _augment_one(key, image, config))(
      of_domain, raw[domain]
    )
    batch[domain] = images.to_float(x)
  return batch


def _augment_one(key: Key, image: Array, config: DataConfig) -> Array:
  crop_key, flip_key = jax.random.split(key)
  height, width, channels = image.shape
  if (height, width) != (config.size, config.size):
    room = jnp.array([height - config.size + 1, width - config.size + 1])
    top, left = jax.random.randint(crop_key, (2,), 0, room)
    image = jax.lax.dynamic_slice(
      image, (top, left, 0), (config.size, config.size, channels)
    )
  if config.flip:
    image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
  return image
