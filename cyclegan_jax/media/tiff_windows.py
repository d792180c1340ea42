"""TIFF files by windows: what is not in a window stays on the disk."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, Self

import numpy as np

from cyclegan_jax.errors import UserError, one_line
from cyclegan_jax.media.decoding import ImageError
from cyclegan_jax.media.listing import open_file
from cyclegan_jax.media.tiff_reader import (
  check_installed,
  decode_parts,
  is_tiff,
  read_layout,
  row_offsets,
)
from cyclegan_jax.media.tiff_writer import encode_header
from cyclegan_jax.storage.atomic import replacing

_DTYPES = ('uint8', 'uint16', 'float32')
_BLACK_IS_ZERO, _RGB = 1, 2


class TiffReader:
  """A TIFF file of any size, whose pixels are as a generator takes them.

  Attributes:
    path: of the file.
    shape: (height, width, channels).
    dtype: 'uint8', 'uint16' or 'float32'.
    is_by_rows: whether windows can be read from it: it is not compressed, and
      not in tiles. Otherwise `read_parts` gives it part by part.
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
      found = row_offsets(self._file, layout)
    except BaseException:
      self._file.close()
      raise
    self.shape = (layout.height, layout.width, layout.samples)
    self.dtype = layout.dtype
    self.is_by_rows = found is not None
    self._layout = layout
    if found is not None:
      self._rows, order = found
      self._stored = np.dtype(layout.dtype).newbyteorder(order)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self._file.close()

  def read_parts(
    self, scratch: pathlib.Path
  ) -> Iterator[tuple[int, int, np.ndarray]]:
    """Decodes it strip by strip, or tile by tile.

    Args:
      scratch: folder for a copy of the file.

    Yields:
      (y0, x0, [h, w, C]), which together are the image.

    Raises:
      ImageError: it is damaged.
      UserError: a package is missing.
      OSError: of the scratch folder.
    """
    name = str(self.path)
    with tempfile.TemporaryFile(dir=scratch) as copy:
      parts = decode_parts(self._file, name, self._layout, copy)
      while True:
        try:
          part = next(parts, None)
        except (OSError, UserError):
          raise
        except Exception as error:  # damaged bytes end in nearly any of them
          raise ImageError(name, one_line(error)) from error
        if part is None:
          return
        yield part

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


@contextlib.contextmanager
def write_tiff(
  path: pathlib.Path,
  shape: tuple[int, int, int],
  dtype: str,
  *,
  exif: bytes | None = None,
  icc: bytes | None = None,
) -> Iterator[Callable[[int, int, np.ndarray], None]]:
  """Writes an uncompressed file window by window, whole or not at all.

  It is a BigTIFF file, which then has no EXIF data, only from 4 GiB.

  Args:
    path: of the file.
    shape: (height, width, channels).
    dtype: 'uint8', 'uint16' or 'float32'.
    exif: with or without its prefix.
    icc: the colour profile.

  Yields:
    What takes (y0, x0, [h, w, C]) and puts it where its first pixel is
    (y0, x0). The file has its name once the body ends.

  Raises:
    UserError: a package is missing.
    OSError: the disk is full, and so on.
  """
  width, channels = shape[1:]
  with replacing(path) as temporary:
    header = encode_header(shape, dtype, exif=exif, icc=icc)
    if header is None:
      start, stored = _begin_big(temporary, shape, dtype, icc)
    else:
      start, stored = len(header[0]), header[1]
      temporary.write_bytes(header[0])
    of_pixel = channels * stored.itemsize
    with temporary.open('r+b') as file:
      os.ftruncate(file.fileno(), start + shape[0] * width * of_pixel)

      def write(y0: int, x0: int, window: np.ndarray) -> None:
        window = np.ascontiguousarray(window, stored)
        for index, row in enumerate(window):
          at = start + ((y0 + index) * width + x0) * of_pixel
          data = memoryview(row.tobytes())
          while data:
            count = os.pwrite(file.fileno(), data, at)
            data, at = data[count:], at + count

      yield write
      os.fsync(file.fileno())


def _begin_big(
  path: pathlib.Path,
  shape: tuple[int, int, int],
  dtype: str,
  icc: bytes | None,
) -> tuple[int, np.dtype]:
  """Writes the header of a BigTIFF file; where its pixels begin, and how."""
  check_installed(str(path))
  import tifffile

  place = tifffile.imwrite(
    path,
    shape=shape,
    dtype=dtype,
    bigtiff=True,
    photometric='rgb' if shape[2] == 3 else 'minisblack',
    planarconfig=None if shape[2] == 1 else 'contig',
    metadata=None,
    iccprofile=icc,
    returnoffset=True,
  )
  assert place is not None  # it is one contiguous array
  return place[0], np.dtype(dtype).newbyteorder('=')
