"""Two-dimensional convolution and its transpose on [B, H, W, C] arrays."""

import functools

import jax
from jax import lax

from cyclegan_jax.types import Array

Padding = tuple[tuple[int, int], tuple[int, int]]

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')


def conv(
  x: Array, kernel: Array, *, stride: int, padding: Padding | str
) -> Array:
  """Convolution (cross-correlation) with zero padding.

  Args:
    x: [B, H, W, I].
    kernel: [h, w, I, O].
    stride: of both directions.
    padding: zeros ((top, bottom), (left, right)), or 'SAME' as in Keras.

  Returns:
    [B, H', W', O] with H' = (H + top + bottom - h) // stride + 1.
  """
  return lax.conv_general_dilated(
    x, kernel, (stride, stride), padding, dimension_numbers=_DIMENSIONS
  )


def conv_valid(x: Array, kernel: Array) -> Array:
  """Convolution with stride 1 and without padding.

  Forwards, XLA's CPU backend has a fast path for padded kernels alone, so
  there a border of zeros is added and what it gives is cut off again: 3 times
  faster for 3x3 and 256 channels, 20 times for 7x7 to 3 channels, a fifth
  slower for small maps (experiments/bench_conv.py). Gradients are plain.

  Args:
    x: [B, H, W, I].
    kernel: [h, w, I, O], h and w at least 2.

  Returns:
    [B, H - h + 1, W - w + 1, O].
  """
  return lax.platform_dependent(
    x, kernel, cpu=_padded_and_cropped, default=_valid
  )


def _valid(x: Array, kernel: Array) -> Array:
  return conv(x, kernel, stride=1, padding=((0, 0), (0, 0)))


@jax.custom_vjp
def _padded_and_cropped(x: Array, kernel: Array) -> Array:
  padded = conv(x, kernel, stride=1, padding=((1, 1), (1, 1)))
  return padded[:, 1:-1, 1:-1]


def _valid_forward(
  x: Array, kernel: Array
) -> tuple[Array, tuple[Array, Array]]:
  return _padded_and_cropped(x, kernel), (x, kernel)


def _valid_backward(
  saved: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
  _, pull_back = jax.vjp(_valid, *saved)
  return pull_back(cotangent)


_padded_and_cropped.defvjp(_valid_forward, _valid_backward)


def conv_transpose(
  x: Array, kernel: Array, *, stride: int, padding: Padding, extra: int = 0
) -> Array:
  """The adjoint of `conv` in its input: PyTorch's ConvTranspose2d.

  On CPUs XLA's own weight gradient of a dilated convolution is slow: both
  gradients together take 2 to 10 times as long. The adjoint's is the strided
  convolution's with input and output exchanged, so there that is what we ask
  for (experiments/bench_conv.py).

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
  return _dilated(x, kernel, stride=stride, padding=padding, extra=extra)


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
  strided = functools.partial(conv, stride=stride, padding=padding)
  x_bar, pull_back = jax.vjp(lambda k: strided(cotangent, k), kernel)
  (kernel_bar,) = pull_back(x)
  return x_bar, kernel_bar


_adjoint.defvjp(_forward, _backward)
