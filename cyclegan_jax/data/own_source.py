"""Images that a program or a plugin gives as sequences of arrays."""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from cyclegan_jax.config import DTYPES, DataConfig
from cyclegan_jax.data.image_list import Images
from cyclegan_jax.errors import DataError, ImageError, one_line
from cyclegan_jax.media.metadata import Header

_SPLITS = ('train_a', 'train_b', 'test_a', 'test_b')
_NUM_HASHED = 16  # images of a sequence that its fingerprint covers


class ArraySequence(Protocol):
  """Arrays by index, as in Grain's RandomAccessDataSource or a list."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: Any) -> Any: ...


def images_of_sequences(
  config: DataConfig, sequences: Mapping[str, ArraySequence | Images]
) -> dict[str, Images]:
  """Makes images of sequences of arrays.

  Args:
    config: the numbers of channels.
    sequences: arrays [h, w, C], uint8, uint16, int16 or float32, of 'train_a',
      'train_b', and optionally 'test_a' and 'test_b'. Without test images, the
      training images replace them.

  Raises:
    DataError: a split is missing, empty or unknown.
  """
  unknown = [split for split in sequences if split not in _SPLITS]
  if unknown:
    raise DataError(
      f'the data source has {unknown[0]!r}: give {", ".join(_SPLITS)}'
    )
  images = {}
  for split in _SPLITS:
    domain = split[-1]
    sequence = sequences.get(split)
    if sequence is None and split.startswith('test'):
      sequence = sequences[f'train_{domain}']
    if sequence is None or not len(sequence):
      raise DataError(f'the data source has no images for {split}')
    if not isinstance(sequence, Images):
      channels = {'a': config.channels_a, 'b': config.channels_b}[domain]
      sequence = _images(split, sequence, channels)
    images[split] = sequence
  return images


def _images(split: str, sequence: ArraySequence, channels: int) -> Images:
  names = tuple(f'{split}/{index}' for index in range(len(sequence)))
  read = functools.partial(_read, sequence, names, channels)
  digest = hashlib.sha256()
  for index in np.linspace(0, len(names) - 1, _NUM_HASHED, dtype=int):
    digest.update(read(int(index)).tobytes())
  return Images(
    names=names,
    read=read,
    shape_of=None,
    version=digest.hexdigest(),
    stored=read,
    header_of=lambda index: Header(str(read(index).dtype), channels, 1, False),
  )


def _read(
  sequence: ArraySequence, names: Sequence[str], channels: int, index: int
) -> np.ndarray:
  try:
    image = np.asarray(sequence[index])
  except Exception as error:  # of the user's code
    raise ImageError(
      names[index], f'{type(error).__name__}: {one_line(error)}'
    ) from error
  if image.ndim != 3 or image.shape[2] != channels:
    raise ImageError(
      names[index],
      f'it has the shape {image.shape}, and not (height, width, {channels})',
    )
  if str(image.dtype) not in DTYPES:
    raise ImageError(
      names[index], f'it is {image.dtype}, and not {" or ".join(DTYPES)}'
    )
  if not image.size:
    raise ImageError(names[index], 'it has no pixels')
  return image
