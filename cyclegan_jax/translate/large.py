"""Translates TIFF files that are never in memory as a whole."""

import contextlib
import pathlib

import numpy as np

from cyclegan_jax.errors import UserError, printable
from cyclegan_jax.media.image_files import read_metadata_for, values_for
from cyclegan_jax.media.listing import open_file
from cyclegan_jax.media.metadata import count_frames
from cyclegan_jax.media.tiff_reader import TiffWindows
from cyclegan_jax.media.tiff_writer import write_tiff_windows
from cyclegan_jax.media.value_range import (
  FULL,
  Values,
  is_missing,
  with_missing,
  without_missing,
)
from cyclegan_jax.storage.disk_errors import explain_disk_errors
from cyclegan_jax.translate.context import (
  Context,
  Image,
)
from cyclegan_jax.translate.plan import Job
from cyclegan_jax.translate.tiling.scratch_array import ScratchArray
from cyclegan_jax.translate.tiling.windows import ReadWindow, WriteWindow
from cyclegan_jax.translate.translator import Translator

_TIFF_ENDINGS = ('.tif', '.tiff')
# Larger TIFF files are read and written by windows, where that can be.
_IN_MEMORY_PIXELS = 2**25


def is_large(work: Context, job: Job) -> bool:
  """Whether a file can and should be translated by windows."""
  if job.source.suffix.lower() not in _TIFF_ENDINGS or work.options.size:
    return False
  if job.target.suffix.lower() not in _TIFF_ENDINGS:
    return False
  try:
    with _open(work, job.source, work.channels[0]) as image:
      height, width, _ = image.shape
      most = max(work.translators[0].whole_pixels, _IN_MEMORY_PIXELS)
      return height * width > most
  except (UserError, ValueError):  # reading it whole reports what is wrong
    return False


def translate_large(work: Context, job: Job) -> None:
  """Translates window by window.

  Raises:
    UserError: the file cannot be read, or the scratch folder not be written.
    OSError: the output cannot be written.
  """
  source_path = str(job.source)
  translator = work.translators[job.sample]
  with contextlib.ExitStack() as stack:
    reader = stack.enter_context(_open(work, job.source, work.channels[0]))
    shape = (reader.shape[0], reader.shape[1], work.channels[1])
    of_source, of_output = values_for(
      np.empty(0, reader.dtype),
      work.config.data,
      work.options.direction,
      name=source_path,
    )
    metadata = read_metadata_for(
      source_path, channels=shape[2], max_pixels=work.max_pixels
    )
    with open_file(source_path) as file:
      num_pages = count_frames(
        file,
        source_path,
        channels=work.channels[0],
        max_pixels=work.max_pixels,
      )
    work.note_pages(job, num_pages)
    source = _seekable(work, reader, stack)
    job.target.parent.mkdir(parents=True, exist_ok=True)
    with write_tiff_windows(
      job.target,
      shape,
      of_output.dtype,
      exif=metadata.exif,
      icc=metadata.icc,
      tags=metadata.tags,
    ) as write:
      if reader.nodata is not None:
        translated, write = _with_missing(
          work, job, source, reader.nodata, of_source, write
        )
      else:
        translated = source

      def read(y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        window = translated.read(y0, y1, x0, x1)
        missing = None
        if reader.nodata is not None:
          missing = is_missing(window, reader.nodata)
        # Windows overlap, which hardly changes the share.
        work.count_clipped(job, window, missing)
        return window

      _translate(
        work, translator, translated, write, job.source.name, read_window=read
      )
    if work.gallery and work.back:
      output = stack.enter_context(_open(work, job.target, shape[2]))
      _, of_back = values_for(
        np.empty(0, output.dtype), work.config.data, work.back.direction
      )
      back = stack.enter_context(
        ScratchArray(
          (*shape[:2], work.channels[0]), of_back.dtype, work.scratch
        )
      )
      _translate(
        work, work.back, output, back.write, f'{job.source.name}, back'
      )
      work.show(job, (source, output, back), 'image')


def _open(work: Context, path: pathlib.Path, channels: int) -> TiffWindows:
  return TiffWindows(
    open_file(str(path)),
    str(path),
    channels=channels,
    max_pixels=work.max_pixels,
  )


def _seekable(
  work: Context, reader: TiffWindows, stack: contextlib.ExitStack
) -> Image:
  """The image, or a copy of it on disk where only that has random access."""
  if reader.is_by_rows:
    return reader
  array = stack.enter_context(
    ScratchArray(reader.shape, reader.dtype, work.scratch)
  )
  with explain_disk_errors(work.scratch, option='--scratch'):
    for y0, x0, segment in reader.read_segments():
      array.write(y0, x0, segment)
  return array


class _WithoutMissing:
  """An image whose pixels without data have the lowest value."""

  def __init__(self, image: Image, nodata: float, values: Values):
    self.shape = image.shape
    self.dtype = image.dtype
    self._image = image
    self._nodata = nodata
    self._low = values.low

  def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    """Reads the window [y1 - y0, x1 - x0, C]."""
    window = self._image.read(y0, y1, x0, x1)
    return without_missing(window, self._nodata, self._low)


def _with_missing(
  work: Context,
  job: Job,
  source: Image,
  nodata: float,
  values: Values,
  write: WriteWindow,
) -> tuple[Image, WriteWindow]:
  """Leaves pixels without data as they are, as `read_photo` does.

  Returns:
    What the network gets, and what writes its output.
  """

  def write_marked(y0: int, x0: int, window: np.ndarray) -> None:
    height, width = window.shape[:2]
    original = source.read(y0, y0 + height, x0, x0 + width)
    missing = is_missing(original, nodata)
    work.note_missing(job, missing, str(window.dtype), nodata)
    write(y0, x0, with_missing(window, missing, nodata))

  has_full_range = str(np.dtype(source.dtype)) in FULL
  if has_full_range:
    return source, write_marked
  return _WithoutMissing(source, nodata, values), write_marked


def _translate(
  work: Context,
  translator: Translator,
  source: Image,
  write: WriteWindow,
  name: str,
  read_window: ReadWindow | None = None,
) -> None:
  height, width, _ = source.shape
  with work.bar(printable(name)) as on_progress:
    translator.translate_windows(
      read_window or source.read,
      write,
      (height, width),
      source.dtype,
      on_progress=on_progress,
    )
