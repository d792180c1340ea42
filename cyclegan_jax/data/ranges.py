"""The values of a run's images: found out once, then applied to each."""

import dataclasses
import functools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import rich.console
import rich.progress

from cyclegan_jax.config import DataConfig
from cyclegan_jax.data.image_list import Images
from cyclegan_jax.errors import ConfigError, DataError
from cyclegan_jax.media.decoding import ImageError
from cyclegan_jax.media.value_range import (
  FULL,
  Values,
  is_settled,
  values_of,
)

# Beyond it is no measurement: the largest floats mark pixels without one.
_MAX_VALUE = 1e30


def resolve_values(
  config: DataConfig,
  images: Mapping[str, Images],
  *,
  saved: DataConfig | None = None,
) -> DataConfig:
  """Fills in the types and the ranges of both domains' values.

  Args:
    config: as the user gave it.
    images: 'train_a' and 'train_b'.
    saved: of the run to go on with, whose values hold where none are given.

  Raises:
    ConfigError: the source has no such values.
    DataError: floats have no range.
  """
  changes: dict[str, str | float] = {}
  for domain in 'ab':
    dtype = getattr(config, f'dtype_{domain}')
    low, high = (getattr(config, f'{end}_{domain}') for end in ('low', 'high'))
    train = images[f'train_{domain}']
    known = values_of(saved, domain) if saved else None
    dtype = dtype or (known.dtype if known else _first_dtype(train))
    if train.dtype_of is None and dtype != 'uint8':
      raise ConfigError(
        f'config.data.dtype_{domain}={dtype!r} does not fit the images of '
        f'config.data.name={config.name!r}, which have 8 bits'
      )
    if low == high:
      if known and known.dtype == dtype:
        low, high = known.low, known.high
      elif dtype in FULL:
        low, high = 0.0, FULL[dtype]
      else:
        low, high = _measured_range(config, train, domain)
    changes |= {f'dtype_{domain}': dtype}
    changes |= {f'low_{domain}': low, f'high_{domain}': high}
  return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def with_values(
  images: Mapping[str, Images], config: DataConfig
) -> dict[str, Images]:
  """Images that are read by the values in a config.

  Args:
    images: by split, 'train_a' and so on.
    config: where it is not resolved, images stay as they are.
  """
  return {
    split: _with_values(each, values_of(config, split[-1]))
    if is_settled(config, split[-1])
    else each
    for split, each in images.items()
  }


def _with_values(images: Images, values: Values) -> Images:
  if values.is_plain:
    return images
  read = functools.partial(_read, images, values)
  return dataclasses.replace(images, read=read)


def _read(images: Images, values: Values, index: int) -> np.ndarray:
  """float32 [h, w, C] in [-1, 1]."""
  pixels = (images.stored or images.read)(index)
  try:
    return values.of(str(pixels.dtype)).to_network(pixels)
  except ValueError as error:
    raise ImageError(images.names[index], str(error)) from error


def _first_dtype(images: Images) -> str:
  """The type of the first image whose header can be read."""
  for index in range(len(images) if images.dtype_of else 0):
    assert images.dtype_of
    try:
      return images.dtype_of(index)
    except ImageError:
      continue  # the decoder will count it
  return 'uint8'


def _measured_range(
  config: DataConfig, images: Images, domain: str
) -> tuple[float, float]:
  """The least and the largest value of the images of floats or int16."""
  lows, highs = [], []
  threads = ThreadPoolExecutor(max(1, config.num_workers))
  try:
    for found in rich.progress.track(
      threads.map(functools.partial(_extent, images), range(len(images))),
      f'measuring the values of train_{domain}',
      len(images),
      transient=True,
      console=rich.console.Console(stderr=True),
    ):
      if found:
        lows.append(found[0])
        highs.append(found[1])
  finally:  # without waiting for a disk that hangs
    threads.shutdown(wait=False, cancel_futures=True)
  trouble = (
    f'none of the {len(images)} images of train_{domain} holds floats or int16'
  )
  if lows:
    low, high = min(lows), max(highs)
    if low < high and max(-low, high) <= _MAX_VALUE:
      return low, high
    trouble = (
      f'the values of train_{domain} reach from {low:g} to {high:g}, which is '
      'no range'
    )
  raise DataError(
    f'{trouble}: set config.data.low_{domain} and config.data.high_{domain}'
  )


def _extent(images: Images, index: int) -> tuple[float, float] | None:
  """The least and the largest finite value; None where there is none."""
  assert images.stored
  try:
    pixels = images.stored(index)
  except ImageError:
    return None  # the decoder will count it
  finite = pixels[np.isfinite(pixels)]
  if str(pixels.dtype) in FULL or not finite.size:
    return None
  return float(finite.min()), float(finite.max())
