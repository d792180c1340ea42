"""Image files to arrays: 8 bits, or in the depth that they are stored in.

Every source decodes here, so that a file means the same wherever it lies.
Pillow decodes what it can hold: 8 bits, and gray of 16 bits or floats. Of TIFF
files the rest is read by `tiff_reader`, of PNG files by imagecodecs (the extra
`depth`), as Pillow would cut colors of 16 bits to 8 without a word.
"""

import contextlib
import importlib.util
import io
import logging
import math
import struct
import threading
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from cyclegan_jax.errors import ImageError, UserError, one_line, printable
from cyclegan_jax.media.header_limits import (
  check_header,
  check_size,
  read_directory,
  stored_orientation,
  without_bad_metadata,
)
from cyclegan_jax.media.tiff_reader import (
  ASSOCIATED_ALPHA,
  BLACK_IS_ZERO,
  RGB,
  UNASSOCIATED_ALPHA,
  WHITE_IS_ZERO,
  TiffImage,
  has_imagecodecs,
  is_tiff,
  needs_imagecodecs,
)
from cyclegan_jax.media.value_range import (
  FULL,
  Values,
  is_missing,
  rescaled,
  without_missing,
)

# Pillow has about forty more decoders: what nobody needs isn't exposed to
# files of unknown origin. Those before 11.3 have no AVIF.
_HAS_AVIF = importlib.util.find_spec('PIL.AvifImagePlugin') is not None
FORMATS = (
  *('JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF', 'GIF', 'PPM'),
  *(('AVIF',) if _HAS_AVIF else ()),
)
EXTENSIONS = (
  *('.avif', '.bmp', '.dcm', '.gif', '.heic', '.heif', '.jfif', '.jpe'),
  *('.jpeg', '.jpg', '.nii', '.nii.gz', '.pbm', '.pgm', '.png', '.pnm'),
  *('.ppm', '.tif', '.tiff', '.webp'),
)
CHANNELS = {1: 'gray', 2: 'gray and alpha', 3: 'RGB', 4: 'RGBA'}
# By EXIF orientation.
TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
_ARRAY_TURNS = {
  2: lambda x: x[:, ::-1],
  3: lambda x: x[::-1, ::-1],
  4: lambda x: x[::-1],
  5: lambda x: x.swapaxes(0, 1),
  6: lambda x: x.swapaxes(0, 1)[:, ::-1],
  7: lambda x: x.swapaxes(0, 1)[::-1, ::-1],
  8: lambda x: x.swapaxes(0, 1)[::-1],
}
_NAMES = ('JPEG', 'PNG', 'WebP', 'BMP', 'TIFF', 'GIF', 'PPM', 'AVIF', 'HEIC')
_HEIF_BRANDS = (b'heic', b'heix', b'heim', b'heis', b'hevc', b'mif1', b'msf1')
_MODES = {1: 'L', 2: 'LA', 3: 'RGB', 4: 'RGBA'}
_COLORS = {'F': 1, 'L': 1, 'LA': 1, 'RGB': 3, 'RGBX': 3, 'RGBA': 3}  # by mode
_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, as Pillow has it
_ORIENTATION = 0x0112  # EXIF tag
_PNG_START = b'\x89PNG\r\n\x1a\n'
# Chunks that the pixels are made of; decoders get no others.
_PNG_CHUNKS = (b'IHDR', b'IDAT', b'IEND')
_PNG_GRAY, _PNG_GRAY_ALPHA = 0, 4  # color types


class Decoded(NamedTuple):
  """An image, upright by its EXIF orientation.

  Attributes:
    pixels: uint8, uint16, int16 or float32 [h, w, C].
    alpha: [h, w] of the same type, 1 or the largest integer where opaque;
      None where the image has none, or it is among the channels.
    missing: bool [h, w], where there is no data: by GDAL's tag in TIFF files,
      as padding in DICOM files, as NaN in floats; None where that is not
      marked.
  """

  pixels: np.ndarray
  alpha: np.ndarray | None
  missing: np.ndarray | None = None


def decode(
  file: BinaryIO,
  name: str,
  *,
  channels: int,
  max_pixels: int,
  page: int | None = None,
) -> np.ndarray:
  """Decodes an image to 8 bits, upright by its EXIF orientation.

  Alpha that isn't asked for is laid onto white; 16 bits are scaled to 8. Of
  several frames or pages, the first is taken, unless pages are channels.

  Args:
    file: open for reading, seekable; it is left open.
    name: path or id, for messages.
    channels: of the result: one of CHANNELS, or as many as a TIFF file has.
    max_pixels: larger images are not decoded, nor any with a side beyond
      `header_limits.MAX_SIDE`.
    page: number of a TIFF file's page, from 0; None for the first, or for pages
      as channels.

  Returns:
    uint8 [height, width, channels], writable.

  Raises:
    ImageError: the image is of another format, damaged, too large, of floats,
      or has not these channels.
    UserError: it takes a package that is not installed.
  """
  with explained(file, name):
    check_header(file, max_pixels=max_pixels, channels=channels, page=page or 0)
    if is_tiff(file):
      decoded = _decode_tiff(file, name, channels, max_pixels, page)
    else:
      with opened_image(file, name, max_pixels) as image:
        decoded = _decode_by_pillow(image, channels)
    pixels = _opaque(decoded)
    Values('uint8', 0, 255).of(str(pixels.dtype))  # floats have no range
    return rescaled(pixels, 'uint8')


def decode_stored(
  file: BinaryIO,
  name: str,
  *,
  channels: int,
  max_pixels: int,
  page: int | None = None,
) -> Decoded:
  """Decodes an image in the type that it is stored in.

  Numbers other than uint8, uint16 and int16 become float32. Pages of a TIFF
  file, one gray image each and as many as `channels`, are its channels; of
  others the first is taken. Pixels that are marked as without data are NaN,
  or where the type has none, the least other value; uint8 and uint16 stay.

  Args:
    file: as for `decode`.
    name: likewise.
    channels: likewise.
    max_pixels: likewise.
    page: likewise.

  Raises:
    ImageError: the image is of another format, damaged, too large, or of
      channels that don't become those asked for.
    UserError: it takes a package that is not installed.
  """
  with explained(file, name):
    check_header(file, max_pixels=max_pixels, channels=channels, page=page or 0)
    if is_tiff(file):
      return _decode_tiff(file, name, channels, max_pixels, page)
    if _is_deep_png(file) and _png_color(file) != _PNG_GRAY:
      return _decode_deep_png(file, name, channels, max_pixels)
    with opened_image(file, name, max_pixels) as image:
      return _decode_by_pillow(image, channels)


def decode_opaque(
  file: BinaryIO,
  name: str,
  *,
  channels: int,
  max_pixels: int,
  page: int | None = None,
) -> Decoded:
  """Decodes as `decode_stored`, with alpha laid onto white.

  Floats and int16 have no white, so their alpha is left out.

  Returns:
    Pixels [h, w, channels] and `missing`; alpha is None.
  """
  decoded = decode_stored(
    file, name, channels=channels, max_pixels=max_pixels, page=page
  )
  return decoded._replace(pixels=_opaque(decoded), alpha=None)


def tiff_pages(
  file: BinaryIO, name: str, *, max_pixels: int
) -> tuple[list[int], int]:
  """Numbers of the pages of a TIFF file that are of the first one's size.

  Returns:
    The numbers, and how many pages are of another size.

  Raises:
    ImageError: the file is no TIFF file, or damaged.
  """
  with explained(file, name):
    check_header(file, max_pixels=max_pixels)
    if not is_tiff(file):
      raise ValueError('not a TIFF image')
    return TiffImage(file, max_pixels=max_pixels).page_numbers()


def stored_kind(
  file: BinaryIO, name: str, *, max_pixels: int
) -> tuple[str, int]:
  """Reads from the header the type and number of channels, without alpha.

  Returns:
    The type of pixels that `decode_stored` returns; and the channels that the
    file has, 3 for colors of any kind.

  Raises:
    ImageError: the header cannot be read or claims too much.
  """
  with explained(file, name):
    if is_tiff(file):
      tiff = _known_tiff(file, max_pixels)
      is_plain = tiff.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB)
      colors = tiff.samples - bool(tiff.alpha) if is_plain else 3
      return _stored_as(tiff.dtype), colors
    with opened_image(file, name, max_pixels, header_only=True) as image:
      is_gray = image.mode[0] in '1LIF'
      colors = 1 if is_gray else 3
      if image.mode == 'F':
        return 'float32', colors
      is_deep = image.mode[0] == 'I' or _is_deep_png(file)
      return 'uint16' if is_deep else 'uint8', colors


def decoded_shape(
  file: BinaryIO, name: str, *, max_pixels: int
) -> tuple[int, int]:
  """Reads from the header the (height, width) of the upright image.

  Raises:
    ImageError: the header cannot be read or claims too large an image.
  """
  with explained(file, name):
    check_header(file, max_pixels=max_pixels)
    if is_tiff(file):
      tiff = TiffImage(file, max_pixels=max_pixels)
      height, width, orientation = tiff.height, tiff.width, tiff.orientation
    else:
      with opened_image(file, name, max_pixels, header_only=True) as image:
        width, height = image.size
        orientation = orientation_of(image)
  # The others lie on their sides.
  return (height, width) if orientation < 5 else (width, height)


@contextlib.contextmanager
def opened_image(
  file: BinaryIO, name: str, max_pixels: int, *, header_only: bool = False
) -> Iterator[Image.Image]:
  """Opens an image by Pillow; errors inside become ImageError.

  Args:
    file: open for reading, seekable.
    name: path or id, for messages.
    max_pixels: limit on the pixels of the image.
    header_only: whether the pixels will not be read.
  """
  with explained(file, name):
    check_header(file, max_pixels=max_pixels)
    sound, damaged = without_bad_metadata(file, header_only=header_only)
    if damaged:
      report_damage(name, damaged)
    formats = (*FORMATS, 'HEIF') if _is_heif(file) else FORMATS
    with _NO_LIMIT, Image.open(sound, formats=formats) as image:
      check_size(image.width, image.height, max_pixels=max_pixels)
      yield image


def report_damage(name: str, damaged: str) -> None:
  """Warns once in a process that metadata are left out.

  Args:
    name: path or id of the image.
    damaged: what is left out.
  """
  if not _has_reported_damage():
    logging.getLogger('cyclegan_jax').warning(
      '%s: its %s is damaged and left out, its pixels are used (other such '
      'images are not reported)',
      printable(name),
      damaged,
    )


_reported = threading.Lock()  # acquired for good by the first report


def _has_reported_damage() -> bool:
  return not _reported.acquire(blocking=False)


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
    if not _HAS_AVIF and _brand(file) == b'avif':
      return 'AVIF images need Pillow 11.3 or later: pip install -U pillow'
    return f'not a {", ".join(_NAMES[:-1])} or {_NAMES[-1]} image'
  return one_line(error)


def _brand(file: BinaryIO) -> bytes:
  """The kind of an AVIF or HEIF file; leaves the file at 0."""
  file.seek(0)
  start = file.read(64)
  file.seek(0)
  if start[4:8] != b'ftyp':
    return b''
  # Either may name itself a general HEIF file.
  return b'avif' if b'avif' in start[8:] else start[8:12]


def _is_heif(file: BinaryIO) -> bool:
  """Whether pillow-heif reads the file, which it then registers with Pillow.

  Raises:
    ValueError: the package is not installed.
  """
  if _brand(file) not in _HEIF_BRANDS:
    return False
  try:
    import pillow_heif
  except ImportError as error:
    raise ValueError(
      'HEIC images need the package pillow-heif: pip install pillow-heif'
    ) from error
  pillow_heif.register_heif_opener()
  return True


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
  """Reads the EXIF orientation from the header, 1 (upright) to 8."""
  try:
    exif = exif_of(image)
    if orientation := stored_orientation(exif):
      return orientation
    read_directory(io.BytesIO(exif))
    # PngImageFile's own getexif decodes the pixels in search of late tags.
    orientation = int(Image.Image.getexif(image).get(_ORIENTATION, 1))
    return orientation if 1 <= orientation <= 8 else 1
  except Exception:  # a broken tag leaves the pixels as they are
    return 1


def exif_of(image: Image.Image) -> bytes:
  """The EXIF data that Pillow would parse, without its prefix."""
  if exif := image.info.get('exif'):
    # Some writers put the prefix twice.
    exif = exif.removeprefix(b'Exif\0\0')
    return exif.removeprefix(b'Exif\0\0')
  # ImageMagick's way to put it into a PNG file, as text.
  lines = image.info.get('Raw profile type exif', '').split('\n')
  return bytes.fromhex(''.join(lines[3:])).removeprefix(b'Exif\0\0')


def _decode_by_pillow(image: Image.Image, channels: int) -> Decoded:
  # Pillow's TIFF reader turns the pixels itself as it loads them.
  orientation = 1 if image.format == 'TIFF' else orientation_of(image)
  if image.mode in ('I', 'F') or image.mode.startswith('I;16'):
    # Older versions of Pillow give 16-bit PNG files in 32 bits.
    dtype = 'float32' if image.mode == 'F' else 'uint16'
    pixels = np.asarray(image).astype(dtype)[..., None]
    return _with_channels(_turned(pixels, orientation), 0, channels)
  if channels not in _MODES:
    raise _wrong_channels(len(image.getbands()), channels)
  if orientation in TURNS:
    image = image.transpose(TURNS[orientation])
  if not image.has_transparency_data:
    return Decoded(_array(image, channels), None)
  # By way of RGBA, in which Pillow turns color keys and palettes to alpha.
  image = image.convert('RGBA')
  if channels in (2, 4):
    return Decoded(_array(image, channels), None)
  alpha = np.array(image.getchannel('A'))
  return Decoded(_array(image.convert('RGB'), channels), alpha)


def _array(image: Image.Image, channels: int) -> np.ndarray:
  pixels = np.array(image.convert(_MODES[channels]))
  return pixels.reshape(image.height, image.width, channels)


def _known_tiff(file: BinaryIO, max_pixels: int, page: int = 0) -> TiffImage:
  tiff = TiffImage(file, max_pixels=max_pixels, page=page)
  if not tiff.dtype:
    raise ValueError(
      'its values are neither whole numbers of 8, 16 or 32 bits nor floats'
    )
  return tiff


def _decode_tiff(
  file: BinaryIO, name: str, channels: int, max_pixels: int, page: int | None
) -> Decoded:
  tiff = _known_tiff(file, max_pixels, page or 0)
  is_one = page is not None or not tiff.has_pages_as_channels(channels)
  num_pages = 1 if is_one else channels
  if num_pages == 1 and _is_exact_in_pillow(tiff, channels):
    if tiff.is_big_endian_bigtiff:
      raise ValueError('its kind of pixels is not read from big-endian BigTIFF')
    try:
      return _decode_tiff_by_pillow(
        file, name, channels, max_pixels, tiff, page or 0
      )
    except ImageError as error:
      # One broken tag is enough for that; tifffile says what it does not read.
      if not isinstance(error.__cause__, Image.UnidentifiedImageError):
        raise
      if tiff.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
        raise ValueError(
          'its tags are damaged, or Pillow does not read its kind of colors '
          f'(photometric {tiff.photometric})'
        ) from error
  # Before it is decoded, so that nothing larger than was asked for is.
  num_samples = tiff.samples * num_pages
  fitting = (channels, channels + bool(tiff.alpha))
  if max(num_samples, channels) > 4 and num_samples not in fitting:
    raise _wrong_channels(num_samples, channels)
  pixels = tiff.decode(name, num_pages=num_pages)
  dtype = _stored_as(tiff.dtype)
  missing: np.ndarray | None = None
  if tiff.nodata is not None:
    num_colors = pixels.shape[-1] - bool(tiff.alpha)
    missing = is_missing(pixels[..., :num_colors], tiff.nodata)
    missing = _turned(missing, tiff.orientation)
  if dtype not in FULL:
    if tiff.nodata is not None:
      pixels = without_missing(pixels, tiff.nodata)
    pixels = pixels.astype(dtype, copy=False)
  elif tiff.photometric == WHITE_IS_ZERO and tiff.samples == 1:
    pixels = np.array(FULL[dtype], dtype) - pixels
  pixels = _turned(pixels, tiff.orientation)
  decoded = _with_channels(pixels, tiff.alpha, channels)
  return decoded._replace(missing=missing)


def _decode_tiff_by_pillow(
  file: BinaryIO,
  name: str,
  channels: int,
  max_pixels: int,
  tiff: TiffImage,
  page: int,
) -> Decoded:
  with opened_image(file, name, max_pixels) as image:
    if page:
      image.seek(page)
      check_size(image.width, image.height, max_pixels=max_pixels)
    decoded = _decode_by_pillow(image, channels)
    if tiff.nodata is None or image.mode not in _COLORS:
      return decoded
    stored = np.asarray(image).reshape(image.height, image.width, -1)
    colors = stored[..., : _COLORS[image.mode]]
    return decoded._replace(missing=is_missing(colors, tiff.nodata))


def _stored_as(dtype: str) -> str:
  return dtype if dtype in (*FULL, 'int16') else 'float32'


def _is_exact_in_pillow(tiff: TiffImage, channels: int) -> bool:
  """Whether Pillow gives the pixels as they are; it has all compressions."""
  if tiff.dtype != 'uint8':
    return (
      tiff.samples == 1
      and tiff.dtype in ('uint16', 'float32')
      and tiff.photometric == BLACK_IS_ZERO
      and (tiff.nodata is None or math.isnan(tiff.nodata))
    )
  if channels not in _MODES:
    return False
  if tiff.photometric == RGB:
    return tiff.samples - bool(tiff.alpha) == 3
  if tiff.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO):
    return tiff.samples == 1
  return True  # palettes, CMYK and so on, which it converts


def _is_deep_png(file: BinaryIO) -> bool:
  """Whether it is a PNG file of 16 bits; leaves the file at 0."""
  file.seek(0)
  start = file.read(26)
  file.seek(0)
  return start.startswith(_PNG_START) and start[24:25] == b'\x10'


def _png_color(file: BinaryIO) -> int:
  """The color type of a PNG file; leaves the file at 0."""
  file.seek(25)
  color = file.read(1)
  file.seek(0)
  return int.from_bytes(color)


def _decode_deep_png(
  file: BinaryIO, name: str, channels: int, max_pixels: int
) -> Decoded:
  has_alpha = _png_color(file) >= _PNG_GRAY_ALPHA
  with opened_image(file, name, max_pixels) as image:
    orientation = orientation_of(image)
  if not has_imagecodecs():
    raise needs_imagecodecs(f'{name} (colors of 16 bits)')
  import imagecodecs

  file.seek(0)
  pixels = imagecodecs.png_decode(_bare_png(file.read()))
  width, height = image.size
  if pixels.dtype != np.uint16 or pixels.shape[:2] != (height, width):
    raise ValueError('its header contradicts its pixels')
  alpha = UNASSOCIATED_ALPHA if has_alpha else 0
  return _with_channels(_turned(pixels, orientation), alpha, channels)


def _bare_png(data: bytes) -> bytes:
  """The chunks of a PNG file that its pixels are made of."""
  chunks, at = [_PNG_START], len(_PNG_START)
  while at + 12 <= len(data):
    (size,) = struct.unpack_from('>I', data, at)
    if data[at + 4 : at + 8] in _PNG_CHUNKS:
      chunks.append(data[at : at + 12 + size])
    at += 12 + size
  return b''.join(chunks)


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
  turn = _ARRAY_TURNS.get(orientation)
  return np.ascontiguousarray(turn(pixels)) if turn else pixels


def _opaque(decoded: Decoded) -> np.ndarray:
  """The pixels, with alpha laid onto white where their type has a white."""
  pixels, alpha = decoded.pixels, decoded.alpha
  full = FULL.get(str(pixels.dtype))
  if alpha is None or full is None:
    return pixels
  share = alpha[..., None] / np.float32(full)
  return np.rint(pixels * share + full * (1 - share)).astype(pixels.dtype)


def with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
  """Converts [h, w, C] without alpha to other channels.

  Raises:
    ValueError: the channels don't make those asked for.
  """
  return _with_channels(pixels, 0, channels).pixels


def _with_channels(
  pixels: np.ndarray, alpha_kind: int, channels: int
) -> Decoded:
  """Converts [h, w, samples] to the channels asked for.

  Raises:
    ValueError: the samples don't make these channels.
  """
  alpha = None
  num_samples = pixels.shape[-1]
  if num_samples == channels and (not alpha_kind or channels not in _MODES):
    return Decoded(pixels, None)
  if alpha_kind:
    pixels, alpha = pixels[..., :-1], pixels[..., -1]
    if alpha_kind == ASSOCIATED_ALPHA:
      pixels = _unmultiplied(pixels, alpha)
  num_colors = pixels.shape[-1]
  colors = {2: 1, 4: 3}.get(channels, channels)
  if num_colors == channels != colors:  # as many, and alpha besides
    return Decoded(pixels, alpha)
  if (num_colors, colors) == (1, 3):
    pixels = pixels.repeat(3, axis=-1)
  elif (num_colors, colors) == (3, 1):
    gray = pixels.astype(np.float32) @ np.array(_LUMA, np.float32)
    if pixels.dtype.kind != 'f':
      gray = np.rint(gray)
    pixels = gray[..., None].astype(pixels.dtype)
  elif num_colors != colors:
    raise _wrong_channels(num_colors, channels)
  if colors == channels:
    return Decoded(np.ascontiguousarray(pixels), alpha)
  if alpha is None:
    full = FULL.get(str(pixels.dtype), 1)
    alpha = np.full(pixels.shape[:2], full, pixels.dtype)
  return Decoded(np.concatenate([pixels, alpha[..., None]], axis=-1), None)


def _unmultiplied(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
  full = FULL.get(str(pixels.dtype), 1)
  share = np.where(alpha > 0, alpha, full)[..., None] / full
  straight = pixels / share
  if str(pixels.dtype) in FULL:
    straight = np.rint(np.clip(straight, 0, full))
  return straight.astype(pixels.dtype)


def _wrong_channels(num_channels: int, channels: int) -> ValueError:
  plural = 's' if num_channels != 1 else ''
  return ValueError(
    f'it has {num_channels} channel{plural}, not the {channels} of '
    'config.data.channels_a or channels_b'
  )
