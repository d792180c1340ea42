"""`python -m cyclegan_jax` is the command `cyclegan`."""

import os
import signal
import sys
from typing import NoReturn

from cyclegan_jax import signals


def run(*command: str, program: str = '') -> NoReturn:
  """Runs the command line of this process, and ends it.

  Args:
    command: words that come before the process's own.
    program: how the user calls it, for messages.
  """
  signals.leave_at_once()
  from cyclegan_jax.cli import main  # with JAX, which takes seconds

  signal.signal(signal.SIGINT, signal.default_int_handler)
  status = main([*command, *sys.argv[1:]], program=program)
  if status > 128:
    # After a signal a thread may still be inside of the compiler, or waiting
    # for a disk: Python would wait for it, or crash it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
  sys.exit(status)


if __name__ == '__main__':
  run()
