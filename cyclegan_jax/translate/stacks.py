"""Translates files of several images: volumes, DICOM files, TIFF stacks."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from cyclegan_jax.errors import ImageError, UserError, printable
from cyclegan_jax.media.decoding import (
  Decoded,
  decode_opaque,
  decoded_shape,
  stored_kind,
  tiff_pages,
)
from cyclegan_jax.media.image_files import (
  read_metadata_for,
  values_for,
  write_photo,
)
from cyclegan_jax.media.listing import open_file
from cyclegan_jax.media.medical import (
  Target,
  kind_by_name,
  read_scan,
  read_slice,
  write_scan,
)
from cyclegan_jax.media.metadata import nodata_of, resized_tags
from cyclegan_jax.media.tiff_writer import write_tiff_pages
from cyclegan_jax.media.value_range import with_missing
from cyclegan_jax.translate.context import Context, InMemory
from cyclegan_jax.translate.plan import Job, medical_kind

_TIFF = ('.tif', '.tiff')


class _Translated(NamedTuple):
  pixels: np.ndarray
  missing: np.ndarray | None  # as in `Decoded`


def is_stack(work: Context, job: Job) -> bool:
  """Whether a file is medical, or has pages that are all translated."""
  if medical_kind(job.source):
    return True
  is_tiff = job.source.suffix.lower() in _TIFF
  if not is_tiff or work.config.data.pages != 'all':
    return False
  try:
    with open_file(str(job.source)) as file:
      numbers, _ = tiff_pages(file, str(job.source), max_pixels=work.max_pixels)
      return len(numbers) > 1
  except UserError:  # reading it as one image reports what is wrong
    return False


def translate_stack(work: Context, job: Job) -> None:
  """Translates every image of a file, into a file like it or a TIFF stack.

  Raises:
    UserError: the file cannot be read, the format has no room for it, or a
      package is missing.
    OSError: the output cannot be written.
  """
  name = str(job.source)
  kind = medical_kind(job.source)
  is_medical = bool(kind)
  to_tiff = job.target.suffix.lower() in _TIFF
  slice_axis = work.config.data.slice_axis
  if is_medical and work.options.size and not to_tiff:
    raise ImageError(
      name, '--size does not fit its geometry: leave it out, or --format tiff'
    )
  with open_file(name) as file:
    if is_medical:
      scan = read_scan(
        file, name, slice_axis=slice_axis, max_pixels=work.max_pixels
      )
      numbers, dtype, colors = (
        list(range(scan.num_images)),
        scan.dtype,
        scan.colors,
      )
      read = functools.partial(
        read_slice,
        file,
        name,
        channels=work.channels[0],
        slice_axis=slice_axis,
        max_pixels=work.max_pixels,
      )
    else:
      numbers, num_others = tiff_pages(file, name, max_pixels=work.max_pixels)
      if num_others:
        work.notes.append(
          f'{printable(name)} has {num_others} pages of another size than its '
          'first: they are not translated'
        )
      dtype, colors = stored_kind(file, name, max_pixels=work.max_pixels)
      read = functools.partial(_read_page, work, file, name)
    if not numbers:
      raise ImageError(name, 'it has no pixels')
    _, values = values_for(
      np.empty(0, dtype), work.config.data, work.options.direction, name=name
    )
    work.note_conversion(job, dtype, colors)
    job.target.parent.mkdir(parents=True, exist_ok=True)
    with work.bar(printable(job.source.name)) as on_image:
      translated = _translated(work, job, read, numbers, on_image)
      if to_tiff:
        _write_tiff(work, job, translated, len(numbers), is_medical)
      elif is_medical and kind_by_name(job.target.name) == kind:
        write_scan(
          job.target,
          file,
          name,
          translated,
          values,
          slice_axis=slice_axis,
          max_pixels=work.max_pixels,
          identity=f'{work.identity} {job.sample}',
          target=_target(work),
        )
      elif len(numbers) == 1:
        pixels, missing = next(translated)
        work.note_missing(job, missing, str(pixels.dtype), math.nan)
        write_photo(str(job.target), pixels)
      else:
        raise ImageError(
          name,
          f'it has {len(numbers)} images, which {job.target.suffix} cannot '
          'hold: leave out --format, or give --format tiff',
        )
      # Of one image, writers need not ask for more.
      for _ in translated:
        pass


def _target(work: Context) -> Target:
  data, domain = work.config.data, work.options.direction[1]
  name = data.name_of(domain)
  return Target(
    name.replace('\\', '/') if name.isascii() else domain,
    getattr(data, f'modality_{domain}'),
    getattr(data, f'rescale_type_{domain}'),
  )


def _read_page(work: Context, file: BinaryIO, name: str, page: int) -> Decoded:
  return decode_opaque(
    file,
    name,
    channels=work.channels[0],
    max_pixels=work.max_pixels,
    page=page,
  )


def _translated(
  work: Context,
  job: Job,
  read: Callable[[int], Decoded],
  numbers: list[int],
  on_image: Callable[[int, int | None], None],
) -> Iterator[_Translated]:
  """Translates in batches; the image in the middle is for the gallery."""
  translator = work.translators[job.sample]
  size = work.options.batch_size
  middle = numbers[len(numbers) // 2]
  for start in range(0, len(numbers), size):
    part = numbers[start : start + size]
    stored = [read(number) for number in part]
    for decoded in stored:
      work.count_clipped(job, decoded.pixels, decoded.missing)
    sources = [_resized(work, job, decoded) for decoded in stored]
    images = [source.pixels for source in sources]
    outputs = translator.translate_stored(np.stack(images))
    for number, source, output in zip(part, sources, outputs, strict=True):
      image = source.pixels
      yield _Translated(output, source.missing)
      if number == middle and work.gallery and work.back:
        back = work.back.translate_stored(output[None])[0]
        shown = (image, output, back)
        work.show(job, [InMemory(each) for each in shown], 'image')
    on_image(start + len(part), len(numbers))


def _resized(work: Context, job: Job, image: Decoded) -> Decoded:
  if work.options.size is None:
    return image
  size = work.new_size(image.pixels.shape[:2], job)
  missing = image.missing
  if missing is not None:
    missing = work.resize_missing(missing, *size)
  return image._replace(
    pixels=work.resize(image.pixels, *size), missing=missing
  )


def _write_tiff(
  work: Context,
  job: Job,
  translated: Iterator[_Translated],
  count: int,
  is_medical: bool,
) -> None:
  if is_medical:
    floats = _floats_of_gray(translated)
    write_tiff_pages(job.target, _marked(work, job, floats, math.nan), count)
    return
  metadata = read_metadata_for(
    str(job.source), channels=work.channels[1], max_pixels=work.max_pixels
  )
  tags = metadata.tags
  if work.options.size is not None:
    with open_file(str(job.source)) as file:
      shape = decoded_shape(file, str(job.source), max_pixels=work.max_pixels)
    height, width = work.new_size(shape, job)
    tags = resized_tags(tags, width / shape[1], height / shape[0])
  nodata = nodata_of(tags)
  mark = math.nan if nodata is None else nodata
  write_tiff_pages(
    job.target,
    _marked(work, job, translated, mark),
    count,
    exif=metadata.exif,
    icc=metadata.icc,
    tags=tags,
  )


def _floats_of_gray(translated: Iterator[_Translated]) -> Iterator[_Translated]:
  """Makes gray images floats, in which NaN marks pixels without data."""
  for pixels, missing in translated:
    is_gray = pixels.shape[-1] == 1
    yield _Translated(pixels.astype(np.float32) if is_gray else pixels, missing)


def _marked(
  work: Context, job: Job, translated: Iterator[_Translated], mark: float
) -> Iterator[np.ndarray]:
  """Marks pixels without data in each image."""
  for pixels, missing in translated:
    work.note_missing(job, missing, str(pixels.dtype), mark)
    yield (pixels if missing is None else with_missing(pixels, missing, mark))
