"""The Inception-v3 that FID and KID are defined by.

It is the network of 2015-12-05 for TensorFlow (arXiv:1512.00567), as the file
pt_inception-2015-12-05-6726825d.pth holds it. It is not torchvision's: the
average pools of its blocks do not count the border, and the last block has a
max pool in place of the average.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Literal

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cyclegan_jax.metrics.feature_network import (
  Conv,
  Convolve,
  FrozenExtractor,
  fold_layers,
)
from cyclegan_jax.metrics.resampling import linear_matrix, resample
from cyclegan_jax.types import Array

Unit = Callable[..., Array]  # `_unit` with its `convolve`
Preparation = Literal['pytorch-fid', 'torch-fidelity']

DIM = 2048

_SIZE = 299
_EPSILON = 1e-3  # of the batch norms
# Its classifier, of 1008 classes, tells it from torchvision's, of 1000.
_HEAD = {'fc.weight': (1008, DIM), 'fc.bias': (1008,)}


def load_inception(
  tensors: Mapping[str, np.ndarray],
  *,
  preparation: Preparation = 'pytorch-fid',
  batch_size: int = 32,
  what: str = 'Inception-v3',
) -> FrozenExtractor:
  """The network with weights by their names in the file.

  Two ways of resizing to 299 x 299 pixels are about, both of them bilinear
  and without antialiasing. 'pytorch-fid', the default here as in most papers
  since, centres the pixels and scales [0, 255] to [-1, 1]. 'torch-fidelity'
  does as the original graph does: TensorFlow 1 puts the corners of pixels
  upon each other, which moves an image up to a pixel to the right and down,
  and scales by (x - 128) / 128. Their distances differ a little: name the
  way beside a figure.

  Args:
    tensors: the state_dict.
    preparation: the way.
    batch_size: the largest number of images at once.
    what: where the tensors are from, for messages.

  Returns:
    uint8 [N, H, W, 3] to float32 [N, 2048], the last pool.

  Raises:
    WeightsError: they are not of this network.
  """
  if preparation not in ('pytorch-fid', 'torch-fidelity'):
    raise ValueError(
      f'preparation={preparation!r} is unknown: it is one of pytorch-fid, '
      'torch-fidelity'
    )
  layers = fold_layers(
    tensors,
    inception,
    (_SIZE, _SIZE, 3),
    epsilon=_EPSILON,
    head=_HEAD,
    what=what,
  )
  return FrozenExtractor(
    'inception',
    'fid',
    'kid',
    network=inception,
    layers=layers,
    prepare=functools.partial(_prepare, preparation=preparation),
    preparation=preparation,
    dim=DIM,
    batch_size=batch_size,
  )


def _prepare(images: Array, *, preparation: Preparation) -> Array:
  is_centred = preparation == 'pytorch-fid'
  rows, columns = (
    linear_matrix(size, _SIZE, is_centred=is_centred)
    for size in images.shape[1:3]
  )
  x = images.astype(jnp.float32)
  x = x * 2 / 255 - 1 if is_centred else (x - 128) / 128
  return resample(x, rows, columns)


def inception(x: Array, convolve: Convolve) -> Array:
  """All but the classifier.

  Args:
    x: float32 [N, 299, 299, 3] in [-1, 1].
    convolve: see `metrics.frozen`.

  Returns:
    float32 [N, 2048], the means over the last 8 x 8 places.
  """

  unit = functools.partial(_unit, convolve)
  x = unit(x, 'Conv2d_1a_3x3', 32, 3, stride=2, padding='VALID')
  x = unit(x, 'Conv2d_2a_3x3', 32, 3, padding='VALID')
  x = unit(x, 'Conv2d_2b_3x3', 64, 3)
  x = _shrink(x)
  x = unit(x, 'Conv2d_3b_1x1', 80, 1)
  x = unit(x, 'Conv2d_4a_3x3', 192, 3, padding='VALID')
  x = _shrink(x)
  for name, pooled in (('5b', 32), ('5c', 64), ('5d', 64)):
    x = _block_35(unit, x, f'Mixed_{name}', pooled)
  x = _to_17(unit, x, 'Mixed_6a')
  for name, inner in (('6b', 128), ('6c', 160), ('6d', 160), ('6e', 192)):
    x = _block_17(unit, x, f'Mixed_{name}', inner)
  x = _to_8(unit, x, 'Mixed_7a')
  x = _block_8(unit, x, 'Mixed_7b', _mean_pool(x))
  x = _block_8(unit, x, 'Mixed_7c', _max_pool(x))
  return x.mean(axis=(1, 2))


def _unit(
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
  """A convolution, square where no width is given, and what follows it."""
  kernel = (height, width or height)
  conv = Conv(
    f'{name}.conv.weight', f'{name}.bn', features, kernel, stride, padding
  )
  return nn.relu(convolve(x, conv))


def _block_35(unit: Unit, x: Array, name: str, pooled: int) -> Array:
  """Of 35 x 35 places."""
  one = unit(x, f'{name}.branch1x1', 64, 1)
  five = unit(x, f'{name}.branch5x5_1', 48, 1)
  five = unit(five, f'{name}.branch5x5_2', 64, 5)
  three = unit(x, f'{name}.branch3x3dbl_1', 64, 1)
  three = unit(three, f'{name}.branch3x3dbl_2', 96, 3)
  three = unit(three, f'{name}.branch3x3dbl_3', 96, 3)
  pool = unit(_mean_pool(x), f'{name}.branch_pool', pooled, 1)
  return jnp.concatenate([one, five, three, pool], axis=-1)


def _to_17(unit: Unit, x: Array, name: str) -> Array:
  half = functools.partial(unit, stride=2, padding='VALID')
  one = half(x, f'{name}.branch3x3', 384, 3)
  two = unit(x, f'{name}.branch3x3dbl_1', 64, 1)
  two = unit(two, f'{name}.branch3x3dbl_2', 96, 3)
  two = half(two, f'{name}.branch3x3dbl_3', 96, 3)
  return jnp.concatenate([one, two, _shrink(x)], axis=-1)


def _block_17(unit: Unit, x: Array, name: str, inner: int) -> Array:
  one = unit(x, f'{name}.branch1x1', 192, 1)
  two = unit(x, f'{name}.branch7x7_1', inner, 1)
  two = unit(two, f'{name}.branch7x7_2', inner, 1, 7)
  two = unit(two, f'{name}.branch7x7_3', 192, 7, 1)
  four = unit(x, f'{name}.branch7x7dbl_1', inner, 1)
  four = unit(four, f'{name}.branch7x7dbl_2', inner, 7, 1)
  four = unit(four, f'{name}.branch7x7dbl_3', inner, 1, 7)
  four = unit(four, f'{name}.branch7x7dbl_4', inner, 7, 1)
  four = unit(four, f'{name}.branch7x7dbl_5', 192, 1, 7)
  pool = unit(_mean_pool(x), f'{name}.branch_pool', 192, 1)
  return jnp.concatenate([one, two, four, pool], axis=-1)


def _to_8(unit: Unit, x: Array, name: str) -> Array:
  half = functools.partial(unit, stride=2, padding='VALID')
  one = unit(x, f'{name}.branch3x3_1', 192, 1)
  one = half(one, f'{name}.branch3x3_2', 320, 3)
  two = unit(x, f'{name}.branch7x7x3_1', 192, 1)
  two = unit(two, f'{name}.branch7x7x3_2', 192, 1, 7)
  two = unit(two, f'{name}.branch7x7x3_3', 192, 7, 1)
  two = half(two, f'{name}.branch7x7x3_4', 192, 3)
  return jnp.concatenate([one, two, _shrink(x)], axis=-1)


def _block_8(unit: Unit, x: Array, name: str, pooled: Array) -> Array:
  one = unit(x, f'{name}.branch1x1', 320, 1)
  two = unit(x, f'{name}.branch3x3_1', 384, 1)
  three = unit(x, f'{name}.branch3x3dbl_1', 448, 1)
  three = unit(three, f'{name}.branch3x3dbl_2', 384, 3)
  ends = [
    unit(inner, f'{name}.{branch}{letter}', 384, height, 4 - height)
    for inner, branch in ((two, 'branch3x3_2'), (three, 'branch3x3dbl_3'))
    for letter, height in (('a', 1), ('b', 3))
  ]
  pool = unit(pooled, f'{name}.branch_pool', 192, 1)
  return jnp.concatenate([one, *ends, pool], axis=-1)


def _shrink(x: Array) -> Array:
  return nn.max_pool(x, (3, 3), (2, 2))


def _max_pool(x: Array) -> Array:
  return nn.max_pool(x, (3, 3), padding='SAME')


def _mean_pool(x: Array) -> Array:
  """Means over those of the 3 x 3 places that are there."""
  return nn.avg_pool(x, (3, 3), padding='SAME', count_include_pad=False)
