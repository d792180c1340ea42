"""What it costs to look for a NaN at every step, and to be deterministic.

  python experiments/bench_checks.py [--config=configs/default.py] [--rounds 12]

Steps of the compiled program that the loop runs, on images of noise, in turns
A B A B in one process; each turn is timed as a whole, waiting for one step
while the next is under way, as the loop does:

  without   the step alone; the loop waits for its metrics
  checked   the step as it is, which also tells whether all of them are finite
  exact     on a GPU: the same with config.deterministic=True
"""

import argparse
import runpy
import statistics
import time

import jax
import numpy as np

from cyclegan_jax import create_train_state, train_step
from cyclegan_jax.config import from_config_dict
from cyclegan_jax.data.augment import augment, augment_key
from cyclegan_jax.data.resizing import raw_size
from cyclegan_jax.training.compiled_step import (
  compile_step,
  is_state_finite,
)

STEPS_A_TURN = 5


def unchecked(config):
  """The step without the check, compiled in the same way."""

  def update(state, raw):
    batch = augment(raw, augment_key(state.key, state.step), config.data)
    return train_step(state, batch, config=config)

  return jax.jit(update, donate_argnums=0)


def turn(run, state, raw, wait):
  """Seconds a step, and the state."""
  began, previous = time.perf_counter(), None
  for _ in range(STEPS_A_TURN):
    state, *rest = run(state, raw)
    if previous is not None:
      wait(previous)
    previous = rest
  wait(previous)
  return (time.perf_counter() - began) / STEPS_A_TURN, state


def quartiles(values):
  low, middle, high = statistics.quantiles(values, n=4)
  return f'{middle:.4f} ({low:.4f} to {high:.4f})'


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--config', default='configs/default.py')
  parser.add_argument('--rounds', type=int, default=12)
  options = parser.parse_args()
  values = runpy.run_path(options.config)['get_config']()
  config = from_config_dict(values).replace(
    num_devices=1, steps=1000, steps_per_epoch=100
  )
  rng = np.random.default_rng(0)
  size = raw_size(config.data)
  raw = {
    d: rng.integers(
      0, 256, (config.batch_size, *size, config.channels(d)), np.uint8
    )
    for d in 'ab'
  }

  def fresh():
    return create_train_state(config, jax.random.key(0))

  variants = {
    'without': (unchecked(config), jax.block_until_ready),
    'checked': (
      compile_step(config, fresh()).run,
      lambda rest: bool(rest[1]),
    ),
  }
  if jax.default_backend() == 'gpu':
    exact = config.replace(deterministic=True)
    variants['exact'] = (
      compile_step(exact, fresh()).run,
      lambda rest: bool(rest[1]),
    )
  states = {name: fresh() for name in variants}
  seconds = {name: [] for name in variants}
  for number in range(options.rounds + 1):
    for name, (run, wait) in variants.items():
      taken, states[name] = turn(run, states[name], raw, wait)
      if number:  # the first compiles and warms up
        seconds[name].append(taken)
  print(f'{jax.devices()[0].device_kind}, jax {jax.__version__}')
  print('seconds a step, median (quartiles); ratio to the line above')
  previous = None
  for name, taken in seconds.items():
    ratio = ''
    if previous:
      pairs = zip(taken, seconds[previous], strict=True)
      ratio = f'  {quartiles([x / y for x, y in pairs])}'
    print(f'  {name:8} {quartiles(taken)}{ratio}')
    previous = name

  state, fetches = states['checked'], []
  for _ in range(20):
    state, metrics, flag = variants['checked'][0](state, raw)
    jax.block_until_ready((metrics, flag))
    began = time.perf_counter()
    bool(flag)
    fetches.append(time.perf_counter() - began)
  print(f'fetching the bool: {1e6 * statistics.median(fetches):.1f} us a step')
  wholes = []
  for _ in range(10):
    began = time.perf_counter()
    assert is_state_finite(state)
    wholes.append(time.perf_counter() - began)
  print(
    f'the whole state, once a checkpoint: {1e3 * statistics.median(wholes):.1f}'
    ' ms'
  )


if __name__ == '__main__':
  main()
