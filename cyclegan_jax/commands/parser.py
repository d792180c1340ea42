"""Argument parsing that the commands share."""

import argparse
import errno
import os
import pathlib
import re
from collections.abc import Callable
from typing import NoReturn

from cyclegan_jax import register
from cyclegan_jax.config import expand_path
from cyclegan_jax.errors import ConfigError, one_line, printable

CHECKPOINT_HELP = (
  "a run's folder, or a checkpoint's; or hf:owner/name of a model hub"
)


class Parser(argparse.ArgumentParser):
  """An ArgumentParser with one-line errors, --plugin and --debug."""

  def __init__(self, program: str, *, description: str):
    super().__init__(program, description=description)
    self.add_argument('--debug', action='store_true', help='show tracebacks')
    self.add_argument(
      '--plugin',
      type=load_plugin,
      action='append',
      metavar='FILE.py',
      help='Python file that registers own networks, losses, data sources or '
      'metrics; it is executed. May be given several times',
    )

  def error(self, message: str) -> NoReturn:
    """Raises ConfigError."""
    raise ConfigError(f'{message}: see {self.prog} --help')


def local_path(text: str) -> pathlib.Path:
  """Argument type for paths: existing ones, and those of outputs.

  Replaces '~' and environment variables, and rejects what no call of the
  system takes, such as names that are too long.
  """
  if not text:
    raise argparse.ArgumentTypeError('the path is empty: give one')
  try:
    path = expand_path(text)
    os.stat(path)
  except (FileNotFoundError, NotADirectoryError):
    pass  # an output, or reported by the command
  except OSError as error:
    if error.errno != errno.EINVAL:  # Windows: a pattern such as *.png
      raise argparse.ArgumentTypeError(
        f'{printable(text)} cannot be opened ({one_line(error)}): give another '
        'path'
      ) from error
  except ValueError as error:
    raise argparse.ArgumentTypeError(str(error)) from error
  return pathlib.Path(path)


def load_plugin(text: str) -> None:
  """Argument type for plugins, which are loaded at once."""
  register.load_plugin(str(local_path(text)))


def whole_number(low: int, high: int = 10**12) -> Callable[[str], int]:
  """Returns an argument type for the whole numbers from `low` to `high`."""

  def parse(text: str) -> int:
    if not re.fullmatch('[0-9]{1,19}', text) or not low <= int(text) <= high:
      raise argparse.ArgumentTypeError(
        f'{text!r} is not a whole number from {low} to {high}'
      )
    return int(text)

  return parse


random_seed = whole_number(0, 2**63 - 1)
