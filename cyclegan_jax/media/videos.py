"""Videos: frames in, frames out; sound, timing and color tags kept."""

import contextlib
import pathlib

import numpy as np

from cyclegan_jax.errors import UserError
from cyclegan_jax.media.decoding import ImageError
from cyclegan_jax.media.frames import (
  Convert,
  OnFrame,
  ignore_progress,
)
from cyclegan_jax.storage.atomic import replacing

_MIN_AV_VERSION = 18


def convert_video(
  source: pathlib.Path,
  target: pathlib.Path,
  convert: Convert,
  *,
  channels: int,
  batch_size: int = 1,
  max_pixels: int,
  on_frame: OnFrame = ignore_progress,
) -> None:
  """Converts every frame; copies sound and subtitles.

  Subtitles that the target's container cannot hold are left out. The color
  matrix, range, primaries and transfer stay those of the source. Frames are
  stored with 8 bits.

  Args:
    source: the file.
    target: is written whole or not at all, in the container that its
      extension names: one of `clips.CONTAINERS`.
    convert: of frames, which all have one size. Its exceptions pass through.
    channels: of the frames that `convert` takes: 1 or 3.
    batch_size: number of frames in a call of `convert`.
    max_pixels: of a frame.
    on_frame: is called after each frame.

  Raises:
    UserError: PyAV is missing or too old.
    ImageError: the source is damaged, too large, or has no frames.
    DataError: the target's container cannot hold the video or the sound.
    OSError: the target cannot be written, for example on a full disk.
  """
  _check_av()
  from cyclegan_jax.media.video_reader import VideoFrame, VideoReader
  from cyclegan_jax.media.video_writer import open_writer

  batch: list[VideoFrame] = []
  with contextlib.ExitStack() as stack:
    reader = VideoReader(source, channels, max_pixels)
    stack.callback(reader.close)
    temporary = stack.enter_context(replacing(target))
    writer = stack.enter_context(
      open_writer(temporary, target, reader.video, reader.copied)
    )

    def convert_batch() -> None:
      if not batch:
        return
      converted = convert(np.stack([frame.pixels for frame in batch]))
      for frame, pixels in zip(batch, converted, strict=True):
        writer.add(frame, pixels)
        on_frame(writer.num_frames, reader.num_frames)
      batch.clear()

    for item in reader.frames_and_packets():
      if isinstance(item, VideoFrame):
        batch.append(item)
        if len(batch) == batch_size:
          convert_batch()
      else:
        writer.copy(item)
    convert_batch()
    if not writer.num_frames:
      raise ImageError(str(source), 'it has no frames')
    writer.finish()


def _check_av() -> None:
  """Raises UserError where PyAV is missing or too old."""
  try:
    import av
  except ImportError as error:
    raise UserError(
      "videos need the package av: pip install 'cyclegan_jax[video]'"
    ) from error
  # Older versions convert colors by another matrix than the given one.
  if int(av.__version__.split('.')[0]) < _MIN_AV_VERSION:
    raise UserError(
      f'videos need av {_MIN_AV_VERSION} or later, and this is '
      f"{av.__version__}: pip install --upgrade 'cyclegan_jax[video]'"
    )
