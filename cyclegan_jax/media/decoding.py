"""Encoded images to uint8 arrays, whatever was put into the file.

Every source decodes here, so that a file means the same wherever it lies;
what has more than 8 bits or four channels is read by `depth.py`.
"""

import contextlib
import io
import threading
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image

from cyclegan_jax.errors import (
  DataError,
  UserError,
  one_line,
  printable,
)
from cyclegan_jax.media.header_limits import (
  check_header,
  check_size,
  check_tags,
)

# Pillow has about forty more decoders: what nobody needs isn't exposed to
# files of unknown origin.
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF')
EXTENSIONS = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
CHANNELS = {1: 'grey', 2: 'grey and alpha', 3: 'RGB', 4: 'RGBA'}

MODES = {1: 'L', 2: 'LA', 3: 'RGB', 4: 'RGBA'}
_ORIENTATION = 0x0112  # the EXIF tag
_IMAGE_WIDTH, _IMAGE_LENGTH = 256, 257  # the TIFF tags
TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}


class ImageError(DataError):
  """One image can't be read.

  Attributes:
    name: the image's path or id, as in `Images.names`.
    reason: what is wrong with it, in one line.
  """

  def __init__(self, name: str, reason: str) -> None:
    super().__init__(name, reason)
    self.name = name
    self.reason = reason

  def __str__(self) -> str:
    return f"{printable(self.name)} can't be read: {self.reason}"


def decode(
  file: BinaryIO, name: str, *, channels: int, max_pixels: int
) -> np.ndarray:
  """Decodes an image in any of FORMATS, upright by its EXIF orientation.

  Alpha that isn't asked for is laid onto white; 16-bit grey is scaled to 8.
  Of several frames or pages, the first is taken.

  Args:
    file: open for reading, seekable; it is left open.
    name: path or id, for the message.
    channels: of the result: a key of CHANNELS.
    max_pixels: larger images are not decoded, nor any with a side beyond
      `headers.MAX_SIDE`.

  Returns:
    uint8 [height, width, channels], writable.

  Raises:
    ImageError: it is of another format, damaged or too large.
  """
  with opened_image(file, name, max_pixels) as image:
    # Pillow's TIFF reader turns the pixels itself as it loads them.
    turn = None if image.format == 'TIFF' else TURNS.get(orientation_of(image))
    pixels = _convert(image, channels)
    pixels = pixels if turn is None else pixels.transpose(turn)
    return np.array(pixels).reshape(pixels.height, pixels.width, channels)


def decoded_shape(
  file: BinaryIO, name: str, *, max_pixels: int
) -> tuple[int, int]:
  """The (height, width) that `decode` gives, without decoding.

  Raises:
    ImageError: the header can't be read or tells of too large an image.
  """
  with opened_image(file, name, max_pixels) as image:
    width, height = image.size
    if image.format == 'TIFF':
      # Some versions of Pillow swap `size` in the header already.
      tags = image.tag_v2  # type: ignore[attr-defined]
      width, height = tags[_IMAGE_WIDTH], tags[_IMAGE_LENGTH]
    upright = orientation_of(image) < 5  # the others lie on their sides
    return (height, width) if upright else (width, height)


def decode_bytes(
  data: bytes, name: str, *, channels: int, max_pixels: int
) -> np.ndarray:
  """As `decode`, of a file's content."""
  file = io.BytesIO(data)
  return decode(file, name, channels=channels, max_pixels=max_pixels)


@contextlib.contextmanager
def opened_image(
  file: BinaryIO, name: str, max_pixels: int
) -> Iterator[Image.Image]:
  """The image with its header read; what goes wrong inside is ImageError."""
  with explained(file, name):
    check_header(file, max_pixels=max_pixels)
    with _NO_LIMIT, Image.open(file, formats=FORMATS) as image:
      check_size(image.width, image.height, max_pixels=max_pixels)
      yield image


@contextlib.contextmanager
def explained(file: BinaryIO, name: str) -> Iterator[None]:
  """Makes an ImageError of what goes wrong with the file inside."""
  try:
    yield
  except (UserError, MemoryError):
    raise
  except Exception as error:  # damaged bytes end in nearly any of them
    raise ImageError(name, _reason(file, error)) from error


def _reason(file: BinaryIO, error: Exception) -> str:
  if isinstance(error, Image.UnidentifiedImageError):
    if not file.seek(0, io.SEEK_END):
      return 'the file is empty'
    return 'not a JPEG, PNG, WebP, BMP or TIFF image'
  return one_line(error)


class _PillowLimit:
  """Lifts Pillow's own limit of pixels while any thread decodes.

  It is a global of the process, with a warning below a fixed count and an
  error above; config.data.max_pixels takes its place, for our files only.
  """

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._users = 0
    self._limit: int | None = None

  def __enter__(self) -> None:
    with self._lock:
      if not self._users:
        self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
      self._users += 1

  def __exit__(self, *error: object) -> None:
    with self._lock:
      self._users -= 1
      if not self._users:
        Image.MAX_IMAGE_PIXELS = self._limit


_NO_LIMIT = _PillowLimit()


def orientation_of(image: Image.Image) -> int:
  """The EXIF orientation, 1 (upright) to 8, as the header has it."""
  try:
    check_tags(io.BytesIO(exif_of(image)))
    # PngImageFile's own getexif decodes the pixels in search of late tags.
    found = int(Image.Image.getexif(image).get(_ORIENTATION, 1))
    return found if 1 <= found <= 8 else 1
  except Exception:  # a broken tag leaves the pixels as they are
    return 1


def exif_of(image: Image.Image) -> bytes:
  """The EXIF data that Pillow would parse; of TIFF it is the file itself."""
  if 'exif' in image.info:
    # Some writers put the prefix twice.
    exif = image.info['exif'].removeprefix(b'Exif\0\0')
    return exif.removeprefix(b'Exif\0\0')
  # ImageMagick's way to put it into a PNG file, as text.
  lines = image.info.get('Raw profile type exif', '').split('\n')
  return bytes.fromhex(''.join(lines[3:])).removeprefix(b'Exif\0\0')


def _convert(image: Image.Image, channels: int) -> Image.Image:
  """The image in the mode that has `channels` channels of 8 bits."""
  if image.mode in ('I', 'F') or image.mode.startswith('I;16'):
    image = _to_8_bits(image)
  if not image.has_transparency_data:
    return image.convert(MODES[channels])
  # By way of RGBA, in which Pillow turns colour keys and palettes to alpha.
  image = image.convert('RGBA')
  if channels in (1, 3):
    white = Image.new('RGB', image.size, 'white')
    white.paste(image, mask=image.getchannel('A'))
    image = white
  return image.convert(MODES[channels])


def _to_8_bits(image: Image.Image) -> Image.Image:
  """Grey of 16 bits scaled to 8, where Pillow's own conversion clips.

  Raises:
    ValueError: of 32 bits, which have no range that one could know.
  """
  # Older versions of Pillow give 16-bit PNG files in 32 bits.
  if image.mode in ('I', 'F') and image.format != 'PNG':
    raise ValueError(
      '32-bit grey has no known range: save it with 8 or 16 bits a channel'
    )
  grey = np.asarray(image).astype(np.uint32)
  return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8))
