"""Context of all jobs: networks, options, progress and the gallery."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import PIL.Image
import rich.progress

from cyclegan_jax.config import Config, Direction
from cyclegan_jax.data.resizing import resize_to
from cyclegan_jax.errors import DataError, printable
from cyclegan_jax.media.image_files import values_for
from cyclegan_jax.media.value_range import FULL, has_room_for, values_of
from cyclegan_jax.report.translation_gallery import TranslationGallery
from cyclegan_jax.translate.options import Options
from cyclegan_jax.translate.plan import Job
from cyclegan_jax.translate.tiling.windows import WindowSource
from cyclegan_jax.translate.translator import Translator
from cyclegan_jax.types import Params

_PREVIEW_SIDE = 2048  # a picture in the gallery is less than twice as large
_STRIP_PIXELS = 2**20


class Image(WindowSource, Protocol):
  """An image in memory or in a file, in the values of its file.

  Attributes:
    dtype: data type of the file.
  """

  dtype: Any


class InMemory:
  """An array [h, w, C] as an `Image`."""

  def __init__(self, pixels: np.ndarray):
    height, width, channels = pixels.shape
    self.shape = (height, width, channels)
    self.dtype = pixels.dtype
    self._pixels = pixels

  def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    """Reads the window [y1 - y0, x1 - x0, C]."""
    return self._pixels[y0:y1, x0:x1]


class Context:
  """Networks, options, progress and gallery that all jobs share.

  Attributes:
    config: config of the run.
    options: options of the translation.
    translators: one translator per sample.
    back: translator of the other direction; None without a gallery.
    gallery: page of the translations; None without one.
    max_pixels: limit on the pixels of an image.
    scratch: folder of scratch files.
    progress: progress bars.
    identity: text that tells these translations from those by another
      checkpoint, direction or seed.
    notes: messages for the user that are not failures.
  """

  def __init__(
    self,
    config: Config,
    generators: dict[str, Params],
    to: pathlib.Path,
    options: Options,
    num_outputs: int,
    progress: rich.progress.Progress,
    identity: str = '',
  ):
    self.config = config
    self.options = options
    self.max_pixels = options.max_pixels or config.data.max_pixels
    self.scratch = options.scratch or to
    self.progress = progress
    self.identity = identity
    self.notes: list[str] = []
    self._noted = set[str]()
    # Numbers of values outside the trained range, and of all, by input.
    self._clipped: dict[str, np.ndarray] = {}

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
      source, target = options.direction
      self.back = make('ba' if options.direction == 'ab' else 'ab', 0)
      self.gallery = TranslationGallery(
        to,
        title=to.resolve().name,
        direction=options.direction,
        total=num_outputs,
        names=(config.data.name_of(source), config.data.name_of(target)),
      )

  @property
  def channels(self) -> tuple[int, int]:
    """Numbers of channels of inputs and of outputs."""
    source, target = self.options.direction
    return self.config.channels(source), self.config.channels(target)

  def is_done(self, job: Job) -> bool:
    """Whether the job's output exists, and the gallery shows it."""
    return os.path.isfile(job.target) and (
      self.gallery is None or self.gallery.has(job.name)
    )

  def new_size(self, shape: tuple[int, ...], job: Job) -> tuple[int, int]:
    """Height and width of an output by --size.

    Raises:
      DataError: they exceed `max_pixels`.
    """
    assert self.options.size is not None
    height, width = shape
    new_width, new_height = self.options.size
    new_width = new_width or max(1, round(width * new_height / height))
    new_height = new_height or max(1, round(height * new_width / width))
    if new_width * new_height > self.max_pixels:
      raise DataError(
        f'{printable(str(job.source))} is not translated: {new_width} x '
        f'{new_height} are more than {self.max_pixels} pixels. Lower --size, '
        'or raise --max-pixels'
      )
    return new_height, new_width

  def resize(self, pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes [h, w, C] to [height, width, C], as in training."""
    return resize_to(pixels, height, width, self.config.data)

  def resize_missing(
    self, missing: np.ndarray, height: int, width: int
  ) -> np.ndarray:
    """Resizes bool [h, w], where pixels are without data."""
    image = PIL.Image.fromarray(missing.astype(np.uint8))
    nearest = image.resize((width, height), PIL.Image.Resampling.NEAREST)
    return np.asarray(nearest) > 0

  def note_pages(self, job: Job, num_pages: int) -> None:
    """Notes that further pages, or frames of an AVIF file, are skipped."""
    if num_pages > 1:
      self.notes.append(
        f'{printable(str(job.source))} has {num_pages} pages or frames: only '
        'the first is translated'
      )

  def note_conversion(self, job: Job, dtype: str, colors: int) -> None:
    """Notes, once of each kind, what happens to an unlike file.

    Args:
      job: the job.
      dtype: type of the file's values.
      colors: channels of the file, without alpha.
    """
    name = printable(str(job.source))
    channels, trained = (
      self.channels[0],
      values_of(self.config.data, self.options.direction[0]).dtype,
    )
    notes = {}
    if (colors, channels) == (1, 3):
      notes['gray'] = f'{name} is gray: it is repeated to 3 channels'
    elif (colors, channels) == (3, 1):
      notes['color'] = f'{name} has colors: it is converted to gray'
    if dtype != trained and dtype in FULL:
      notes[dtype] = (
        f'{name} holds {dtype} and the network was trained on {trained}: the '
        f'full range of {dtype}, 0 to {FULL[dtype]:g}, is scaled'
      )
    for kind, note in notes.items():
      if kind not in self._noted:
        self._noted.add(kind)
        self.notes.append(f'{note} (others like it are not listed)')

  def note_missing(
    self, job: Job, missing: np.ndarray | None, dtype: str, mark: float
  ) -> None:
    """Notes once that an output does not mark pixels without data.

    Args:
      job: the job.
      missing: bool [h, w], where the input has no data; None for nowhere.
      dtype: type of the output's values.
      mark: the value that marks pixels without data in a TIFF file.
    """
    if missing is None or 'missing' in self._noted or not missing.any():
      return
    is_tiff = job.target.suffix.lower() in ('.tif', '.tiff')
    if not (is_tiff and has_room_for(dtype, mark)):
      self._noted.add('missing')
      reason = f'it holds {dtype}' if is_tiff else 'give --format tiff'
      self.notes.append(
        f'{printable(str(job.source))} has pixels without data, which '
        f'{printable(job.target.name)} does not mark: {reason} (others like it '
        'are not listed)'
      )

  def count_clipped(
    self, job: Job, pixels: np.ndarray, missing: np.ndarray | None = None
  ) -> None:
    """Counts values outside the range that the network was trained on.

    Args:
      job: the job.
      pixels: [h, w, C] of the input, in the values of its file.
      missing: bool [h, w], where it has no data; None for nowhere.
    """
    values, _ = values_for(pixels, self.config.data, self.options.direction)
    if job.sample or (values.low, values.high) == (0, FULL.get(values.dtype)):
      return
    is_known = np.isfinite(pixels)
    if missing is not None:
      is_known &= ~missing[..., None]
    is_outside = (pixels < values.low) | (pixels > values.high)
    counts = np.array([(is_outside & is_known).sum(), is_known.sum()])
    name = str(job.source)
    self._clipped[name] = self._clipped.get(name, 0) + counts

  def note_clipped(self) -> None:
    """Notes the inputs with values outside the range, by the worst of them."""
    shares = {
      name: num_outside / total
      for name, (num_outside, total) in self._clipped.items()
      if num_outside
    }
    if not shares:
      return
    worst = max(shares, key=lambda name: shares[name])
    values = values_of(self.config.data, self.options.direction[0])
    files = 'input' if len(shares) == 1 else 'inputs'
    self.notes.append(
      f'values outside the range {values.low:g} to {values.high:g} of the '
      f'training are clipped in {len(shares):,} {files}; the largest share is '
      f'{100 * shares[worst]:.2g}% of {printable(worst)}'
    )

  @contextlib.contextmanager
  def bar(self, name: str) -> Iterator[Callable[[int, int | None], None]]:
    """Shows a bar below that of all jobs; yields its (done, total) setter."""
    bar = self.progress.add_task(name, total=None)
    try:
      yield lambda done, total: self.progress.update(
        bar, completed=done, total=total
      )
    finally:
      self.progress.remove_task(bar)

  def show(self, job: Job, images: Sequence[Image], kind: str) -> None:
    """Adds a translation to the gallery.

    Args:
      job: the job.
      images: source, translation and reconstruction, of one size, in the
        values of their files.
      kind: 'image' or 'clip'.
    """
    assert self.gallery is not None
    assert self.back is not None
    data = self.config.data
    source, translated, _ = (np.empty(0, image.dtype) for image in images)
    values = (
      values_for(source, data, self.options.direction)[0],
      *values_for(translated, data, self.back.direction),
    )
    previews = [
      np.concatenate(
        [of_image.to_network(strip) for strip in _reduced_strips(image)]
      )
      for of_image, image in zip(values, images, strict=True)
    ]
    height, width, _ = images[0].shape
    self.gallery.add(
      job.name, *previews, sizes=[(width, height)] * len(images), kind=kind
    )


def _reduced_strips(image: Image) -> Iterator[np.ndarray]:
  """Strips of an image; a large image is reduced by an integer factor."""
  height, width, channels = image.shape
  factor = max(1, max(height, width) // _PREVIEW_SIDE)
  # A side that is shorter than the factor becomes one pixel.
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
