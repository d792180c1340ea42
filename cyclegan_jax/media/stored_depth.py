"""Images of any depth and number of channels, in the type they are stored in.

Pillow decodes what it can hold: 8 bits, and grey of 16 bits or floats. TIFF
files of more take tifffile, colours of 16 bits in PNG files imagecodecs: the
extra `depth`. Pillow would cut such colours to 8 bits without a word.
"""

import struct
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from cyclegan_jax.media.decoding import (
  MODES,
  TURNS,
  decoded_shape,
  explained,
  opened_image,
  orientation_of,
)
from cyclegan_jax.media.header_limits import check_header
from cyclegan_jax.media.tiff_reader import (
  ASSOCIATED,
  WHITE_IS_ZERO,
  Layout,
  check_installed,
  is_tiff,
  read_layout,
  read_tiff,
)
from cyclegan_jax.media.value_range import (
  FULL,
  Values,
  rescaled,
)

_PNG_START = b'\x89PNG\r\n\x1a\n'
# What the pixels are made of; profiles and texts are nobody's business here.
_PNG_CHUNKS = (b'IHDR', b'IDAT', b'IEND')
_GREY = (0.299, 0.587, 0.114)  # of red, green and blue, as Pillow has it
# Turns as they are done to arrays, by EXIF orientation.
_ARRAY_TURNS = {
  2: lambda x: x[:, ::-1],
  3: lambda x: x[::-1, ::-1],
  4: lambda x: x[::-1],
  5: lambda x: x.swapaxes(0, 1),
  6: lambda x: x.swapaxes(0, 1)[:, ::-1],
  7: lambda x: x.swapaxes(0, 1)[::-1, ::-1],
  8: lambda x: x.swapaxes(0, 1)[::-1],
}


class Decoded(NamedTuple):
  """An image, upright by its EXIF orientation.

  Attributes:
    pixels: uint8, uint16 or float32 [h, w, C].
    alpha: [h, w] of the same type, 1 or the largest integer where opaque;
      None where the image has none, or it is among the channels.
  """

  pixels: np.ndarray
  alpha: np.ndarray | None


def decode_stored(
  file: BinaryIO, name: str, *, channels: int, max_pixels: int
) -> Decoded:
  """Decodes an image in the type that it is stored in.

  Types of numbers other than uint8 and uint16 become float32. Of several
  pages the first is taken, unless they are as many as the channels, of one
  each.

  Args:
    file: open for reading, seekable; it is left open.
    name: path or id, for the message.
    channels: of the result: grey, grey and alpha, RGB, RGBA, or a number that
      the file has.
    max_pixels: larger images are not decoded.

  Raises:
    ImageError: it is of another format, damaged, too large, or of channels
      that don't become those asked for.
    UserError: it takes a package that is not installed.
  """
  is_inverted = False
  with explained(file, name):
    check_header(file, max_pixels=max_pixels, channels=channels)
    if is_tiff(file):
      layout = _known_layout(file, max_pixels)
      if _is_beyond_pillow(layout, channels):
        return _decode_tiff(file, name, layout, channels)
      is_inverted = layout.photometric == WHITE_IS_ZERO
    elif _is_deep_png(file) and _png_colour(file) != 0:
      return _decode_png(file, name, channels, max_pixels)
  with opened_image(file, name, max_pixels) as image:
    orientation = 1 if image.format == 'TIFF' else orientation_of(image)
    if image.mode in ('I', 'F') or image.mode.startswith('I;16'):
      # Older versions of Pillow give 16-bit PNG files in 32 bits.
      dtype = 'float32' if image.mode == 'F' else 'uint16'
      pixels = np.asarray(image).astype(dtype)[..., None]
      if is_inverted and dtype in FULL:
        pixels = np.array(FULL[dtype], dtype) - pixels
      return _with_channels(_turned(pixels, orientation), 0, channels)
    if channels not in MODES:
      raise _wrong_channels(len(image.getbands()), channels)
    if orientation in TURNS:
      image = image.transpose(TURNS[orientation])
    return _split(image, channels)


def stored_dtype(file: BinaryIO, name: str, *, max_pixels: int) -> str:
  """The type that `decode_stored` gives, by the header.

  Raises:
    ImageError: the header can't be read or claims too much.
  """
  with explained(file, name):
    if is_tiff(file):
      dtype = _known_layout(file, max_pixels).dtype
      return dtype if dtype in FULL else 'float32'
    return 'uint16' if _is_deep_png(file) else 'uint8'


def stored_shape(
  file: BinaryIO, name: str, *, max_pixels: int
) -> tuple[int, int]:
  """The (height, width) that `decode_stored` gives, by the header.

  Raises:
    ImageError: the header can't be read or claims too much.
  """
  with explained(file, name):
    if is_tiff(file):
      layout = read_layout(file, max_pixels=max_pixels)
      if layout.dtype != 'uint8' or layout.samples > max(MODES):
        shape = layout.height, layout.width
        return shape if layout.orientation < 5 else shape[::-1]
  return decoded_shape(file, name, max_pixels=max_pixels)


def decode_opaque(
  file: BinaryIO, name: str, *, channels: int, max_pixels: int
) -> np.ndarray:
  """As `decode_stored`, with alpha that isn't asked for laid onto white.

  Floats have no white, so their alpha is left out.
  """
  pixels, alpha = decode_stored(
    file, name, channels=channels, max_pixels=max_pixels
  )
  full = FULL.get(str(pixels.dtype))
  if alpha is None or full is None:
    return pixels
  share = alpha[..., None] / np.float32(full)
  return np.rint(pixels * share + full * (1 - share)).astype(pixels.dtype)


def to_bytes(pixels: np.ndarray) -> np.ndarray:
  """Pixels of a domain of 8 bits.

  Raises:
    ValueError: they are floats.
  """
  Values('uint8', 0, 255).of(str(pixels.dtype))
  return rescaled(pixels, 'uint8')


def _known_layout(file: BinaryIO, max_pixels: int) -> Layout:
  layout = read_layout(file, max_pixels=max_pixels)
  if not layout.dtype:
    raise ValueError(
      'its values are neither whole numbers of 8, 16 or 32 bits nor floats'
    )
  return layout


def _num_pages(layout: Layout, channels: int) -> int:
  """How many pages are channels; in 8 bits they are that beyond four only."""
  if layout.dtype == 'uint8' and channels in MODES:
    return 1
  return channels if len(layout.pages) == channels else 1


def _is_beyond_pillow(layout: Layout, channels: int) -> bool:
  if layout.dtype == 'uint8':
    return channels not in MODES
  is_grey = layout.samples == 1 and layout.dtype in ('uint16', 'float32')
  return not is_grey or _num_pages(layout, channels) > 1


def _decode_tiff(
  file: BinaryIO, name: str, layout: Layout, channels: int
) -> Decoded:
  num_pages = _num_pages(layout, channels)
  # Before it is decoded, so that nothing larger than was asked for is.
  found = layout.samples * num_pages
  fitting = (channels, channels + bool(layout.alpha))
  if max(found, channels) > 4 and found not in fitting:
    raise _wrong_channels(found, channels)
  pixels = read_tiff(file, name, layout, num_pages=num_pages)
  if layout.dtype not in FULL:
    pixels = pixels.astype(np.float32)
  elif layout.photometric == WHITE_IS_ZERO and found == 1:
    pixels = np.array(FULL[layout.dtype], layout.dtype) - pixels
  pixels = _turned(pixels, layout.orientation)
  return _with_channels(pixels, layout.alpha, channels)


def _is_deep_png(file: BinaryIO) -> bool:
  """Whether it is a PNG file of 16 bits; leaves the file at 0."""
  file.seek(0)
  start = file.read(26)
  file.seek(0)
  return start.startswith(_PNG_START) and start[24:25] == b'\x10'


def _png_colour(file: BinaryIO) -> int:
  """0 grey, 2 RGB, 4 grey and alpha, 6 RGBA; leaves the file at 0."""
  file.seek(25)
  colour = file.read(1)
  file.seek(0)
  return int.from_bytes(colour)


def _decode_png(
  file: BinaryIO, name: str, channels: int, max_pixels: int
) -> Decoded:
  has_alpha = _png_colour(file) >= 4
  with opened_image(file, name, max_pixels) as image:
    orientation = orientation_of(image)
  check_installed(name)
  import imagecodecs

  file.seek(0)
  pixels = imagecodecs.png_decode(_bare_png(file.read()))
  width, height = image.size
  if pixels.dtype != np.uint16 or pixels.shape[:2] != (height, width):
    raise ValueError('its header contradicts its pixels')
  pixels = _turned(pixels, orientation)
  return _with_channels(pixels, 2 * has_alpha, channels)


def _bare_png(data: bytes) -> bytes:
  """A PNG file of nothing but what its pixels are made of."""
  kept, at = [_PNG_START], len(_PNG_START)
  while at + 12 <= len(data):
    (size,) = struct.unpack_from('>I', data, at)
    if data[at + 4 : at + 8] in _PNG_CHUNKS:
      kept.append(data[at : at + 12 + size])
    at += 12 + size
  return b''.join(kept)


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
  turn = _ARRAY_TURNS.get(orientation)
  return np.ascontiguousarray(turn(pixels)) if turn else pixels


def _split(image: Image.Image, channels: int) -> Decoded:
  """An image of 8 bits, by Pillow."""

  def array(image: Image.Image, count: int) -> np.ndarray:
    pixels = np.array(image.convert(MODES[count]))
    return pixels.reshape(image.height, image.width, count)

  if not image.has_transparency_data:
    return Decoded(array(image, channels), None)
  # By way of RGBA, in which Pillow turns colour keys and palettes to alpha.
  image = image.convert('RGBA')
  if channels in (2, 4):
    return Decoded(array(image, channels), None)
  alpha = np.array(image.getchannel('A'))
  return Decoded(array(image.convert('RGB'), channels), alpha)


def _with_channels(
  pixels: np.ndarray, alpha_kind: int, channels: int
) -> Decoded:
  """[h, w, samples] with the channels asked for.

  Raises:
    ValueError: these are not to be had of those.
  """
  alpha = None
  num_samples = pixels.shape[-1]
  if num_samples == channels and (not alpha_kind or channels not in MODES):
    return Decoded(pixels, None)
  if alpha_kind:
    pixels, alpha = pixels[..., :-1], pixels[..., -1]
    if alpha_kind == ASSOCIATED:
      pixels = _unmultiplied(pixels, alpha)
  colours = {2: 1, 4: 3}.get(channels, channels)
  found = pixels.shape[-1]
  if found == channels != colours:  # as many, and alpha besides
    return Decoded(pixels, alpha)
  if (found, colours) == (1, 3):
    pixels = pixels.repeat(3, axis=-1)
  elif (found, colours) == (3, 1):
    grey = pixels.astype(np.float32) @ np.array(_GREY, np.float32)
    is_whole = str(pixels.dtype) in FULL
    grey = np.rint(grey) if is_whole else grey
    pixels = grey[..., None].astype(pixels.dtype)
  elif found != colours:
    raise _wrong_channels(found, channels)
  if colours == channels:
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


def _wrong_channels(found: int, channels: int) -> ValueError:
  plural = 's' if found != 1 else ''
  return ValueError(f'it has {found} channel{plural}, not {channels}')
