"""Resizing and cropping of images to the networks' size."""

import numpy as np
from PIL import Image

from cyclegan_jax.config import DataConfig
from cyclegan_jax.errors import DataError
from cyclegan_jax.media.decoding import ImageError

_RESAMPLING = {
  'bilinear': Image.Resampling.BILINEAR,
  'bicubic': Image.Resampling.BICUBIC,
  'lanczos': Image.Resampling.LANCZOS,
}


def resize(
  image: np.ndarray, config: DataConfig, *, is_test: bool = False
) -> np.ndarray:
  """Applies the deterministic part of the preprocessing.

  Args:
    image: [h, w, C], uint8 or float32.
    config: preprocess, size, load_size and interpolation.
    is_test: resizes to the networks' size directly, where training would take
      a random crop of a larger image.

  Returns:
    [H, W, C] of the same dtype; H = W = size for a test image.
  """
  height, width = image.shape[:2]
  target = config.size if is_test else config.size_before_crop
  match config.preprocess:
    case 'resize_and_crop':
      return resize_to(image, target, target, config)
    case 'resize_and_center_crop':
      load = config.size_before_crop
      image = resize_to(image, load, load, config)
      # A copy, as a view would keep the whole image in the cache.
      return center_crop(image, config.size).copy()
    case 'scale_and_crop':
      scale = target / min(height, width)
      image = resize_to(
        image,
        max(target, round(height * scale)),
        max(target, round(width * scale)),
        config,
      )
  return center_crop(image, config.size) if is_test else image


def check_scaled(image: np.ndarray, name: str, config: DataConfig) -> None:
  """Raises ImageError if `resize` would make an image of too many pixels.

  A line of 1 x 65535 pixels is a small file, but with 286 pixels as its
  shorter side it becomes an image of 5 billion pixels.
  """
  if config.preprocess != 'scale_and_crop':
    return
  height, width = image.shape[:2]
  shorter = config.size_before_crop
  scale = shorter / min(height, width)
  count = round(height * scale) * round(width * scale)
  if count > max(config.max_pixels, height * width):
    raise ImageError(
      name,
      f'{width} x {height}, with config.data.load_size={shorter} as its '
      f'shorter side, is {count} pixels, more than '
      f'config.data.max_pixels={config.max_pixels}',
    )


def raw_size(config: DataConfig) -> tuple[int, int]:
  """Height and width of the images in a raw batch."""
  if config.preprocess == 'resize_and_crop':
    return config.size_before_crop, config.size_before_crop
  return config.size, config.size


def too_small(name: str, height: int, width: int, config: DataConfig) -> str:
  """Message for an image that is smaller than the crop."""
  return (
    f'{name} is {width} x {height}, smaller than the crop '
    f'config.data.size={config.size}: lower it, or let '
    'config.data.preprocess=scale_and_crop enlarge the image'
  )


def resize_to(
  image: np.ndarray, height: int, width: int, config: DataConfig
) -> np.ndarray:
  """[h, w, C] to [height, width, C] by config.interpolation.

  Args:
    image: uint8, uint16, int16 or float32; all but the first stay in their own
      range, beyond which curves would swing. NaN becomes the least value.
    height: of the result.
    width: likewise.
    config: its interpolation.
  """
  if image.shape[:2] == (height, width):
    return image
  method = _RESAMPLING[config.interpolation]
  if image.dtype != np.uint8:
    planes = [
      _resized_plane(plane, height, width, method)
      for plane in np.moveaxis(image, -1, 0)
    ]
    return np.stack(planes, axis=-1)
  if image.shape[2] == 3:
    return np.asarray(Image.fromarray(image).resize((width, height), method))
  # Channel by channel: PIL would take a second or fourth one for alpha.
  planes = [
    np.asarray(Image.fromarray(plane).resize((width, height), method))
    for plane in np.moveaxis(image, -1, 0)
  ]
  return np.stack(planes, axis=-1)


def _resized_plane(
  plane: np.ndarray, height: int, width: int, method: Image.Resampling
) -> np.ndarray:
  """[h, w] of more than 8 bits to [height, width], of the same type."""
  missing = np.isnan(plane)
  if missing.any():  # NaN would spread
    least = 0 if missing.all() else np.nanmin(plane)
    plane = np.where(missing, least, plane)
  exact = Image.fromarray(plane.astype(np.float32))
  resized = np.asarray(exact.resize((width, height), method))
  if plane.dtype != np.float32:
    resized = np.rint(resized)
  return np.clip(resized, plane.min(), plane.max()).astype(plane.dtype)


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
  """The central [size, size, C] of an image."""
  top = (image.shape[0] - size) // 2
  left = (image.shape[1] - size) // 2
  return image[top : top + size, left : left + size]


def random_crop(
  image: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
  """A uniformly drawn [size, size, C] window of an image."""
  top = rng.integers(0, image.shape[0] - size + 1)
  left = rng.integers(0, image.shape[1] - size + 1)
  return image[top : top + size, left : left + size]


def check_crop(image: np.ndarray, name: str, config: DataConfig) -> None:
  """Raises DataError if an image is smaller than the crop."""
  if min(image.shape[:2]) < config.size:
    raise DataError(too_small(name, image.shape[0], image.shape[1], config))
