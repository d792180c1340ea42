"""3x3 convolutions by Winograd's algorithm, and their weight gradients.

A tile of 4 x 4 input pixels and its 2 x 2 output pixels take 16 products per
pair of channels instead of 36 (arXiv:1509.09308, section 4). The transforms
are matrix products too: written as sums of slices, they would be thousands of
kernels in a training step, which take longer to compile than they save.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from cyclegan_jax.types import Array

# Of tiles of the input, for both algorithms.
_INPUT = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
# F(2x2, 3x3): output from a kernel.
_KERNEL = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2
_OUTPUT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
# F(3x3, 2x2): weight gradient from a cotangent.
_COTANGENT = np.array([[1, 0], [1, 1], [1, -1], [0, -1]])
_GRADIENT = np.array([[2, 1, 1, 0], [0, 1, -1, 0], [0, 1, 1, 2]]) / 2


def conv(x: Array, kernel: Array) -> Array:
  """Convolution with stride 1 and without padding.

  Args:
    x: [B, H + 2, W + 2, I], H and W even.
    kernel: [3, 3, I, O].

  Returns:
    [B, H, W, O], in float32 exact to about 1e-6 of its largest value.
  """
  batch, rows, columns = x.shape[0], x.shape[1] // 2 - 1, x.shape[2] // 2 - 1
  channels, features = kernel.shape[2:]
  kernels = _transform(_KERNEL, kernel.reshape(9, channels, features))
  products = lax.dot_general(
    _input_tiles(x), kernels, (((2,), (1,)), ((0,), (0,)))
  )
  tiles = _transform(_OUTPUT, products)
  tiles = tiles.reshape(2, 2, batch, rows, columns, features)
  return tiles.transpose(2, 3, 0, 4, 1, 5).reshape(
    batch, 2 * rows, 2 * columns, features
  )


def kernel_gradient(x: Array, cotangent: Array) -> Array:
  """Weight gradient of a convolution with stride 1 and without padding.

  Args:
    x: [B, H + 2, W + 2, I].
    cotangent: [B, H, W, O], H and W even.

  Returns:
    [3, 3, I, O], in float32 exact to about 1e-6 of its largest value.
  """
  outputs = _transform(_COTANGENT, _by_parity(cotangent))
  products = lax.dot_general(
    _input_tiles(x), outputs, (((1,), (1,)), ((0,), (0,)))
  )
  gradient = _transform(_GRADIENT, products)
  return gradient.reshape(3, 3, *products.shape[1:])


def _transform(matrix: np.ndarray, tiles: Array) -> Array:
  """Multiplies tiles, whose pixels are the first axis, on each side."""
  return _multiply(np.kron(matrix, matrix), tiles)


def _multiply(matrix: np.ndarray, tiles: Array) -> Array:
  flat = tiles.reshape(len(tiles), -1)
  product = jnp.asarray(matrix, tiles.dtype) @ flat
  return product.reshape(-1, *tiles.shape[1:])


def _by_parity(x: Array) -> Array:
  """Pixels by the parities of row and column: [4, B * H/2 * W/2, C]."""
  batch, height, width, channels = x.shape
  x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
  return x.transpose(2, 4, 0, 1, 3, 5).reshape(4, -1, channels)


def _input_tiles(x: Array) -> Array:
  """Transformed tiles of the input: [16, B * H/2 * W/2, I]."""
  height, width = x.shape[1] - 2, x.shape[2] - 2
  quarters = [
    _by_parity(x[:, top : top + height, left : left + width])
    for top in (0, 2)
    for left in (0, 2)
  ]
  # A tile's row is 2 * top + its parity, so the columns of the matrix change
  # places: from (top, parity, left, parity) to (top, left, parity, parity).
  matrix = np.kron(_INPUT, _INPUT).reshape(16, 2, 2, 2, 2)
  matrix = matrix.transpose(0, 1, 3, 2, 4).reshape(16, 16)
  return _multiply(matrix, jnp.concatenate(quarters))
