"""What the networks are made of."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cyclegan_jax import parallel
from cyclegan_jax.nets import ops
from cyclegan_jax.types import Array, Key

Initializer = Callable[..., Array]


def kernel_init(name: str) -> Initializer:
  """Kernels: Keras's glorot uniform, or N(0, 0.02) of the paper."""
  if name == 'glorot_uniform':
    return nn.initializers.glorot_uniform()
  return nn.initializers.normal(0.02)


def scale_init(name: str) -> Initializer:
  """Scales of norms: ones with Keras's defaults, N(1, 0.02) otherwise."""
  if name == 'glorot_uniform':
    return nn.initializers.ones

  def around_one(key: Key, shape: Any, dtype: Any = jnp.float32) -> Array:
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)

  return around_one


def param_dtype(dtype: str) -> Any:
  """Parameters are float32 whatever the computation; float64 for checks."""
  return jnp.float64 if dtype == 'float64' else jnp.float32


def leaky_relu(x: Array) -> Array:
  """Slope 0.2 below zero, as in every discriminator and U-Net here."""
  return nn.leaky_relu(x, 0.2)


class Conv(nn.Module):
  """Convolution with explicit padding: [B, H, W, I] to [B, H', W', O].

  `pads` is (before, after) of both height and width; None pads by zeros as
  Keras's 'same' does, which is not PyTorch's padding on even kernels and on
  strides of two. `spectral_norm` divides the kernel by its greatest singular
  value.
  """

  features: int
  size: int
  stride: int = 1
  pads: tuple[int, int] | None = (0, 0)
  padding: str = 'zero'
  use_bias: bool = True
  initializer: str = 'normal'
  dtype: str = 'float32'
  spectral_norm: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Array:
    kernel = self.param(
      'kernel',
      kernel_init(self.initializer),
      (self.size, self.size, x.shape[-1], self.features),
      param_dtype(self.dtype),
    )
    if self.spectral_norm:
      kernel = ops.spectral_norm(kernel)
    x = self._convolve(x.astype(self.dtype), kernel.astype(self.dtype))
    return add_bias(self, x) if self.use_bias else x

  def _convolve(self, x: Array, kernel: Array) -> Array:
    pads = self.pads
    if pads and any(pads) and self.padding == 'reflect':
      if (self.size, self.stride, pads) == (3, 1, (1, 1)):
        return ops.conv_reflected(x, kernel)
      x = jnp.pad(x, ((0, 0), pads, pads, (0, 0)), mode='reflect')
      pads = (0, 0)
    if self.stride == 1 and self.size > 1 and pads == (0, 0):
      return ops.conv_valid(x, kernel)
    padding = (pads, pads) if pads else 'SAME'
    return ops.conv(x, kernel, stride=self.stride, padding=padding)


class ConvTranspose(nn.Module):
  """Doubles height and width by the adjoint of a stride-2 convolution.

  With size 4: Keras's transposed convolution cropped by one pixel on each
  side, PyTorch's with padding 1. With size 3: PyTorch's with padding 1 and
  output_padding 1.
  """

  features: int
  size: int
  use_bias: bool = True
  initializer: str = 'normal'
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Array) -> Array:
    kernel = self.param(
      'kernel',
      kernel_init(self.initializer),
      (self.size, self.size, self.features, x.shape[-1]),
      param_dtype(self.dtype),
    )
    x = ops.conv_transpose(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      stride=2,
      padding=((1, 1), (1, 1)),
      extra=self.size % 2,
    )
    return add_bias(self, x) if self.use_bias else x


class Upsample(nn.Module):
  """Doubles height and width: transposed conv, or resize and 3x3 conv."""

  features: int
  size: int
  method: str = 'transpose'
  padding: str = 'zero'
  use_bias: bool = True
  initializer: str = 'normal'
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Array) -> Array:
    common: dict[str, Any] = {
      'use_bias': self.use_bias,
      'initializer': self.initializer,
      'dtype': self.dtype,
    }
    if self.method == 'transpose':
      return ConvTranspose(self.features, self.size, **common)(x)
    x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    return Conv(self.features, 3, pads=(1, 1), padding=self.padding, **common)(
      x
    )


def add_bias(module: nn.Module, x: Array) -> Array:
  """Adds the module's parameter 'bias', zero at first."""
  dtype: str = module.dtype
  bias = module.param(
    'bias', nn.initializers.zeros, (x.shape[-1],), param_dtype(dtype)
  )
  return x + bias.astype(x.dtype)


class Norm(nn.Module):
  """Normalises by the statistics of the batch at hand, never by averages.

  'batch' takes them over batch, height and width (all devices' examples),
  'instance' over height and width of each image, 'layer' over the channels of
  each place, 'none' not at all.
  Statistics are computed in float32 at least.
  """

  kind: str
  affine: bool = True
  epsilon: float = 1e-5
  initializer: str = 'normal'
  dtype: str = 'float32'
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    if self.kind == 'none':
      return x
    wide = x.astype(param_dtype(self.dtype))
    axes = {'batch': (0, 1, 2), 'instance': (1, 2), 'layer': (-1,)}[self.kind]
    over = self.axis_name if self.kind == 'batch' else None
    mean = jnp.mean(wide, axes, keepdims=True)
    centred = wide - parallel.mean_over(mean, over)
    # Two passes: E[x^2] - E[x]^2 loses digits where the mean is large.
    variance = jnp.mean(jnp.square(centred), axes, keepdims=True)
    variance = parallel.mean_over(variance, over)
    y = centred * jax.lax.rsqrt(variance + self.epsilon)
    if self.affine:
      shape, dtype = (x.shape[-1],), param_dtype(self.dtype)
      y = y * self.param('scale', scale_init(self.initializer), shape, dtype)
      y = y + self.param('bias', nn.initializers.zeros, shape, dtype)
    return y.astype(x.dtype)


class Dropout(nn.Module):
  """Drops activations, in training and in translation alike.

  Masks are drawn for each example of the global batch, so they do not
  depend on the number of devices.
  """

  rate: float
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    if self.rate == 0:
      return x
    keys = parallel.example_keys(
      self.make_rng('dropout'), x.shape[0], self.axis_name
    )
    keep = jax.vmap(
      lambda key: jax.random.bernoulli(key, 1 - self.rate, x.shape[1:])
    )(keys)
    return jnp.where(keep, x / (1 - self.rate), jnp.zeros_like(x))
