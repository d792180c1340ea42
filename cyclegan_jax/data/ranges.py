"""Types and ranges of a run's pixel values: resolved once, then applied."""

import dataclasses
import functools
import logging
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

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
from cyclegan_jax.terminal import track

# Larger values are not measurements: the largest floats mark missing pixels.
_MAX_VALUE = 1e30
_MEASURED = ('int16', 'float32')
# Images of full range whose values are looked at, and the share of the range,
# one of so many, below which a warning says how to set it.
_MAX_SAMPLED = 32
_NARROW = 8


def resolve_values(
  config: DataConfig,
  images: Mapping[str, Images],
  *,
  saved: DataConfig | None = None,
  other_domains: Collection[str] = (),
) -> DataConfig:
  """Fills in the types, ranges and units of both domains' values.

  Args:
    config: data options of the user.
    images: 'train_a' and 'train_b'.
    saved: data options of the run to resume, which replace missing ones.
    other_domains: domains that the run is changed to other images of. Their
      modality and units are those of the new images, and values outside the
      range that the run keeps are reported.

  Raises:
    ConfigError: the data source has no such values.
    DataError: images of floats have no range.
  """
  changes: dict[str, Any] = {}
  for domain in 'ab':
    dtype = getattr(config, f'dtype_{domain}')
    low, high = (getattr(config, f'{end}_{domain}') for end in ('low', 'high'))
    train = images[f'train_{domain}']
    known = values_of(saved, domain) if saved else None
    dtype = dtype or (known.dtype if known else _first_dtype(train))
    if train.header_of is None and dtype != 'uint8':
      raise ConfigError(
        f'config.data.dtype_{domain}={dtype!r} does not fit the images of '
        f'config.data.name={config.name!r}, which have 8 bits'
      )
    if low == high:
      if known and known.dtype == dtype:
        low, high = known.low, known.high
        if domain in other_domains and train.stored:
          _report_clipped(train, domain, low, high)
      elif dtype in FULL:
        low, high = 0.0, FULL[dtype]
        if train.stored:
          _warn_of_narrow_range(config, train, domain, dtype)
      else:
        low, high = _measured_range(config, train, domain)
    elif train.stored:
      _report_clipped(train, domain, low, high)
    for name in ('modality', 'rescale_type'):
      option = f'{name}_{domain}'
      recorded = getattr(config, option)
      if saved and domain not in other_domains:
        recorded = recorded or getattr(saved, option)
      changes |= {option: recorded or getattr(train, name)}
    changes |= {f'dtype_{domain}': dtype}
    changes |= {f'low_{domain}': low, f'high_{domain}': high}
  return dataclasses.replace(config, **changes)


def with_values(
  images: Mapping[str, Images], config: DataConfig
) -> dict[str, Images]:
  """Makes images whose values are scaled as a config says.

  Args:
    images: images by split, 'train_a' and so on.
    config: resolved data options; images of a domain without a resolved range
      stay as they are.
  """
  return {
    split: _scale(of_split, values_of(config, split[-1]))
    if is_settled(config, split[-1])
    else of_split
    for split, of_split in images.items()
  }


def _scale(images: Images, values: Values) -> Images:
  if values.is_plain:
    return images
  read = functools.partial(_read_scaled, images, values)
  return dataclasses.replace(images, read=read)


def _read_scaled(images: Images, values: Values, index: int) -> np.ndarray:
  """Reads an image as float32 [h, w, C] in [-1, 1]."""
  pixels = (images.stored or images.read)(index)
  try:
    return values.of(str(pixels.dtype)).to_network(pixels)
  except ValueError as error:
    raise ImageError(images.names[index], str(error)) from error


def _first_dtype(images: Images) -> str:
  """Type of the first image with a readable header."""
  for index in range(len(images) if images.header_of else 0):
    assert images.header_of
    try:
      return images.header_of(index).dtype
    except ImageError:
      continue  # the decoder will count it
  return 'uint8'


def _measured_range(
  config: DataConfig, images: Images, domain: str
) -> tuple[float, float]:
  """The least and the largest value of the images of floats or int16."""
  trouble = (
    f'none of the {len(images)} images of train_{domain} holds floats or int16'
  )
  extent = _extent(config, images, domain, range(len(images)), _MEASURED)
  if extent:
    low, high = extent
    if low < high and max(-low, high) <= _MAX_VALUE:
      return low, high
    trouble = (
      f'the values of train_{domain} reach from {low:g} to {high:g}, which is '
      'no range'
    )
  raise DataError(
    f'{trouble}: set config.data.low_{domain} and config.data.high_{domain}'
  )


def _warn_of_narrow_range(
  config: DataConfig, images: Images, domain: str, dtype: str
) -> None:
  """Warns of values in a small part of their type's range, such as 12 bits."""
  indices = _sample(images)
  extent = _extent(config, images, domain, indices, (dtype,))
  if extent is None:
    return
  low, high = extent
  if 0 < high - low < FULL[dtype] / _NARROW:
    logging.getLogger('cyclegan_jax').warning(
      'the values of train_%s reach from %g to %g (of %s images), a small part '
      'of the range 0 to %g of %s that the networks see: set '
      'config.data.low_%s=%g and config.data.high_%s=%g, or a range that holds '
      'all values',
      *(domain, low, high, f'{len(indices):,}', FULL[dtype], dtype),
      *(domain, low, domain, high),
    )


def _report_clipped(
  images: Images, domain: str, low: float, high: float
) -> None:
  """Warns of values outside a range that was not measured on the images."""
  num_below = num_above = total = 0
  for index in _sample(images):
    read = images.measured or images.stored
    assert read
    try:
      pixels = read(index)
    except ImageError:
      continue  # the decoder will count it
    finite = pixels[np.isfinite(pixels)]
    num_below += int((finite < low).sum())
    num_above += int((finite > high).sum())
    total += finite.size
  if num_below or num_above:
    logging.getLogger('cyclegan_jax').warning(
      'the range %g to %g of config.data.low_%s and config.data.high_%s clips '
      '%.2g%% of the values of train_%s: %.2g%% are below and %.2g%% above (of '
      '%s images)',
      *(low, high, domain, domain, 100 * (num_below + num_above) / total),
      *(domain, 100 * num_below / total, 100 * num_above / total),
      f'{len(_sample(images)):,}',
    )


def _sample(images: Images) -> range:
  return range(0, len(images), -(-len(images) // _MAX_SAMPLED))


def _extent(
  config: DataConfig,
  images: Images,
  domain: str,
  indices: range,
  dtypes: tuple[str, ...],
) -> tuple[float, float] | None:
  """The least and the largest value of images of some types."""
  lows, highs = [], []
  threads = ThreadPoolExecutor(max(1, config.num_workers))
  try:
    for extent in track(
      threads.map(functools.partial(_min_and_max, images, dtypes), indices),
      f'measuring the values of train_{domain}',
      len(indices),
    ):
      if extent:
        lows.append(extent[0])
        highs.append(extent[1])
  finally:  # without waiting for a disk that hangs
    threads.shutdown(wait=False, cancel_futures=True)
  return (min(lows), max(highs)) if lows else None


def _min_and_max(
  images: Images, dtypes: tuple[str, ...], index: int
) -> tuple[float, float] | None:
  """Least and largest finite value of an image; None if it has none."""
  read = images.measured or images.stored
  assert read
  try:
    pixels = read(index)
  except ImageError:
    return None  # the decoder will count it
  finite = pixels[np.isfinite(pixels)]
  if str(pixels.dtype) not in dtypes or not finite.size:
    return None
  return float(finite.min()), float(finite.max())
