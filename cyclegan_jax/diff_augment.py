"""Augmentation of what the discriminators see (arXiv:2006.10738).

Real and translated images are changed alike, in both halves of a step, so a
discriminator can't learn its few images by heart, and the generators are not
taught the changes: gradients pass through them.
"""

import jax
import jax.numpy as jnp

from cyclegan_jax import parallel
from cyclegan_jax.config import AUGMENTATIONS
from cyclegan_jax.types import Array, Key


def diff_augment(
  images: Array, key: Key, policy: str, *, axis_name: str | None = None
) -> Array:
  """Changes each image by its own key.

  Args:
    images: [B, H, W, C] in [-1, 1].
    key: of the changes.
    policy: which of them, with commas between; '' for none. 'color': adds
      U(-1/2, 1/2), then multiplies by U(0, 2) how far channels lie from their
      pixel's mean, then by U(1/2, 3/2) how far all lie from the image's mean.
      'translation': moves by up to an eighth of the sides. 'cutout': blanks
      half of both sides around some pixel. What is blank is 0, a middle grey.
    axis_name: the devices' axis under `parallel.data_parallel`.

  Returns:
    [B, H, W, C], of the images' type; 'color' leaves [-1, 1].
  """
  for index, name in enumerate(AUGMENTATIONS):
    if name in policy.split(','):
      keys = parallel.example_keys(
        jax.random.fold_in(key, index), images.shape[0], axis_name
      )
      images = jax.vmap(_FUNCTIONS[name])(keys, images)
  return images


def _color(key: Key, image: Array) -> Array:
  brightness, saturation, contrast = jax.random.uniform(key, (3,), image.dtype)
  image = image + (brightness - 0.5)
  mean = jnp.mean(image, axis=2, keepdims=True)
  image = mean + 2 * saturation * (image - mean)
  mean = jnp.mean(image, keepdims=True)
  return mean + (0.5 + contrast) * (image - mean)


def _translate(key: Key, image: Array) -> Array:
  y, x = image.shape[0] // 8, image.shape[1] // 8
  padded = jnp.pad(image, ((y, y), (x, x), (0, 0)))
  top, left = jax.random.randint(key, (2,), 0, jnp.array([2 * y, 2 * x]) + 1)
  return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)


def _cut_out(key: Key, image: Array) -> Array:
  sides = image.shape[:2]
  centre = jax.random.randint(key, (2,), 0, jnp.array(sides) + 1)

  def covers(side: int, middle: Array) -> Array:
    first, place = middle - side // 4, jnp.arange(side)
    return (place >= first) & (place < first + side // 2)

  rows, columns = map(covers, sides, centre)
  blank = rows[:, None, None] & columns[None, :, None]
  return jnp.where(blank, jnp.zeros_like(image), image)


_FUNCTIONS = {'color': _color, 'translation': _translate, 'cutout': _cut_out}
