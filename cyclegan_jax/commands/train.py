"""`cyclegan train`."""

import pathlib
import shlex
import signal

from cyclegan_jax.commands import train_flags
from cyclegan_jax.errors import ConfigError
from cyclegan_jax.storage.workdir import (
  discard_workdir,
  make_workdir,
)
from cyclegan_jax.training import processes
from cyclegan_jax.training.train import (
  TrainResult,
  train,
)


def run(argv: list[str], program: str) -> int:
  """Trains, or goes on training."""
  if '--help' in argv or '-h' in argv:
    print(f'{train_flags.USAGE}\n{train_flags.options_help()}')
    return 0
  parsed = train_flags.parse_train_flags(argv)
  if parsed.config.distributed.initialize and not parsed.workdir:
    raise ConfigError(
      'config.distributed.initialize=True needs --workdir: all processes of a '
      'run have one, and write it nowhere else'
    )
  workdir = parsed.workdir or make_workdir()
  try:
    result = train(parsed.config, workdir)
  except BaseException:
    if not parsed.workdir:
      discard_workdir(workdir)
    raise
  again = argv if parsed.workdir else [*argv, f'--workdir={workdir}']
  command = f'{program} {shlex.join(again)}'
  if processes.is_first():
    _tell_end(result, workdir, command)
  return 128 + result.signal if result.signal else 0


def _tell_end(result: TrainResult, workdir: pathlib.Path, command: str) -> None:
  step, steps = int(result.state.step), result.config.steps
  if result.signal:
    name = signal.Signals(result.signal).name
    print(
      f'\n{name}: stopped and saved at step {step:,} of {steps:,}. Go on with'
      f'\n  {command}'
    )
    return
  if result.score:
    print(f'\n{result.score}')
  if result.start_step >= steps:
    print(
      f'\n{workdir} has all of its {steps:,} steps: nothing is left to do. To '
      'train on, raise --config.epochs or --config.steps'
    )
  else:
    print(f'\ntrained {step:,} steps')
  quoted = shlex.quote(str(workdir))
  print(
    f'  gallery     {workdir / "index.html"}'
    f'\n  checkpoint  {workdir / "checkpoints" / str(step)}'
    f'\n  metrics     {workdir / "metrics.jsonl"}, and with TensorBoard '
    f'installed: tensorboard --logdir={quoted}'
    '\nTranslate a folder of images of a to b with'
    f'\n  python -m cyclegan_jax translate {quoted} FOLDER --to OUT '
    '--direction ab'
  )
