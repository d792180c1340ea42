"""Arrays in files: windows in, windows out, the rest on the disk."""

import math
import os
import pathlib
import tempfile
from typing import Any, Self

import numpy as np

from cyclegan_jax.storage.disk_errors import explain_disk_errors


class Spool:
  """An array [H, W, C] in a nameless file, of which windows are in memory.

  The file goes with the process, however that ends, or with `close`. It is
  zero where nothing was written.
  """

  def __init__(
    self, shape: tuple[int, int, int], dtype: Any, folder: pathlib.Path
  ):
    """Makes the file.

    Raises:
      WorkdirError: the folder can't be written; likewise of `write`.
    """
    self.shape = shape
    self.dtype = np.dtype(dtype)
    self._pixel = shape[2] * self.dtype.itemsize  # bytes
    self._folder = folder
    with explain_disk_errors(folder, option='scratch folder'):
      self._file = tempfile.TemporaryFile(  # noqa: SIM115 (see `close`)
        dir=folder, buffering=0
      )
    os.ftruncate(self._file.fileno(), math.prod(shape) * self.dtype.itemsize)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def close(self) -> None:
    """Gives the room back."""
    self._file.close()

  def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    """The window [y1 - y0, x1 - x0, C]."""
    window = np.empty((y1 - y0, x1 - x0, self.shape[2]), self.dtype)
    with explain_disk_errors(self._folder, option='scratch folder'):
      for row, offset in self._rows(window, y0, x0):
        while row:
          count = os.preadv(self._file.fileno(), [row], offset)
          if not count:
            raise OSError('a scratch file was cut off')
          row, offset = row[count:], offset + count
    return window

  def write(self, y0: int, x0: int, window: np.ndarray) -> None:
    """Puts a window [h, w, C] where its first pixel is (y0, x0)."""
    window = np.ascontiguousarray(window, self.dtype)
    with explain_disk_errors(self._folder, option='scratch folder'):
      for row, offset in self._rows(window, y0, x0):
        while row:
          count = os.pwrite(self._file.fileno(), row, offset)
          row, offset = row[count:], offset + count

  def _rows(
    self, window: np.ndarray, y0: int, x0: int
  ) -> list[tuple[memoryview, int]]:
    """The bytes of each row of a window, and their place in the file."""
    height, width = window.shape[:2]
    # As plain bytes: a buffer does not know of bfloat16.
    flat = window.reshape(height, -1).view(np.uint8)
    if width == self.shape[1]:
      return [(flat.reshape(-1).data, y0 * width * self._pixel)]
    step, first = self.shape[1] * self._pixel, x0 * self._pixel
    return [
      (row.data, (y0 + index) * step + first) for index, row in enumerate(flat)
    ]
