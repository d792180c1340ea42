"""TIFF files that are never in memory as a whole."""

import contextlib
import pathlib

import numpy as np

from cyclegan_jax.errors import DataError, printable
from cyclegan_jax.media.frame_count import count_frames
from cyclegan_jax.media.image_files import (
  read_extras,
  values_for,
)
from cyclegan_jax.media.listing import open_file
from cyclegan_jax.media.tiff_windows import (
  TiffReader,
  write_tiff,
)
from cyclegan_jax.storage.disk_errors import explain_disk_errors
from cyclegan_jax.translate.context import (
  Image,
  Work,
)
from cyclegan_jax.translate.plan import Job
from cyclegan_jax.translate.tiling.scratch_array import Spool
from cyclegan_jax.translate.tiling.windows import WriteWindow
from cyclegan_jax.translate.translator import Translator

_TIFF_ENDINGS = ('.tif', '.tiff')
# Above it a TIFF file is read and written by windows, where that can be.
_IN_MEMORY_PIXELS = 2**25


def is_large(work: Work, job: Job) -> bool:
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
  except (DataError, ValueError):  # which is told when it is read whole
    return False


def translate_large(work: Work, job: Job) -> None:
  """Translates window by window.

  Raises:
    UserError: of the file, or the disk.
    OSError: of the output.
  """
  translator = work.translators[job.sample]
  with contextlib.ExitStack() as stack:
    reader = stack.enter_context(_open(work, job.source, work.channels[0]))
    shape = (*reader.shape[:2], work.channels[1])
    _, of_output = values_for(
      np.empty(0, reader.dtype),
      work.config.data,
      work.options.direction,
      name=str(job.source),
    )
    exif, icc = read_extras(str(job.source), shape[2], work.max_pixels)
    with open_file(str(job.source)) as file:
      work.note_pages(
        job,
        count_frames(
          file,
          str(job.source),
          channels=work.channels[0],
          max_pixels=work.max_pixels,
        ),
      )
    source = _seekable(work, reader, stack)
    job.target.parent.mkdir(parents=True, exist_ok=True)
    with write_tiff(
      job.target, shape, of_output.dtype, exif=exif, icc=icc
    ) as write:
      _translate(work, translator, source, write, job.source.name)
    if work.gallery and work.back:
      made = stack.enter_context(_open(work, job.target, shape[2]))
      _, of_back = values_for(
        np.empty(0, made.dtype), work.config.data, work.back.direction
      )
      back = stack.enter_context(
        Spool((*shape[:2], work.channels[0]), of_back.dtype, work.scratch)
      )
      _translate(work, work.back, made, back.write, f'{job.source.name}, back')
      work.show(job, (source, made, back), 'image')


def _open(work: Work, path: pathlib.Path, channels: int) -> TiffReader:
  return TiffReader(path, channels=channels, max_pixels=work.max_pixels)


def _seekable(
  work: Work, reader: TiffReader, stack: contextlib.ExitStack
) -> Image:
  """What windows can be read of in any order."""
  if reader.is_by_rows:
    return reader
  spool = stack.enter_context(Spool(reader.shape, reader.dtype, work.scratch))
  with explain_disk_errors(work.scratch, option='--scratch'):
    for y0, x0, part in reader.read_parts(work.scratch):
      spool.write(y0, x0, part)
  return spool


def _translate(
  work: Work,
  translator: Translator,
  source: Image,
  write: WriteWindow,
  name: str,
) -> None:
  height, width, _ = source.shape
  with work.bar(printable(name)) as on_progress:
    translator.translate_windows(
      source.read,
      write,
      (height, width),
      source.dtype,
      on_progress=on_progress,
    )
