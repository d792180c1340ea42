"""The networks, and what they are applied to."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import rich.progress

from cyclegan_jax.config import Config, Direction
from cyclegan_jax.data.resizing import resize_to
from cyclegan_jax.errors import DataError, printable
from cyclegan_jax.media.image_files import values_for
from cyclegan_jax.report.translation_gallery import TranslationGallery
from cyclegan_jax.translate.options import Options
from cyclegan_jax.translate.plan import Job
from cyclegan_jax.translate.translator import Translator
from cyclegan_jax.types import Params

_PREVIEW_SIDE = 2048  # of a picture for the gallery, at the most twice that
_STRIP_PIXELS = 2**20


class Image(Protocol):
  """What is shown: in memory, or on the disk.

  Attributes:
    shape: (height, width, channels).
    dtype: of its file.
  """

  shape: tuple[int, int, int]
  dtype: Any

  def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    """The window [y1 - y0, x1 - x0, C]."""
    ...


class InMemory:
  """An array [h, w, C] as an Image."""

  def __init__(self, pixels: np.ndarray):
    height, width, channels = pixels.shape
    self.shape = (height, width, channels)
    self.dtype = pixels.dtype
    self._pixels = pixels

  def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    """The window [y1 - y0, x1 - x0, C]."""
    return self._pixels[y0:y1, x0:x1]


class Work:
  """What every job needs.

  Attributes:
    config: of the run.
    options: of the command.
    translators: one for each sample.
    back: of the other direction, where there is a gallery.
    gallery: None where none is wanted.
    max_pixels: that an image may have.
    scratch: folder for what large images keep on the disk.
    progress: the bars.
    notes: what the user should know and is no failure.
  """

  def __init__(
    self,
    config: Config,
    generators: dict[str, Params],
    to: pathlib.Path,
    options: Options,
    num_outputs: int,
    progress: rich.progress.Progress,
  ):
    self.config = config
    self.options = options
    self.max_pixels = options.max_pixels or config.data.max_pixels
    self.scratch = options.scratch or to
    self.progress = progress
    self.notes: list[str] = []

    def make(direction: Direction, sample: int) -> Translator:
      return Translator(
        config,
        generators,
        direction,
        seed=options.seed,
        sample=sample,
        scratch=self.scratch,
      )

    self.translators = [
      make(options.direction, sample) for sample in range(options.samples)
    ]
    self.back = self.gallery = None
    if options.gallery:
      self.back = make('ba' if options.direction == 'ab' else 'ab', 0)
      self.gallery = TranslationGallery(
        to,
        title=to.resolve().name,
        direction=options.direction,
        total=num_outputs,
      )

  @property
  def channels(self) -> tuple[int, int]:
    """Of inputs and of outputs."""
    source, target = self.options.direction
    return self.config.channels(source), self.config.channels(target)

  def is_done(self, job: Job) -> bool:
    """Whether the job's output is there, and shown where it has to be."""
    return os.path.isfile(job.target) and (
      self.gallery is None or self.gallery.has(job.name)
    )

  def new_size(self, shape: tuple[int, ...], job: Job) -> tuple[int, int]:
    """(height, width) by --size.

    Raises:
      DataError: it is too large.
    """
    assert self.options.size is not None
    height, width = shape
    new_width, new_height = self.options.size
    new_width = new_width or max(1, round(width * new_height / height))
    new_height = new_height or max(1, round(height * new_width / width))
    if new_width * new_height > self.max_pixels:
      raise DataError(
        f'{printable(str(job.source))} is not translated: {new_width} x '
        f'{new_height} are more than {self.max_pixels} pixels: lower --size, '
        'or raise --max-pixels'
      )
    return new_height, new_width

  def resize(self, pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """[h, w, C] to [height, width, C], as in training."""
    return resize_to(pixels, height, width, self.config.data)

  def note_pages(self, job: Job, num_pages: int) -> None:
    """Tells of the pages of a TIFF file that are left out."""
    if num_pages > 1:
      self.notes.append(
        f'{printable(str(job.source))} has {num_pages} pages: only the first '
        'is translated'
      )

  @contextlib.contextmanager
  def bar(self, name: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar beside the one of all jobs; what it is told: done, in all."""
    bar = self.progress.add_task(name, total=None)
    try:
      yield lambda done, total: self.progress.update(
        bar, completed=done, total=total
      )
    finally:
      self.progress.remove_task(bar)

  def show(self, job: Job, images: Sequence[Image], kind: str) -> None:
    """Puts a translation into the gallery.

    Args:
      job: that was done.
      images: the source, the translation, and when that was translated back,
        of one size, in the values of their files.
      kind: 'image' or 'clip'.
    """
    assert self.gallery is not None
    there = self.options.direction
    back: Direction = 'ba' if there == 'ab' else 'ab'
    first, second, _ = (np.empty(0, each.dtype) for each in images)
    of_source, _ = values_for(first, self.config.data, there)
    values = (of_source, *values_for(second, self.config.data, back))
    previews = [
      np.concatenate([of.to_network(part) for part in _reduced(image)])
      for of, image in zip(values, images, strict=True)
    ]
    height, width, _ = images[0].shape
    self.gallery.add(
      job.name, *previews, sizes=[(width, height)] * len(images), kind=kind
    )


def _reduced(image: Image) -> Iterator[np.ndarray]:
  """Strips of an image, smaller by a whole factor where it is large."""
  height, width, channels = image.shape
  factor = max(1, max(height, width) // _PREVIEW_SIDE)
  # One that is thinner than the factor keeps what it has.
  down, across = min(factor, height), min(factor, width)
  rows, columns = height // down, width // across
  step = max(1, _STRIP_PIXELS // (down * width))
  for first in range(0, rows, step):
    last = min(first + step, rows)
    strip = image.read(first * down, last * down, 0, columns * across)
    if factor > 1:
      blocks = strip.reshape(last - first, down, columns, across, channels)
      means = blocks.mean(axis=(1, 3), dtype=np.float32)
      strip = means.astype(strip.dtype)
    yield strip
