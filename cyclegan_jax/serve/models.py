"""Checkpoints that can be chosen, and what they make of an image file."""

import functools
import math
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from cyclegan_jax.config import DataConfig
from cyclegan_jax.images import to_rgb
from cyclegan_jax.media.decoding import ImageError
from cyclegan_jax.media.image_files import (
  holds,
  read_photo,
  write_photo,
)
from cyclegan_jax.media.value_range import values_of
from cyclegan_jax.report.translate_page import describe
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.translate.translator import (
  OnProgress,
  Translator,
)

_STRIP_PIXELS = 2**20  # whose floats are in memory for a preview


class Model(NamedTuple):
  """A checkpoint.

  Attributes:
    name: to choose it by.
    about: what tells it from others, in a line.
    translators: by direction, 'ab' and 'ba' or one of them.
  """

  name: str
  about: str
  translators: dict[str, Translator]


def load_models(
  paths: Sequence[pathlib.Path], scratch: pathlib.Path
) -> list[Model]:
  """Reads checkpoints.

  Args:
    paths: runs' folders, or checkpoints'.
    scratch: folder for what large images keep on disk.

  Raises:
    WorkdirError: one of them is no checkpoint, or damaged.
  """
  names = [path.resolve().name for path in paths]
  return [
    _load(path, name if names.count(name) == 1 else str(path), scratch)
    for path, name in zip(paths, names, strict=True)
  ]


def _load(path: pathlib.Path, name: str, scratch: pathlib.Path) -> Model:
  found = checkpoint.load(path)
  directions: tuple[Any, ...] = found.directions
  translators = {
    direction: Translator(
      found.config, found.state.translators, direction, scratch=scratch
    )
    for direction in directions
  }
  about = describe(found.config, int(found.state.step))
  return Model(name, about, translators)


def warm_ups(models: Sequence[Model]) -> Iterator[Callable[[], object]]:
  """Tasks that compile each network, at the size that it was trained at."""
  for model in models:
    for translator in model.translators.values():
      yield functools.partial(_warm_up, translator)


def _warm_up(translator: Translator) -> None:
  size = translator.config.data.size
  channels = translator.config.channels(translator.direction[0])
  translator(np.zeros((size, size, channels), np.float32))


def translate_file(
  translator: Translator,
  source: pathlib.Path,
  max_pixels: int,
  on_progress: OnProgress,
) -> pathlib.Path:
  """Translates an image file, of any of the formats that are read.

  Args:
    translator: of the model and direction.
    source: the file, whose name says nothing.
    max_pixels: that it may have.
    on_progress: called with (tiles done, tiles in all).

  Returns:
    The new file beside it, of the same size, depth and alpha: PNG, or TIFF
    where PNG has no such pixels.

  Raises:
    UserError: it can't be read, or takes a package that is not installed.
  """
  channels = translator.config.channels(translator.direction[0])
  photo = read_photo(str(source), channels=channels, max_pixels=max_pixels)
  made = translator.translate_stored(
    photo.pixels[None], on_progress=on_progress
  )[0]
  fits = holds('.png', made.dtype.name, made.shape[-1])
  target = source.with_name('translated.png' if fits else 'translated.tif')
  write_photo(str(target), made, like=photo)
  return target


def preview_file(
  config: DataConfig, domain: str, source: pathlib.Path, max_pixels: int
) -> pathlib.Path:
  """An image file as a browser can show it.

  Args:
    config: of a model.
    domain: 'a' or 'b', of which the image is.
    source: the file, whose name says nothing.
    max_pixels: that it may have.

  Returns:
    A PNG file beside it, of 8 bits and the same size.

  Raises:
    UserError: as for `translate_file`.
  """
  channels = getattr(config, f'channels_{domain}')
  photo = read_photo(str(source), channels=channels, max_pixels=max_pixels)
  try:
    values = values_of(config, domain).of(photo.pixels.dtype.name)
  except ValueError as error:
    raise ImageError(str(source), str(error)) from error
  num_strips = math.ceil(math.prod(photo.pixels.shape[:2]) / _STRIP_PIXELS)
  shown = [
    to_rgb(values.to_network(strip)[None])[0]
    for strip in np.array_split(photo.pixels, num_strips)
    if len(strip)
  ]
  target = source.with_name('preview.png')
  write_photo(str(target), np.concatenate(shown))
  return target
