"""Weight gradient of 3x3 convolutions by Winograd's algorithm F(3x3, 2x2).

A tile of 4 x 4 input pixels and its 2 x 2 output pixels take 16 products per
pair of channels instead of 36 (arXiv:1509.09308, section 4). The transforms
are matrix products too: written as sums of slices, they would be thousands of
kernels in a training step, which take longer to compile than they save.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from cyclegan_jax.types import Array

_INPUT = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
_OUTPUT = np.array([[1, 0], [1, 1], [1, -1], [0, -1]])
_BACK = np.array([[2, 1, 1, 0], [0, 1, -1, 0], [0, 1, 1, 2]]) / 2


def kernel_gradient(x: Array, cotangent: Array) -> Array:
  """Weight gradient of a valid 3x3 convolution with stride 1.

  Args:
    x: [B, H + 2, W + 2, I].
    cotangent: [B, H, W, O], H and W even.

  Returns:
    [3, 3, I, O], exact to about 1e-6 of its largest value.
  """
  batch, height, width, features = cotangent.shape
  channels = x.shape[3]
  rows, columns = height // 2, width // 2

  def pairs(x: Array) -> Array:
    """Pixels by the parity of row and column: [4, B * rows * columns, C]."""
    x = x.reshape(batch, rows, 2, columns, 2, -1)
    return x.transpose(2, 4, 0, 1, 3, 5).reshape(4, -1, x.shape[-1])

  def transform(matrix: np.ndarray, tiles: Array) -> Array:
    flat = tiles.reshape(len(tiles), -1)
    return (jnp.asarray(matrix, x.dtype) @ flat).reshape(-1, *tiles.shape[1:])

  corners = [
    pairs(x[:, top : top + height, left : left + width])
    for top in (0, 2)
    for left in (0, 2)
  ]
  # Columns in the order (top, left, row's parity, column's parity).
  order = np.kron(_INPUT, _INPUT).reshape(16, 2, 2, 2, 2)
  order = order.transpose(0, 1, 3, 2, 4).reshape(16, 16)
  inputs = transform(order, jnp.concatenate(corners))
  outputs = transform(np.kron(_OUTPUT, _OUTPUT), pairs(cotangent))
  products = lax.dot_general(inputs, outputs, (((1,), (1,)), ((0,), (0,))))
  gradient = transform(np.kron(_BACK, _BACK), products)
  return gradient.reshape(3, 3, channels, features)
