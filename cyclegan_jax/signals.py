"""Ctrl-C and SIGTERM as a flag that the loop looks at between steps."""

import os
import signal
import threading
import types
from typing import Any, Self


class StopSignal:
  """While active, the first SIGINT or SIGTERM only sets `received`.

  A second one leaves the process at once with its usual exit status. Outside
  the main thread, where Python allows no handlers, nothing is installed.
  """

  _SIGNALS = (signal.SIGINT, signal.SIGTERM)

  def __init__(self) -> None:
    self.received: int | None = None
    self._old: dict[int, Any] = {}

  def __enter__(self) -> Self:
    """Installs the handlers."""
    if threading.current_thread() is threading.main_thread():
      for number in self._SIGNALS:
        self._old[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *_: object) -> None:
    """Puts back the handlers that were there."""
    for number, handler in self._old.items():
      signal.signal(number, handler)

  def _handle(self, number: int, frame: types.FrameType | None) -> None:
    if self.received is not None:
      os._exit(128 + number)
    self.received = number
    # print() could be interrupted in the middle of another one.
    os.write(2, b'\nstopping after this step; once more leaves at once\n')
