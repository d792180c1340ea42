"""Training learns, and a broken gradient would be noticed."""

import functools

import jax
import numpy as np
import pytest

import cyclegan_jax as cg
from cyclegan_jax import step
from cyclegan_jax.data.synthetic.drawings import draw
from cyclegan_jax.images import to_float

SIZE, NUM_STEPS = 16, 200
CONFIG = cg.Config().replace(
  batch_size=8,
  pool_size=0,
  data={'size': SIZE, 'load_size': SIZE},
  generator={
    'isize': 4,
    'fixed_input_size': False,
    'filters': 8,
    'dropout': 0.0,
  },
  discriminator={'name': 'pixelgan', 'filters': 4},
  optimizer={'learning_rate': 2e-3},
)


def cycle_losses(config):
  """The mean cycle loss of both sides at the first and at the last step."""
  # Compiled anew, since a test changes the loss.
  train_step = jax.jit(
    functools.partial(step.train_step.__wrapped__, config=config)
  )
  batch = {
    domain: to_float(
      np.stack(
        [
          draw(index, size=SIZE, domain=domain, split='train')
          for index in range(config.batch_size)
        ]
      )
    )
    for domain in 'ab'
  }
  state, losses = cg.create_train_state(config, jax.random.key(0)), []
  for _ in range(NUM_STEPS):
    state, metrics = train_step(state, batch)
    losses.append(
      float(metrics['generator/cycle_a'] + metrics['generator/cycle_b']) / 2
    )
  return losses[0], losses[-1]


def test_eight_drawings_are_learned_by_heart():
  first, last = cycle_losses(CONFIG)
  assert first > 0.3
  assert last < 0.12


@pytest.mark.slow
@pytest.mark.parametrize('broken', ['gradient', 'rate'])
def test_nothing_is_learned_by_a_broken_step(broken, monkeypatch):
  """The control: what the test above would see."""
  config = CONFIG
  if broken == 'rate':
    config = config.replace(optimizer={'learning_rate': 0.0})
  else:
    loss = step.generator_loss
    monkeypatch.setattr(
      step,
      'generator_loss',
      lambda *args, **kwargs: jax.lax.stop_gradient(loss(*args, **kwargs)),
    )
  first, last = cycle_losses(config)
  assert last > 0.9 * first > 0.12
