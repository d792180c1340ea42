"""Weight gradient of 3x3 convolutions by Winograd's algorithm F(3x3, 2x2).

A tile of 4 x 4 input pixels and its 2 x 2 output pixels take 16 products per
pair of channels instead of 36 (arXiv:1509.09308, section 4): sixteen matrix
products between transforms that only add.
"""

import jax.numpy as jnp
from jax import lax

from cyclegan_jax.types import Array


def kernel_gradient(x: Array, cotangent: Array) -> Array:
  """Weight gradient of a valid 3x3 convolution with stride 1.

  Args:
    x: [B, H + 2, W + 2, I].
    cotangent: [B, H, W, O], H and W even.

  Returns:
    [3, 3, I, O], exact to about 1e-6 of its largest value.
  """
  channels, features = x.shape[3], cotangent.shape[3]
  rows, columns = cotangent.shape[1] // 2, cotangent.shape[2] // 2

  def tiles(parts: list[Array], channels: int) -> Array:
    return jnp.stack(parts).reshape(16, -1, channels)

  def of_input(x: Array, count: int, axis: int) -> list[Array]:
    a, b, c, d = (
      lax.slice_in_dim(x, i, i + 2 * count - 1, 2, axis) for i in range(4)
    )
    return [a - c, b + c, c - b, b - d]

  def of_output(y: Array, axis: int) -> list[Array]:
    a, b = (lax.slice_in_dim(y, i, None, 2, axis) for i in range(2))
    return [a, a + b, a - b, -b]

  def back(a: Array, b: Array, c: Array, d: Array) -> Array:
    return jnp.stack([a + (b + c) / 2, (b - c) / 2, (b + c) / 2 + d])

  inputs = [
    tile
    for strip in of_input(x, rows, 1)
    for tile in of_input(strip, columns, 2)
  ]
  outputs = [
    tile for strip in of_output(cotangent, 1) for tile in of_output(strip, 2)
  ]
  products = lax.dot_general(
    tiles(inputs, channels),
    tiles(outputs, features),
    (((1,), (1,)), ((0,), (0,))),
  ).reshape(4, 4, channels, features)
  by_column = back(*products)  # [3, 4, I, O]
  return back(*by_column.swapaxes(0, 1)).swapaxes(0, 1)
