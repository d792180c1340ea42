import functools
import re

import fidelity
import jax
import numpy as np
import pytest

from cyclegan_jax.errors import WeightsError
from cyclegan_jax.interop.pth import read_pth
from cyclegan_jax.metrics import feature_network
from cyclegan_jax.metrics.inception import (
  _HEAD,
  _prepare,
  inception,
  load_inception,
)


def shapes():
  convs, found = feature_network._describe(inception, (299, 299, 3))
  return len(convs), {**found, **_HEAD}


@functools.cache
def draw_tensors():
  """Weights under which activations neither vanish nor explode."""
  rng = np.random.default_rng(0)
  tensors = {}
  for name, shape in shapes()[1].items():
    each = rng.standard_normal(shape, np.float32)
    if name.endswith(('conv.weight', 'fc.weight')):
      each *= np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith(('bn.weight', 'running_var')):
      each = 0.7 + 0.6 * rng.random(shape, np.float32)
    else:
      each *= 0.2
    tensors[name] = each.astype(np.float32)
  return tensors


def draw_images(number, height, width):
  """Smooth ones: noise would be all alike after resizing."""
  rng = np.random.default_rng(1)
  coarse = rng.integers(0, 256, (number, 5, 7, 3)).astype(np.float32)
  smooth = jax.image.resize(coarse, (number, height, width, 3), 'cubic')
  return np.clip(np.rint(smooth), 0, 255).astype(np.uint8)


def test_the_network_is_as_large_as_it_is():
  num_convs, found = shapes()
  assert num_convs == 94
  assert len(found) == 5 * 94 + 2
  trained = sum(
    np.prod(shape) for name, shape in found.items() if 'running' not in name
  )
  # Torchvision's 23,834,568 of a thousand classes, and eight classes more.
  assert trained == 23_834_568 + 8 * 2049
  assert found['Mixed_6b.branch7x7_2.conv.weight'] == (128, 128, 1, 7)
  assert found['Mixed_7c.branch_pool.bn.running_var'] == (192,)


def test_the_weights_of_torchvision_are_refused():
  tensors = {
    name: np.broadcast_to(np.float32(0), shape)
    for name, shape in shapes()[1].items()
  }
  tensors['fc.weight'] = np.broadcast_to(np.float32(0), (1000, 2048))
  with pytest.raises(WeightsError) as caught:
    load_inception(tensors, what='inception.pth')
  assert str(caught.value) == (
    'inception.pth: fc.weight is float32 [1000, 2048], not floats '
    '[1008, 2048]: it is of another network'
  )


def test_an_unknown_preparation():
  message = (
    "preparation='clean-fid' is unknown: it is one of pytorch-fid, "
    'torch-fidelity'
  )
  with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
    load_inception({}, preparation='clean-fid')


@pytest.mark.parametrize('preparation', ['pytorch-fid', 'torch-fidelity'])
def test_images_are_scaled(preparation):
  prepared = [
    np.asarray(
      _prepare(np.full((1, 4, 9, 3), v, np.uint8), preparation=preparation)
    )
    for v in (0, 128, 255)
  ]
  assert prepared[0].shape == (1, 299, 299, 3)
  expected = {
    'pytorch-fid': (-1, 1 / 255, 1),
    'torch-fidelity': (-1, 0, 127 / 128),
  }[preparation]
  for each, value in zip(prepared, expected, strict=True):
    np.testing.assert_allclose(each, value, atol=1e-6)


@pytest.mark.slow
def test_features_tell_images_apart():
  extractor = load_inception(draw_tensors(), batch_size=2)
  pixels = draw_images(2, 40, 50)
  features = extractor(pixels[[0, 1, 0]])
  assert features.shape == (3, 2048)
  np.testing.assert_allclose(features[0], features[2], atol=1e-5)
  assert np.abs(features[0] - features[1]).max() > 0.05


@pytest.mark.torch
@pytest.mark.parametrize('height, width', [(64, 48), (512, 300), (299, 299)])
def test_preparation_is_that_of_the_packages(height, width):
  torch = pytest.importorskip('torch')
  module = fidelity.load_extractor_module()
  pixels = draw_images(2, height, width)
  x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
  size = (299, 299)
  theirs = {
    'pytorch-fid': 2
    * torch.nn.functional.interpolate(
      x / 255, size=size, mode='bilinear', align_corners=False
    )
    - 1,
    'torch-fidelity': (
      module.interpolate_bilinear_2d_like_tensorflow1x(
        x, size=size, align_corners=False
      )
      - 128
    )
    / 128,
  }
  for preparation, expected in theirs.items():
    found = _prepare(pixels, preparation=preparation)
    np.testing.assert_allclose(
      found, expected.permute(0, 2, 3, 1).numpy(), atol=2e-5
    )


@pytest.mark.torch
def test_features_are_those_of_torch_fidelity_and_pytorch_fid(tmp_path):
  torch = pytest.importorskip('torch')
  path = tmp_path / 'inception.pth'
  # In the older format, as the published file is.
  torch.save(
    {name: torch.from_numpy(each) for name, each in draw_tensors().items()},
    path,
    _use_new_zipfile_serialization=False,
  )
  module = fidelity.load_extractor_module()
  # Its own reading, strict about names.
  network = module.FeatureExtractorInceptionV3(
    'inception', ['2048'], feature_extractor_weights_path=path
  )
  pixels = draw_images(2, 96, 130)
  x = torch.from_numpy(pixels).permute(0, 3, 1, 2)
  with torch.no_grad():
    theirs = {'torch-fidelity': network(x)[0]}
    # pytorch-fid has the same layers behind another resizing.
    y = torch.nn.functional.interpolate(
      x.float() / 255, size=(299, 299), mode='bilinear', align_corners=False
    )
    y = 2 * y - 1
    for name, layer in network.named_children():
      y = y if name == 'fc' else layer(y)
    theirs['pytorch-fid'] = y.flatten(1)
  tensors = read_pth(path)
  found = {
    preparation: load_inception(tensors, preparation=preparation, batch_size=2)(
      pixels
    )
    for preparation in theirs
  }
  for preparation, expected in theirs.items():
    difference = np.abs(found[preparation] - expected.numpy()).max()
    print(f'{preparation}: {difference:.2g} of {expected.max():.3g}')
    assert expected.std() > 0.1
    assert difference < 1e-4
  # So the two ways can be told apart by it.
  both = list(found.values())
  assert np.abs(both[0] - both[1]).max() > 0.01


@pytest.mark.network
def test_the_published_weights_load(tmp_path, monkeypatch):
  from cyclegan_jax.evaluation.pretrained import load_extractor

  for name in ('XDG_CACHE_HOME', 'TORCH_HOME'):
    monkeypatch.setenv(name, str(tmp_path))
  monkeypatch.delenv('CYCLEGAN_INCEPTION', raising=False)
  extractor = load_extractor('inception', download=True)
  features = extractor(draw_images(2, 64, 64))
  assert features.shape == (2, 2048)
  assert 0.1 < features.mean() < 1
