"""Penalties on judges whose gradient is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cyclegan_jax.losses import gradient_penalty, interpolate, r1_penalty

pytestmark = pytest.mark.usefixtures('strict')

SHAPE = (3, 4, 4, 2)
WEIGHTS = np.random.default_rng(0).normal(size=SHAPE[1:]).astype(np.float32)
NORM = np.linalg.norm(WEIGHTS)


def images(seed=1):
  values = np.random.default_rng(seed).normal(size=SHAPE)
  return jnp.asarray(values, jnp.float32)


def linear(x, scale=1.0):
  """A logit an image: the gradient is `scale * WEIGHTS` everywhere."""
  score = jnp.tensordot(x, scale * WEIGHTS, axes=3)
  return score[:, None, None, None]


def pixels(x):
  """A logit a pixel: the sum of its channels."""
  return jnp.sum(x, axis=3, keepdims=True)


@pytest.mark.parametrize('scale', [0.5, 1.0, 3.0])
def test_r1_of_a_linear_judge(scale):
  got = r1_penalty(lambda x: linear(x, scale), images())
  assert got.shape == ()
  np.testing.assert_allclose(got, (scale * NORM) ** 2 / 2, rtol=1e-5)


@pytest.mark.parametrize('length', [0.5, 1.0, 3.0])
def test_gradient_penalty_of_a_linear_judge(length):
  got = gradient_penalty(lambda x: linear(x, length / NORM), images())
  assert got.shape == ()
  np.testing.assert_allclose(got, (length - 1) ** 2, rtol=1e-4, atol=1e-6)


def test_the_mean_logit_s_gradient_is_penalised():
  # 16 patches of 2 channels: the gradient is 1/16 at 32 places.
  squared_norm = 32 / 16**2
  got = r1_penalty(pixels, images())
  np.testing.assert_allclose(got, squared_norm / 2, rtol=1e-5)
  got = gradient_penalty(pixels, images())
  np.testing.assert_allclose(got, (squared_norm**0.5 - 1) ** 2, rtol=1e-5)


def test_each_image_has_its_own_gradient():
  # Of sum(x^2) / 2 the gradient is x: norms 0, 3 and 4.
  norms = jnp.asarray([0.0, 3.0, 4.0])
  x = jnp.zeros(SHAPE).at[:, 1, 2, 0].set(norms)

  def judge(x):
    return 0.5 * jnp.sum(jnp.square(x), axis=(1, 2, 3), keepdims=True)

  got = r1_penalty(judge, x)
  np.testing.assert_allclose(got, (0 + 9 + 16) / 6, rtol=1e-6)
  got = gradient_penalty(judge, x)
  np.testing.assert_allclose(got, (1 + 4 + 9) / 3, rtol=1e-5)


@pytest.mark.parametrize('penalty', [r1_penalty, gradient_penalty])
def test_a_judge_can_learn_from_a_penalty(penalty):
  def loss(scale):
    return penalty(lambda x: linear(x, scale / NORM), images())

  # d/ds s^2 / 2 = s, and d/ds (s - 1)^2 = 2 (s - 1).
  expected = 3.0 if penalty is r1_penalty else 4.0
  np.testing.assert_allclose(jax.grad(loss)(3.0), expected, rtol=1e-4)
  # A flat judge: the root's gradient must not be infinite there.
  assert np.isfinite(jax.grad(loss)(0.0))


def test_penalties_of_bfloat16_images_are_float32():
  x = images().astype(jnp.bfloat16)
  assert r1_penalty(pixels, x).dtype == jnp.float32
  assert gradient_penalty(pixels, x).dtype == jnp.float32


def test_interpolate_draws_points_between_each_pair():
  keys = jax.random.split(jax.random.key(0), 64)
  real, fake = jnp.full((64, 2, 2, 1), 1.0), jnp.full((64, 2, 2, 1), -1.0)
  got = np.asarray(interpolate(keys, real, fake))
  share = got[:, 0, 0, 0]
  # One share an image, over all of its pixels.
  np.testing.assert_array_equal(
    got, np.broadcast_to(share[:, None, None, None], got.shape)
  )
  assert len(np.unique(share)) == 64
  assert -1 <= share.min() < -0.8
  assert 0.8 < share.max() <= 1


def test_interpolate_s_endpoints():
  keys = jax.random.split(jax.random.key(0), SHAPE[0])
  real, fake = images(1), images(2)
  # A share s of the real image and 1 - s of the fake, for the same s.
  of_real = interpolate(keys, real, jnp.zeros_like(real))
  of_fake = interpolate(keys, jnp.zeros_like(fake), fake)
  s = interpolate(keys, jnp.ones(SHAPE), jnp.zeros(SHAPE))
  drawn = jax.vmap(jax.random.uniform)(keys)
  np.testing.assert_array_equal(s[:, 0, 0, 0], drawn)
  np.testing.assert_allclose(of_real, s * real, rtol=1e-6)
  np.testing.assert_allclose(of_fake, (1 - s) * fake, rtol=1e-5, atol=1e-7)
  same = interpolate(keys, real, real)
  np.testing.assert_allclose(same, real, rtol=1e-5)


def test_interpolate_keeps_the_dtype():
  keys = jax.random.split(jax.random.key(0), SHAPE[0])
  half = images().astype(jnp.bfloat16)
  assert interpolate(keys, half, half).dtype == jnp.bfloat16
