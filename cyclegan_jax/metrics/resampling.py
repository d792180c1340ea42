"""Images of other sizes, each axis by one matrix.

How images are resized moves a Fréchet distance by more than a change of the
translator may (arXiv:2104.11222), so each convention is spelt out.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from cyclegan_jax.types import Array


def linear_matrix(size: int, target: int, *, is_centred: bool) -> np.ndarray:
  """Linear interpolation without antialiasing, the border repeated.

  Args:
    size: pixels of the axis.
    target: pixels that it is to have.
    is_centred: pixel i of the result lies at (i + 1/2) size / target - 1/2,
      as pixels are squares; else at i size / target, as in TensorFlow 1,
      which moves the image to the right and down.

  Returns:
    float32 [target, size]; each row sums to 1.
  """
  places = np.arange(target, dtype=np.float64)
  if is_centred:
    places = (places + 0.5) * (size / target) - 0.5
  else:
    places = places * (size / target)
  places = np.clip(places, 0, size - 1)
  below = np.floor(places).astype(int)
  share = places - below
  matrix = np.zeros((target, size))
  rows = np.arange(target)
  np.add.at(matrix, (rows, below), 1 - share)
  np.add.at(matrix, (rows, np.minimum(below + 1, size - 1)), share)
  return matrix.astype(np.float32)


def cubic_matrix(size: int, target: int) -> np.ndarray:
  """Cubic interpolation (Keys, a = -1/2), antialiased where it shrinks.

  It is Pillow's, but for Pillow's rounding to whole levels.

  Args:
    size: pixels of the axis.
    target: pixels that it is to have.

  Returns:
    float32 [target, size]; each row sums to 1.
  """
  scale = size / target
  places = (np.arange(target) + 0.5) * scale - 0.5
  distances = np.abs(np.arange(size)[None] - places[:, None]) / max(scale, 1.0)
  near = 1.5 * distances**3 - 2.5 * distances**2 + 1
  far = -0.5 * distances**3 + 2.5 * distances**2 - 4 * distances + 2
  matrix = np.where(distances < 1, near, np.where(distances < 2, far, 0))
  return (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)


def resample(images: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
  """Images by one matrix for each axis.

  Args:
    images: float32 [N, H, W, C].
    rows: [h, H].
    columns: [w, W].

  Returns:
    float32 [N, h, w, C].
  """
  precision = lax.Precision.HIGHEST
  images = jnp.einsum('hH,nHWc->nhWc', rows, images, precision=precision)
  return jnp.einsum('wW,nhWc->nhwc', columns, images, precision=precision)
