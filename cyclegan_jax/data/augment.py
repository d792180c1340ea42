"""Random crop and flip, computed on the device."""

import functools

import jax
import jax.numpy as jnp

from cyclegan_jax import images, parallel
from cyclegan_jax.config import DataConfig
from cyclegan_jax.types import Array, Batch, Key

# The training step's key is fold_in(key, step); no step is as large as this.
_AUGMENT = 2**32 - 1


def augment_key(run_key: Key, step: Array) -> Key:
  """PRNG key of a step's crops and flips."""
  return jax.random.fold_in(jax.random.fold_in(run_key, _AUGMENT), step)


def augment(
  raw: Batch, key: Key, config: DataConfig, *, axis_name: str | None = None
) -> Batch:
  """Crops and flips each image at random.

  Args:
    raw: {'a', 'b'}: [B, H, W, C], H and W at least config.size: uint8, or
      float32 in [-1, 1]. Where 'is_pair' is true, both images are cropped and
      flipped alike.
    key: PRNG key from `augment_key`.
    config: size and flip.
    axis_name: device axis under `parallel.data_parallel`.

  Returns:
    {'a', 'b'}: float32 [B, size, size, C] in [-1, 1], and the other entries.
  """
  batch = dict(raw)
  keys = {
    domain: parallel.example_keys(domain_key, raw[domain].shape[0], axis_name)
    for domain, domain_key in zip('ab', jax.random.split(key), strict=True)
  }
  if 'is_pair' in raw:
    keys['b'] = jnp.where(raw['is_pair'], keys['a'], keys['b'])
  augment_each = jax.vmap(functools.partial(_augment_one, config=config))
  for domain in 'ab':
    batch[domain] = images.to_float(augment_each(keys[domain], raw[domain]))
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
