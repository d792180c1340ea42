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
from cyclegan_jax.media.animation_writers import (
  WRITERS,
  GifWriter,
  Head,
)
from cyclegan_jax.media.decoding import (
  TURNS,
  ImageError,
  orientation_of,
)
from cyclegan_jax.media.frames import (
  Convert,
  OnFrame,
  ignore_frame,
)
from cyclegan_jax.media.header_limits import (
  check_header,
  check_size,
)
from cyclegan_jax.media.listing import open_file
from cyclegan_jax.media.metadata import (
  Metadata,
  read_metadata,
)
from cyclegan_jax.media.value_range import rescaled
from cyclegan_jax.storage.atomic import replacing

_FORMATS = ('GIF', 'PNG', 'WEBP')
_GIF_START, _GIF_END = b'GIF8', b';'
_PNG_START = b'\x89PNG\r\n\x1a\n'


class _Frame(NamedTuple):
  """A frame as it is shown.

  Attributes:
    pixels: uint8 [h, w, C], upright.
    alpha: [h, w]; None where all of the animation is opaque.
    duration: in milliseconds.
    is_poster: see `animation_files.Writer`.
  """

  pixels: np.ndarray
  alpha: np.ndarray | None
  duration: float
  is_poster: bool


def convert_animation(
  source: pathlib.Path,
  target: pathlib.Path,
  convert: Convert,
  *,
  channels: int,
  batch_size: int = 1,
  max_pixels: int,
  on_frame: OnFrame = ignore_frame,
) -> None:
  """Converts every frame; durations, repeats and what is transparent stay.

  A GIF file knows of its parts only whether they are clear. What is clear is
  white to `convert`. Profile and EXIF data go where there is room for them.

  Args:
    source: a GIF, PNG or WebP file, animated or not.
    target: .gif, .png or .webp; is written whole or not at all.
    convert: of frames, all of one size. What it raises is raised.
    channels: of what it takes: 1 or 3.
    batch_size: frames at a time; no more are held in memory.
    max_pixels: of a frame.
    on_frame: is told how many frames are done, of how many if that is known.

  Raises:
    ImageError: the source can't be read.
    DataError: the target's format can't hold the frames.
    OSError: the disk is full, and so on.
  """
  make_writer = WRITERS[target.suffix.lower()]
  done = 0
  with contextlib.ExitStack() as stack:
    file = stack.enter_context(open_file(str(source)))
    animation = stack.enter_context(_opened(file, source, max_pixels))
    frames = animation.frames(
      channels, max_pixels, is_clear_or_not=make_writer is GifWriter
    )
    temporary = stack.enter_context(replacing(target))
    output = stack.enter_context(temporary.open('wb'))
    writer = make_writer(output, animation.head)
    while batch := list(itertools.islice(frames, batch_size)):
      converted = convert(np.stack([frame.pixels for frame in batch]))
      for frame, pixels in zip(batch, converted, strict=True):
        with _explained_writing(target):
          writer.add(
            _with_alpha(pixels, frame.alpha),
            frame.duration,
            is_poster=frame.is_poster,
          )
        done += 1
        on_frame(done, animation.num_frames)
    with _explained_writing(target):
      writer.finish()


@contextlib.contextmanager
def _explained_writing(target: pathlib.Path) -> Iterator[None]:
  try:
    yield
  except ValueError as error:
    raise DataError(
      f"{printable(str(target))} can't be written: {one_line(error)}"
    ) from error


def _with_alpha(pixels: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
  if alpha is None:
    return pixels
  height, width = pixels.shape[:2]
  if alpha.shape != (height, width):
    alpha = np.asarray(Image.fromarray(alpha).resize((width, height)))
  return np.concatenate([pixels, alpha[..., None]], axis=-1)


@contextlib.contextmanager
def _opened(
  file: BinaryIO, source: pathlib.Path, max_pixels: int
) -> Iterator['_Animation']:
  """The animation; an error inside stays what it is."""
  start = file.read(12)
  is_gif = start.startswith(_GIF_START)
  is_webp = start[:4] == b'RIFF' and start[8:] == b'WEBP'
  if not (is_gif or is_webp or start.startswith(_PNG_START)):
    what = 'not a GIF, PNG or WebP image' if start else 'the file is empty'
    raise ImageError(str(source), what)
  try:
    metadata = Metadata(None, None, 'GIF')
    if not is_gif:
      check_header(file, max_pixels=max_pixels)
      metadata = read_metadata(file, str(source), max_pixels=max_pixels)
    file.seek(0)
    image = Image.open(file, formats=_FORMATS)
    check_size(image.width, image.height, max_pixels=max_pixels)
  except (UserError, MemoryError):
    raise
  except Exception as error:  # damaged bytes end in nearly any of them
    raise ImageError(str(source), _reason(error)) from error
  with image:
    yield _Animation(file, image, source, metadata)


def _reason(error: Exception) -> str:
  if isinstance(error, Image.UnidentifiedImageError):
    return 'it is damaged, or has no frames'
  # What Pillow's readers end in where there is nothing more to read.
  is_at_end = isinstance(error, IndexError | EOFError | struct.error)
  if is_at_end or 'truncated' in str(error).lower():
    return 'the file is truncated'
  return one_line(error)


class _Animation:
  """An open file.

  Attributes:
    head: what is told once.
    num_frames: None if that is not known before all are read.
  """

  def __init__(
    self,
    file: BinaryIO,
    image: Image.Image,
    source: pathlib.Path,
    metadata: Metadata,
  ) -> None:
    self._file = file
    self._image = image
    self._source = source
    self._is_gif = image.format == 'GIF'
    self.num_frames: int | None = None
    plays = image.info.get('loop', 0)
    if self._is_gif:
      # It counts repeats, and plays once where nothing is said of them.
      plays = 1 if 'loop' not in image.info else plays + 1 if plays else 0
    else:
      self.num_frames = getattr(image, 'n_frames', 1)
    self._turn = None if self._is_gif else TURNS.get(orientation_of(image))
    self.head = Head(plays, metadata.exif, metadata.icc)

  def frames(
    self, channels: int, max_pixels: int, *, is_clear_or_not: bool
  ) -> Iterator[_Frame]:
    """Yields frame by frame.

    Args:
      channels: 1 or 3.
      max_pixels: of a frame.
      is_clear_or_not: whether nothing may be half transparent.

    Raises:
      ImageError: it is damaged. Nothing of what the caller does in between.
    """
    width, height = self._image.size
    # Of a GIF file, any frame may be the first that is not opaque.
    has_alpha = self._is_gif or self._image.has_transparency_data
    number = 0
    try:
      while self._sought(number):
        check_size(*self._image.size, max_pixels=max_pixels)
        # Frames that stand out of the first make Pillow's image larger.
        rgba = _to_rgba(self._image).crop((0, 0, width, height))
        if self._turn is not None:
          rgba = rgba.transpose(self._turn)
        alpha = rgba.getchannel('A')
        shown = alpha if is_clear_or_not else alpha.point(_WHERE_NOT_CLEAR)
        white = Image.new('RGB', rgba.size, 'white')
        white.paste(rgba, mask=shown)
        pixels = np.asarray(white.convert('L' if channels == 1 else 'RGB'))
        info: dict[Any, Any] = self._image.info
        yield _Frame(
          pixels.reshape(rgba.height, rgba.width, channels),
          np.asarray(alpha) if has_alpha else None,
          info.get('duration', 0),
          number == 0 and bool(info.get('default_image')),
        )
        number += 1
    except (UserError, MemoryError):
      raise
    except Exception as error:
      reason = f'frame {number + 1}: {_reason(error)}'
      raise ImageError(str(self._source), reason) from error

  def _sought(self, number: int) -> bool:
    """Goes to a frame; False behind the last one.

    Raises:
      EOFError: the file ends where there should be a frame.
    """
    if self.num_frames is not None:
      if number < self.num_frames:
        self._image.seek(number)
      return number < self.num_frames
    try:
      self._image.seek(number)
    except EOFError:
      self._file.seek(-1, 1)
      if self._file.read(1) != _GIF_END:
        raise
      return False
    return True


# Half transparent colours are as they are in the file, not on white.
_WHERE_NOT_CLEAR = [0] + [255] * 255


def _to_rgba(image: Image.Image) -> Image.Image:
  if image.mode.startswith('I'):  # grey of 16 bits, which Pillow would clip
    grey = np.asarray(image).astype(np.uint16)
    image = Image.fromarray(rescaled(grey, 'uint8'))
  return image.convert('RGBA')
