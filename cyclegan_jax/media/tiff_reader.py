"""TIFF reading: bands of any number, layout and depth, whole or by windows.

tifffile reads the files. Before it opens a page, the tags are checked, and
before it decodes one, the size, the kind and the place of the pixels are, so
that no file takes more memory than its image may have.
"""

import contextlib
import contextvars
import io
import itertools
import logging
import math
import os
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Self, TypeAlias

import numpy as np
import tifffile

from cyclegan_jax.errors import ImageError, UserError, one_line
from cyclegan_jax.media.header_limits import (
  check_size,
  iter_directories,
  read_directory,
)

# Cameras that see hundreds of colors have about two hundred.
MAX_CHANNELS = 512
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE = 0, 1, 2, 3  # photometric
ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA = 1, 2

# tifffile also has sizes in between, such as 12 bits, in larger types.
_BITS = {'u': (8, 16, 32), 'i': (8, 16, 32), 'f': (16, 32, 64)}
_UNCOMPRESSED, _DEFLATE = 1, (8, 32946)
# LZW, PackBits and Zstandard; imagecodecs decodes them. Of other compressions
# nobody could say how much memory they take.
_COMPRESSIONS = (_UNCOMPRESSED, *_DEFLATE, 5, 32773, 50000)
_NO_PREDICTOR, _DIFFERENCES, _FLOAT_DIFFERENCES = 1, 2, 3
# A tile may be larger than its image, but not by far.
_MAX_TILE_BYTES = 2**26
_BUFFER_BYTES = 2**24
_MAX_PAGES = 2**16  # that are counted
_REDUCED_OR_MASK = 1 | 4  # of the tag NewSubfileType
_OLD_REDUCED = 2  # of the tag SubfileType
_BYTE_STRINGS = (1, 2, 7)  # types of tags
_NODATA = 42113  # GDAL's tag for pixels without data
_GEOREFERENCE = (33550, 33922, 34264, 34735, 34736, 34737)  # of GeoTIFF

# (code, type, count, value, True), as tifffile writes it.
Tag: TypeAlias = tuple[int | str, int, int, Any, bool]

_IS_QUIET = contextvars.ContextVar('is_quiet', default=False)
logging.getLogger('tifffile').addFilter(lambda _: not _IS_QUIET.get())


@contextlib.contextmanager
def quiet_tifffile() -> Iterator[None]:
  """Drops what tifffile logs inside, in this thread alone.

  It warns of details in ordinary files; errors are raised.
  """
  token = _IS_QUIET.set(True)
  try:
    yield
  finally:
    _IS_QUIET.reset(token)


def is_tiff(file: BinaryIO) -> bool:
  """Whether the file begins as TIFF or BigTIFF; leaves the file at 0."""
  file.seek(0)
  start = file.read(4)
  file.seek(0)
  return start in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')


class TiffImage:
  """One image of a TIFF file, its header read and its pixels not.

  Attributes:
    height: in pixels, before the image is turned upright.
    width: likewise.
    samples: values a pixel, alpha among them.
    dtype: of a value: 'uint16', 'float64'; 'uint8' also for fewer bits, and ''
      for other types.
    photometric: WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE or another kind.
    alpha: kind of alpha in the last sample, 0 for none.
    orientation: as in EXIF, 1 (upright) to 8.
    nodata: value of pixels without data, by GDAL's tag; None for none.
    is_big_endian_bigtiff: whether Pillow would mistake it for plain TIFF.
  """

  def __init__(self, file: BinaryIO, *, max_pixels: int, page: int = 0):
    """Reads the header.

    Args:
      file: open for reading, seekable; it is left open.
      max_pixels: limit on width times height.
      page: number of the image in the file, from 0.

    Raises:
      ValueError: the header is damaged, or claims too much.
    """
    self._file = file
    self._num_bytes = file.seek(0, io.SEEK_END)
    try:
      self._read_header(max_pixels, page)
    except (ValueError, MemoryError):
      raise
    except Exception as error:  # damaged tags end in nearly any of them
      raise ValueError('its tags are damaged') from error

  def _read_header(self, max_pixels: int, number: int) -> None:
    page = self._page = _open_page(self._file, number)
    self._number = number
    self._pages = page.parent.pages
    self.height, self.width = page.imagelength, page.imagewidth
    self.samples = page.samplesperpixel
    if self.samples > MAX_CHANNELS + 1:
      raise ValueError(
        f'it has {self.samples} channels, more than {MAX_CHANNELS} that are '
        'read'
      )
    check_size(self.width, self.height, max_pixels=max_pixels)
    if not self.width * self.height * self.samples:
      raise ValueError('it has no pixels')
    self.dtype = _dtype(page)
    self.photometric = int(page.tags.valueof(262, default=BLACK_IS_ZERO))
    extra = tuple(page.extrasamples)
    has_alpha = extra in ((ASSOCIATED_ALPHA,), (UNASSOCIATED_ALPHA,))
    self.alpha = int(extra[0]) if has_alpha and self.samples > 1 else 0
    orientation = page.tags.valueof(274, default=1)
    self.orientation = int(orientation) if orientation in range(1, 9) else 1
    self.nodata = _nodata(page)
    if self.nodata is None and number:  # some writers mark the first page only
      self.nodata = _nodata(self._pages.first)
    if self.nodata is None and self.dtype.startswith('float'):
      self.nodata = math.nan  # which needs no tag to mean that
    self.is_big_endian_bigtiff = (
      page.parent.is_bigtiff and page.parent.byteorder == '>'
    )

  def has_pages_as_channels(self, channels: int) -> bool:
    """Whether that many gray pages of one kind, and no more, are its bands.

    Three pages of 8 bits are pages, not red, green and blue.

    Raises:
      ValueError: a page claims too much.
    """
    if (
      channels == 1
      or self.samples > 1
      or self.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO)
      or (channels == 3 and self.dtype == 'uint8')
    ):
      return False
    directories = itertools.islice(iter_directories(self._file), channels + 1)
    # tifffile opens those pages alone whose tags were checked.
    numbers = range(len(list(directories)))
    alike = itertools.takewhile(self._is_like_first, numbers)
    return len(list(alike)) == channels

  def _is_like_first(self, number: int) -> bool:
    try:
      with quiet_tifffile():
        pages = self._page, self._pages[number]
    except (IndexError, tifffile.TiffFileError):  # it is damaged
      return False
    first, other = (
      (page.shaped, page.photometric, page.bitspersample, page.sampleformat)
      for page in pages
    )
    return first == other

  def count_pages(self) -> int:
    """Counts pages of any size, without thumbnails and masks."""
    numbers, num_others = self.page_numbers()
    return len(numbers) + num_others

  def page_numbers(self) -> tuple[list[int], int]:
    """Finds pages of the first one's size, without thumbnails and masks.

    Returns:
      Their numbers, and how many pages are of another size.

    Raises:
      ValueError: a page claims too much.
    """
    numbers, num_others = [0], 0
    directories = itertools.islice(iter_directories(self._file), _MAX_PAGES)
    for number, page in enumerate(directories):
      size = page.numbers.get(257), page.numbers.get(256)
      is_part = page.numbers.get(254, 0) & _REDUCED_OR_MASK
      is_part = is_part or page.numbers.get(255) == _OLD_REDUCED
      if not number or is_part:
        continue
      if size == (self.height, self.width):
        numbers.append(number)
      else:
        num_others += 1
    return numbers, num_others

  def decode(self, name: str, *, num_pages: int = 1) -> np.ndarray:
    """Decodes the image as it lies in the file, not turned upright.

    Args:
      name: path or id, for the message of a missing package.
      num_pages: pages to read; each of several is a channel.

    Returns:
      dtype [height, width, samples or num_pages].

    Raises:
      ValueError: the image is damaged or of a kind that is not read.
      UserError: it takes imagecodecs, which is not installed.
    """
    planes = []
    with quiet_tifffile():
      first = self._number
      pages = [self._pages[first + number] for number in range(num_pages)]
    for page in pages:
      self._check(page, name)
      # [planes, 1, height, width, values]; threads are the loader's matter.
      if any(page.databytecounts):
        array = page.asarray(
          squeeze=False, maxworkers=1, buffersize=_BUFFER_BYTES
        )
      else:  # some writers leave out what has no data
        array = np.full(page.shaped, page.nodata, page.dtype)
      plane = np.moveaxis(array[:, 0], 0, -2)
      planes.append(plane.reshape(self.height, self.width, -1))
    pixels = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=-1)
    if pixels.dtype != self.dtype:
      raise ValueError('its tags contradict each other')
    return pixels

  def segments(self, name: str) -> Iterator[tuple[int, int, np.ndarray]]:
    """Decodes an image without planes strip by strip, or tile by tile.

    Args:
      name: as for `decode`.

    Yields:
      (y0, x0, [h, w, samples]), which together cover the image, not turned.

    Raises:
      ValueError: as for `decode`; damaged pixels raise other errors too.
      UserError: as for `decode`.
    """
    self._check(self._page, name)
    for segment, position, size in self._page.segments(
      maxworkers=1, buffersize=_BUFFER_BYTES
    ):
      y0, x0 = position[2:4]
      height = min(size[1], self.height - y0)
      width = min(size[2], self.width - x0)
      shape = height, width, self.samples
      if segment is None:  # some writers leave out what has no data
        yield y0, x0, np.full(shape, self._page.nodata, self.dtype)
      else:
        yield y0, x0, segment[0, :height, :width].reshape(shape)

  def row_offsets(self, name: str) -> np.ndarray | None:
    """Returns the file offset of each row of an uncompressed image in strips.

    Args:
      name: as for `decode`.

    Returns:
      int64 [height]; None where rows do not lie in one piece.

    Raises:
      ValueError, UserError: as for `decode`.
    """
    page = self._page
    self._check(page, name)
    if (
      page.compression != _UNCOMPRESSED
      or page.predictor != _NO_PREDICTOR
      or page.fillorder != 1
      or page.is_tiled
      or self.has_planes
      or not all(page.databytecounts)
    ):
      return None
    of_row = page.nbytes // self.height
    row = np.arange(self.height)
    strips = np.array(page.dataoffsets, np.int64)
    rows = page.rowsperstrip
    return strips[row // rows] + row % rows * of_row

  @property
  def has_planes(self) -> bool:
    """Whether each sample lies in a plane of its own."""
    return self.samples > 1 and self._page.planarconfig != 1

  @property
  def byte_order(self) -> str:
    """'<' or '>'."""
    return self._page.parent.byteorder

  def _check(self, page: Any, name: str) -> None:
    """Checks what tifffile relies on: kind, size and place of the pixels."""
    compression, predictor = int(page.compression), int(page.predictor)
    if compression not in _COMPRESSIONS:
      raise ValueError(f'its compression {compression} is not read')
    if predictor not in (_NO_PREDICTOR, _DIFFERENCES, _FLOAT_DIFFERENCES):
      raise ValueError(f'its predictor {predictor} is unknown')
    if page.planarconfig not in (1, 2):
      raise ValueError(
        f'its planar configuration {page.planarconfig} is unknown'
      )
    if page.bitspersample < 8:
      raise ValueError(
        f'its values of {page.bitspersample} bits are not read as they are '
        'stored'
      )
    if page.imagedepth != 1:
      raise ValueError('it is a volume')
    if page.photometric == PALETTE:
      raise ValueError(f'its {self.dtype} are indices of a palette')
    if not page.is_tiled and not page.rowsperstrip:
      raise ValueError('its strips have no rows')
    of_segment = math.prod(page.chunks) * page.dtype.itemsize
    if not 0 < of_segment <= max(page.nbytes, _MAX_TILE_BYTES):
      raise ValueError(f'its tiles are {page.tilewidth} x {page.tilelength}')
    offsets, counts = page.dataoffsets, page.databytecounts
    expected = math.prod(page.chunked)
    if len(offsets) != expected or len(counts) != expected:
      raise ValueError(f'its pixels lie in {expected} parts, which it lacks')
    if any(
      start + count > self._num_bytes
      for start, count in zip(offsets, counts, strict=True)
    ):
      raise ValueError('it is truncated: some of its pixels lie beyond its end')
    if sum(counts) > self._num_bytes + page.nbytes:
      raise ValueError('its strips overlap')
    # A strip of no bytes has no pixels at all, which is no damage.
    if compression == _UNCOMPRESSED and all(counts):
      num_bytes = expected * of_segment if page.is_tiled else page.nbytes
      if sum(counts) < num_bytes:
        raise ValueError(
          f'it has {sum(counts)} bytes of pixels, not {num_bytes}'
        )
    if not has_imagecodecs():
      if (
        compression not in (_UNCOMPRESSED, *_DEFLATE)
        or predictor == _FLOAT_DIFFERENCES
      ):
        kind = getattr(page.compression, 'name', compression)
        raise needs_imagecodecs(f'{name} (compressed by {kind})')
      if compression in _DEFLATE:
        self._check_deflated(page, of_segment)

  def _check_deflated(self, page: Any, of_segment: int) -> None:
    """Checks what tifffile's own decoder does not: how much comes out."""
    for start, count in zip(page.dataoffsets, page.databytecounts, strict=True):
      self._file.seek(start)
      data = self._file.read(count)
      pixels = zlib.decompressobj().decompress(data, of_segment + 1)
      if len(pixels) > of_segment:
        raise ValueError(f'a strip holds more than its {of_segment} bytes')


def _open_page(file: BinaryIO, number: int = 0) -> Any:
  """A page of a TIFF file, the first by default, whose tags it checks.

  Raises:
    ValueError: there is none, or it claims too much.
  """
  read_directory(file)
  checked = len(list(itertools.islice(iter_directories(file), number + 1)))
  if number and checked <= number:
    raise ValueError(f'it has no page {number}')
  file.seek(0)
  with quiet_tifffile():
    tiff = tifffile.TiffFile(
      file,
      name='image.tif',
      # Of these kinds it would open further pages, of which some may lie.
      is_lsm=False,
      is_ndpi=False,
      is_scanimage=False,
    )
    if not tiff.pages:
      raise ValueError('it is damaged: it has no page')
    return tiff.pages[number] if number else tiff.pages.first


def _dtype(page: Any) -> str:
  bits = page.bitspersample
  if page.dtype is None or not isinstance(bits, int):
    return ''
  if page.dtype.kind in 'bu' and bits < 8:
    return 'uint8'
  return str(page.dtype) if bits in _BITS.get(page.dtype.kind, ()) else ''


def _nodata(page: Any) -> float | None:
  try:
    return float(page.tags.valueof(_NODATA, default=''))
  except (TypeError, ValueError):
    return None


def read_tags(file: BinaryIO) -> tuple[bytes | None, tuple[Tag, ...]]:
  """Reads the color profile of a TIFF file, and where on earth it is from.

  Returns:
    The profile, None for none; and the tags of the georeference, unless the
    image lies on its side, and of GDAL's pixels without data.

  Raises:
    ValueError: the tags claim too much, or are damaged.
  """
  tags = _open_page(file).tags
  with quiet_tifffile():
    icc = tags.valueof(34675)
    is_upright = tags.valueof(274, default=1) == 1
    codes = (*_GEOREFERENCE, _NODATA) if is_upright else (_NODATA,)
    return icc if isinstance(icc, bytes) else None, tuple(
      _portable(tags[code]) for code in codes if code in tags
    )


def _portable(tag: Any) -> Tag:
  """A tag whose value is of no byte order."""
  code, kind, count, value, is_once = tag.astuple()
  if kind not in _BYTE_STRINGS:
    value = tag.value
    if isinstance(value, np.ndarray):
      value = tuple(value.tolist())
  return code, kind, count, value, is_once


def has_imagecodecs() -> bool:
  """Whether the package of the extra `depth` is installed."""
  try:
    import imagecodecs  # noqa: F401
  except ImportError:
    return False
  return True


def needs_imagecodecs(name: str) -> UserError:
  """The error that says what to install to read or write a file."""
  return UserError(
    f"{name} needs the package imagecodecs: pip install 'cyclegan_jax[depth]'"
  )


class TiffWindows:
  """A TIFF file of any size, read window by window.

  Its pixels are as a generator takes them: nothing has to be converted.

  Attributes:
    shape: (height, width, channels).
    dtype: 'uint8', 'uint16', 'int16' or 'float32'.
    nodata: value of pixels without data; None for none.
    is_by_rows: whether `read` works: the image is uncompressed and in strips.
      Otherwise `read_segments` gives it strip by strip or tile by tile.
  """

  def __init__(
    self, file: BinaryIO, name: str, *, channels: int, max_pixels: int
  ):
    """Reads the header.

    Args:
      file: file on a disk, open for reading; it is closed with this object,
        or where this raises.
      name: its path, for messages.
      channels: channels that it must have.
      max_pixels: limit on width times height.

    Raises:
      ImageError: the file is damaged.
      ValueError: it is no TIFF file, or its pixels have to be turned or
        converted first.
      UserError: it takes imagecodecs, which is not installed.
    """
    self._file = file
    self._name = name
    try:
      if not is_tiff(file):
        raise ValueError('no TIFF file')
      if not hasattr(os, 'pread'):  # Windows
        raise ValueError('this system cannot read parts of a file in threads')
      image = self._image = TiffImage(file, max_pixels=max_pixels)
      if (
        image.dtype not in ('uint8', 'uint16', 'int16', 'float32')
        or image.photometric not in (BLACK_IS_ZERO, RGB)
        or image.alpha
        or image.orientation != 1
        or image.samples != channels
        or image.has_planes
      ):
        raise ValueError('its pixels have to be converted')
      rows = image.row_offsets(name)
    except Exception as error:
      file.close()
      if isinstance(error, UserError | ValueError | MemoryError):
        raise
      raise ImageError(name, one_line(error)) from error
    self.shape = (image.height, image.width, image.samples)
    self.dtype = image.dtype
    self.nodata = image.nodata
    self.is_by_rows = rows is not None
    self._rows = rows
    self._stored = np.dtype(image.byte_order + np.dtype(image.dtype).str[1:])

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self._file.close()

  def read_segments(self) -> Iterator[tuple[int, int, np.ndarray]]:
    """Decodes the image strip by strip, or tile by tile.

    Yields:
      (y0, x0, [h, w, C]), which together are the image.

    Raises:
      ImageError: it is damaged.
    """
    segments = self._image.segments(self._name)
    while True:
      try:
        segment = next(segments, None)
      except UserError:
        raise
      except Exception as error:  # damaged bytes end in nearly any of them
        raise ImageError(self._name, one_line(error)) from error
      if segment is None:
        return
      yield segment

  def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    """Reads the window [y1 - y0, x1 - x0, C] of an image that is by rows.

    Raises:
      ImageError: it cannot be read.
    """
    assert self._rows is not None
    channels = self.shape[2]
    of_pixel = channels * self._stored.itemsize
    window = np.empty((y1 - y0, x1 - x0, channels), self.dtype)
    for target, start in zip(window, self._rows[y0:y1], strict=True):
      num_bytes = (x1 - x0) * of_pixel
      offset = int(start) + x0 * of_pixel
      # Not mapped to memory: a file that is cut off would end the process.
      try:
        row = os.pread(self._file.fileno(), num_bytes, offset)
      except OSError as error:
        raise ImageError(self._name, one_line(error)) from error
      if len(row) != num_bytes:
        raise ImageError(self._name, 'it was cut off while it was read')
      target[:] = np.frombuffer(row, self._stored).reshape(target.shape)
    return window
