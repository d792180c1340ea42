"""Values in image files to the networks' [-1, 1], and back.

Each domain has a range of values. Files of another type of integers than the
domain's are taken by their own full range.
"""

from typing import NamedTuple

import numpy as np

from cyclegan_jax.config import DataConfig
from cyclegan_jax.errors import ConfigError

# The largest value of types that are used in full. The others, int16 and
# floats, have a range that is given or measured.
FULL = {'uint8': 255.0, 'uint16': 65535.0}


class Values(NamedTuple):
  """Type and range of the values in a domain's files.

  Attributes:
    dtype: 'uint8', 'uint16', 'int16' or 'float32'.
    low: value that the networks see as -1.
    high: value that they see as 1.
  """

  dtype: str
  low: float
  high: float

  @property
  def is_plain(self) -> bool:
    """Whether they are bytes in their full range, kept as such until used."""
    return self == ('uint8', 0, 255)

  def of(self, dtype: str) -> 'Values':
    """The values of a file of another type in this domain.

    Raises:
      ValueError: the file's type has no full range, and the domain no range
        that would do for it.
    """
    if dtype in FULL and dtype != self.dtype:
      return Values(dtype, 0.0, FULL[dtype])
    if dtype not in FULL and self.dtype in FULL:
      raise ValueError(
        f'its values are {dtype}, which has no range that one could know, and '
        f'those of its domain {self.dtype}: save it as {self.dtype}, or train '
        f'with config.data.dtype_a or dtype_b {dtype}'
      )
    return self._replace(dtype=dtype)

  def to_network(self, pixels: np.ndarray) -> np.ndarray:
    """Converts values of files to values of the networks.

    Args:
      pixels: array of `dtype`, of any shape; NaN is low.

    Returns:
      float32 in [-1, 1].
    """
    if self.dtype in FULL and (self.low, self.high) == (0, FULL[self.dtype]):
      # These integers and their doubles are exact in float32.
      full = np.float32(self.high)
      return (pixels.astype(np.float32) * 2 - full) / full
    low = np.float32(self.low)
    known = np.clip(pixels.astype(np.float32), low, np.float32(self.high))
    known = np.where(np.isnan(known), low, known)
    scaled = (known - low) * np.float32(2 / (self.high - self.low))
    return np.clip(scaled - 1, -1, 1)

  def from_network(self, array: np.ndarray) -> np.ndarray:
    """Converts values of the networks to the nearest values of files.

    Args:
      array: floats of any shape; clipped to [-1, 1], and NaN is low.

    Returns:
      Array of `dtype`.
    """
    clipped = np.nan_to_num(np.clip(array, -1, 1).astype(np.float32), nan=-1)
    half = np.float32((self.high - self.low) / 2)
    scaled = (clipped + 1) * half + np.float32(self.low)
    if self.dtype != 'float32':
      limits = np.iinfo(self.dtype)
      scaled = np.clip(np.rint(scaled), limits.min, limits.max)
    return scaled.astype(self.dtype)

  def __str__(self) -> str:
    return f'{self.dtype} from {self.low:g} to {self.high:g}'


def values_of(config: DataConfig, domain: str) -> Values:
  """The values of domain 'a' or 'b'.

  Raises:
    ConfigError: the range of floats or int16 is neither given nor measured.
  """
  dtype = getattr(config, f'dtype_{domain}') or 'uint8'
  low, high = (
    getattr(config, f'low_{domain}'),
    getattr(config, f'high_{domain}'),
  )
  if low == high:
    if dtype not in FULL:
      raise ConfigError(
        f'config.data.low_{domain} and config.data.high_{domain} are not set: '
        f'{dtype} has no range that one could know'
      )
    low, high = 0.0, FULL[dtype]
  return Values(dtype, low, high)


def is_settled(config: DataConfig, domain: str) -> bool:
  """Whether a domain's values are known without looking at its images."""
  dtype = getattr(config, f'dtype_{domain}')
  has_range = getattr(config, f'low_{domain}') != getattr(
    config, f'high_{domain}'
  )
  return bool(dtype) and (dtype in FULL or has_range)


def raw_dtype(config: DataConfig, domain: str) -> type[np.generic]:
  """The type of a domain's images in a raw batch.

  Returns:
    np.uint8 for plain bytes, np.float32 for values of the networks.
  """
  return np.uint8 if values_of(config, domain).is_plain else np.float32


def is_missing(pixels: np.ndarray, nodata: float) -> np.ndarray:
  """Finds pixels that are without data in all channels.

  Args:
    pixels: [h, w, C].
    nodata: the value that marks them; NaN and infinity do, too.

  Returns:
    bool [h, w].
  """
  return np.all(_equals(pixels, nodata), axis=-1)


def has_room_for(dtype: str, nodata: float) -> bool:
  """Whether a type of pixels holds the value that marks those without data."""
  if np.dtype(dtype).kind == 'f':
    return True
  limits = np.iinfo(dtype)
  # NaN and infinity are not between them.
  return limits.min <= nodata <= limits.max and nodata % 1 == 0


def with_missing(
  pixels: np.ndarray, missing: np.ndarray, nodata: float
) -> np.ndarray:
  """Marks pixels as without data, if their type holds the mark.

  Args:
    pixels: [h, w, C].
    missing: bool [h, w].
    nodata: the value that marks them.
  """
  if not has_room_for(str(pixels.dtype), nodata):
    return pixels
  with np.errstate(over='ignore'):
    return np.where(missing[..., None], pixels.dtype.type(nodata), pixels)


def without_missing(
  pixels: np.ndarray, nodata: float, instead: float | None = None
) -> np.ndarray:
  """Replaces values that mark pixels as without data.

  Args:
    pixels: floats or integers, of any shape.
    nodata: the value that marks them.
    instead: the integer in their place; None for the least other value.
      Floats become NaN.
  """
  missing = _equals(pixels, nodata)
  if pixels.dtype.kind == 'f':
    return np.where(missing, np.nan, pixels)
  if instead is None:
    known = pixels[~missing]
    instead = known.min() if known.size else 0
  return np.where(missing, pixels.dtype.type(instead), pixels)


def _equals(pixels: np.ndarray, nodata: float) -> np.ndarray:
  if pixels.dtype.kind != 'f':
    return np.equal(pixels, np.float64(nodata))
  with np.errstate(over='ignore'):
    return ~np.isfinite(pixels) | (pixels == pixels.dtype.type(nodata))


def rescaled(pixels: np.ndarray, dtype: str) -> np.ndarray:
  """Converts shades to another type; floats are shares of 1.

  Args:
    pixels: uint8, uint16 or float32, of any shape.
    dtype: one of these types.
  """
  if pixels.dtype == dtype:
    return pixels
  share = pixels.astype(np.float64) / FULL.get(str(pixels.dtype), 1.0)
  if dtype in FULL:
    share = np.rint(np.clip(np.nan_to_num(share), 0, 1) * FULL[dtype])
  return share.astype(dtype)
