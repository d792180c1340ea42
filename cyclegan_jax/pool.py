"""The pool of past fakes that discriminators are shown (arXiv:1612.07828)."""

import flax.struct
import jax
import jax.numpy as jnp

from cyclegan_jax.types import Array, Key


class ImagePool(flax.struct.PyTreeNode):
  """Past fakes of one domain.

  Attributes:
    images: [size, H, W, C]; slots from `count` on are not filled yet. None
      for a pool of size 0, as an array without elements can't be saved.
    count: int32 scalar, the filled slots.
  """

  images: Array | None
  count: Array


def init_pool(size: int, shape: tuple[int, int, int]) -> ImagePool:
  """An empty pool.

  Args:
    size: number of images that it keeps; 0 makes a pool that lets all pass.
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
  """Puts fakes in and takes fakes out, one image after the other.

  Until the pool is full an image is stored and returned. Then, with
  probability 1/2, it takes the place of a randomly drawn one, which is
  returned; else it is returned and not stored (arXiv:1703.10593, section 4).

  Args:
    pool: of `size` images [H, W, C].
    key: for this query.
    images: [B, H, W, C] fresh fakes.

  Returns:
    The new pool, and [B, H, W, C] images for the discriminator.
  """
  if pool.images is None:
    return pool, images
  size = pool.images.shape[0]

  def query_one(
    pool: ImagePool, each: tuple[Key, Array]
  ) -> tuple[ImagePool, Array]:
    key, image = each
    swap_key, slot_key = jax.random.split(key)
    is_full = pool.count >= size
    swaps = is_full & jax.random.bernoulli(swap_key)
    slot = jnp.where(
      is_full, jax.random.randint(slot_key, (), 0, size), pool.count
    )
    old = jax.lax.dynamic_index_in_dim(pool.images, slot, keepdims=False)
    kept = jnp.where(swaps | ~is_full, image, old)
    stored = jax.lax.dynamic_update_index_in_dim(pool.images, kept, slot, 0)
    count = jnp.minimum(pool.count + 1, size)
    return ImagePool(stored, count), jnp.where(swaps, old, image)

  keys = jax.random.split(key, images.shape[0])
  return jax.lax.scan(query_one, pool, (keys, images))
