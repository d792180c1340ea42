"""The pool against a plain implementation, and its invariants."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyclegan_jax.pool import ImagePool, init_pool, query_pool

pytestmark = pytest.mark.usefixtures('strict')

SHAPE = (2, 1, 3)

# Few shapes, as each compiles; any keys and numbers of queries.
SIZES = st.sampled_from([1, 5])
BATCHES = st.sampled_from([1, 3])
SEEDS = st.integers(0, 2**32 - 1)

query = jax.jit(query_pool)


def numbered(start, count):
  """Images identified by their value, none of which is 0."""
  numbers = np.arange(start + 1, start + count + 1, dtype=np.float32)
  return np.broadcast_to(numbers[:, None, None, None], (count, *SHAPE))


def numbers_of(images):
  images = np.asarray(images)
  first = images[:, 0, 0, 0]
  # Whole images move, not parts of them.
  same = np.broadcast_to(first[:, None, None, None], images.shape)
  np.testing.assert_array_equal(images, same)
  return first.tolist()


def filled(pool):
  return numbers_of(np.asarray(pool.images)[: int(pool.count)])


def full_pool(size):
  """A full pool of images 1 to size."""
  pool = init_pool(size, SHAPE)
  pool, _ = query(pool, jax.random.key(0), numbered(0, size))
  return pool


@functools.partial(jax.jit, static_argnums=(1, 2))
def draws(key, batch, size):
  """The coins and slots that a query of `batch` images draws."""

  def of_one(key):
    coin, slot = jax.random.split(key)
    slot = jax.random.randint(slot, (), 0, size)
    return jax.random.bernoulli(coin), slot

  return jax.vmap(of_one)(jax.random.split(key, batch))


def reference_query(stored, size, coins, slots, images):
  """The paper's rule on a list, one image after the other."""
  returned = []
  for coin, slot, image in zip(coins, slots, images, strict=True):
    if len(stored) < size:
      stored.append(image)
      returned.append(image)
    elif coin:
      returned.append(stored[slot])
      stored[slot] = image
    else:
      returned.append(image)
  return returned


@given(SIZES, BATCHES, st.integers(1, 8), SEEDS)
@settings(max_examples=15)
def test_queries_equal_the_reference(size, batch, num_queries, seed):
  pool, stored = init_pool(size, SHAPE), []
  for i in range(num_queries):
    key = jax.random.key((seed + i) % 2**32)
    images = numbered(i * batch, batch)
    pool, returned = query(pool, key, images)
    coins, slots = draws(key, batch, size)
    expected = reference_query(
      stored, size, coins, np.asarray(slots), numbers_of(images)
    )
    assert numbers_of(returned) == expected
    assert filled(pool) == stored


@given(SIZES, BATCHES, SEEDS)
def test_until_full_it_stores_and_returns(size, batch, seed):
  pool = init_pool(size, SHAPE)
  key, start = jax.random.key(seed), 0
  while start + batch <= size:
    images = numbered(start, batch)
    pool, returned = query(pool, key, images)
    np.testing.assert_array_equal(returned, images)
    start += batch
    assert filled(pool) == list(range(1, start + 1))
  np.testing.assert_array_equal(np.asarray(pool.images)[start:], 0)


@given(SIZES, BATCHES, SEEDS)
def test_a_full_pool_keeps_all_images(size, batch, seed):
  before = full_pool(size)
  fresh = numbered(100, batch)
  after, returned = query(before, jax.random.key(seed), fresh)
  assert int(after.count) == size
  there = collections.Counter(filled(before) + numbers_of(fresh))
  assert there == collections.Counter(filled(after) + numbers_of(returned))
  for i, image in enumerate(numbers_of(returned)):
    # Itself, or one that was stored: before, or earlier in this batch.
    assert image == 101 + i or image in filled(before) + numbers_of(fresh[:i])


def test_half_of_the_images_are_swapped_with_any_slot():
  pool, num_images = full_pool(5), 1000
  keys = jax.random.split(jax.random.key(1), num_images)

  # One image a query, all against the same pool.
  def query_one(key):
    return query_pool(pool, key, jnp.full((1, *SHAPE), 9.0))[1]

  returned = jax.jit(jax.vmap(query_one))(keys)[:, 0]
  counts = collections.Counter(numbers_of(returned))
  # Four standard deviations: of a fair coin, and of one slot in ten.
  assert abs(counts.pop(9) - num_images / 2) < 4 * (num_images / 4) ** 0.5
  assert sorted(counts) == [1, 2, 3, 4, 5]
  for count in counts.values():
    assert abs(count - num_images / 10) < 4 * (num_images * 0.09) ** 0.5


def test_draws_depend_on_the_key():
  pool, images = full_pool(5), numbered(100, 3)
  returned = {
    tuple(numbers_of(query(pool, jax.random.key(i), images)[1]))
    for i in (*range(8), *range(8))
  }
  assert 1 < len(returned) <= 8


def test_a_pool_of_size_0_returns_all_images():
  pool = init_pool(0, SHAPE)
  assert pool.images is None
  images = numbered(0, 3)
  after, returned = query(pool, jax.random.key(0), images)
  np.testing.assert_array_equal(returned, images)
  assert isinstance(after, ImagePool)
  assert after.images is None
  assert int(after.count) == 0


def test_a_fresh_pool():
  pool = init_pool(50, (4, 5, 3))
  assert pool.images.shape == (50, 4, 5, 3)
  assert pool.images.dtype == jnp.float32
  assert pool.count.shape == ()
  assert pool.count.dtype == jnp.int32
  assert int(pool.count) == 0
