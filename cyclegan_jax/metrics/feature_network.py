"""Convolutional feature extractors with fixed weights.

A network is a function `network(x, convolve)` that calls `convolve(x, conv)`
for each of its convolutions. So one description gives both the tensors that a
file of weights has to hold and the computation.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cyclegan_jax.errors import WeightsError
from cyclegan_jax.types import Array

# Part of the digest of cached features: raise it with every change of them.
_CODE_VERSION = 2
_NORM = ('weight', 'bias', 'running_mean', 'running_var')


class Conv(NamedTuple):
  """A convolution with the batch norm after it, as named in a file.

  Attributes:
    weight: name of the kernel, stored as [O, I, h, w].
    norm: prefix of the names of the batch norm's tensors.
    features: O.
    kernel: h and w.
    stride: stride along both axes.
    padding: XLA's; 'SAME' puts an odd pixel at the end.
    is_depthwise: whether each channel has a kernel of its own.
  """

  weight: str
  norm: str
  features: int
  kernel: tuple[int, int]
  stride: int = 1
  padding: Literal['SAME', 'VALID'] = 'SAME'
  is_depthwise: bool = False


class FoldedConv(NamedTuple):
  """A convolution with its batch norm multiplied into it."""

  kernel: Any  # float32 [h, w, I, O]
  bias: Any  # float32 [O]


Convolve = Callable[[Array, Conv], Array]
Network = Callable[[Array, Convolve], Array]


class FeatureExtractor:
  """Network whose features describe images in distances between sets.

  Attributes:
    name: 'inception' or 'effnet'.
    frechet_name: name of the Fréchet distance of its features, such as 'fid'.
    kernel_name: name of the kernel distance of its features, such as 'kid'.
    dim: number of features.
    digest: hash of weights, preprocessing and code.
    batch_size: largest number of images in one call of the network.
  """

  def __init__(
    self,
    name: str,
    frechet_name: str,
    kernel_name: str,
    *,
    network: Network,
    layers: Mapping[str, FoldedConv],
    preprocess: Callable[[Array], Array],
    dim: int,
    batch_size: int,
  ):
    """Places the weights on the device.

    Args:
      name: see the class, as for all that is not listed here.
      frechet_name: see the class.
      kernel_name: see the class.
      network: preprocessed images to features [N, dim].
      layers: the convolutions, from `fold_layers`.
      preprocess: uint8 [N, H, W, 3] to the network's input.
      dim: see the class.
      batch_size: see the class.
    """
    self.name = name
    self.frechet_name = frechet_name
    self.kernel_name = kernel_name
    self.dim = dim
    self.batch_size = batch_size
    self.digest = _digest(layers, f'{name} {_CODE_VERSION}')
    self._network = network
    self._layers = jax.device_put(dict(layers))
    # Apart, so that another image size does not compile the network again.
    self._preprocess = jax.jit(preprocess)

  def __call__(self, images: np.ndarray) -> np.ndarray:
    """Computes the features of images.

    Batches are padded to `batch_size`, or to the next power of two where
    there are fewer images. So few shapes are compiled, and the same images in
    batches of the same size have the same features to the bit.

    Args:
      images: uint8 [N, H, W, 3].

    Returns:
      float32 [N, dim].

    Raises:
      ValueError: wrong dtype or shape.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
      raise ValueError(
        f'images are {images.dtype} {list(images.shape)}: pass uint8 '
        '[N, H, W, 3]'
      )
    size = min(self.batch_size, 1 << max(0, len(images) - 1).bit_length())
    features = np.empty((len(images), self.dim), np.float32)
    for start in range(0, len(images), size):
      batch = images[start : start + size]
      padding = [(0, size - len(batch)), (0, 0), (0, 0), (0, 0)]
      x = self._preprocess(np.pad(batch, padding))
      output = np.asarray(_apply(self._network, self._layers, x))
      features[start : start + len(batch)] = output[: len(batch)]
    return features


@functools.partial(jax.jit, static_argnums=0)
def _apply(
  network: Network, layers: Mapping[str, FoldedConv], x: Array
) -> Array:
  return network(x, lambda y, conv: _convolve(y, conv, layers[conv.weight]))


def fold_layers(
  tensors: Mapping[str, np.ndarray],
  network: Network,
  input_shape: tuple[int, int, int],
  *,
  epsilon: float,
  classifier: Mapping[str, tuple[int, ...]],
  file: str,
) -> dict[str, FoldedConv]:
  """Folds the batch norms of a file into the network's convolutions.

  Args:
    tensors: tensors of the file by name.
    network: the network.
    input_shape: [H, W, C] of its input.
    epsilon: epsilon of its batch norms.
    classifier: shapes of the file's other tensors, which are not used.
    file: name of the file, for error messages.

  Returns:
    The convolutions in float32, by the names of their kernels.

  Raises:
    WeightsError: a tensor is missing, unknown, of another shape or dtype, or
      not finite.
  """
  convs, shapes = describe_layers(network, input_shape)
  _check_tensors(tensors, {**shapes, **classifier}, file)
  layers = {}
  for conv in convs:
    kernel, scale, offset, mean, variance = (
      tensors[name].astype(np.float64)
      for name in (conv.weight, *(f'{conv.norm}.{part}' for part in _NORM))
    )
    if variance.min() < 0:
      raise WeightsError(
        f'{file}: {conv.norm}.running_var is negative. Get the file from its '
        'source again'
      )
    scale = scale / np.sqrt(variance + epsilon)
    layers[conv.weight] = FoldedConv(
      (kernel.transpose(2, 3, 1, 0) * scale).astype(np.float32),
      (offset - mean * scale).astype(np.float32),
    )
  return layers


def describe_layers(
  network: Network, input_shape: tuple[int, int, int]
) -> tuple[list[Conv], dict[str, tuple[int, ...]]]:
  """Lists a network's convolutions, and the shapes of all their tensors.

  Args:
    network: the network; only its shapes are evaluated.
    input_shape: [H, W, C] of its input.
  """
  convs = []
  shapes: dict[str, tuple[int, ...]] = {}

  def record(x: Array, conv: Conv) -> Array:
    inputs = 1 if conv.is_depthwise else x.shape[-1]
    convs.append(conv)
    shapes[conv.weight] = (conv.features, inputs, *conv.kernel)
    shapes.update({f'{conv.norm}.{part}': (conv.features,) for part in _NORM})
    kernel = jnp.zeros((*conv.kernel, inputs, conv.features))
    return _convolve(x, conv, FoldedConv(kernel, jnp.zeros(conv.features)))

  x = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
  jax.eval_shape(lambda x: network(x, record), x)
  return convs, shapes


def _convolve(x: Array, conv: Conv, layer: FoldedConv) -> Array:
  if conv.is_depthwise:
    return _convolve_depthwise(x, layer.kernel, conv.stride) + layer.bias
  y = lax.conv_general_dilated(
    x,
    layer.kernel,
    (conv.stride, conv.stride),
    conv.padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    # Accelerators would round the factors, which changes the distances.
    precision=lax.Precision.HIGHEST,
  )
  return y + layer.bias


def _convolve_depthwise(x: Array, kernel: Array, stride: int) -> Array:
  """Depthwise convolution with 'SAME' padding, as a sum of shifted images.

  XLA's own is 10 to 50 times slower on CPUs.

  Args:
    x: [N, H, W, C].
    kernel: [h, w, 1, C].
    stride: stride along both axes.
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


def _check_tensors(
  tensors: Mapping[str, np.ndarray],
  expected: Mapping[str, tuple[int, ...]],
  file: str,
) -> None:
  """Raises WeightsError unless a file has exactly the expected tensors."""
  # Newer files also have the batch norms' step counters.
  known = [name for name in tensors if not name.endswith('num_batches_tracked')]
  missing = [name for name in expected if name not in tensors]
  unknown = [name for name in known if name not in expected]
  for names, problem in ((missing, 'lacks'), (unknown, 'also has')):
    if names:
      more = f' and {len(names) - 1} more' if len(names) > 1 else ''
      raise WeightsError(
        f'{file} {problem} {names[0][:80]}{more}: it belongs to another network'
      )
  for name, shape in expected.items():
    tensor = tensors[name]
    if tensor.shape != shape or tensor.dtype.kind != 'f':
      raise WeightsError(
        f'{file}: {name} is {tensor.dtype} {list(tensor.shape)}, not floats '
        f'{list(shape)}: it belongs to another network'
      )
    if not np.isfinite(tensor).all():
      raise WeightsError(
        f'{file}: {name} has NaN or infinite values. Get the file from its '
        'source again'
      )


def _digest(layers: Mapping[str, FoldedConv], code: str) -> str:
  digest = hashlib.sha256(code.encode())
  for name in sorted(layers):
    for array in layers[name]:
      digest.update(f'{name} {array.shape}'.encode())
      digest.update(np.ascontiguousarray(array, '<f4').tobytes())
  return digest.hexdigest()
