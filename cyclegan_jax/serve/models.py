"""Checkpoints on the server, and how they translate an image file."""

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
from cyclegan_jax.report.translate_page import describe_model
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.translate.translator import (
  OnProgress,
  Translator,
)

_STRIP_PIXELS = 2**20  # converted to floats at a time, for a preview


class ServedModel(NamedTuple):
  """A checkpoint on the server.

  Attributes:
    name: to choose it by.
    description: facts for the page, of `describe_model`.
    translators: by direction, for 'ab', 'ba' or both.
  """

  name: str
  description: dict[str, Any]
  translators: dict[str, Translator]


def load_models(
  paths: Sequence[pathlib.Path], scratch: pathlib.Path
) -> list[ServedModel]:
  """Reads checkpoints.

  Args:
    paths: folders of runs or of checkpoints.
    scratch: folder for temporary files of large images.

  Raises:
    WorkdirError: a folder holds no checkpoint, or a damaged one.
  """
  names = [path.resolve().name for path in paths]
  models = []
  for path, name in zip(paths, names, strict=True):
    found = checkpoint.load(path)
    translators: dict[str, Translator] = {
      direction: Translator(
        found.config, found.state.translators, direction, scratch=scratch
      )
      for direction in found.directions
    }
    models.append(
      ServedModel(
        name if names.count(name) == 1 else str(path),
        describe_model(found.config, int(found.state.step), found.directions),
        translators,
      )
    )
  return models


def warm_up_tasks(
  models: Sequence[ServedModel],
) -> Iterator[Callable[[], object]]:
  """Tasks that compile each network for the size that it was trained at."""
  for model in models:
    for translator in model.translators.values():
      size = translator.config.data.size
      channels = translator.config.channels(translator.direction[0])
      images = np.zeros((size, size, channels), np.float32)
      yield functools.partial(translator, images)


def translate_file(
  translator: Translator,
  source: pathlib.Path,
  max_pixels: int,
  on_progress: OnProgress,
) -> pathlib.Path:
  """Translates an image file of any format that can be read.

  Args:
    translator: of the model and direction.
    source: the file; its name does not matter.
    max_pixels: limit on the image's size.
    on_progress: called with (tiles done, tiles in all).

  Returns:
    The new file beside it, of the same size, depth and alpha: PNG, or TIFF
    where PNG has no such pixels.

  Raises:
    UserError: the file cannot be read, or needs a package that is not
      installed.
  """
  channels = translator.config.channels(translator.direction[0])
  photo = read_photo(str(source), channels=channels, max_pixels=max_pixels)
  translated = translator.translate_stored(
    photo.pixels[None], on_progress=on_progress
  )[0]
  fits_png = holds('.png', translated.dtype.name, translated.shape[-1])
  target = source.with_name('translated.png' if fits_png else 'translated.tif')
  write_photo(str(target), translated, like=photo)
  return target


def preview_file(
  config: DataConfig, domain: str, source: pathlib.Path, max_pixels: int
) -> pathlib.Path:
  """Converts an image file to one that browsers can show.

  Args:
    config: of the model's data.
    domain: domain of the image, 'a' or 'b'.
    source: the file; its name does not matter.
    max_pixels: limit on the image's size.

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
  strips = [
    to_rgb(values.to_network(strip)[None])[0]
    for strip in np.array_split(photo.pixels, num_strips)
    if len(strip)
  ]
  target = source.with_name('preview.png')
  write_photo(str(target), np.concatenate(strips))
  return target
