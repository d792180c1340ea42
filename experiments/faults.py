"""Kills, starves and corrupts real runs, and writes what came of it.

  python experiments/faults.py [--kills 500] [--jobs 2] [--only NAME ...]

Every run is `python main.py` on two tiny networks, in a temporary folder. It
is compared with an undisturbed run to the last bit: each checkpoint that a
fault leaves, the state at the end, metrics.jsonl and TensorBoard's events.
Writes experiments/faults.md. Disks are filled and made read-only for real
where root may mount; operations of the disk fail by `fault_shim.c` where
there is a C compiler.
"""

import argparse
import concurrent.futures
import contextlib
import datetime
import importlib.metadata
import os
import pathlib
import platform
import shlex
import sys
import time

import rich.console
import rich.progress
from fault_kinds import FAULTS, Skipped
from fault_lab import ROOT, Lab


def inject(lab, names, kills, *, console=None):
  """Injects faults, several at a time.

  Args:
    lab: the place.
    names: of FAULTS.
    kills: of processes by SIGKILL; other counts follow it.
    console: shows the progress; None for none.

  Returns:
    {name: trials, or the text that says why there are none}.
  """
  results, tasks = {}, {}
  console = console or rich.console.Console(quiet=True)
  columns = rich.progress.Progress.get_default_columns()
  with (
    rich.progress.Progress(*columns, console=console) as progress,
    concurrent.futures.ThreadPoolExecutor(lab.jobs) as pool,
    contextlib.ExitStack() as stack,
  ):
    for name in names:
      results[name] = []
      try:
        for task in FAULTS[name](lab, kills):
          tasks[pool.submit(task)] = name
      except Skipped as reason:
        results[name] = str(reason)
    bar = progress.add_task('faults', total=len(tasks))
    stack.callback(pool.shutdown, wait=False, cancel_futures=True)  # Ctrl-C
    for done in concurrent.futures.as_completed(tasks):
      name = tasks[done]
      progress.update(bar, advance=1, description=name)
      try:
        results[name] += done.result()
      except Skipped as reason:
        results[name] = str(reason)
      for trial in [] if done.exception() else done.result():
        if trial.problem:
          console.print(
            f'{name}: {trial.problem}', markup=False, soft_wrap=True
          )
  return results


def row(name, trials, folder):
  """A line of the table."""
  if isinstance(trials, str):
    return f'| {name} | - | - | - | skipped: {trials} |'
  if not trials:
    return f'| {name} | 0 | - | - | it never hit |'
  recovered = sum(trial.recovered for trial in trials)
  compared = [trial for trial in trials if trial.is_compared]
  equal = sum(not trial.problem for trial in compared)
  saw = next((t.saw for t in reversed(trials) if t.saw and not t.problem), '')
  saw = saw.replace(f'{folder}/', '').replace('|', r'\|')
  cell = f'`{saw}`'
  seconds = [trial.seconds for trial in trials if trial.seconds is not None]
  if seconds:
    cell += f' (gone after {max(seconds):.1f} s at most)'
  equal = f'{equal} of {len(compared)}' if compared else '-'
  return f'| {name} | {len(trials)} | {recovered} | {equal} | {cell} |'


def report(results, folder, command, seconds):
  """The text of faults.md."""
  versions = ', '.join(
    f'{name} {importlib.metadata.version(name)}'
    for name in ('jax', 'flax', 'orbax-checkpoint', 'tensorstore')
  )
  rows = [row(name, trials, folder) for name, trials in results.items()]
  return '\n'.join(
    [
      '# Faults, injected for real',
      '',
      f'`{command}`, {datetime.date.today()}, {platform.system()} '
      f'{platform.machine()}, {os.cpu_count()} CPU cores, Python '
      f'{platform.python_version()}, {versions}; {seconds / 60:.0f} minutes.',
      '',
      'Injected: a process was killed or signalled at work, or an operation of',
      'its files did fail; what came too late or hit nothing is not counted.',
      'Recovered: the run went on to its end, or ended with one clear line and',
      'went on when it was mended. Equal: the newest checkpoint after a fault,',
      'the state at the end, metrics.jsonl and the events for TensorBoard are',
      'those of the undisturbed run to the last bit, each step once.',
      '',
      '| fault | injected | recovered | bitwise equal | what the user saw |',
      '|---|---:|---:|---:|---|',
      *rows,
      '',
    ]
  )


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--kills', type=int, default=500)
  parser.add_argument('--jobs', type=int, default=2, help='runs at a time')
  parser.add_argument(
    '--only',
    nargs='+',
    action='extend',
    metavar='NAME',
    help='part of a name in the table',
  )
  parser.add_argument(
    '--to', type=pathlib.Path, default=ROOT / 'experiments' / 'faults.md'
  )
  options = parser.parse_args()
  parts = options.only or ['']
  names = [n for n in FAULTS if any(p.lower() in n.lower() for p in parts)]
  if not names:
    parser.error('choose from: ' + '; '.join(FAULTS))
  console, began = rich.console.Console(), time.monotonic()
  with Lab(options.jobs) as lab:
    results = inject(lab, names, options.kills, console=console)
  command = shlex.join(['python', 'experiments/faults.py', *sys.argv[1:]])
  seconds = time.monotonic() - began
  text = report(results, lab.folder, command, seconds)
  options.to.write_text(text, encoding='utf-8')
  console.print(text, markup=False, soft_wrap=True)
  trials = [t for each in results.values() for t in each if each != str(each)]
  bad = sum(bool(trial.problem) for trial in trials)
  sys.exit(
    f'{bad} of {len(trials)} faults were not recovered from' if bad else 0
  )


if __name__ == '__main__':
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')  # of what compares
  sys.path.insert(0, str(ROOT))
  main()
