"""A file that only grows, on a disk that may be full for a while."""

import os
import pathlib


class Journal:
  """Appends whole records; what the disk refuses waits for the next one.

  A record is never torn: what a failed write left of it is cut off before
  anything else is written.
  """

  def __init__(self, path: pathlib.Path):
    """Opens the file at its end.

    Raises:
      OSError: it can't be opened.
    """
    # Unbuffered: Python would try to write its own buffer again at the end.
    self._file = path.open('ab', buffering=0)
    self._size = self._file.seek(0, os.SEEK_END)
    self._pending = bytearray()

  def append(self, record: bytes) -> None:
    """Writes a record, after those that wait.

    Raises:
      OSError: they wait from now on, this one included.
    """
    self._pending += record
    self.flush()

  def flush(self) -> None:
    """Writes what waits.

    Raises:
      OSError: it goes on waiting.
    """
    if not self._pending:
      return
    try:
      written = 0
      while written < len(self._pending):
        written += self._file.write(memoryview(self._pending)[written:]) or 0
    except OSError:
      os.truncate(self._file.fileno(), self._size)
      raise
    self._size += len(self._pending)
    self._pending = bytearray()

  def sync(self) -> None:
    """Writes what waits, so that it survives a loss of power.

    Raises:
      OSError: from the disk.
    """
    self.flush()
    os.fsync(self._file.fileno())

  def close(self) -> None:
    """Closes the file; what still waits is lost, which is told.

    Raises:
      OSError: from the disk.
    """
    try:
      self.flush()
    finally:
      self._file.close()
