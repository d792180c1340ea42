"""What a video file says of its own length.

FFmpeg reads a file that was cut off as if it had been meant to end there.
"""

import io
import struct
from typing import BinaryIO

_RIFF_UNKNOWN = (0, 2**32 - 1)  # written before the length was known
_EBML, _SEGMENT = b'\x1a\x45\xdf\xa3', b'\x18\x53\x80\x67'
# Those without which frames are missing; anything may stand behind them.
_ISO_BOXES = (b'mdat', b'moof', b'moov')


def num_missing_bytes(file: BinaryIO) -> int:
  """How many bytes a file lacks by its header; 0 where it doesn't say.

  Args:
    file: MP4, QuickTime, Matroska, WebM or AVI, from position 0; all others
      lack none.
  """
  num_bytes = file.seek(0, io.SEEK_END)
  file.seek(0)
  start = file.read(12)
  if start[:4] == _EBML:
    end = _end_of_matroska(file)
  elif start[:4] == b'RIFF' and start[8:] == b'AVI ':
    end = _end_of_riff(file, num_bytes)
  else:
    end = _end_of_boxes(file, num_bytes)
  return max(0, end - num_bytes)


def _end_of_boxes(file: BinaryIO, num_bytes: int) -> int:
  at = 0
  while at < num_bytes:
    file.seek(at)
    header = file.read(16).ljust(16, b'\0')
    size, kind, large = struct.unpack('>I4sQ', header)
    size = large if size == 1 else size
    if size < 8 or not kind.isalnum():
      break
    if at + size > num_bytes:
      return at + size if kind in _ISO_BOXES else 0
    at += size
  return 0


def _end_of_riff(file: BinaryIO, num_bytes: int) -> int:
  at = 0
  while at < num_bytes:
    file.seek(at)
    header = file.read(8).ljust(8, b'\0')
    kind, size = struct.unpack('<4sI', header)
    if kind != b'RIFF' or size in _RIFF_UNKNOWN:
      break
    at += 8 + size + size % 2
  # The last one's padding may be missing.
  return at - 1 if at == num_bytes + 1 else at


def _end_of_matroska(file: BinaryIO) -> int:
  file.seek(4)
  header_size = _ebml_size(file)
  if header_size is None:
    return 0
  file.seek(header_size, io.SEEK_CUR)
  if file.read(4) != _SEGMENT:
    return 0
  size = _ebml_size(file)
  return 0 if size is None else file.tell() + size


def _ebml_size(file: BinaryIO) -> int | None:
  """A number of 1 to 8 bytes; None where it is unknown."""
  first = file.read(1)
  if not first or not first[0]:
    return None
  num_more = 8 - first[0].bit_length()
  bits = 7 * (num_more + 1)
  number = int.from_bytes(first + file.read(num_more)) & (2**bits - 1)
  return None if number == 2**bits - 1 else number
