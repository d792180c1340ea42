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
import os
import pathlib
import statistics
import sys

import jax
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from cyclegan_jax.config import Config
from cyclegan_jax.state import create_train_state
from experiments.common import Ours, draw, machine, make_config, measure
from experiments.peers.torch_cyclegan import TUNED, CycleGAN, Options
from experiments.peers.torch_networks import to_torch

NUM_COMPARED = 20
HEADER = """\
| recipe | pixels | batch | PyTorch | theirs, s | ours, s | times as fast |
|---|---|---|---|---|---|---|"""


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


def compare(config: Config, ours: Ours, theirs: Theirs, limit: float) -> float:
  """The largest relative difference of a loss over some steps.

  Raises:
    ValueError: it is above the limit.
  """
  worst = 0.0
  for step in range(NUM_COMPARED):
    batch = {domain: draw(config, step, domain) for domain in 'ab'}
    first, second = ours(ours.images(batch)), theirs(theirs.images(batch))
    for name, loss in second.items():
      expected = float(first[name])
      difference = abs(float(loss) - expected) / abs(expected)
      worst = max(worst, difference)
      if not difference <= limit:
        raise ValueError(
          f'step {step + 1}: {name} is {float(loss):.6g} there and '
          f'{expected:.6g} here: not the same algorithm, nothing is measured'
        )
  return worst


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
