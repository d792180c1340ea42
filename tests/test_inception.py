import functools

import fidelity
import jax
import numpy as np
import pytest

from cyclegan_jax.errors import WeightsError
from cyclegan_jax.evaluation.pretrained import choose_extractor
from cyclegan_jax.interop.pth import read_pth
from cyclegan_jax.metrics.feature_network import (
  FeatureExtractor,
  describe_layers,
)
from cyclegan_jax.metrics.inception import INCEPTION


def shapes():
  convs, shapes = describe_layers(INCEPTION)
  return len(convs), {**shapes, **INCEPTION.classifier}


@functools.cache
def draw_tensors():
  """Weights under which activations neither vanish nor explode."""
  rng = np.random.default_rng(0)
  tensors = {}
  for name, shape in shapes()[1].items():
    tensor = rng.standard_normal(shape, np.float32)
    if name.endswith(('conv.weight', 'fc.weight')):
      tensor *= np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith(('bn.weight', 'running_var')):
      tensor = 0.7 + 0.6 * rng.random(shape, np.float32)
    else:
      tensor *= 0.2
    tensors[name] = tensor.astype(np.float32)
  return tensors


def draw_images(number, height, width):
  """Smooth images; noise would be all alike after resizing."""
  rng = np.random.default_rng(1)
  coarse = rng.integers(0, 256, (number, 5, 7, 3)).astype(np.float32)
  smooth = jax.image.resize(coarse, (number, height, width, 3), 'cubic')
  return np.clip(np.rint(smooth), 0, 255).astype(np.uint8)


def test_the_layers_are_those_of_the_paper():
  num_convs, found = shapes()
  assert num_convs == 94
  assert len(found) == 5 * 94 + 2
  trained = sum(
    np.prod(shape) for name, shape in found.items() if 'running' not in name
  )
  # Torchvision's 23,834,568 with a thousand classes, and eight classes more.
  assert trained == 23_834_568 + 8 * 2049
  assert found['Mixed_6b.branch7x7_2.conv.weight'] == (128, 128, 1, 7)
  assert found['Mixed_7c.branch_pool.bn.running_var'] == (192,)


def test_the_weights_of_torchvision_are_refused():
  tensors = {
    name: np.broadcast_to(np.float32(0), shape)
    for name, shape in shapes()[1].items()
  }
  tensors['fc.weight'] = np.broadcast_to(np.float32(0), (1000, 2048))
  with pytest.raises(WeightsError, match=r'^inception.pth: fc.weight '):
    FeatureExtractor(INCEPTION, tensors, file='inception.pth')


def test_images_are_scaled():
  for value, expected in ((0, -1), (128, 1 / 255), (255, 1)):
    prepared = INCEPTION.preprocess(np.full((1, 4, 9, 3), value, np.uint8))
    assert prepared.shape == (1, 299, 299, 3)
    np.testing.assert_allclose(prepared, expected, atol=1e-6)


@pytest.mark.torch
@pytest.mark.parametrize('height, width', [(64, 48), (512, 300), (299, 299)])
def test_preprocessing_equals_that_of_pytorch_fid(height, width):
  torch = pytest.importorskip('torch')
  pixels = draw_images(2, height, width)
  x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
  expected = torch.nn.functional.interpolate(
    x / 255, size=(299, 299), mode='bilinear', align_corners=False
  )
  expected = (2 * expected - 1).permute(0, 2, 3, 1).numpy()
  np.testing.assert_allclose(INCEPTION.preprocess(pixels), expected, atol=2e-5)


@pytest.mark.torch
def test_features_equal_those_of_pytorch_fid(tmp_path):
  torch = pytest.importorskip('torch')
  path = tmp_path / 'inception.pth'
  # In the older format, as the published file.
  torch.save(
    {name: torch.from_numpy(each) for name, each in draw_tensors().items()},
    path,
    _use_new_zipfile_serialization=False,
  )
  module = fidelity.load_extractor_module()
  # torch-fidelity's own reading, strict about names.
  network = module.FeatureExtractorInceptionV3(
    'inception', ['2048'], feature_extractor_weights_path=path
  )
  pixels = draw_images(2, 96, 130)
  with torch.no_grad():
    # pytorch-fid has the same layers behind another resizing.
    x = torch.nn.functional.interpolate(
      torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255,
      size=(299, 299),
      mode='bilinear',
      align_corners=False,
    )
    x = 2 * x - 1
    for name, layer in network.named_children():
      x = x if name == 'fc' else layer(x)
  expected = x.flatten(1).numpy()
  features = FeatureExtractor(INCEPTION, read_pth(path))(pixels)
  assert expected.std() > 0.1
  np.testing.assert_allclose(features, expected, atol=1e-4)
  # Different images have different features.
  assert np.abs(features[0] - features[1]).max() > 0.05


@pytest.mark.network
def test_the_published_weights_load(tmp_path, monkeypatch):
  for name in ('XDG_CACHE_HOME', 'TORCH_HOME'):
    monkeypatch.setenv(name, str(tmp_path))
  monkeypatch.delenv('CYCLEGAN_INCEPTION', raising=False)
  extractor = choose_extractor('inception')
  features = extractor(draw_images(2, 64, 64))
  assert features.shape == (2, 2048)
  assert 0.1 < features.mean() < 1
