"""The command `cyclegan`, the same as `python -m cyclegan_jax`."""

import contextlib
import importlib
import io
import logging
import signal
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from cyclegan_jax.errors import ConfigError, UserError, one_line, printable
from cyclegan_jax.signals import StoppedError, TerminatedError
from cyclegan_jax.version import __version__

# Modules of cyclegan_jax.commands. Only the one that is called is imported, so
# that no command waits for another's libraries.
COMMANDS = {
  'train': 'train',
  'translate': 'translate',
  'evaluate': 'evaluate',
  'compare': 'compare',
  'serve': 'serve',
  'export': 'export',
  'import': 'import_weights',
}

_SIGPIPE = 13  # which Windows lacks

USAGE = """\
cyclegan train [--config=FILE] [--workdir=FOLDER] [--config.OPTION=VALUE ...]
cyclegan translate CHECKPOINT INPUT ... --to FOLDER [--direction ab|ba]
cyclegan evaluate CHECKPOINT [--data FOLDER]
cyclegan compare RUN RUN ... [--to FILE]
cyclegan serve CHECKPOINT ... [--port 8000]
cyclegan export CHECKPOINT --to DIR
         --format onnx|stablehlo|pth|safetensors|hub|web
cyclegan import WEIGHTS [WEIGHTS] --to FOLDER

Each command has a --help of its own; cyclegan --version prints the version.
"""


def main(argv: list[str] | None = None, *, program: str = '') -> int:
  """Runs a command.

  Args:
    argv: the command and its arguments; None for those of the process.
    program: how the user calls `train`, for the message that tells how to
      resume a run.

  Returns:
    The exit status: 0; 1 for errors that the user can fix; 2 for a wrong
    command line; 128 + n after signal n.
  """
  argv = sys.argv[1:] if argv is None else argv
  _print_any_text()
  try:
    status = _run(argv, program)
    with contextlib.suppress(BrokenPipeError, ValueError):
      if sys.stdout is not None:  # closed by the parent process
        sys.stdout.flush()
    return status
  except BrokenPipeError:  # nobody reads on, as after `| head -1`
    return 128 + _SIGPIPE
  except OSError as error:
    if error.filename is not None:  # with --debug
      raise
    if isinstance(error, FileNotFoundError):
      reason = 'the current folder no longer exists: change to another'
    else:
      reason = f'the output cannot be written: {one_line(error)}'
    print(f'error: {reason}', file=sys.stderr)
    return 1


def _run(argv: list[str], program: str) -> int:
  if not argv or argv[0] in ('-h', '--help'):
    print(USAGE)
    return 0 if argv else 2
  if argv == ['--version']:
    print(f'cyclegan_jax {__version__}')
    return 0
  command = load_command(argv)
  if command is None:
    print(f'error: {argv[0]!r} is not a command\n\n{USAGE}', file=sys.stderr)
    return 2
  debug = not {'--debug', '-debug', '--debug=true'}.isdisjoint(argv)
  with log_to_stderr():
    try:
      return command.run(argv[1:], program or f'cyclegan {argv[0]}')
    except UserError as error:
      if debug:
        raise
      print(f'error: {error}', file=sys.stderr)
      return 2 if isinstance(error, ConfigError) else 1
    except OSError as error:
      if debug or error.filename is None:
        raise
      name = printable(str(error.filename))
      print(
        f'error: {name} cannot be used ({one_line(error)}): change that, or '
        'give another path; --debug shows where',
        file=sys.stderr,
      )
      return 1
    except StoppedError as stopped:
      print('stopped before the first step', file=sys.stderr)
      return 128 + stopped.signal
    except TerminatedError as stopped:
      print('stopped', file=sys.stderr)
      return 128 + stopped.signal
    except KeyboardInterrupt:
      print('stopped', file=sys.stderr)
      return 128 + signal.SIGINT


def load_command(argv: list[str]) -> Any:
  """Imports the module of a command line's command; None for no command."""
  if argv and argv[0] in COMMANDS:
    name = COMMANDS[argv[0]]
    return importlib.import_module(f'cyclegan_jax.commands.{name}')
  return None


def _print_any_text() -> None:
  """Lets standard output replace characters that its encoding lacks."""
  if isinstance(sys.stdout, io.TextIOWrapper):  # not in a notebook
    sys.stdout.reconfigure(errors='replace')


class _StderrHandler(logging.Handler):
  """Prints to the current sys.stderr, which a progress bar may replace."""

  def emit(self, record: logging.LogRecord) -> None:
    """Prints a line."""
    level = record.levelname.lower()
    with contextlib.suppress(OSError, ValueError):  # a log on a full disk
      print(f'{level}: {self.format(record)}', file=sys.stderr)


@contextlib.contextmanager
def log_to_stderr() -> Iterator[None]:
  """Replaces the handlers of the root logger, which Orbax sets up."""
  root, pillow = logging.getLogger(), logging.getLogger('PIL')
  handlers, root.handlers = root.handlers, [_StderrHandler(logging.WARNING)]
  # Pillow's warnings name no file; what becomes of its files is reported.
  level = pillow.level
  pillow.setLevel(logging.CRITICAL)
  try:
    with warnings.catch_warnings():
      warnings.filterwarnings('ignore', module=r'PIL\.')
      # It compiles instead; a folder that cannot be used is reported before.
      warnings.filterwarnings('ignore', '.*persistent compilation cache entry')
      yield
  finally:
    root.handlers = handlers
    pillow.setLevel(level)
