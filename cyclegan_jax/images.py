"""Conversion between raw images and the networks' floats.

Raw images are uint8 in [0, 255], or float32 in [-1, 1] where files hold more
than 8 bits; the networks take float32 in [-1, 1].
"""

from typing import TypeVar

import jax
import numpy as np

AnyArray = TypeVar('AnyArray', np.ndarray, jax.Array)


def to_float(images: AnyArray) -> AnyArray:
  """Scales uint8 images to [-1, 1], inside or outside of jit.

  Args:
    images: any shape: uint8, or float32 that is in [-1, 1] already.

  Returns:
    float32 in [-1, 1] of the same shape: NumPy for NumPy, else JAX.
  """
  if images.dtype == np.float32:
    return images
  # Not x / 127.5 - 1: XLA multiplies by the reciprocal, which makes 255 a
  # little more than 1.
  return (images.astype('float32') * 2 - 255) / 255


def to_uint8(images: np.ndarray | jax.Array) -> np.ndarray:
  """Rounds floats in [-1, 1] to uint8: the inverse of `to_float`.

  Args:
    images: floats of any shape; values outside [-1, 1] are clipped, and NaN
      becomes 0.

  Returns:
    uint8 NumPy array of the same shape.
  """
  # Clipped first: large numbers would overflow in the cast or the product.
  clipped = np.clip(np.asarray(images), -1, 1).astype(np.float32)
  return np.rint(np.nan_to_num((clipped + 1) * 127.5)).astype(np.uint8)


def to_rgb(images: np.ndarray) -> np.ndarray:
  """Converts images with any number of channels to RGB for viewing.

  Args:
    images: [N, H, W, C] floats in [-1, 1]. Two channels are gray and alpha,
      four are RGB and alpha; alpha is blended with white. Of more than four
      channels the first three are taken.

  Returns:
    uint8 [N, H, W, 3].
  """
  pixels = to_uint8(images)
  channels = pixels.shape[-1]
  if channels in (2, 4):
    alpha = pixels[..., -1:] / 255.0
    blended = pixels[..., :-1] * alpha + 255 * (1 - alpha)
    pixels = np.rint(blended).astype(np.uint8)
  if pixels.shape[-1] < 3:
    return np.repeat(pixels[..., :1], 3, axis=-1)
  return pixels[..., :3]
