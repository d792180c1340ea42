"""TIFF files of any depth and channels, with EXIF data and a profile.

EXIF data is a TIFF file without pixels. So the file begins with it, and its
tags stay where they are: only a new directory, with those of the pixels too,
comes behind.
"""

import io
import struct
import zlib
from typing import Literal, TypeAlias

import numpy as np

from cyclegan_jax.media.header_limits import (
  BYTES_OF_TYPE,
  check_tags,
  read_directory,
)

_STRIP_BYTES = 2**20
_MAX_BYTES = 2**32 - 2**20  # offsets have 32 bits
_FORMATS = {'u': 1, 'f': 3}
_STORED, _DEFLATE = 1, 8
_BLACK_IS_ZERO, _RGB, _UNASSOCIATED, _ICC = 1, 2, 2, 34675
# Of EXIF data's own tags, those that say how its pixels lie are left out.
_OF_PIXELS = frozenset(
  (
    *(*range(254, 267), *range(273, 282), 284, *range(288, 294), 301),
    *(*range(317, 348), *range(512, 533), _ICC),
  )
)

_Tags: TypeAlias = 'dict[int, tuple[int, list[int] | bytes]]'


def encode_tiff(
  pixels: np.ndarray,
  *,
  has_alpha: bool,
  exif: bytes | None = None,
  icc: bytes | None = None,
) -> bytes:
  """Encodes an image, compressed by Deflate.

  Args:
    pixels: uint8, uint16 or float32 [h, w, C].
    has_alpha: whether the last channel is alpha.
    exif: with or without its prefix.
    icc: the colour profile.

  Raises:
    ValueError: it is too large for the format.
  """
  data, entries, order = _begin(exif)
  stored = pixels.dtype.newbyteorder(order)
  rows = _rows_of_strip(pixels.shape, stored)
  offsets, counts = [], []
  for top in range(0, pixels.shape[0], rows):
    strip = zlib.compress(pixels[top : top + rows].astype(stored).tobytes())
    offsets.append(len(data))
    counts.append(len(strip))
    data += strip
    if len(data) > _MAX_BYTES:
      raise ValueError('it takes more than 4 GiB, which TIFF has no room for')
  tags = _tags(pixels.shape, stored, has_alpha=has_alpha, icc=icc)
  tags |= {259: (3, [_DEFLATE]), 273: (4, offsets), 279: (4, counts)}
  return _with_directory(data, order, entries, tags)


def encode_header(
  shape: tuple[int, int, int],
  dtype: str,
  *,
  exif: bytes | None = None,
  icc: bytes | None = None,
) -> tuple[bytes, np.dtype] | None:
  """What comes before the pixels of a file that holds them as they are.

  Args:
    shape: of the image: height, width, channels, none of them alpha.
    dtype: 'uint8', 'uint16' or 'float32'.
    exif: with or without its prefix.
    icc: the colour profile.

  Returns:
    It, and the type of the pixels behind it, which tells the order of their
    bytes; None for an image too large for the format.
  """
  height, width, channels = shape
  order = _begin(exif)[2]
  stored = np.dtype(dtype).newbyteorder(order)
  of_row = width * channels * stored.itemsize
  if height * of_row > _MAX_BYTES:
    return None
  rows = _rows_of_strip(shape, stored)
  tops = range(0, height, rows)
  counts = [min(rows, height - top) * of_row for top in tops]
  tags = _tags(shape, stored, has_alpha=False, icc=icc)
  start, found = 0, b''
  while start != len(found) or not found:  # twice: where it ends is told in it
    start = len(found)
    data, entries, _ = _begin(exif)
    offsets = [start + top * of_row for top in tops]
    tags |= {259: (3, [_STORED]), 273: (4, offsets), 279: (4, counts)}
    found = _with_directory(data, order, entries, tags)
    found += bytes(-len(found) % 8)
  return (found, stored) if start + height * of_row < 2**32 else None


def _begin(
  exif: bytes | None,
) -> tuple[bytearray, dict[int, bytes], Literal['<', '>']]:
  """How a file with this EXIF data begins, its entries, the order of bytes."""
  data = bytearray((exif or b'').removeprefix(b'Exif\0\0'))
  if data[:4] not in (b'II*\0', b'MM\0*'):
    return bytearray(b'II*\0\0\0\0\0'), {}, '<'
  return data, _kept_entries(data), '>' if data[:2] == b'MM' else '<'


def _rows_of_strip(shape: tuple[int, ...], dtype: np.dtype) -> int:
  return max(1, _STRIP_BYTES // (shape[1] * shape[2] * dtype.itemsize))


def _tags(
  shape: tuple[int, ...],
  dtype: np.dtype,
  *,
  has_alpha: bool,
  icc: bytes | None,
) -> _Tags:
  """Type and values of the tags, but for those on where the pixels lie."""
  height, width, channels = shape
  colours = channels - has_alpha
  extra = [0] * (channels - (3 if colours == 3 else 1))
  if has_alpha:
    extra[-1] = _UNASSOCIATED
  return {
    256: (4, [width]),
    257: (4, [height]),
    258: (3, [dtype.itemsize * 8] * channels),
    262: (3, [_RGB if colours == 3 else _BLACK_IS_ZERO]),
    274: (3, [1]),
    277: (3, [channels]),
    278: (4, [_rows_of_strip(shape, dtype)]),
    284: (3, [1]),
    338: (3, extra),
    339: (3, [_FORMATS[dtype.kind]] * channels),
    _ICC: (7, icc or b''),
  }


def _with_directory(
  data: bytearray,
  order: Literal['<', '>'],
  entries: dict[int, bytes],
  tags: _Tags,
) -> bytes:
  """The data, with a directory behind it that it points to."""
  for tag, (kind, values) in tags.items():
    if values:
      entries[tag] = _entry(data, order, kind, values)
  data += bytes(len(data) % 2)
  struct.pack_into(order + 'I', data, 4, len(data))
  data += struct.pack(order + 'H', len(entries))
  for tag in sorted(entries):
    data += struct.pack(order + 'H', tag) + entries[tag]
  data += bytes(4)
  return bytes(data)


def _entry(
  data: bytearray, order: str, kind: int, values: list[int] | bytes
) -> bytes:
  """Type, count and value of a tag; a long value is put behind the data."""
  if isinstance(values, bytes):
    packed = values
  else:
    code = {3: 'H', 4: 'I'}[kind]
    packed = struct.pack(f'{order}{len(values)}{code}', *values)
  count = len(packed) // BYTES_OF_TYPE[kind]
  if len(packed) > 4:
    data += bytes(len(data) % 2)
    place = struct.pack(order + 'I', len(data))
    data += packed
    packed = place
  return struct.pack(order + 'HI', kind, count) + packed.ljust(4, b'\0')


def _kept_entries(exif: bytearray) -> dict[int, bytes]:
  """Type, count and value of the tags of EXIF data that stay."""
  file = io.BytesIO(exif)
  check_tags(file)
  directory = read_directory(file)
  return {
    tag: struct.pack(directory.order + 'HI', kind, count) + value
    for tag, kind, count, value in directory.entries
    if tag not in _OF_PIXELS
  }
