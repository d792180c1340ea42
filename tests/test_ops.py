"""Convolutions against loops in numpy and against XLA's own derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from cyclegan_jax.nets.ops import conv, conv_transpose
from cyclegan_jax.nets.ops.winograd import kernel_gradient

conv_valid = functools.partial(conv, stride=1, padding=((0, 0), (0, 0)))

pytestmark = pytest.mark.usefixtures('strict')

# stride, kernel, padding, extra: a U-Net's, a ResNet's, and odd ones.
CASES = {
  'k4 s2 p1': (2, (4, 4), ((1, 1), (1, 1)), 0),
  'k3 s2 p1 extra': (2, (3, 3), ((1, 1), (1, 1)), 1),
  'k3 s1 p1': (1, (3, 3), ((1, 1), (1, 1)), 0),
  'k5x2 s3 uneven': (3, (5, 2), ((2, 0), (0, 1)), 2),
}


def random(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def conv_by_loops(x, kernel, stride, padding):
  h, w = kernel.shape[:2]
  x = np.pad(x.astype(np.float64), ((0, 0), *padding, (0, 0)))
  rows = range(0, x.shape[1] - h + 1, stride)
  columns = range(0, x.shape[2] - w + 1, stride)
  out = np.zeros((x.shape[0], len(rows), len(columns), kernel.shape[3]))
  for i, top in enumerate(rows):
    for j, left in enumerate(columns):
      patch = x[:, top : top + h, left : left + w]
      out[:, i, j] = np.einsum('bhwi,hwio->bo', patch, kernel)
  return out


def plain_conv(x, kernel, *, stride=1, padding=((0, 0), (0, 0))):
  """With XLA's own derivatives."""
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def conv_transpose_by_loops(x, kernel, stride, padding, extra):
  """Each input pixel stamps the kernel on the output; then the crop."""
  h, w = kernel.shape[:2]
  (top, bottom), (left, right) = padding
  height = (x.shape[1] - 1) * stride + h + extra
  width = (x.shape[2] - 1) * stride + w + extra
  out = np.zeros((x.shape[0], height, width, kernel.shape[2]))
  for i in range(x.shape[1]):
    for j in range(x.shape[2]):
      stamp = np.einsum('bi,hwoi->bhwo', x[:, i, j], kernel)
      rows = slice(i * stride, i * stride + h)
      columns = slice(j * stride, j * stride + w)
      out[:, rows, columns] += stamp
  return out[:, top : height - bottom, left : width - right]


def conv_transpose_by_dilation(x, kernel, stride, padding, extra):
  """The same values, with XLA's own derivatives."""
  h, w = kernel.shape[:2]
  (top, bottom), (left, right) = padding
  return lax.conv_general_dilated(
    x,
    kernel[::-1, ::-1].swapaxes(2, 3),
    (1, 1),
    (
      (h - 1 - top, h - 1 - bottom + extra),
      (w - 1 - left, w - 1 - right + extra),
    ),
    lhs_dilation=(stride, stride),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def make_case(name, *, channels_in=3, channels_out=2):
  stride, size, padding, extra = CASES[name]
  x = random(0, 2, 3, 4, channels_in)
  kernel = random(1, *size, channels_out, channels_in)
  options = {'stride': stride, 'padding': padding, 'extra': extra}
  return x, kernel, options


@settings(max_examples=6)
@given(
  shape=st.sampled_from([(1, 100, 101), (4, 50, 50), (2, 3, 4000)]),
  inner=st.integers(1, 3),
  outer=st.integers(1, 3),
)
def test_conv_transpose_of_large_maps(shape, inner, outer):
  x, kernel = random(0, *shape, inner), random(1, 3, 3, outer, inner)
  options = 2, ((1, 1), (1, 1)), 1
  out, pull_back = jax.vjp(
    lambda *xk: conv_transpose(
      *xk, stride=2, padding=((1, 1), (1, 1)), extra=1
    ),
    x,
    kernel,
  )
  expected, pull_back_expected = jax.vjp(
    lambda *xk: conv_transpose_by_dilation(*xk, *options), x, kernel
  )
  np.testing.assert_allclose(out, expected, atol=1e-5)
  cotangent = random(2, *out.shape)
  for ours, theirs in zip(
    pull_back(cotangent), pull_back_expected(cotangent), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('padding', [((0, 0), (0, 0)), ((1, 2), (0, 1))])
def test_conv_values(stride, padding):
  x, kernel = random(0, 2, 5, 6, 3), random(1, 4, 3, 3, 2)
  np.testing.assert_allclose(
    conv(x, kernel, stride=stride, padding=padding),
    conv_by_loops(x, kernel, stride, padding),
    atol=1e-5,
  )


@pytest.mark.parametrize('size', [(2, 2), (3, 3), (4, 2), (5, 6)])
def test_conv_valid(size):
  x, kernel = random(0, 2, 5, 6, 3), random(1, *size, 3, 2)
  out, pull_back = jax.vjp(conv_valid, x, kernel)
  expected = conv_by_loops(x, kernel, 1, ((0, 0), (0, 0)))
  assert out.shape == expected.shape
  np.testing.assert_allclose(out, expected, atol=1e-5)
  _, plain_pull_back = jax.vjp(plain_conv, x, kernel)
  cotangent = random(2, *out.shape)
  for bar, plain_bar in zip(
    pull_back(cotangent), plain_pull_back(cotangent), strict=True
  ):
    np.testing.assert_allclose(bar, plain_bar, atol=1e-5)


@given(
  seed=st.integers(0, 1000),
  batch=st.integers(1, 2),
  sides=st.tuples(st.integers(4, 7), st.integers(4, 7)),
  size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
  stride=st.integers(1, 3),
  channels=st.tuples(st.integers(1, 5), st.integers(1, 6)),
  padding=st.one_of(
    st.just('SAME'),
    st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2),
  ),
)
@settings(max_examples=30, deadline=None)
def test_conv_has_xlas_gradients(
  seed, batch, sides, size, stride, channels, padding
):
  """To few channels, where its weight gradient is ours, and to more."""
  x = random(seed, batch, *sides, channels[0])
  kernel = random(seed + 1, *size, *channels)
  options = {'stride': stride, 'padding': padding}
  out, pull_back = jax.vjp(functools.partial(conv, **options), x, kernel)
  expected, plain = jax.vjp(functools.partial(plain_conv, **options), x, kernel)
  np.testing.assert_allclose(out, expected, atol=1e-4)
  cotangent = random(seed + 2, *out.shape)
  for bar, plain_bar in zip(
    pull_back(cotangent), plain(cotangent), strict=True
  ):
    np.testing.assert_allclose(bar, plain_bar, atol=1e-4)


@given(
  seed=st.integers(0, 1000),
  batch=st.integers(1, 2),
  sides=st.tuples(*[st.integers(1, 4)] * 2),
  channels=st.tuples(*[st.integers(1, 5)] * 2),
)
@settings(max_examples=12, deadline=None)
def test_winograds_kernel_gradient(seed, batch, sides, channels):
  height, width = (2 * side for side in sides)
  x = random(seed, batch, height + 2, width + 2, channels[0])
  cotangent = random(seed + 1, batch, height, width, channels[1])
  _, plain = jax.vjp(lambda k: plain_conv(x, k), jnp.zeros((3, 3, *channels)))
  (expected,) = plain(cotangent)
  got = jax.jit(kernel_gradient)(x, cotangent)
  assert got.shape == expected.shape
  np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.parametrize(
  'padding', [((0, 0), (0, 0)), ((1, 1), (1, 1)), ((1, 0), (0, 0))]
)
def test_conv_of_many_channels_has_xlas_gradients(padding):
  x, kernel = random(0, 2, 8, 6, 32), random(1, 3, 3, 32, 40)
  options = {'stride': 1, 'padding': padding}
  ours = functools.partial(conv, **options)
  out, pull_back = jax.vjp(ours, x, kernel)
  expected, plain = jax.vjp(functools.partial(plain_conv, **options), x, kernel)
  np.testing.assert_allclose(out, expected, atol=1e-3)
  cotangent = random(2, *out.shape)
  for bar, plain_bar in zip(
    pull_back(cotangent), plain(cotangent), strict=True
  ):
    np.testing.assert_allclose(bar, plain_bar, atol=1e-3)


@pytest.mark.parametrize('features', [3, 40])
def test_a_conv_that_crops(features):
  x, kernel = random(0, 1, 9, 10, 32), random(1, 3, 3, 32, features)
  padding = ((-1, 0), (0, -2))
  out, pull_back = jax.vjp(
    functools.partial(conv, stride=1, padding=padding), x, kernel
  )
  expected, plain = jax.vjp(
    functools.partial(plain_conv, padding=padding), x, kernel
  )
  np.testing.assert_allclose(out, expected, atol=1e-3)
  for bar, plain_bar in zip(pull_back(out), plain(out), strict=True):
    np.testing.assert_allclose(bar, plain_bar, rtol=1e-4, atol=2e-2)


def test_a_conv_without_output():
  x, kernel = random(0, 1, 2, 2, 32), random(1, 3, 3, 32, 32)
  out = conv(x, kernel, stride=1, padding=((0, 0), (0, 0)))
  assert out.shape == (1, 0, 0, 32)


@pytest.mark.parametrize('padding', [((0, 0), (0, 0)), ((1, 2), (0, 1))])
def test_conv_to_few_has_second_derivatives(padding):
  x, kernel = random(0, 1, 5, 5, 2), random(1, 3, 3, 2, 1)

  def penalty(function, kernel):
    gradient = jax.grad(lambda k: jnp.sum(jnp.sin(function(x, k))))(kernel)
    return jnp.sum(jnp.square(gradient))

  options = {'stride': 1, 'padding': padding}
  got, expected = (
    jax.grad(functools.partial(penalty, functools.partial(each, **options)))(
      kernel
    )
    for each in (conv, plain_conv)
  )
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)


def test_conv_valid_has_second_derivatives():
  x, kernel = random(0, 1, 5, 5, 2), random(1, 3, 3, 2, 2)

  def penalty(function, kernel):
    gradient = jax.grad(lambda x: jnp.sum(jnp.sin(function(x, kernel))))(x)
    return jnp.sum(jnp.square(gradient))

  got, expected = (
    jax.grad(functools.partial(penalty, function))(kernel)
    for function in (conv_valid, plain_conv)
  )
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('name', CASES)
def test_conv_transpose_values(name):
  x, kernel, options = make_case(name)
  got = conv_transpose(x, kernel, **options)
  expected = conv_transpose_by_loops(x, kernel, *options.values())
  assert got.shape == expected.shape
  np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize('name', CASES)
def test_conv_transpose_is_the_adjoint_of_conv(name):
  x, kernel, options = make_case(name)
  out = conv_transpose(x, kernel, **options)
  del options['extra']
  forward = functools.partial(conv, kernel=kernel, **options)
  _, pull_back = jax.vjp(forward, jnp.zeros_like(out))
  (expected,) = pull_back(x)
  np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize('name', CASES)
def test_conv_transpose_has_the_gradients_of_the_dilated_form(name):
  x, kernel, options = make_case(name)
  plain = functools.partial(conv_transpose_by_dilation, **options)

  def gradients(function, x, kernel):
    # A loss that is not linear, so that each gradient sees the other input.
    return jax.grad(lambda *args: jnp.sum(jnp.sin(function(*args))), (0, 1))(
      x, kernel
    )

  got = gradients(functools.partial(conv_transpose, **options), x, kernel)
  for each, expected in zip(got, gradients(plain, x, kernel), strict=True):
    assert each.shape == expected.shape
    np.testing.assert_allclose(each, expected, atol=2e-5)


@pytest.mark.parametrize('name', ['k4 s2 p1', 'k3 s2 p1 extra'])
def test_conv_transpose_has_second_derivatives(name):
  """As a penalty takes them: of the norm of the gradient in the input."""
  x, kernel, options = make_case(name)

  def penalty(function, x, kernel):
    gradient = jax.grad(lambda x: jnp.sum(jnp.sin(function(x, kernel))))(x)
    return jnp.sum(jnp.square(gradient))

  ours = functools.partial(conv_transpose, **options)
  plain = functools.partial(conv_transpose_by_dilation, **options)
  got = jax.grad(functools.partial(penalty, ours), (0, 1))(x, kernel)
  expected = jax.grad(functools.partial(penalty, plain), (0, 1))(x, kernel)
  for each, other in zip(got, expected, strict=True):
    np.testing.assert_allclose(each, other, rtol=1e-4, atol=1e-3)


@st.composite
def shapes(draw):
  """Sizes for which the output has at least one pixel."""
  stride = draw(st.integers(1, 3))
  h, w = draw(st.tuples(st.integers(2, 5), st.integers(2, 5)))
  padding = tuple(
    draw(st.tuples(st.integers(0, size // 2), st.integers(0, (size - 1) // 2)))
    for size in (h, w)
  )
  extra = draw(st.integers(0, stride - 1))
  image = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
  channels = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
  return stride, (h, w), padding, extra, image, channels


@given(shapes())
@settings(max_examples=10)
def test_conv_transpose_at_any_shape(shape):
  stride, size, padding, extra, image, (i, o) = shape
  x, kernel = random(0, 2, *image, i), random(1, *size, o, i)
  out, pull_back = jax.vjp(
    functools.partial(
      conv_transpose, stride=stride, padding=padding, extra=extra
    ),
    x,
    kernel,
  )
  expected = conv_transpose_by_loops(x, kernel, stride, padding, extra)
  assert out.shape == expected.shape
  np.testing.assert_allclose(out, expected, atol=1e-5)
  # It is linear in either input: <c, f(x)> = <vjp(c), x> for each.
  cotangent = random(2, *out.shape)
  for bar, each in zip(pull_back(cotangent), (x, kernel), strict=True):
    assert bar.shape == each.shape
  x_bar, kernel_bar = pull_back(cotangent)
  x_bar_by_loops = conv_by_loops(cotangent, kernel, stride, padding)
  np.testing.assert_allclose(x_bar, x_bar_by_loops, atol=1e-4)
  other = random(3, *kernel.shape)
  np.testing.assert_allclose(
    np.vdot(kernel_bar, other),
    np.vdot(
      cotangent, conv_transpose_by_loops(x, other, stride, padding, extra)
    ),
    atol=1e-3,
  )
