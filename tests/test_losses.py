"""Losses by hand-computed values and gradients."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cyclegan_jax import losses
from cyclegan_jax.config import LossConfig
from cyclegan_jax.losses import ADVERSARIAL_LOSSES

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
  got = losses.vanilla_generator_loss(fake)
  np.testing.assert_allclose(got, expected, rtol=1e-6)
  hinge = losses.hinge_discriminator_loss(fake * 0 + 1, fake)
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
@pytest.mark.parametrize('sign', [-1, 1])
def test_nothing_overflows_where_the_discriminator_is_sure(name, sign):
  z = jnp.full((1, 2, 2, 1), sign * 1000.0)
  generator, discriminator = ADVERSARIAL_LOSSES[name]
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
  loss = losses.l1_loss(image, target)
  assert loss.shape == ()
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_l1_gradient_is_the_sign_over_the_count():
  image = jnp.asarray([0.5, -0.5, 0.1, 0.9]).reshape(1, 2, 2, 1)
  gradient = jax.grad(losses.l1_loss)(image, jnp.zeros_like(image))
  np.testing.assert_allclose(gradient.ravel(), [0.25, -0.25, 0.25, 0.25])
