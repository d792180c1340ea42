"""Images of TensorFlow Datasets (TFDS), read without TensorFlow.

config.data.dataset is one data set with both domains, in splits trainA,
trainB, testA and testB; dataset_a and dataset_b are two of any kind that have
images. Each is prepared once, as ArrayRecord files, which are read by index.
"""

import difflib
import functools
import io
import logging
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from cyclegan_jax.config import DataConfig
from cyclegan_jax.data.cycle_gan_zip import cycle_gan_builder_class
from cyclegan_jax.data.decoding import (
  ImageError,
  Images,
  check_channels,
  decode,
  decoded_shape,
  one_line,
)
from cyclegan_jax.errors import ConfigError, DataError, UserError

_NUM_SUGGESTED = 3


class _Wanted(NamedTuple):
  """What one domain takes of which data set."""

  option: str  # the dotted path of the option that names it
  dataset: str
  train: str  # names of splits
  test: str


class _Records(NamedTuple):
  """The encoded images of one split."""

  source: Sequence[dict[str, Any]]
  feature: str  # the image's name in a record
  names: tuple[str, ...]


def open_tfds(config: DataConfig) -> dict[str, Images]:
  """The images of one or two data sets, prepared if they are not yet.

  Raises:
    ConfigError: no such data set, or it lacks the splits or the channels.
    DataError: it can't be downloaded, prepared or read, or has no images.
    UserError: tensorflow_datasets is not installed.
  """
  check_channels(config)
  wanted = {domain: _wanted(config, domain) for domain in ('a', 'b')}
  _check_installed()
  builders = {
    each.dataset: _prepared(each.dataset, each.option, config.path)
    for each in wanted.values()
  }
  images = {}
  for split in ('train', 'test'):
    for domain, each in wanted.items():
      builder = builders[each.dataset]
      images[f'{split}_{domain}'] = _images_of(
        builder,
        each,
        _split_of(builder, each, split, domain),
        channels=getattr(config, f'channels_{domain}'),
        max_pixels=config.max_pixels,
      )
  return images


def _wanted(config: DataConfig, domain: str) -> _Wanted:
  option = f'config.data.dataset_{domain}'
  dataset = getattr(config, f'dataset_{domain}')
  if config.dataset and dataset:
    raise ConfigError(
      f'{option}={dataset!r} and config.data.dataset={config.dataset!r} are '
      "both set: leave one of them ''"
    )
  if config.dataset:
    letter = domain.upper()
    return _Wanted(
      'config.data.dataset', config.dataset, f'train{letter}', f'test{letter}'
    )
  if not (config.dataset_a or config.dataset_b):
    raise ConfigError(
      'config.data.dataset is not set: give a TFDS data set of two domains, '
      "such as 'cycle_gan/horse2zebra', or two data sets by "
      'config.data.dataset_a and config.data.dataset_b'
    )
  if not dataset:
    raise ConfigError(
      f"{option} is not set: give the TFDS data set of {domain}'s images"
    )
  return _Wanted(option, dataset, 'train', 'test')


def _check_installed() -> None:
  """Raises UserError where a package of the extra `tfds` is missing."""
  try:
    import array_record  # noqa: F401
    import tensorflow_datasets  # noqa: F401
  except ImportError as error:
    raise UserError(
      f"config.data.name='tfds' needs more packages ({one_line(error)}): "
      "pip install 'cyclegan_jax[tfds]'"
    ) from error


def _prepared(dataset: str, option: str, data_dir: str) -> Any:
  """The data set's builder, its files in place."""
  import tensorflow_datasets as tfds

  builder = _builder(dataset, option, os.path.expanduser(data_dir) or None)
  # Google's bucket of prepared files holds no ArrayRecord.
  download = tfds.download.DownloadConfig(try_download_gcs=False)
  try:
    if not os.path.isdir(builder.data_dir):
      logging.getLogger('cyclegan_jax').info(
        'preparing %s in %s, once', dataset, builder.data_dir
      )
    builder.download_and_prepare(
      file_format='array_record', download_config=download
    )
  except UserError:
    raise
  except ImportError as error:
    raise DataError(
      f"{option}={dataset!r} can't be prepared here ({one_line(error)}): "
      'where that is installed, run tfds.builder(...).download_and_prepare('
      "file_format='array_record'), then give its data_dir as "
      'config.data.path'
    ) from error
  except Exception as error:  # every builder has its own
    raise DataError(
      f"{option}={dataset!r} can't be prepared in {builder.data_dir}: "
      f'{one_line(error)} ({type(error).__name__})'
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
    nearest = ', '.join(_nearest(dataset, _known_datasets(family)))
    raise ConfigError(
      f'{option}={dataset!r} is not a data set of TFDS: did you mean one of '
      f'{nearest}?'
    ) from error


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

  return sorted(known, key=likeness, reverse=True)[:_NUM_SUGGESTED]


def _split_of(builder: Any, wanted: _Wanted, split: str, domain: str) -> str:
  """The name of the split to read; the training split if there's no test."""
  found = builder.info.splits
  if wanted.train not in found:
    hint = ''
    if wanted.option == 'config.data.dataset':
      hint = (
        ': two data sets of one domain each are config.data.dataset_a and '
        'config.data.dataset_b'
      )
    raise ConfigError(
      f'{wanted.option}={wanted.dataset!r} has no split {wanted.train}, only '
      f'{", ".join(sorted(found)) or "none"}{hint}'
    )
  if split == 'train' or wanted.test in found:
    return wanted.train if split == 'train' else wanted.test
  logging.getLogger('cyclegan_jax').warning(
    '%s has no split %s: the training images of %s take its place',
    wanted.dataset,
    wanted.test,
    domain,
  )
  return wanted.train


def _images_of(
  builder: Any, wanted: _Wanted, split: str, *, channels: int, max_pixels: int
) -> Images:
  import tensorflow_datasets as tfds

  feature = _image_feature(builder, wanted)
  # Bytes are decoded as every source's are; other features not at all.
  decoders = tfds.decode.PartialDecoding(
    {feature: True}, decoders={feature: tfds.decode.SkipDecoding()}
  )
  try:
    source = builder.as_data_source(split, decoders=decoders)
  except NotImplementedError as error:
    raise DataError(
      f'{builder.data_dir} holds {wanted.dataset} in a format that takes '
      'TensorFlow to read: give another config.data.path, to prepare it anew'
    ) from error
  except Exception as error:
    raise DataError(
      f"{builder.data_dir} can't be read: {one_line(error)}"
    ) from error
  names = tuple(
    f'{wanted.dataset}/{split}/{index:05d}' for index in range(len(source))
  )
  if not names:
    raise DataError(f'{wanted.dataset} has no images in its split {split}')
  records = _Records(source, feature, names)
  return Images(
    names=names,
    read=functools.partial(
      _read, records, channels=channels, max_pixels=max_pixels
    ),
    shape_of=functools.partial(_shape_of, records, max_pixels=max_pixels),
  )


def _image_feature(builder: Any, wanted: _Wanted) -> str:
  """The name of the feature 'image', or of the only one that is an image."""
  import tensorflow_datasets as tfds

  features = dict(builder.info.features or {})
  found = [
    name
    for name, feature in features.items()
    if isinstance(feature, tfds.features.Image)
    and feature.np_dtype != np.float32  # those bytes are not a picture
    and len(feature.shape) == 3
  ]
  if 'image' in found:
    return 'image'
  if len(found) == 1:
    return found[0]
  trouble = 'no feature that is an image'
  if found:
    trouble = "several features that are images and none called 'image'"
  raise ConfigError(
    f'{wanted.option}={wanted.dataset!r} has {trouble}: it has '
    f'{", ".join(features)}'
  )


def _read(
  records: _Records, index: int, *, channels: int, max_pixels: int
) -> np.ndarray:
  return decode(
    _encoded(records, index),
    records.names[index],
    channels=channels,
    max_pixels=max_pixels,
  )


def _shape_of(
  records: _Records, index: int, *, max_pixels: int
) -> tuple[int, int]:
  return decoded_shape(
    _encoded(records, index), records.names[index], max_pixels=max_pixels
  )


def _encoded(records: _Records, index: int) -> io.BytesIO:
  name = records.names[index]
  try:
    return io.BytesIO(records.source[index][records.feature])
  except Exception as error:  # of the reader's, written in C++
    raise ImageError(name, one_line(error)) from error
