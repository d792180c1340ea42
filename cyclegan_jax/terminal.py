"""The console for progress bars and messages: standard error."""

import os
from collections.abc import Iterable
from typing import TypeVar

import rich.console
import rich.progress

T = TypeVar('T')


def stderr_console(*, quiet: bool = False) -> rich.console.Console:
  """Returns a console on standard error that animates terminals only.

  Args:
    quiet: whether it prints nothing.
  """
  console = _Console(stderr=True, quiet=quiet)
  if not is_live(console):
    console = _Console(stderr=True, quiet=quiet, force_terminal=False)
  return console


def track(
  items: Iterable[T], title: str, total: int, *, quiet: bool = False
) -> Iterable[T]:
  """Yields the items, with a progress bar on a terminal."""
  console = stderr_console(quiet=quiet)
  return rich.progress.track(
    items,
    title,
    total,
    transient=True,
    console=console,
    disable=not is_live(console),  # else it prints an empty line
  )


class _Console(rich.console.Console):
  def on_broken_pipe(self) -> None:
    """Prints nothing more; Rich would end the process."""
    self.quiet = True


def is_live(console: rich.console.Console) -> bool:
  """Whether the console can redraw a line.

  Rich takes a log file for a terminal when FORCE_COLOR is set, and notebooks
  run their `!` commands in a pseudo-terminal.
  """
  return (
    console.is_terminal
    and not console.is_dumb_terminal
    and console.file.isatty()
    and 'JPY_PARENT_PID' not in os.environ
  )
