"""Random crops and flips on the device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cyclegan_jax.config import DataConfig
from cyclegan_jax.data.augment import augment, augment_key

BATCH = 64
CROP = DataConfig(size=8, load_size=11, flip=False)
FLIP = DataConfig(size=8, load_size=8)

pytestmark = pytest.mark.usefixtures('strict')


@functools.partial(jax.jit, static_argnums=2)
def jitted(raw, key, config):
  return augment(raw, key, config)


def noise(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def batch_of(size, channels=3):
  return {
    d: noise(BATCH, size, size, channels, seed=i) for i, d in enumerate('ab')
  }


def key_of(step, seed=0):
  return augment_key(jax.random.key(seed), jnp.int32(step))


def to_bytes(x):
  """Back to 0..255; exact where the scaling was."""
  values = (np.asarray(x, np.float64) + 1) * 127.5
  np.testing.assert_allclose(values, values.round(), atol=1e-4)
  return values.round().astype(np.uint8)


def place_of(crop, image):
  """Where a crop is in its image: the one (top, left) of it."""
  windows = np.lib.stride_tricks.sliding_window_view(
    image, crop.shape[:2], (0, 1)
  )
  same = (windows == np.moveaxis(crop, -1, 0)).all(axis=(2, 3, 4))
  ((top, left),) = np.argwhere(same)
  return int(top), int(left)


def test_every_byte_is_scaled_exactly():
  image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
  config = DataConfig(size=16, load_size=16, flip=False)
  scaled = jitted({'a': image, 'b': image}, key_of(0), config)['a']
  assert scaled.dtype == jnp.float32
  expected = (np.arange(256) / np.float32(127.5) - 1).astype(np.float32)
  np.testing.assert_allclose(scaled.ravel(), expected, atol=1e-7)
  assert scaled.min() == -1
  assert scaled.max() == 1


def test_crops_are_windows_of_their_images_at_all_places():
  raw = batch_of(11)
  cropped = jitted(raw, key_of(0), CROP)
  for domain in 'ab':
    assert cropped[domain].shape == (BATCH, 8, 8, 3)
    places = [
      place_of(*pair)
      for pair in zip(to_bytes(cropped[domain]), raw[domain], strict=True)
    ]
    tops, lefts = (set(each) for each in zip(*places, strict=True))
    # 64 draws of four: one is missed in 3 of 10^8 cases.
    assert tops == lefts == {0, 1, 2, 3}
    assert len(set(places)) > 10, 'the two are drawn apart'


def test_half_of_the_images_are_mirrored():
  raw = batch_of(8)
  flipped = jitted(raw, key_of(0), FLIP)
  for domain in 'ab':
    got = to_bytes(flipped[domain])
    is_same = (got == raw[domain]).all(axis=(1, 2, 3))
    is_mirrored = (got == raw[domain][:, :, ::-1]).all(axis=(1, 2, 3))
    assert (is_same ^ is_mirrored).all()
    assert 20 <= is_mirrored.sum() <= 44  # 3 standard deviations


def test_nothing_changes_without_crop_and_flip():
  raw = batch_of(8)
  config = DataConfig(size=8, load_size=8, flip=False)
  same = jitted(raw, key_of(0), config)
  for domain in 'ab':
    np.testing.assert_array_equal(to_bytes(same[domain]), raw[domain])


def test_domains_may_differ_in_channels_and_size():
  raw = {'a': noise(2, 11, 15, 1), 'b': noise(2, 9, 8, 4)}
  batch = jitted(raw, key_of(0), CROP)
  assert batch['a'].shape == (2, 8, 8, 1)
  assert batch['b'].shape == (2, 8, 8, 4)


def test_draws_are_a_function_of_the_step():
  raw = batch_of(11)
  first, again, later, other_run = (
    jitted(raw, key, CROP)['a']
    for key in (key_of(7), key_of(7), key_of(8), key_of(7, seed=1))
  )
  np.testing.assert_array_equal(first, again)
  assert (first != later).any()
  assert (first != other_run).any()


def test_the_key_is_not_one_of_the_training_steps():
  run_key = jax.random.key(0)
  of_steps = jax.vmap(lambda step: jax.random.fold_in(run_key, step))(
    jnp.arange(1000)
  )
  known = set(map(tuple, np.asarray(jax.random.key_data(of_steps)).tolist()))
  for step in range(5):
    data = jax.random.key_data(augment_key(run_key, jnp.int32(step)))
    assert tuple(np.asarray(data).tolist()) not in known


def test_draws_do_not_depend_on_the_number_of_devices():
  raw = batch_of(11)
  sharded = jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), raw)
  # vmap's axis has the same meaning as a device axis, without the devices.
  parts = jax.jit(
    jax.vmap(
      lambda raw: augment(raw, key_of(3), CROP, axis_name='devices'),
      axis_name='devices',
    )
  )(sharded)
  whole = jitted(raw, key_of(3), CROP)
  for domain in 'ab':
    np.testing.assert_array_equal(
      parts[domain].reshape(whole[domain].shape), whole[domain]
    )


def test_pairs_are_cropped_and_flipped_alike():
  config = DataConfig(size=8, load_size=11)
  raw = {'a': noise(32, 11, 11, 3)}
  raw['b'] = raw['a'].copy()
  is_pair = np.arange(32) % 3 == 0
  unpaired = augment(raw, key_of(3), config)
  paired = augment(raw | {'is_pair': is_pair}, key_of(3), config)
  np.testing.assert_array_equal(paired['is_pair'], is_pair)
  np.testing.assert_array_equal(paired['a'], unpaired['a'])
  np.testing.assert_array_equal(paired['b'][is_pair], paired['a'][is_pair])
  np.testing.assert_array_equal(paired['b'][~is_pair], unpaired['b'][~is_pair])
  # Unpaired domains draw independently.
  differs = np.any(np.asarray(unpaired['a'] != unpaired['b']), axis=(1, 2, 3))
  assert differs[is_pair].any()
