"""Learning rates by hand-computed values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclegan_jax.config import Config, ScheduleConfig
from cyclegan_jax.optimizers import cycle_factor, make_schedule

pytestmark = pytest.mark.usefixtures('strict')

RATE = 2e-4
NAMES = ScheduleConfig.__dataclass_fields__['name'].metadata['choices']


def factor_at(step, *, epochs, steps_per_epoch, **options):
  schedule = make_schedule(
    ScheduleConfig(**options),
    RATE,
    epochs=epochs,
    steps_per_epoch=steps_per_epoch,
  )
  return np.asarray(schedule(jnp.asarray(step, jnp.int32))) / RATE


@pytest.mark.parametrize(
  'epoch, expected',
  [
    (0, 1),
    (99, 1),
    (100, 100 / 101),  # the first epoch of the decay is below the rate
    (101, 99 / 101),
    (150, 50 / 101),
    (199, 1 / 101),  # the last epoch still trains
    (200, 1 / 101),  # past the end
    (10_000, 1 / 101),
  ],
)
def test_linear_is_the_paper_s(epoch, expected):
  of_epoch = {'epochs': 200, 'steps_per_epoch': 7, 'decay_epochs': 100}
  for step in (0, 6):  # an epoch's first and last
    got = factor_at(epoch * 7 + step, name='linear', **of_epoch)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize(
  'epoch, expected', [(0, 0.75), (1, 0.5), (2, 0.25), (3, 0.25)]
)
def test_linear_of_a_run_shorter_than_its_decay(epoch, expected):
  got = factor_at(
    epoch, name='linear', epochs=3, steps_per_epoch=1, decay_epochs=100
  )
  np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_linear_without_decay_epochs_is_constant():
  got = factor_at(
    np.arange(40), name='linear', epochs=9, steps_per_epoch=4, decay_epochs=0
  )
  np.testing.assert_allclose(got, 1, rtol=1e-6)


@pytest.mark.parametrize('step', [0, 1, 10**9])
def test_constant(step):
  got = factor_at(step, name='constant', epochs=9, steps_per_epoch=4)
  np.testing.assert_allclose(got, 1, rtol=1e-6)


@pytest.mark.parametrize(
  'step, expected',
  [(0, 1), (10, 0.75), (15, 0.5), (20, 0.25), (30, 0), (31, 0), (10**9, 0)],
)
def test_cosine(step, expected):
  # Thirty steps: a third of the half circle is cos(60 degrees).
  got = factor_at(step, name='cosine', epochs=3, steps_per_epoch=10)
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  'epoch, expected', [(0, 1), (49, 1), (50, 0.5), (99, 0.5), (100, 0.25)]
)
def test_step(epoch, expected):
  for step in (0, 2):
    got = factor_at(
      epoch * 3 + step,
      name='step',
      epochs=200,
      steps_per_epoch=3,
      step_epochs=50,
      step_factor=0.5,
    )
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@given(
  st.sampled_from(NAMES),
  st.integers(1, 20),
  st.integers(1, 9),
  st.integers(0, 30),
  st.integers(1, 9),
  st.floats(0, 1),
)
def test_no_schedule_rises_or_leaves_its_range(
  name, epochs, steps_per_epoch, decay_epochs, step_epochs, step_factor
):
  factors = factor_at(
    np.arange(200),
    name=name,
    epochs=epochs,
    steps_per_epoch=steps_per_epoch,
    decay_epochs=decay_epochs,
    step_epochs=step_epochs,
    step_factor=step_factor,
  )
  factors = np.broadcast_to(factors, 200)
  assert np.all(np.diff(factors) <= 1e-6)
  assert np.all(factors <= 1 + 1e-6)
  if name == 'linear':
    assert np.all(factors >= 1 / (decay_epochs + 1) - 1e-6)
  else:
    np.testing.assert_allclose(factors[0], 1, rtol=1e-6)
    assert np.all(factors >= 0)


@pytest.mark.parametrize('name', NAMES)
def test_a_traced_step(name):
  schedule = make_schedule(
    ScheduleConfig(name=name, decay_epochs=2, step_epochs=2),
    RATE,
    epochs=4,
    steps_per_epoch=3,
  )
  jitted = jax.jit(schedule)
  for step in (0, 5, 6, 11, 12, 100):
    step = jnp.asarray(step, jnp.int32)
    rate = jitted(step)
    assert rate.shape == ()
    assert rate.dtype == jnp.float32
    np.testing.assert_allclose(rate, schedule(step), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize('name', NAMES)
def test_the_rate_is_a_factor(name):
  options = {'epochs': 4, 'steps_per_epoch': 3}
  config = ScheduleConfig(name=name, decay_epochs=2, step_epochs=1)
  step = jnp.asarray(7, jnp.int32)
  one, two = (make_schedule(config, rate, **options)(step) for rate in (1, 2))
  np.testing.assert_allclose(two, 2 * one, rtol=1e-6)


@pytest.mark.parametrize(
  'step, expected', [(0, 1), (25, 0.775), (100, 0.1), (170, 0.1)]
)
def test_the_cycle_weight_falls_linearly(step, expected):
  config = Config().replace(
    epochs=5, steps_per_epoch=20, schedule={'cycle_end': 0.1}
  )
  factor = cycle_factor(config, jnp.asarray(step))
  assert float(factor) == pytest.approx(expected)
  # The number of steps replaces that of epochs.
  assert float(cycle_factor(config.replace(steps=2 * step or 1), step)) == (
    pytest.approx(0.55 if step else 1)
  )


def test_a_constant_cycle_weight_is_no_array():
  """So that the step is compiled as without a schedule."""
  assert isinstance(cycle_factor(Config(), jnp.asarray(7)), float)
