"""Writers of GIF, APNG and animated WebP files, frame after frame.

Pillow's own hold all frames before they write the first. Here it encodes each
frame as an image by itself, whose pixels are then set among those of others,
so that memory is that of one frame. Every frame covers all that was before.
"""

import fractions
import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
from PIL import Image
from PIL.GifImagePlugin import getdata

_PROFILES = {1: b'GRAY', 2: b'GRAY', 3: b'RGB ', 4: b'RGB '}  # by channels
_MOST = 65_535  # of what has two bytes

_CLEAR = 255  # the palette's entry for what can be looked through
_TO_BACKGROUND = 2  # what is done to a frame before the next one

_PNG_START = b'\x89PNG\r\n\x1a\n'

_QUALITY = 95
_HAS_ICC, _HAS_ALPHA, _HAS_EXIF, _IS_ANIMATED = 0x20, 0x10, 0x08, 0x02
_INSTEAD = 0x02  # of what was there, not blended with it
_MOST_MILLISECONDS = 2**24 - 1
_MOST_WEBP_BYTES = 2**32 - 10


class Head(NamedTuple):
  """What is told once of an animation.

  Attributes:
    plays: how often it is shown; 0 for ever.
    exif: with its prefix; None for none. Not in GIF files.
    icc: the colour profile, likewise.
  """

  plays: int = 0
  exif: bytes | None = None
  icc: bytes | None = None


class Writer(Protocol):
  """An animation that is being written."""

  def add(
    self, pixels: np.ndarray, duration: float, *, is_poster: bool = False
  ) -> None:
    """Adds a frame.

    Args:
      pixels: uint8 [h, w, C], of the first one's shape; alpha is the last of
        two or four channels.
      duration: in milliseconds.
      is_poster: whether it is not part of the animation, but shown by what
        knows no animations; the first one only. GIF and WebP files have none.

    Raises:
      ValueError: the format has no room for it.
    """
    ...

  def finish(self) -> None:
    """Writes what comes after the last frame."""
    ...


class GifWriter:
  """A GIF file; of alpha it knows what is clear and what isn't."""

  def __init__(self, file: BinaryIO, head: Head) -> None:
    self._file = file
    self._head = head
    self._is_begun = False

  def add(
    self, pixels: np.ndarray, duration: float, *, is_poster: bool = False
  ) -> None:
    """See `Writer`."""
    if is_poster:
      return
    if not self._is_begun:
      self._begin(*pixels.shape[:2])
    centiseconds = min(round(duration / 10), _MOST)
    image, has_clear = _paletted(pixels)
    options: dict[str, Any] = {'transparency': _CLEAR} if has_clear else {}
    blocks = getdata(
      image,
      duration=centiseconds * 10,
      disposal=_TO_BACKGROUND,
      include_color_table=True,
      **options,
    )
    for block in blocks:
      self._file.write(block)

  def finish(self) -> None:
    """See `Writer`."""
    self._file.write(b';')

  def _begin(self, height: int, width: int) -> None:
    if max(height, width) > _MOST:
      raise ValueError(f'GIF has no sides of more than {_MOST}')
    self._file.write(b'GIF89a' + struct.pack('<HHBBB', width, height, 0, 0, 0))
    if self._head.plays != 1:  # repeats are counted, where 0 is for ever
      repeats = max(0, min(self._head.plays - 1, _MOST))
      loop = struct.pack('<BBHB', 3, 1, repeats, 0)
      self._file.write(b'!\xff\x0bNETSCAPE2.0' + loop)
    self._is_begun = True


def _paletted(pixels: np.ndarray) -> tuple[Image.Image, bool]:
  """The frame in 255 colours, and whether parts of it are clear."""
  alpha, pixels = _split(pixels)
  image = Image.fromarray(pixels).convert('RGB').quantize(_CLEAR)
  if alpha is None or (alpha >= 128).all():
    return image, False
  indices = np.array(image)
  indices[alpha < 128] = _CLEAR
  palette = image.getpalette() or []
  image = Image.fromarray(indices)
  image.putpalette(palette + [0] * (3 * 256 - len(palette)))
  return image, True


def _split(pixels: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
  """Alpha, if there is any, and [h, w] or [h, w, 3] colours."""
  alpha = None
  if pixels.shape[-1] in (2, 4):
    alpha, pixels = pixels[..., -1], pixels[..., :-1]
  if pixels.shape[-1] == 1:
    pixels = pixels[..., 0]
  return alpha, np.ascontiguousarray(pixels)


class PngWriter:
  """An APNG file."""

  def __init__(self, file: BinaryIO, head: Head) -> None:
    self._file = file
    self._head = head
    self._num_frames = 0
    self._sequence = 0
    self._count_at = 0  # where the number of frames goes; 0 before the first

  def add(
    self, pixels: np.ndarray, duration: float, *, is_poster: bool = False
  ) -> None:
    """See `Writer`."""
    is_first = not self._count_at
    chunks = list(_png_chunks(_encoded(pixels, 'PNG', self._head)))
    if is_first:
      self._begin(chunks)
    if not is_poster:
      height, width = pixels.shape[:2]
      self._control(height, width, duration)
    for kind, content in chunks:
      if kind != b'IDAT':
        continue
      if is_first:
        self._chunk(kind, content)
      else:
        self._chunk(b'fdAT', self._next() + content)

  def finish(self) -> None:
    """See `Writer`."""
    self._chunk(b'IEND', b'')
    self._file.seek(self._count_at)
    self._counts()

  def _begin(self, chunks: list[tuple[bytes, bytes]]) -> None:
    self._file.write(_PNG_START)
    self._chunk(*chunks[0])  # IHDR
    self._count_at = self._file.tell()
    self._counts()
    for kind, content in chunks[1:]:
      if kind not in (b'IDAT', b'IEND'):
        self._chunk(kind, content)

  def _counts(self) -> None:
    plays = self._head.plays
    self._chunk(b'acTL', struct.pack('>II', self._num_frames, plays))

  def _control(self, height: int, width: int, duration: float) -> None:
    seconds = fractions.Fraction(duration / 1000).limit_denominator(_MOST)
    if seconds.numerator > _MOST:
      seconds = fractions.Fraction(min(round(seconds), _MOST))
    area = struct.pack('>IIII', width, height, 0, 0)
    delay = struct.pack('>HH', seconds.numerator, seconds.denominator)
    self._chunk(b'fcTL', self._next() + area + delay + bytes(2))
    self._num_frames += 1

  def _next(self) -> bytes:
    self._sequence += 1
    return struct.pack('>I', self._sequence - 1)

  def _chunk(self, kind: bytes, content: bytes) -> None:
    crc = struct.pack('>I', zlib.crc32(kind + content))
    self._file.write(struct.pack('>I', len(content)) + kind + content + crc)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
  at = len(_PNG_START)
  while at < len(data):
    (size,) = struct.unpack_from('>I', data, at)
    yield data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
    at += 12 + size


class WebpWriter:
  """An animated WebP file."""

  def __init__(self, file: BinaryIO, head: Head) -> None:
    self._file = file
    self._head = head
    self._is_begun = False

  def add(
    self, pixels: np.ndarray, duration: float, *, is_poster: bool = False
  ) -> None:
    """See `Writer`."""
    if is_poster:
      return
    data = _encoded(pixels, 'WEBP', Head(), quality=_QUALITY)
    if not self._is_begun:
      self._begin(*pixels.shape)
    height, width, _ = pixels.shape
    milliseconds = min(round(duration), _MOST_MILLISECONDS)
    numbers = (0, 0, width - 1, height - 1, milliseconds)
    frame = b''.join(map(_three_bytes, numbers)) + bytes([_INSTEAD])
    for kind, content in _webp_chunks(data):
      if kind in (b'ALPH', b'VP8 ', b'VP8L'):
        frame += _webp_chunk(kind, content)
    self._file.write(_webp_chunk(b'ANMF', frame))

  def finish(self) -> None:
    """See `Writer`."""
    if self._head.exif:
      # Without the prefix, as the format has it.
      exif = self._head.exif.removeprefix(b'Exif\0\0')
      self._file.write(_webp_chunk(b'EXIF', exif))
    num_bytes = self._file.tell()
    if num_bytes > _MOST_WEBP_BYTES:
      raise ValueError('WebP has no room for more than 4 GiB')
    self._file.seek(4)
    self._file.write(struct.pack('<I', num_bytes - 8))

  def _begin(self, height: int, width: int, channels: int) -> None:
    icc = _fitting(self._head.icc, channels)
    flags = _IS_ANIMATED
    flags |= _HAS_ICC if icc else 0
    flags |= _HAS_ALPHA if channels in (2, 4) else 0
    flags |= _HAS_EXIF if self._head.exif else 0
    size = _three_bytes(width - 1) + _three_bytes(height - 1)
    self._file.write(b'RIFF' + bytes(4) + b'WEBP')
    self._file.write(_webp_chunk(b'VP8X', bytes([flags, 0, 0, 0]) + size))
    if icc:
      self._file.write(_webp_chunk(b'ICCP', icc))
    plays = struct.pack('<H', min(self._head.plays, _MOST))
    self._file.write(_webp_chunk(b'ANIM', bytes(4) + plays))
    self._is_begun = True


def _three_bytes(number: int) -> bytes:
  return number.to_bytes(3, 'little')


def _webp_chunk(kind: bytes, content: bytes) -> bytes:
  padding = bytes(len(content) % 2)
  return kind + struct.pack('<I', len(content)) + content + padding


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
  at = 12
  while at < len(data):
    kind, size = struct.unpack_from('<4sI', data, at)
    yield kind, data[at + 8 : at + 8 + size]
    at += 8 + size + size % 2


def _encoded(
  pixels: np.ndarray, kind: str, head: Head, **options: int
) -> bytes:
  found = {
    'exif': head.exif,
    'icc_profile': _fitting(head.icc, pixels.shape[-1]),
  }
  if pixels.shape[-1] == 1:
    pixels = pixels[..., 0]
  buffer = io.BytesIO()
  Image.fromarray(np.ascontiguousarray(pixels)).save(
    buffer,
    format=kind,
    **{name: value for name, value in found.items() if value},
    **options,
  )
  return buffer.getvalue()


def _fitting(icc: bytes | None, channels: int) -> bytes | None:
  """The profile, if it is one of so many channels."""
  return icc if icc and icc[16:20] == _PROFILES[channels] else None


WRITERS: dict[str, type[GifWriter] | type[PngWriter] | type[WebpWriter]] = {
  '.gif': GifWriter,
  '.png': PngWriter,
  '.webp': WebpWriter,
}
