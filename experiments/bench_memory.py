"""Measures what saves memory in a step, and the time that it takes.

  python experiments/bench_memory.py [--size 64] [--batch 4]

A ResNet-9's step as it is, with config.remat and with config.accumulate: the
temporary memory and the floating-point operations by XLA's count, and seconds
a step, in turns.
"""

import argparse
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
  parser.add_argument('--size', type=int, default=64)
  parser.add_argument('--batch', type=int, default=4)
  parser.add_argument('--rounds', type=int, default=5)
  given = parser.parse_args()
  plain = make_config('resnet9', given.size, given.batch, 'float32')
  shape = (given.batch, given.size, given.size, 3)
  images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
  batch = jax.device_put({'a': images, 'b': images})
  state = create_train_state(plain, jax.random.key(0))
  parts = given.batch
  variants = {
    'as it is': {},
    'remat': {'remat': True},
    f'accumulate={parts}': {'accumulate': parts},
    'both': {'remat': True, 'accumulate': parts},
  }
  steps, seconds = {}, {name: [] for name in variants}
  for name, changes in variants.items():
    config = plain.replace(**changes)
    steps[name] = train_step.lower(state, batch, config=config).compile()
  for turn in range(given.rounds + 1):
    for name, step in steps.items():
      began = time.perf_counter()
      jax.block_until_ready(step(state, batch))
      if turn:  # the first one warms up
        seconds[name].append(time.perf_counter() - began)
  print(f'{machine()}\n{" ".join(["python", *sys.argv])}\n')
  print('| step | MiB | GFLOP | s | times as long |\n|---|---:|---:|---:|---|')
  for name, step in steps.items():
    pairs = zip(seconds[name], seconds['as it is'], strict=True)
    low, ratio, high = statistics.quantiles([a / b for a, b in pairs], n=4)
    mib = step.memory_analysis().temp_size_in_bytes / 2**20
    flops = step.cost_analysis()['flops'] / 1e9
    print(
      f'| {name} | {mib:.0f} | {flops:.0f} '
      f'| {statistics.median(seconds[name]):.2f} '
      f'| {ratio:.2f} ({low:.2f} to {high:.2f}) |'
    )


if __name__ == '__main__':
  main()
