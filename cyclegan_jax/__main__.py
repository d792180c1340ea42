"""`python -m cyclegan_jax` is the command `cyclegan`."""

import contextlib
import io
import os
import sys
from typing import NoReturn

from cyclegan_jax import signals


def run(*command: str, program: str = '') -> NoReturn:
  """Runs the command line of this process, and exits.

  Args:
    command: words before the arguments of the process.
    program: how the user calls it, for messages.
  """
  signals.exit_on_signals()
  from cyclegan_jax import cli

  argv = [*command, *sys.argv[1:]]
  if cli.load_command(argv):  # imports JAX, which takes seconds
    from cyclegan_jax.storage.cache import keep_compiled_programs

    with cli.log_to_stderr():
      keep_compiled_programs()
  signals.raise_on_signals()
  _keep_on_without_messages()
  try:
    status = cli.main(argv, program=program)
  except SystemExit as end:  # by argparse, after --help
    status = int(end.code or 0)
  # A thread may still be compiling, or waiting for a disk: Python would wait
  # for it, or crash it.
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError, ValueError):  # a closed pipe
      if stream is not None:  # closed by the parent process
        stream.flush()
  os._exit(status)


class _Stderr(io.TextIOWrapper):
  """Standard error that loses what cannot be written."""

  def write(self, text: str) -> int:
    with contextlib.suppress(OSError):
      super().write(text)
    return len(text)

  def flush(self) -> None:
    with contextlib.suppress(OSError):
      super().flush()


def _keep_on_without_messages() -> None:
  """Lets the work go on where messages cannot be written, as on a full disk."""
  old = sys.stderr
  if isinstance(old, io.TextIOWrapper):
    sys.stderr = _Stderr(
      old.buffer,
      encoding=old.encoding,
      errors=old.errors,
      line_buffering=old.line_buffering,
      write_through=old.write_through,
    )


if __name__ == '__main__':
  run()
