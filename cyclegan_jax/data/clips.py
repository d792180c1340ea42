"""Animated GIFs and videos: frames in, frames out, sound and timing kept."""

import contextlib
import fractions
import importlib
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageSequence

from cyclegan_jax.data.decoding import ImageError, one_line
from cyclegan_jax.data.files import open_file
from cyclegan_jax.data.headers import check_size
from cyclegan_jax.errors import UserError

GIF_EXTENSIONS = ('.gif',)
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

# uint8 [B, h, w, C] to uint8 [B, h', w', C'], C and C' 1 or 3.
Convert: TypeAlias = Callable[[np.ndarray], np.ndarray]

_MAX_GIF_FRAMES = 10_000
# Containers that hold what we write; all else goes to Matroska, which holds
# any sound there is.
_CODECS = {
  '.m4v': 'libx264',
  '.mkv': 'libx264',
  '.mov': 'libx264',
  '.mp4': 'libx264',
  '.webm': 'libvpx-vp9',
}


def clip_target(path: pathlib.Path) -> pathlib.Path:
  """The path with the ending that a translated clip has."""
  suffix = path.suffix.lower()
  if suffix in GIF_EXTENSIONS or suffix in _CODECS:
    return path
  return path.with_suffix('.mkv')


def convert_gif(
  source: pathlib.Path,
  target: pathlib.Path,
  convert: Convert,
  *,
  channels: int,
  batch_size: int = 1,
  max_pixels: int,
) -> None:
  """Converts every frame of a GIF; durations, loops and clear parts stay.

  Args:
    source: the file.
    target: is written whole or not at all.
    convert: of frames, all of one size.
    channels: of what it takes: 1 or 3.
    batch_size: frames at a time.
    max_pixels: of a frame.

  Raises:
    ImageError: it can't be read.
  """
  frames: list[Image.Image] = []
  durations: list[int] = []
  clear: list[np.ndarray] = []

  def read() -> Iterator[np.ndarray]:
    for number, frame in enumerate(ImageSequence.Iterator(image)):
      if number == _MAX_GIF_FRAMES:
        raise ValueError(f'more than {_MAX_GIF_FRAMES:,} frames')
      rgba = frame.convert('RGBA')
      durations.append(frame.info.get('duration', 0))
      clear.append(np.asarray(rgba.getchannel('A')) < 128)
      white = Image.new('RGB', rgba.size, 'white')
      white.paste(rgba, mask=rgba.getchannel('A'))
      yield _with_channels(white, channels)

  with contextlib.ExitStack() as stack:
    try:
      file = stack.enter_context(open_file(str(source)))
      image = stack.enter_context(Image.open(file, formats=('GIF',)))
      check_size(image.width, image.height, max_pixels=max_pixels)
      loop = image.info.get('loop')
      for converted in _in_batches(read(), convert, batch_size):
        frames.append(_paletted(converted, clear[len(frames)]))
    except (ImageError, MemoryError, UserError):
      raise
    except Exception as error:  # damaged bytes end in nearly any of them
      reason = one_line(error)
      if isinstance(error, Image.UnidentifiedImageError):
        reason = 'not a GIF image'
      raise ImageError(str(source), reason) from error
  temporary = _temporary(target)
  options: dict[str, Any] = {} if loop is None else {'loop': loop}
  if any(each.any() for each in clear):
    options['transparency'] = _CLEAR
  frames[0].save(
    temporary,
    format='GIF',
    save_all=True,
    append_images=frames[1:],
    duration=durations,
    disposal=2,
    optimize=False,
    **options,
  )
  os.replace(temporary, target)


_CLEAR = 255  # the palette's entry for what can be looked through


def _paletted(frame: np.ndarray, clear: np.ndarray) -> Image.Image:
  image = Image.fromarray(frame).convert('RGB').quantize(_CLEAR)
  if clear.shape == frame.shape[:2] and clear.any():
    indices = np.array(image)
    indices[clear] = _CLEAR
    palette = image.getpalette() or []
    image = Image.fromarray(indices)
    image.putpalette(palette + [0] * (3 * 256 - len(palette)))
  return image


def _with_channels(image: Image.Image, channels: int) -> np.ndarray:
  pixels = np.asarray(image.convert('L' if channels == 1 else 'RGB'))
  return pixels.reshape(image.height, image.width, channels)


def _in_batches(
  frames: Iterator[np.ndarray], convert: Convert, batch_size: int
) -> Iterator[np.ndarray]:
  """Converted frames, one by one: [h, w, 3], or [h, w] where grey."""
  while batch := list(itertools.islice(frames, batch_size)):
    converted = convert(np.stack(batch))
    yield from converted[..., 0] if converted.shape[-1] == 1 else converted


def convert_video(
  source: pathlib.Path,
  target: pathlib.Path,
  convert: Convert,
  *,
  channels: int,
  batch_size: int = 1,
  max_pixels: int,
  on_frame: Callable[[int, int | None], None] = lambda done, total: None,
) -> None:
  """Converts every frame of a video; its sound is copied as it is.

  Args:
    source: the file.
    target: is written whole or not at all; its ending tells the container.
    convert: of frames, all of one size.
    channels: of what it takes: 1 or 3.
    batch_size: frames at a time.
    max_pixels: of a frame.
    on_frame: is told how many frames are done, of how many if that is known.

  Raises:
    UserError: PyAV is missing.
    ImageError: it can't be read, or holds no pictures.
  """
  av = _load_av()
  temporary = _temporary(target)
  try:
    open_file(str(source)).close()  # a pipe would block below
    with (
      av.open(str(source)) as reader,
      av.open(str(temporary), 'w', format=_format(target)) as writer,
    ):
      _convert_streams(
        av, reader, writer, target, convert, channels, batch_size, max_pixels,
        on_frame,
      )  # fmt: skip
  except (av.FFmpegError, ValueError) as error:
    temporary.unlink(missing_ok=True)
    reason = getattr(error, 'strerror', '') or one_line(error)
    raise ImageError(str(source), f'as a video: {reason}') from error
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise
  os.replace(temporary, target)


def _convert_streams(
  av: Any,
  reader: Any,
  writer: Any,
  target: pathlib.Path,
  convert: Convert,
  channels: int,
  batch_size: int,
  max_pixels: int,
  on_frame: Callable[[int, int | None], None],
) -> None:
  if not reader.streams.video:
    raise ImageError(reader.name, 'it holds no pictures')
  video = reader.streams.video[0]
  video.thread_type = 'AUTO'
  try:
    check_size(video.width, video.height, max_pixels=max_pixels)
  except ValueError as error:
    raise ImageError(reader.name, str(error)) from error
  sounds = {
    sound.index: writer.add_stream_from_template(sound)
    for sound in reader.streams.audio
  }
  rate = video.average_rate or fractions.Fraction(25)
  made = writer.add_stream(_CODECS[target.suffix.lower()], rate=rate)
  made.codec_context.time_base = video.time_base
  made.time_base = video.time_base
  made.options = {'crf': '18'}
  waiting: list[Any] = []
  heard: list[Any] = []  # before the first frame, which tells the size
  num_done = 0

  def flush() -> None:
    nonlocal num_done
    if not waiting:
      return
    arrays = [_frame_pixels(frame, channels) for frame in waiting]
    for frame, pixels in zip(waiting, convert(np.stack(arrays)), strict=True):
      grey = pixels.shape[-1] == 1
      out = av.VideoFrame.from_ndarray(
        np.ascontiguousarray(pixels[..., 0] if grey else pixels),
        format='gray' if grey else 'rgb24',
      )
      if not num_done:
        made.height, made.width = pixels.shape[:2]
        # Halved colours, which every player knows, need even sides.
        is_even = made.height % 2 == made.width % 2 == 0
        made.pix_fmt = 'yuv420p' if is_even else 'yuv444p'
      out.pts, out.time_base = frame.pts, frame.time_base
      writer.mux(made.encode(out))
      num_done += 1
      on_frame(num_done, video.frames or None)
    waiting.clear()
    for packet in heard:
      writer.mux(packet)
    heard.clear()

  for packet in reader.demux([video, *reader.streams.audio]):
    if packet.stream.index in sounds:
      if packet.dts is not None:  # the last one, which is empty
        packet.stream = sounds[packet.stream.index]
        if num_done:
          writer.mux(packet)
        else:
          heard.append(packet)
      continue
    for frame in packet.decode():
      waiting.append(frame)
      if len(waiting) == batch_size:
        flush()
  flush()
  if not num_done:
    raise ImageError(reader.name, 'it holds no pictures')
  writer.mux(made.encode(None))


def _frame_pixels(frame: Any, channels: int) -> np.ndarray:
  """[h, w, channels], upright."""
  pixels = frame.to_ndarray(format='gray' if channels == 1 else 'rgb24')
  pixels = pixels.reshape(*pixels.shape[:2], channels)
  # Telephones lay their videos on the side and note by how much.
  return np.rot90(pixels, getattr(frame, 'rotation', 0) // 90)


def _load_av() -> Any:
  try:
    return importlib.import_module('av')
  except ImportError as error:
    raise UserError(
      "videos need the package av: pip install 'cyclegan_jax[video]'"
    ) from error


def _format(target: pathlib.Path) -> str:
  return {'.mkv': 'matroska', '.m4v': 'mp4'}.get(
    target.suffix.lower(), target.suffix.lower()[1:]
  )


def _temporary(target: pathlib.Path) -> pathlib.Path:
  return target.with_name(target.name + '.tmp')
