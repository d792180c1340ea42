"""Builders of TensorFlow Datasets (TFDS): found by name, and run once.

They are asked for ArrayRecord files, which need no TensorFlow to be written
or read. Many builders, but not all, do without it too.
"""

import difflib
import logging
import os
from collections.abc import Iterable
from typing import Any

from cyclegan_jax.data.cycle_gan_zip import cycle_gan_builder_class
from cyclegan_jax.errors import ConfigError, DataError, UserError, one_line

_NUM_LISTED = 12  # names that a message shows; of more, the nearest few
_NUM_NEAREST = 3


def check_installed() -> None:
  """Raises UserError where a package of the extra `tfds` is missing."""
  try:
    import array_record  # noqa: F401
    import tensorflow_datasets  # noqa: F401
  except ImportError as error:
    raise UserError(
      f"config.data.name='tfds' needs more packages ({one_line(error)}): "
      "pip install 'cyclegan_jax[tfds]'"
    ) from error


def prepared_builder(dataset: str, option: str, data_dir: str) -> Any:
  """The data set's builder, its files in place.

  Args:
    dataset: 'mnist', 'cycle_gan/maps' or another name that TFDS takes.
    option: the dotted path of the option that names it, for messages.
    data_dir: where TFDS keeps its files; '' for its default.

  Returns:
    A `tfds.core.DatasetBuilder`.

  Raises:
    ConfigError: TFDS doesn't know the name.
    DataError: it can't be downloaded or prepared.
  """
  import tensorflow_datasets as tfds

  builder = _builder(dataset, option, os.path.expanduser(data_dir) or None)
  # Google's bucket of prepared files holds no ArrayRecord.
  download = tfds.download.DownloadConfig(try_download_gcs=False)
  try:
    if not os.path.isdir(builder.data_dir):
      logging.getLogger('cyclegan_jax').warning(
        'preparing %s in %s, once', dataset, builder.data_dir
      )
    builder.download_and_prepare(
      file_format='array_record', download_config=download
    )
  except UserError:
    raise
  except Exception as error:  # every builder has its own
    cause = _root(error)
    if isinstance(cause, ImportError):
      raise DataError(
        f"{option}={dataset!r} can't be prepared here ({one_line(cause)}): "
        'where that is installed, run tfds.builder(...).download_and_prepare('
        "file_format='array_record'), then give its data_dir as "
        'config.data.path'
      ) from error
    raise DataError(
      f"{option}={dataset!r} can't be prepared in {builder.data_dir}: "
      f'{one_line(cause)} ({type(cause).__name__})'
    ) from error
  return builder


def _builder(dataset: str, option: str, data_dir: str | None) -> Any:
  """The data set's builder by its name; ConfigError if there is none."""
  import tensorflow_datasets as tfds

  family, _, rest = dataset.partition('/')
  try:
    if family == 'cycle_gan':
      # Without a config TFDS would take the first in the alphabet.
      return cycle_gan_builder_class()(config=rest or '?', data_dir=data_dir)
    return tfds.builder(dataset, data_dir=data_dir)
  except ImportError as error:
    raise DataError(
      f"{option}={dataset!r} can't be opened: {one_line(error)}"
    ) from error
  except Exception as error:
    known = _known_datasets(family)
    some = 'choose from'
    if len(known) > _NUM_LISTED:
      known, some = _nearest(dataset, known), 'did you mean one of'
    raise ConfigError(
      f'{option}={dataset!r} is unknown to TFDS: {some} {", ".join(known)}'
    ) from error


def _root(error: BaseException) -> BaseException:
  """The first of a chain of errors, to which TFDS adds many lines."""
  while error.__cause__:
    error = error.__cause__
  return error


def _known_datasets(family: str) -> list[str]:
  """Names of data sets; of a known family, those of its variants."""
  import tensorflow_datasets as tfds

  variants = [f'cycle_gan/{each}' for each in _variants('cycle_gan')]
  if family == 'cycle_gan':
    return variants
  builders = tfds.list_builders(with_community_datasets=False)
  if family in builders:
    return [f'{family}/{each}' for each in _variants(family)] or [family]
  return [*builders, *variants]


def _variants(family: str) -> Iterable[str]:
  import tensorflow_datasets as tfds

  return tfds.builder_cls(family).builder_configs


def _nearest(name: str, known: list[str]) -> list[str]:
  """The few known names that look like it, as a whole or after the slash."""

  def likeness(other: str) -> float:
    whole = difflib.SequenceMatcher(None, name, other).ratio()
    ends = name.split('/')[-1], other.split('/')[-1]
    return max(whole, difflib.SequenceMatcher(None, *ends).ratio())

  return sorted(known, key=likeness, reverse=True)[:_NUM_NEAREST]
