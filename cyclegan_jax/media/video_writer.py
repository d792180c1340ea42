"""Videos written: pictures are encoded, packets of all else copied."""

import contextlib
import errno
import fractions
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cyclegan_jax.errors import (
  DataError,
  one_line,
  printable,
)
from cyclegan_jax.media.video_reader import Picture

# Containers that hold what we write; all else goes to Matroska, which holds
# any sound there is.
CODECS = {
  '.m4v': 'libx264',
  '.mkv': 'libx264',
  '.mov': 'libx264',
  '.mp4': 'libx264',
  '.webm': 'libvpx-vp9',
}
_FORMATS = {
  '.m4v': 'mp4',
  '.mkv': 'matroska',
  '.mov': 'mov',
  '.mp4': 'mp4',
  '.webm': 'webm',
}

# The scaler's numbers of the matrices that it has, by FFmpeg's other ones.
_SCALER_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}

_CARRIED = ('language', 'title')  # what is told of a sound, or of subtitles
# What is wrong with the disk, not with the video.
_OF_THE_DISK = (
  *(errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC),
  *(errno.EPERM, errno.EROFS),
)


class VideoWriter:
  """A video file that is being written; see `opened_writer`.

  Attributes:
    num_frames: that it has so far.
  """

  def __init__(
    self,
    av: Any,
    container: Any,
    target: pathlib.Path,
    video: Any,
    others: Sequence[Any],
  ) -> None:
    self._av = av
    self._container = container
    self._source = video
    rate = self._source.average_rate or fractions.Fraction(25)
    self._made = container.add_stream(CODECS[target.suffix.lower()], rate=rate)
    self._made.codec_context.time_base = self._source.time_base
    self._made.time_base = self._source.time_base
    self._made.options = {'crf': '18'}
    self._copies: dict[int, Any] = {}
    for stream in others:
      self._add_copy(stream, target)
    self._early: list[Any] = []  # before the first frame, which tells the size
    self.num_frames = 0

  def _add_copy(self, stream: Any, target: pathlib.Path) -> None:
    try:
      copy = self._container.add_stream_from_template(stream)
    except ValueError as error:
      if stream.type == 'subtitle':
        return
      raise _unfit(target, one_line(error)) from error
    for key in _CARRIED:
      if key in stream.metadata:
        copy.metadata[key] = stream.metadata[key]
    self._copies[stream.index] = copy

  def copy(self, packet: Any) -> None:
    """Copies a packet of the reader's other streams."""
    copy = self._copies.get(packet.stream.index)
    if copy is None:
      return
    packet.stream = copy
    if self.num_frames:
      self._container.mux(packet)
    else:
      self._early.append(packet)

  def add(self, picture: Picture, pixels: np.ndarray) -> None:
    """Adds uint8 [h, w, C], shown when a frame of the source is."""
    if pixels.shape[-1] == 1:
      pixels = pixels.repeat(3, axis=-1)
    if not self.num_frames:
      self._begin(picture, *pixels.shape[:2])
    context = self._made.codec_context
    rgb = self._av.VideoFrame.from_ndarray(
      np.ascontiguousarray(pixels), format='rgb24'
    )
    frame = rgb.reformat(
      format=context.pix_fmt,
      dst_colorspace=_SCALER_MATRICES.get(context.colorspace),
      dst_color_range=context.color_range,
    )
    frame.pts, frame.time_base = picture.pts, picture.time_base
    self._container.mux(self._made.encode(frame))
    self.num_frames += 1
    for packet in self._early:
      self._container.mux(packet)
    self._early.clear()

  def _begin(self, picture: Picture, height: int, width: int) -> None:
    context = self._made.codec_context
    context.height, context.width = height, width
    # Halved colours, which every player knows, need even sides.
    is_even = height % 2 == width % 2 == 0
    context.pix_fmt = 'yuv420p' if is_even else 'yuv444p'
    colours = picture.colours
    context.colorspace = colours.matrix
    context.color_range = colours.range
    context.color_primaries = colours.primaries
    context.color_trc = colours.transfer
    ratio = self._source.sample_aspect_ratio
    if ratio and (width, height) == (self._source.width, self._source.height):
      context.sample_aspect_ratio = ratio

  def finish(self) -> None:
    """Writes what the encoder still holds."""
    self._container.mux(self._made.encode(None))


@contextlib.contextmanager
def opened_writer(
  av: Any,
  path: pathlib.Path,
  target: pathlib.Path,
  video: Any,
  others: Sequence[Any],
) -> Iterator[VideoWriter]:
  """Opens a file for writing, and closes it.

  Args:
    av: the package.
    path: of the file.
    target: what it becomes: its ending tells the container.
    video: the stream whose frames are converted.
    others: streams that are copied.

  Raises:
    DataError: the container can't hold what it has to.
    OSError: the disk is full, and so on.
  """
  suffix = target.suffix.lower()
  try:
    container = av.open(str(path), 'w', format=_FORMATS[suffix])
    try:
      yield VideoWriter(av, container, target, video, others)
    except BaseException:
      with contextlib.suppress(Exception):  # it is removed anyway
        container.close()
      raise
    container.close()
  except av.FFmpegError as error:
    if error.errno in _OF_THE_DISK:
      raise OSError(error.errno, error.strerror, str(target)) from error
    raise _unfit(target, error.strerror) from error


def _unfit(target: pathlib.Path, reason: str) -> DataError:
  return DataError(f"{printable(str(target))} can't be written: {reason}")
