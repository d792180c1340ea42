"""A 3x3 convolution of a map whose border is reflected."""

import jax
import jax.numpy as jnp
from jax import lax

from cyclegan_jax.nets.ops.conv import (
  conv,
  conv_valid,
  is_at_least,
)
from cyclegan_jax.types import Array

_WIDE = 48  # pixels, from which a border is little against its inside


def conv_reflected(x: Array, kernel: Array) -> Array:
  """Convolution with stride 1 after a reflected border of one pixel.

  On CPUs, of wide maps, the convolution has a border of zeros, which is XLA's
  fast path, and what the reflected one gives more is added at the four edges:
  the map is not copied for its border, nor padded and cropped as in
  `conv_valid` (experiments/bench_conv.py). Gradients are those of the plain
  form.

  Args:
    x: [B, H, W, I], H and W at least 2.
    kernel: [3, 3, I, O].

  Returns:
    [B, H, W, O].
  """
  if not all(is_at_least(_WIDE, length) for length in x.shape[1:3]):
    return reflect_then_conv(x, kernel)
  return lax.platform_dependent(
    x, kernel, cpu=_with_edges, default=reflect_then_conv
  )


def reflect_then_conv(x: Array, kernel: Array) -> Array:
  """The plain form of `conv_reflected`."""
  border = ((0, 0), (1, 1), (1, 1), (0, 0))
  return conv_valid(jnp.pad(x, border, mode='reflect'), kernel)


@jax.custom_vjp
def _with_edges(x: Array, kernel: Array) -> Array:
  y = conv(x, kernel, stride=1, padding=((1, 1), (1, 1)))
  ends = ((0, 0), (1, 1), (0, 0))
  # Rows take the corners along: their ends are reflected too.
  top, bottom = (jnp.pad(x[:, at], ends, mode='reflect') for at in (1, -2))
  left, right = (jnp.pad(x[:, :, at], ends) for at in (1, -2))
  y = y.at[:, 0].add(_conv_line(top, kernel[0]))
  y = y.at[:, -1].add(_conv_line(bottom, kernel[2]))
  y = y.at[:, :, 0].add(_conv_line(left, kernel[:, 0]))
  return y.at[:, :, -1].add(_conv_line(right, kernel[:, 2]))


def _conv_line(line: Array, kernel: Array) -> Array:
  """[B, N + 2, I] and [3, I, O] to [B, N, O]."""
  length = line.shape[1] - 2
  taps = [line[:, at : at + length] for at in range(3)]
  return jnp.concatenate(taps, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
  return _with_edges(x, kernel), (x, kernel)


def _backward(
  saved: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
  _, pull_back = jax.vjp(reflect_then_conv, *saved)
  return pull_back(cotangent)


_with_edges.defvjp(_forward, _backward)
