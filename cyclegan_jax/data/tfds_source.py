"""Images of TensorFlow Datasets (TFDS), read without TensorFlow.

config.data.dataset is one data set with both domains, in splits trainA,
trainB, testA and testB; dataset_a and dataset_b are two of any kind that have
images. Each is prepared once, as ArrayRecord files, which are read by index.
"""

import functools
import io
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cyclegan_jax.config import DataConfig
from cyclegan_jax.data.image_list import (
  Images,
  check_channels,
)
from cyclegan_jax.data.tfds_builders import check_installed, prepared_builder
from cyclegan_jax.errors import ConfigError, DataError, one_line
from cyclegan_jax.media.decoding import (
  ImageError,
  decode,
  decoded_shape,
)


class _Wanted(NamedTuple):
  """What one domain takes of which data set."""

  option: str  # the dotted path of the option that names it
  dataset: str
  train: str  # names of splits
  test: str


class _Records(NamedTuple):
  """The encoded images of one split."""

  source: Sequence[bytes]  # serialised examples
  feature: str  # the image's name in an example
  parser: Any  # tfds.features.FeaturesDict with that feature only
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
  check_installed()
  builders = {
    each.dataset: prepared_builder(each.dataset, each.option, config.path)
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
  # TFDS would decode every feature of a record, and images in its own way.
  raw = tfds.decode.DeserializeMethod.RAW_BYTES
  try:
    source = builder.as_data_source(split, deserialize_method=raw)
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
  parser = tfds.features.FeaturesDict({feature: builder.info.features[feature]})
  records = _Records(source, feature, parser, names)
  return Images(
    names=names,
    read=functools.partial(
      _read, records, channels=channels, max_pixels=max_pixels
    ),
    shape_of=functools.partial(_shape_of, records, max_pixels=max_pixels),
    # Sizes of single records take reading them.
    version=f'{builder.info.version}, {builder.info.splits[split].num_bytes} '
    'bytes',
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
  """The file of an image, as it went into the data set."""
  import tensorflow_datasets as tfds

  feature, name = records.feature, records.names[index]
  skip = {feature: tfds.decode.SkipDecoding()}
  try:
    record = records.source[index]
    example = records.parser.deserialize_example_np(record, decoders=skip)
    return io.BytesIO(example[feature])
  except Exception as error:  # of the reader's, written in C++
    raise ImageError(name, one_line(error)) from error
