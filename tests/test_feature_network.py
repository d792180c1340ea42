import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cyclegan_jax import images
from cyclegan_jax.errors import WeightsError
from cyclegan_jax.metrics import feature_network
from cyclegan_jax.metrics.feature_network import (
  Conv,
  FrozenExtractor,
  fold_layers,
)

HEAD = {'fc.weight': (5, 4)}


def network(x, convolve):
  x = convolve(x, Conv('one.weight', 'one.bn', 4, (3, 3), stride=2))
  x = convolve(x, Conv('two.weight', 'two.bn', 4, (3, 3), is_depthwise=True))
  return x.mean(axis=(1, 2))


def draw_tensors(seed=0):
  rng = np.random.default_rng(seed)
  shapes = {'one.weight': (4, 3, 3, 3), 'two.weight': (4, 1, 3, 3), **HEAD}
  for name in ('one', 'two'):
    shapes |= {f'{name}.bn.{each}': (4,) for each in feature_network._NORM}
  return {
    name: rng.uniform(0.1, 1, shape).astype(np.float32)
    for name, shape in shapes.items()
  }


def fold(tensors):
  return fold_layers(
    tensors, network, (8, 8, 3), epsilon=0.5, head=HEAD, what='it.pth'
  )


def make_extractor(tensors=None, *, batch_size=4, preparation='none'):
  return FrozenExtractor(
    'tiny',
    'fd_tiny',
    'kd_tiny',
    network=network,
    layers=fold(tensors or draw_tensors()),
    prepare=lambda x: x.astype(jnp.float32) / 255,
    preparation=preparation,
    dim=4,
    batch_size=batch_size,
  )


def draw_images(number, channels=3):
  rng = np.random.default_rng(1)
  shape = (number, 8, 8, channels)
  return rng.integers(0, 256, shape, dtype=np.uint8)


def test_batch_norm_is_folded():
  tensors = draw_tensors()
  layer = fold(tensors)['one.weight']
  weight, bias, mean, variance = (
    tensors[f'one.bn.{each}'] for each in feature_network._NORM
  )
  x = np.random.default_rng(0).normal(size=(27,))
  flat = tensors['one.weight'].transpose(2, 3, 1, 0).reshape(27, 4)
  expected = (x @ flat - mean) / np.sqrt(variance + 0.5) * weight + bias
  found = x @ np.asarray(layer.kernel).reshape(27, 4) + layer.bias
  np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
  'kernel, stride, shape',
  [
    ((3, 3), 1, (8, 8)),
    ((3, 3), 2, (8, 8)),
    ((5, 5), 2, (7, 10)),
    ((1, 3), 3, (7, 10)),
  ],
)
def test_a_depthwise_convolution_is_that_of_xla(kernel, stride, shape):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, *shape, 6)).astype(np.float32)
  weights = rng.normal(size=(*kernel, 1, 6)).astype(np.float32)
  expected = lax.conv_general_dilated(
    x,
    weights,
    (stride, stride),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=6,
  )
  convolve = jax.jit(feature_network._filter_channels, static_argnums=2)
  found = convolve(x, weights, stride)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_few_batch_sizes_are_compiled_and_give_the_same():
  extractor = make_extractor()
  pixels = draw_images(11)
  feature_network._apply.clear_cache()
  expected = extractor(pixels)
  assert expected.shape == (11, 4)
  assert expected.dtype == np.float32
  for number in (1, 2, 3, 4, 5, 8, 9):
    np.testing.assert_allclose(
      extractor(pixels[:number]), expected[:number], rtol=1e-5
    )
  np.testing.assert_array_equal(extractor(pixels[:8]), expected[:8])
  assert feature_network._apply._cache_size() == 3  # of 1, 2 and 4
  assert extractor(pixels[:0]).shape == (0, 4)


def test_other_channels_become_rgb():
  extractor = make_extractor()
  for channels in (1, 2, 4, 5):
    pixels = draw_images(2, channels)
    shown = images.to_rgb(images.to_float(pixels))
    assert shown.shape[-1] == 3
    np.testing.assert_array_equal(extractor(pixels), extractor(shown))
  grey = draw_images(2, 1)
  np.testing.assert_array_equal(
    extractor(grey), extractor(grey.repeat(3, axis=-1))
  )


def test_a_digest_changes_with_weights_and_preparation():
  digest = make_extractor().digest
  assert re.fullmatch('[0-9a-f]{64}', digest)
  assert make_extractor(batch_size=2).digest == digest
  changed = draw_tensors()
  changed['two.bn.bias'][0] += 1
  assert make_extractor(changed).digest != digest
  assert make_extractor(preparation='other').digest != digest


@pytest.mark.parametrize(
  'pixels, message',
  [
    (
      np.zeros((2, 8, 8, 3), np.float32),
      'images are float32 [2, 8, 8, 3]: they must be uint8 [N, H, W, C]',
    ),
    (
      np.zeros((8, 8, 3), np.uint8),
      'images are uint8 [8, 8, 3]: they must be uint8 [N, H, W, C]',
    ),
  ],
)
def test_what_are_no_images(pixels, message):
  with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
    make_extractor()(pixels)


AGAIN = 'get the file from its source again'


def without(tensors, *names):
  return {name: each for name, each in tensors.items() if name not in names}


@pytest.mark.parametrize(
  'change, message',
  [
    (
      lambda t: without(t, 'two.bn.bias'),
      'it.pth: the file lacks two.bn.bias: it is of another network',
    ),
    (
      lambda t: {},
      'it.pth: the file lacks one.weight and 10 more: it is of another network',
    ),
    (
      lambda t: {**t, 'three.weight': t['one.weight']},
      'it.pth: the file has also three.weight: it is of another network',
    ),
    (
      lambda t: {**t, 'fc.weight': np.zeros((6, 4), np.float32)},
      'it.pth: fc.weight is float32 [6, 4], not floats [5, 4]: it is of '
      'another network',
    ),
    (
      lambda t: {**t, 'one.bn.bias': np.zeros(4, np.int64)},
      'it.pth: one.bn.bias is int64 [4], not floats [4]: it is of another '
      'network',
    ),
    (
      lambda t: {**t, 'one.bn.bias': np.full(4, np.nan, np.float32)},
      f'it.pth: one.bn.bias has NaN or infinite values: {AGAIN}',
    ),
    (
      lambda t: {**t, 'one.bn.running_var': np.full(4, -1, np.float32)},
      f'it.pth: one.bn.running_var is below 0: {AGAIN}',
    ),
  ],
)
def test_tensors_of_another_network(change, message):
  with pytest.raises(WeightsError) as caught:
    fold(change(draw_tensors()))
  assert str(caught.value) == message


def test_counters_of_training_are_ignored():
  tensors = draw_tensors()
  tensors['one.bn.num_batches_tracked'] = np.array(7)
  assert list(fold(tensors)) == ['one.weight', 'two.weight']
