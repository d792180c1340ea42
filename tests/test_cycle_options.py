"""What may be done to the cycle: compared blurred, and let go over a run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cyclegan_jax as cg
from cyclegan_jax import losses, step
from cyclegan_jax.inference import translate
from cyclegan_jax.optimizers import cycle_factor


def values(*shape, seed=0):
  drawn = np.random.default_rng(seed).uniform(-1, 1, shape)
  return jnp.asarray(drawn, jnp.float32)


# The blur.


def test_a_point_becomes_a_gaussian():
  x = jnp.zeros((1, 33, 33, 1)).at[0, 16, 16, 0].set(1)
  got = np.asarray(losses.gaussian_blur(x, 2.0))[0, ..., 0]
  place = np.arange(33) - 16
  bell = np.exp(-(place**2) / 8) / np.sqrt(8 * np.pi)
  np.testing.assert_allclose(got, np.outer(bell, bell), atol=1e-6)
  np.testing.assert_allclose(np.sum(got), 1, rtol=1e-5)


def test_two_pixels_by_hand():
  """Of two places the nearer has 1 / (1 + exp(-1/2)), a border or not."""
  x = jnp.asarray([1.0, 0.0]).reshape(1, 1, 2, 1)
  near = 1 / (1 + np.exp(-0.5))
  got = losses.gaussian_blur(x, 1.0)
  np.testing.assert_allclose(got.ravel(), [near, 1 - near], rtol=1e-6)


def test_what_is_flat_stays_and_channels_are_apart():
  flat = jnp.broadcast_to(jnp.asarray([0.5, -1.0, 0.25, 1.0]), (2, 9, 12, 4))
  np.testing.assert_allclose(losses.gaussian_blur(flat, 3.0), flat, rtol=1e-5)


def test_blurred_loss_is_of_blurred_images():
  x, y = values(2, 12, 16, 3), values(2, 12, 16, 3, seed=1)
  blurred = (losses.gaussian_blur(each, 1.5) for each in (x, y))
  expected = losses.l1_loss(*blurred)
  got = losses.blurred_l1_loss(x, y, 1.5)
  np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_textures_are_free_and_colours_are_not():
  board = jnp.asarray(np.indices((16, 16)).sum(0) % 2 * 2.0 - 1)
  texture = jnp.broadcast_to(board[None, ..., None], (1, 16, 16, 3))
  none = jnp.zeros_like(texture)
  assert losses.l1_loss(texture, none) == 1
  assert losses.blurred_l1_loss(texture, none, 3.0) < 0.01
  colour = none.at[..., 0].set(0.3)
  for loss in (
    losses.l1_loss(colour, none),
    losses.blurred_l1_loss(colour, none, 3.0),
  ):
    np.testing.assert_allclose(loss, 0.1, rtol=1e-5)


def test_cycle_loss_is_a_mix():
  x, y = values(2, 8, 8, 3), values(2, 8, 8, 3, seed=1)
  plain, blurred = losses.l1_loss(x, y), losses.blurred_l1_loss(x, y, 2.0)
  assert losses.cycle_loss(x, y) == plain
  mixed = losses.cycle_loss(x, y, blur=0.25, sigma=2.0)
  np.testing.assert_allclose(mixed, 0.75 * plain + 0.25 * blurred, rtol=1e-6)
  alone = losses.cycle_loss(x, y, blur=1.0, sigma=2.0)
  np.testing.assert_allclose(alone, blurred, rtol=1e-6)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_gradients_are_finite(dtype):
  x = values(2, 8, 8, 3).astype(dtype)
  gradient = jax.grad(lambda x: losses.blurred_l1_loss(x, 0 * x, 2.0))(x)
  assert gradient.dtype == jnp.dtype(dtype)
  assert np.all(np.isfinite(np.asarray(gradient, np.float32)))
  assert np.any(gradient != 0)


# The weight.


def config_with(**schedule):
  return cg.Config().replace(
    batch_size=2,
    epochs=5,
    steps_per_epoch=20,
    data={'size': 8, 'load_size': 8},
    generator={'filters': 2, 'isize': 8, 'dropout': 0.0},
    discriminator={'filters': 2, 'layers': 1},
    schedule=schedule,
  )


def factor_at(at, config):
  return float(cycle_factor(config, jnp.asarray(at)))


@pytest.mark.parametrize(
  'at, expected', [(0, 1), (25, 0.775), (50, 0.55), (100, 0.1), (170, 0.1)]
)
def test_the_weight_falls_in_a_line(at, expected):
  config = config_with(cycle_end=0.1)
  assert factor_at(at, config) == pytest.approx(expected)


def test_the_weight_may_go_and_steps_go_before_epochs():
  config = config_with(cycle_end=0.0).replace(steps=10)
  assert factor_at(5, config) == pytest.approx(0.5)
  assert factor_at(10, config) == 0


def test_a_weight_that_stays_is_a_number():
  """So that the step is compiled as if there were none."""
  assert cycle_factor(config_with(), jnp.asarray(7)) == 1.0
  assert isinstance(cycle_factor(config_with(), jnp.asarray(7)), float)


@pytest.fixture(scope='module')
def state():
  return cg.create_train_state(config_with(), jax.random.key(0))


BATCH = {'a': values(2, 8, 8, 3), 'b': values(2, 8, 8, 3, seed=1)}


def test_the_step_takes_its_own_factor(state):
  """At step 50 of 100 the loss has half the fall, of the cycle alone."""
  state = state.replace(step=jnp.asarray(50))
  config = config_with(cycle_end=0.2)
  after, metrics = cg.train_step(state, BATCH, config=config)
  terms = {name.split('/')[-1]: float(x) for name, x in metrics.items()}
  expected = terms['adversarial_ab'] + terms['adversarial_ba']
  expected += 0.6 * 10 * (terms['cycle_a'] + terms['cycle_b'])
  assert terms['loss'] == pytest.approx(expected, rel=1e-5)
  assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(after.gen))


def test_the_cycle_s_metric_is_the_term(state):
  config = config_with().replace(
    loss={'cycle_blur': 0.5, 'cycle_blur_sigma': 2}
  )
  key = jax.random.key(0)
  loss, (fakes, metrics) = jax.jit(
    functools.partial(step.generator_loss, config=config)
  )(state.gen, state.disc, BATCH, key)
  to_a = translate(config, state.gen['ba'], 'ba', fakes['b'], key)
  expected = losses.cycle_loss(to_a, BATCH['a'], blur=0.5, sigma=2.0)
  np.testing.assert_allclose(metrics['generator/cycle_a'], expected, rtol=1e-5)
  terms = [metrics[f'generator/{name}'] for name in ('cycle_a', 'cycle_b')]
  adversarial = sum(
    metrics[f'generator/adversarial_{way}'] for way in ('ab', 'ba')
  )
  np.testing.assert_allclose(loss, adversarial + 10 * sum(terms), rtol=1e-5)
