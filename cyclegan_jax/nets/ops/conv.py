"""Two-dimensional convolution and its transpose on [B, H, W, C] arrays.

On CPUs some forms and gradients are rewritten, as XLA's own are slow there.
experiments/performance.md has what each rewrite saves.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, cast

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
_MANY_PIXELS = 10_000  # of a batch
_FEW_PIXELS = 16  # of an image


def conv(
  x: Array, kernel: Array, *, stride: int, padding: Padding | str
) -> Array:
  """Convolution (cross-correlation) with zero padding.

  On CPUs, some weight gradients for stride 1 are rewritten: see
  `_kernel_gradient`. For larger strides, the gradient in x is `conv_transpose`.

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
  on_cpu = (
    functools.partial(_stride_one, padding=padding)
    if stride == 1
    else functools.partial(_strided, stride=stride, padding=padding)
  )
  return lax.platform_dependent(
    x,
    kernel,
    cpu=on_cpu,
    default=functools.partial(_plain, stride=stride, padding=padding),
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _strided(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
  return _plain(x, kernel, stride=stride, padding=padding)


def _strided_forward(
  x: Array, kernel: Array, stride: int, padding: Padding
) -> tuple[Array, tuple[Array, Array]]:
  return _strided(x, kernel, stride, padding), (x, kernel)


def _strided_backward(
  stride: int,
  padding: Padding,
  saved: tuple[Array, Array],
  cotangent: Array,
) -> tuple[Array, Array]:
  x, kernel = saved
  _, pull_back = jax.vjp(
    lambda kernel: _plain(x, kernel, stride=stride, padding=padding), kernel
  )
  (kernel_bar,) = pull_back(cotangent)
  rows, columns = (
    # Pixels at the end that no window reached have a gradient too, of zero.
    (before, window + stride * (count - 1) - before - size)
    for (before, _), window, count, size in zip(
      padding, kernel.shape[:2], cotangent.shape[1:3], x.shape[1:3], strict=True
    )
  )
  return _adjoint(cotangent, kernel, stride, (rows, columns)), kernel_bar


_strided.defvjp(_strided_forward, _strided_backward)


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
  exchanged, which is used there instead. On CPUs small maps are computed by
  `_by_taps` and large ones by `_by_parity`.

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
  (top, bottom), (left, right) = padding
  padding = ((top, bottom - extra), (left, right - extra))
  return lax.platform_dependent(
    x,
    kernel,
    cpu=lambda x, kernel: _adjoint(x, kernel, stride, padding),
    default=functools.partial(_dilated, stride=stride, padding=padding),
  )


def _num_pixels(sizes: tuple[Any, ...]) -> int | None:
  """The product of sizes; None if one is symbolic."""
  if not all(isinstance(size, int) for size in sizes):
    return None
  return math.prod(sizes)


def _dilated(
  x: Array, kernel: Array, *, stride: int, padding: Padding
) -> Array:
  h, w = kernel.shape[:2]
  (top, bottom), (left, right) = padding
  return lax.conv_general_dilated(
    x,
    lax.rev(kernel, (0, 1)),
    window_strides=(1, 1),
    padding=((h - 1 - top, h - 1 - bottom), (w - 1 - left, w - 1 - right)),
    lhs_dilation=(stride, stride),
    dimension_numbers=('NHWC', 'HWOI', 'NHWC'),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _adjoint(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
  of_batch, of_image = _num_pixels(x.shape[:3]), _num_pixels(x.shape[1:3])
  if of_image is not None and of_image <= _FEW_PIXELS:
    return _by_taps(x, kernel, stride, padding)
  doubling = (3, 3), 2, ((1, 0), (1, 0))
  is_doubled = (kernel.shape[:2], stride, padding) == doubling
  if is_doubled and of_batch is not None and of_batch >= _MANY_PIXELS:
    return _by_parity(x, kernel)
  return _dilated(x, kernel, stride=stride, padding=padding)


def _by_taps(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
  """Computes what each pixel adds at each tap of the kernel, and adds it up.

  One matrix product without the zeros between pixels. What it gives is
  (h / stride) * (w / stride) times as large as the output, so this is for
  small maps, where XLA's dilated convolution is several times as slow.
  """
  h, w, features, channels = kernel.shape
  batch, height, width, _ = x.shape
  weights = kernel.transpose(3, 0, 1, 2).reshape(channels, -1)
  products = x.reshape(-1, channels) @ weights
  taps = products.reshape(batch, height, width, h, w, features)

  def add_up(taps: Array, axis: int, axis_of_taps: int) -> Array:
    """Adds taps[i, t] to place stride * i + t, less the padding before."""
    before, after = padding[axis - 1]
    count = taps.shape[axis_of_taps]
    total: Any = 0
    for tap in range(count):
      pads = [(0, 0, 0)] * (taps.ndim - 1)
      pads[axis] = (tap - before, count - 1 - tap - after, stride - 1)
      part = lax.index_in_dim(taps, tap, axis_of_taps, keepdims=False)
      total += lax.pad(part, jnp.zeros((), part.dtype), pads)
    return cast(Array, total)

  return add_up(add_up(taps, 1, 3), 2, 3)


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
  x: Array, kernel: Array, stride: int, padding: Padding
) -> tuple[Array, tuple[Array, Array]]:
  return _adjoint(x, kernel, stride, padding), (x, kernel)


def _backward(
  stride: int,
  padding: Padding,
  saved: tuple[Array, Array],
  cotangent: Array,
) -> tuple[Array, Array]:
  x, kernel = saved
  strided = functools.partial(_plain, stride=stride, padding=padding)
  x_bar, pull_back = jax.vjp(lambda k: strided(cotangent, k), kernel)
  (kernel_bar,) = pull_back(x)
  return x_bar, kernel_bar


_adjoint.defvjp(_forward, _backward)
