"""Limits that the header of an image file must keep before it is decoded.

Decoders allocate what a header asks for, so that a file of a kilobyte can take
all memory.
"""

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

# What JPEG can hold. Resizing takes memory by the side, not by the area, and
# an image that is longer is no photograph.
MAX_SIDE = 65_535

# Channels of 16 bits, twice; and profiles, thumbnails and comments.
_BYTES_PER_CHANNEL = 4
_BYTES_OF_METADATA = 2**26

# Progressive files have about ten. Each is a pass over the whole image.
_MAX_SCANS = 500
# Strips and tiles of the largest images are counted in hundred thousands.
_MAX_NUMBERS = 2**21
# Private tags that tifffile interprets as soon as it opens a file, number by
# number: two of MetaMorph, and one of Hamamatsu's slides, which are not read.
_MAX_NUMBERS_BY_TAG = {33628: 1024, 33629: 2**16, 65426: 0}
_MAX_TAGS = 2**16
# Larger tiles than these have to fit into the image.
_TILE_PIXELS = 2**24

# Pillow reads the last two, whose byte order is mixed up.
_TIFF_STARTS = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+', b'MM*\0', b'II\0*')
_BYTES_OF_TYPE = {
  **dict.fromkeys((1, 2, 6, 7), 1),
  **dict.fromkeys((3, 8), 2),
  **dict.fromkeys((4, 9, 11, 13), 4),
  **dict.fromkeys((5, 10, 12, 16), 8),
}
_BYTE_STRINGS = (1, 2, 7)  # the others are unpacked, number by number
_WHOLE_NUMBERS = {3: 'H', 4: 'I', 13: 'I', 16: 'Q'}
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_SHARED_BYTES = 2**16  # tags may share values, such as a resolution

_EXIF, _MULTI_PICTURE = b'Exif\0\0', b'MPF\0'
# These markers stand alone, as Pillow's reader sees it.
_BARE_MARKERS = (0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE))


class TooLargeError(ValueError):
  """The image has more pixels or bytes than it may."""


def check_header(file: BinaryIO, *, max_pixels: int, channels: int = 4) -> None:
  """Checks what decoders do not check in time, and leaves the file at 0.

  Files of unknown formats and damaged headers pass: the decoder reports them.

  Args:
    file: seekable image file.
    max_pixels: limit on the pixels of an image.
    channels: limit on its channels; four are always allowed.

  Raises:
    ValueError: decoding could take far more memory or time than an image of
      max_pixels does.
  """
  num_bytes = file.seek(0, io.SEEK_END)
  per_pixel = _BYTES_PER_CHANNEL * max(4, channels)
  limit = max_pixels * per_pixel + _BYTES_OF_METADATA
  if num_bytes > limit:
    raise TooLargeError(
      f'{num_bytes} bytes, more than an image of '
      f'config.data.max_pixels={max_pixels} takes'
    )
  file.seek(0)
  start = file.read(30)
  if start[:4] == b'RIFF' and start[8:12] == b'WEBP':
    _check_webp(start, max_pixels)
  elif start[:4] in _TIFF_STARTS:
    _check_tiles(read_directory(file).numbers, max_pixels)
  elif start[:2] == b'\xff\xd8':
    file.seek(0)
    _check_jpeg(file.read())
  file.seek(0)


def check_size(width: int, height: int, *, max_pixels: int) -> None:
  """Raises TooLargeError where an image is too large to be decoded."""
  if width * height > max_pixels:
    raise TooLargeError(
      f'{width} x {height} = {width * height} pixels, more than '
      f'config.data.max_pixels={max_pixels}'
    )
  if max(width, height) > MAX_SIDE:
    raise TooLargeError(
      f'{width} x {height}, where no side may be more than {MAX_SIDE}'
    )


class Directory(NamedTuple):
  """Directory of one image in a TIFF file, or of EXIF data.

  Attributes:
    offset: file offset.
    numbers: value by tag, for tags that hold a single whole number.
    next_offset: file offset of the next directory, 0 for none.
  """

  offset: int
  numbers: dict[int, int]
  next_offset: int


def read_directory(file: BinaryIO, offset: int | None = None) -> Directory:
  """Reads a directory and checks how much memory its tags would take.

  Tags may all point at the same bytes, of which a decoder makes copies.

  Args:
    file: with the TIFF header at position 0.
    offset: of the directory; None for the first.

  Returns:
    The directory; an empty one where the file is damaged.

  Raises:
    ValueError: the tags would take far more memory than the file.
  """
  file.seek(0)
  head = file.read(16)
  order = '<' if head[:2] == b'II' else '>'
  is_big = b'+' in head[2:4]  # BigTIFF
  at, count, entry = ('Q', 'Q', 'HHQ8s') if is_big else ('I', 'H', 'HHI4s')
  try:
    if offset is None:
      (offset,) = struct.unpack_from(order + at, head, 8 if is_big else 4)
    file.seek(offset)
    (num,) = struct.unpack(
      order + count, file.read(struct.calcsize(order + count))
    )
  except (struct.error, OSError, OverflowError, ValueError):
    return Directory(0, {}, 0)  # damaged, which the decoder will report
  if num > _MAX_TAGS:
    raise ValueError(f'its directory claims {num} tags')
  step = struct.calcsize(order + entry)
  data = file.read(num * step)
  after = file.read(struct.calcsize(order + at))
  data = data[: len(data) // step * step]
  claimed, numbers = 0, {}
  for tag, kind, count, value in struct.iter_unpack(order + entry, data):
    size = count * _BYTES_OF_TYPE.get(kind, 0)
    limit = _MAX_NUMBERS_BY_TAG.get(tag, _MAX_NUMBERS)
    if count > limit and size and kind not in _BYTE_STRINGS:
      raise ValueError(
        f'its tag {tag} claims {count} numbers, more than {limit}'
      )
    if size > len(value):
      claimed += size
    elif count == 1 and kind in _WHOLE_NUMBERS:
      code = order + _WHOLE_NUMBERS[kind]
      (numbers[tag],) = struct.unpack_from(code, value)
  num_bytes = file.seek(0, io.SEEK_END)
  if claimed > num_bytes + _SHARED_BYTES:
    raise ValueError(f'its tags claim {claimed} bytes of a file of {num_bytes}')
  is_whole = len(after) == struct.calcsize(order + at)
  (following,) = struct.unpack(order + at, after) if is_whole else (0,)
  return Directory(offset, numbers, following)


def iter_directories(file: BinaryIO) -> Iterator[Directory]:
  """Yields the directories of a TIFF file's pages, each checked.

  The chain ends at a damaged directory and where it would begin a circle.

  Raises:
    ValueError: as for `read_directory`.
  """
  directory = read_directory(file)
  seen = {0}
  while directory.numbers:
    yield directory
    seen.add(directory.offset)
    if directory.next_offset in seen:
      break
    directory = read_directory(file, directory.next_offset)


def _check_tiles(tags: dict[int, int], max_pixels: int) -> None:
  width, length = tags.get(_TILE_WIDTH, 1), tags.get(_TILE_LENGTH, 1)
  if width * length > max(max_pixels, _TILE_PIXELS):
    raise TooLargeError(f'its tiles are {width} x {length}')


def _check_webp(start: bytes, max_pixels: int) -> None:
  """Checks the canvas, which opening the file allocates."""
  kind = start[12:16]
  if len(start) < 30:
    return
  if kind == b'VP8X':
    width = 1 + int.from_bytes(start[24:27], 'little')
    height = 1 + int.from_bytes(start[27:30], 'little')
  elif kind == b'VP8L':
    bits = int.from_bytes(start[21:25], 'little')
    width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
  else:
    width, height = (
      each & 0x3FFF for each in struct.unpack_from('<HH', start, 26)
    )
  check_size(width, height, max_pixels=max_pixels)


def _check_jpeg(data: bytes) -> None:
  """Checks the tags that are read on opening, and the number of scans."""
  # The compressed pixels have no such pair of bytes.
  scans = data.count(b'\xff\xda')
  if scans > _MAX_SCANS:
    raise ValueError(f'{scans} scans, more than {_MAX_SCANS}')
  exif, multi_picture = bytearray(), b''
  for marker, segment in _segments(data):
    if marker == 0xE1 and segment.startswith(_EXIF):
      exif += segment[len(_EXIF) :]
    elif marker == 0xE2 and segment.startswith(_MULTI_PICTURE):
      multi_picture = segment[len(_MULTI_PICTURE) :]
  for tags in (bytes(exif), multi_picture):
    read_directory(io.BytesIO(tags))


def _segments(data: bytes) -> list[tuple[int, bytes]]:
  """Returns (marker, content) of the segments before a JPEG's first scan."""
  segments = []
  at = 0
  while True:
    at = data.find(b'\xff', at) + 1
    if not 0 < at < len(data) or data[at] == 0xDA:
      break
    marker = data[at]
    if marker == 0xFF:  # padding
      continue
    at += 1
    if marker < 0xC0 or marker in _BARE_MARKERS:
      continue
    length = int.from_bytes(data[at : at + 2], 'big')
    segments.append((marker, data[at + 2 : at + length]))
    at += max(length, 2)
  return segments
