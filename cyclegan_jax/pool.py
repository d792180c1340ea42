"""Pool of past fakes shown to the discriminators (arXiv:1612.07828)."""

import flax.struct
import jax
import jax.numpy as jnp

from cyclegan_jax.types import Array, Key


class ImagePool(flax.struct.PyTreeNode):
  """Past fakes of one domain.

  Attributes:
    images: [size, H, W, C]; slots from `count` on are not filled yet. None
      for a pool of size 0, as an array without elements cannot be saved.
    count: int32 scalar, number of filled slots.
  """

  images: Array | None
  count: Array


def init_pool(size: int, shape: tuple[int, int, int]) -> ImagePool:
  """Creates an empty pool.

  Args:
    size: number of slots; a pool of size 0 returns all images unchanged.
    shape: (H, W, C) of an image.

  Returns:
    The pool, of size * H * W * C float32 values.
  """
  return ImagePool(
    images=jnp.zeros((size, *shape), jnp.float32) if size else None,
    count=jnp.zeros((), jnp.int32),
  )


def query_pool(
  pool: ImagePool, key: Key, images: Array
) -> tuple[ImagePool, Array]:
  """Exchanges fresh fakes for past ones, one image after the other.

  Until the pool is full, an image is stored and returned. Then, with
  probability 1/2, it replaces a randomly drawn stored image, which is
  returned; otherwise it is returned and not stored (arXiv:1703.10593,
  section 4).

  Args:
    pool: of images [H, W, C].
    key: PRNG key of this query.
    images: [B, H, W, C] fresh fakes.

  Returns:
    The new pool, and [B, H, W, C] images for the discriminator.
  """
  if pool.images is None:
    return pool, images
  size = pool.images.shape[0]

  def query_one(
    pool: ImagePool, key_and_image: tuple[Key, Array]
  ) -> tuple[ImagePool, Array]:
    key, image = key_and_image
    swap_key, slot_key = jax.random.split(key)
    is_full = pool.count >= size
    swaps = is_full & jax.random.bernoulli(swap_key)
    slot = jnp.where(
      is_full, jax.random.randint(slot_key, (), 0, size), pool.count
    )
    old = jax.lax.dynamic_index_in_dim(pool.images, slot, keepdims=False)
    new = jnp.where(swaps | ~is_full, image, old)
    stored = jax.lax.dynamic_update_index_in_dim(pool.images, new, slot, 0)
    count = jnp.minimum(pool.count + 1, size)
    return ImagePool(stored, count), jnp.where(swaps, old, image)

  keys = jax.random.split(key, images.shape[0])
  return jax.lax.scan(query_one, pool, (keys, images))
