"""Measures how the cost of a run grows.

  python experiments/bench_scale.py size     # of images, 64 to 1024 pixels
  python experiments/bench_scale.py filters  # 8 to 64 in the first layers
  python experiments/bench_scale.py batch    # 1 to 16 pairs, whole and in parts
  python experiments/bench_scale.py files    # 10 to 1,000,000 on disk
  python experiments/bench_scale.py devices  # where there are several

Each point has a process of its own, so that its peak of memory means something
(Linux alone tells it). Steps are of a ResNet with few filters, by default 8,
and 3 blocks, PatchGAN, lsgan, identity losses, 64 px, batch 1: the points take
turns, and the figure is the median. `files` makes folders of small JPEGs, most
of them hard links, under --folder, and deletes them.
"""

import argparse
import functools
import itertools
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

import jax
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from cyclegan_jax.config import Config
from cyclegan_jax.state import create_train_state
from cyclegan_jax.step import train_step
from cyclegan_jax.training.compiled_step import compile_step
from experiments.scale_files import make_files, measure_files, memory

TURN_SECONDS = 0.5  # as many steps as fit, one at least
DEVICE_STEPS = 10  # of a turn
STEP_HEADER = """\
| {} | s a step | times the first | ns a pixel | GFLOP | XLA, MiB \
| times the first | peak, MiB |
|---|---:|---:|---:|---:|---:|---:|---:|"""
FILES_HEADER = """\
| files | open, CPU s | first batch | fingerprint | checkpoint \
| loader, MiB | run, MiB | at most, MiB | list in a checkpoint, MiB |
|---:|---:|---:|---:|---:|---:|---:|---:|---:|"""


class Point(NamedTuple):
  """What a step is measured at."""

  size: int = 64
  filters: int = 8
  batch: int = 1
  accumulate: int = 1

  @property
  def config(self) -> Config:
    return Config().replace(
      batch_size=self.batch,
      accumulate=self.accumulate,
      num_devices=1,
      data={'size': self.size, 'load_size': self.size},
      generator={
        'name': 'resnet',
        'filters': self.filters,
        'blocks': 3,
        'norm': 'instance',
        'padding': 'reflect',
        'dropout': 0.0,
      },
      discriminator={
        'name': 'patchgan',
        'filters': self.filters,
        'norm': 'instance',
      },
      loss={'adversarial': 'lsgan', 'identity_a': 5.0, 'identity_b': 5.0},
    )


SWEEPS = {
  'size': [Point(size=size) for size in (64, 128, 256, 512, 1024)],
  'filters': [Point(filters=filters) for filters in (8, 16, 32, 64)],
  'batch': [
    *(Point(batch=batch) for batch in (1, 2, 4, 8, 16)),
    Point(batch=16, accumulate=4),
    Point(batch=16, accumulate=16),
  ],
}
COUNTS = (10, 1_000, 100_000, 1_000_000)


def tell(**facts: Any) -> None:
  print(json.dumps(facts), flush=True)


class Other:
  """A process that measures one point."""

  def __init__(self, what: str, point: Any):
    command = [sys.executable, __file__, what, '--point', json.dumps(point)]
    self._process = subprocess.Popen(
      command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

  def hear(self) -> dict[str, Any]:
    assert self._process.stdout
    line = self._process.stdout.readline()
    if not line:
      sys.exit(f'a point failed: {self._process.args}')
    return dict(json.loads(line))

  def ask(self) -> dict[str, Any]:
    assert self._process.stdin
    print(file=self._process.stdin, flush=True)
    return self.hear()

  def end(self) -> dict[str, Any]:
    assert self._process.stdin
    self._process.stdin.close()
    facts = self.hear()
    self._process.wait()
    return facts


def measure_step(point: Point) -> None:
  """Tells of a compiled step, and of a turn for each line that it reads."""
  config = point.config
  rng = np.random.default_rng(0)
  shape = (point.batch, point.size, point.size, 3)
  images = {d: rng.uniform(-1, 1, shape).astype(np.float32) for d in 'ab'}
  batch = jax.device_put(images)
  state = create_train_state(config, jax.random.key(0))
  step = (
    jax.jit(functools.partial(train_step, config=config), donate_argnums=0)
    .lower(state, batch)
    .compile()
  )

  def turn(steps: int) -> float:
    nonlocal state
    began = time.perf_counter()
    for _ in range(steps):
      state, metrics = step(state, batch)
    jax.block_until_ready((state, metrics))
    return (time.perf_counter() - began) / steps

  turn(1)
  steps = max(1, int(TURN_SECONDS / turn(1)))
  tell(
    mib=step.memory_analysis().temp_size_in_bytes / 2**20,
    gflop=step.cost_analysis()['flops'] / 1e9,
  )
  for _ in sys.stdin:
    tell(seconds=turn(steps))
  tell(peak=memory('VmHWM'))


def compare_steps(what: str, rounds: int) -> None:
  points, others, facts = SWEEPS[what], [], []
  for point in points:
    others.append(Other(what, point))
    facts.append(others[-1].hear())
  turns = [[each.ask()['seconds'] for each in others] for _ in range(rounds)]
  print(STEP_HEADER.format(what))
  seconds = [statistics.median(each) for each in zip(*turns, strict=True)]
  for point, other, fact, second in zip(
    points, others, facts, seconds, strict=True
  ):
    parts = point.accumulate
    name = f'{getattr(point, what)}' + (f' in {parts} parts' * (parts > 1))
    pixels = point.batch * point.size**2
    # Of a loop over parts XLA counts one round.
    gflop = f'{fact["gflop"]:.1f}' if parts == 1 else '-'
    print(
      f'| {name} | {second:.4g} | {second / seconds[0]:.2f} '
      f'| {1e9 * second / pixels:.0f} | {gflop} | {fact["mib"]:.1f} '
      f'| {fact["mib"] / facts[0]["mib"]:.2f} | {other.end()["peak"]:.0f} |',
      flush=True,
    )


def compare_files(given: argparse.Namespace) -> None:
  print(FILES_HEADER)
  with tempfile.TemporaryDirectory(dir=given.folder) as name:
    for start, stop in itertools.pairwise((0, *COUNTS)):
      make_files(pathlib.Path(name), start, stop)
      fact = Other('files', name).end()
      shutil.rmtree(pathlib.Path(name) / 'checkpoints')
      times = ' | '.join(f'{each:.2f}' for each in fact['seconds'])
      mib = ' | '.join(f'{each:.0f}' for each in fact['mib'])
      print(
        f'| {stop:,} | {times} | {mib} | {fact["listed"]:.2f} |', flush=True
      )


def compare_devices(rounds: int) -> None:
  """Steps of one batch a device on 1, 2, 4, ... devices, in turns."""
  count = jax.local_device_count()
  if count < 2 or jax.default_backend() == 'cpu':
    kind = jax.local_devices()[0].device_kind
    print(
      f'{count} x {kind}: nothing to measure without several accelerators; '
      'that they give what one gives is checked by tests/test_parallel.py'
    )
    return
  numbers = [2**power for power in range(count.bit_length())]
  updates, states, raws = [], [], []
  for number in numbers:
    point = Point(size=256, filters=64, batch=4 * number)
    config = point.config.replace(num_devices=number)
    state = create_train_state(config, jax.random.key(0))
    updates.append(compile_step(config, state))
    states.append(updates[-1].place(state))
    shape = (point.batch, point.size, point.size, 3)
    raws.append({d: np.full(shape, 128, np.uint8) for d in 'ab'})
  seconds: list[list[float]] = [[] for _ in numbers]
  for _ in range(rounds + 1):
    for i, update in enumerate(updates):
      began = time.perf_counter()
      for _ in range(DEVICE_STEPS):
        states[i] = update.run(states[i], raws[i]).state
      jax.block_until_ready(states[i])
      seconds[i].append((time.perf_counter() - began) / DEVICE_STEPS)
  print('| devices | pairs a step | s a step | efficiency |')
  print('|---:|---:|---:|---:|')
  middle = [statistics.median(each[1:]) for each in seconds]
  for number, second in zip(numbers, middle, strict=True):
    print(
      f'| {number} | {4 * number} | {second:.4g} | {middle[0] / second:.0%} |'
    )


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('what', choices=(*SWEEPS, 'files', 'devices'))
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--folder', help='on the disk to measure `files` on')
  parser.add_argument('--point', type=json.loads, help=argparse.SUPPRESS)
  given = parser.parse_args()
  if given.point and given.what == 'files':
    tell(**measure_files(given.point, Point().config))
  elif given.point:
    measure_step(Point(*given.point))
  else:
    # Here, as it brings PyTorch, which no point's memory should hold.
    from experiments.common import machine

    print(f'{machine()}\n{" ".join(["python", *sys.argv])}\n')
    if given.what == 'files':
      compare_files(given)
    elif given.what == 'devices':
      compare_devices(given.rounds)
    else:
      compare_steps(given.what, given.rounds)


if __name__ == '__main__':
  main()
