"""DiffAugment: augmentation of the discriminators' inputs (arXiv:2006.10738).

Real and translated images are augmented alike, in the updates of both
networks. So a discriminator cannot memorize a small data set, and generators
do not learn the augmentation, as gradients pass through it.
"""

import jax
import jax.numpy as jnp

from cyclegan_jax import parallel
from cyclegan_jax.config import AUGMENTATIONS
from cyclegan_jax.types import Array, Key


def diff_augment(
  images: Array, key: Key, policy: str, *, axis_name: str | None = None
) -> Array:
  """Augments each image with draws of its own.

  Args:
    images: [B, H, W, C] in [-1, 1].
    key: PRNG key of the draws.
    policy: comma-separated augmentations; '' for none. 'color' adds
      U(-1/2, 1/2) (brightness), then scales the channels' distances from
      their pixel's mean by U(0, 2) (saturation), then all distances from the
      image's mean by U(1/2, 3/2) (contrast). 'translation' shifts by up to an
      eighth of each side. 'cutout' blanks half of each side around a random
      pixel. Blank pixels are 0, a middle gray.
    axis_name: device axis under `parallel.data_parallel`.

  Returns:
    [B, H, W, C] of the images' dtype; 'color' leaves [-1, 1].
  """
  for index, name in enumerate(AUGMENTATIONS):
    if name in policy.split(','):
      keys = parallel.example_keys(
        jax.random.fold_in(key, index), images.shape[0], axis_name
      )
      images = jax.vmap(_FUNCTIONS[name])(keys, images)
  return images


def _jitter_color(key: Key, image: Array) -> Array:
  brightness, saturation, contrast = jax.random.uniform(key, (3,), image.dtype)
  image = image + (brightness - 0.5)
  mean = jnp.mean(image, axis=2, keepdims=True)
  image = mean + 2 * saturation * (image - mean)
  mean = jnp.mean(image, keepdims=True)
  return mean + (0.5 + contrast) * (image - mean)


def _shift(key: Key, image: Array) -> Array:
  y, x = image.shape[0] // 8, image.shape[1] // 8
  padded = jnp.pad(image, ((y, y), (x, x), (0, 0)))
  top, left = jax.random.randint(key, (2,), 0, jnp.array([2 * y, 2 * x]) + 1)
  return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)


def _cut_out(key: Key, image: Array) -> Array:
  sides = image.shape[:2]
  center = jax.random.randint(key, (2,), 0, jnp.array(sides) + 1)

  def is_blank_along(side: int, middle: Array) -> Array:
    first, place = middle - side // 4, jnp.arange(side)
    return (place >= first) & (place < first + side // 2)

  rows, columns = map(is_blank_along, sides, center)
  blank = rows[:, None, None] & columns[None, :, None]
  return jnp.where(blank, jnp.zeros_like(image), image)


_FUNCTIONS = {
  'color': _jitter_color,
  'translation': _shift,
  'cutout': _cut_out,
}
