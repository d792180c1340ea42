"""Images of TensorFlow Datasets (TFDS), read without TensorFlow.

config.data.dataset is one data set with both domains, in splits trainA,
trainB, testA and testB; dataset_a and dataset_b are two of any kind that have
images. Each is prepared once, as ArrayRecord files, which are read by index.
"""

import io
import logging
import os
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


class _Choice(NamedTuple):
  """The data set that the config names for a domain.

  Attributes:
    option: dotted path of the option that names it.
    dataset: its name.
    train: name of the training split.
    test: name of the test split.
  """

  option: str
  dataset: str
  train: str
  test: str


def open_tfds(config: DataConfig) -> dict[str, Images]:
  """Opens one or two data sets; downloads and prepares them if necessary.

  Returns:
    Images of 'train_a', 'train_b', 'test_a' and 'test_b'.

  Raises:
    ConfigError: TFDS has no such data set, or it lacks the splits or the
      channels, or the path is a folder of images.
    DataError: it cannot be downloaded, prepared or read, or has no images.
    UserError: tensorflow_datasets is not installed.
  """
  if config.path and os.path.isdir(os.path.join(config.path, 'trainA')):
    raise ConfigError(
      f'config.data.path={config.path!r} holds a folder trainA, which '
      "config.data.name='tfds' does not read: set config.data.name=folder"
    )
  check_channels(config)
  choices = {domain: _choice(config, domain) for domain in ('a', 'b')}
  check_installed()
  builders = {
    choice.dataset: prepared_builder(choice.dataset, choice.option, config.path)
    for choice in choices.values()
  }
  images = {}
  for split in ('train', 'test'):
    for domain, choice in choices.items():
      builder = builders[choice.dataset]
      images[f'{split}_{domain}'] = _images(
        builder,
        choice,
        _split_name(builder, choice, split, domain),
        channels=getattr(config, f'channels_{domain}'),
        max_pixels=config.max_pixels,
      )
  return images


def _choice(config: DataConfig, domain: str) -> _Choice:
  option = f'config.data.dataset_{domain}'
  dataset = getattr(config, f'dataset_{domain}')
  if config.dataset and dataset:
    raise ConfigError(
      f'{option}={dataset!r} and config.data.dataset={config.dataset!r} are '
      "both set: leave one of them ''"
    )
  if config.dataset:
    letter = domain.upper()
    return _Choice(
      'config.data.dataset', config.dataset, f'train{letter}', f'test{letter}'
    )
  if not (config.dataset_a or config.dataset_b):
    raise ConfigError(
      'config.data.dataset is not set: give a TFDS data set of two domains, '
      "such as 'cycle_gan/horse2zebra', or two data sets as "
      'config.data.dataset_a and config.data.dataset_b'
    )
  if not dataset:
    raise ConfigError(
      f"{option} is not set: give the TFDS data set of {domain}'s images"
    )
  return _Choice(option, dataset, 'train', 'test')


def _split_name(builder: Any, choice: _Choice, split: str, domain: str) -> str:
  """The name of a split; the training split where there is no test split."""
  splits = builder.info.splits
  if choice.train not in splits:
    hint = ''
    if choice.option == 'config.data.dataset':
      hint = (
        ': give two data sets of one domain each as config.data.dataset_a and '
        'config.data.dataset_b'
      )
    raise ConfigError(
      f'{choice.option}={choice.dataset!r} has no split {choice.train}, only '
      f'{", ".join(sorted(splits)) or "none"}{hint}'
    )
  if split == 'train' or choice.test in splits:
    return choice.train if split == 'train' else choice.test
  logging.getLogger('cyclegan_jax').warning(
    '%s has no split %s: the training images of %s take its place',
    choice.dataset,
    choice.test,
    domain,
  )
  return choice.train


def _images(
  builder: Any, choice: _Choice, split: str, *, channels: int, max_pixels: int
) -> Images:
  import tensorflow_datasets as tfds

  feature = _image_feature(builder, choice)
  # TFDS would decode every feature of a record, and images in its own way.
  raw = tfds.decode.DeserializeMethod.RAW_BYTES
  try:
    source = builder.as_data_source(split, deserialize_method=raw)
  except NotImplementedError as error:
    raise DataError(
      f'{builder.data_dir} holds {choice.dataset} in a format that needs '
      'TensorFlow: give another config.data.path, to prepare it again'
    ) from error
  except Exception as error:
    raise DataError(
      f'{builder.data_dir} cannot be read: {one_line(error)}'
    ) from error
  names = tuple(
    f'{choice.dataset}/{split}/{index:05d}' for index in range(len(source))
  )
  if not names:
    raise DataError(f'{choice.dataset} has no images in its split {split}')
  parser = tfds.features.FeaturesDict({feature: builder.info.features[feature]})
  skip_decoding = {feature: tfds.decode.SkipDecoding()}

  def open_image(index: int) -> io.BytesIO:
    """An image file, as it was put into the data set."""
    try:
      example = parser.deserialize_example_np(
        source[index], decoders=skip_decoding
      )
      return io.BytesIO(example[feature])
    except Exception as error:  # of the reader, which is written in C++
      raise ImageError(names[index], one_line(error)) from error

  def read(index: int) -> np.ndarray:
    return decode(
      open_image(index), names[index], channels=channels, max_pixels=max_pixels
    )

  def shape_of(index: int) -> tuple[int, int]:
    return decoded_shape(open_image(index), names[index], max_pixels=max_pixels)

  num_bytes = builder.info.splits[split].num_bytes
  return Images(
    names=names,
    read=read,
    shape_of=shape_of,
    # The sizes of single records are not known without reading them.
    version=f'{builder.info.version}, {num_bytes} bytes',
  )


def _image_feature(builder: Any, choice: _Choice) -> str:
  """The name of the feature 'image', or of the only one that is an image."""
  import tensorflow_datasets as tfds

  features = dict(builder.info.features or {})
  image_features = [
    name
    for name, feature in features.items()
    if isinstance(feature, tfds.features.Image)
    and feature.np_dtype != np.float32  # which are not stored as image files
    and len(feature.shape) == 3
  ]
  if 'image' in image_features:
    return 'image'
  if len(image_features) == 1:
    return image_features[0]
  problem = 'no feature that is an image'
  if image_features:
    problem = "several features that are images and none called 'image'"
  raise ConfigError(
    f'{choice.option}={choice.dataset!r} has {problem}: it has '
    f'{", ".join(features)}'
  )
