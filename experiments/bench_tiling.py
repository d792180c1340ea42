"""Measures translation by tiles against the translation of the whole image.

  python experiments/bench_tiling.py [--filters 64] [--sizes 1024,2048,4096]

Prints a Markdown table: each row is two processes, as a process's peak memory
never falls. Neither the image nor the output is in memory where tiles are: a
pixel is computed from its place, the output goes to a file. The scratch files
are in the system's folder of temporary files; TMPDIR gives another.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

SMALL = 256  # what Python, JAX and the compiler take anyway
BAND = 128  # rows compared at a time


def draw(y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
  """A window [y1 - y0, x1 - x0, 3] of an endless image: waves and noise."""
  y, x = np.arange(y0, y1)[:, None, None], np.arange(x0, x1)[:, None]
  waves = np.sin(y / 97 + np.arange(3)) * np.cos(x / 61) * 0.6
  mixed = (y * 73_856_093) ^ (x * 19_349_663) ^ (np.arange(3) * 83_492_791)
  noise = (mixed * 2_654_435_761 >> 7) % 1024 / 1024 - 0.5
  return (waves + noise * 0.6).astype(np.float32)


def translate(options: argparse.Namespace) -> None:
  """The child's work: one translation; prints seconds and peak memory."""
  import jax

  from cyclegan_jax.config import Config
  from cyclegan_jax.inference import make_translator
  from cyclegan_jax.state import create_train_state
  from cyclegan_jax.translate.tiling import translate_tiled

  config = Config().replace(
    generator={
      'name': 'resnet',
      'filters': options.filters,
      'blocks': options.blocks,
      'norm': 'instance',
      'affine': False,
      'dropout': 0.0,
      'padding': 'reflect',
    },
  )
  params = create_train_state(config, jax.random.key(0)).gen
  size, file = options.size, options.output.open('w+b')
  if options.child == 'tiled':

    def write(y0: int, x0: int, window: np.ndarray) -> None:
      for index, row in enumerate(np.ascontiguousarray(window)):
        place = ((y0 + index) * size + x0) * 3 * 4
        os.pwrite(file.fileno(), row.tobytes(), place)

    def run(height: int, width: int) -> None:
      translate_tiled(
        config,
        params['ab'],
        'ab',
        draw,
        write,
        (height, width),
        key=jax.random.key(0),
        tile=options.tile,
      )
  else:
    translator = make_translator(config, params, 'ab')

    def run(height: int, width: int) -> None:
      output = translator(draw(0, height, 0, width)[None])[0]
      np.asarray(output).tofile(file)

  start = time.perf_counter()
  run(size, size)
  seconds = time.perf_counter() - start
  file.close()
  used = resource.getrusage(resource.RUSAGE_SELF)
  cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
  print(json.dumps({'seconds': seconds, 'cpu': cpu, 'peak': peak}))


def measure(
  child: str, size: int, options: argparse.Namespace, output: pathlib.Path
) -> dict[str, float]:
  command = [sys.executable, __file__, '--child', child, '--size', str(size)]
  for name in ('filters', 'blocks', 'tile'):
    command += [f'--{name}', str(getattr(options, name))]
  command += ['--output', str(output)]
  done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
  return json.loads(done.stdout.splitlines()[-1])


def difference(first: pathlib.Path, second: pathlib.Path, size: int) -> float:
  count, most = BAND * size * 3, 0.0
  with first.open('rb') as one, second.open('rb') as other:
    while (a := np.fromfile(one, np.float32, count)).size:
      b = np.fromfile(other, np.float32, count)
      most = max(most, float(np.abs(a - b).max()))
  return most


def _both(measured: dict[str, float]) -> str:
  return f'{measured["cpu"]:.0f} ({measured["seconds"]:.0f})'


def processor() -> str:
  path = pathlib.Path('/proc/cpuinfo')
  text = path.read_text() if path.exists() else ''
  found = re.search(r'model name\s*: (.+)', text)
  return found[1] if found else platform.machine()


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--filters', type=int, default=64)
  parser.add_argument('--blocks', type=int, default=9)
  parser.add_argument('--tile', type=int, default=0)
  parser.add_argument('--sizes', default='1024,2048,4096')
  parser.add_argument('--largest-untiled', type=int, default=2048)
  parser.add_argument('--child', help=argparse.SUPPRESS)
  parser.add_argument('--size', type=int, help=argparse.SUPPRESS)
  parser.add_argument('--output', type=pathlib.Path, help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.child:
    translate(options)
    return
  print(f'{datetime.date.today()}: {processor()}, {os.cpu_count()} cores,')
  print(f'ResNet-{options.blocks}, {options.filters} filters. Seconds are of')
  print('all cores together, with compilation; in brackets on the clock.\n')
  print('| pixels | untiled, MiB | tiled, MiB | untiled, s | tiled, s ', end='')
  print('| tiled / untiled | greatest difference |')
  print('|---:|---:|---:|---:|---:|---:|---:|')
  sizes = [SMALL, *map(int, options.sizes.split(','))]
  with tempfile.TemporaryDirectory() as folder:
    whole, tiled = (pathlib.Path(folder, name) for name in ('whole', 'tiled'))
    for size in sizes:
      ours = measure('tiled', size, options, tiled)
      row = [f'{size} x {size}', '', f'{ours["peak"]:.0f}']
      row += ['', _both(ours), '', '']
      if size <= options.largest_untiled:
        plain = measure('untiled', size, options, whole)
        row[1], row[3] = f'{plain["peak"]:.0f}', _both(plain)
        row[5] = f'{ours["cpu"] / plain["cpu"]:.2f}'
        row[6] = f'{difference(whole, tiled, size):.1e}'
      print('| ' + ' | '.join(row) + ' |', flush=True)


if __name__ == '__main__':
  main()
