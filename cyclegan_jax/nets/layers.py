"""Layers shared by the generators and discriminators."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cyclegan_jax import parallel
from cyclegan_jax.config import DiscriminatorConfig, GeneratorConfig
from cyclegan_jax.nets import ops
from cyclegan_jax.types import Array, Key

Initializer = Callable[..., Array]

_KERAS_EPSILON = 1.01e-5


def kernel_init(name: str) -> Initializer:
  """Initializer of kernels: Keras's glorot uniform or the paper's normal."""
  if name == 'glorot_uniform':
    return nn.initializers.glorot_uniform()
  return nn.initializers.normal(0.02)


def scale_init(name: str) -> Initializer:
  """Initializer of norm scales: ones with glorot uniform, else N(1, 0.02)."""
  if name == 'glorot_uniform':
    return nn.initializers.ones

  def around_one(key: Key, shape: Any, dtype: Any = jnp.float32) -> Array:
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)

  return around_one


def param_dtype(dtype: str) -> Any:
  """Parameter dtype: float32, or float64 where the network computes in it."""
  return jnp.float64 if dtype == 'float64' else jnp.float32


def leaky_relu(x: Array) -> Array:
  """Leaky ReLU with slope 0.2, as all discriminators and U-Nets here use."""
  return nn.leaky_relu(x, 0.2)


class Conv(nn.Module):
  """Convolution with explicit padding: [B, H, W, I] to [B, H', W', O].

  Attributes:
    features: O, the number of output channels.
    size: height and width of the kernel.
    stride: along height and width.
    pads: pixels (before, after) each of height and width; None zero-pads like
      Keras's 'same', which differs from PyTorch's padding for even kernels
      and for stride 2.
    padding: 'zero' or 'reflect'.
    use_bias: whether to add a bias.
    initializer: name for `kernel_init`.
    dtype: dtype of the computation.
    spectral_norm: whether to divide the kernel by its largest singular value.
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
      x = jnp.pad(x, ((0, 0), pads, pads, (0, 0)), mode='reflect')
      pads = (0, 0)
    padding = (pads, pads) if pads else 'SAME'
    return ops.conv(x, kernel, stride=self.stride, padding=padding)


class ConvTranspose(nn.Module):
  """Transposed convolution with stride 2: [B, H, W, I] to [B, 2 H, 2 W, O].

  Size 4 equals Keras's transposed convolution cropped by one pixel on each
  side, and PyTorch's with padding 1. Size 3 equals PyTorch's with padding 1
  and output_padding 1.
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
  """Doubles height and width: [B, H, W, I] to [B, 2 H, 2 W, O].

  Method 'transpose' is a transposed convolution with a kernel of `size`;
  'resize' repeats pixels, then applies a 3x3 convolution.
  """

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
  """Adds the module's parameter 'bias', initialized to zero."""
  dtype: str = module.dtype
  bias = module.param(
    'bias', nn.initializers.zeros, (x.shape[-1],), param_dtype(dtype)
  )
  return x + bias.astype(x.dtype)


class Norm(nn.Module):
  """Normalization by the statistics of the input, without running averages.

  Statistics are computed in float32 at least.

  Attributes:
    kind: 'batch' normalizes over batch, height and width (across all
      devices), 'instance' over height and width of each image, 'layer' over
      the channels of each pixel; 'none' returns the input.
    affine: whether to scale and shift by learned parameters.
    epsilon: added to the variance.
    initializer: name for `scale_init`.
    dtype: dtype of the network's computation.
    axis_name: device axis over which 'batch' takes statistics.
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
    centered = wide - parallel.mean_over(mean, over)
    # Two passes: E[x^2] - E[x]^2 loses digits where the mean is large.
    variance = jnp.mean(jnp.square(centered), axes, keepdims=True)
    variance = parallel.mean_over(variance, over)
    y = centered * jax.lax.rsqrt(variance + self.epsilon)
    if self.affine:
      shape, dtype = (x.shape[-1],), param_dtype(self.dtype)
      y = y * self.param('scale', scale_init(self.initializer), shape, dtype)
      y = y + self.param('bias', nn.initializers.zeros, shape, dtype)
    return y.astype(x.dtype)


def norm_epsilon(config: GeneratorConfig | DiscriminatorConfig) -> float:
  """The epsilon of a network's norms: Keras's or PyTorch's."""
  return _KERAS_EPSILON if config.name.startswith('keras_') else 1e-5


def make_norm(
  config: GeneratorConfig | DiscriminatorConfig,
  axis_name: str | None,
  name: str,
) -> Norm:
  """The norm that a network's config asks for.

  Args:
    config: options of the network.
    axis_name: device axis under `parallel.data_parallel`.
    name: name of the module's parameters.
  """
  return Norm(
    config.norm,
    affine=config.affine,
    epsilon=norm_epsilon(config),
    initializer=config.init,
    dtype=config.dtype,
    axis_name=axis_name,
    name=name,
  )


class Dropout(nn.Module):
  """Dropout, active in training and in translation.

  The mask of an example depends on its index in the global batch, not on the
  number of devices.
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
