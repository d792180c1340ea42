"""The length of a video file, as its own header states it.

FFmpeg reads a truncated file as if it were meant to end there.
"""

import io
import struct
from typing import BinaryIO

_UNKNOWN_RIFF_SIZES = (0, 2**32 - 1)  # written while the length is unknown
_EBML, _SEGMENT = b'\x1a\x45\xdf\xa3', b'\x18\x53\x80\x67'
# The boxes without which frames are missing; others may be incomplete.
_ISO_BOXES = (b'mdat', b'moof', b'moov')


def num_missing_bytes(file: BinaryIO) -> int:
  """The number of bytes that a file lacks by its header.

  Args:
    file: open for reading, seekable.

  Returns:
    0 for a whole file, a header that does not state the length, and files
    other than MP4, QuickTime, Matroska, WebM and AVI.
  """
  num_bytes = file.seek(0, io.SEEK_END)
  file.seek(0)
  start = file.read(12)
  if start[:4] == _EBML:
    end = _matroska_end(file)
  elif start[:4] == b'RIFF' and start[8:] == b'AVI ':
    end = _riff_end(file, num_bytes)
  else:
    end = _iso_end(file, num_bytes)
  return max(0, end - num_bytes)


def _iso_end(file: BinaryIO, num_bytes: int) -> int:
  offset = 0
  while offset < num_bytes:
    file.seek(offset)
    header = file.read(16).ljust(16, b'\0')
    size, kind, large_size = struct.unpack('>I4sQ', header)
    size = large_size if size == 1 else size
    if size < 8 or not kind.isalnum():
      break
    if offset + size > num_bytes:
      return offset + size if kind in _ISO_BOXES else 0
    offset += size
  return 0


def _riff_end(file: BinaryIO, num_bytes: int) -> int:
  offset = 0
  while offset < num_bytes:
    file.seek(offset)
    header = file.read(8).ljust(8, b'\0')
    kind, size = struct.unpack('<4sI', header)
    if kind != b'RIFF' or size in _UNKNOWN_RIFF_SIZES:
      break
    offset += 8 + size + size % 2
  # The padding at the end may be missing.
  return offset - 1 if offset == num_bytes + 1 else offset


def _matroska_end(file: BinaryIO) -> int:
  file.seek(4)
  header_size = _read_ebml_size(file)
  if header_size is None:
    return 0
  file.seek(header_size, io.SEEK_CUR)
  if file.read(4) != _SEGMENT:
    return 0
  size = _read_ebml_size(file)
  return 0 if size is None else file.tell() + size


def _read_ebml_size(file: BinaryIO) -> int | None:
  """A size of 1 to 8 bytes; None where it is unknown."""
  first = file.read(1)
  if not first or not first[0]:
    return None
  num_more = 8 - first[0].bit_length()
  bits = 7 * (num_more + 1)
  size = int.from_bytes(first + file.read(num_more)) & (2**bits - 1)
  return None if size == 2**bits - 1 else size
