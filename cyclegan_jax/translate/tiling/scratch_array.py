"""Arrays in scratch files, read and written by windows."""

import math
import os
import pathlib
import tempfile
from typing import Any, Self

import numpy as np

from cyclegan_jax.errors import UserError
from cyclegan_jax.storage.disk_errors import explain_disk_errors


class ScratchArray:
  """An array [H, W, C] in an unnamed file; only windows are in memory.

  It is zero where nothing was written. The system deletes the file when it is
  closed or the process ends, in whatever way.
  """

  def __init__(
    self, shape: tuple[int, int, int], dtype: Any, folder: pathlib.Path
  ):
    """Creates the file.

    Args:
      shape: (height, width, channels).
      dtype: data type.
      folder: folder of the file.

    Raises:
      UserError: the system is Windows.
      WorkdirError: the folder cannot be written; reads and writes raise it
        too.
    """
    if not hasattr(os, 'preadv'):
      raise UserError(
        'translating by tiles needs Linux or macOS: make the image smaller '
        'with --size'
      )
    self.shape = shape
    self.dtype = np.dtype(dtype)
    self._pixel_bytes = shape[2] * self.dtype.itemsize
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
    """Deletes the file."""
    self._file.close()

  def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    """Reads the window [y1 - y0, x1 - x0, C]."""
    window = np.empty((y1 - y0, x1 - x0, self.shape[2]), self.dtype)
    with explain_disk_errors(self._folder, option='scratch folder'):
      for row, offset in self._rows(window, y0, x0):
        while row:
          count = os.preadv(self._file.fileno(), [row], offset)
          if not count:
            raise OSError('a scratch file was truncated')
          row, offset = row[count:], offset + count
    return window

  def write(self, y0: int, x0: int, window: np.ndarray) -> None:
    """Writes a window [h, w, C] whose first pixel is (y0, x0)."""
    window = np.ascontiguousarray(window, self.dtype)
    with explain_disk_errors(self._folder, option='scratch folder'):
      for row, offset in self._rows(window, y0, x0):
        while row:
          count = os.pwrite(self._file.fileno(), row, offset)
          row, offset = row[count:], offset + count

  def _rows(
    self, window: np.ndarray, y0: int, x0: int
  ) -> list[tuple[memoryview, int]]:
    """The bytes of each row of a window, and their offset in the file."""
    height, width = window.shape[:2]
    # As plain bytes, since buffers do not support bfloat16.
    flat = window.reshape(height, -1).view(np.uint8)
    if width == self.shape[1]:
      return [(flat.reshape(-1).data, y0 * width * self._pixel_bytes)]
    step, first = self.shape[1] * self._pixel_bytes, x0 * self._pixel_bytes
    return [
      (row.data, (y0 + index) * step + first) for index, row in enumerate(flat)
    ]
