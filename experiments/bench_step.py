"""Measures a training step against PyTorch's, on the same weights and images.

  python experiments/bench_step.py [--recipe resnet9] [--size 128] [--batch 1]

Takes turns, A B A B, in one process, and prints a row of a Markdown table:
medians, and the median of the ratios of neighbouring turns with its quartiles.
First both sides take 20 steps on the same images; unless all losses agree to
1e-3 no figure is printed. `--peer tuned` compares with the best PyTorch that
we can make; where that computes in bfloat16 the agreement is 1e-1.

Nothing but the step is timed: the images are on the device already.
"""

import argparse
import datetime
import os
import pathlib
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from cyclegan_jax.config import Config
from cyclegan_jax.state import create_train_state
from cyclegan_jax.step import train_step
from experiments.peers.torch_cyclegan import TUNED, CycleGAN, Options
from experiments.peers.torch_networks import to_torch

NUM_COMPARED = 20
HEADER = """\
| recipe | pixels | batch | PyTorch | theirs, s | ours, s | times as fast |
|---|---|---|---|---|---|---|"""


def make_config(recipe: str, size: int, batch: int, dtype: str) -> Config:
  """The networks and losses of a recipe, so that both sides can be compared.

  Without dropout, and with a low learning rate: rounding grows from step to
  step by ReLUs' kinks and by Adam, which makes a whole step of any gradient.
  """
  config = Config().replace(
    batch_size=batch,
    data={'size': size, 'load_size': size},
    generator={'isize': size},
    optimizer={'learning_rate': 1e-5},
  )
  if recipe == 'default':  # the Keras note's networks with few filters
    return config.replace(generator={'dropout': 0.0})
  if recipe == 'unet':  # the Keras note's at full size
    return config.replace(
      generator={'filters': 64, 'dropout': 0.0, 'dtype': dtype},
      discriminator={'filters': 64, 'dtype': dtype},
      # At batch 1 its batch norms see few values, down to one: gradients that
      # should be 0 are rounding, of which Adam makes whole steps.
      optimizer={'learning_rate': 2e-6},
    )
  return config.replace(
    generator={
      'name': 'resnet',
      'filters': 64,
      'blocks': 9,
      'norm': 'instance',
      'affine': False,
      'padding': 'reflect',
      'dropout': 0.0,
      'dtype': dtype,
    },
    discriminator={
      'name': 'patchgan',
      'filters': 64,
      'norm': 'instance',
      'affine': False,
      'dtype': dtype,
    },
    loss={
      'adversarial': 'lsgan',
      'identity_a': 5.0,
      'identity_b': 5.0,
      'discriminator': 0.5,
    },
  )


class Ours:
  """A compiled step that takes over the state's memory, as in the loop."""

  def __init__(self, config: Config, state):
    self.state = jax.tree.map(jnp.copy, state)
    step = jax.jit(
      lambda state, batch: train_step(state, batch, config=config),
      donate_argnums=0,
    )
    example = self.images({d: _draw(config, 0, d) for d in 'ab'})
    self._step = step.lower(self.state, example).compile()

  @staticmethod
  def images(batch):
    return jax.tree.map(jnp.asarray, batch)

  def __call__(self, batch):
    self.state, metrics = self._step(self.state, batch)
    return metrics

  @staticmethod
  def wait(metrics):
    jax.block_until_ready(metrics)


class Theirs:
  """The peer."""

  def __init__(self, config: Config, state, options: Options, device: str):
    self._device = device
    self._peer = CycleGAN(config, options, device=device, state=state)

  def images(self, batch):
    return {name: to_torch(each, self._device) for name, each in batch.items()}

  def __call__(self, batch):
    return self._peer.step(batch['a'], batch['b'])

  def wait(self, metrics):
    if self._device == 'cuda':
      torch.cuda.synchronize()


def _draw(config: Config, seed: int, domain: str) -> np.ndarray:
  size = config.data.size
  rng = np.random.default_rng([seed, ord(domain)])
  shape = (config.batch_size, size, size, config.channels(domain))
  return rng.uniform(-1, 1, shape).astype(np.float32)


def compare(config: Config, ours: Ours, theirs: Theirs, limit: float) -> float:
  """The largest relative difference of a loss; leaves where it is too large."""
  worst = 0.0
  for step in range(NUM_COMPARED):
    batch = {domain: _draw(config, step, domain) for domain in 'ab'}
    first, second = ours(ours.images(batch)), theirs(theirs.images(batch))
    for name, loss in second.items():
      expected = float(first[name])
      difference = abs(float(loss) - expected) / abs(expected)
      worst = max(worst, difference)
      if not difference <= limit:
        sys.exit(
          f'step {step + 1}: {name} is {float(loss):.6g} there and '
          f'{expected:.6g} here: not the same algorithm, nothing is measured'
        )
  return worst


def measure(
  config: Config, sides: dict[str, Callable], rounds: int, steps: int
) -> dict[str, list[float]]:
  """Seconds a step, of each turn."""
  batch = {domain: _draw(config, 99, domain) for domain in 'ab'}
  batches = {name: side.images(batch) for name, side in sides.items()}
  seconds: dict[str, list[float]] = {name: [] for name in sides}
  for turn in range(rounds + 1):
    for name, side in sides.items():
      start = time.perf_counter()
      for _ in range(steps):
        metrics = side(batches[name])
      side.wait(metrics)
      if turn:  # the first one warms up
        seconds[name].append((time.perf_counter() - start) / steps)
  return seconds


def machine() -> str:
  path = pathlib.Path('/proc/cpuinfo')
  text = path.read_text() if path.exists() else ''
  found = re.search(r'model name\s*: (.*)', text)
  name = found[1] if found else platform.processor()
  if torch.cuda.is_available():
    name = torch.cuda.get_device_name()
  return (
    f'{name}, {os.cpu_count()} cores; jax {jax.__version__}, '
    f'torch {torch.__version__}; {datetime.date.today()}'
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument(
    '--recipe', choices=('resnet9', 'unet', 'default'), default='resnet9'
  )
  parser.add_argument('--size', type=int, default=128)
  parser.add_argument('--batch', type=int, default=1)
  parser.add_argument('--peer', choices=('eager', 'tuned'), default='eager')
  parser.add_argument('--dtype', default='float32')
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--steps', type=int, default=1, help='of a turn')
  given = parser.parse_args()
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  torch.manual_seed(0)
  torch.set_num_threads(os.cpu_count() or 1)
  config = make_config(given.recipe, given.size, given.batch, given.dtype)
  options = TUNED[device] if given.peer == 'tuned' else Options()
  state = create_train_state(config, jax.random.key(0))
  theirs = Theirs(config, state, options, device)
  ours = Ours(config, state)
  is_exact = given.dtype == 'float32' and not options.bfloat16
  worst = compare(config, ours, theirs, 1e-3 if is_exact else 1e-1)
  sides = {'theirs': theirs, 'ours': ours}
  seconds = measure(config, sides, given.rounds, given.steps)
  ratios = [a / b for a, b in zip(*seconds.values(), strict=True)]
  low, _, high = statistics.quantiles(ratios, n=4)
  medians = {name: statistics.median(each) for name, each in seconds.items()}
  print(f'{machine()}\n{" ".join(["python", *sys.argv])}')
  print(f'losses of {NUM_COMPARED} steps differ by {worst:.0e} at most\n')
  print(HEADER)
  print(
    f'| {given.recipe} {given.dtype} | {given.size} | {given.batch} | '
    f'{given.peer} | {medians["theirs"]:.4g} | {medians["ours"]:.4g} | '
    f'{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f}) |'
  )


if __name__ == '__main__':
  main()
