"""Handlers for Ctrl-C, SIGTERM and SIGHUP.

A signal that the parent process ignores, as `nohup` does with SIGHUP and a
script with SIGINT for its background jobs, stays ignored.
"""

import concurrent.futures
import contextlib
import os
import signal
import stat
import threading
import time
import types
from collections.abc import Callable
from typing import Any, Self, TypeVar

T = TypeVar('T')

# Windows has no SIGHUP.
SIGNALS = tuple(
  signal.Signals[name]
  for name in ('SIGINT', 'SIGTERM', 'SIGHUP')
  if hasattr(signal, name)
)


class StoppedError(Exception):
  """A signal arrived during a long call.

  Attributes:
    signal: number of the signal.
  """

  def __init__(self, signal: int):
    super().__init__(signal)
    self.signal = signal


class TerminatedError(KeyboardInterrupt):
  """SIGTERM or SIGHUP, raised like Ctrl-C to remove unfinished files.

  Attributes:
    signal: number of the signal.
  """

  def __init__(self, signal: int):
    super().__init__(signal)
    self.signal = signal


def handled_signals() -> list[int]:
  """Returns the signals that end a command, without ignored ones."""
  return [n for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]


def raise_on_signals() -> None:
  """Lets signals raise KeyboardInterrupt or its subclass."""
  for number in handled_signals():
    is_ctrl_c = number == signal.SIGINT
    signal.signal(
      number, signal.default_int_handler if is_ctrl_c else _raise_terminated
    )


def _raise_terminated(number: int, frame: types.FrameType | None) -> None:
  _discard_lost_output()
  raise TerminatedError(number)


def _discard_lost_output() -> None:
  """Redirects output to a terminal that was closed, where writing fails."""
  for descriptor in (1, 2):
    with contextlib.suppress(OSError):  # not open
      is_device = stat.S_ISCHR(os.fstat(descriptor).st_mode)
      if is_device and not os.isatty(descriptor):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)


def exit_on_signals() -> None:
  """Lets signals end the process with their usual exit status.

  For the time while JAX is imported: nothing can be lost then, and an
  exception would print a long traceback.
  """
  for number in handled_signals():
    signal.signal(number, _exit)


def _exit(number: int, frame: types.FrameType | None) -> None:
  # Not sys.exit: libraries whose threads are running may crash when the
  # interpreter shuts down.
  os._exit(128 + number)


class StopSignal:
  """While active, the first signal only sets `received`.

  A second one ends the process with its usual exit status. Outside the main
  thread, where Python allows no handlers, nothing is installed.
  """

  def __init__(self) -> None:
    self.received: int | None = None
    self._received_at = 0.0
    self._old: dict[int, Any] = {}

  def __enter__(self) -> Self:
    """Installs the handlers."""
    if threading.current_thread() is threading.main_thread():
      for number in handled_signals():
        self._old[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *_: object) -> None:
    """Restores the previous handlers."""
    for number, handler in self._old.items():
      signal.signal(number, handler)

  def call(self, function: Callable[[], T], *, patience: float = 0) -> T:
    """Calls a function that stays inside a library for long: compilation.

    Python handles signals in the main thread, and only between two of its own
    instructions. So another thread calls the function.

    Args:
      function: the function.
      patience: seconds after a signal in which it may still return.

    Raises:
      StoppedError: a signal arrived; the function keeps running.
    """
    if not self._old:
      return function()
    self._check(patience)
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
      try:
        future.set_result(function())
      except BaseException as error:
        future.set_exception(error)

    # Not a daemon: Python would kill it inside the library when the program
    # ends, and that aborts the process. The command line ends without waiting.
    threading.Thread(target=run, name='call').start()
    while not concurrent.futures.wait([future], timeout=0.1).done:
      self._check(patience)
    return future.result()

  def _check(self, patience: float) -> None:
    if self.received is None:
      return
    if time.monotonic() - self._received_at >= patience:
      raise StoppedError(self.received)

  def _handle(self, number: int, frame: types.FrameType | None) -> None:
    if self.received is not None:
      os._exit(128 + number)
    self._received_at = time.monotonic()
    self.received = number
    _discard_lost_output()
    # The signal may have interrupted a print().
    with contextlib.suppress(OSError):  # a closed pipe
      os.write(2, b'\nstopping after this step; again to stop at once\n')
