"""TIFF files of any depth and channels, with EXIF data and a profile.

EXIF data is a TIFF file without pixels. So the file begins with it, and its
tags stay where they are: only a new directory, with those of the pixels too,
comes behind.
"""

import io
import struct
import zlib
from typing import Literal

import numpy as np

from cyclegan_jax.data.headers import BYTES_OF_TYPE, check_tags, read_directory

_STRIP_BYTES = 2**20
_MAX_BYTES = 2**32 - 2**20  # offsets have 32 bits
_FORMATS = {'u': 1, 'f': 3}
_DEFLATE, _BLACK_IS_ZERO, _RGB, _UNASSOCIATED, _ICC = 8, 1, 2, 2, 34675
# Of EXIF data's own tags, those that say how its pixels lie are left out.
_OF_PIXELS = frozenset(
  (
    *(*range(254, 267), *range(273, 282), 284, *range(288, 294), 301),
    *(*range(317, 348), *range(512, 533), _ICC),
  )
)


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
  height, width, channels = pixels.shape
  data = bytearray((exif or b'').removeprefix(b'Exif\0\0'))
  is_big_endian = data[:4] == b'MM\0*'
  if data[:4] not in (b'II*\0', b'MM\0*'):
    data = bytearray(b'II*\0\0\0\0\0')
    entries = {}
  else:
    entries = _kept_entries(data)
  order: Literal['<', '>'] = '>' if is_big_endian else '<'
  pixels = pixels.astype(pixels.dtype.newbyteorder(order))
  rows = max(1, _STRIP_BYTES // (width * channels * pixels.itemsize))
  offsets, counts = [], []
  for top in range(0, height, rows):
    strip = zlib.compress(pixels[top : top + rows].tobytes())
    offsets.append(len(data))
    counts.append(len(strip))
    data += strip
    if len(data) > _MAX_BYTES:
      raise ValueError('it takes more than 4 GiB, which TIFF has no room for')
  colours = channels - has_alpha
  extra = [0] * (channels - (3 if colours == 3 else 1))
  if has_alpha:
    extra[-1] = _UNASSOCIATED
  tags: dict[int, tuple[int, list[int] | bytes]] = {
    256: (4, [width]),
    257: (4, [height]),
    258: (3, [pixels.itemsize * 8] * channels),
    259: (3, [_DEFLATE]),
    262: (3, [_RGB if colours == 3 else _BLACK_IS_ZERO]),
    273: (4, offsets),
    274: (3, [1]),
    277: (3, [channels]),
    278: (4, [rows]),
    279: (4, counts),
    284: (3, [1]),
    338: (3, extra),
    339: (3, [_FORMATS[pixels.dtype.kind]] * channels),
    _ICC: (7, icc or b''),
  }
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
