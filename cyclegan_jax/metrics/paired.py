"""Scores of paired images: L1, PSNR and SSIM.

Images are float [N, H, W, C] in [-1, 1], so their range is 2. Each function
returns one float64 score per image, [N].
"""

import numpy as np
from scipy import ndimage

Array = np.ndarray

DATA_RANGE = 2.0
MIN_SSIM_SIZE = 11  # width of SSIM's window

_SIGMA = 1.5  # of the window
_K1 = 0.01
_K2 = 0.03


def l1(images: Array, targets: Array) -> Array:
  """Mean |x - y| as a fraction of the range.

  Args:
    images: float [N, H, W, C] in [-1, 1].
    targets: float [N, H, W, C] in [-1, 1].

  Returns:
    [N] in [0, 1]: 0 for equal images, 1 for black against white.

  Raises:
    ValueError: shapes differ, or an array is not of floats.
  """
  x, y = _check_images(images, targets)
  return np.abs(x - y).mean(axis=(1, 2, 3)) / DATA_RANGE


def psnr(images: Array, targets: Array) -> Array:
  """Peak signal-to-noise ratio, 10 log10(range^2 / mean (x - y)^2).

  Args:
    images: float [N, H, W, C] in [-1, 1].
    targets: float [N, H, W, C] in [-1, 1].

  Returns:
    [N] in decibels; infinite for equal images.

  Raises:
    ValueError: shapes differ, or an array is not of floats.
  """
  x, y = _check_images(images, targets)
  error = np.square(x - y).mean(axis=(1, 2, 3))
  with np.errstate(divide='ignore'):
    return 10 * np.log10(DATA_RANGE**2 / error)


def ssim(images: Array, targets: Array) -> Array:
  """Structural similarity (Wang et al. 2004, eq. 13).

  (2 mx my + C1)(2 sxy + C2) / ((mx^2 + my^2 + C1)(sx^2 + sy^2 + C2)), with
  means, variances and covariance under an 11 x 11 Gaussian window of sigma
  1.5, C1 = (0.01 range)^2 and C2 = (0.03 range)^2. The score is the mean over
  all channels and all places where the whole window fits.

  Args:
    images: float [N, H, W, C] in [-1, 1], H and W at least 11.
    targets: float [N, H, W, C] in [-1, 1].

  Returns:
    [N] in [-1, 1]; 1 for equal images.

  Raises:
    ValueError: shapes differ, an array is not of floats, or images are
      smaller than the window.
  """
  x, y = _check_images(images, targets)
  if min(x.shape[1:3]) < MIN_SSIM_SIZE:
    raise ValueError(
      f'SSIM needs images of at least {MIN_SSIM_SIZE} x {MIN_SSIM_SIZE} '
      f'pixels, not {x.shape[1]} x {x.shape[2]}'
    )
  mean_x, mean_y = _local_mean(x), _local_mean(y)
  variances = _local_mean(x * x) - mean_x**2 + _local_mean(y * y) - mean_y**2
  covariance = _local_mean(x * y) - mean_x * mean_y
  c1, c2 = (_K1 * DATA_RANGE) ** 2, (_K2 * DATA_RANGE) ** 2
  luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
  structure = (2 * covariance + c2) / (variances + c2)
  return (luminance * structure).mean(axis=(1, 2, 3))


def _local_mean(images: Array) -> Array:
  """Means under the Gaussian window, [N, H - 10, W - 10, C]."""
  half = MIN_SSIM_SIZE // 2
  means = ndimage.gaussian_filter(images, _SIGMA, radius=half, axes=(1, 2))
  return means[:, half:-half, half:-half]


def _check_images(images: Array, targets: Array) -> tuple[Array, Array]:
  if images.shape != targets.shape or images.ndim != 4:
    raise ValueError(
      'paired images must both be [N, H, W, C], not '
      f'{list(images.shape)} and {list(targets.shape)}'
    )
  for array in (images, targets):
    if array.dtype.kind in 'iub':
      raise ValueError(
        f'paired images must be floats in [-1, 1], not {array.dtype}'
      )
  return np.asarray(images, np.float64), np.asarray(targets, np.float64)
