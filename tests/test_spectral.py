"""Spectral norm: singular values by numpy, and in the discriminators."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cyclegan_jax as cg
from cyclegan_jax import step
from cyclegan_jax.config import DiscriminatorConfig
from cyclegan_jax.nets import make_discriminator
from cyclegan_jax.nets.ops import spectral_norm
from cyclegan_jax.state import abstract_train_state


def greatest(kernel):
  matrix = np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1])
  return np.linalg.svd(matrix, compute_uv=False)[0]


def kernel_of(*values):
  """A 1x1 kernel with these singular values."""
  rng = np.random.default_rng(0)
  left, right = (
    np.linalg.qr(rng.normal(size=(len(values),) * 2))[0] for _ in range(2)
  )
  return jnp.asarray((left * values) @ right, jnp.float32)[None, None]


def drawn(*shape):
  kernel = np.random.default_rng(1).uniform(-1, 1, shape)
  return jnp.asarray(kernel, jnp.float32)


@pytest.mark.parametrize('value', [1e-3, 1.0, 30.0])
def test_by_hand(value):
  kernel = kernel_of(value, value / 2, value / 4)
  got = spectral_norm(kernel)
  np.testing.assert_allclose(got, kernel / value, rtol=1e-4, atol=1e-7)
  np.testing.assert_allclose(greatest(got), 1, rtol=1e-5)


def test_one_logit_is_its_vector_s_length():
  kernel = drawn(4, 4, 8, 1)
  got = spectral_norm(kernel)
  np.testing.assert_allclose(jnp.linalg.norm(got), 1, rtol=1e-5)


@pytest.mark.parametrize('shape', [(4, 4, 3, 24), (4, 4, 96, 192)])
def test_a_drawn_kernel_is_near_one_from_above(shape):
  """The hardest there is: singular values that lie close together."""
  assert 0.9999 < greatest(spectral_norm(drawn(*shape))) < 1.06


def test_the_length_of_a_kernel_is_of_no_matter():
  kernel = drawn(2, 2, 3, 4)
  got = spectral_norm(7 * kernel)
  np.testing.assert_allclose(got, spectral_norm(kernel), rtol=1e-4, atol=1e-6)
  # So no gradient lengthens it: it is at right angles to the kernel.
  weights = drawn(2, 2, 3, 4)[::-1]
  gradient = jax.grad(lambda k: jnp.sum(weights * spectral_norm(k)))(kernel)
  assert float(jnp.linalg.norm(gradient)) > 0.01
  np.testing.assert_allclose(jnp.sum(gradient * kernel), 0, atol=1e-5)


def test_the_gradient_is_the_paper_s():
  """(arXiv:1802.05957, eq. 9-12), with the exact singular vectors."""
  kernel, weights = kernel_of(3.0, 1.0, 0.5), drawn(1, 1, 3, 3)
  left, values, right = np.linalg.svd(np.asarray(kernel[0, 0]))
  normed = kernel[0, 0] / values[0]
  direction = np.outer(left[:, 0], right[0])
  expected = (
    weights[0, 0] - np.sum(weights[0, 0] * normed) * direction
  ) / values[0]
  gradient = jax.grad(lambda k: jnp.sum(weights * spectral_norm(k)))(kernel)
  np.testing.assert_allclose(gradient[0, 0], expected, atol=1e-4)


def test_a_kernel_of_zeros():
  zeros = jnp.zeros((2, 2, 3, 4))
  value, gradient = jax.value_and_grad(lambda k: spectral_norm(k).sum())(zeros)
  assert value == 0
  assert np.all(np.isfinite(gradient))


# In the discriminators.


@pytest.mark.parametrize(
  'name, dtype',
  [
    ('keras_patchgan', 'float32'),
    ('patchgan', 'bfloat16'),
    ('pixelgan', 'float32'),
  ],
)
def test_every_convolution_has_it(name, dtype):
  options = {'name': name, 'filters': 4, 'layers': 2, 'norm': 'none'}
  plain = make_discriminator(DiscriminatorConfig(**options, dtype=dtype))
  spectral = make_discriminator(
    DiscriminatorConfig(**options, dtype=dtype, spectral_norm=True)
  )
  x = jnp.asarray(np.random.default_rng(2).normal(size=(2, 16, 16, 3)), dtype)
  params = jax.jit(spectral.init)(jax.random.key(0), x)['params']
  # The same parameters, with other logits.
  shapes = jax.eval_shape(plain.init, jax.random.key(0), x)['params']
  assert jax.tree.structure(shapes) == jax.tree.structure(params)
  normed = {
    name: layer | {'kernel': spectral_norm(layer['kernel'])}
    for name, layer in params.items()
  }
  got = jax.jit(spectral.apply)({'params': params}, x)
  expected = jax.jit(plain.apply)({'params': normed}, x)
  assert got.dtype == jnp.dtype(dtype)
  np.testing.assert_allclose(
    np.asarray(got, np.float32), np.asarray(expected, np.float32), atol=1e-6
  )


def make_config(size, **options):
  return cg.Config().replace(
    batch_size=2,
    data={'size': size, 'load_size': size},
    generator={'filters': 2, 'isize': size},
    discriminator={'norm': 'none', **options},
    loss={'r1': 0.5},
  )


@pytest.mark.slow
def test_a_step_is_finite_and_learns():
  config = make_config(
    8, filters=2, layers=1, spectral_norm=True, dtype='bfloat16'
  )
  state = cg.create_train_state(config, jax.random.key(0))
  images = np.random.default_rng(0).uniform(-1, 1, (2, 2, 8, 8, 3))
  a, b = images.astype(np.float32)
  after, metrics = cg.train_step(state, {'a': a, 'b': b}, config=config)
  leaves = jax.tree.leaves((after.disc, after.gen, metrics))
  assert all(np.all(np.isfinite(leaf)) for leaf in leaves)
  kernels = (each.disc['a']['conv_1']['kernel'] for each in (state, after))
  assert not np.array_equal(*kernels)


@pytest.mark.slow
def test_it_costs_little():
  image = jax.ShapeDtypeStruct((4, 64, 64, 3), jnp.float32)
  batch = {'a': image, 'b': image}

  def flops(**options):
    config = make_config(64, filters=16, **options)
    loss = functools.partial(step.discriminator_loss, config=config)
    state = abstract_train_state(config)
    gradient = jax.jit(jax.grad(loss, has_aux=True))
    lowered = gradient.lower(state.disc, batch, batch, state.key)
    return lowered.compile().cost_analysis()['flops']

  # The vectors are found once, not for each of the images judged.
  assert 1 < flops(spectral_norm=True) / flops() < 1.03
