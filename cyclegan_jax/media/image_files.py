"""Image files read and written whole, with their alpha, EXIF and profile."""

import io
import math
import os
import pathlib
import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from cyclegan_jax.config import DataConfig
from cyclegan_jax.errors import DataError, ImageError, printable
from cyclegan_jax.media.decoding import decode_stored
from cyclegan_jax.media.listing import open_file
from cyclegan_jax.media.metadata import (
  Metadata,
  nodata_of,
  read_header,
  read_metadata,
)
from cyclegan_jax.media.tiff_reader import (
  Tag,
  has_imagecodecs,
  needs_imagecodecs,
)
from cyclegan_jax.media.tiff_writer import encode_tiff
from cyclegan_jax.media.value_range import (
  FULL,
  Values,
  rescaled,
  values_of,
  with_missing,
)
from cyclegan_jax.storage.atomic import replacing

_JPEG_QUALITY = 95
_MAX_JPEG_EXIF = 65_533  # bytes that one segment holds
_COLORS = {b'GRAY': 1, b'RGB ': 3}  # of a profile, by its color space


class Photo(NamedTuple):
  """An image and what else its file holds.

  Attributes:
    pixels: uint8, uint16, int16 or float32 [h, w, C], upright.
    alpha: [h, w] of the same type; None where the file has none, or it is
      among the channels.
    exif: EXIF data with its prefix, the orientation set to upright; None for
      none.
    icc: the color profile; None for none.
    format: Pillow's name of the file's format.
    tags: as in `Metadata`; none where the pixels were turned.
    num_frames: frames of an animation, or pages; `pixels` are those of the
      first.
    colors: channels in the file, without alpha.
    missing: as in `Decoded`; they are marked in `write_photo`'s file, too.
  """

  pixels: np.ndarray
  alpha: np.ndarray | None = None
  exif: bytes | None = None
  icc: bytes | None = None
  format: str = ''
  tags: tuple[Tag, ...] = ()
  num_frames: int = 1
  colors: int = 0
  missing: np.ndarray | None = None


class _Picture(NamedTuple):
  """Content of a file; alpha is the last channel of `pixels` if it has any."""

  pixels: np.ndarray
  has_alpha: bool
  exif: bytes | None = None
  icc: bytes | None = None
  tags: tuple[Tag, ...] = ()


def read_photo(path: str, *, channels: int, max_pixels: int) -> Photo:
  """Reads an image file in the depth that it is stored in.

  Pixels that are fully transparent become white, as in training.

  Args:
    path: path of the file.
    channels: as for `decode_stored`.
    max_pixels: larger images are not decoded.

  Raises:
    ImageError: the file cannot be read, or has not these channels.
    UserError: it takes a package that is not installed.
  """
  with open_file(path) as file:
    pixels, alpha, missing = decode_stored(
      file, path, channels=channels, max_pixels=max_pixels
    )
    metadata = read_metadata(file, path, max_pixels=max_pixels)
    header = read_header(file, path, channels=channels, max_pixels=max_pixels)
  if alpha is not None and (alpha == 0).any():
    pixels = pixels.copy()
    pixels[alpha == 0] = FULL.get(str(pixels.dtype), 1)
  return Photo(
    pixels, alpha, *metadata, header.num_frames, header.colors, missing
  )


def read_metadata_for(path: str, *, channels: int, max_pixels: int) -> Metadata:
  """Reads what goes with pixels of other channels: a profile only if it fits.

  Raises:
    ImageError: the file cannot be read.
  """
  with open_file(path) as file:
    metadata = read_metadata(file, path, max_pixels=max_pixels)
  return metadata._replace(icc=_fitting(metadata.icc, channels))


def _fitting(icc: bytes | None, colors: int) -> bytes | None:
  """The color profile, if it is one of that many colors."""
  return icc if icc and _COLORS.get(icc[16:20]) == colors else None


def write_photo(
  path: str, pixels: np.ndarray, *, like: Photo | None = None
) -> None:
  """Writes an image file whole or not at all, its format by its ending.

  Formats without alpha (JPEG, BMP) get transparent pixels laid onto white.

  Args:
    path: .png (uint8 or uint16, up to four channels), .tif or .tiff (any),
      .jpg, .jpeg, .webp or .bmp (uint8, 1 or 3 channels, WebP also 2 and 4).
    pixels: uint8, uint16, int16 or float32 [h, w, C].
    like: photo whose alpha, EXIF, georeference and, if it fits the colors,
      profile go into the file.

  Raises:
    DataError: the format cannot hold the pixels.
    UserError: it takes a package that is not installed.
    OSError: the disk is full, and so on.
  """
  encode = _ENCODERS.get(os.path.splitext(path)[1].lower())
  if encode is None:
    known = ', '.join(_ENCODERS)
    raise _unfit(path, f'its ending is none of {known}')
  data = encode(path, _picture(pixels, like))
  with replacing(pathlib.Path(path)) as temporary:
    temporary.write_bytes(data)


def holds(ending: str, dtype: str, channels: int) -> bool:
  """Whether a format has room for pixels: '.png', 'uint16', 3."""
  if ending.lower() in ('.tif', '.tiff'):
    return True
  depths = FULL if ending.lower() == '.png' else ('uint8',)
  return channels <= 4 and dtype in depths


def values_for(
  pixels: np.ndarray, config: DataConfig, direction: str, *, name: str = ''
) -> tuple[Values, Values]:
  """Finds the values of a photo to a translator, and of its output.

  A photo of the source domain's type gives an output of the target domain's.
  Other integers are taken by their own full range, and the output is like
  them, unless the target domain has a measured range (floats, int16).

  Args:
    pixels: pixels of the photo.
    config: resolved config.
    direction: 'ab' or 'ba'.
    name: path of the file, for the message.

  Raises:
    ImageError: the photo's type has no known range in the source domain.
  """
  source, target = (values_of(config, domain) for domain in direction)
  dtype = str(pixels.dtype)
  try:
    own = source.of(dtype)
  except ValueError as error:
    raise ImageError(name, str(error)) from error
  if dtype not in FULL or dtype == source.dtype or target.dtype not in FULL:
    return own, target
  return own, target.of(dtype)


def _picture(pixels: np.ndarray, like: Photo | None) -> _Picture:
  """The pixels with the alpha of a photo, and what else fits them."""
  channels: int = pixels.shape[-1]
  colors = {2: 1, 4: 3}.get(channels, channels)
  has_alpha = colors != channels
  if like is None:
    return _Picture(pixels, has_alpha)
  if like.colors == channels:  # bands, of which none is alpha
    colors, has_alpha = channels, False
  if like.missing is not None:
    nodata = nodata_of(like.tags)
    mark = math.nan if nodata is None else nodata
    pixels = with_missing(pixels, like.missing, mark)
  if like.alpha is not None and not has_alpha:
    alpha = rescaled(like.alpha, str(pixels.dtype))
    pixels = np.concatenate([pixels, alpha[..., None]], axis=-1)
    has_alpha = True
  icc = _fitting(like.icc, colors)
  return _Picture(pixels, has_alpha, like.exif, icc, like.tags)


def _encode_png(path: str, picture: _Picture) -> bytes:
  pixels = picture.pixels
  if pixels.dtype.name not in FULL:
    raise _unfit(path, f'PNG has no {pixels.dtype}: give it the ending .tif')
  if pixels.shape[-1] > 4:
    raise _unfit(
      path,
      f'PNG has no {pixels.shape[-1]} channels: give it the ending .tif',
    )
  if pixels.dtype == np.uint8 or pixels.shape[-1] == 1:
    return _by_pillow(picture, 'PNG')
  if not has_imagecodecs():
    raise needs_imagecodecs(f'{path} (colors of 16 bits)')
  import imagecodecs

  data = bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels)))
  chunks = b''
  if picture.icc:
    chunks += _chunk(b'iCCP', b'icc\0\0' + zlib.compress(picture.icc))
  if picture.exif:
    chunks += _chunk(b'eXIf', picture.exif.removeprefix(b'Exif\0\0'))
  header = 8 + 25  # the signature and IHDR, which come first
  return data[:header] + chunks + data[header:]


def _chunk(kind: bytes, content: bytes) -> bytes:
  crc = struct.pack('>I', zlib.crc32(kind + content))
  return struct.pack('>I', len(content)) + kind + content + crc


def _encode_tiff(path: str, picture: _Picture) -> bytes:
  del path
  return encode_tiff(
    picture.pixels,
    has_alpha=picture.has_alpha,
    exif=picture.exif,
    icc=picture.icc,
    tags=picture.tags,
  )


def _encode_jpeg(path: str, picture: _Picture) -> bytes:
  picture = _on_white(_of_bytes(path, picture, 'JPEG'))
  if picture.exif and len(picture.exif) > _MAX_JPEG_EXIF:
    picture = picture._replace(exif=None)
  return _by_pillow(picture, 'JPEG', quality=_JPEG_QUALITY)


def _encode_webp(path: str, picture: _Picture) -> bytes:
  return _by_pillow(
    _of_bytes(path, picture, 'WebP'), 'WEBP', quality=_JPEG_QUALITY
  )


def _encode_bmp(path: str, picture: _Picture) -> bytes:
  picture = _on_white(_of_bytes(path, picture, 'BMP'))
  return _by_pillow(picture._replace(exif=None, icc=None), 'BMP')


def _of_bytes(path: str, picture: _Picture, kind: str) -> _Picture:
  pixels = picture.pixels
  if pixels.dtype != np.uint8:
    others = '.tif or .png' if pixels.dtype.name in FULL else '.tif'
    raise _unfit(
      path, f'{kind} has no {pixels.dtype}: give it the ending {others}'
    )
  channels = pixels.shape[-1]
  if channels - picture.has_alpha not in (1, 3):
    raise _unfit(
      path, f'{kind} has no {channels} channels: give it the ending .tif'
    )
  return picture


def _on_white(picture: _Picture) -> _Picture:
  if not picture.has_alpha:
    return picture
  alpha = picture.pixels[..., -1:] / 255.0
  shown = picture.pixels[..., :-1] * alpha + 255 * (1 - alpha)
  pixels = np.rint(shown).astype(np.uint8)
  return picture._replace(pixels=pixels, has_alpha=False)


def _by_pillow(picture: _Picture, kind: str, **options: int) -> bytes:
  pixels = picture.pixels
  if pixels.shape[-1] == 1:
    pixels = pixels[..., 0]
  found = {'exif': picture.exif, 'icc_profile': picture.icc}
  buffer = io.BytesIO()
  Image.fromarray(np.ascontiguousarray(pixels)).save(
    buffer,
    format=kind,
    **{name: value for name, value in found.items() if value},
    **options,
  )
  return buffer.getvalue()


def _unfit(path: str, reason: str) -> DataError:
  return DataError(f'{printable(path)} cannot be written: {reason}')


_ENCODERS: dict[str, Callable[[str, _Picture], bytes]] = {
  '.png': _encode_png,
  '.tif': _encode_tiff,
  '.tiff': _encode_tiff,
  '.jpg': _encode_jpeg,
  '.jpeg': _encode_jpeg,
  '.webp': _encode_webp,
  '.bmp': _encode_bmp,
}
