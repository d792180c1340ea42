"""What image files hold beside pixels: EXIF, profile, georeference, pages."""

import contextlib
import io
import itertools
from typing import Any, BinaryIO, NamedTuple

from PIL import Image

from cyclegan_jax.media.decoding import (
  exif_of,
  opened_image,
  report_damage,
  stored_kind,
)
from cyclegan_jax.media.header_limits import read_directory
from cyclegan_jax.media.tiff_reader import (
  Tag,
  TiffImage,
  is_tiff,
  read_tags,
)

_ORIENTATION = 0x0112
_EXIF, _GPS, _INTEROP = 0x8769, 0x8825, 0xA005  # tags that lead to more tags
_SIZE = (0xA002, 0xA003)  # width and height, among the tags that _EXIF leads to
# Of a TIFF file's tags, those on the camera and the author.
_RESOLUTION = (282, 283, 296)
_UNIT = 296
_CAMERA = (271, 272, *_RESOLUTION, 305, 306, 315, 316, 33432, _EXIF, _GPS)
_PIXEL_SCALE, _TIE_POINTS, _MATRIX = 33550, 33922, 34264  # of GeoTIFF
_NODATA = 42113  # GDAL's tag
_WEBP_IS_ANIMATED = 0x02


class Metadata(NamedTuple):
  """What comes with pixels.

  Attributes:
    exif: EXIF data with its prefix, for upright pixels; None for none.
    icc: the color profile; None for none.
    format: Pillow's name of the file's format.
    tags: georeference of a TIFF file, and GDAL's value of pixels without data.
  """

  exif: bytes | None
  icc: bytes | None
  format: str
  tags: tuple[Tag, ...] = ()


class Header(NamedTuple):
  """What the header of an image file says about its pixels.

  Attributes:
    dtype: 'uint8', 'uint16', 'int16' or 'float32'.
    colors: channels without alpha.
    num_frames: frames of an animation, or pages.
    is_tiff: whether these are pages.
  """

  dtype: str
  colors: int
  num_frames: int
  is_tiff: bool


def read_header(
  file: BinaryIO, name: str, *, channels: int, max_pixels: int
) -> Header:
  """Reads a file's header.

  Args:
    file: open for reading, seekable.
    name: path or id, for messages.
    channels: channels that the pixels are read with.
    max_pixels: limit on the pixels of the image.

  Raises:
    ImageError: the header cannot be read or claims too much.
  """
  dtype, colors = stored_kind(file, name, max_pixels=max_pixels)
  num_frames = count_frames(
    file, name, channels=channels, max_pixels=max_pixels
  )
  is_of_pages = is_tiff(file)
  if is_of_pages and colors == 1 and num_frames == 1:
    tiff = TiffImage(file, max_pixels=max_pixels)
    colors = channels if tiff.has_pages_as_channels(channels) else 1
  return Header(dtype, colors, num_frames, is_of_pages)


def read_metadata(file: BinaryIO, name: str, *, max_pixels: int) -> Metadata:
  """Reads what comes with the pixels; broken parts are left out.

  Args:
    file: open for reading, seekable.
    name: path or id, for messages.
    max_pixels: limit on the pixels of the image.

  Raises:
    ImageError: it is no image.
  """
  if is_tiff(file):
    try:
      icc, tags = read_tags(file)
    except Exception:  # damaged tags end in nearly any of them
      icc, tags = None, ()
      report_damage(name, 'georeference or color profile')
    return Metadata(_tiff_exif(file, name), icc, 'TIFF', tags)
  with opened_image(file, name, max_pixels, header_only=True) as image:
    icc = image.info.get('icc_profile')
    return Metadata(_exif(image, name), icc or None, str(image.format))


def _exif(image: Image.Image, name: str) -> bytes | None:
  try:
    raw = exif_of(image)
    if not raw:
      return None
    _check(io.BytesIO(raw))
    exif = Image.Exif()
    exif.load(raw)
    if exif.get(_ORIENTATION, 1) != 1:
      if exif[_ORIENTATION] >= 5:  # width and height change places
        inner = exif.get_ifd(_EXIF)
        exif[_EXIF] = {tag: inner[tag] for tag in inner if tag not in _SIZE}
      exif[_ORIENTATION] = 1
    return exif.tobytes()
  except Exception:  # damaged tags end in nearly any of them
    report_damage(name, 'EXIF data')
    return None


def _tiff_exif(file: BinaryIO, name: str) -> bytes | None:
  try:
    _check(file)
    file.seek(0)
    if file.read(4) not in (b'II*\0', b'MM\0*'):
      return None  # BigTIFF, which Pillow's EXIF reader does not know
    file.seek(0)
    stored: Any = Image.Exif()
    stored.load_from_fp(file)
    exif: Any = Image.Exif()
    # A resolution without a unit is what writers put where they know none.
    left_out = _RESOLUTION if stored.get(_UNIT) == 1 else ()
    for tag in _CAMERA:
      if tag in stored and tag not in left_out:
        leads_on = tag in (_EXIF, _GPS)
        exif[tag] = dict(stored.get_ifd(tag)) if leads_on else stored[tag]
    return exif.tobytes() if len(exif) else None
  except Exception:  # damaged tags end in nearly any of them
    report_damage(name, 'EXIF data')
    return None


def _check(file: BinaryIO) -> None:
  """Raises ValueError where tags, or those they lead to, claim too much."""
  numbers = read_directory(file).numbers
  for pointer in (_EXIF, _GPS):
    if pointer in numbers:
      inner = read_directory(file, numbers[pointer]).numbers
      if _INTEROP in inner:
        read_directory(file, inner[_INTEROP])


def resized_tags(
  tags: tuple[Tag, ...], width_factor: float, height_factor: float
) -> tuple[Tag, ...]:
  """The georeference of an image that was made larger by these factors."""
  factors = {
    _PIXEL_SCALE: (1 / width_factor, 1 / height_factor, 1),
    # Of six numbers each: a place in the image, and where on earth it is.
    _TIE_POINTS: (width_factor, height_factor, 1, 1, 1, 1),
    _MATRIX: (1 / width_factor, 1 / height_factor, 1, 1),
  }
  resized: list[Tag] = []
  for code, kind, count, values, is_once in tags:
    if isinstance(code, int) and code in factors:
      cycle = itertools.cycle(factors[code])
      values = tuple(value * next(cycle) for value in values)
    resized.append((code, kind, count, values, is_once))
  return tuple(resized)


def nodata_of(tags: tuple[Tag, ...]) -> float | None:
  """GDAL's value of pixels without data; None for none."""
  for code, _, _, value, _ in tags:
    if code == _NODATA:
      with contextlib.suppress(ValueError, TypeError):
        # tifffile copies strings as bytes that end with a zero.
        return float(value.rstrip(b'\0') if type(value) is bytes else value)
  return None


def count_frames(
  file: BinaryIO, name: str, *, channels: int, max_pixels: int
) -> int:
  """Counts frames of an animation, or pages.

  Pages are those of a TIFF file, without thumbnails and masks; pages that are
  read as channels are one image.

  Args:
    file: open for reading, seekable, of an image that could be read.
    name: path or id, for messages.
    channels: channels that it is read with.
    max_pixels: limit on the pixels of the image.

  Returns:
    At least 1. An APNG file's first picture counts, whether it is part of the
    animation or not.

  Raises:
    ImageError: it is no image.
  """
  if is_tiff(file):
    try:
      tiff = TiffImage(file, max_pixels=max_pixels)
      as_one = tiff.has_pages_as_channels(channels)
      return 1 if as_one else tiff.count_pages()
    except ValueError:  # of pages that claim too much, and are not read
      return 1
  start = file.read(30)
  file.seek(0)
  if start[:4] == b'RIFF':
    # Others are not worth being opened, which makes a canvas.
    is_animated = start[12:16] == b'VP8X' and start[20] & _WEBP_IS_ANIMATED
    if not is_animated:
      return 1
  elif not (
    start.startswith((b'\x89PNG', b'GIF8')) or start[4:12] == b'ftypavis'
  ):
    return 1  # a JPEG file's further images are made from the first
  with opened_image(file, name, max_pixels, header_only=True) as image:
    return max(1, getattr(image, 'n_frames', 1))
