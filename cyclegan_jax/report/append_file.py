"""A file that only grows, on a disk that may be full for a while."""

import contextlib
import os
import pathlib

from cyclegan_jax.storage.checksums import sync_folder


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
    self._path = path
    # Unbuffered: Python would try to write its own buffer again at the end.
    self._file = path.open('ab', buffering=0)
    self._size = self._file.seek(0, os.SEEK_END)
    self._is_torn = False
    self._pending = b''

  def append(self, record: bytes) -> None:
    """Writes a record, after those that wait.

    Raises:
      OSError: they wait from now on, this one included.
    """
    self._pending += record
    self._flush()

  def read(self) -> bytes:
    """All records, with those that wait.

    Raises:
      OSError: from the disk.
    """
    with self._path.open('rb') as file:
      return file.read(self._size) + self._pending

  def cut(self, size: int) -> None:
    """Takes back what was appended after the first bytes.

    Raises:
      OSError: from the disk, though a full one does it.
    """
    kept = min(size, self._size)
    self._pending = self._pending[: size - kept]
    self._size, self._is_torn = kept, True
    self._mend()

  def sync(self) -> None:
    """Writes what waits, so that it survives a loss of power.

    Raises:
      OSError: from the disk.
    """
    self._flush()
    os.fsync(self._file.fileno())
    sync_folder(self._path.parent)

  def close(self) -> None:
    """Closes the file; what still waits is lost, which is told.

    Raises:
      OSError: from the disk.
    """
    if self._file.closed:
      return
    try:
      self._flush()
    finally:
      self._file.close()

  def _flush(self) -> None:
    if self._is_torn:
      self._mend()
    if not self._pending:
      return
    try:
      written = 0
      while written < len(self._pending):
        written += self._file.write(self._pending[written:]) or 0
    except OSError:
      self._is_torn = True
      with contextlib.suppress(OSError):  # else the next one does it
        self._mend()
      raise
    self._size += len(self._pending)
    self._pending = b''

  def _mend(self) -> None:
    os.truncate(self._file.fileno(), self._size)
    self._is_torn = False
