"""Videos read: pictures, and packets of all else."""

import contextlib
import fractions
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from cyclegan_jax.errors import one_line
from cyclegan_jax.media.decoding import ImageError
from cyclegan_jax.media.header_limits import check_size
from cyclegan_jax.media.listing import open_file
from cyclegan_jax.media.video_headers import num_missing_bytes

# FFmpeg's numbers of matrices between RGB and what is stored. Where none is
# told, players take BT.709 for HD and BT.601 below.
_BT709, _BT601, _UNKNOWN = 1, 6, 2
_HD_HEIGHT = 720
# RGB of what is not RGB, reserved, and BT.2020 with constant luminance.
_NEAREST = {0: _UNKNOWN, 3: _UNKNOWN, 10: 9}
_LIMITED, _FULL = 1, 2  # ranges


class Colours(NamedTuple):
  """How colours are stored, in FFmpeg's numbers."""

  matrix: int
  range: int
  primaries: int
  transfer: int


def _colours_of(frame: Any, context: Any) -> Colours:
  """Those of a frame; what it doesn't tell is as players take it."""
  matrix = _NEAREST.get(frame.colorspace, frame.colorspace)
  if matrix == _UNKNOWN or frame.format.is_rgb:
    matrix = _BT709 if frame.height >= _HD_HEIGHT else _BT601
  is_full = frame.color_range == _FULL and not frame.format.is_rgb
  return Colours(
    matrix,
    _FULL if is_full else _LIMITED,
    context.color_primaries,
    context.color_trc,
  )


class Picture(NamedTuple):
  """A frame of the source.

  Attributes:
    pixels: uint8 [h, w, C], upright.
    colours: of what was decoded.
    pts: when it is shown, in units of `time_base`.
    time_base: in seconds.
  """

  pixels: np.ndarray
  colours: Colours
  pts: int
  time_base: fractions.Fraction


class VideoReader:
  """A video file that is open for reading.

  Attributes:
    video: the stream of pictures.
    others: those of sounds and subtitles.
    num_frames: None where the file doesn't tell.
  """

  def __init__(
    self, av: Any, path: pathlib.Path, channels: int, max_pixels: int
  ) -> None:
    self._av = av
    self._path = path
    self._channels = channels
    self._max_pixels = max_pixels
    with open_file(str(path)) as file:  # a pipe would block below
      missing = num_missing_bytes(file)
    if missing:
      raise self._error(
        f'as a video: it is truncated: {missing} of its bytes are missing'
      )
    with self._explained():
      self._container = av.open(str(path))
    streams = self._container.streams
    self.video = streams.best('video')
    self.others = [*streams.audio, *streams.subtitles]
    try:
      if self.video is None:
        raise self._error('it holds no pictures')
      self._check_size(self.video)
    except BaseException:
      self.close()
      raise
    self.video.thread_type = 'AUTO'
    self.num_frames: int | None = self.video.frames or None

  def close(self) -> None:
    """Closes the file."""
    self._container.close()

  def items(self) -> Iterator[Any]:
    """Yields pictures, and packets of the others, in their order.

    Raises:
      ImageError: it is damaged. Nothing of what the caller does in between.
    """
    size: tuple[int, int] | None = None
    with self._explained():
      for packet in self._container.demux([self.video, *self.others]):
        if packet.is_corrupt:
          raise self._error('as a video: it is damaged or truncated')
        if packet.stream.index != self.video.index:
          if packet.dts is not None:  # as is the last one, which is empty
            yield packet
          continue
        for frame in packet.decode():
          self._check_size(frame)
          size = size or (frame.width, frame.height)
          yield self._picture(frame, *size)

  def _picture(self, frame: Any, width: int, height: int) -> Picture:
    colours = _colours_of(frame, self.video.codec_context)
    if not frame.format.is_rgb:
      frame.colorspace = colours.matrix
    # Of the first one's size, as a player shows it.
    rgb = frame.reformat(width=width, height=height, format='rgb24')
    pixels = rgb.to_ndarray()
    if self._channels == 1:
      pixels = np.asarray(Image.fromarray(pixels).convert('L'))[..., None]
    # Telephones lay their videos on the side and note by how much.
    pixels = np.rot90(pixels, frame.rotation // 90)
    return Picture(pixels, colours, frame.pts, frame.time_base)

  def _check_size(self, of: Any) -> None:
    try:
      check_size(of.width, of.height, max_pixels=self._max_pixels)
    except ValueError as error:
      raise self._error(str(error)) from error

  @contextlib.contextmanager
  def _explained(self) -> Iterator[None]:
    try:
      yield
    except (self._av.FFmpegError, ValueError) as error:
      if isinstance(error, MemoryError):
        raise
      reason = getattr(error, 'strerror', '') or one_line(error)
      raise self._error(f'as a video: {reason}') from error

  def _error(self, reason: str) -> ImageError:
    return ImageError(str(self._path), reason)
