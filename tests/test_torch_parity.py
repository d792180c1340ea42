"""The networks against the same ones written with torch.nn.

Layers have the names of ours, so that weights are copied by name; how they
are joined is written here once more, from the papers and the authors' code.
"""

import collections
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cyclegan_jax.config import DiscriminatorConfig, GeneratorConfig
from cyclegan_jax.nets import make_discriminator, make_generator
from cyclegan_jax.nets.layers import Dropout

torch = pytest.importorskip('torch')
nn = torch.nn
F = torch.nn.functional

pytestmark = pytest.mark.torch

KERAS_EPSILON = 1.01e-5


class Net(nn.Module):
  """Layers by name; a subclass says how they are joined."""

  def __init__(self, config, channels_in=3, channels=3):
    super().__init__()
    self.config = config
    self.layers = nn.ModuleDict()
    self.masks = {}  # by the name of the dropout
    self.build(channels_in, channels)

  def conv(self, name, i, o, size, stride=1, pad=0, bias=True, reflect=False):
    mode = 'reflect' if reflect else 'zeros'
    self.layers[name] = nn.Conv2d(
      i, o, size, stride, pad, bias=bias, padding_mode=mode
    )

  def up(self, name, i, o, size, extra=0, bias=True):
    self.layers[name] = nn.ConvTranspose2d(
      i, o, size, 2, 1, output_padding=extra, bias=bias
    )

  def norm(self, name, channels, epsilon=1e-5):
    kind = {'batch': nn.BatchNorm2d, 'instance': nn.InstanceNorm2d}.get(
      self.config.norm, lambda *args, **kwargs: nn.Identity()
    )
    self.layers[name] = kind(
      channels,
      epsilon,
      affine=self.config.affine,
      track_running_stats=False,
    )

  def drop(self, name, x):
    if name not in self.masks:
      return x
    return x * self.masks[name] / (1 - self.config.dropout)


class ResNet(Net):
  def build(self, channels_in, channels):
    c, f = self.config, self.config.filters
    reflect, bias = c.padding == 'reflect', c.norm != 'batch'
    self.conv('stem', channels_in, f, 7, pad=3, bias=bias, reflect=reflect)
    self.norm('stem_norm', f)
    for i in (1, 2):
      self.conv(f'down_{i}', f * i, 2 * f * i, 3, 2, 1, bias)
      self.norm(f'down_norm_{i}', 2 * f * i)
    for block in range(c.blocks):
      for i in (0, 1):
        name = f'block_{block}_conv_{i}'
        self.conv(name, 4 * f, 4 * f, 3, 1, 1, bias, reflect)
        self.norm(f'block_{block}_norm_{i}', 4 * f)
    for i, of_i in ((1, 2 * f), (0, f)):
      self.up(f'up_{i}', 2 * of_i, of_i, 3, 1, bias)
      self.norm(f'up_norm_{i}', of_i)
    self.conv('head', f, channels, 7, pad=3, reflect=reflect)

  def forward(self, x):
    n = self.layers
    x = F.relu(n['stem_norm'](n['stem'](x)))
    for i in (1, 2):
      x = F.relu(n[f'down_norm_{i}'](n[f'down_{i}'](x)))
    for block in range(self.config.blocks):
      name = f'block_{block}'
      y = F.relu(n[f'{name}_norm_0'](n[f'{name}_conv_0'](x)))
      y = self.drop(f'{name}_dropout', y)
      x = x + n[f'{name}_norm_1'](n[f'{name}_conv_1'](y))
    for i in (1, 0):
      x = F.relu(n[f'up_norm_{i}'](n[f'up_{i}'](x)))
    return torch.tanh(n['head'](x))


class SeedUNet(Net):
  def build(self, channels_in, channels):
    c, size = self.config, self.config.isize
    above, out, inner = channels_in, channels, c.filters
    normed = c.norm != 'none'
    while size >= 2:
      first, last = size == c.isize, size == 2
      self.conv(
        f'conv_{size}', above, inner, 4, 2, 1, first or last or not normed
      )
      if not (first or last):
        self.norm(f'norm_{size}', inner, KERAS_EPSILON)
      below = inner if last else 2 * inner
      self.up(f'convt_{size}', below, out, 4, bias=first or not normed)
      if not first:
        self.norm(f'normt_{size}', out, KERAS_EPSILON)
      above, out, inner = inner, inner, min(2 * inner, 8 * c.filters)
      size //= 2

  def forward(self, x):
    return torch.tanh(self.block(x, self.config.isize))

  def block(self, x, size):
    n, first = self.layers, size == self.config.isize
    x = n[f'conv_{size}'](x)
    if size > 2:
      if not first:
        x = n[f'norm_{size}'](x)
      below = self.block(F.leaky_relu(x, 0.2), size // 2)
      x = torch.cat([x, below], 1)
    x = n[f'convt_{size}'](F.relu(x))
    if not first:
      x = n[f'normt_{size}'](x)
    return self.drop(f'dropout_{size}', x)


class TorchUNet(Net):
  def build(self, channels_in, channels):
    c = self.config
    self.depth = int(math.log2(c.isize))
    bias = c.norm != 'batch'
    above, out, inner = channels_in, channels, c.filters
    for level in range(self.depth):
      first, last = level == 0, level == self.depth - 1
      self.conv(f'down_{level}', above, inner, 4, 2, 1, bias)
      if not (first or last):
        self.norm(f'down_norm_{level}', inner)
      below = inner if last else 2 * inner
      self.up(f'up_{level}', below, out, 4, bias=bias or first)
      if not first:
        self.norm(f'up_norm_{level}', out)
      above, out, inner = inner, inner, min(2 * inner, 8 * c.filters)

  def forward(self, x):
    return torch.tanh(self.block(x, 0))

  def block(self, x, level):
    """Its skip is what it was given after the ReLU, which works in place."""
    n, first, last = self.layers, level == 0, level == self.depth - 1
    if not first:
      x = F.leaky_relu(x, 0.2)
    y = n[f'down_{level}'](x)
    if not last:
      if not first:
        y = n[f'down_norm_{level}'](y)
      y = self.block(y, level + 1)
    y = n[f'up_{level}'](F.relu(y))
    if first:
      return y
    y = self.drop(f'dropout_{level}', n[f'up_norm_{level}'](y))
    return torch.cat([x, y], 1)


class PatchGAN(Net):
  def build(self, channels_in, channels):
    c = self.config
    self.is_seed = c.name == 'seed_patchgan'
    epsilon = KERAS_EPSILON if self.is_seed else 1e-5
    bias = c.norm == 'none' or (c.norm == 'instance' and not self.is_seed)
    i, o = channels_in, c.filters
    for level in range(c.layers + 1):
      first, last = level == 0, level == c.layers
      self.conv(f'conv_{level}', i, o, 4, 1 if last else 2, 0, first or bias)
      if not first:
        self.norm(f'norm_{level}', o, epsilon)
      i, o = o, min(2 * o, 8 * c.filters)
    self.conv('logits', i, 1, 4)

  def forward(self, x):
    n, c = self.layers, self.config
    is_same = self.is_seed and c.last_layers == 'same'
    # Of Keras's 'same' with an even kernel: one before, two after.
    pads = (1, 2, 1, 2) if is_same else (1, 1, 1, 1)
    for level in range(c.layers + 1):
      x = F.pad(x, pads if level == c.layers else (1, 1, 1, 1))
      x = n[f'conv_{level}'](x)
      if level:
        x = n[f'norm_{level}'](x)
      x = F.leaky_relu(x, 0.2)
    return n['logits'](F.pad(x, pads))


class PixelGAN(Net):
  def build(self, channels_in, channels):
    f, bias = self.config.filters, self.config.norm != 'batch'
    self.conv('conv_0', channels_in, f, 1)
    self.conv('conv_1', f, 2 * f, 1, bias=bias)
    self.norm('norm_1', 2 * f)
    self.conv('logits', 2 * f, 1, 1, bias=bias)

  def forward(self, x):
    n = self.layers
    x = n['conv_1'](F.leaky_relu(n['conv_0'](x), 0.2))
    return n['logits'](F.leaky_relu(n['norm_1'](x), 0.2))


NETS = {
  'resnet': ResNet,
  'seed_unet': SeedUNet,
  'torch_unet': TorchUNet,
  'seed_patchgan': PatchGAN,
  'patchgan': PatchGAN,
  'pixelgan': PixelGAN,
}


def draw_weights(net, seed=0):
  """Far from any initialisation: biases and scales are put to the test."""
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for name, weight in net.named_parameters():
      noise = torch.randn(weight.shape, generator=generator)
      is_scale = weight.ndim == 1 and name.endswith('weight')
      fan = math.prod(weight.shape[1:])
      weight.copy_(1 + 0.3 * noise if is_scale else noise / fan**0.5)


def to_flax(net, leaf=lambda x: jnp.asarray(x.detach().numpy())):
  """Our parameters: kernels OIHW to HWIO, and transposed [I, O, h, w] too."""
  params = {}
  for name, layer in net.layers.items():
    if getattr(layer, 'weight', None) is None:
      continue
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
      ours = {'kernel': leaf(layer.weight.permute(2, 3, 1, 0))}
    else:
      ours = {'scale': leaf(layer.weight)}
    if layer.bias is not None:
      ours['bias'] = leaf(layer.bias)
    is_transposed = isinstance(layer, nn.ConvTranspose2d)
    params[name] = {'ConvTranspose_0': ours} if is_transposed else ours
  return params


def to_torch(x):
  return torch.from_numpy(np.array(x).transpose(0, 3, 1, 2))


def from_torch(x):
  return x.detach().numpy().transpose(0, 2, 3, 1)


def images(*shape):
  values = np.random.default_rng(1).uniform(-1, 1, shape)
  return values.astype(np.float32)


def make_ours(config, channels=3):
  if isinstance(config, GeneratorConfig):
    return make_generator(config, channels=channels)
  return make_discriminator(config)


GENERATORS = {
  'resnet instance': {'name': 'resnet', 'norm': 'instance', 'affine': False},
  'resnet affine': {'name': 'resnet', 'norm': 'instance'},
  'resnet batch zero': {'name': 'resnet', 'norm': 'batch', 'padding': 'zero'},
  'seed batch': {'name': 'seed_unet'},
  'seed instance': {'name': 'seed_unet', 'norm': 'instance', 'affine': False},
  'seed no norm': {'name': 'seed_unet', 'norm': 'none'},
  'torch batch': {'name': 'torch_unet', 'norm': 'batch'},
  'torch instance': {'name': 'torch_unet', 'norm': 'instance'},
}


def generator_config(name, **options):
  return GeneratorConfig(
    **{
      'filters': 3,
      'isize': 64 if 'torch' in name else 16,
      'fixed_input_size': False,
      'blocks': 6 if name == 'resnet instance' else 2,
      'padding': 'reflect' if 'resnet' in name else 'zero',
    }
    | GENERATORS[name]
    | options
  )


def check(got, expected):
  assert got.shape == expected.shape
  # Neither all the same nor all at the ends of tanh: it says something.
  assert np.std(expected) > 0.05
  assert np.mean(np.abs(np.abs(expected) - 1) < 0.01) < 0.5
  assert np.max(np.abs(got - expected)) < 1e-4


@pytest.mark.parametrize('name', GENERATORS)
def test_generator(name):
  config = generator_config(name, dropout=0.0)
  theirs = NETS[config.name](config, channels_in=3, channels=2)
  draw_weights(theirs)
  # Not square, where the network takes it; channels in and out differ.
  shape = (2, 64, 64, 3) if config.isize == 64 else (2, 32, 16, 3)
  x = images(*shape)
  ours = jax.jit(make_ours(config, channels=2).apply)
  got = ours({'params': to_flax(theirs)}, x)
  check(got, from_torch(theirs(to_torch(x))))


@pytest.mark.parametrize('name', ['resnet affine', 'seed batch', 'torch batch'])
def test_dropout_is_in_the_same_places(name):
  """PyTorch's network is given the masks that ours drew."""
  config = generator_config(name, dropout=0.5, blocks=1)
  theirs = NETS[config.name](config)
  draw_weights(theirs)
  x = images(2, *2 * (config.isize,), 3)
  key = jax.random.key(0)

  @jax.jit
  def apply(params, x):
    return make_ours(config).apply(
      {'params': params},
      x,
      rngs={'dropout': key},
      capture_intermediates=lambda module, _: isinstance(module, Dropout),
    )

  got, variables = apply(to_flax(theirs), x)
  for dropout, calls in variables['intermediates'].items():
    (dropped,) = calls['__call__']
    theirs.masks[dropout] = to_torch(dropped) != 0
  expected = {
    'resnet': {'block_0_dropout'},
    'seed_unet': {'dropout_8', 'dropout_4', 'dropout_2'},
    'torch_unet': {'dropout_4'},
  }
  assert set(theirs.masks) == expected[config.name]
  check(got, from_torch(theirs(to_torch(x))))


def test_the_resnet_s_gradient_in_its_input():
  config = generator_config('resnet instance', dropout=0.0, blocks=2)
  theirs = ResNet(config)
  draw_weights(theirs)
  x, weights = images(2, 16, 16, 3), images(2, 16, 16, 3)[::-1].copy()
  their_x = to_torch(x).requires_grad_()
  (theirs(their_x) * to_torch(weights)).sum().backward()
  params, network = to_flax(theirs), make_ours(config)

  @jax.jit
  def gradient(x):
    return jax.grad(
      lambda x: jnp.sum(network.apply({'params': params}, x) * weights)
    )(x)

  got, expected = gradient(x), from_torch(their_x.grad)
  assert np.std(expected) > 0.05
  scale = max(1, np.max(np.abs(expected)))
  assert np.max(np.abs(got - expected)) < 1e-4 * scale


DISCRIMINATORS = {
  'seed same': {'name': 'seed_patchgan'},
  'seed valid': {'name': 'seed_patchgan', 'last_layers': 'valid'},
  'patchgan instance': {'name': 'patchgan', 'norm': 'instance'},
  'patchgan batch': {'name': 'patchgan', 'norm': 'batch'},
  'patchgan deep': {
    'name': 'patchgan',
    'norm': 'instance',
    'affine': False,
    'layers': 4,
  },
  'pixelgan instance': {'name': 'pixelgan', 'norm': 'instance'},
  'pixelgan batch': {'name': 'pixelgan', 'norm': 'batch'},
}


@pytest.mark.parametrize('name', DISCRIMINATORS)
def test_discriminator(name):
  config = DiscriminatorConfig(**{'filters': 3} | DISCRIMINATORS[name])
  theirs = NETS[config.name](config)
  draw_weights(theirs)
  x = images(2, 64, 48, 3)
  got = jax.jit(make_ours(config).apply)({'params': to_flax(theirs)}, x)
  check(got, from_torch(theirs(to_torch(x))))


AT_FULL_SIZE = [
  (
    {'name': 'resnet', 'norm': 'instance', 'affine': False, 'blocks': 9},
    11_378_179,
  ),
  (
    {'name': 'resnet', 'norm': 'instance', 'affine': False, 'blocks': 6},
    7_837_699,
  ),
  ({'name': 'seed_unet', 'isize': 64, 'filters': 24}, 4_116_171),
  ({'name': 'seed_unet', 'isize': 128}, 41_829_571),
  ({'name': 'torch_unet', 'isize': 128}, 41_828_995),
  ({'name': 'torch_unet', 'isize': 256}, 54_413_955),
  ({'name': 'seed_patchgan', 'filters': 24}, 391_993),
  ({'name': 'seed_patchgan'}, 2_765_633),
  ({'name': 'patchgan', 'norm': 'instance', 'affine': False}, 2_764_737),
  ({'name': 'patchgan', 'norm': 'batch'}, 2_765_633),
  ({'name': 'pixelgan', 'norm': 'instance', 'affine': False}, 8_705),
]


@pytest.mark.parametrize('options, count', AT_FULL_SIZE)
def test_parameters_at_full_size(options, count):
  is_generator = options['name'] in ('resnet', 'seed_unet', 'torch_unet')
  kind = GeneratorConfig if is_generator else DiscriminatorConfig
  config = kind(**{'filters': 64} | options)
  with torch.device('meta'):
    theirs = NETS[config.name](config)
  assert sum(weight.numel() for weight in theirs.parameters()) == count
  size = getattr(config, 'isize', 256)
  key = jax.random.key(0)
  ours = jax.eval_shape(
    make_ours(config).init,
    {'params': key, 'dropout': key},
    jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32),
  )['params']
  shapes = jax.tree.map(lambda leaf: leaf.shape, ours)
  assert shapes == to_flax(theirs, leaf=lambda x: tuple(x.shape))


def test_the_copy_leaves_no_layer_out():
  theirs = SeedUNet(generator_config('seed batch'))
  leaves = jax.tree.leaves(to_flax(theirs))
  kinds = collections.Counter(leaf.ndim for leaf in leaves)
  assert sum(kinds.values()) == len(list(theirs.parameters()))
