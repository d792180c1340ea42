"""The networks against the same ones written with torch.nn."""

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
from experiments.peers.torch_networks import (  # noqa: E402
  NETS,
  from_torch,
  to_flax,
  to_torch,
)

nn = torch.nn
F = torch.nn.functional

pytestmark = pytest.mark.torch


def draw_weights(net, seed=0):
  """Far from any initialisation: biases and scales are put to the test."""
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for name, weight in net.named_parameters():
      noise = torch.randn(weight.shape, generator=generator)
      is_scale = weight.ndim == 1 and name.endswith('weight')
      fan = math.prod(weight.shape[1:])
      weight.copy_(1 + 0.3 * noise if is_scale else noise / fan**0.5)


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
  'keras batch': {'name': 'keras_unet'},
  'keras instance': {'name': 'keras_unet', 'norm': 'instance', 'affine': False},
  'keras no norm': {'name': 'keras_unet', 'norm': 'none'},
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


@pytest.mark.parametrize(
  'name', ['resnet affine', 'keras batch', 'torch batch']
)
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
    'keras_unet': {'dropout_8', 'dropout_4', 'dropout_2'},
    'torch_unet': {'dropout_4'},
  }
  assert set(theirs.masks) == expected[config.name]
  check(got, from_torch(theirs(to_torch(x))))


def test_the_resnet_s_gradient_in_its_input():
  config = generator_config('resnet instance', dropout=0.0, blocks=2)
  theirs = NETS['resnet'](config)
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
  'keras same': {'name': 'keras_patchgan'},
  'keras valid': {'name': 'keras_patchgan', 'last_layers': 'valid'},
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


@pytest.mark.parametrize(
  'options',
  [
    {'name': 'resnet', 'norm': 'instance', 'affine': False, 'blocks': 9},
    {'name': 'keras_unet', 'isize': 128},
    {'name': 'torch_unet', 'isize': 256},
    {'name': 'keras_patchgan'},
    {'name': 'patchgan', 'norm': 'instance', 'affine': False},
    {'name': 'pixelgan', 'norm': 'instance', 'affine': False},
  ],
)
def test_parameters_at_full_size(options):
  is_generator = options['name'] in ('resnet', 'keras_unet', 'torch_unet')
  kind = GeneratorConfig if is_generator else DiscriminatorConfig
  config = kind(**{'filters': 64} | options)
  with torch.device('meta'):
    theirs = NETS[config.name](config)
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
  theirs = NETS['keras_unet'](generator_config('keras batch'))
  leaves = jax.tree.leaves(to_flax(theirs))
  kinds = collections.Counter(leaf.ndim for leaf in leaves)
  assert sum(kinds.values()) == len(list(theirs.parameters()))
