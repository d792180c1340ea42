"""Animated GIF, PNG and WebP files: frames in, frames out, timing kept."""

import contextlib
import itertools
import pathlib
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from cyclegan_jax.errors import (
  DataError,
  UserError,
  one_line,
  printable,
)
from cyclegan_jax.media.decoding import (
  TURNS,
  ImageError,
  orientation_of,
)
from cyclegan_jax.media.frames import (
  Convert,
  OnFrame,
  ignore_progress,
)
from cyclegan_jax.media.header_limits import (
  check_header,
  check_size,
  without_bad_metadata,
)
from cyclegan_jax.media.listing import open_file
from cyclegan_jax.media.metadata import (
  Metadata,
  read_metadata,
)
from cyclegan_jax.media.value_range import rescaled
from cyclegan_jax.storage.atomic import replacing

# Of all frames together. Pillow needs all of them to write a file, at up to
# 8 bytes a pixel: 4 GB.
MAX_ANIMATION_PIXELS = 500_000_000

_FORMATS = {'.gif': 'GIF', '.png': 'PNG', '.webp': 'WEBP'}
EXTENSIONS = tuple(_FORMATS)
ANIMATED = tuple(_FORMATS.values())  # in Pillow's names

_COLOR_SPACES = {1: b'GRAY', 2: b'GRAY', 3: b'RGB ', 4: b'RGB '}
_WEBP_HAS_ALPHA = 0x10  # a bit of byte 20
_GIF_END = b';'
_CLEAR_INDEX = 255  # of a GIF file's palette
_CLEAR_TO_BACKGROUND = 2  # what a GIF file's viewer does before the next frame


class _Animation(NamedTuple):
  """An animated file that is open for reading.

  Attributes:
    file: its bytes.
    image: at the first frame.
    path: of the file, for messages.
    num_frames: with the poster.
    num_plays: how often it is shown; 0 for ever.
    has_poster: whether the first frame is not part of the animation, but for
      viewers that show none. Only PNG files have it.
    metadata: EXIF data and color profile.
  """

  file: BinaryIO
  image: Image.Image
  path: pathlib.Path
  num_frames: int
  num_plays: int
  has_poster: bool
  metadata: Metadata


class _Frame(NamedTuple):
  """A frame as it is shown.

  Attributes:
    pixels: uint8 [h, w, C], upright.
    alpha: uint8 [h, w]; None where the animation is opaque.
    duration: in milliseconds.
  """

  pixels: np.ndarray
  alpha: np.ndarray | None
  duration: float


def convert_animation(
  source: pathlib.Path,
  target: pathlib.Path,
  convert: Convert,
  *,
  channels: int,
  batch_size: int = 1,
  max_pixels: int,
  on_frame: OnFrame = ignore_progress,
) -> None:
  """Converts every frame; durations, repeats and transparency stay.

  All converted frames are held in memory until the file is written: memory
  grows with their number, up to MAX_ANIMATION_PIXELS. Frames that equal the
  one before are merged with it. Color profile and EXIF data are copied where
  the target's format has them.

  Args:
    source: a GIF, PNG or WebP file, animated or not.
    target: .gif, .png or .webp; is written whole or not at all. GIF files
      hold no half transparent pixels: these are blended with white, and clear
      below an alpha of 128.
    convert: of frames, which all have one size; clear pixels are white. Its
      exceptions pass through.
    channels: of the frames that `convert` takes: 1 or 3.
    batch_size: number of frames in a call of `convert`.
    max_pixels: of a frame.
    on_frame: is called after each frame.

  Raises:
    ImageError: the source is damaged, or has too many pixels.
    DataError: the target's format cannot hold the frames.
    OSError: the target cannot be written, for example on a full disk.
  """
  file_format = _FORMATS[target.suffix.lower()]
  images: list[Image.Image] = []
  durations: list[float] = []
  with (
    open_file(str(source)) as file,
    _opened(file, source, max_pixels) as animation,
  ):
    frames = _frames(
      animation, channels, max_pixels, blends=file_format == 'GIF'
    )
    while batch := list(itertools.islice(frames, batch_size)):
      converted = convert(np.stack([frame.pixels for frame in batch]))
      _check_total(source, animation.num_frames, *converted.shape[2:0:-1])
      for frame, pixels in zip(batch, converted, strict=True):
        pixels = _with_alpha(pixels, frame.alpha)
        if file_format == 'GIF':
          is_first = len(images) <= animation.has_poster
          images.append(_quantized(pixels, is_first=is_first))
        else:
          images.append(_to_image(pixels))
        durations.append(frame.duration)
        on_frame(len(images), animation.num_frames)
  if animation.has_poster:
    del durations[0]
    if file_format != 'PNG':
      del images[0]
  with _explained(target), replacing(target) as temporary:
    images[0].save(
      temporary,
      file_format,
      save_all=True,
      append_images=images[1:],
      **_metadata_options(animation.metadata, images[0]),
      **_format_options(animation, durations, file_format),
    )
    if file_format == 'WEBP' and images[0].has_transparency_data:
      _flag_alpha(temporary)


def _check_total(
  path: pathlib.Path, num_frames: int, width: int, height: int
) -> None:
  """Raises ImageError where all frames together have too many pixels."""
  total = num_frames * width * height
  if total > MAX_ANIMATION_PIXELS:
    raise ImageError(
      str(path),
      f'{num_frames:,} frames of {width} x {height} are {total:,} pixels, '
      f'more than the {MAX_ANIMATION_PIXELS:,} of an animation: make it a '
      'video, such as .mp4 or .mkv, which has no such limit, or split it',
    )


def _with_alpha(pixels: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
  if alpha is None:
    return pixels
  height, width = pixels.shape[:2]
  if alpha.shape != (height, width):
    alpha = np.asarray(Image.fromarray(alpha).resize((width, height)))
  return np.concatenate([pixels, alpha[..., None]], axis=-1)


def _to_image(pixels: np.ndarray) -> Image.Image:
  if pixels.shape[-1] == 1:
    pixels = pixels[..., 0]
  return Image.fromarray(np.ascontiguousarray(pixels))


def _quantized(pixels: np.ndarray, *, is_first: bool) -> Image.Image:
  """A GIF file's frame: 255 colors, and one that stands for clear pixels.

  A frame in which nothing is clear has that one, too: after a frame without
  it, some viewers show the background color where the next is clear.
  """
  image = _to_image(pixels).convert('RGBA')
  is_clear = np.asarray(image.getchannel('A')) < 128
  image = image.convert('RGB').quantize(_CLEAR_INDEX)
  colors = np.reshape(image.getpalette() or [], (-1, 3))
  palette = np.zeros((_CLEAR_INDEX + 1, 3), np.uint8)
  # Pillow crops a frame to what differs from the first frame's clear color.
  # That one is black, and no other color is: so nothing is cropped.
  palette[: len(colors)] = np.where(colors.any(-1, keepdims=True), colors, 1)
  palette[_CLEAR_INDEX] = 0 if is_first else 1
  indices = np.array(image)
  indices[is_clear] = _CLEAR_INDEX
  image = Image.fromarray(indices)
  image.putpalette(palette.tobytes())
  image.info['transparency'] = _CLEAR_INDEX
  return image


def _metadata_options(
  metadata: Metadata, image: Image.Image
) -> dict[str, bytes]:
  """EXIF data, and the color profile if it fits the image."""
  options = {}
  if metadata.exif:  # WebP files hold it without the prefix
    options['exif'] = metadata.exif.removeprefix(b'Exif\0\0')
  color_space = _COLOR_SPACES[len(image.getbands())]
  if metadata.icc and metadata.icc[16:20] == color_space:
    options['icc_profile'] = metadata.icc
  return options


def _format_options(
  animation: _Animation, durations: list[float], file_format: str
) -> dict[str, Any]:
  if file_format == 'GIF':
    options: dict[str, Any] = {
      'duration': [10 * round(each / 10) for each in durations],
      'disposal': _CLEAR_TO_BACKGROUND,
      'optimize': False,
    }
    if animation.num_plays != 1:  # repeats are counted, where 0 is for ever
      options['loop'] = max(animation.num_plays - 1, 0)
    return options
  options = {'duration': durations, 'loop': animation.num_plays}
  if file_format == 'PNG':
    return {**options, 'default_image': animation.has_poster}
  return {**options, 'quality': 95, 'method': 4}


def _flag_alpha(path: pathlib.Path) -> None:
  """Marks a WebP file as one with alpha.

  The encoder crops frames; where the rest of each is opaque, it leaves the
  mark out, and viewers show black around it.
  """
  with path.open('r+b') as file:
    start = file.read(21)
    if start[12:16] == b'VP8X':
      file.seek(20)
      file.write(bytes([start[20] | _WEBP_HAS_ALPHA]))


@contextlib.contextmanager
def _explained(target: pathlib.Path) -> Iterator[None]:
  """Raises DataError for what Pillow raises where a format has no room."""
  try:
    yield
  except Exception as error:  # each format has its own
    if isinstance(error, MemoryError) or getattr(error, 'errno', None):
      raise
    raise DataError(
      f'{printable(str(target))} cannot be written: the frames do not fit '
      f'into a file of its format ({one_line(error)})'
    ) from error


@contextlib.contextmanager
def _opened(
  file: BinaryIO, path: pathlib.Path, max_pixels: int
) -> Iterator[_Animation]:
  """Opens an animation; exceptions of the body pass through."""
  start = file.read(12)
  is_gif = start.startswith(b'GIF8')
  is_webp = start[:4] == b'RIFF' and start[8:] == b'WEBP'
  if not (is_gif or is_webp or start.startswith(b'\x89PNG\r\n\x1a\n')):
    reason = 'not a GIF, PNG or WebP image' if start else 'the file is empty'
    raise ImageError(str(path), reason)
  try:
    metadata = Metadata(None, None, 'GIF')
    if not is_gif:
      check_header(file, max_pixels=max_pixels)
      metadata = read_metadata(file, str(path), max_pixels=max_pixels)
      file, _ = without_bad_metadata(file)
    formats = list(_FORMATS.values())
    file.seek(0)
    with Image.open(file, formats=formats) as image:
      check_size(image.width, image.height, max_pixels=max_pixels)
      num_frames = getattr(image, 'n_frames', 1)
      _check_total(path, num_frames, image.width, image.height)
    # Opened again, as `_frames` needs one that has not counted its frames.
    file.seek(0)
    image = Image.open(file, formats=formats)
  except (UserError, MemoryError):
    raise
  except Exception as error:  # damaged bytes end in nearly any of them
    raise ImageError(str(path), _reason(error)) from error
  with image:
    num_plays = image.info.get('loop', 0)
    if is_gif and 'loop' not in image.info:
      num_plays = 1
    elif is_gif and num_plays:  # repeats are counted
      num_plays += 1
    has_poster = bool(image.info.get('default_image'))
    yield _Animation(
      file, image, path, num_frames, num_plays, has_poster, metadata
    )


def _reason(error: Exception) -> str:
  if isinstance(error, Image.UnidentifiedImageError):
    return 'it is damaged, or has no frames'
  # Pillow's errors at the end of the file.
  is_at_end = isinstance(error, IndexError | EOFError | struct.error)
  if is_at_end or 'truncated' in str(error).lower():
    return 'the file is truncated'
  return one_line(error)


def _frames(
  animation: _Animation,
  channels: int,
  max_pixels: int,
  *,
  blends: bool,
) -> Iterator[_Frame]:
  """Yields frame by frame; exceptions of the caller pass through.

  Args:
    animation: at its first frame.
    channels: 1 or 3.
    max_pixels: of a frame.
    blends: whether to blend half transparent colors with white. Otherwise
      they are as in the file.

  Raises:
    ImageError: it is damaged.
  """
  image = animation.image
  width, height = image.size
  # In a GIF file, any frame may be the first that is not opaque.
  has_alpha = image.format == 'GIF' or image.has_transparency_data
  turn = None if image.format == 'GIF' else TURNS.get(orientation_of(image))
  number = 0
  try:
    while number < animation.num_frames:
      image.seek(number)
      check_size(*image.size, max_pixels=max_pixels)
      # Frames that stand out of the first make Pillow's image larger.
      rgba = _to_rgba(image).crop((0, 0, width, height))
      if turn is not None:
        rgba = rgba.transpose(turn)
      alpha = rgba.getchannel('A')
      opaque = Image.new('RGB', rgba.size, 'white')
      opaque.paste(
        rgba, mask=alpha if blends else alpha.point(_WHERE_NOT_CLEAR)
      )
      pixels = np.asarray(opaque.convert('L' if channels == 1 else 'RGB'))
      yield _Frame(
        pixels.reshape(rgba.height, rgba.width, channels),
        np.asarray(alpha) if has_alpha else None,
        image.info.get('duration', 0),
      )
      number += 1
    if image.format == 'GIF':
      _check_end(animation)
  except (UserError, MemoryError):
    raise
  except Exception as error:
    reason = f'frame {number + 1}: {_reason(error)}'
    raise ImageError(str(animation.path), reason) from error


_WHERE_NOT_CLEAR = [0] + [255] * 255


def _check_end(animation: _Animation) -> None:
  """Raises EOFError if a GIF file ends where there should be a frame."""
  try:
    animation.image.seek(animation.num_frames)
  except EOFError:
    animation.file.seek(-1, 1)
    if animation.file.read(1) != _GIF_END:
      raise


def _to_rgba(image: Image.Image) -> Image.Image:
  if image.mode.startswith('I'):  # 16-bit gray, which Pillow would clip
    gray = np.asarray(image).astype(np.uint16)
    image = Image.fromarray(rescaled(gray, 'uint8'))
  return image.convert('RGBA')
