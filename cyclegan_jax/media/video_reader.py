"""Reads videos: frames as arrays, and packets of sound and subtitles.

Needs the package av, which is why `videos` imports this module late.
"""

import contextlib
import fractions
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import av
import numpy as np
from PIL import Image

from cyclegan_jax.errors import one_line
from cyclegan_jax.media.decoding import ImageError
from cyclegan_jax.media.header_limits import check_size
from cyclegan_jax.media.listing import open_file
from cyclegan_jax.media.video_headers import num_missing_bytes

# FFmpeg's numbers of matrices between RGB and the stored values. Where a file
# names none, players take BT.709 for HD and BT.601 below.
_BT709, _BT601, _UNSPECIFIED = 1, 6, 2
_HD_HEIGHT = 720
# RGB in a file that is not RGB, reserved, and BT.2020 of constant luminance.
_REPLACED_MATRICES = {0: _UNSPECIFIED, 3: _UNSPECIFIED, 10: 9}
_LIMITED, _FULL = 1, 2  # ranges


class Colors(NamedTuple):
  """Color storage of a video, in FFmpeg's numbers."""

  matrix: int
  range: int
  primaries: int
  transfer: int


class VideoFrame(NamedTuple):
  """A decoded frame.

  Attributes:
    pixels: uint8 [h, w, C], upright.
    colors: as they are stored in the file.
    pts: the time at which it is shown, in units of `time_base`.
    time_base: in seconds.
  """

  pixels: np.ndarray
  colors: Colors
  pts: int
  time_base: fractions.Fraction


class VideoReader:
  """A video file that is open for reading.

  Attributes:
    video: the stream of frames.
    copied: the streams of sound and subtitles.
    num_frames: None where the file does not say.
  """

  def __init__(
    self, path: pathlib.Path, channels: int, max_pixels: int
  ) -> None:
    self._path = path
    self._channels = channels
    self._max_pixels = max_pixels
    with open_file(str(path)) as file:  # FFmpeg would wait for a pipe
      missing = num_missing_bytes(file)
    if missing:
      raise self._error(
        f'as a video: it is truncated: {missing} of its bytes are missing'
      )
    with self._explained():
      self._container = av.open(str(path))
    streams: Any = self._container.streams
    self.video = streams.best('video')
    self.copied = [*streams.audio, *streams.subtitles]
    try:
      if self.video is None:
        raise self._error('it has no frames')
      self._check_size(self.video)
    except BaseException:
      self.close()
      raise
    self.video.thread_type = 'AUTO'
    self.num_frames: int | None = self.video.frames or None

  def close(self) -> None:
    """Closes the file."""
    self._container.close()

  def frames_and_packets(self) -> Iterator[Any]:
    """Yields a `VideoFrame`, or a packet of `copied`, in the file's order.

    Raises:
      ImageError: it is damaged. Exceptions of the caller pass through.
    """
    size: tuple[int, int] | None = None
    with self._explained():
      packets: Any = self._container.demux([self.video, *self.copied])
      for packet in packets:
        if packet.is_corrupt:
          raise self._error('as a video: it is damaged or truncated')
        if packet.stream.index != self.video.index:
          if packet.dts is not None:  # the last one is empty
            yield packet
          continue
        for frame in packet.decode():
          self._check_size(frame)
          size = size or (frame.width, frame.height)
          yield self._decoded(frame, *size)

  def _decoded(self, frame: Any, width: int, height: int) -> VideoFrame:
    colors = self._colors(frame)
    if not frame.format.is_rgb:
      frame.colorspace = colors.matrix
    # Players show all frames in the size of the first.
    rgb = frame.reformat(width=width, height=height, format='rgb24')
    pixels = rgb.to_ndarray()
    if self._channels == 1:
      pixels = np.asarray(Image.fromarray(pixels).convert('L'))[..., None]
    # Phones store videos on their side, with the angle beside them.
    pixels = np.rot90(pixels, frame.rotation // 90)
    return VideoFrame(pixels, colors, frame.pts, frame.time_base)

  def _colors(self, frame: Any) -> Colors:
    """The frame's colors; unspecified ones as players take them."""
    is_rgb = frame.format.is_rgb
    matrix = _REPLACED_MATRICES.get(frame.colorspace, frame.colorspace)
    if matrix == _UNSPECIFIED or is_rgb:
      matrix = _BT709 if frame.height >= _HD_HEIGHT else _BT601
    is_full = frame.color_range == _FULL and not is_rgb
    context = self.video.codec_context
    return Colors(
      matrix,
      _FULL if is_full else _LIMITED,
      context.color_primaries,
      context.color_trc,
    )

  def _check_size(self, frame: Any) -> None:
    try:
      check_size(frame.width, frame.height, max_pixels=self._max_pixels)
    except ValueError as error:
      raise self._error(str(error)) from error

  @contextlib.contextmanager
  def _explained(self) -> Iterator[None]:
    try:
      yield
    except (av.FFmpegError, ValueError) as error:
      if isinstance(error, MemoryError):
        raise
      reason = getattr(error, 'strerror', '') or one_line(error)
      raise self._error(f'as a video: {reason}') from error

  def _error(self, reason: str) -> ImageError:
    return ImageError(str(self._path), reason)
