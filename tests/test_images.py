"""Images between uint8 and [-1, 1]."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cyclegan_jax.images import (
  to_float,
  to_rgb,
  to_uint8,
)

ALL_VALUES = np.arange(256, dtype=np.uint8)


def test_to_float_values():
  got = to_float(np.array([0, 51, 255], np.uint8))
  assert isinstance(got, np.ndarray)
  assert got.dtype == np.float32
  np.testing.assert_allclose(got, [-1, -0.6, 1], atol=1e-7)


def test_to_float_inside_jit_gives_the_same_jax_array():
  got = jax.jit(to_float)(jnp.asarray(ALL_VALUES))
  assert isinstance(got, jax.Array)
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, to_float(ALL_VALUES), atol=1e-6)
  assert (float(got[0]), float(got[255])) == (-1, 1)


def test_all_values_come_back():
  np.testing.assert_array_equal(to_uint8(to_float(ALL_VALUES)), ALL_VALUES)
  jitted = jax.jit(to_float)(jnp.asarray(ALL_VALUES))
  np.testing.assert_array_equal(to_uint8(jitted), ALL_VALUES)


@pytest.mark.parametrize(
  'value, expected',
  [
    (-1.0, 0),
    (1.0, 255),
    (1.5, 255),
    (-3e38, 0),
    (3e38, 255),
    (1e300, 255),  # overflows float32
    (np.nan, 0),
    (np.inf, 255),
    (-np.inf, 0),
    (0.0, 128),
    (-1 + 0.6 / 127.5, 1),  # rounded, not cut off
  ],
)
def test_to_uint8_of_any_number(value, expected):
  got = to_uint8(np.array([value]))
  assert got.dtype == np.uint8
  assert got.tolist() == [expected]


def test_to_uint8_of_bfloat16():
  got = to_uint8(jnp.array([-1.0, 0.5, jnp.nan], jnp.bfloat16))
  assert got.tolist() == [0, 191, 0]


@pytest.mark.parametrize(
  'pixel, expected',
  [
    ([1.0], [255, 255, 255]),
    ([-1.0, 1.0], [0, 0, 0]),  # opaque black
    ([-1.0, -1.0], [255, 255, 255]),  # nothing: the white below
    ([1.0, -1.0, -1.0], [255, 0, 0]),
    ([1.0, -1.0, -1.0, 0.2], [255, 102, 102]),  # alpha 153 of 255
    ([1.0, -1.0, 1.0, -1.0, 1.0], [255, 0, 255]),
  ],
)
def test_to_rgb_of_any_channels(pixel, expected):
  images = np.array(pixel, np.float32).reshape(1, 1, 1, -1)
  got = to_rgb(images)
  assert got.shape == (1, 1, 1, 3)
  assert got.dtype == np.uint8
  assert got.ravel().tolist() == expected
