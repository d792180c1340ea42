import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cyclegan_jax.errors import WeightsError
from cyclegan_jax.metrics import feature_network
from cyclegan_jax.metrics.feature_network import (
  ConvSpec,
  FeatureExtractor,
  NetworkSpec,
)

CLASSIFIER = {'fc.weight': (5, 4)}


def network(x, convolve):
  x = convolve(x, ConvSpec('one.weight', 'one.bn', 4, (3, 3), stride=2))
  x = convolve(
    x, ConvSpec('two.weight', 'two.bn', 4, (3, 3), is_depthwise=True)
  )
  return x.mean(axis=(1, 2))


def draw_tensors():
  rng = np.random.default_rng(0)
  shapes = {
    'one.weight': (4, 3, 3, 3),
    'two.weight': (4, 1, 3, 3),
    **CLASSIFIER,
  }
  for name in ('one', 'two'):
    shapes |= {f'{name}.bn.{part}': (4,) for part in feature_network._NORM}
  return {
    name: rng.uniform(0.1, 1, shape).astype(np.float32)
    for name, shape in shapes.items()
  }


SPEC = NetworkSpec(
  name='tiny',
  frechet_name='fd_tiny',
  kernel_name='kd_tiny',
  network=network,
  preprocess=lambda x: x.astype(jnp.float32) / 255,
  size=8,
  dim=4,
  epsilon=0.5,
  classifier=CLASSIFIER,
)


def make_extractor(tensors):
  return FeatureExtractor(SPEC, tensors, file='it.pth')


def test_batch_norm_is_folded():
  tensors = draw_tensors()
  layer = make_extractor(tensors)._layers['one.weight']
  weight, bias, mean, variance = (
    tensors[f'one.bn.{part}'] for part in feature_network._NORM
  )
  x = np.random.default_rng(0).normal(size=(27,))
  flat = tensors['one.weight'].transpose(2, 3, 1, 0).reshape(27, 4)
  expected = (x @ flat - mean) / np.sqrt(variance + 0.5) * weight + bias
  folded = x @ np.asarray(layer.kernel).reshape(27, 4) + layer.bias
  np.testing.assert_allclose(folded, expected, rtol=1e-5)


@pytest.mark.parametrize(
  'kernel, stride, shape', [((3, 3), 1, (8, 8)), ((5, 3), 2, (7, 10))]
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
  convolve = jax.jit(feature_network._convolve_depthwise, static_argnums=2)
  np.testing.assert_allclose(convolve(x, weights, stride), expected, atol=1e-5)


def test_features_are_computed_for_any_size_of_image():
  extractor = make_extractor(draw_tensors())
  rng = np.random.default_rng(1)
  for size in (8, 12):
    pixels = rng.integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    features = extractor(pixels)
    assert features.shape == (3, 4)
    assert features.dtype == np.float32
    np.testing.assert_allclose(
      extractor(pixels[1:2])[0], features[1], rtol=1e-5
    )


def test_the_digest_depends_on_the_weights():
  digest = make_extractor(draw_tensors()).digest
  assert re.fullmatch('[0-9a-f]{64}', digest)
  changed = draw_tensors()
  changed['two.bn.bias'][0] += 1
  assert make_extractor(changed).digest != digest


@pytest.mark.parametrize(
  'change, name',
  [
    (lambda t: t.pop('two.bn.bias'), 'two.bn.bias'),
    (lambda t: t.update(three=t['one.weight']), 'three'),
    (lambda t: t.update({'fc.weight': np.zeros((6, 4), 'f')}), 'fc.weight'),
    (lambda t: t.update({'one.bn.bias': np.zeros(4, int)}), 'one.bn.bias'),
    (lambda t: t.update({'one.bn.bias': np.full(4, np.nan)}), 'one.bn.bias'),
    (
      lambda t: t.update({'one.bn.running_var': -np.ones(4)}),
      'one.bn.running_var',
    ),
  ],
)
def test_tensors_of_another_network(change, name):
  tensors = draw_tensors()
  change(tensors)
  with pytest.raises(WeightsError, match=rf'it\.pth.* {name}\b'):
    make_extractor(tensors)


def test_step_counters_are_ignored():
  tensors = draw_tensors()
  tensors['one.bn.num_batches_tracked'] = np.array(7)
  assert list(make_extractor(tensors)._layers) == ['one.weight', 'two.weight']
