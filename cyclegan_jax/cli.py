"""The command `cyclegan`, the same as `python -m cyclegan_jax`."""

import argparse
import contextlib
import logging
import pathlib
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from cyclegan_jax import flags
from cyclegan_jax.errors import ConfigError, UserError
from cyclegan_jax.signals import StoppedError
from cyclegan_jax.train import TrainResult, train
from cyclegan_jax.translate import translate_files
from cyclegan_jax.workdir import discard_workdir, make_workdir

USAGE = """\
cyclegan train [--config=FILE] [--workdir=FOLDER] [--config.OPTION=VALUE ...]
cyclegan translate CHECKPOINT INPUT ... --to FOLDER [--direction ab|ba]

Each command has a --help of its own.
"""


class _PrintHandler(logging.Handler):
  """Prints to what standard error is by then, as a progress bar may hold it."""

  def emit(self, record: logging.LogRecord) -> None:
    """Prints a line."""
    level = record.levelname.lower()
    with contextlib.suppress(OSError, ValueError):  # a log on a full disk
      print(f'{level}: {self.format(record)}', file=sys.stderr)


class _Parser(argparse.ArgumentParser):
  """An ArgumentParser whose errors are one line."""

  def error(self, message: str) -> NoReturn:
    """Raises ConfigError."""
    raise ConfigError(f'{message}: see {self.prog} --help')


def _silence_libraries() -> None:
  """Leaves it to `main` to tell of an error, once.

  When a disk is full, Orbax logs the traceback, asyncio and TensorStore tell
  one for each array, and tensorboardX two more from its threads. A program
  that calls `main` and has hooks of its own keeps them.
  """
  for name in ('absl', 'asyncio'):
    logging.getLogger(name).setLevel(logging.CRITICAL)
  if sys.unraisablehook is sys.__unraisablehook__:
    sys.unraisablehook = _ignore
  if threading.excepthook is threading.__excepthook__:
    threading.excepthook = _ignore


def _ignore(error: Any) -> None:
  del error


def main(argv: list[str] | None = None, *, program: str = '') -> int:
  """Runs a command.

  Args:
    argv: the command and its arguments; None for the process's own.
    program: how the user calls `train`, for the message of how to go on.

  Returns:
    The exit status: 0; 1 for what the user can mend; 2 for a wrong command
    line; 128 + n after signal n.
  """
  argv = sys.argv[1:] if argv is None else argv
  if not argv or argv[0] in ('-h', '--help'):
    print(USAGE)
    return 0 if argv else 2
  if argv[0] not in COMMANDS:
    print(f'error: {argv[0]!r} is not a command\n\n{USAGE}', file=sys.stderr)
    return 2
  debug = not {'--debug', '-debug', '--debug=true'}.isdisjoint(argv)
  # By force: Orbax has set up logging when it was imported.
  logging.basicConfig(
    level=logging.WARNING,
    format='%(message)s',
    handlers=[_PrintHandler()],
    force=True,
  )
  if not debug:
    _silence_libraries()
  try:
    return COMMANDS[argv[0]](argv[1:], program or f'cyclegan {argv[0]}')
  except UserError as error:
    if debug:
      raise
    print(f'error: {error}', file=sys.stderr)
    return 2 if isinstance(error, ConfigError) else 1
  except StoppedError as stopped:
    print('stopped before the first step', file=sys.stderr)
    return 128 + stopped.signal
  except KeyboardInterrupt:
    print('stopped', file=sys.stderr)
    return 128 + signal.SIGINT


def _train(argv: list[str], program: str) -> int:
  if '--help' in argv or '-h' in argv:
    print(f'{flags.USAGE}\n{flags.options_help()}')
    return 0
  parsed = flags.parse_train_flags(argv)
  workdir = parsed.workdir or make_workdir()
  try:
    result = train(parsed.config, workdir)
  except BaseException:
    if not parsed.workdir:
      discard_workdir(workdir)
    raise
  again = argv if parsed.workdir else [*argv, f'--workdir={workdir}']
  command = f'{program} {shlex.join(again)}'
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


def _translate(argv: list[str], program: str) -> int:
  parser = _Parser(
    program, description='Translates images with a trained checkpoint.'
  )
  parser.add_argument(
    'checkpoint', type=pathlib.Path, help="a run's folder, or a checkpoint's"
  )
  parser.add_argument(
    'inputs', type=pathlib.Path, nargs='+', help='images and folders of them'
  )
  parser.add_argument(
    '--to', type=pathlib.Path, required=True, help='folder for the PNG files'
  )
  parser.add_argument('--direction', choices=('ab', 'ba'), default='ab')
  parser.add_argument('--seed', type=int, default=0, help="dropout's")
  parser.add_argument('--debug', action='store_true', help='show tracebacks')
  options = parser.parse_args(argv)
  if not 0 <= options.seed < 2**63:
    parser.error(f'argument --seed: {options.seed} is not from 0 to 2**63 - 1')
  failed = translate_files(
    options.checkpoint,
    options.inputs,
    options.to,
    direction=options.direction,
    seed=options.seed,
  )
  for message in failed:
    print(f'error: {message}', file=sys.stderr)
  return 1 if failed else 0


COMMANDS: dict[str, Callable[[list[str], str], int]] = {
  'train': _train,
  'translate': _translate,
}
