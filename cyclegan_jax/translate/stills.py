"""Translates images in batches of equal sizes, reading ahead."""

import collections
import errno
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeAlias

import numpy as np

from cyclegan_jax.errors import UserError, printable
from cyclegan_jax.media.animations import ANIMATED
from cyclegan_jax.media.image_files import (
  Photo,
  read_photo,
  values_for,
  write_photo,
)
from cyclegan_jax.media.metadata import nodata_of, resized_tags
from cyclegan_jax.translate.context import (
  Context,
  InMemory,
)
from cyclegan_jax.translate.plan import Job
from cyclegan_jax.translate.translator import Translator

# Errors of one path, not of the whole disk.
OF_ONE_FILE = (
  *(errno.EACCES, errno.EEXIST, errno.EISDIR, errno.ELOOP),
  *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.EPERM),
)
_NUM_THREADS = 2  # that read and write while the network works

# Images that wait for a batch, by shape, type and sample.
_Groups: TypeAlias = 'dict[tuple, list[tuple[Job, Photo]]]'


class _Translation(NamedTuple):
  job: Job
  photo: Photo
  pixels: np.ndarray
  back: np.ndarray | None  # `pixels` translated back, for the gallery


def translate_stills(
  work: Context, jobs: Sequence[Job], on_animation: Callable[[Job], None]
) -> Iterator[str]:
  """Translates images.

  Args:
    work: networks and options.
    jobs: jobs of images, by the names of their files.
    on_animation: called with jobs whose files are animations.

  Yields:
    An error message or '' for each finished job.

  Raises:
    OSError: the disk is full, and so on.
  """
  size = work.options.batch_size
  groups: _Groups = collections.defaultdict(list)
  writes = collections.deque[Future[str]]()
  with ThreadPoolExecutor(_NUM_THREADS, 'files') as pool:

    def translate(group: list[tuple[Job, Photo]]) -> None:
      for translation in _translate(work, group):
        writes.append(pool.submit(_write, work, translation))

    def read(job: Job) -> Photo:
      return _read(work, job)

    for job, result in _ahead(pool, read, jobs, size + _NUM_THREADS):
      try:
        photo = result()
      except UserError as error:
        yield str(error)
        continue
      if photo.num_frames > 1 and photo.format in ANIMATED:
        on_animation(job)
        continue
      work.note_pages(job, photo.num_frames)
      work.note_conversion(job, str(photo.pixels.dtype), photo.colors)
      _note_missing(work, job, photo)
      group = groups[photo.pixels.shape, photo.pixels.dtype.str, job.sample]
      group.append((job, photo))
      if len(group) == size:
        translate(group)
        group.clear()
      elif sum(map(len, groups.values())) > 4 * size:
        _each_alone(groups, translate)
      while len(writes) > 2 * size:
        yield writes.popleft().result()
    _each_alone(groups, translate)
    for write in writes:
      yield write.result()


def _each_alone(
  groups: _Groups, translate: Callable[[list[tuple[Job, Photo]]], None]
) -> None:
  """Translates what waits one by one: other numbers would be compiled."""
  for group in groups.values():
    for image in group:
      translate([image])
  groups.clear()


def _ahead(
  pool: ThreadPoolExecutor,
  read: Callable[[Job], Photo],
  jobs: Sequence[Job],
  depth: int,
) -> Iterator[tuple[Job, Callable[[], Photo]]]:
  """Each job with a function that waits for its photo, `depth` read ahead."""
  futures = collections.deque[Future[Photo]]()
  for index, job in enumerate(jobs):
    while len(futures) < depth and index + len(futures) < len(jobs):
      futures.append(pool.submit(read, jobs[index + len(futures)]))
    yield job, futures.popleft().result


def _note_missing(work: Context, job: Job, photo: Photo) -> None:
  _, of_output = values_for(
    photo.pixels, work.config.data, work.options.direction
  )
  nodata = nodata_of(photo.tags)
  mark = math.nan if nodata is None else nodata
  work.note_missing(job, photo.missing, of_output.dtype, mark)


def _read(work: Context, job: Job) -> Photo:
  photo = read_photo(
    str(job.source), channels=work.channels[0], max_pixels=work.max_pixels
  )
  values_for(
    photo.pixels,
    work.config.data,
    work.options.direction,
    name=str(job.source),
  )
  work.count_clipped(job, photo.pixels, photo.missing)
  if work.options.size is None:
    return photo
  old_height, old_width = photo.pixels.shape[:2]
  height, width = work.new_size((old_height, old_width), job)
  alpha = photo.alpha
  if alpha is not None:
    alpha = work.resize(alpha[..., None], height, width)[..., 0]
  missing = photo.missing
  if missing is not None:
    missing = work.resize_missing(missing, height, width)
  return photo._replace(
    missing=missing,
    pixels=work.resize(photo.pixels, height, width),
    alpha=alpha,
    tags=resized_tags(photo.tags, width / old_width, height / old_height),
  )


def _translate(
  work: Context, group: list[tuple[Job, Photo]]
) -> Iterator[_Translation]:
  job, photo = group[0]
  pixels = np.stack([photo.pixels for _, photo in group])
  name = printable(job.source.name)
  translated = _apply(work, work.translators[job.sample], pixels, name)
  backs: Sequence[np.ndarray | None] = [None] * len(group)
  if work.back:
    backs = list(_apply(work, work.back, translated, f'{name}, back'))
  for (job, photo), image, back in zip(group, translated, backs, strict=True):
    yield _Translation(job, photo, image, back)


def _apply(
  work: Context, translator: Translator, pixels: np.ndarray, name: str
) -> np.ndarray:
  """Translates [B, h, w, C] to [B, h, w, C'], in the values of their files."""
  height, width = pixels.shape[1:3]
  if height * width <= translator.whole_pixels:
    return translator.translate_stored(pixels)
  with work.bar(name) as on_progress:
    return translator.translate_stored(pixels, on_progress=on_progress)


def _write(work: Context, translation: _Translation) -> str:
  job, photo, pixels, back = translation
  try:
    job.target.parent.mkdir(parents=True, exist_ok=True)
    write_photo(str(job.target), pixels, like=photo)
    if back is not None:
      shown = (photo.pixels, pixels, back)
      work.show(job, [InMemory(image) for image in shown], 'image')
  except UserError as error:
    return str(error)
  except OSError as error:
    if error.errno not in OF_ONE_FILE:
      raise
    name = printable(str(job.target))
    return f'{name} cannot be written: {error.strerror}'
  return ''
