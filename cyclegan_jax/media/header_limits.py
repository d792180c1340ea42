"""Limits that the header of an image file must keep before it is decoded.

Decoders allocate what a header asks for, so that a file of a kilobyte can take
all memory. Where the metadata alone ask for too much, they are left out.
"""

import io
import itertools
import re
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from PIL import Image

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
  **dict.fromkeys((5, 10, 12, 16, 17, 18), 8),
}
_BYTE_STRINGS = (1, 2, 7)  # the others are unpacked, number by number
_WHOLE_NUMBERS = {3: 'H', 4: 'I', 13: 'I', 16: 'Q'}
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_SHARED_BYTES = 2**16  # tags may share values, such as a resolution

_EXIF, _MULTI_PICTURE = b'Exif\0\0', b'MPF\0'
_PROFILE, _JFIF = b'ICC_PROFILE\0', b'JFIF'
_JFIF_BYTES = 12
_ADOBE, _ADOBE_BYTES = b'Adobe', 12
_ORIENTATION = 0x0112  # EXIF tag
_PNG_START = b'\x89PNG\r\n\x1a\n'
# Chunks that the pixels and the frames are made of.
_PNG_PIXELS = re.compile(b'IHDR|PLTE|IDAT|IEND|acTL|fcTL|fdAT')
_PNG_COLOR = slice(17, 18)  # color type in the chunk IHDR
# Of gray and RGB; palettes have any number.
_COLOR_KEY_BYTES = {b'\0': 2, b'\2': 6}
# Of the texts, those that may hold an orientation.
_PNG_TEXTS = re.compile(b'(Raw profile type exif|XML:com.adobe.xmp)\0')
_MAX_UNPACKED = 2**20  # Pillow's limit on a text or a profile
# These markers stand alone, as Pillow's reader sees it.
_BARE_MARKERS = (0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE))


class TooLargeError(ValueError):
  """The image has more pixels or bytes than it may."""


def check_header(
  file: BinaryIO, *, max_pixels: int, channels: int = 4, page: int = 0
) -> None:
  """Checks what decoders do not check in time, and leaves the file at 0.

  Files of unknown formats and damaged headers pass: the decoder reports them.

  Args:
    file: seekable image file.
    max_pixels: limit on the pixels of an image.
    channels: limit on its channels; four are always allowed.
    page: number of a TIFF file's page that will be decoded.

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
    for directory in itertools.islice(iter_directories(file), 1, page + 1):
      _check_tiles(directory.numbers, max_pixels)
  elif start[:2] == b'\xff\xd8':
    file.seek(0)
    # The compressed pixels have no such pair of bytes.
    scans = file.read().count(b'\xff\xda')
    if scans > _MAX_SCANS:
      raise ValueError(f'{scans} scans, more than {_MAX_SCANS}')
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


def read_directory(
  file: BinaryIO, offset: int | None = None, *, is_strict: bool = True
) -> Directory:
  """Reads a directory and checks how much memory its tags would take.

  Tags may all point at the same bytes, of which a decoder makes copies.

  Args:
    file: with the TIFF header at position 0.
    offset: of the directory; None for the first.
    is_strict: whether to check; if not, decoders must not get the file.

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
    is_bytes = kind in _BYTE_STRINGS and limit == _MAX_NUMBERS
    if count > limit and size and not is_bytes and is_strict:
      raise ValueError(
        f'its tag {tag} claims {count} numbers, more than {limit}'
      )
    if size > len(value):
      claimed += size
    elif count == 1 and kind in _WHOLE_NUMBERS:
      code = order + _WHOLE_NUMBERS[kind]
      (numbers[tag],) = struct.unpack_from(code, value)
  num_bytes = file.seek(0, io.SEEK_END)
  if claimed > num_bytes + _SHARED_BYTES and is_strict:
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


def without_bad_metadata(
  file: BinaryIO, *, header_only: bool = False
) -> tuple[BinaryIO, str]:
  """Leaves out metadata at which a decoder would fail, or run out of memory.

  Of damaged EXIF data the orientation stays.

  Args:
    file: seekable image file that `check_header` passed; it is left at 0.
    header_only: whether the pixels of a PNG file are left out, too.

  Returns:
    The file, or a copy in memory; and what of the metadata is damaged that a
    translation would keep: 'EXIF data', 'color profile', 'transparency', or
    '' for none.
  """
  file.seek(0)
  start = file.read(len(_PNG_START))
  data, damaged = None, ''
  if start == _PNG_START:
    data, damaged = _clean_png(file, header_only=header_only)
  elif start[:2] == b'\xff\xd8':
    file.seek(0)
    data, damaged = _clean_jpeg(file.read())
  file.seek(0)
  return file if data is None else io.BytesIO(data), damaged


def _clean_png(
  file: BinaryIO, *, header_only: bool
) -> tuple[bytes | None, str]:
  """Leaves out all chunks but pixels, EXIF data, a profile and orientations."""
  parts, damaged, seen = [_PNG_START], '', set[bytes]()
  key_bytes = None
  while len(start := file.read(8)) == 8:
    size, kind = struct.unpack('>I4s', start)
    if header_only and kind == b'IDAT':
      parts.append(start)
      break
    chunk = start + file.read(size + 4)
    if _PNG_PIXELS.fullmatch(kind):
      parts.append(chunk)
      if kind == b'IHDR':
        key_bytes = _COLOR_KEY_BYTES.get(chunk[_PNG_COLOR])
      continue
    content = chunk[8:-4]
    if kind in (b'tEXt', b'zTXt', b'iTXt'):
      keyword = _PNG_TEXTS.match(content)
      if not keyword or keyword[1] in seen:
        continue
      seen.add(keyword[1])
    elif kind not in (b'iCCP', b'eXIf', b'tRNS'):
      continue
    fits = kind != b'tRNS' or key_bytes in (None, len(content))
    if fits and _is_sound(kind, content, chunk[-4:]):
      parts.append(chunk)
    elif kind == b'tRNS':
      damaged = 'transparency'
    elif kind == b'iCCP':
      damaged = 'color profile'
    else:
      damaged = 'EXIF data'
  return b''.join(parts), damaged


def _is_sound(kind: bytes, content: bytes, checksum: bytes) -> bool:
  """Whether a chunk is whole, and unpacks to no more than Pillow allows."""
  if checksum != struct.pack('>I', zlib.crc32(kind + content)):
    return False
  _, _, packed = content.partition(b'\0')
  if kind == b'iTXt' and packed[:1] == b'\1':
    packed = b'\0' + packed[2:].split(b'\0', 2)[-1]
  elif kind not in (b'zTXt', b'iCCP'):
    return True
  try:
    # The first byte is the method.
    text = zlib.decompressobj().decompress(packed[1:], _MAX_UNPACKED + 1)
  except zlib.error:
    return False
  return 0 < len(text) <= _MAX_UNPACKED


def _clean_jpeg(data: bytes) -> tuple[bytes | None, str]:
  """Leaves out damaged EXIF data and profiles, and lists of other images."""
  exif, profile = list[_Segment](), list[_Segment]()
  bad = list[_Segment]()
  for segment in _segments(data):
    marker, content, _, _ = segment
    if marker == 0xE1 and content.startswith(_EXIF):
      exif.append(segment)
    elif marker == 0xE2 and content.startswith(_PROFILE):
      profile.append(segment)
    elif marker == 0xE2 and content.startswith(_MULTI_PICTURE):
      bad.append(segment)  # they are not read
    elif marker == 0xE0 and content.startswith(_JFIF):
      bad += [segment] * (len(content) < _JFIF_BYTES)
    elif marker == 0xEE and content.startswith(_ADOBE):
      bad += [segment] * (len(content) < _ADOBE_BYTES)
  damaged, instead = '', b''
  tags = b''.join(segment.content[len(_EXIF) :] for segment in exif)
  if exif and not _is_exif(tags):
    damaged, bad = 'EXIF data', bad + exif
    instead = _exif_segment(stored_orientation(tags))
  # Each part has its number and the number of parts.
  numbers = [segment.content[len(_PROFILE) :][:2] for segment in profile]
  total = len(profile)
  if sorted(numbers) != [bytes((i + 1, total)) for i in range(total)]:
    damaged, bad = 'color profile', bad + profile
  if not bad:
    return None, ''
  parts, at = [data[:2], instead], 2
  for segment in sorted(bad, key=lambda segment: segment.start):
    parts.append(data[at : segment.start])
    at = segment.end
  return b''.join((*parts, data[at:])), damaged


def _is_exif(tags: bytes) -> bool:
  """Whether Pillow can read EXIF data, and in little memory."""
  try:
    read_directory(io.BytesIO(tags))
    Image.Exif().load(tags)
  except Exception:  # damaged tags end in nearly any of them
    return False
  return True


def stored_orientation(tags: bytes) -> int | None:
  """Orientation in EXIF data, 1 to 8, even if other tags are damaged."""
  numbers = read_directory(io.BytesIO(tags), is_strict=False).numbers
  orientation = numbers.get(_ORIENTATION, 0)
  return orientation if 1 <= orientation <= 8 else None


def _exif_segment(orientation: int | None) -> bytes:
  """A JPEG file's EXIF data of one tag; b'' for none."""
  if orientation is None:
    return b''
  entry = struct.pack('>HHIHH', _ORIENTATION, 3, 1, orientation, 0)
  tags = b'MM\0*' + struct.pack('>IH', 8, 1) + entry + bytes(4)
  size = struct.pack('>H', 2 + len(_EXIF) + len(tags))
  return b'\xff\xe1' + size + _EXIF + tags


class _Segment(NamedTuple):
  """A segment before a JPEG's first scan, from its marker on."""

  marker: int
  content: bytes
  start: int
  end: int


def _segments(data: bytes) -> list[_Segment]:
  """The segments before a JPEG's first scan."""
  segments = []
  at = 0
  while True:
    at = data.find(b'\xff', at) + 1
    if not 0 < at < len(data) or data[at] == 0xDA:
      break
    marker, start = data[at], at - 1
    if marker == 0xFF:  # padding
      continue
    at += 1
    if marker < 0xC0 or marker in _BARE_MARKERS:
      continue
    length = max(int.from_bytes(data[at : at + 2], 'big'), 2)
    segments.append(
      _Segment(marker, data[at + 2 : at + length], start, at + length)
    )
    at += length
  return segments
