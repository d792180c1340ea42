"""Two-dimensional convolution and its transpose on [B, H, W, C] arrays.

On CPUs some forms and all gradients are written out, since XLA's own are slow
there; experiments/bench_rewrites.py measures what each saves. Every convolution
is in the one layout that XLA computes fast. It brings others into that layout,
but not those in loops and in functions that it does not inline.
"""

import functools
import math
from collections.abc import Iterator
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
_MAX_WINOGRAD_NUMBERS = 2**19  # of an input, whose transform fits a cache
_MANY_PIXELS = 10_000  # of a batch
_FEW_PIXELS = 16  # of an image


def conv(
  x: Array, kernel: Array, *, stride: int, padding: Padding | str
) -> Array:
  """Convolution (cross-correlation) with zero padding.

  Args:
    x: [B, H, W, I].
    kernel: [h, w, I, O].
    stride: along height and width.
    padding: zeros ((top, bottom), (left, right)), or 'SAME' as in Keras.

  Returns:
    [B, H', W', O] with H' = (H + top + bottom - h) // stride + 1. On CPUs its
    derivatives are reverse-mode only, of any order.
  """
  if isinstance(padding, str):
    sides, window = x.shape[1:3], kernel.shape[:2]
    rows, columns = lax.padtype_to_pads(sides, window, (stride,) * 2, padding)
    padding = (rows, columns)
  return lax.platform_dependent(
    x,
    kernel,
    cpu=lambda x, kernel: _conv(x, kernel, stride, padding),
    default=functools.partial(_plain, stride=stride, padding=padding),
  )


def _plain(
  x: Array,
  kernel: Array,
  *,
  padding: Padding,
  stride: int = 1,
  dilation: int = 1,
  kernel_dilation: int = 1,
) -> Array:
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    padding,
    (dilation, dilation),
    (kernel_dilation, kernel_dilation),
    dimension_numbers=_DIMENSIONS,
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
  """`conv` on a CPU."""
  if stride > 1 or min(kernel.shape[:2]) == 1:
    return _plain(x, kernel, stride=stride, padding=padding)
  (top, bottom), (left, right) = padding
  height, width = x.shape[1] + top + bottom - 2, x.shape[2] + left + right - 2
  numbers = _product(x.shape)
  if (
    numbers is not None
    and numbers <= _MAX_WINOGRAD_NUMBERS
    and _has_winograd(x, kernel.shape, (height, width))
  ):
    return winograd.conv(_pad(x, padding), kernel)
  if padding != _NONE:
    return _plain(x, kernel, padding=padding)
  # XLA's fast path takes padded convolutions only.
  padded = _plain(x, kernel, padding=((1, 1), (1, 1)))
  return padded[:, 1:-1, 1:-1]


def _has_winograd(
  x: Array, kernel_shape: tuple[int, ...], output_sizes: tuple[Any, ...]
) -> bool:
  """Whether Winograd's algorithm applies, and is fast and exact enough."""
  is_even = all(
    isinstance(n, int) and n > 0 and n % 2 == 0 for n in output_sizes
  )
  is_3x3, has_many = kernel_shape[:2] == (3, 3), min(kernel_shape[2:]) >= _MANY
  return is_even and is_3x3 and has_many and x.dtype.itemsize >= 4


def _product(sizes: tuple[Any, ...]) -> int | None:
  """The product of sizes; None if one is symbolic."""
  if not all(isinstance(size, int) for size in sizes):
    return None
  return math.prod(sizes)


def _pad(x: Array, padding: Padding) -> Array:
  pads = [(*pair, 0) for pair in ((0, 0), *padding, (0, 0))]
  return lax.pad(x, jnp.zeros((), x.dtype), pads)  # negative ones too


def _conv_forward(
  x: Array, kernel: Array, stride: int, padding: Padding
) -> tuple[Array, tuple[Array, Array]]:
  return _conv(x, kernel, stride, padding), (x, kernel)


def _conv_backward(
  stride: int, padding: Padding, saved: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
  x, kernel, cotangent = _arrays(*saved, cotangent)
  h, w = kernel.shape[:2]
  kernel_bar = _kernel_gradient(x, cotangent, (h, w), stride, padding)
  if stride == 1:
    (top, bottom), (left, right) = padding
    full = ((h - 1 - top, h - 1 - bottom), (w - 1 - left, w - 1 - right))
    if min(*full[0], *full[1]) >= 0:
      return _conv(cotangent, _flipped(kernel), 1, full), kernel_bar
  rows, columns = (
    # Pixels at the end that no window reached have a gradient of zero.
    (before, window + stride * (count - 1) - before - size)
    for (before, _), window, count, size in zip(
      padding, (h, w), cotangent.shape[1:3], x.shape[1:3], strict=True
    )
  )
  return _adjoint(cotangent, kernel, stride, (rows, columns)), kernel_bar


_conv.defvjp(_conv_forward, _conv_backward)


def _arrays(*values: Any) -> Iterator[Array]:
  """What JAX before 0.8 gives as literals, which have no methods."""
  return map(jnp.asarray, values)


def _flipped(kernel: Array) -> Array:
  """The kernel of the adjoint convolution."""
  return lax.rev(kernel, (0, 1)).swapaxes(2, 3)


def _kernel_gradient(
  x: Array,
  cotangent: Array,
  window: tuple[int, int],
  stride: int,
  padding: Padding,
) -> Array:
  """Weight gradient of a convolution.

  Args:
    x: [B, H, W, I].
    cotangent: [B, H', W', O].
    window: (h, w).
    stride: of the convolution.
    padding: of the convolution.

  Returns:
    [h, w, I, O].
  """
  shape = (*window, x.shape[3], cotangent.shape[3])
  if stride == 1 and shape[3] <= _FEW:
    return _gradient_of_few(_pad(x, padding), cotangent, shape=shape)
  if stride == 1 and _has_winograd(x, shape, cotangent.shape[1:3]):
    return winograd.kernel_gradient(_pad(x, padding), cotangent)
  # Channels take the place of examples: [I, H, W, B] and [H', W', B, O].
  rows, columns = (
    (before, size + stride * (count - 1) - side - before)
    for (before, _), size, count, side in zip(
      padding, window, cotangent.shape[1:3], x.shape[1:3], strict=True
    )
  )
  gradient = _plain(
    x.transpose(3, 1, 2, 0),
    cotangent.transpose(1, 2, 0, 3),
    padding=(rows, columns),
    kernel_dilation=stride,
  )
  return gradient.transpose(1, 2, 0, 3)


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


def _dilated(
  x: Array, kernel: Array, *, stride: int, padding: Padding
) -> Array:
  h, w = kernel.shape[:2]
  (top, bottom), (left, right) = padding
  return _plain(
    x,
    _flipped(kernel),
    padding=((h - 1 - top, h - 1 - bottom), (w - 1 - left, w - 1 - right)),
    dilation=stride,
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _adjoint(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
  """`conv_transpose` on a CPU.

  The weight gradient is that of the strided convolution with input and output
  exchanged; that of the dilated convolution is slow.
  """
  of_batch, of_image = _product(x.shape[:3]), _product(x.shape[1:3])
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
  products = jnp.matmul(  # sums of taps round once, as a convolution's
    x.reshape(-1, channels),
    weights,
    preferred_element_type=jnp.float64
    if x.dtype == jnp.float64
    else jnp.float32,
  )
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

  return add_up(add_up(taps, 1, 3), 2, 3).astype(x.dtype)


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


def _adjoint_forward(
  x: Array, kernel: Array, stride: int, padding: Padding
) -> tuple[Array, tuple[Array, Array]]:
  return _adjoint(x, kernel, stride, padding), (x, kernel)


def _adjoint_backward(
  stride: int, padding: Padding, saved: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
  x, kernel, cotangent = _arrays(*saved, cotangent)
  x_bar = _conv(cotangent, kernel, stride, padding)
  window = kernel.shape[0], kernel.shape[1]
  return x_bar, _kernel_gradient(cotangent, x, window, stride, padding)


_adjoint.defvjp(_adjoint_forward, _adjoint_backward)
