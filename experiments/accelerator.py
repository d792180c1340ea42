"""Measures a GPU or TPU in about 12 minutes, and trains on it if asked.

  python experiments/accelerator.py --to FOLDER
  python experiments/accelerator.py --to FOLDER --train DATA --minutes 8

FOLDER/accelerator.json and accelerator.md are written after each row, so an
interruption loses one row at most. The most important rows come first. No row
begins where the longest so far would not fit into --minutes; a row that is left
out, or whose library or device is missing, is listed with the reason. The sides
of a row take turns in one process after their losses or outputs have agreed.
Compilation is never in a time, and is listed apart (of translations with the
first call). Ratios are times as fast as the row's first side: the median over
neighboring turns, with quartiles. PyTorch is peers/torch_cyclegan.py.

--train trains instead, on DATA (config.data.path) for so many minutes with its
compilation, by the paper's recipe; with --preset throughput at batch 16 in
bfloat16 with a learning rate 4 times as high (the square root of 16). The run
is in FOLDER_run, and goes on if the command is repeated. FOLDER gets both
generators in half precision in files of at most 16 MiB, the metrics, the last
sample sheet, and the scores of `cyclegan evaluate`:

  cat generator_ab.safetensors.* > generator_ab.safetensors

--tiny runs all of it with tiny networks, to test the script on a CPU.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from cyclegan_jax.config import Config
from cyclegan_jax.inference import make_translator
from cyclegan_jax.state import create_train_state
from cyclegan_jax.storage.atomic import replace_text
from cyclegan_jax.storage.safetensors import read_safetensors, write_safetensors
from experiments import bench_run
from experiments.common import (
  Ours,
  draw,
  machine,
  make_config,
  measure,
  quartiles,
)

HAS_TORCH = importlib.util.find_spec('torch') is not None
if HAS_TORCH:
  import torch

  from experiments.bench_step import Theirs, compare
  from experiments.bench_translate import make_theirs
  from experiments.peers.torch_cyclegan import TUNED, Options
  from experiments.peers.torch_networks import from_torch, to_torch

ROOT = pathlib.Path(__file__).parent.parent
ROUNDS = 7
MAX_PART_BYTES = 16 * 2**20


class SkippedError(Exception):
  """Why a row cannot be measured here."""


def reason(error: Exception) -> str:
  """An error in one line."""
  text = (str(error).splitlines() or [''])[0][:300]
  is_own = isinstance(error, SkippedError)
  return text if is_own else f'{type(error).__name__}: {text}'


class Bench:
  """What the rows share."""

  def __init__(self, is_tiny: bool):
    self.is_tiny = is_tiny
    self.is_gpu = jax.default_backend() == 'gpu'
    self.size = 32 if is_tiny else 256
    self.compile_seconds: dict[str, float] = {}
    self.peak_flops = 0.0

  def config(self, batch: int = 1, dtype: str = 'float32') -> Config:
    """The paper's recipe, without the augmentation."""
    config = make_config('resnet9', self.size, batch, dtype)
    if self.is_tiny:
      config = config.replace(
        generator={'filters': 4, 'blocks': 1}, discriminator={'filters': 4}
      )
    return config

  def ours(self, name: str, config: Config, options=None) -> Ours:
    """Our compiled step; its compile time is kept under the name."""
    state = create_train_state(config, jax.random.key(0))
    side = Ours(config, state, options)
    self.compile_seconds[name] = side.compile_seconds
    return side

  def theirs(self, config: Config, options: Any) -> Any:
    """PyTorch's step from the same state."""
    state = create_train_state(config, jax.random.key(0))
    return Theirs(config, state, options, 'cuda' if self.is_gpu else 'cpu')

  def need_torch(self) -> None:
    """Raises SkippedError where PyTorch cannot use the same device."""
    if not HAS_TORCH:
      raise SkippedError('PyTorch is not installed')
    if jax.default_backend() == 'tpu':
      raise SkippedError('PyTorch has no TPU here')
    if self.is_gpu and not torch.cuda.is_available():
      raise SkippedError('PyTorch has no CUDA')


Result = dict[str, Any]


def in_turns(config: Config, sides: dict[str, Any], steps: int) -> Result:
  """Times steps of several sides; the first is what the others refer to."""
  seconds = measure(config, sides, ROUNDS, steps)
  reference = next(iter(seconds.values()))
  result: Result = {}
  for name, values in seconds.items():
    ratios = [a / b for a, b in zip(reference, values, strict=True)]
    result[name] = {
      'ms': quartiles([1000 * value for value in values], 3),
      'pairs/s': round(config.batch_size / sorted(values)[len(values) // 2], 1),
      'times as fast': quartiles(ratios),
    }
  return result


def peaks(bench: Bench) -> Result:
  """Matrix products: the rate that the rest is measured by."""
  side = 256 if bench.is_tiny else 8192
  result: Result = {}
  for name, dtype, precision in (
    ('bfloat16', jnp.bfloat16, 'default'),
    ('float32 by default (TF32 on GPUs)', jnp.float32, 'default'),
    ('float32 in full', jnp.float32, 'highest'),
  ):
    x = jax.random.normal(jax.random.key(0), (side, side), dtype)
    multiply = jax.jit(lambda a, b, p=precision: jnp.matmul(a, b, precision=p))
    jax.block_until_ready(multiply(x, x))
    seconds = []
    for _ in range(ROUNDS):
      began = time.perf_counter()
      for _ in range(4):
        product = multiply(x, x)
      jax.block_until_ready(product)
      seconds.append((time.perf_counter() - began) / 4)
    rates = [2e-12 * side**3 / each for each in seconds]
    result[name] = {'TFLOP/s': quartiles(rates, 2)}
    bench.peak_flops = max(bench.peak_flops, 1e12 * max(rates))
  return result


def step_float32(bench: Bench) -> Result:
  """Batch 1 in float32, each library as it is set by default."""
  config = bench.config()
  ours = bench.ours('step, batch 1, float32', config)
  sides: dict[str, Any] = {'ours': ours}
  note: Result = {}
  try:
    bench.need_torch()
    theirs = bench.theirs(config, Options())
    worst = compare(config, ours, theirs, 1e-3 if not bench.is_gpu else 5e-2)
    note = {'losses differ by': f'{worst:.0e}'}
    sides = {'PyTorch eager': theirs, **sides}
  except Exception as error:  # ours is measured all the same
    note = {'PyTorch': reason(error)}
  return in_turns(config, sides, 2 if bench.is_tiny else 20) | note


def _step_bfloat16(bench: Bench, batch: int, steps: int) -> Result:
  config = bench.config(batch, 'bfloat16')
  ours = bench.ours(f'step, batch {batch}, bfloat16', config)
  sides: dict[str, Any] = {'ours': ours}
  note: Result = {}
  try:
    bench.need_torch()
    theirs = bench.theirs(config, TUNED['cuda' if bench.is_gpu else 'cpu'])
    worst = compare(config, ours, theirs, 1e-1)
    note = {'losses differ by': f'{worst:.0e}'}
    sides = {'PyTorch tuned': theirs, **sides}
  except Exception as error:  # ours is measured all the same
    note = {'PyTorch': reason(error)}
  result = in_turns(config, sides, steps)
  flops = ours.program.cost_analysis().get('flops', 0.0)
  if bench.peak_flops:
    share = flops * result['ours']['pairs/s'] / batch / bench.peak_flops
    note['share of the best matrix product'] = (
      f"{share:.1%}, by XLA's count of operations"
    )
  return result | note


def step_bfloat16(bench: Bench) -> Result:
  """Batch 1 in bfloat16, against the best that PyTorch gives."""
  return _step_bfloat16(bench, 1, 2 if bench.is_tiny else 20)


def step_batch(bench: Bench) -> Result:
  """Batch 16 in bfloat16, against the best that PyTorch gives."""
  batch = 2 if bench.is_tiny else 16
  return _step_bfloat16(bench, batch, 2 if bench.is_tiny else 5)


def _translation(bench: Bench, batch: int, calls: int) -> Result:
  config = bench.config(batch, 'bfloat16')
  params = create_train_state(config, jax.random.key(0)).gen
  translator = make_translator(config, params, 'ab')
  images = draw(config, 0, 'a')
  given: dict[str, Any] = {'ours': jnp.asarray(images)}
  sides: dict[str, Callable] = {
    'ours': lambda x: jax.block_until_ready(translator(x))
  }
  note: Result = {}
  began = time.perf_counter()
  expected = np.asarray(sides['ours'](given['ours']), np.float32)
  name = f'translation, batch {batch}, bfloat16'
  bench.compile_seconds[name] = time.perf_counter() - began
  try:
    bench.need_torch()
    device = 'cuda' if bench.is_gpu else 'cpu'
    for label, compiled in (
      ('PyTorch eager', False),
      ('PyTorch compiled', True),
    ):
      run = make_theirs(config, params['ab'], device, compiled)
      given[label] = to_torch(images, device)
      worst = abs(from_torch(run(given[label])) - expected).max()
      if not worst <= 1e-1:
        raise ValueError(f'{label}: outputs differ by {worst:.1e}')
      sides = {label: run, **sides}
  except Exception as error:  # ours is measured all the same
    note = {'PyTorch': reason(error)}
  seconds: dict[str, list[float]] = {label: [] for label in sides}
  for turn in range(ROUNDS + 1):
    for label, run in sides.items():
      began = time.perf_counter()
      for _ in range(calls):
        run(given[label])
      if turn:
        seconds[label].append((time.perf_counter() - began) / calls)
  reference = next(iter(seconds.values()))
  for label, values in seconds.items():
    ratios = [a / b for a, b in zip(reference, values, strict=True)]
    note[label] = {
      'ms': quartiles([1000 * value for value in values], 3),
      'images/s': round(batch / sorted(values)[len(values) // 2], 1),
      'times as fast': quartiles(ratios),
    }
  return note


def translation_one(bench: Bench) -> Result:
  """One image a call in bfloat16; PyTorch in float32."""
  return _translation(bench, 1, 2 if bench.is_tiny else 50)


def translation_batch(bench: Bench) -> Result:
  """32 images a call in bfloat16; PyTorch in float32."""
  return _translation(bench, 2 if bench.is_tiny else 32, 2)


def input_pipeline(bench: Bench) -> Result:
  """Training from JPEG files on disk, against one batch in memory."""
  config = bench.config(1, 'bfloat16').replace(data={'load_size': 0})
  side = 64 if bench.is_tiny else 256
  rates = bench_run.input_rates(config, rounds=ROUNDS, side=side)
  return {'files': {'% of the speed in memory': quartiles(rates)}}


def variants(bench: Bench) -> Result:
  """Options that save memory or fix the order of sums, at batch 4."""
  batch = 2 if bench.is_tiny else 4
  config = bench.config(batch, 'bfloat16')
  sides = {'as it is': bench.ours(f'step, batch {batch}', config)}
  for name, changes, options in (
    ('remat', {'remat': True}, None),
    ('accumulate', {'accumulate': batch}, None),
    ('deterministic', {}, {'xla_gpu_deterministic_ops': True}),
  ):
    if options and not bench.is_gpu:
      continue
    sides[name] = bench.ours(
      f'step, batch {batch}, {name}', config.replace(**changes), options
    )
  result = in_turns(config, sides, 2 if bench.is_tiny else 5)
  for name, side in sides.items():
    memory = side.program.memory_analysis()
    if memory is not None:
      mib = memory.temp_size_in_bytes / 2**20
      result[name]['temporary memory, MiB'] = round(mib)
  return result


def memory(bench: Bench) -> Result:
  """The most memory that this process had in use, over all rows."""
  stats = jax.devices()[0].memory_stats() or {}
  if 'peak_bytes_in_use' not in stats:
    raise SkippedError('the device does not count it')
  gib = stats['peak_bytes_in_use'] / 2**30
  return {'JAX': {'GiB': round(gib, 2)}}


ROWS: dict[str, Callable[[Bench], Result]] = {
  'matrix products': peaks,
  'step, batch 1, float32': step_float32,
  'step, batch 1, bfloat16': step_bfloat16,
  'step, batch 16, bfloat16': step_batch,
  'translation, batch 1': translation_one,
  'translation, batch 32': translation_batch,
  'from JPEG files': input_pipeline,
  'remat, accumulate, deterministic': variants,
  'memory': memory,
}


def write(to: pathlib.Path, report: Result) -> None:
  """Writes the report as JSON and as Markdown."""
  replace_text(to / 'accelerator.json', json.dumps(report, indent=1) + '\n')
  lines = [
    '# Measured by experiments/accelerator.py',
    '',
    f'{report["machine"]}. ResNet-9 at {report["size"]} px.',
    '',
    f'    {report["command"]}',
  ]
  for name, result in report['rows'].items():
    lines += ['', f'## {name}', '']
    if name in ROWS:
      lines += [str(ROWS[name].__doc__), '']
    tables = {k: v for k, v in result.items() if isinstance(v, dict)}
    lines += [f'- {k}: {v}' for k, v in result.items() if k not in tables]
    if tables:
      columns = list(dict.fromkeys(k for v in tables.values() for k in v))
      lines += [
        '',
        f'| | {" | ".join(columns)} |',
        '|---' * len(columns) + '|---|',
      ]
      for side, values in tables.items():
        cells = [str(values.get(column, '')) for column in columns]
        lines.append(f'| {side} | {" | ".join(cells)} |')
  replace_text(to / 'accelerator.md', '\n'.join(lines) + '\n')


def benchmark(given: argparse.Namespace) -> None:
  """Measures the rows in order until the time is over."""
  # PyTorch needs a part of the device's memory too.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  bench, began = Bench(given.tiny), time.monotonic()
  report: Result = {
    'machine': machine(),
    'devices': [str(device) for device in jax.devices()],
    'command': ' '.join(['python', *sys.argv]),
    'size': bench.size,
    'rows': {},
  }
  longest = 0.0
  for name, row in ROWS.items():
    if given.only not in name:
      continue
    left = 60 * given.minutes - (time.monotonic() - began)
    start = time.monotonic()
    print(f'{name} ({left:.0f} s left)', file=sys.stderr, flush=True)
    if left < max(longest, 1):
      result: Result = {'not measured': 'no time was left'}
    else:
      try:
        result = row(bench)
      except Exception as error:  # such as no memory: the other rows go on
        result = {'not measured': reason(error)}
    taken = time.monotonic() - start
    longest = max(longest, taken)
    report['rows'][name] = result | {'seconds in all': round(taken, 1)}
    report['rows'].pop('compilation', None)
    report['rows']['compilation'] = {
      each: {'s': round(seconds, 1)}
      for each, seconds in bench.compile_seconds.items()
    }
    write(given.to, report)


def train(given: argparse.Namespace) -> None:
  """Trains for some minutes; leaves what is worth keeping."""
  run = given.to.with_name(f'{given.to.name}_run')
  cyclegan = [sys.executable, '-m', 'cyclegan_jax']
  options = [
    '--config.data.name=folder',
    f'--config.data.path={given.train.resolve()}',
  ]
  if given.preset == 'throughput':
    options += ['--config.batch_size=16', '--config.generator.dtype=bfloat16']
    options += ['--config.discriminator.dtype=bfloat16']
    options += ['--config.optimizer.learning_rate=8e-4']
  if given.tiny:
    options += ['--config.data.size=32', '--config.generator.filters=4']
    options += ['--config.generator.blocks=1', '--config.epochs=4']
    options += ['--config.discriminator.filters=4']
  command = [*cyclegan, 'train', '--config=configs/paper.py', *options]
  end = time.monotonic() + 60 * given.minutes
  with subprocess.Popen([*command, f'--workdir={run}'], cwd=ROOT) as process:
    try:
      process.wait(max(1.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
      process.send_signal(signal.SIGTERM)  # it saves, then ends
    if process.wait() not in (0, 128 + signal.SIGTERM):
      sys.exit(f'training ended with {process.returncode}')
  with tempfile.TemporaryDirectory() as folder:
    for direction in ('ab', 'ba'):
      path = pathlib.Path(folder) / f'generator_{direction}.safetensors'
      command = [*cyclegan, 'export', str(run), '--format', 'safetensors']
      command += ['--direction', direction, '--to', str(path)]
      subprocess.run(command, cwd=ROOT, check=True)
      tensors, metadata = read_safetensors(path)
      halves = {name: x.astype(np.float16) for name, x in tensors.items()}
      write_safetensors(path, halves, metadata)
      data = path.read_bytes()
      for number, start in enumerate(range(0, len(data), MAX_PART_BYTES)):
        part = given.to / f'{path.name}.{number}'
        part.write_bytes(data[start : start + MAX_PART_BYTES])
  shutil.copy(run / 'metrics.jsonl', given.to)
  shutil.copy(max((run / 'samples').glob('*.png')), given.to)
  scores = given.to / 'scores.json'
  command = [*cyclegan, 'evaluate', str(run), '--to', str(scores)]
  subprocess.run([*command, '--overwrite'], cwd=ROOT, check=True)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--to', type=pathlib.Path, required=True)
  parser.add_argument('--minutes', type=float, default=12.0)
  parser.add_argument('--only', default='', help='part of rows to measure')
  parser.add_argument('--train', metavar='DATA', type=pathlib.Path)
  parser.add_argument(
    '--preset', choices=('paper', 'throughput'), default='paper'
  )
  parser.add_argument('--tiny', action='store_true')
  given = parser.parse_args()
  given.to.mkdir(parents=True, exist_ok=True)
  given.to = given.to.resolve()
  if given.train:
    train(given)
  else:
    benchmark(given)


if __name__ == '__main__':
  main()
