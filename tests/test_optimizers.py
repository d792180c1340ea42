"""Update rules on a quadratic, and Adam by its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cyclegan_jax.config import Config, OptimizerConfig
from cyclegan_jax.optimizers import learning_rate_schedule, make_optimizer

NAMES = OptimizerConfig.__dataclass_fields__['name'].metadata['choices']
START = {'ab': jnp.asarray([1.0, -2.0]), 'ba': jnp.asarray([[0.5]])}


def quadratic(params):
  return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params))


def run(config, *, side='gen', num_steps=1, params=START):
  """The parameters after each step, the first ones included."""
  optimizer = make_optimizer(config, side=side)
  state, path = optimizer.init(params), [params]
  for _ in range(num_steps):
    grads = jax.grad(quadratic)(params)
    updates, state = optimizer.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    path.append(params)
  return path


def with_optimizer(**options):
  return Config().replace(optimizer=options)


@pytest.mark.parametrize('name', NAMES)
def test_each_lowers_a_quadratic(name):
  path = run(with_optimizer(name=name, learning_rate=1e-3), num_steps=5)
  values = [float(quadratic(params)) for params in path]
  assert values == sorted(values, reverse=True)
  assert values[-1] < values[0]


def test_adam_by_its_formula():
  lr, b1, b2, eps = 0.01, 0.5, 0.9, 1e-3
  config = with_optimizer(learning_rate=lr, b1=b1, b2=b2, eps=eps)
  x = np.asarray(START['ab'], np.float64)
  m = v = np.zeros(2)
  for t, got in enumerate(run(config, num_steps=4)):
    np.testing.assert_allclose(got['ab'], x, rtol=1e-5)
    gradient = 2 * x
    m = b1 * m + (1 - b1) * gradient
    v = b2 * v + (1 - b2) * gradient**2
    m_hat, v_hat = m / (1 - b1 ** (t + 1)), v / (1 - b2 ** (t + 1))
    x = x - lr * m_hat / (np.sqrt(v_hat) + eps)


def test_adamw_decays_the_weights():
  options = {'learning_rate': 0.01, 'b1': 0.5, 'b2': 0.9}
  plain = run(with_optimizer(name='adam', **options))[1]
  decayed = run(with_optimizer(name='adamw', weight_decay=0.1, **options))[1]
  np.testing.assert_allclose(
    decayed['ab'], plain['ab'] - 0.01 * 0.1 * START['ab'], rtol=1e-6
  )


def test_sgd_has_b1_as_its_momentum():
  path = run(with_optimizer(name='sgd', learning_rate=0.1, b1=0.5), num_steps=2)
  # x = 1: trace 2, x 0.8; then trace 1.6 + 0.5 * 2 = 2.6, x 0.54.
  got = [float(params['ab'][0]) for params in path]
  np.testing.assert_allclose(got, [1, 0.8, 0.54], rtol=1e-6)


def test_rmsprop_by_its_formula():
  config = with_optimizer(name='rmsprop', learning_rate=0.01, b2=0.75, eps=1e-8)
  # One step: 0.01 g / sqrt(0.25 g^2) = 0.02 sign(g).
  got = run(config)[1]['ab']
  np.testing.assert_allclose(got, [0.98, -1.98], rtol=1e-5)


def test_the_discriminators_have_a_rate_of_their_own():
  config = with_optimizer(
    name='sgd', learning_rate=0.1, b1=0.0, disc_learning_rate_ratio=0.25
  )
  gen = run(config, side='gen')[1]['ab']
  disc = run(config, side='disc')[1]['ab']
  np.testing.assert_allclose(gen, START['ab'] * (1 - 0.2), rtol=1e-6)
  np.testing.assert_allclose(disc, START['ab'] * (1 - 0.05), rtol=1e-6)
  step = jnp.zeros((), jnp.int32)
  rates = [
    learning_rate_schedule(config, side=s)(step) for s in ('gen', 'disc')
  ]
  np.testing.assert_allclose(rates, [0.1, 0.025], rtol=1e-6)


def test_a_ratio_of_0_holds_the_discriminators():
  config = with_optimizer(disc_learning_rate_ratio=0)
  path = run(config, side='disc', num_steps=2)
  np.testing.assert_array_equal(path[-1]['ab'], START['ab'])


@pytest.mark.parametrize('side', ['gen', 'disc'])
def test_the_schedule_is_inside(side):
  """Two epochs of two steps: the second epoch at half the rate."""
  config = Config().replace(
    epochs=2,
    steps_per_epoch=2,
    optimizer={'name': 'sgd', 'learning_rate': 0.1, 'b1': 0.0},
    schedule={'name': 'linear', 'decay_epochs': 1},
  )
  path = [
    float(params['ab'][0]) for params in run(config, side=side, num_steps=4)
  ]
  # x <- x - rate * 2 x, with rates of 0.1, 0.1, 0.05, 0.05.
  expected = np.cumprod([1, 0.8, 0.8, 0.9, 0.9])
  np.testing.assert_allclose(path, expected, rtol=1e-5)


@pytest.mark.parametrize('name', NAMES)
def test_the_state_counts_in_arrays(name):
  """So that it is saved, and resumes the schedule where it was."""
  state = make_optimizer(with_optimizer(name=name), side='gen').init(START)
  leaves = jax.tree.leaves(state)
  assert all(isinstance(leaf, jax.Array) for leaf in leaves)
  assert any(leaf.dtype == jnp.int32 for leaf in leaves)
