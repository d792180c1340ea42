"""Distances between images that are paired: L1, PSNR and SSIM.

Images are float [N, H, W, C] in [-1, 1], so their range is 2. Each function
returns one float64 number an image, [N]; a set's number is their mean.
"""

import numpy as np
from scipy import ndimage

Array = np.ndarray

DATA_RANGE = 2.0

_WINDOW = 11
_SIGMA = 1.5
_K1 = 0.01
_K2 = 0.03


def l1(images: Array, targets: Array) -> Array:
  """Mean |x - y| as a share of the range: 0 if equal, 1 for black on white.

  Args:
    images: float [N, H, W, C] in [-1, 1].
    targets: float [N, H, W, C] in [-1, 1].

  Returns:
    [N] in [0, 1].

  Raises:
    ValueError: shapes differ, or the images are not of floats.
  """
  x, y = _checked(images, targets)
  return np.abs(x - y).mean(axis=(1, 2, 3)) / DATA_RANGE


def psnr(images: Array, targets: Array) -> Array:
  """Peak signal to noise ratio, 10 log10(range^2 / mean (x - y)^2).

  Args:
    images: float [N, H, W, C] in [-1, 1].
    targets: float [N, H, W, C] in [-1, 1].

  Returns:
    [N] in decibels; infinite where two images are equal.

  Raises:
    ValueError: shapes differ, or the images are not of floats.
  """
  x, y = _checked(images, targets)
  error = np.square(x - y).mean(axis=(1, 2, 3))
  with np.errstate(divide='ignore'):
    return 10 * np.log10(DATA_RANGE**2 / error)


def ssim(images: Array, targets: Array) -> Array:
  """Structural similarity (Wang et al. 2004, eq. 13).

  (2 mx my + C1)(2 sxy + C2) / ((mx^2 + my^2 + C1)(sx^2 + sy^2 + C2)), with
  means, variances and covariance under an 11 x 11 Gaussian window of sigma
  1.5, C1 = (0.01 range)^2 and C2 = (0.03 range)^2. It is the mean over every
  place where the whole window fits, of each channel, then over channels.

  Args:
    images: float [N, H, W, C] in [-1, 1], H and W at least 11.
    targets: float [N, H, W, C] in [-1, 1].

  Returns:
    [N] in [-1, 1]; 1 where two images are equal.

  Raises:
    ValueError: shapes differ, the images are not of floats, or the window
      does not fit.
  """
  x, y = _checked(images, targets)
  if min(x.shape[1:3]) < _WINDOW:
    raise ValueError(
      f'SSIM needs images of at least {_WINDOW} x {_WINDOW} pixels, not '
      f'{x.shape[1]} x {x.shape[2]}'
    )
  mean_x, mean_y = _local_mean(x), _local_mean(y)
  variances = _local_mean(x * x) - mean_x**2 + _local_mean(y * y) - mean_y**2
  covariance = _local_mean(x * y) - mean_x * mean_y
  c1, c2 = (_K1 * DATA_RANGE) ** 2, (_K2 * DATA_RANGE) ** 2
  luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
  structure = (2 * covariance + c2) / (variances + c2)
  return (luminance * structure).mean(axis=(1, 2, 3))


def _local_mean(images: Array) -> Array:
  """Means under the Gaussian window: [N, H - 10, W - 10, C]."""
  half = _WINDOW // 2
  window = np.exp(-0.5 * (np.arange(-half, half + 1) / _SIGMA) ** 2)
  window /= window.sum()
  for axis in (1, 2):
    images = ndimage.correlate1d(images, window, axis=axis)
  return images[:, half:-half, half:-half]


def _checked(images: Array, targets: Array) -> tuple[Array, Array]:
  images, targets = np.asarray(images), np.asarray(targets)
  if images.shape != targets.shape or images.ndim != 4:
    raise ValueError(
      'paired images must both be [N, H, W, C], not '
      f'{list(images.shape)} and {list(targets.shape)}'
    )
  for each in (images, targets):
    if each.dtype.kind in 'iub':
      raise ValueError(
        f'paired images must be floats in [-1, 1], not {each.dtype}'
      )
  return images.astype(np.float64), targets.astype(np.float64)
