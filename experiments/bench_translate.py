"""Measures translation against PyTorch's, with the same weights and images.

  python experiments/bench_translate.py [--size 256] [--batch 1]

Ours takes turns with PyTorch eager and with torch.compile, in one process; the
row is printed only where the outputs agree to 1e-3. Images are on the device,
and outputs stay there.
"""

import argparse
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from cyclegan_jax.inference import make_translator
from cyclegan_jax.state import create_train_state
from experiments.common import machine, make_config
from experiments.peers.torch_networks import (
  NETS,
  from_torch,
  load_flax,
  to_torch,
)

HEADER = """\
| recipe | pixels | batch | PyTorch | theirs, s | ours, s | times as fast |
|---|---|---|---|---|---|---|"""


def make_theirs(config, params, device: str, compiled: bool) -> Callable:
  net = NETS[config.generator.name](
    config.generator, config.channels('a'), config.channels('b')
  )
  load_flax(net, params)
  net = net.to(device).eval()
  run = torch.compile(net, mode='max-autotune') if compiled else net

  @torch.inference_mode()
  def translate(images):
    output = run(images)
    if device == 'cuda':
      torch.cuda.synchronize()
    return output

  return translate


def seconds_of(translate: Callable, images, calls: int) -> float:
  start = time.perf_counter()
  for _ in range(calls):
    translate(images)
  return (time.perf_counter() - start) / calls


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument(
    '--recipe', choices=('resnet9', 'unet', 'default'), default='resnet9'
  )
  parser.add_argument('--size', type=int, default=256)
  parser.add_argument('--batch', type=int, default=1)
  parser.add_argument('--dtype', default='float32')
  parser.add_argument('--rounds', type=int, default=9)
  parser.add_argument('--calls', type=int, default=2, help='of a turn')
  given = parser.parse_args()
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  torch.set_num_threads(os.cpu_count() or 1)
  config = make_config(given.recipe, given.size, given.batch, given.dtype)
  params = create_train_state(config, jax.random.key(0)).gen
  shape = (given.batch, given.size, given.size, config.channels('a'))
  images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
  translator = make_translator(config, params, 'ab')

  def ours(images):
    return jax.block_until_ready(translator(images))

  given_ours, given_theirs = jnp.asarray(images), to_torch(images, device)
  expected = np.asarray(ours(given_ours))
  print(f'{machine()}\n{" ".join(["python", *sys.argv])}\n\n{HEADER}')
  for compiled in (False, True):
    theirs = make_theirs(config, params['ab'], device, compiled)
    worst = abs(from_torch(theirs(given_theirs)) - expected).max()
    if not worst <= (1e-3 if given.dtype == 'float32' else 1e-1):
      sys.exit(f'outputs differ by {worst:.1e}: nothing is measured')
    pairs = [
      (
        seconds_of(theirs, given_theirs, given.calls),
        seconds_of(ours, given_ours, given.calls),
      )
      for _ in range(given.rounds + 1)
    ][1:]
    low, ratio, high = statistics.quantiles([a / b for a, b in pairs], n=4)
    medians = [statistics.median(each) for each in zip(*pairs, strict=True)]
    name = 'compiled' if compiled else 'eager'
    print(
      f'| {given.recipe} {given.dtype} | {given.size} | {given.batch} | {name} '
      f'| {medians[0]:.4g} | {medians[1]:.4g} '
      f'| {ratio:.2f} ({low:.2f} to {high:.2f}) |',
      flush=True,
    )


if __name__ == '__main__':
  main()
