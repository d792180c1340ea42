"""Two-dimensional convolution and its transpose on [B, H, W, C] arrays."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cyclegan_jax.nets.ops import winograd
from cyclegan_jax.types import Array

Padding = tuple[tuple[int, int], tuple[int, int]]

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
_NONE: Padding = ((0, 0), (0, 0))
_FEW = 4  # output channels
_MANY = 32  # channels for which transforms cost little
_MANY_PIXELS = 10_000


def conv(
  x: Array, kernel: Array, *, stride: int, padding: Padding | str
) -> Array:
  """Convolution (cross-correlation) with zero padding.

  On CPUs the weight gradient for stride 1 is ours where that is faster: see
  `_kernel_gradient`.

  Args:
    x: [B, H, W, I].
    kernel: [h, w, I, O].
    stride: of both directions.
    padding: zeros ((top, bottom), (left, right)), or 'SAME' as in Keras.

  Returns:
    [B, H', W', O] with H' = (H + top + bottom - h) // stride + 1.
  """
  if isinstance(padding, str):
    sides, window = x.shape[1:3], kernel.shape[:2]
    rows, columns = lax.padtype_to_pads(sides, window, (stride,) * 2, padding)
    padding = (rows, columns)
  plain = functools.partial(_plain, stride=stride, padding=padding)
  if stride > 1:
    return plain(x, kernel)
  return lax.platform_dependent(
    x,
    kernel,
    cpu=lambda x, kernel: _stride_one(x, kernel, padding),
    default=plain,
  )


def conv_valid(x: Array, kernel: Array) -> Array:
  """Convolution with stride 1 and without padding.

  Forwards, XLA's CPU backend has a fast path for padded kernels alone, so
  there a border of zeros is added and what it gives is cut off again: 3 times
  faster for 3x3 and 256 channels, 20 times for 7x7 to 3 channels, a fifth
  slower for small maps (experiments/bench_conv.py). Gradients are those of
  `conv`.

  Args:
    x: [B, H, W, I].
    kernel: [h, w, I, O], h and w at least 2.

  Returns:
    [B, H - h + 1, W - w + 1, O].
  """
  return lax.platform_dependent(
    x, kernel, cpu=_padded_and_cropped, default=_valid
  )


def _plain(x: Array, kernel: Array, *, stride: int, padding: Padding) -> Array:
  return lax.conv_general_dilated(
    x, kernel, (stride, stride), padding, dimension_numbers=_DIMENSIONS
  )


def _valid(x: Array, kernel: Array) -> Array:
  return _plain(x, kernel, stride=1, padding=_NONE)


@jax.custom_vjp
def _padded_and_cropped(x: Array, kernel: Array) -> Array:
  padded = _plain(x, kernel, stride=1, padding=((1, 1), (1, 1)))
  return padded[:, 1:-1, 1:-1]


def _valid_forward(
  x: Array, kernel: Array
) -> tuple[Array, tuple[Array, Array]]:
  return _padded_and_cropped(x, kernel), (x, kernel)


def _valid_backward(
  saved: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
  return _gradients(_NONE, saved, cotangent)


_padded_and_cropped.defvjp(_valid_forward, _valid_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _stride_one(x: Array, kernel: Array, padding: Padding) -> Array:
  return _plain(x, kernel, stride=1, padding=padding)


def _stride_one_forward(
  x: Array, kernel: Array, padding: Padding
) -> tuple[Array, tuple[Array, Array]]:
  return _stride_one(x, kernel, padding), (x, kernel)


def _gradients(
  padding: Padding, saved: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
  """Of a convolution with stride 1, in its input and its kernel."""
  x, kernel = saved
  plain = functools.partial(_plain, stride=1, padding=padding)
  ours = _kernel_gradient(kernel.shape, cotangent.shape)
  if ours is None:
    _, pull_back = jax.vjp(plain, x, kernel)
    return pull_back(cotangent)
  _, pull_back = jax.vjp(lambda x: plain(x, kernel), x)
  (x_bar,) = pull_back(cotangent)
  x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  return x_bar, ours(x, cotangent)


_stride_one.defvjp(_stride_one_forward, _gradients)


def _kernel_gradient(
  kernel: tuple[int, ...], output: tuple[int, ...]
) -> Callable[[Array, Array], Array] | None:
  """What computes a weight gradient from the padded input and the cotangent.

  Args:
    kernel: its shape.
    output: the convolution's.

  Returns:
    None where XLA's own is as fast (experiments/bench_conv.py).
  """
  h, w, channels, features = kernel
  if features <= _FEW:
    return functools.partial(_gradient_of_few, shape=kernel)
  is_even = output[1] % 2 == output[2] % 2 == 0
  if (h, w) == (3, 3) and is_even and min(channels, features) >= _MANY:
    return winograd.kernel_gradient
  return None


def _gradient_of_few(
  x: Array, cotangent: Array, *, shape: tuple[int, ...]
) -> Array:
  """The weight gradient of a valid convolution, as one matrix product.

  Of the cotangent, which has few channels, there is a copy for each place in
  the kernel; of the input, which has many, there is none.

  Args:
    x: [B, H, W, I].
    cotangent: [B, H - h + 1, W - w + 1, O].
    shape: h, w, I, O.

  Returns:
    [h, w, I, O].
  """
  h, w, channels, few = shape
  height, width = x.shape[1:3]
  planes = jnp.pad(
    cotangent.transpose(3, 0, 1, 2),
    ((0, 0), (0, 0), (h - 1, h - 1), (w - 1, w - 1)),
  )
  shifted = [
    planes[:, :, top : top + height, left : left + width]
    for top in reversed(range(h))
    for left in reversed(range(w))
  ]
  rows = jnp.stack(shifted).reshape(h * w * few, -1)
  product = rows @ x.reshape(-1, channels)
  return product.reshape(h, w, few, channels).swapaxes(2, 3)


def conv_transpose(
  x: Array, kernel: Array, *, stride: int, padding: Padding, extra: int = 0
) -> Array:
  """The adjoint of `conv` in its input: PyTorch's ConvTranspose2d.

  On CPUs large maps go by parity (`_by_parity`). XLA's own weight gradient of
  a dilated convolution is slow there: both gradients together take 2 to 10
  times as long. The adjoint's is the strided convolution's with input and
  output exchanged, so that is what we ask for (experiments/bench_conv.py).

  Args:
    x: [B, H, W, I].
    kernel: [h, w, O, I], the kernel of the convolution from O to I channels
      whose adjoint this is.
    stride: of that convolution.
    padding: of that convolution; it crops the output here.
    extra: rows and columns added at the bottom and the right (PyTorch's
      output_padding).

  Returns:
    [B, H', W', O] with H' = (H - 1) * stride + h - top - bottom + extra.
  """
  return lax.platform_dependent(
    x,
    kernel,
    cpu=lambda *xk: _adjoint(*xk, stride, padding, extra),
    default=functools.partial(
      _dilated, stride=stride, padding=padding, extra=extra
    ),
  )


def is_at_least(limit: int, *lengths: Any) -> bool:
  """Whether a product of lengths reaches a limit.

  False where one is a symbol, as in a program that is exported for any size.
  """
  if not all(isinstance(each, int) for each in lengths):
    return False
  return math.prod(lengths) >= limit


def _dilated(
  x: Array, kernel: Array, *, stride: int, padding: Padding, extra: int
) -> Array:
  h, w = kernel.shape[:2]
  (top, bottom), (left, right) = padding
  return lax.conv_general_dilated(
    x,
    lax.rev(kernel, (0, 1)),
    window_strides=(1, 1),
    padding=(
      (h - 1 - top, h - 1 - bottom + extra),
      (w - 1 - left, w - 1 - right + extra),
    ),
    lhs_dilation=(stride, stride),
    dimension_numbers=('NHWC', 'HWOI', 'NHWC'),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _adjoint(
  x: Array, kernel: Array, stride: int, padding: Padding, extra: int
) -> Array:
  doubling = (3, 3), 2, ((1, 1), (1, 1)), 1
  is_doubled = (kernel.shape[:2], stride, padding, extra) == doubling
  if is_doubled and is_at_least(_MANY_PIXELS, *x.shape[:3]):
    return _by_parity(x, kernel)
  return _dilated(x, kernel, stride=stride, padding=padding, extra=extra)


def _by_parity(x: Array, kernel: Array) -> Array:
  """[B, H, W, I] to [B, 2 H, 2 W, O] by the parity of rows and columns.

  Of a 3x3 kernel an even row of the output meets the middle alone, an odd one
  the other two, and columns likewise; so four small convolutions multiply none
  of the zeros between the pixels that a dilated one does. On a CPU that is 1.2
  to 2.3 times as fast from some ten thousand pixels, where it pays for putting
  the four together (experiments/bench_conv.py).
  """
  kernel = kernel.swapaxes(2, 3)
  taps = (slice(1, 2), slice(None, None, -2))  # of even and of odd rows

  def part(row: int, column: int) -> Array:
    weights = kernel[taps[row], taps[column]]
    return _plain(x, weights, stride=1, padding=((0, row), (0, column)))

  rows = [
    jnp.stack([part(row, 0), part(row, 1)], axis=3) for row in (0, 1)
  ]  # [B, H, W, 2, O]
  batch, height, width, _, channels = rows[0].shape
  return jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, channels)


def _forward(
  x: Array, kernel: Array, stride: int, padding: Padding, extra: int
) -> tuple[Array, tuple[Array, Array]]:
  return _adjoint(x, kernel, stride, padding, extra), (x, kernel)


def _backward(
  stride: int,
  padding: Padding,
  extra: int,
  saved: tuple[Array, Array],
  cotangent: Array,
) -> tuple[Array, Array]:
  x, kernel = saved
  # The strided convolution drops what `extra` added: it divides evenly.
  strided = functools.partial(_plain, stride=stride, padding=padding)
  x_bar, pull_back = jax.vjp(lambda k: strided(cotangent, k), kernel)
  (kernel_bar,) = pull_back(x)
  return x_bar, kernel_bar


_adjoint.defvjp(_forward, _backward)
