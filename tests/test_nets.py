"""Networks: sizes and counts at every preset, options, dropout and norms."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cyclegan_jax.config import (
  DiscriminatorConfig,
  GeneratorConfig,
  logits_size,
)
from cyclegan_jax.nets import (
  DISCRIMINATORS,
  GENERATORS,
  make_discriminator,
  make_generator,
)
from cyclegan_jax.nets.layers import (
  Conv,
  ConvTranspose,
  Dropout,
  Norm,
  Upsample,
  leaky_relu,
)
from cyclegan_jax.state import create_train_state

pytestmark = pytest.mark.usefixtures('strict_dtypes')

PAPER = {'norm': 'instance', 'affine': False, 'filters': 64}


def keys(seed=0):
  key = jax.random.key(seed)
  return {'params': key, 'dropout': jax.random.fold_in(key, 1)}


def image(*shape, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(shape, dtype)


def images(*shape, seed=0):
  values = np.random.default_rng(seed).uniform(-1, 1, shape)
  return jnp.asarray(values, jnp.float32)


def shapes(network, x):
  """(output, variables) without any computation."""
  return jax.eval_shape(network.init_with_output, keys(), x)


def count(variables):
  return sum(leaf.size for leaf in jax.tree.leaves(variables['params']))


@functools.partial(jax.jit, static_argnums=0)
def init(network, x, seed=0):
  return network.init(keys(seed), x)['params']


def draw(network, x):
  """Parameters of some size, by numpy: `init` takes seconds to compile."""
  generator = np.random.default_rng(0)

  def draw_one(leaf):
    noise = generator.normal(size=leaf.shape)
    fan = math.prod(leaf.shape[:-1])
    return jnp.asarray(noise / math.sqrt(fan), leaf.dtype)

  return jax.tree.map(draw_one, shapes(network, x)[1]['params'])


@functools.partial(jax.jit, static_argnums=0)
def apply(network, params, x, seed=0):
  return network.apply({'params': params}, x, rngs=keys(seed))


def by_path(params):
  """Each array of a tree by its path: 'up_1/ConvTranspose_0/kernel'."""
  flat = jax.tree.leaves_with_path(params)
  return {'/'.join(str(key.key) for key in path): leaf for path, leaf in flat}


# Tables.


def test_the_tables_have_the_configs_names():
  for table, kind in (
    (GENERATORS, GeneratorConfig),
    (DISCRIMINATORS, DiscriminatorConfig),
  ):
    field = kind.__dataclass_fields__['name']
    assert tuple(table) == field.metadata['choices']


@pytest.mark.parametrize(
  'preset, size, num_generator, num_discriminator, patches',
  [
    ('default', 64, 4_116_171, 391_993, 8),
    ('keras', 128, 41_829_571, 2_765_633, 16),
    ('paper', 256, 11_378_179, 2_764_737, 30),
    ('tpu', 256, 11_378_179, 2_764_737, 30),
    ('folder', 128, 1_965_059, 694_241, 14),
  ],
)
def test_presets(
  load_preset, preset, size, num_generator, num_discriminator, patches
):
  config = load_preset(preset)
  x = image(2, config.data.size, config.data.size, config.data.channels_a)
  out, variables = shapes(make_generator(config.generator), x)
  assert out.shape == (2, size, size, config.data.channels_b)
  assert count(variables) == num_generator
  logits, variables = shapes(make_discriminator(config.discriminator), x)
  assert logits.shape == (2, patches, patches, 1)
  assert count(variables) == num_discriminator


@pytest.mark.parametrize(
  'options, size, expected',
  [
    ({'name': 'resnet', 'blocks': 6, **PAPER}, 128, 7_837_699),
    ({'name': 'torch_unet', 'isize': 128, 'filters': 64}, 128, 41_828_995),
    ({'name': 'torch_unet', 'isize': 256, 'filters': 64}, 256, 54_413_955),
  ],
)
def test_generators_by_count(options, size, expected):
  x = image(1, size, size, 3)
  out, variables = shapes(make_generator(GeneratorConfig(**options)), x)
  assert out.shape == x.shape
  assert count(variables) == expected


@pytest.mark.parametrize(
  'options, size, patches, expected',
  [
    (
      {'name': 'keras_patchgan', 'filters': 64, 'last_layers': 'valid'},
      128,
      14,
      2_765_633,
    ),
    # Of odd maps 'same' keeps the larger half: 20, 10, 5, 3.
    ({'name': 'keras_patchgan', 'filters': 64}, 20, 3, 2_765_633),
    ({'name': 'patchgan', **PAPER}, 128, 14, 2_764_737),
    # One layer judges 16 x 16 pixels: 64, 128 and a logit.
    ({'name': 'patchgan', 'layers': 1, **PAPER}, 256, 126, 136_385),
    # 3 * 64 + 64, 64 * 128 + 128, 128 + 1
    ({'name': 'pixelgan', **PAPER}, 256, 256, 8_705),
    # Before a batch norm no bias, but its scale and shift.
    ({'name': 'pixelgan', 'filters': 64}, 256, 256, 8_832),
  ],
)
def test_discriminators_by_count(options, size, patches, expected):
  network = make_discriminator(DiscriminatorConfig(**options))
  logits, variables = shapes(network, image(1, size, size, 3))
  assert logits.shape == (1, patches, patches, 1)
  assert logits_size(DiscriminatorConfig(**options), size) == patches
  assert count(variables) == expected


# Options.


NORMS = ('batch', 'instance', 'none')


def pairs_of_options(networks):
  """(name, norm, bool): each network with each norm, and each with the bool."""
  return [
    (name, norm, (row + column) % 2 == 0)
    for row, name in enumerate(networks)
    for column, norm in enumerate(NORMS)
  ]


@pytest.mark.parametrize('name, norm, affine', pairs_of_options(GENERATORS))
def test_every_option_builds(name, norm, affine):
  upsample = 'resize' if norm == 'instance' else 'transpose'
  config = GeneratorConfig(
    name=name,
    filters=2,
    isize=16,
    blocks=1,
    norm=norm,
    affine=affine,
    upsample=upsample,
    padding='zero' if affine else 'reflect',
  )
  network = make_generator(config, channels=2)
  out, variables = shapes(network, image(3, 16, 16, 1))
  assert out.shape == (3, 16, 16, 2)
  assert out.dtype == jnp.float32
  # No running statistics: nothing but parameters.
  assert set(variables) == {'params'}
  names = [path.split('/') for path in by_path(variables['params'])]
  # A transformer's norms have theirs in any case.
  has_scales = any(path[-1] == 'scale' and 'vit' not in path for path in names)
  assert has_scales == (affine and norm != 'none')
  is_transposed = any('ConvTranspose_0' in path for path in names)
  assert is_transposed == (upsample == 'transpose')


@pytest.mark.parametrize('name, norm, affine', pairs_of_options(DISCRIMINATORS))
def test_every_option_of_a_discriminator_builds(name, norm, affine):
  config = DiscriminatorConfig(name=name, filters=2, norm=norm, affine=affine)
  logits, variables = shapes(make_discriminator(config), image(3, 32, 32, 4))
  patches = {'keras_patchgan': 4, 'patchgan': 2, 'pixelgan': 32}[name]
  assert logits.shape == (3, patches, patches, 1)
  assert set(variables) == {'params'}
  has_scales = any('scale' in path for path in by_path(variables['params']))
  assert has_scales == (affine and norm != 'none')


@pytest.mark.parametrize('norm', ['batch', 'instance', 'none'])
def test_no_bias_is_lost_before_a_norm(norm):
  """Only a norm that has, or may have, a shift takes a bias's place."""
  config = GeneratorConfig(name='resnet', filters=2, blocks=1, norm=norm)
  _, variables = shapes(make_generator(config), image(1, 8, 8, 3))
  paths = by_path(variables['params'])
  assert ('stem/bias' in paths) == (norm != 'batch')
  assert 'head/bias' in paths


def test_filters_double_inward_up_to_eight_times():
  filters, deepest = 3, 24
  for name in ('keras_unet', 'torch_unet'):
    config = GeneratorConfig(name=name, filters=filters, isize=64)
    _, variables = shapes(make_generator(config), image(1, 64, 64, 3))
    kernels = [x.shape for x in jax.tree.leaves(variables) if x.ndim == 4]
    assert max(shape[3] for shape in kernels if shape[0] == 4) == 2 * deepest
    down = [
      leaf.shape[3]
      for path, leaf in by_path(variables['params']).items()
      if path.startswith(('conv_', 'down_')) and path.endswith('kernel')
    ]
    expected = [filters * min(2**level, 8) for level in range(6)]
    assert sorted(down) == expected


# Sizes.


@pytest.mark.parametrize(
  'options, size, wanted',
  [
    ({'isize': 16}, (16, 32), '16 x 16'),
    ({'isize': 16, 'fixed_input_size': False}, (32, 24), 'multiples of 16'),
    ({'name': 'torch_unet', 'isize': 16}, (24, 32), 'multiples of 16'),
    ({'name': 'resnet'}, (18, 16), 'multiples of 4'),
    ({'name': 'vit_unet'}, (24, 16), 'multiples of 16'),
  ],
)
def test_a_size_that_is_refused(options, size, wanted):
  network = make_generator(GeneratorConfig(filters=2, blocks=1, **options))
  message = f'{wanted}, not {size}'
  with pytest.raises(ValueError, match=re.escape(message)):
    shapes(network, image(1, *size, 3))


@pytest.mark.parametrize(
  'options, size',
  [
    ({'isize': 16, 'fixed_input_size': False}, (48, 32)),
    ({'name': 'torch_unet', 'isize': 16}, (32, 48)),
    ({'name': 'resnet'}, (20, 36)),
    ({'name': 'vit_unet'}, (16, 48)),
  ],
)
def test_a_size_that_is_taken(options, size):
  network = make_generator(GeneratorConfig(filters=2, blocks=1, **options))
  out, _ = shapes(network, image(1, *size, 3))
  assert out.shape == (1, *size, 3)


def test_parameters_do_not_depend_on_the_size_of_the_input():
  config = GeneratorConfig(filters=2, isize=16, fixed_input_size=False)
  network = make_generator(config)
  trees = [shapes(network, image(1, s, s, 3))[1] for s in (16, 32)]
  assert trees[0] == trees[1]


# Computation in bfloat16.


@pytest.mark.parametrize(
  'name',
  [
    'resnet',
    *(
      pytest.param(name, marks=pytest.mark.slow)
      for name in GENERATORS
      if name != 'resnet'
    ),
  ],
)
def test_bfloat16_is_close_to_float32(name):
  options = {'name': name, 'filters': 4, 'isize': 16, 'blocks': 1}
  options |= {'norm': 'instance', 'dropout': 0.0}
  full = make_generator(GeneratorConfig(**options))
  half = make_generator(GeneratorConfig(**options, dtype='bfloat16'))
  x = images(2, 16, 16, 3)
  params = draw(half, x)
  dtypes = {leaf.dtype for leaf in jax.tree.leaves(params)}
  assert dtypes == {jnp.dtype(jnp.float32)}
  expected, got = apply(full, params, x), apply(half, params, x)
  assert got.dtype == jnp.bfloat16
  got = np.asarray(got, np.float32)
  assert np.max(np.abs(got)) <= 1
  assert np.std(expected) > 0.1
  error = np.abs(got - expected)
  assert 0 < np.mean(error) < 0.05


def test_a_bfloat16_discriminator():
  config = DiscriminatorConfig(filters=2, dtype='bfloat16')
  logits, variables = shapes(make_discriminator(config), image(1, 32, 32, 3))
  assert logits.dtype == jnp.bfloat16
  dtypes = {leaf.dtype for leaf in jax.tree.leaves(variables)}
  assert dtypes == {jnp.dtype(jnp.float32)}


def test_statistics_are_float32_in_bfloat16():
  """A mean of 300 and a deviation of 1 are lost to bfloat16's 8 bits."""
  x = 300 + 2 * (jnp.arange(64).reshape(1, 8, 8, 1) % 2)
  x = x.astype(jnp.bfloat16)
  norm = Norm('instance', affine=False, dtype='bfloat16')
  got = norm.apply({}, x)
  assert got.dtype == jnp.bfloat16
  np.testing.assert_array_equal(np.unique(np.asarray(got, np.float32)), [-1, 1])


# Dropout.


def names_of_dropouts(config, size):
  def run(x):
    return make_generator(config).init_with_output(
      keys(),
      x,
      capture_intermediates=lambda module, _: isinstance(module, Dropout),
    )

  _, variables = jax.eval_shape(run, image(1, size, size, 3))
  found = variables.get('intermediates', {})
  return {name: of['__call__'][0].shape[1:3] for name, of in found.items()}


@pytest.mark.parametrize(
  'options, size, expected',
  [
    # By the size that a level is given, and gives back.
    (
      {'isize': 64},
      64,
      {'dropout_8': (8, 8), 'dropout_4': (4, 4), 'dropout_2': (2, 2)},
    ),
    (
      {'isize': 4, 'fixed_input_size': False},
      8,
      {
        'dropout_4': (8, 8),
        'dropout_2': (4, 4),
      },
    ),
    # Blocks of full width, but for the innermost.
    (
      {'name': 'torch_unet', 'isize': 128},
      128,
      {'dropout_4': (8, 8), 'dropout_5': (4, 4)},
    ),
    ({'name': 'torch_unet', 'isize': 16}, 16, {}),
    (
      {'name': 'resnet', 'blocks': 2},
      16,
      {'block_0_dropout': (4, 4), 'block_1_dropout': (4, 4)},
    ),
  ],
)
def test_where_dropout_is(options, size, expected):
  config = GeneratorConfig(filters=1, **options)
  assert names_of_dropouts(config, size) == expected


def test_dropout_is_by_key():
  network = make_generator(GeneratorConfig(filters=2, isize=16))
  x = images(2, 16, 16, 3)
  params = draw(network, x)
  first = apply(network, params, x, 1)
  np.testing.assert_array_equal(first, apply(network, params, x, 1))
  assert np.max(np.abs(first - apply(network, params, x, 2))) > 0.01


def test_dropout_zeroes_a_share_and_keeps_the_mean():
  x = jnp.ones((4, 32, 32, 2))
  got = Dropout(0.25).apply({}, x, rngs=keys())
  np.testing.assert_allclose(np.unique(got), [0, 4 / 3], rtol=1e-6)
  np.testing.assert_allclose(np.mean(got), 1, atol=0.03)
  # A mask for each example and channel.
  assert not np.array_equal(got[0], got[1])
  assert not np.array_equal(got[..., 0], got[..., 1])


def test_dropout_of_0_needs_no_key():
  x = images(1, 4, 4, 1)
  np.testing.assert_array_equal(Dropout(0.0).apply({}, x), x)


# Norms.


@pytest.mark.parametrize(
  'kind, axes', [('batch', (0, 1, 2)), ('instance', (1, 2))]
)
def test_a_norm_takes_the_statistics_of_its_input(kind, axes):
  scales = jnp.asarray([0.5, 3.0, 10.0, 100.0])[:, None, None, None]
  x = 5 + scales * images(4, 8, 8, 3)
  got, variables = Norm(kind, affine=False).init_with_output(keys(), x)
  assert not variables
  np.testing.assert_allclose(np.mean(got, axes), 0, atol=1e-5)
  np.testing.assert_allclose(np.var(got, axes), 1, rtol=1e-3)
  # And not of more than that: images keep their scale under batch norm.
  per_image = np.var(got, axis=(1, 2, 3))
  assert (np.ptp(per_image) < 0.01) == (kind == 'instance')


def test_norm_by_hand():
  """Half 1e-3 and half -1e-3: the variance is 1e-6, beside the epsilon."""
  x = 1e-3 * (1 - 2 * (jnp.arange(4.0).reshape(1, 2, 2, 1) % 2))
  variables = {'params': {'scale': jnp.full(1, 2.0), 'bias': jnp.full(1, 0.5)}}
  for epsilon in (1e-5, 1.01e-5):
    got = Norm('batch', epsilon=epsilon).apply(variables, x)
    expected = 0.5 + 2e-3 / math.sqrt(1e-6 + epsilon)
    np.testing.assert_allclose(np.max(got), expected, rtol=1e-5)


def test_a_large_mean_costs_no_digits():
  x = 1e4 + images(2, 8, 8, 1)
  got = Norm('batch', affine=False).apply({}, x)
  np.testing.assert_allclose(np.var(got), 1, rtol=1e-3)


@pytest.mark.parametrize(
  'network, epsilon',
  [
    (GeneratorConfig(name='keras_unet', isize=16, filters=1), 1.01e-5),
    (DiscriminatorConfig(name='keras_patchgan', filters=1), 1.01e-5),
    (GeneratorConfig(name='resnet', blocks=1, filters=1), 1e-5),
    (GeneratorConfig(name='torch_unet', isize=16, filters=1), 1e-5),
    (DiscriminatorConfig(name='patchgan', filters=1), 1e-5),
    (DiscriminatorConfig(name='pixelgan', filters=1), 1e-5),
  ],
  ids=lambda each: getattr(each, 'name', None),
)
def test_the_norms_of_a_network(network, epsilon):
  """Keras's epsilon in its networks, else PyTorch's; all of the batch."""
  is_generator = isinstance(network, GeneratorConfig)
  make = make_generator if is_generator else make_discriminator
  norms = []

  def note(module, _):
    if isinstance(module, Norm):
      norms.append((module.kind, module.epsilon))
    return False

  def run(x):
    return make(network).init_with_output(keys(), x, capture_intermediates=note)

  jax.eval_shape(run, image(2, 16, 16, 3))
  assert set(norms) == {('batch', epsilon)}


def test_batch_norms_in_a_network_normalise_the_batch():
  """In 'inference' as well: the only way to apply it."""
  config = GeneratorConfig(filters=4, isize=16, affine=False, dropout=0.0)
  network, x = make_generator(config), 3 * images(4, 16, 16, 3)

  @jax.jit
  def run(x):
    return network.apply(
      {'params': draw(network, x)},
      x,
      capture_intermediates=lambda module, _: isinstance(module, Norm),
    )

  _, variables = run(x)
  normed = variables['intermediates']
  assert len(normed) == 5  # two levels on their way in, three out
  for calls in normed.values():
    (y,) = calls['__call__']
    np.testing.assert_allclose(np.mean(y, (0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(np.var(y, (0, 1, 2)), 1, rtol=0.05)


# Initialisations.


def test_glorot_uniform_is_keras_s():
  network = make_generator(GeneratorConfig(filters=8, isize=16))
  arrays = by_path(init(network, images(1, 16, 16, 3)))
  for path, value in arrays.items():
    if path.endswith('kernel'):
      h, w, i, o = value.shape
      limit = math.sqrt(6 / (h * w * (i + o)))
      assert 0.97 * limit < np.max(np.abs(value)) <= limit, path
      np.testing.assert_allclose(np.mean(value), 0, atol=0.1 * limit)
    else:
      np.testing.assert_array_equal(value, 1 if 'scale' in path else 0)


@pytest.mark.parametrize('kind', ['generator', 'discriminator'])
def test_normal_is_the_paper_s(kind):
  if kind == 'generator':
    network = make_generator(
      GeneratorConfig(name='resnet', filters=8, blocks=1, init='normal')
    )
  else:
    network = make_discriminator(
      DiscriminatorConfig(name='patchgan', filters=8, init='normal')
    )
  arrays = by_path(init(network, images(1, 32, 32, 3)))
  kinds = {'kernel': [], 'scale': [], 'bias': []}
  for path, value in arrays.items():
    kinds[path.split('/')[-1]].append(np.ravel(value))
  kernels, scales, biases = map(np.concatenate, kinds.values())
  np.testing.assert_allclose(np.std(kernels), 0.02, rtol=0.05)
  np.testing.assert_allclose(np.mean(kernels), 0, atol=0.001)
  np.testing.assert_allclose(np.mean(scales), 1, atol=0.01)
  np.testing.assert_allclose(np.std(scales), 0.02, rtol=0.3)
  np.testing.assert_array_equal(biases, 0)


def test_the_four_networks_of_a_state_start_apart(tiny_config):
  state = create_train_state(tiny_config, jax.random.key(0))
  for pair in (state.gen, state.disc):
    one, other = (by_path(params) for params in pair.values())
    assert list(one) == list(other)
    kernels = [path for path in one if path.endswith('kernel')]
    assert kernels
    for path in kernels:
      assert not np.allclose(one[path], other[path]), path
  # Neither do layers of a network share their draws.
  values = [
    np.ravel(leaf)[:3].tobytes()
    for params in (*state.gen.values(), *state.disc.values())
    for leaf in by_path(params).values()
    if leaf.ndim == 4
  ]
  assert len(values) == len(set(values))


# Layers.


def test_leaky_relu():
  x = jnp.asarray([-2.0, 0.0, 3.0])
  np.testing.assert_allclose(leaky_relu(x), [-0.4, 0, 3], rtol=1e-6)


@pytest.mark.parametrize(
  'padding, expected', [('zero', [4, 6, 6, 4]), ('reflect', [6, 6, 6, 6])]
)
def test_conv_padding(padding, expected):
  """Sums of three neighbours along a row of 1, 2, 3 and so on."""
  x = jnp.ones((1, 4, 4, 1)) * 2
  params = {'kernel': jnp.ones((3, 3, 1, 1)) / 3}
  got = Conv(1, 3, pads=(1, 1), padding=padding, use_bias=False).apply(
    {'params': params}, x
  )
  np.testing.assert_allclose(got[0, 1, :, 0], expected, rtol=1e-6)


def test_reflect_leaves_out_the_border_itself():
  x = jnp.arange(1.0, 5).reshape(1, 1, 4, 1).repeat(4, axis=1)
  kernel = jnp.zeros((3, 3, 1, 1)).at[1, 0].set(1)  # the left neighbour
  conv = Conv(1, 3, pads=(1, 1), padding='reflect', use_bias=False)
  got = conv.apply({'params': {'kernel': kernel}}, x)
  np.testing.assert_array_equal(got[0, 0, :, 0], [2, 1, 2, 3])


def test_resize_repeats_pixels():
  x = jnp.asarray([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
  kernel = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1)  # itself
  params = {'Conv_0': {'kernel': kernel, 'bias': jnp.zeros(1)}}
  got = Upsample(1, 4, 'resize').apply({'params': params}, x)
  np.testing.assert_array_equal(
    got[0, ..., 0], np.kron(x[0, ..., 0], np.ones((2, 2)))
  )


@pytest.mark.parametrize('size', [3, 4])
def test_conv_transpose_doubles(size):
  x, kernel = jnp.ones((1, 3, 5, 2)), jnp.ones((size, size, 4, 2))
  params = {'kernel': kernel, 'bias': jnp.arange(4.0)}
  got = ConvTranspose(4, size).apply({'params': params}, x)
  assert got.shape == (1, 6, 10, 4)
  # A pixel in the middle has size / 2 neighbours a side, of two channels.
  if size == 4:
    np.testing.assert_allclose(got[0, 2, 4], 8 + np.arange(4), rtol=1e-6)


def test_a_discriminator_s_logits_are_no_probabilities():
  config = DiscriminatorConfig(filters=4, init='normal', norm='none')
  network, x = make_discriminator(config), images(1, 16, 16, 3)
  params = draw(network, x)
  logits = apply(network, params, x)
  assert np.max(logits) > 1
  flipped = params | {'logits': jax.tree.map(jnp.negative, params['logits'])}
  np.testing.assert_allclose(apply(network, flipped, x), -logits, rtol=1e-5)


def test_a_patch_is_70_pixels():
  """The gradient of the middle logit in the image: where it is not zero."""
  config = DiscriminatorConfig(name='patchgan', filters=1, norm='none')
  network, x = make_discriminator(config), images(1, 96, 96, 1)
  params = draw(network, x)

  @jax.jit
  @jax.grad
  def gradient(x):
    return network.apply({'params': params}, x)[0, 5, 5, 0]

  rows = np.flatnonzero(np.any(np.asarray(gradient(x)) != 0, axis=(0, 2, 3)))
  assert rows[-1] - rows[0] + 1 == 70
