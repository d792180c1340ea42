"""Measures several steps by one call of the device against a call for each.

  python experiments/bench_dispatch.py [--recipe default] [--num-steps 4]

Both from the same state, in turns; then in how many arrays of the state they
differ, and by how much. `lax.scan` does not write the steps out, `unrolled`
does.
"""

import argparse
import functools
import pathlib
import statistics
import sys
import time

import jax
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from cyclegan_jax.state import create_train_state
from cyclegan_jax.step import train_step
from experiments.common import machine, make_config


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--recipe', default='default')
  parser.add_argument('--size', type=int, default=64)
  parser.add_argument('--batch', type=int, default=4)
  parser.add_argument('--num-steps', type=int, default=4)
  parser.add_argument('--rounds', type=int, default=7)
  given = parser.parse_args()
  config = make_config(given.recipe, given.size, given.batch, 'float32')
  step = functools.partial(train_step, config=config)
  state = create_train_state(config, jax.random.key(0))
  shape = (given.num_steps, given.batch, given.size, given.size, 3)
  images = np.random.default_rng(0).uniform(-1, 1, (2, *shape))
  a, b = jax.device_put(images.astype(np.float32))
  batches = {'a': a, 'b': b}
  each = [{'a': a[i], 'b': b[i]} for i in range(given.num_steps)]

  def one_by_one():
    new = state
    for batch in each:
      new, _ = step(new, batch)
    return new

  def at_once(unroll):
    scan = functools.partial(jax.lax.scan, step, unroll=unroll)
    program = jax.jit(lambda state, batches: scan(state, batches)[0])
    return functools.partial(
      program.lower(state, batches).compile(), state, batches
    )

  ways = {
    'a call for each': one_by_one,
    'lax.scan': at_once(1),
    'unrolled': at_once(given.num_steps),
  }
  expected = jax.tree.leaves(one_by_one().gen)
  seconds = {name: [] for name in ways}
  for turn in range(given.rounds + 1):
    for name, run in ways.items():
      began = time.perf_counter()
      jax.block_until_ready(run())
      if turn:  # the first one warms up
        seconds[name].append((time.perf_counter() - began) / given.num_steps)
  print(f'{machine()}\n{" ".join(["python", *sys.argv])}\n')
  print('| steps | s each | times as long | arrays that differ | by at most |')
  print('|---|---:|---|---:|---:|')
  for name, run in ways.items():
    pairs = zip(seconds[name], seconds['a call for each'], strict=True)
    low, ratio, high = statistics.quantiles([x / y for x, y in pairs], n=4)
    leaves = jax.tree.leaves(run().gen)
    apart = [
      float(abs(x - y).max()) for x, y in zip(leaves, expected, strict=True)
    ]
    print(
      f'| {name} | {statistics.median(seconds[name]):.3f} '
      f'| {ratio:.2f} ({low:.2f} to {high:.2f}) '
      f'| {sum(map(bool, apart))} of {len(apart)} | {max(apart):.1g} |'
    )


if __name__ == '__main__':
  main()
