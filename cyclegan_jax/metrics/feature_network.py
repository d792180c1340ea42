"""Convolutional networks with fixed weights, which turn images to features.

A network is a function `network(x, convolve)` that calls `convolve(x, conv)`
for each of its convolutions. So one description says which tensors a file has
to hold and what to compute with them.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cyclegan_jax import images as pixels
from cyclegan_jax.errors import WeightsError
from cyclegan_jax.types import Array

# Of features kept on disk: raise it with every change of what comes out.
_CODE_VERSION = 1
_NORM = ('weight', 'bias', 'running_mean', 'running_var')


class Conv(NamedTuple):
  """A convolution and the batch norm behind it, under their names in a file.

  Attributes:
    weight: name of the kernel, [O, I, h, w] in the file.
    norm: what the names of the batch norm's tensors begin with.
    features: O.
    kernel: h and w.
    stride: of both axes.
    padding: as XLA has it; 'SAME' puts the odd one behind.
    is_depthwise: each channel by itself.
  """

  weight: str
  norm: str
  features: int
  kernel: tuple[int, int]
  stride: int = 1
  padding: Literal['SAME', 'VALID'] = 'SAME'
  is_depthwise: bool = False


class Folded(NamedTuple):
  """A convolution that its batch norm has been multiplied into."""

  kernel: Any  # float32 [h, w, I, O]
  bias: Any  # float32 [O]


Convolve = Callable[[Array, Conv], Array]
Network = Callable[[Array, Convolve], Array]
Resize = Callable[[Array], Array]


class FrozenExtractor:
  """A network whose features distances are taken of.

  Attributes:
    name: 'inception', 'effnet'.
    frechet_name: of the Fréchet distance in its features: 'fid'.
    kernel_name: of the kernel distance in its features: 'kid'.
    dim: number of features.
    digest: changes with weights, preprocessing and code.
    batch_size: the largest number of images at once.
  """

  def __init__(
    self,
    name: str,
    frechet_name: str,
    kernel_name: str,
    *,
    network: Network,
    layers: Mapping[str, Folded],
    prepare: Resize,
    preparation: str,
    dim: int,
    batch_size: int,
  ):
    """Compiles nothing yet.

    Args:
      name: see above, as are the next two.
      frechet_name: see above.
      kernel_name: see above.
      network: prepared images to features [N, dim].
      layers: of `fold_layers`.
      prepare: uint8 [N, H, W, 3] to what the network takes.
      preparation: a name for what `prepare` does.
      dim: see above.
      batch_size: see above.
    """
    self.name = name
    self.frechet_name = frechet_name
    self.kernel_name = kernel_name
    self.dim = dim
    self.batch_size = batch_size
    self.digest = _digest(layers, f'{name} {preparation} {_CODE_VERSION}')
    self._network = network
    self._layers = jax.device_put(dict(layers))
    # Apart, so that images of another size don't compile the network again.
    self._prepare = jax.jit(prepare)

  def __call__(self, images: np.ndarray) -> np.ndarray:
    """Features of images.

    It works through full batches, or one of the next power of two where there
    are fewer: so few sizes are compiled, and equal numbers give equal bits.

    Args:
      images: uint8 [N, H, W, C]; other than three channels become RGB as
        `images.to_rgb` has it.

    Returns:
      float32 [N, dim].

    Raises:
      ValueError: it is of another type or shape.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4:
      raise ValueError(
        f'images are {images.dtype} {list(images.shape)}: they must be uint8 '
        '[N, H, W, C]'
      )
    if images.shape[-1] != 3:
      images = pixels.to_rgb(pixels.to_float(images))
    size = min(self.batch_size, 1 << max(0, len(images) - 1).bit_length())
    features = np.empty((len(images), self.dim), np.float32)
    for start in range(0, len(images), size):
      batch = images[start : start + size]
      number = len(batch)
      missing = [(0, size - number), (0, 0), (0, 0), (0, 0)]
      prepared = self._prepare(np.pad(batch, missing))
      found = _apply(self._network, self._layers, prepared)
      features[start : start + number] = np.asarray(found)[:number]
    return features


@functools.partial(jax.jit, static_argnums=0)
def _apply(network: Network, layers: Mapping[str, Folded], x: Array) -> Array:
  return network(x, lambda y, conv: _convolve(y, conv, layers[conv.weight]))


def fold_layers(
  tensors: Mapping[str, np.ndarray],
  network: Network,
  input_shape: tuple[int, int, int],
  *,
  epsilon: float,
  head: Mapping[str, tuple[int, ...]],
  what: str,
) -> dict[str, Folded]:
  """A network's layers from the tensors of its file.

  Args:
    tensors: by name.
    network: that they are of.
    input_shape: [H, W, C] of what it takes.
    epsilon: of its batch norms.
    head: shapes of tensors that the file has and the features don't need.
    what: the file and the network's name, for messages.

  Returns:
    By the names of the kernels, in float32.

  Raises:
    WeightsError: a tensor is missing, unknown, of another shape or type, or
      not finite.
  """
  convs, shapes = _describe(network, input_shape)
  _check(tensors, {**shapes, **head}, what)
  layers = {}
  for conv in convs:
    kernel, scale, offset, mean, variance = (
      tensors[name].astype(np.float64)
      for name in (conv.weight, *(f'{conv.norm}.{each}' for each in _NORM))
    )
    if variance.min() < 0:
      raise WeightsError(
        f'{what}: {conv.norm}.running_var is below 0: get the file from its '
        'source again'
      )
    scale = scale / np.sqrt(variance + epsilon)
    layers[conv.weight] = Folded(
      (kernel.transpose(2, 3, 1, 0) * scale).astype(np.float32),
      (offset - mean * scale).astype(np.float32),
    )
  return layers


def _describe(
  network: Network, input_shape: tuple[int, int, int]
) -> tuple[list[Conv], dict[str, tuple[int, ...]]]:
  """A network's convolutions, and the shapes of all their tensors."""
  convs = []
  shapes: dict[str, tuple[int, ...]] = {}

  def record(x: Array, conv: Conv) -> Array:
    inputs = 1 if conv.is_depthwise else x.shape[-1]
    convs.append(conv)
    shapes[conv.weight] = (conv.features, inputs, *conv.kernel)
    shapes.update({f'{conv.norm}.{each}': (conv.features,) for each in _NORM})
    kernel = jnp.zeros((*conv.kernel, inputs, conv.features))
    return _convolve(x, conv, Folded(kernel, jnp.zeros(conv.features)))

  # Of shapes alone: nothing is computed.
  x = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
  jax.eval_shape(lambda x: network(x, record), x)
  return convs, shapes


def _convolve(x: Array, conv: Conv, layer: Folded) -> Array:
  if conv.is_depthwise:
    return _filter_channels(x, layer.kernel, conv.stride) + layer.bias
  y = lax.conv_general_dilated(
    x,
    layer.kernel,
    (conv.stride, conv.stride),
    conv.padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    # Accelerators would round the factors, and so the distances.
    precision=lax.Precision.HIGHEST,
  )
  return y + layer.bias


def _filter_channels(x: Array, kernel: Array, stride: int) -> Array:
  """A depthwise convolution with padding 'SAME', as a sum of shifted images.

  XLA's own is 10 to 50 times slower on CPUs.

  Args:
    x: [N, H, W, C].
    kernel: [h, w, 1, C].
    stride: of both axes.
  """
  sizes = [-(-size // stride) for size in x.shape[1:3]]
  margins = [(0, 0)]
  for before, after, width in zip(
    x.shape[1:3], sizes, kernel.shape[:2], strict=True
  ):
    margin = max((after - 1) * stride + width - before, 0)
    margins.append((margin // 2, margin - margin // 2))
  x = jnp.pad(x, [*margins, (0, 0)])
  height, width = ((size - 1) * stride + 1 for size in sizes)
  total = jnp.zeros((), x.dtype)
  for i, j in np.ndindex(*kernel.shape[:2]):
    shifted = x[:, i : i + height : stride, j : j + width : stride]
    total = total + shifted * kernel[i, j, 0]
  return total


def _check(
  tensors: Mapping[str, np.ndarray],
  expected: Mapping[str, tuple[int, ...]],
  what: str,
) -> None:
  # Counters of training, which only newer files have.
  known = [
    each for each in tensors if not each.endswith('.num_batches_tracked')
  ]
  missing = [name for name in expected if name not in tensors]
  unknown = [name for name in known if name not in expected]
  for names, trouble in ((missing, 'lacks'), (unknown, 'has also')):
    if names:
      more = f' and {len(names) - 1} more' if len(names) > 1 else ''
      raise WeightsError(
        f'{what}: the file {trouble} {names[0][:80]}{more}: it is of another '
        'network'
      )
  for name, shape in expected.items():
    tensor = tensors[name]
    if tensor.shape != shape or tensor.dtype.kind != 'f':
      raise WeightsError(
        f'{what}: {name} is {tensor.dtype} {list(tensor.shape)}, not floats '
        f'{list(shape)}: it is of another network'
      )
    if not np.isfinite(tensor).all():
      raise WeightsError(
        f'{what}: {name} has NaN or infinite values: get the file from its '
        'source again'
      )


def _digest(layers: Mapping[str, Folded], code: str) -> str:
  hashed = hashlib.sha256(code.encode())
  for name in sorted(layers):
    for each in layers[name]:
      hashed.update(f'{name} {each.shape}'.encode())
      hashed.update(np.ascontiguousarray(each, '<f4').tobytes())
  return hashed.hexdigest()
