"""Imported networks compute the same as PyTorch's.

The networks are written here with torch.nn as the authors' code numbers its
layers, saved by torch itself, and read without it.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from cyclegan_jax import make_translator
from cyclegan_jax.commands import export, import_weights
from cyclegan_jax.config import DiscriminatorConfig, GeneratorConfig
from cyclegan_jax.interop.pth import read_pth, write_pth
from cyclegan_jax.interop.torch_infer import (
  infer_discriminator,
  infer_generator,
)
from cyclegan_jax.interop.torch_names import params_from_torch, params_to_torch
from cyclegan_jax.nets import make_discriminator, make_generator
from cyclegan_jax.storage import checkpoint

torch = pytest.importorskip('torch')
nn = torch.nn

pytestmark = pytest.mark.torch

NORMS = {
  'batch': nn.BatchNorm2d,
  'instance': nn.InstanceNorm2d,
  'affine': functools.partial(nn.InstanceNorm2d, affine=True),
  'old instance': functools.partial(
    nn.InstanceNorm2d, track_running_stats=True
  ),
  'none': lambda channels: nn.Identity(),
}


class Block(nn.Module):
  def __init__(self, channels, norm, bias, dropout):
    super().__init__()
    layers = []
    for half in range(2):
      layers += [
        nn.ReflectionPad2d(1),
        nn.Conv2d(channels, channels, 3, bias=bias),
        norm(channels),
      ]
      if not half:
        layers.append(nn.ReLU())
        layers += [nn.Dropout(0.5)] * dropout
    self.conv_block = nn.Sequential(*layers)

  def forward(self, x):
    return x + self.conv_block(x)


class ResNet(nn.Module):
  def __init__(self, norm, i=3, o=3, f=4, blocks=2, dropout=False):
    super().__init__()
    bias, make = 'instance' in norm or norm == 'affine', NORMS[norm]
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(i, f, 7, bias=bias), make(f)]
    layers.append(nn.ReLU())
    for width in (f, 2 * f):
      down = nn.Conv2d(width, 2 * width, 3, 2, 1, bias=bias)
      layers += [down, make(2 * width), nn.ReLU()]
    layers += [Block(4 * f, make, bias, dropout) for _ in range(blocks)]
    for width in (2 * f, f):
      up = nn.ConvTranspose2d(2 * width, width, 3, 2, 1, 1, bias=bias)
      layers += [up, make(width), nn.ReLU()]
    layers += [nn.ReflectionPad2d(3), nn.Conv2d(f, o, 7), nn.Tanh()]
    self.model = nn.Sequential(*layers)

  def forward(self, x):
    return self.model(x)


class Level(nn.Module):
  """One level of the U-Net; its activations work in place, as theirs do."""

  def __init__(self, make, bias, outer, inner, i=None, inside=None, last=True):
    super().__init__()
    self.is_first = not last
    down = nn.Conv2d(i or outer, inner, 4, 2, 1, bias=bias)
    leaky, relu = nn.LeakyReLU(0.2, inplace=True), nn.ReLU(inplace=True)
    below = 2 * inner if inside else inner
    up_bias = True if self.is_first else bias
    up = nn.ConvTranspose2d(below, outer, 4, 2, 1, bias=up_bias)
    if self.is_first:
      layers = [down, inside, relu, up, nn.Tanh()]
    elif inside is None:
      layers = [leaky, down, relu, up, make(outer)]
    else:
      layers = [leaky, down, make(inner), inside, relu, up, make(outer)]
    self.model = nn.Sequential(*layers)

  def forward(self, x):
    return self.model(x) if self.is_first else torch.cat([x, self.model(x)], 1)


class UNet(nn.Module):
  def __init__(self, norm, i=3, o=3, f=3, depth=5):
    super().__init__()
    bias, make = 'instance' in norm or norm == 'affine', NORMS[norm]
    level = Level(make, bias, 8 * f, 8 * f)
    for _ in range(depth - 5):
      level = Level(make, bias, 8 * f, 8 * f, inside=level)
    for width in (4 * f, 2 * f, f):
      level = Level(make, bias, width, 2 * width, inside=level)
    self.model = Level(make, bias, o, f, i, inside=level, last=False)

  def forward(self, x):
    return self.model(x)


class PatchGAN(nn.Module):
  def __init__(self, norm, i=3, f=4, n=3):
    super().__init__()
    bias, make = 'instance' in norm or norm == 'affine', NORMS[norm]
    layers, width = [nn.Conv2d(i, f, 4, 2, 1), nn.LeakyReLU(0.2)], f
    for level in range(1, n + 1):
      new = f * min(2**level, 8)
      stride = 2 if level < n else 1
      layers.append(nn.Conv2d(width, new, 4, stride, 1, bias=bias))
      layers += [make(new), nn.LeakyReLU(0.2)]
      width = new
    self.model = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, 1, 1))

  def forward(self, x):
    return self.model(x)


class PixelGAN(nn.Module):
  def __init__(self, norm, i=3, f=4):
    super().__init__()
    bias, make = 'instance' in norm or norm == 'affine', NORMS[norm]
    layers = [nn.Conv2d(i, f, 1), nn.LeakyReLU(0.2)]
    layers += [nn.Conv2d(f, 2 * f, 1, bias=bias), make(2 * f)]
    layers += [nn.LeakyReLU(0.2), nn.Conv2d(2 * f, 1, 1, bias=bias)]
    self.net = nn.Sequential(*layers)

  def forward(self, x):
    return self.net(x)


def draw(net, seed=0):
  """Weights and statistics far from those of a new network."""
  generator = torch.Generator().manual_seed(seed)
  for name, weight in net.state_dict().items():
    if weight.is_floating_point():
      noise = torch.randn(weight.shape, generator=generator)
      fan = weight[0].numel() if weight.ndim == 4 else 1
      is_scale = name.endswith(('weight', 'var')) and weight.ndim == 1
      weight.copy_(1 + 0.3 * noise if is_scale else noise / fan**0.5)
  return net


def images(size, channels=3, seed=1):
  values = np.random.default_rng(seed).uniform(-1, 1, (1, size, size, channels))
  return values.astype(np.float32)


def run_theirs(net, x):
  with torch.no_grad():
    y = net(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
  return y.numpy().transpose(0, 2, 3, 1)


def check(got, expected):
  assert got.shape == expected.shape
  assert np.std(expected) > 0.05
  assert np.mean(np.abs(np.abs(expected) - 1) < 0.01) < 0.5
  assert np.max(np.abs(got - expected)) < 1e-4


def saved(net, path, *, zipped=True):
  torch.save(net.state_dict(), path, _use_new_zipfile_serialization=zipped)
  return path


# Every kind of generator, norm, number of channels and place of dropout.
GENERATORS = {
  'resnet instance': (
    lambda: ResNet('instance', i=1, dropout=True),
    {'affine': False, 'dropout': 0.5},
  ),
  'resnet affine': (lambda: ResNet('affine', o=2), {}),
  'resnet old instance': (
    lambda: ResNet('old instance', blocks=1),
    {'affine': False, 'blocks': 1},
  ),
  'resnet none': (lambda: ResNet('none'), {'norm': 'none', 'affine': False}),
  'unet instance': (
    lambda: UNet('instance', i=2, o=1),
    {'affine': False, 'isize': 32},
  ),
  'unet batch': (
    lambda: UNet('batch', depth=7, f=1),
    {'norm': 'batch', 'isize': 128, 'filters': 1},
  ),
}


def expected_config(name):
  common = {'norm': 'instance', 'dropout': 0.0, 'init': 'normal'}
  if 'unet' in name:
    common |= {'name': 'torch_unet', 'filters': 3, 'padding': 'zero'}
  else:
    common |= {'name': 'resnet', 'filters': 4, 'padding': 'reflect'}
    common |= {'blocks': 2}
  return GeneratorConfig(**common | GENERATORS[name][1])


def as_in_test_py(net):
  """Norms as the authors' test.py runs them, and no dropout."""
  for layer in net.modules():
    if isinstance(layer, nn.Dropout):
      layer.eval()
    elif isinstance(layer, nn.InstanceNorm2d):
      layer.track_running_stats = False
  return net


def arrays(net):
  return {name: value.numpy() for name, value in net.state_dict().items()}


@pytest.mark.parametrize('name', GENERATORS)
def test_generator_in_and_out(name, tmp_path):
  make, _ = GENERATORS[name]
  net = draw(make())
  tensors = read_pth(saved(net, tmp_path / 'G.pth'))
  older = read_pth(saved(net, tmp_path / 'old.pth', zipped=False))
  assert list(older) == list(tensors) == list(net.state_dict())
  for key, array in tensors.items():
    np.testing.assert_array_equal(older[key], array)
  network = infer_generator(tensors)
  config = network.config
  assert config == expected_config(name)
  params = params_from_torch(
    tensors,
    config,
    channels_in=network.channels_in,
    channels_out=network.channels_out,
  )
  x = images(max(32, config.isize), network.channels_in)
  expected = run_theirs(as_in_test_py(net), x)
  ours = make_generator(
    dataclasses.replace(config, dropout=0.0), channels=expected.shape[-1]
  )
  check(jax.jit(ours.apply)({'params': params}, x), expected)
  if config.norm == 'none':  # the authors cannot ask for it
    return
  write_pth(tmp_path / 'G.pth', params_to_torch(params, config))
  again = ResNet('instance', blocks=1) if 'old' in name else make()
  again.load_state_dict(torch.load(tmp_path / 'G.pth', weights_only=True))
  np.testing.assert_array_equal(run_theirs(as_in_test_py(again), x), expected)


DISCRIMINATORS = {
  'patchgan batch': (
    lambda: PatchGAN('batch', i=1, n=2),
    {'norm': 'batch', 'layers': 2},
  ),
  'patchgan affine': (lambda: PatchGAN('affine', n=4), {'layers': 4}),
  'pixelgan instance': (
    lambda: PixelGAN('instance'),
    {'name': 'pixelgan', 'affine': False},
  ),
}


@pytest.mark.parametrize('name', DISCRIMINATORS)
def test_discriminator_in_and_out(name):
  make, options = DISCRIMINATORS[name]
  net = draw(make())
  config = infer_discriminator(arrays(net))
  common = {'name': 'patchgan', 'filters': 4, 'norm': 'instance'}
  assert config == DiscriminatorConfig(**common | {'init': 'normal'} | options)
  channels = next(net.parameters()).shape[1]
  params = params_from_torch(arrays(net), config, channels_in=channels)
  x = images(64, channels)
  ours = jax.jit(make_discriminator(config).apply)({'params': params}, x)
  expected = run_theirs(net, x)
  check(ours, expected)
  again = make()
  tensors = params_to_torch(params, config)
  again.load_state_dict(
    {name: torch.from_numpy(np.array(x)) for name, x in tensors.items()}
  )
  np.testing.assert_array_equal(run_theirs(again, x), expected)


def test_a_resnet_of_full_size_has_the_papers_number_of_parameters():
  with torch.device('meta'):
    net = ResNet('instance', f=64, blocks=9)
  tensors = {
    name: np.zeros(value.shape, np.float32)
    for name, value in net.state_dict().items()
  }
  config = infer_generator(tensors).config
  assert (config.blocks, config.filters) == (9, 64)
  params = params_from_torch(tensors, config)
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 11_378_179


def test_an_imported_checkpoint_translates_like_theirs_and_goes_back(tmp_path):
  nets = {
    'ab': draw(ResNet('instance', i=3, o=1, f=2), seed=1),
    'ba': draw(ResNet('instance', i=1, o=3, f=2), seed=2),
  }
  disc = draw(PatchGAN('batch', i=1, f=2, n=2))
  files = [
    saved(nets['ab'], tmp_path / 'G_A.pth'),
    saved(nets['ba'], tmp_path / 'G_B.pth', zipped=False),
    *('--d-a', saved(disc, tmp_path / 'D_A.pth')),
  ]
  run = [*files, '--to', tmp_path / 'run', '--size', 32]
  assert import_weights.run([str(word) for word in run], 'import') == 0
  for direction, net in nets.items():
    loaded = checkpoint.load(tmp_path / 'run', direction=direction)
    state, config = loaded.state, loaded.config
    x = images(32, 3 if direction == 'ab' else 1)
    translator = make_translator(config, state.translators, direction)
    check(translator(x), run_theirs(net, x))
  x = images(32, 1)
  ours = make_discriminator(config.discriminator)
  check(ours.apply({'params': state.disc['b']}, x), run_theirs(disc, x))
  to = ['--to', str(tmp_path / 'out'), '--format', 'pth']
  assert export.run([str(tmp_path / 'run'), *to], 'export') == 0
  for name, net in (('G_A', nets['ab']), ('G_B', nets['ba'])):
    path = tmp_path / 'out' / f'latest_net_{name}.pth'
    loaded = torch.load(path, weights_only=True)
    assert list(loaded) == list(net.state_dict())
    for key, value in net.state_dict().items():
      assert torch.equal(loaded[key], value)
