"""N devices match a single device at the same global batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cyclegan_jax import create_train_state, parallel, train_step
from cyclegan_jax.config import Config

GLOBAL_BATCH = 8
NUM_STEPS = 10

KERAS_NETS = {
  'generator': {'filters': 2, 'isize': 4, 'fixed_input_size': False},
  'discriminator': {'filters': 2, 'layers': 1},
}
PAPER_NETS = {
  'generator': {
    'name': 'resnet',
    'filters': 2,
    'blocks': 1,
    'norm': 'instance',
    'affine': False,
    'padding': 'reflect',
    'dropout': 0.0,
  },
  'discriminator': {
    'name': 'patchgan',
    'filters': 2,
    'layers': 1,
    'norm': 'instance',
    'affine': False,
  },
  'loss': {
    'adversarial': 'lsgan',
    'identity_a': 5.0,
    'identity_b': 5.0,
    'discriminator': 0.5,
  },
}


CRITIC = KERAS_NETS | {'loss': {'adversarial': 'wgan_gp', 'r1': 0.5}}
# All further options at once.
LADDER = {
  'diff_augment': 'color,translation,cutout',
  'data': {'size': 16, 'load_size': 16},
  'generator': {'name': 'vit_unet', 'filters': 1, 'blocks': 1, 'heads': 2},
  'discriminator': {
    'filters': 2,
    'layers': 1,
    'norm': 'none',
    'spectral_norm': True,
  },
  'loss': {'cycle_blur': 0.5, 'r1': 0.5},
  'schedule': {'cycle_end': 0.1},
  'optimizer': {'learning_rate': 1e-3, 'disc_learning_rate_ratio': 2.0},
}
RECIPES = {
  'keras': KERAS_NETS,
  'paper': PAPER_NETS,
  'critic': CRITIC,
  'ladder': LADDER,
}


@pytest.fixture
def float64():
  # Sums in another order differ by rounding, which Adam amplifies where a
  # gradient is zero up to rounding. In float64 that is negligible, so any
  # difference is in the algebra.
  jax.config.update('jax_enable_x64', True)
  yield
  jax.config.update('jax_enable_x64', False)


def widened(tree):
  return jax.tree.map(
    lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, tree
  )


def make_config(nets):
  common = {
    'data': {'size': 8, 'load_size': 8},
    'optimizer': {'learning_rate': 1e-3},
  }
  config = Config().replace(
    batch_size=GLOBAL_BATCH,
    pool_size=12,  # full after the first step and a half
    ema_decay=0.9,
    **common | nets,
  )
  for side in ('generator', 'discriminator'):
    config = config.replace(**{side: {'dtype': 'float64'}})
  return config


def batch_at(step, size=8):
  rng = np.random.default_rng(step)
  shape = (GLOBAL_BATCH, size, size, 3)
  return {domain: rng.uniform(-1, 1, shape) for domain in 'ab'}


def run(config, num_devices):
  """The state and the metrics after NUM_STEPS; 0 devices is plain jit."""
  state = widened(create_train_state(config, jax.random.key(0)))
  if num_devices:
    step = parallel.data_parallel(
      functools.partial(train_step, config=config, axis_name=parallel.AXIS),
      num_devices=num_devices,
    )
  else:
    step = functools.partial(train_step, config=config)
  history = []
  for index in range(NUM_STEPS):
    batch = batch_at(index, config.data.size)
    if num_devices:
      batch = parallel.shard_batch(batch, num_devices)
    state, metrics = step(state, batch)
    history.append(jax.tree.map(float, metrics))
  return state, history


@functools.cache
def single_device_run(name):
  return run(make_config(RECIPES[name]), 0)


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize(
  'name, num_devices',
  [
    ('keras', 2),
    pytest.param('paper', 4, marks=pytest.mark.slow),
    *(
      pytest.param(*case, marks=pytest.mark.slow)
      for case in (('paper', 1), ('keras', 8), ('critic', 2), ('ladder', 2))
    ),
  ],
)
def test_devices_equal_one_device(name, num_devices):
  config = make_config(RECIPES[name])
  expected_state, expected_history = single_device_run(name)
  state, history = run(config, num_devices)
  for metrics, expected in zip(history, expected_history, strict=True):
    for key, value in expected.items():
      np.testing.assert_allclose(
        metrics[key], value, rtol=1e-6, atol=1e-9, err_msg=key
      )
  assert int(state.step) == NUM_STEPS
  # The pools are full and hold the same images in the same slots.
  assert int(state.pools['a'].count) == 12
  assert jnp.array_equal(
    jax.random.key_data(state.key), jax.random.key_data(expected_state.key)
  )
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7),
    state.replace(key=None),
    expected_state.replace(key=None),
  )


@pytest.mark.usefixtures('float64')
def test_state_comes_back_unstacked_and_on_every_device():
  config = make_config(KERAS_NETS)
  state = widened(create_train_state(config, jax.random.key(0)))
  step = parallel.data_parallel(
    functools.partial(train_step, config=config, axis_name=parallel.AXIS),
    num_devices=2,
  )
  shapes = jax.tree.map(jnp.shape, state)
  state, _ = step(state, parallel.shard_batch(batch_at(0), 2))
  assert jax.tree.map(jnp.shape, state) == shapes
  kernel = jax.tree.leaves(state.gen)[0]
  assert len(kernel.sharding.device_set) == 2


def test_shard_batch_keeps_the_order_of_examples():
  batch = {'a': np.arange(12).reshape(6, 2), 'b': np.arange(6)}
  shards = parallel.shard_batch(batch, 3)
  np.testing.assert_array_equal(shards['a'][1], [[4, 5], [6, 7]])
  np.testing.assert_array_equal(shards['b'], [[0, 1], [2, 3], [4, 5]])


def test_gather_and_local_slice_undo_each_other():
  x = jnp.arange(24.0).reshape(4, 3, 2)  # [devices, batch, features]

  def step(state, x):
    everything = parallel.gather(x, parallel.AXIS)
    own = parallel.local_slice(everything, 3, parallel.AXIS)
    return everything, jax.lax.psum(jnp.sum(jnp.abs(own - x)), parallel.AXIS)

  everything, difference = parallel.data_parallel(step, num_devices=4)(0.0, x)
  np.testing.assert_array_equal(everything, x.reshape(12, 2))
  assert difference == 0


# Older versions of JAX warn that the donated key was not used.
@pytest.mark.filterwarnings('ignore:Some donated buffers')
def test_example_keys_do_not_depend_on_the_number_of_devices():
  expected = jax.random.key_data(
    parallel.example_keys(jax.random.key(3), 8, None)
  )

  def step(key, x):
    keys = parallel.example_keys(key, x.shape[0], parallel.AXIS)
    return parallel.gather(jax.random.key_data(keys), parallel.AXIS), x.sum()

  for num_devices in (2, 4):
    parts = jnp.zeros((num_devices, 8 // num_devices))
    # The key is donated, so each call needs a new one.
    keys, _ = parallel.data_parallel(step, num_devices=num_devices)(
      jax.random.key(3), parts
    )
    np.testing.assert_array_equal(keys, expected)
