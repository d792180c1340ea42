"""The Inception-v3 that defines FID and KID.

It is the network of 2015-12-05 for TensorFlow (arXiv:1512.00567), as stored
in pt_inception-2015-12-05-6726825d.pth. It differs from torchvision's: the
average pools of its blocks do not count the border, and the last block has a
max pool instead of an average pool.
"""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from cyclegan_jax.metrics.feature_network import (
  Convolve,
  ConvSpec,
  NetworkSpec,
)
from cyclegan_jax.types import Array

ConvBlock = Callable[..., Array]  # `_conv_block` with its `convolve` bound

_SIZE = 299


def _preprocess(images: Array) -> Array:
  """uint8 [N, H, W, 3] to float32 [N, 299, 299, 3] in [-1, 1].

  As in pytorch-fid: bilinear, without antialiasing, with centered pixels.
  """
  shape = (len(images), _SIZE, _SIZE, 3)
  x = images.astype(jnp.float32) * 2 / 255 - 1
  return jax.image.resize(x, shape, 'linear', antialias=False)


def _inception(x: Array, convolve: Convolve) -> Array:
  """Applies the network without its classifier.

  Args:
    x: float32 [N, 299, 299, 3] in [-1, 1].
    convolve: see `feature_network`.

  Returns:
    float32 [N, 2048], the last average pool.
  """
  block = functools.partial(_conv_block, convolve)
  x = block(x, 'Conv2d_1a_3x3', 32, 3, stride=2, padding='VALID')
  x = block(x, 'Conv2d_2a_3x3', 32, 3, padding='VALID')
  x = block(x, 'Conv2d_2b_3x3', 64, 3)
  x = _halve(x)
  x = block(x, 'Conv2d_3b_1x1', 80, 1)
  x = block(x, 'Conv2d_4a_3x3', 192, 3, padding='VALID')
  x = _halve(x)
  for name, pooled in (('5b', 32), ('5c', 64), ('5d', 64)):
    x = _inception_a(block, x, f'Mixed_{name}', pooled)
  x = _inception_b(block, x, 'Mixed_6a')
  for name, inner in (('6b', 128), ('6c', 160), ('6d', 160), ('6e', 192)):
    x = _inception_c(block, x, f'Mixed_{name}', inner)
  x = _inception_d(block, x, 'Mixed_7a')
  x = _inception_e(block, x, 'Mixed_7b', _mean_pool(x))
  x = _inception_e(block, x, 'Mixed_7c', _max_pool(x))
  return x.mean(axis=(1, 2))


def _conv_block(
  convolve: Convolve,
  x: Array,
  name: str,
  features: int,
  height: int,
  width: int = 0,
  *,
  stride: int = 1,
  padding: Literal['SAME', 'VALID'] = 'SAME',
) -> Array:
  """Convolution, batch norm and ReLU; a width of 0 makes a square kernel."""
  kernel = (height, width or height)
  conv = ConvSpec(
    f'{name}.conv.weight', f'{name}.bn', features, kernel, stride, padding
  )
  return nn.relu(convolve(x, conv))


def _inception_a(block: ConvBlock, x: Array, name: str, pooled: int) -> Array:
  """Block on 35 x 35 places (torchvision's InceptionA)."""
  one = block(x, f'{name}.branch1x1', 64, 1)
  five = block(x, f'{name}.branch5x5_1', 48, 1)
  five = block(five, f'{name}.branch5x5_2', 64, 5)
  three = block(x, f'{name}.branch3x3dbl_1', 64, 1)
  three = block(three, f'{name}.branch3x3dbl_2', 96, 3)
  three = block(three, f'{name}.branch3x3dbl_3', 96, 3)
  pool = block(_mean_pool(x), f'{name}.branch_pool', pooled, 1)
  return jnp.concatenate([one, five, three, pool], axis=-1)


def _inception_b(block: ConvBlock, x: Array, name: str) -> Array:
  """Reduction from 35 x 35 to 17 x 17 places (InceptionB)."""
  half = functools.partial(block, stride=2, padding='VALID')
  one = half(x, f'{name}.branch3x3', 384, 3)
  two = block(x, f'{name}.branch3x3dbl_1', 64, 1)
  two = block(two, f'{name}.branch3x3dbl_2', 96, 3)
  two = half(two, f'{name}.branch3x3dbl_3', 96, 3)
  return jnp.concatenate([one, two, _halve(x)], axis=-1)


def _inception_c(block: ConvBlock, x: Array, name: str, inner: int) -> Array:
  """Block on 17 x 17 places (InceptionC)."""
  one = block(x, f'{name}.branch1x1', 192, 1)
  two = block(x, f'{name}.branch7x7_1', inner, 1)
  two = block(two, f'{name}.branch7x7_2', inner, 1, 7)
  two = block(two, f'{name}.branch7x7_3', 192, 7, 1)
  four = block(x, f'{name}.branch7x7dbl_1', inner, 1)
  four = block(four, f'{name}.branch7x7dbl_2', inner, 7, 1)
  four = block(four, f'{name}.branch7x7dbl_3', inner, 1, 7)
  four = block(four, f'{name}.branch7x7dbl_4', inner, 7, 1)
  four = block(four, f'{name}.branch7x7dbl_5', 192, 1, 7)
  pool = block(_mean_pool(x), f'{name}.branch_pool', 192, 1)
  return jnp.concatenate([one, two, four, pool], axis=-1)


def _inception_d(block: ConvBlock, x: Array, name: str) -> Array:
  """Reduction from 17 x 17 to 8 x 8 places (InceptionD)."""
  half = functools.partial(block, stride=2, padding='VALID')
  one = block(x, f'{name}.branch3x3_1', 192, 1)
  one = half(one, f'{name}.branch3x3_2', 320, 3)
  two = block(x, f'{name}.branch7x7x3_1', 192, 1)
  two = block(two, f'{name}.branch7x7x3_2', 192, 1, 7)
  two = block(two, f'{name}.branch7x7x3_3', 192, 7, 1)
  two = half(two, f'{name}.branch7x7x3_4', 192, 3)
  return jnp.concatenate([one, two, _halve(x)], axis=-1)


def _inception_e(block: ConvBlock, x: Array, name: str, pooled: Array) -> Array:
  """Block on 8 x 8 places (InceptionE) with a pool of its own."""
  one = block(x, f'{name}.branch1x1', 320, 1)
  two = block(x, f'{name}.branch3x3_1', 384, 1)
  three = block(x, f'{name}.branch3x3dbl_1', 448, 1)
  three = block(three, f'{name}.branch3x3dbl_2', 384, 3)
  ends = [
    block(inner, f'{name}.{branch}{letter}', 384, height, 4 - height)
    for inner, branch in ((two, 'branch3x3_2'), (three, 'branch3x3dbl_3'))
    for letter, height in (('a', 1), ('b', 3))
  ]
  pool = block(pooled, f'{name}.branch_pool', 192, 1)
  return jnp.concatenate([one, *ends, pool], axis=-1)


def _halve(x: Array) -> Array:
  return nn.max_pool(x, (3, 3), (2, 2))


def _max_pool(x: Array) -> Array:
  return nn.max_pool(x, (3, 3), padding='SAME')


def _mean_pool(x: Array) -> Array:
  """Means of 3 x 3 places, without those beyond the border."""
  return nn.avg_pool(x, (3, 3), padding='SAME', count_include_pad=False)


INCEPTION = NetworkSpec(
  name='inception',
  frechet_name='fid',
  kernel_name='kid',
  network=_inception,
  preprocess=_preprocess,
  size=_SIZE,
  dim=2048,
  epsilon=1e-3,
  # 1008 classes; torchvision's has 1000.
  classifier={'fc.weight': (1008, 2048), 'fc.bias': (1008,)},
)
