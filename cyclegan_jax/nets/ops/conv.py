"""Two-dimensional convolution and its transpose on [B, H, W, C] arrays.

On CPUs some forms and gradients are rewritten, as XLA's own are slow there.
experiments/performance.md has what each rewrite saves.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from cyclegan_jax.nets.ops import winograd
from cyclegan_jax.types import Array

Padding = tuple[tuple[int, int], tuple[int, int]]

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
_NONE: Padding = ((0, 0), (0, 0))
_FEW = 4  # output channels
_MANY = 32  # channels, from which Winograd's transforms cost little
_MANY_PIXELS = 10_000


def conv(
  x: Array, kernel: Array, *, stride: int, padding: Padding | str
) -> Array:
  """Convolution (cross-correlation) with zero padding.

  On CPUs, some weight gradients for stride 1 are rewritten: see
  `_kernel_gradient`.

  Args:
    x: [B, H, W, I].
    kernel: [h, w, I, O].
    stride: along height and width.
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

  XLA's CPU backend has a fast path for padded convolutions only, so on CPUs
  the input is zero-padded by one pixel and the output cropped by one pixel.
  Gradients are those of `conv`.

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
  """Gradients of a stride-1 convolution in its input and its kernel."""
  x, kernel = saved
  plain = functools.partial(_plain, stride=1, padding=padding)
  kernel_gradient = _kernel_gradient(kernel.shape, cotangent.shape)
  if kernel_gradient is None:
    _, pull_back = jax.vjp(plain, x, kernel)
    return pull_back(cotangent)
  _, pull_back = jax.vjp(lambda x: plain(x, kernel), x)
  (x_bar,) = pull_back(cotangent)
  x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  return x_bar, kernel_gradient(x, cotangent)


_stride_one.defvjp(_stride_one_forward, _gradients)


def _kernel_gradient(
  kernel_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> Callable[[Array, Array], Array] | None:
  """Selects the function that computes a weight gradient.

  Returns:
    A function from the padded input and the cotangent to the gradient, or
    None where XLA's own gradient is as fast.
  """
  h, w, channels, features = kernel_shape
  if features <= _FEW:
    return functools.partial(_gradient_of_few, shape=kernel_shape)
  is_even = output_shape[1] % 2 == output_shape[2] % 2 == 0
  if (h, w) == (3, 3) and is_even and min(channels, features) >= _MANY:
    return winograd.kernel_gradient
  return None


def _gradient_of_few(
  x: Array, cotangent: Array, *, shape: tuple[int, ...]
) -> Array:
  """Weight gradient of a valid convolution as one matrix product.

  It copies the cotangent, which has few channels, once per kernel position,
  and never the input, which has many.

  Args:
    x: [B, H, W, I].
    cotangent: [B, H - h + 1, W - w + 1, O].
    shape: (h, w, I, O) of the kernel.

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
  """Adjoint of `conv` in its input, equal to PyTorch's ConvTranspose2d.

  XLA computes the weight gradient of a dilated convolution slowly on CPUs. It
  equals the weight gradient of the strided convolution with input and output
  exchanged, which is used there instead. Large maps on CPUs are computed by
  `_by_parity`.

  Args:
    x: [B, H, W, I].
    kernel: [h, w, O, I], the kernel of the convolution from O to I channels
      whose adjoint this is.
    stride: stride of that convolution.
    padding: padding of that convolution, by which this output is cropped.
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


def _has_many_pixels(x: Array) -> bool:
  """Whether [B, H, W, C] has many pixels; false if a size is symbolic."""
  sizes = x.shape[:3]
  if not all(isinstance(size, int) for size in sizes):
    return False
  return math.prod(sizes) >= _MANY_PIXELS


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
  if is_doubled and _has_many_pixels(x):
    return _by_parity(x, kernel)
  return _dilated(x, kernel, stride=stride, padding=padding, extra=extra)


def _by_parity(x: Array, kernel: Array) -> Array:
  """Computes the output by the parity of its rows and columns.

  An even row of the output depends on the middle row of a 3x3 kernel, an odd
  row on the other two; columns likewise. Four small convolutions therefore
  replace the dilated one, which multiplies the zeros between pixels. For
  small maps, interleaving the four results costs more than that saves.

  Args:
    x: [B, H, W, I].
    kernel: [3, 3, O, I].

  Returns:
    [B, 2 H, 2 W, O].
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
  # The strided convolution drops the rows and columns that `extra` added.
  strided = functools.partial(_plain, stride=stride, padding=padding)
  x_bar, pull_back = jax.vjp(lambda k: strided(cotangent, k), kernel)
  (kernel_bar,) = pull_back(x)
  return x_bar, kernel_bar


_adjoint.defvjp(_forward, _backward)
