"""Videos: frames in, frames out, sound, timing and colours kept."""

import contextlib
import importlib
import pathlib
from typing import Any

import numpy as np

from cyclegan_jax.errors import UserError
from cyclegan_jax.media.decoding import ImageError
from cyclegan_jax.media.frames import (
  Convert,
  OnFrame,
  ignore_frame,
)
from cyclegan_jax.media.video_reader import (
  Picture,
  VideoReader,
)
from cyclegan_jax.media.video_writer import opened_writer
from cyclegan_jax.storage.atomic import replacing

VIDEO_EXTENSIONS = (
  '.avi',
  '.m4v',
  '.mkv',
  '.mov',
  '.mp4',
  '.mpeg',
  '.mpg',
  '.webm',
)
_AV_VERSION = 18


def convert_video(
  source: pathlib.Path,
  target: pathlib.Path,
  convert: Convert,
  *,
  channels: int,
  batch_size: int = 1,
  max_pixels: int,
  on_frame: OnFrame = ignore_frame,
) -> None:
  """Converts every frame; sound is copied as it is, and so are subtitles.

  Subtitles that the target's container can't hold are left out. The colours'
  matrix, range, primaries and transfer stay those of the source. Frames are
  of 8 bits.

  Args:
    source: the file.
    target: is written whole or not at all; its ending, see `CODECS`, tells
      the container.
    convert: of frames, all of one size. What it raises is raised.
    channels: of what it takes: 1 or 3.
    batch_size: frames at a time.
    max_pixels: of a frame.
    on_frame: is told how many frames are done, of how many if that is known.

  Raises:
    UserError: PyAV is missing.
    ImageError: the source can't be read, or holds no pictures.
    DataError: the target can't hold what it has to.
    OSError: the disk is full, and so on.
  """
  av = _load_av()
  waiting: list[Picture] = []
  with contextlib.ExitStack() as stack:
    reader = VideoReader(av, source, channels, max_pixels)
    stack.callback(reader.close)
    temporary = stack.enter_context(replacing(target))
    writer = stack.enter_context(
      opened_writer(av, temporary, target, reader.video, reader.others)
    )

    def flush() -> None:
      if not waiting:
        return
      converted = convert(np.stack([picture.pixels for picture in waiting]))
      for picture, pixels in zip(waiting, converted, strict=True):
        writer.add(picture, pixels)
        on_frame(writer.num_frames, reader.num_frames)
      waiting.clear()

    for item in reader.items():
      if not isinstance(item, Picture):
        writer.copy(item)
        continue
      waiting.append(item)
      if len(waiting) == batch_size:
        flush()
    flush()
    if not writer.num_frames:
      raise ImageError(str(source), 'it holds no pictures')
    writer.finish()


def _load_av() -> Any:
  try:
    av = importlib.import_module('av')
  except ImportError as error:
    raise UserError(
      "videos need the package av: pip install 'cyclegan_jax[video]'"
    ) from error
  # Earlier ones turn colours by another matrix than they are told.
  if int(av.__version__.split('.')[0]) < _AV_VERSION:
    raise UserError(
      f'videos need av {_AV_VERSION} or later, and this is {av.__version__}: '
      "pip install --upgrade 'cyclegan_jax[video]'"
    )
  return av
