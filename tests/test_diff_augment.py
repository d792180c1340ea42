"""DiffAugment alone, and in the training step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cyclegan_jax as cg
from cyclegan_jax import losses, parallel, step
from cyclegan_jax.config import AUGMENTATIONS
from cyclegan_jax.diff_augment import _FUNCTIONS, diff_augment
from cyclegan_jax.errors import ConfigError

ALL = ','.join(AUGMENTATIONS)
KEY = jax.random.key(5)


def images(*shape, seed=0):
  values = np.random.default_rng(seed).uniform(-1, 1, shape)
  return jnp.asarray(values, jnp.float32)


def test_the_table_has_the_config_s_names():
  assert tuple(_FUNCTIONS) == AUGMENTATIONS


def test_no_policy_is_the_images_themselves():
  x = images(2, 8, 8, 3)
  assert diff_augment(x, KEY, '') is x


def test_color_by_hand():
  """The three factors, recovered from their effect on the image."""
  x = images(64, 8, 8, 3)
  y = np.asarray(diff_augment(x, KEY, 'color'), np.float64)
  x = np.asarray(x, np.float64)
  brightness = np.mean(y - x, axis=(1, 2, 3))
  # Only the contrast scales the gray of a pixel relative to the image's.
  gray_x = np.mean(x, 3) - np.mean(x, (1, 2, 3))[:, None, None]
  gray_y = np.mean(y, 3) - np.mean(y, (1, 2, 3))[:, None, None]
  contrast = gray_y[:, 0, 0] / gray_x[:, 0, 0]
  color_x = x - np.mean(x, 3, keepdims=True)
  color_y = y - np.mean(y, 3, keepdims=True)
  saturation = color_y[:, 0, 0, 0] / color_x[:, 0, 0, 0] / contrast
  for found, low, high in (
    (brightness, -0.5, 0.5),
    (contrast, 0.5, 1.5),
    (saturation, 0, 2),
  ):
    width = high - low
    assert low - 1e-4 < found.min() < low + width / 8
    assert high - width / 8 < found.max() < high + 1e-4
    assert len(np.unique(found)) == 64
  shaped = [s[:, None, None, None] for s in (brightness, saturation, contrast)]
  brightness, saturation, contrast = shaped
  mean = np.mean(x, 3, keepdims=True)
  expected = mean + saturation * (x - mean)
  middle = np.mean(x, (1, 2, 3), keepdims=True)
  expected = middle + brightness + contrast * (expected - middle)
  np.testing.assert_allclose(y, expected, atol=1e-4)


def test_color_of_one_channel_has_no_saturation():
  x = images(4, 8, 8, 1)
  y = diff_augment(x, KEY, 'color')
  stretch = np.std(y, (1, 2, 3)) / np.std(x, (1, 2, 3))
  assert np.all((stretch > 0.5) & (stretch < 1.5))


def test_translation_moves_and_blanks():
  x = 2 + images(64, 16, 24, 2)  # nothing of it is 0
  y = np.asarray(diff_augment(x, KEY, 'translation'))
  shifts = set()
  for before, after in zip(np.asarray(x), y, strict=True):
    matches = []
    for dy in range(-2, 3):
      for dx in range(-3, 4):
        padded = np.pad(before, ((2, 2), (3, 3), (0, 0)))
        moved = padded[2 - dy : 18 - dy, 3 - dx : 27 - dx]
        if np.array_equal(moved, after):
          matches.append((dy, dx))
    (match,) = matches
    shifts.add(match)
  assert {dy for dy, _ in shifts} == set(range(-2, 3))
  assert {dx for _, dx in shifts} == set(range(-3, 4))


def test_cutout_blanks_half_of_both_sides():
  x = 2 + images(256, 8, 12, 1)
  y = np.asarray(diff_augment(x, KEY, 'cutout'))[..., 0]
  heights, widths = set(), set()
  for before, after in zip(np.asarray(x)[..., 0], y, strict=True):
    blank = after == 0
    rows, columns = np.any(blank, 1), np.any(blank, 0)
    # One rectangle, and all else as it was.
    np.testing.assert_array_equal(blank, rows[:, None] & columns)
    np.testing.assert_array_equal(after[~blank], before[~blank])
    assert np.all(np.diff(np.flatnonzero(rows)) == 1)
    heights.add(int(rows.sum()))
    widths.add(int(columns.sum()))
  # Around a corner it is a quarter.
  assert heights == {2, 3, 4}
  assert widths == {3, 4, 5, 6}


def test_augmentations_draw_independently():
  """Another one in the policy does not change the draws of the others."""
  x = images(3, 8, 8, 3)
  both = diff_augment(x, KEY, 'translation,cutout')
  moved = diff_augment(x, KEY, 'translation')
  np.testing.assert_array_equal(both, diff_augment(moved, KEY, 'cutout'))
  np.testing.assert_array_equal(
    both, diff_augment(x, KEY, 'cutout,translation')
  )


def test_gradients_pass():
  x = images(2, 8, 8, 5)
  gradient = jax.grad(lambda x: jnp.sum(diff_augment(x, KEY, ALL) ** 2))(x)
  assert np.all(np.isfinite(gradient))
  assert np.mean(gradient != 0) > 0.2


def test_gradients_go_to_the_pixels_that_were_moved():
  x = images(2, 8, 8, 1)
  policy = 'translation,cutout'
  kept, pull = jax.vjp(lambda x: diff_augment(x, KEY, policy), x)
  (gradient,) = pull(jnp.ones_like(kept))
  np.testing.assert_array_equal(
    np.sort(kept[kept != 0]), np.sort(x[gradient == 1])
  )
  assert set(np.unique(gradient)) == {0, 1}


def test_bfloat16_stays_bfloat16():
  x = images(2, 8, 8, 3)
  got = diff_augment(x.astype(jnp.bfloat16), KEY, ALL)
  assert got.dtype == jnp.bfloat16
  assert np.all(np.isfinite(np.asarray(got, np.float32)))


def test_draws_do_not_depend_on_the_number_of_devices():
  x = images(4, 8, 8, 3)
  expected = jax.jit(lambda x: diff_augment(x, KEY, ALL))(x)

  def run(state, x):
    y = diff_augment(x, KEY, ALL, axis_name=parallel.AXIS)
    return state, parallel.gather(y, parallel.AXIS)

  shards = parallel.shard_batch(x, 2)
  _, got = parallel.data_parallel(run, num_devices=2)(0.0, shards)
  np.testing.assert_allclose(got, expected, atol=1e-6)


# In the step.


@pytest.fixture(scope='module')
def config():
  return cg.Config().replace(
    batch_size=2,
    diff_augment=ALL,
    data={'size': 8, 'load_size': 8},
    generator={'filters': 2, 'isize': 8},
    discriminator={'filters': 2, 'layers': 1},
  )


@pytest.fixture(scope='module')
def state(config):
  return cg.create_train_state(config, jax.random.key(0))


BATCH = {'a': images(2, 8, 8, 3, seed=1), 'b': images(2, 8, 8, 3, seed=2)}


@pytest.mark.slow
def test_discriminators_see_augmented_fakes(config, state):
  key = jax.random.key(1)

  def loss(config):
    function = functools.partial(step.generator_loss, config=config)
    return jax.jit(function)(state.gen, state.disc, BATCH, key)[1]

  fakes, metrics = loss(config)
  # The fakes themselves, which go to the pools and round the cycle, are not.
  same_fakes, plain_metrics = loss(config.replace(diff_augment=''))
  np.testing.assert_allclose(fakes['b'], same_fakes['b'], atol=1e-6)
  name = 'generator/cycle_a'
  np.testing.assert_allclose(metrics[name], plain_metrics[name], rtol=1e-5)
  _, b_key = jax.random.split(jax.random.fold_in(key, step._AUGMENT))
  discriminator = cg.make_discriminator(config.discriminator)
  logits = discriminator.apply(
    {'params': state.disc['b']}, diff_augment(fakes['b'], b_key, ALL)
  )
  expected = losses.ADVERSARIAL_LOSSES['vanilla'].generator(logits)
  np.testing.assert_allclose(
    metrics['generator/adversarial_ab'], expected, rtol=1e-5
  )
  assert abs(plain_metrics['generator/adversarial_ab'] - expected) > 1e-3


@pytest.mark.slow
def test_real_and_fake_are_augmented_independently(config, state):
  """One image as real and as fake: other draws, so other logits."""
  config = config.replace(loss={'adversarial': 'wgan_gp'})

  def loss(config):
    function = functools.partial(step.discriminator_loss, config=config)
    return jax.jit(function)(state.disc, BATCH, BATCH, jax.random.key(0))[1]

  plain = loss(config.replace(diff_augment=''))
  metrics = loss(config)
  assert plain['discriminator/a'] == 0
  assert abs(metrics['discriminator/a']) > 1e-3


@pytest.mark.slow
def test_a_step_is_finite(config, state):
  config = config.replace(
    loss={'adversarial': 'wgan_gp', 'r1': 1.0},
    discriminator={'dtype': 'bfloat16'},
  )
  after, metrics = cg.train_step(state, BATCH, config=config)
  leaves = jax.tree.leaves((after.gen, after.disc, metrics))
  assert all(np.all(np.isfinite(leaf)) for leaf in leaves)


def test_an_unknown_augmentation_is_refused():
  with pytest.raises(ConfigError) as caught:
    cg.Config(diff_augment='color,blur')
  assert "config.diff_augment='color,blur'" in str(caught.value)
