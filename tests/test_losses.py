"""Losses and penalties by hand-computed values and gradients."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cyclegan_jax import losses
from cyclegan_jax.config import LossConfig
from cyclegan_jax.losses import (
  ADVERSARIAL_LOSSES,
  cycle_loss,
  gradient_penalty,
  interpolate,
  l1_loss,
  r1_penalty,
)
from cyclegan_jax.losses.reconstruction import gaussian_blur

pytestmark = pytest.mark.usefixtures('strict')

LOG2 = math.log(2)
LOG4 = math.log(4)
# Of -log D: softplus(-z) at z = log 3, where D = 3/4; and of -log(1 - D).
SURE_REAL, SURE_FAKE = math.log(4 / 3), math.log(4)
LOG3 = math.log(3)

logits = functools.partial(jnp.full, (2, 3, 3, 1))


def test_the_table_has_the_config_s_names():
  field = LossConfig.__dataclass_fields__['adversarial']
  assert tuple(ADVERSARIAL_LOSSES) == field.metadata['choices']


@pytest.mark.parametrize(
  'name, real, fake, expected',
  [
    ('vanilla', 0.0, 0.0, 2 * LOG2),  # undecided
    ('vanilla', LOG3, -LOG3, 2 * SURE_REAL),  # D is 3/4 right on both
    ('vanilla', LOG3, LOG3, SURE_REAL + SURE_FAKE),  # wrong on the fakes
    ('vanilla', 1000.0, -1000.0, 0.0),
    ('vanilla', -1000.0, 1000.0, 2000.0),  # no overflow
    ('minimax', 0.0, 0.0, 2 * LOG2),  # the same discriminator
    ('minimax', -1000.0, 1000.0, 2000.0),
    ('lsgan', 1.0, 0.0, 0.0),  # on both targets
    ('lsgan', 0.0, 1.0, 2.0),  # one off on both
    ('lsgan', 3.0, -2.0, 8.0),  # 2^2 + 2^2
    ('hinge', 2.0, -2.0, 0.0),  # both past the margin
    ('hinge', 0.0, 0.0, 2.0),  # undecided: one margin each
    ('hinge', -1.0, 3.0, 6.0),  # 2 + 4
    ('wgan_gp', 3.0, 1.0, -2.0),
    ('wgan_gp', -1.0, 0.5, 1.5),
  ],
)
def test_discriminator_values(name, real, fake, expected):
  loss = ADVERSARIAL_LOSSES[name].discriminator(logits(real), logits(fake))
  assert loss.shape == ()
  assert loss.dtype == jnp.float32
  np.testing.assert_allclose(loss, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
  'name, fake, expected',
  [
    ('vanilla', 0.0, LOG2),
    ('vanilla', LOG3, SURE_REAL),
    ('vanilla', -LOG3, SURE_FAKE),
    ('vanilla', 1000.0, 0.0),
    ('vanilla', -1000.0, 1000.0),
    ('minimax', 0.0, -LOG2),
    ('minimax', LOG3, -LOG4),  # log(1 - 3/4)
    ('minimax', -1000.0, 0.0),
    ('minimax', 1000.0, -1000.0),
    ('lsgan', 1.0, 0.0),
    ('lsgan', 0.0, 1.0),
    ('lsgan', -2.0, 9.0),
    ('hinge', 3.0, -3.0),
    ('hinge', -1000.0, 1000.0),
    ('wgan_gp', 3.0, -3.0),
    ('wgan_gp', -0.5, 0.5),
  ],
)
def test_generator_values(name, fake, expected):
  loss = ADVERSARIAL_LOSSES[name].generator(logits(fake))
  assert loss.shape == ()
  assert loss.dtype == jnp.float32
  np.testing.assert_allclose(loss, expected, rtol=1e-6, atol=1e-7)


def test_a_loss_is_the_mean_over_patches():
  # log D of each patch, not the log of the mean D.
  fake = jnp.asarray([LOG3, -LOG3]).reshape(1, 1, 2, 1)
  expected = (SURE_REAL + SURE_FAKE) / 2
  got = ADVERSARIAL_LOSSES['vanilla'].generator(fake)
  np.testing.assert_allclose(got, expected, rtol=1e-6)
  hinge = ADVERSARIAL_LOSSES['hinge'].discriminator(fake * 0 + 1, fake)
  np.testing.assert_allclose(hinge, (1 + LOG3) / 2, rtol=1e-6)


# The gradient of the generator's loss in one logit.
@pytest.mark.parametrize(
  'name, fake, expected',
  [
    ('vanilla', 0.0, -0.5),
    ('vanilla', -LOG3, -0.75),  # -(1 - D)
    ('vanilla', -1000.0, -1.0),  # D is sure of a fake: it learns most
    ('vanilla', 1000.0, 0.0),
    ('minimax', 0.0, -0.5),
    ('minimax', -LOG3, -0.25),  # -D
    ('minimax', -1000.0, 0.0),  # D is sure of a fake: it learns nothing
    ('minimax', 1000.0, -1.0),
    ('lsgan', -1.0, -4.0),
    ('lsgan', 1.0, 0.0),
    ('hinge', -7.0, -1.0),
    ('wgan_gp', 7.0, -1.0),
  ],
)
def test_generator_gradients(name, fake, expected):
  z = jnp.full((1, 1, 1, 1), fake)
  gradient = jax.grad(ADVERSARIAL_LOSSES[name].generator)(z)
  np.testing.assert_allclose(gradient.item(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('name', ADVERSARIAL_LOSSES)
def test_the_two_sides_pull_a_fake_s_logit_apart(name):
  z = jnp.zeros((1, 1, 1, 1))
  generator, discriminator = ADVERSARIAL_LOSSES[name]
  assert jax.grad(generator)(z).item() < 0
  on_real, on_fake = jax.grad(discriminator, (0, 1))(z, z)
  assert on_real.item() < 0
  assert on_fake.item() >= 0
  assert jax.grad(discriminator, 1)(z, z + 0.5).item() > 0


@pytest.mark.parametrize('name', ADVERSARIAL_LOSSES)
def test_nothing_overflows_where_the_discriminator_is_sure(name):
  generator, discriminator = ADVERSARIAL_LOSSES[name]
  for logit in (-1000.0, 1000.0):
    z = jnp.full((1, 2, 2, 1), logit)
    values = (
      *jax.value_and_grad(generator)(z),
      *jax.tree.leaves(jax.value_and_grad(discriminator, (0, 1))(z, -z)),
    )
    assert all(np.all(np.isfinite(each)) for each in values)


@pytest.mark.parametrize(
  'image, target, expected',
  [
    ([0.0, 0.0, 0.0, 0.0], [1.0, -1.0, 0.0, 0.0], 0.5),
    ([1.0, 1.0, 1.0, 1.0], [-1.0, -1.0, -1.0, -1.0], 2.0),  # white on black
    ([0.25, 0.5, 0.0, 1.0], [0.25, 0.5, 0.0, 1.0], 0.0),
  ],
)
def test_l1_values(image, target, expected):
  image, target = (jnp.asarray(x).reshape(1, 2, 2, 1) for x in (image, target))
  loss = l1_loss(image, target)
  assert loss.shape == ()
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_l1_gradient_is_the_sign_over_the_count():
  image = jnp.asarray([0.5, -0.5, 0.1, 0.9]).reshape(1, 2, 2, 1)
  gradient = jax.grad(l1_loss)(image, jnp.zeros_like(image))
  np.testing.assert_allclose(gradient.ravel(), [0.25, -0.25, 0.25, 0.25])


def test_paired_l1_by_hand():
  images = jnp.array([1.0, 5.0, -2.0, 0.0]).reshape(4, 1, 1, 1)
  targets = jnp.zeros((4, 1, 1, 1))
  is_pair = jnp.array([True, False, True, True])
  assert float(losses.paired_l1_loss(images, targets, is_pair)) == 0.75
  no_pairs = jnp.zeros(4, bool)
  assert float(losses.paired_l1_loss(images, targets, no_pairs)) == 0


# The blurred cycle loss.


def draw(*shape, seed=0):
  values = np.random.default_rng(seed).uniform(-1, 1, shape)
  return jnp.asarray(values, jnp.float32)


def test_a_blurred_point_is_a_gaussian():
  x = jnp.zeros((1, 33, 33, 1)).at[0, 16, 16, 0].set(1)
  got = np.asarray(gaussian_blur(x, 2.0))[0, ..., 0]
  place = np.arange(33) - 16
  bell = np.exp(-(place**2) / 8) / np.sqrt(8 * np.pi)
  np.testing.assert_allclose(got, np.outer(bell, bell), atol=1e-6)


def test_two_blurred_pixels_by_hand():
  """The weights sum to 1 at borders: of two, 1 / (1 + exp(-1/2)) is near."""
  x = jnp.asarray([1.0, 0.0]).reshape(1, 1, 2, 1)
  near = 1 / (1 + np.exp(-0.5))
  got = gaussian_blur(x, 1.0)
  np.testing.assert_allclose(got.ravel(), [near, 1 - near], rtol=1e-6)


def test_the_blur_keeps_constants_and_channels_apart():
  flat = jnp.broadcast_to(jnp.asarray([0.5, -1.0, 0.25, 1.0]), (2, 9, 12, 4))
  np.testing.assert_allclose(gaussian_blur(flat, 3.0), flat, rtol=1e-5)


def test_the_blurred_loss_ignores_textures_but_not_colors():
  board = jnp.asarray(np.indices((16, 16)).sum(0) % 2 * 2.0 - 1, jnp.float32)
  texture = jnp.broadcast_to(board[None, ..., None], (1, 16, 16, 3))
  none = jnp.zeros_like(texture)
  assert l1_loss(texture, none) == 1
  assert cycle_loss(texture, none, blur=1.0) < 0.01
  color = none.at[..., 0].set(0.3)
  for blur in (0.0, 1.0):
    loss = cycle_loss(color, none, blur=blur)
    np.testing.assert_allclose(loss, 0.1, rtol=1e-5)


def test_cycle_loss_is_a_mix_of_plain_and_blurred():
  x, y = draw(2, 8, 8, 3), draw(2, 8, 8, 3, seed=1)
  plain = l1_loss(x, y)
  blurred = l1_loss(gaussian_blur(x, 2.0), gaussian_blur(y, 2.0))
  assert cycle_loss(x, y) == plain
  for blur in (0.25, 1.0):
    mixed = cycle_loss(x, y, blur=blur, sigma=2.0)
    expected = (1 - blur) * plain + blur * blurred
    np.testing.assert_allclose(mixed, expected, rtol=1e-4)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_gradients_of_the_blurred_loss(dtype):
  x = draw(2, 8, 8, 3).astype(dtype)
  gradient = jax.grad(lambda x: cycle_loss(x, 0 * x, blur=1.0))(x)
  assert gradient.dtype == jnp.dtype(dtype)
  assert np.all(np.isfinite(np.asarray(gradient, np.float32)))
  assert np.any(gradient != 0)


# Penalties on discriminators with known gradients.

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


@pytest.mark.parametrize('scale', [0.5, 3.0])
def test_r1_of_a_linear_discriminator(scale):
  got = r1_penalty(lambda x: linear(x, scale), images())
  assert got.shape == ()
  np.testing.assert_allclose(got, (scale * NORM) ** 2 / 2, rtol=1e-5)


@pytest.mark.parametrize('length', [0.5, 1.0])
def test_gradient_penalty_of_a_linear_discriminator(length):
  got = gradient_penalty(lambda x: linear(x, length / NORM), images())
  assert got.shape == ()
  np.testing.assert_allclose(got, (length - 1) ** 2, rtol=1e-4, atol=1e-6)


def test_the_mean_logit_s_gradient_is_penalized():
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

  def discriminator(x):
    return 0.5 * jnp.sum(jnp.square(x), axis=(1, 2, 3), keepdims=True)

  got = r1_penalty(discriminator, x)
  np.testing.assert_allclose(got, (0 + 9 + 16) / 6, rtol=1e-6)
  got = gradient_penalty(discriminator, x)
  np.testing.assert_allclose(got, (1 + 4 + 9) / 3, rtol=1e-5)


@pytest.mark.parametrize('penalty', [r1_penalty, gradient_penalty])
def test_a_discriminator_can_learn_from_a_penalty(penalty):
  def loss(scale):
    return penalty(lambda x: linear(x, scale / NORM), images())

  # d/ds s^2 / 2 = s, and d/ds (s - 1)^2 = 2 (s - 1).
  expected = 3.0 if penalty is r1_penalty else 4.0
  np.testing.assert_allclose(jax.grad(loss)(3.0), expected, rtol=1e-4)
  # A flat discriminator: the root's gradient must not be infinite there.
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
