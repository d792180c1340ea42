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


class ConvSpec(NamedTuple):
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


Convolve = Callable[[Array, ConvSpec], Array]
Network = Callable[[Array, Convolve], Array]


class NetworkSpec(NamedTuple):
  """A feature network without its weights.

  Attributes:
    name: name of the network, such as 'inception'.
    frechet_name: name of the Fréchet distance of its features, such as 'fid'.
    kernel_name: name of the kernel distance of its features, such as 'kid'.
    network: float32 [N, size, size, 3] to features [N, dim].
    preprocess: uint8 [N, H, W, 3] to the network's input.
    size: side of the network's input in pixels.
    dim: number of features.
    epsilon: epsilon of the batch norms.
    classifier: shapes of the weights of its classifier, which is not used.
  """

  name: str
  frechet_name: str
  kernel_name: str
  network: Network
  preprocess: Callable[[Array], Array]
  size: int
  dim: int
  epsilon: float
  classifier: Mapping[str, tuple[int, ...]]


class FeatureExtractor:
  """Computes features of images, for distances between sets.

  Attributes:
    name: see `NetworkSpec`, as for the next three.
    frechet_name: see `NetworkSpec`.
    kernel_name: see `NetworkSpec`.
    dim: see `NetworkSpec`.
    digest: hash of weights, network and code.
  """

  def __init__(
    self,
    spec: NetworkSpec,
    tensors: Mapping[str, np.ndarray],
    *,
    file: str = 'weights',
  ):
    """Folds the batch norms into the convolutions, and places them.

    Args:
      spec: the network.
      tensors: its state_dict.
      file: name of the tensors' file, for error messages.

    Raises:
      WeightsError: the tensors belong to another network, or are not finite.
    """
    self.name = spec.name
    self.frechet_name = spec.frechet_name
    self.kernel_name = spec.kernel_name
    self.dim = spec.dim
    layers = _fold_layers(spec, tensors, file)
    self.digest = _digest(layers, f'{spec.name} {_CODE_VERSION}')
    self._layers = jax.device_put(layers)
    self._network = spec.network
    # Apart, so that another image size does not compile the network again.
    self._preprocess = jax.jit(spec.preprocess)

  def __call__(self, images: np.ndarray) -> np.ndarray:
    """Computes the features of a batch; each shape is compiled once.

    Args:
      images: uint8 [N, H, W, 3].

    Returns:
      float32 [N, dim].
    """
    x = self._preprocess(images)
    return np.asarray(_apply(self._network, self._layers, x))


@functools.partial(jax.jit, static_argnums=0)
def _apply(
  network: Network, layers: Mapping[str, FoldedConv], x: Array
) -> Array:
  return network(x, lambda y, conv: _convolve(y, conv, layers[conv.weight]))


def _fold_layers(
  spec: NetworkSpec, tensors: Mapping[str, np.ndarray], file: str
) -> dict[str, FoldedConv]:
  """Convolutions in float32 with their batch norms, by their kernels' names."""
  convs, shapes = describe_layers(spec)
  _check_tensors(tensors, {**shapes, **spec.classifier}, file)
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
    scale = scale / np.sqrt(variance + spec.epsilon)
    layers[conv.weight] = FoldedConv(
      (kernel.transpose(2, 3, 1, 0) * scale).astype(np.float32),
      (offset - mean * scale).astype(np.float32),
    )
  return layers


def describe_layers(
  spec: NetworkSpec,
) -> tuple[list[ConvSpec], dict[str, tuple[int, ...]]]:
  """Lists a network's convolutions, and the shapes of all their tensors.

  Only shapes are evaluated.
  """
  convs = []
  shapes: dict[str, tuple[int, ...]] = {}

  def record(x: Array, conv: ConvSpec) -> Array:
    inputs = 1 if conv.is_depthwise else x.shape[-1]
    convs.append(conv)
    shapes[conv.weight] = (conv.features, inputs, *conv.kernel)
    shapes.update({f'{conv.norm}.{part}': (conv.features,) for part in _NORM})
    kernel = jnp.zeros((*conv.kernel, inputs, conv.features))
    return _convolve(x, conv, FoldedConv(kernel, jnp.zeros(conv.features)))

  x = jax.ShapeDtypeStruct((1, spec.size, spec.size, 3), jnp.float32)
  jax.eval_shape(lambda x: spec.network(x, record), x)
  return convs, shapes


def _convolve(x: Array, conv: ConvSpec, layer: FoldedConv) -> Array:
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
