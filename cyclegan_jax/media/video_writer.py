"""Writes videos: encodes frames, copies packets of sound and subtitles.

Needs the package av, which is why `videos` imports this module late.
"""

import contextlib
import errno
import fractions
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import av
import numpy as np

from cyclegan_jax.errors import (
  DataError,
  one_line,
  printable,
)
from cyclegan_jax.media.clips import CONTAINERS
from cyclegan_jax.media.video_reader import VideoFrame

# The numbers that FFmpeg's scaler has for matrices, by FFmpeg's other ones.
_SCALER_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}

_COPIED_TAGS = ('language', 'title')  # of sound and subtitles
_DISK_ERRORS = (
  *(errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC),
  *(errno.EPERM, errno.EROFS),
)


class VideoWriter:
  """A video file that is being written; see `open_writer`.

  Attributes:
    num_frames: number of frames so far.
  """

  def __init__(
    self,
    container: Any,
    target: pathlib.Path,
    source_video: Any,
    copied: Sequence[Any],
  ) -> None:
    self._container = container
    self._source = source_video
    self._stream = container.add_stream(
      CONTAINERS[target.suffix.lower()].codec,
      rate=source_video.average_rate or fractions.Fraction(25),
    )
    self._stream.codec_context.time_base = source_video.time_base
    self._stream.time_base = source_video.time_base
    self._stream.options = {'crf': '18'}
    self._copies: dict[int, Any] = {}  # streams, by indices in the source
    for stream in copied:
      self._add_copy(stream, target)
    # Packets cannot be written before the first frame sets the size.
    self._waiting_packets: list[Any] = []
    self.num_frames = 0

  def _add_copy(self, stream: Any, target: pathlib.Path) -> None:
    try:
      copy = self._container.add_stream_from_template(stream)
    except ValueError as error:
      if stream.type == 'subtitle':
        return
      raise _unfit(target, one_line(error)) from error
    for key in _COPIED_TAGS:
      if key in stream.metadata:
        copy.metadata[key] = stream.metadata[key]
    self._copies[stream.index] = copy

  def copy(self, packet: Any) -> None:
    """Copies a packet of one of the source's other streams."""
    copy = self._copies.get(packet.stream.index)
    if copy is None:
      return
    packet.stream = copy
    if self.num_frames:
      self._container.mux(packet)
    else:
      self._waiting_packets.append(packet)

  def add(self, frame: VideoFrame, pixels: np.ndarray) -> None:
    """Adds a frame.

    Args:
      frame: of the source, for its time and colors.
      pixels: uint8 [h, w, C], which replace the source's.
    """
    if pixels.shape[-1] == 1:
      pixels = pixels.repeat(3, axis=-1)
    if not self.num_frames:
      self._set_format(frame, *pixels.shape[:2])
    context = self._stream.codec_context
    rgb = av.VideoFrame.from_ndarray(
      np.ascontiguousarray(pixels), format='rgb24'
    )
    stored = rgb.reformat(
      format=context.pix_fmt,
      dst_colorspace=_SCALER_MATRICES.get(context.colorspace),
      dst_color_range=context.color_range,
    )
    stored.pts, stored.time_base = frame.pts, frame.time_base
    self._container.mux(self._stream.encode(stored))
    self.num_frames += 1
    for packet in self._waiting_packets:
      self._container.mux(packet)
    self._waiting_packets.clear()

  def _set_format(self, frame: VideoFrame, height: int, width: int) -> None:
    context = self._stream.codec_context
    context.height, context.width = height, width
    # Every player knows 4:2:0, which needs even sides.
    is_even = height % 2 == width % 2 == 0
    context.pix_fmt = 'yuv420p' if is_even else 'yuv444p'
    context.colorspace = frame.colors.matrix
    context.color_range = frame.colors.range
    context.color_primaries = frame.colors.primaries
    context.color_trc = frame.colors.transfer
    ratio = self._source.sample_aspect_ratio
    if ratio and (width, height) == (self._source.width, self._source.height):
      context.sample_aspect_ratio = ratio

  def finish(self) -> None:
    """Writes the frames that the encoder still holds."""
    self._container.mux(self._stream.encode(None))


@contextlib.contextmanager
def open_writer(
  path: pathlib.Path,
  target: pathlib.Path,
  source_video: Any,
  copied: Sequence[Any],
) -> Iterator[VideoWriter]:
  """Opens a video file for writing, and closes it.

  Args:
    path: of the file.
    target: its path once it is complete, whose extension names the container.
    source_video: the source's stream of frames.
    copied: the source's streams that are copied.

  Raises:
    DataError: the container cannot hold the video or the sound.
    OSError: the file cannot be written, for example on a full disk.
  """
  container_format = CONTAINERS[target.suffix.lower()].format
  try:
    container = av.open(str(path), 'w', format=container_format)
    try:
      yield VideoWriter(container, target, source_video, copied)
    except BaseException:
      with contextlib.suppress(Exception):  # the file is removed anyway
        container.close()
      raise
    container.close()
  except av.FFmpegError as error:
    if error.errno in _DISK_ERRORS:
      raise OSError(error.errno, error.strerror, str(target)) from error
    raise _unfit(target, error.strerror or one_line(error)) from error


def _unfit(target: pathlib.Path, reason: str) -> DataError:
  return DataError(f'{printable(str(target))} cannot be written: {reason}')
