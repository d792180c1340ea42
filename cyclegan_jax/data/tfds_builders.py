"""Builders of TensorFlow Datasets (TFDS): found by name, and run once.

They write ArrayRecord files, which are written and read without TensorFlow.
Many builders, but not all, work without it, too.
"""

import difflib
import logging
import os
from typing import Any

from cyclegan_jax.data.cycle_gan_zip import cycle_gan_builder_class
from cyclegan_jax.errors import ConfigError, DataError, UserError, one_line

_NUM_LISTED = 12  # names that a message lists; of more, it suggests a few


def check_installed() -> None:
  """Raises UserError where TFDS or a package that it needs is missing."""
  try:
    import array_record  # noqa: F401
    import tensorflow_datasets  # noqa: F401
  except ImportError as error:
    raise UserError(
      f"config.data.name='tfds' needs more packages ({one_line(error)}): "
      'pip install array_record tensorflow-datasets'
    ) from error


def prepared_builder(dataset: str, option: str, data_dir: str) -> Any:
  """Returns a data set's builder, its files in place.

  Args:
    dataset: 'mnist', 'cycle_gan/maps' or another name that TFDS takes.
    option: dotted path of the option that names it, for messages.
    data_dir: where TFDS keeps its files; '' for its default.

  Returns:
    A `tfds.core.DatasetBuilder`.

  Raises:
    ConfigError: TFDS has no such data set.
    DataError: it cannot be downloaded or prepared.
  """
  import tensorflow_datasets as tfds

  builder = _builder(dataset, option, data_dir or None)
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
    cause = _first_cause(error)
    if isinstance(cause, ImportError):
      raise DataError(
        f'{option}={dataset!r} cannot be prepared here ({one_line(cause)}): '
        'where that is installed, run tfds.builder(...).download_and_prepare('
        "file_format='array_record'), then give its data_dir as "
        'config.data.path'
      ) from error
    raise DataError(
      f'{option}={dataset!r} cannot be prepared in {builder.data_dir}: '
      f'{one_line(cause)} ({type(cause).__name__})'
    ) from error
  return builder


def _builder(dataset: str, option: str, data_dir: str | None) -> Any:
  import tensorflow_datasets as tfds

  family, _, config = dataset.partition('/')
  try:
    if family == 'cycle_gan':
      # Without a config, TFDS would take the first in the alphabet.
      return cycle_gan_builder_class()(config=config or '?', data_dir=data_dir)
    return tfds.builder(dataset, data_dir=data_dir)
  except ImportError as error:
    raise DataError(
      f'{option}={dataset!r} cannot be opened: {one_line(error)}'
    ) from error
  except Exception as error:
    names = _known_datasets(family)
    hint = 'choose from'
    if len(names) > _NUM_LISTED:
      names = difflib.get_close_matches(dataset, names, cutoff=0)
      hint = 'did you mean one of'
    raise ConfigError(
      f'{option}={dataset!r} is unknown to TFDS: {hint} {", ".join(names)}'
    ) from error


def _first_cause(error: BaseException) -> BaseException:
  """The first error of a chain, to which TFDS adds many lines."""
  while error.__cause__:
    error = error.__cause__
  return error


def _known_datasets(family: str) -> list[str]:
  """Names of data sets; of a known family, those of its configs."""
  import tensorflow_datasets as tfds

  def configs_of(name: str) -> list[str]:
    configs = tfds.builder_cls(name).builder_configs
    return [f'{name}/{config}' for config in configs] or [name]

  names = tfds.list_builders(with_community_datasets=False)
  if family in (*names, 'cycle_gan'):
    return configs_of(family)
  return [*names, *configs_of('cycle_gan')]
