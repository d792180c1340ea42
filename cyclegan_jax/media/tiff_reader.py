"""TIFF files of more depth or channels than Pillow has, by tifffile.

It reads dozens of dialects of microscopes and satellites, by tags and texts
in the file. None of that is wanted from files of unknown origin: what it gets
is the file with a directory of ours, of a few tags that were checked.
"""

import contextlib
import functools
import io
import math
import shutil
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Literal, NamedTuple

import numpy as np

from cyclegan_jax.errors import UserError
from cyclegan_jax.media.header_limits import (
  BYTES_OF_TYPE,
  TIFF_STARTS,
  Directory,
  check_size,
  check_tags,
  read_directory,
)

# Cameras that see hundreds of colours have about two hundred.
MAX_CHANNELS = 512

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_FILL_ORDER, _STRIP_OFFSETS, _ORIENTATION, _SAMPLES = 266, 273, 274, 277
_ROWS, _STRIP_COUNTS, _PLANAR, _PREDICTOR = 278, 279, 284, 317
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS = 322, 323, 324, 325
_EXTRA, _FORMAT = 338, 339
# Those that tifffile is shown, beside the photometric one.
_SHOWN = (
  *(_WIDTH, _LENGTH, _BITS, _COMPRESSION, _STRIP_OFFSETS, _SAMPLES, _ROWS),
  *(_STRIP_COUNTS, _PLANAR, _PREDICTOR, _TILE_WIDTH, _TILE_LENGTH),
  *(_TILE_OFFSETS, _TILE_COUNTS, _FORMAT),
)
# None, LZW, Deflate (two numbers), PackBits, Zstandard: told how much may come.
_COMPRESSIONS = (1, 5, 8, 32946, 32773, 50000)
_PREDICTORS = (1, 2, 3)
_DTYPES = {
  **{(1, bits): f'uint{bits}' for bits in (8, 16, 32)},
  **{(2, bits): f'int{bits}' for bits in (8, 16, 32)},
  **{(3, bits): f'float{bits}' for bits in (16, 32, 64)},
}
_WHOLE_NUMBERS = {1: 'u1', 3: 'u2', 4: 'u4', 16: 'u8'}  # by type
WHITE_IS_ZERO, _PALETTE = 0, 3
ASSOCIATED, UNASSOCIATED = 1, 2  # alpha, by which colours are multiplied
_MAX_TAGS = 4096  # of a page beyond the first
# A tile may be larger than its image, but not by far.
_TILE_BYTES = 2**26
_PARTS_BYTES = 2**24  # of parts that are read ahead


class Layout(NamedTuple):
  """What the header of a TIFF file tells of its first image.

  Attributes:
    height: before it is turned by `orientation`.
    width: likewise.
    samples: values a pixel, alpha among them.
    dtype: of a value: 'uint16', 'float64'; '' for one that has no such type.
    photometric: the tag that says what the values are.
    alpha: 0 where there is none, else the kind of it in the last sample.
    orientation: as EXIF has it, 1 to 8.
    pages: offsets of the directories of images of this size, a sample each;
      only the first, unless that has one sample.
  """

  height: int
  width: int
  samples: int
  dtype: str
  photometric: int
  alpha: int
  orientation: int
  pages: tuple[int | None, ...]


def is_tiff(file: BinaryIO) -> bool:
  """Whether it begins as a TIFF file does; leaves the file at 0."""
  file.seek(0)
  start = file.read(4)
  file.seek(0)
  return start in TIFF_STARTS


def read_layout(file: BinaryIO, *, max_pixels: int) -> Layout:
  """Reads the header of a TIFF file.

  Raises:
    ValueError: it claims more than it may.
  """
  check_tags(file)
  directory = read_directory(file)
  height, width, samples = _size(file, directory)
  if samples > MAX_CHANNELS + 1:
    raise ValueError(
      f'it has {samples} channels, more than {MAX_CHANNELS} that are read'
    )
  check_size(width, height, max_pixels=max_pixels)
  if not width * height * samples:
    raise ValueError('it has no pixels')
  extra = _numbers(file, directory, _EXTRA)
  has_alpha = extra in ([ASSOCIATED], [UNASSOCIATED]) and samples > 1
  orientation = _number(file, directory, _ORIENTATION, 1)
  return Layout(
    height=height,
    width=width,
    samples=samples,
    dtype=_dtype(_kinds(file, directory)),
    photometric=_number(file, directory, _PHOTOMETRIC, 1),
    alpha=extra[0] if has_alpha else 0,
    orientation=orientation if 1 <= orientation <= 8 else 1,
    pages=_pages(file, directory) if samples == 1 else (None,),
  )


def _size(file: BinaryIO, directory: Directory) -> tuple[int, int, int]:
  """(height, width, samples)."""
  return (
    _number(file, directory, _LENGTH, 0),
    _number(file, directory, _WIDTH, 0),
    _number(file, directory, _SAMPLES, 1),
  )


def _dtype(kinds: set[tuple[int, int]]) -> str:
  if all(kind == 1 and bits <= 8 for kind, bits in kinds):
    return 'uint8'
  return _DTYPES.get(kinds.pop(), '') if len(kinds) == 1 else ''


def _kinds(file: BinaryIO, directory: Directory) -> set[tuple[int, int]]:
  """(format, bits) of all samples."""
  bits = _numbers(file, directory, _BITS) or [1]
  formats = _numbers(file, directory, _FORMAT) or [1]
  # 4 says that nobody knows; some write one number for all samples.
  known = [1 if each == 4 else each for each in formats]
  return {(kind, each) for each in set(bits) for kind in set(known)}


def _pages(file: BinaryIO, first: Directory) -> tuple[int | None, ...]:
  """The offsets of pages that are as the first one, itself as None."""
  found: list[int | None] = [None]
  offset = first.next_offset
  # No more than could be channels: chains may be circles, too.
  while offset and offset not in found and len(found) <= MAX_CHANNELS:
    page = read_directory(file, offset)
    if len(page.entries) > _MAX_TAGS:
      break
    check_tags(file, offset)
    if _size(file, page) != _size(file, first):
      break
    if _kinds(file, page) != _kinds(file, first):
      break
    found.append(offset)
    offset = page.next_offset
  return tuple(found)


def _entry(directory: Directory, tag: int) -> tuple[int, int, bytes] | None:
  """(type, count, value or offset) of a tag that holds whole numbers."""
  for number, kind, count, value in directory.entries:
    if number == tag and kind in _WHOLE_NUMBERS:
      return kind, count, value
  return None


def _numbers(file: BinaryIO, directory: Directory, tag: int) -> list[int]:
  """The whole numbers of a tag, which was checked; none if it isn't there."""
  found = _entry(directory, tag)
  if found is None:
    return []
  kind, count, value = found
  size = count * BYTES_OF_TYPE[kind]
  if size > len(value):
    file.seek(_offset(directory, value))
    value = file.read(size)
  if len(value) < size:
    raise ValueError(f'its tag {tag} lies beyond its end')
  code = directory.order + _WHOLE_NUMBERS[kind]
  return np.frombuffer(value, code, count).tolist()


def _number(
  file: BinaryIO, directory: Directory, tag: int, default: int
) -> int:
  return (_numbers(file, directory, tag) or [default])[0]


def _offset(directory: Directory, value: bytes) -> int:
  code = directory.order + ('Q' if directory.is_big else 'I')
  return int(struct.unpack(code, value)[0])


def read_tiff(
  file: BinaryIO, name: str, layout: Layout, *, num_pages: int = 1
) -> np.ndarray:
  """Decodes an image, as it lies in the file.

  Args:
    file: open for reading, seekable.
    name: for the message of an extra that is missing.
    layout: from `read_layout`.
    num_pages: to read; each is then a channel.

  Returns:
    layout.dtype [height, width, layout.samples or num_pages], not turned.

  Raises:
    ValueError: it is damaged or of a kind that is not read.
    UserError: a package is missing.
  """
  check_installed(name)
  import tifffile

  if layout.photometric == _PALETTE:
    raise ValueError(f'its {layout.dtype} are indices of a palette')
  num_bytes = file.seek(0, io.SEEK_END)
  directories = [read_directory(file, at) for at in layout.pages[:num_pages]]
  for directory in directories:
    _check_page(file, directory, layout, num_bytes)
  planes = []
  with contextlib.ExitStack() as stack:
    copy = stack.enter_context(io.BytesIO())
    _copy_with_own_tags(file, directories, copy)
    tiff = stack.enter_context(tifffile.TiffFile(copy))
    for index in range(len(directories)):
      # [planes, 1, height, width, values]; threads are the loader's matter.
      array = tiff.pages[index].asarray(squeeze=False, maxworkers=1)
      plane = np.moveaxis(array[:, 0], 0, -2)
      planes.append(plane.reshape(*plane.shape[:2], -1))
  pixels = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=-1)
  expected = layout.height, layout.width, layout.samples * len(planes)
  if pixels.shape != expected or pixels.dtype != layout.dtype:
    raise ValueError('its tags contradict each other')
  return pixels


def decode_parts(
  file: BinaryIO, name: str, layout: Layout, copy: BinaryIO
) -> Iterator[tuple[int, int, np.ndarray]]:
  """Decodes an image strip by strip, or tile by tile.

  Args:
    file: open for reading, seekable, without planes.
    name: for the message of an extra that is missing.
    layout: from `read_layout`.
    copy: an empty file that will be larger than `file`.

  Yields:
    (y0, x0, [h, w, samples]): what lies at (y0, x0), not turned.

  Raises:
    ValueError: it is damaged or of a kind that is not read; as do others.
    UserError: a package is missing.
  """
  check_installed(name)
  import tifffile

  directory = read_directory(file)
  _check_page(file, directory, layout, file.seek(0, io.SEEK_END))
  _copy_with_own_tags(file, [directory], copy)
  missing = layout.height * layout.width
  with tifffile.TiffFile(copy, name=name) as tiff:
    parts = tiff.pages[0].segments(maxworkers=1, buffersize=_PARTS_BYTES)
    for part, (_, _, y0, x0, _), (_, height, width, _) in parts:
      shape = (
        min(height, layout.height - y0),
        min(width, layout.width - x0),
        layout.samples,
      )
      if part is None:  # of no bytes, which some write for black
        part = np.zeros(shape, layout.dtype)
      window = part[0, : shape[0], : shape[1]].reshape(shape)
      if window.dtype != layout.dtype:
        raise ValueError('its tags contradict each other')
      missing -= shape[0] * shape[1]
      yield y0, x0, window
  if missing:
    raise ValueError(f'{missing} of its pixels are missing')


def row_offsets(
  file: BinaryIO, layout: Layout
) -> tuple[np.ndarray, Literal['<', '>']] | None:
  """Where each row of an image lies that is stored as it is.

  Args:
    file: open for reading, seekable.
    layout: from `read_layout`.

  Returns:
    int64 [height] offsets, of rows of `width * samples` values each; and
    '<' or '>' for the order of their bytes. None for one that is compressed,
    or in tiles.

  Raises:
    ValueError: it is damaged, or in planes.
  """
  directory = read_directory(file)
  number = functools.partial(_number, file, directory)
  is_planar = number(_PLANAR, 1) != 1 and layout.samples > 1
  if is_planar:
    raise ValueError('its pixels lie in planes')
  _check_page(file, directory, layout, file.seek(0, io.SEEK_END))
  if number(_COMPRESSION, 1) != 1 or number(_TILE_WIDTH, 0):
    return None
  rows = min(number(_ROWS, layout.height), layout.height)
  strips = np.array(_numbers(file, directory, _STRIP_OFFSETS), np.int64)
  of_row = layout.width * layout.samples * np.dtype(layout.dtype).itemsize
  row = np.arange(layout.height)
  return strips[row // rows] + row % rows * of_row, directory.order


def check_installed(name: str) -> None:
  """Raises UserError where a package of the extra `depth` is missing.

  Args:
    name: of what needs it.
  """
  try:
    import imagecodecs  # noqa: F401
    import tifffile  # noqa: F401
  except ImportError as error:
    reason = str(error).splitlines()[0]
    raise UserError(
      f'{name} needs more packages ({reason}): pip install '
      "'cyclegan_jax[depth]'"
    ) from error


def _check_page(
  file: BinaryIO, directory: Directory, layout: Layout, num_bytes: int
) -> None:
  """Checks what tifffile will believe: kinds, sizes and places of pixels."""
  number = functools.partial(_number, file, directory)
  if (kind := number(_COMPRESSION, 1)) not in _COMPRESSIONS:
    raise ValueError(f'its compression {kind} is not read at this depth')
  if (kind := number(_PREDICTOR, 1)) not in _PREDICTORS:
    raise ValueError(f'its predictor {kind} is unknown')
  if number(_FILL_ORDER, 1) != 1:
    raise ValueError('its bits are in reverse order')
  if (kind := number(_PLANAR, 1)) not in (1, 2):
    raise ValueError(f'its planar configuration {kind} is unknown')
  planes, together = (1, layout.samples) if kind == 1 else (layout.samples, 1)
  width, length = number(_TILE_WIDTH, 0), number(_TILE_LENGTH, 0)
  is_tiled = width > 0 and length > 0
  if not is_tiled:
    length = min(number(_ROWS, layout.height), layout.height)
    width = layout.width
  if not length:
    raise ValueError('its strips have no rows')
  of_value = np.dtype(layout.dtype).itemsize
  of_part = width * length * together * of_value
  of_page = layout.height * layout.width * layout.samples * of_value
  if of_part > max(of_page, _TILE_BYTES):
    raise ValueError(f'its tiles are {width} x {length}')
  expected = planes * (
    math.ceil(layout.height / length) * math.ceil(layout.width / width)
  )
  offset_tag = _TILE_OFFSETS if is_tiled else _STRIP_OFFSETS
  count_tag = _TILE_COUNTS if is_tiled else _STRIP_COUNTS
  places = [_numbers(file, directory, tag) for tag in (offset_tag, count_tag)]
  if [len(each) for each in places] != [expected] * 2:
    raise ValueError(f'its pixels lie in {expected} parts, which it lacks')
  counts = places[1]
  if any(at + size > num_bytes for at, size in zip(*places, strict=True)):
    raise ValueError('it is truncated: some of its pixels lie beyond its end')
  # A part of no bytes has no pixels at all, which is no damage.
  if number(_COMPRESSION, 1) == 1 and all(counts):
    whole = expected * of_part if is_tiled else of_page
    if sum(counts) < whole:
      raise ValueError(f'it has {sum(counts)} bytes of pixels, not {whole}')


def _copy_with_own_tags(
  file: BinaryIO, directories: Sequence[Directory], copy: BinaryIO
) -> None:
  """Copies a file, with directories that hold nothing but `_SHOWN`."""
  file.seek(0)
  shutil.copyfileobj(file, copy)
  order, is_big = directories[0].order, directories[0].is_big
  at, count, entry = ('Q', 'Q', 'HHQ8s') if is_big else ('I', 'H', 'HHI4s')
  place = 8 if is_big else 4  # of the offset of the next directory
  for directory in directories:
    end = -(-copy.seek(0, io.SEEK_END) // 8) * 8
    copy.seek(place)
    copy.write(struct.pack(order + at, end))
    # 'Black is zero', which leaves all values as they are.
    black = struct.pack(order + 'H', 1).ljust(8 if is_big else 4, b'\0')
    tags = {tag: _entry(directory, tag) for tag in _SHOWN}
    tags[_PHOTOMETRIC] = (3, 1, black)
    known = sorted((tag, found) for tag, found in tags.items() if found)
    copy.seek(end)
    copy.write(struct.pack(order + count, len(known)))
    for tag, found in known:
      copy.write(struct.pack(order + entry, tag, *found))
    place = copy.tell()
    copy.write(struct.pack(order + at, 0))
  copy.seek(0)
