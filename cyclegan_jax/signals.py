"""Ctrl-C and SIGTERM as a flag that the loop looks at between steps."""

import contextlib
import os
import signal
import threading
import time
import types
from collections.abc import Callable
from typing import Any, Self, TypeVar

T = TypeVar('T')

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(Exception):
  """A signal came while something took long.

  Attributes:
    signal: its number.
  """

  def __init__(self, signal: int):
    super().__init__(signal)
    self.signal = signal


class TerminatedError(KeyboardInterrupt):
  """SIGTERM, as Python has Ctrl-C: what is half written is removed."""


def interrupt() -> None:
  """Lets SIGINT and SIGTERM raise KeyboardInterrupt or its subclass."""
  signal.signal(signal.SIGINT, signal.default_int_handler)
  signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: types.FrameType | None) -> None:
  raise TerminatedError


def leave_at_once() -> None:
  """Lets the first signal end the process, with its usual exit status.

  For the time in which a run has nothing that could be lost; what it does
  meanwhile, importing JAX above all, would answer with a long traceback.
  """
  for number in _SIGNALS:
    signal.signal(number, _leave)


def _leave(number: int, frame: types.FrameType | None) -> None:
  # Not sys.exit: other threads may be inside of a library, which doesn't
  # bear that the interpreter goes away.
  os._exit(128 + number)


class StopSignal:
  """While active, the first SIGINT or SIGTERM only sets `received`.

  A second one leaves the process at once with its usual exit status. Outside
  the main thread, where Python allows no handlers, nothing is installed.
  """

  def __init__(self) -> None:
    self.received: int | None = None
    self._received_at = 0.0
    self._old: dict[int, Any] = {}

  def __enter__(self) -> Self:
    """Installs the handlers."""
    if threading.current_thread() is threading.main_thread():
      for number in _SIGNALS:
        self._old[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *_: object) -> None:
    """Puts back the handlers that were there."""
    for number, handler in self._old.items():
      signal.signal(number, handler)

  def call(self, function: Callable[[], T], *, patience: float = 0) -> T:
    """Calls a function that takes long in a library, such as compilation.

    Python handles signals between two steps of the main thread, of which
    there are none inside of a library. So another thread calls it.

    Args:
      function: to be called.
      patience: seconds after a signal in which it may still end.

    Raises:
      StoppedError: a signal came; the function is left to itself.
    """
    if not self._old:
      return function()
    self._check(patience)
    done = threading.Event()
    result: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
      try:
        result.append(function())
      except BaseException as error:
        errors.append(error)
      done.set()

    threading.Thread(target=run, name='call', daemon=True).start()
    while not done.wait(0.1):
      self._check(patience)
    if errors:
      raise errors[0]
    return result[0]

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
    # print() could be interrupted in the middle of another one.
    with contextlib.suppress(OSError):  # nobody may be there to read it
      os.write(2, b'\nstopping after this step; once more leaves at once\n')
