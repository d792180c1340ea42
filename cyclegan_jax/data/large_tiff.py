"""TIFF files by windows: what is not in a window stays on the disk."""

import os
import pathlib
from typing import BinaryIO, Self

import numpy as np

from cyclegan_jax.data.decoding import ImageError, one_line
from cyclegan_jax.data.files import open_file
from cyclegan_jax.data.tiffs import (
  check_installed,
  is_tiff,
  read_layout,
  row_offsets,
)

_DTYPES = ('uint8', 'uint16', 'float32')
_BLACK_IS_ZERO, _RGB = 1, 2


class TiffReader:
  """An uncompressed TIFF file of any size.

  Attributes:
    path: of the file.
    shape: (height, width, channels).
    dtype: 'uint8', 'uint16' or 'float32'.
  """

  def __init__(self, path: pathlib.Path, *, channels: int, max_pixels: int):
    """Reads the header.

    Raises:
      ImageError: it can't be opened.
      ValueError: it is no such file, or has pixels that have to be turned or
        converted first.
    """
    self.path = path
    self._file: BinaryIO = open_file(str(path))
    try:
      if not is_tiff(self._file):
        raise ValueError('no TIFF file')
      layout = read_layout(self._file, max_pixels=max_pixels)
      if (
        layout.dtype not in _DTYPES
        or layout.photometric not in (_BLACK_IS_ZERO, _RGB)
        or layout.alpha
        or layout.orientation != 1
        or layout.samples != channels
      ):
        raise ValueError('its pixels have to be converted')
      self._rows, order = row_offsets(self._file, layout)
    except BaseException:
      self._file.close()
      raise
    self.shape = (layout.height, layout.width, layout.samples)
    self.dtype = layout.dtype
    self._stored = np.dtype(f'{order}{np.dtype(layout.dtype).str[1:]}')

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self._file.close()

  def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    """The window [y1 - y0, x1 - x0, C].

    Raises:
      ImageError: it can't be read.
    """
    channels = self.shape[2]
    of_pixel = channels * self._stored.itemsize
    window = np.empty((y1 - y0, x1 - x0, channels), self.dtype)
    for target, start in zip(window, self._rows[y0:y1], strict=True):
      wanted = (x1 - x0) * of_pixel
      try:
        row = os.pread(self._file.fileno(), wanted, int(start) + x0 * of_pixel)
      except OSError as error:
        raise ImageError(str(self.path), one_line(error)) from error
      if len(row) != wanted:
        raise ImageError(str(self.path), 'it was cut off while it was read')
      target[:] = np.frombuffer(row, self._stored).reshape(target.shape)
    return window


class TiffWriter:
  """An uncompressed BigTIFF file that is filled window by window.

  It is under another name until `finish`; without that, nothing is left.
  """

  def __init__(
    self,
    path: pathlib.Path,
    shape: tuple[int, int, int],
    dtype: str,
    icc: bytes | None = None,
  ):
    """Takes the room on the disk; `icc` is the colour profile.

    Raises:
      UserError: a package is missing.
      OSError: the disk is full, and so on.
    """
    check_installed(str(path))
    import tifffile

    self._path = path
    self._temporary = path.with_name(path.name + '.tmp')
    _, width, channels = shape
    place = tifffile.imwrite(
      self._temporary,
      shape=shape,
      dtype=dtype,
      bigtiff=True,
      photometric='rgb' if channels == 3 else 'minisblack',
      planarconfig=None if channels == 1 else 'contig',
      metadata=None,
      iccprofile=icc,
      returnoffset=True,
    )
    assert place is not None  # it is one contiguous array
    self._start = place[0]
    self._dtype = np.dtype(dtype)
    self._pixel = channels * self._dtype.itemsize
    self._width = width
    self._file = open(self._temporary, 'r+b')  # noqa: SIM115 (see __exit__)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self._file.close()
    self._temporary.unlink(missing_ok=True)

  def write(self, y0: int, x0: int, window: np.ndarray) -> None:
    """Puts a window [h, w, C] where its first pixel is (y0, x0)."""
    window = np.ascontiguousarray(window, self._dtype)
    for index, row in enumerate(window):
      at = ((y0 + index) * self._width + x0) * self._pixel
      data = memoryview(row.tobytes())
      while data:
        count = os.pwrite(self._file.fileno(), data, self._start + at)
        data, at = data[count:], at + count

  def finish(self) -> None:
    """Gives the file its name."""
    os.fsync(self._file.fileno())
    os.replace(self._temporary, self._path)
