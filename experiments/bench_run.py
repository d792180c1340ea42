"""Measures what a run costs beside its steps.

  python experiments/bench_run.py input    # decoding JPEGs, against one batch
  python experiments/bench_run.py records  # samples, checkpoints and metrics
  python experiments/bench_run.py start    # up to the first step

Of a recipe, --config=configs/default.py, with real files and, for `records`
and `start`, whole runs in a temporary folder.
"""

import argparse
import functools
import os
import pathlib
import runpy
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import jax
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from cyclegan_jax.config import Config, from_config_dict
from cyclegan_jax.data.loader import TrainBatches
from cyclegan_jax.data.sources import open_images
from cyclegan_jax.data.synthetic.drawings import draw
from cyclegan_jax.report.run_log import RunLog
from cyclegan_jax.state import create_train_state
from cyclegan_jax.storage.checkpoint import Saver
from cyclegan_jax.training.compiled_step import compile_step
from cyclegan_jax.training.loop import Loop
from cyclegan_jax.training.preflight import resolve
from cyclegan_jax.training.train import train
from experiments.common import machine

STEPS_A_TURN = 8


def tell(name: str, result: str) -> None:
  print(f'{machine()}\n{" ".join(["python", *sys.argv])}\n')
  print(f'| what | measured |\n|---|---|\n| {name} | {result} |')


def quartiles(values: list[float], unit: str = '%') -> str:
  low, middle, high = statistics.quantiles(values, n=4)
  return f'{middle:.2f}{unit} ({low:.2f} to {high:.2f})'


def with_files(config: Config, folder: pathlib.Path, side: int) -> Config:
  """The config with drawings as JPEG files, decoded anew each time."""
  for split, domain in (('trainA', 'a'), ('trainB', 'b')):
    (folder / split).mkdir()
    for index in range(64):
      image = draw(index, size=side, domain=domain, split='train')
      path = folder / split / f'{index:05}.jpg'
      Image.fromarray(image).save(path, quality=90)
  return config.replace(
    data={'name': 'folder', 'path': str(folder), 'cache_gib': 0.0}
  )


def input_rates(config: Config, *, rounds: int, side: int) -> list[float]:
  """Speeds with JPEG files, in % of that with one batch in memory.

  Steps as the loop makes them, in turns.

  Args:
    config: of the run.
    rounds: number of turns of each.
    side: height and width of the files.
  """
  with tempfile.TemporaryDirectory() as folder:
    config = with_files(config, pathlib.Path(folder), side)
    sources = open_images(config.data)
    config = resolve(config.replace(num_devices=1, steps=10**6), sources)
    state = create_train_state(config, jax.random.key(0))
    update = compile_step(config, state)

    def turn(state, batches):
      began, unseen = time.perf_counter(), None
      for _ in range(STEPS_A_TURN):
        outcome = update.run(state, next(batches))
        if unseen is not None:
          bool(unseen.is_finite)
        state, unseen = outcome.state, outcome
      bool(unseen.is_finite)
      return state, time.perf_counter() - began

    ratios = []
    with TrainBatches(config, sources) as files:
      same = next(files)
      constant = iter(lambda: same, None)
      for _ in range(rounds + 1):
        state, with_synthetic = turn(state, constant)
        state, with_real = turn(state, files)
        ratios.append(100 * with_synthetic / with_real)
  return ratios[1:]


def measure_input(config: Config, given: argparse.Namespace) -> None:
  """Steps with files against steps with the same batch."""
  rates = input_rates(config, rounds=given.rounds, side=given.side)
  tell(
    f'from {given.side} px JPEGs against one batch, '
    f'{config.data.size} px, batch {config.batch_size}',
    quartiles(rates),
  )


def measure_records(config: Config, given: argparse.Namespace) -> None:
  """The share of a whole run's loop for which records hold its steps.

  With it the share for which the threads that make them are busy, beside the
  steps.
  """
  spent = {'loop': 0.0, 'held': 0.0, 'beside': 0.0}
  loop_thread = threading.current_thread()

  def timed(kind: type, name: str, into: str) -> None:
    plain = getattr(kind, name)

    @functools.wraps(plain)
    def method(*args, **kwargs):
      began = time.perf_counter()
      try:
        return plain(*args, **kwargs)
      finally:
        # What a thread of theirs waits for, no step does.
        if into != 'held' or threading.current_thread() is loop_thread:
          spent[into] += time.perf_counter() - began

    setattr(kind, name, method)

  timed(Loop, '__call__', 'loop')
  for name in ('add_step', 'add_samples', 'call_after', 'flush'):
    timed(RunLog, name, 'held')
  timed(Saver, 'wait', 'held')
  for name in ('_add_step', '_add_samples', '_write_page', 'sync'):
    timed(RunLog, name, 'beside')
  for name in ('save', '_save'):
    timed(Saver, name, 'beside')
  shares = []
  for _ in range(given.rounds):
    with tempfile.TemporaryDirectory() as folder:
      before = dict(spent)
      train(config, pathlib.Path(folder))
      loop, *others = (spent[each] - before[each] for each in spent)
      shares.append([100 * each / loop for each in others])
  held, beside = (quartiles(each) for each in zip(*shares, strict=True))
  tell(
    "checkpoints, logging and samples, of the loop's time",
    f'{held} of the time steps wait for them; {beside} their threads work '
    'beside the steps',
  )


def measure_start(given: argparse.Namespace) -> None:
  """Seconds from nothing to the first step, the compile cache empty or not.

  Of the recipe as it is, which is ended when the first step is on record.
  """
  with tempfile.TemporaryDirectory() as root:
    environment = os.environ | {'XDG_CACHE_HOME': f'{root}/cache'}
    seconds = []
    for number in range(given.rounds + 1):
      command = [given.python, 'main.py', f'--config={given.config}']
      command += [f'--workdir={root}/{number}']
      command += ['--config.log.metrics_every_steps=1']
      metrics = pathlib.Path(root) / str(number) / 'metrics.jsonl'
      began = time.perf_counter()
      with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
      ) as process:
        while not (metrics.exists() and metrics.stat().st_size):
          if process.poll() is not None and not metrics.exists():
            sys.exit(f'{" ".join(command)} ended with {process.returncode}')
          time.sleep(0.02)
        seconds.append(time.perf_counter() - began)
        process.kill()
  tell(
    f'seconds to the first step: {seconds[0]:.1f} with an empty compile cache; '
    'with a filled one',
    quartiles(seconds[1:], ' s'),
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('what', choices=('input', 'records', 'start'))
  parser.add_argument('--config', default='configs/default.py')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--side', type=int, default=256, help='of JPEG files')
  parser.add_argument(
    '--python',
    default=sys.executable,
    help='start: of another environment, such as one without PyTorch, which '
    'tensorboardX imports where it is',
  )
  given = parser.parse_args()
  if given.what == 'start':
    measure_start(given)
    return
  config = from_config_dict(runpy.run_path(given.config)['get_config']())
  if given.what == 'input':
    measure_input(config, given)
  else:
    measure_records(config, given)


if __name__ == '__main__':
  main()
