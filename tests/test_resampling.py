import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.metrics.resampling import (
  cubic_matrix,
  linear_matrix,
  resample,
)


def test_linear_by_hand():
  line = np.array([0.0, 8.0])
  # Places -1/4, 1/4, 3/4, 5/4: the border is repeated.
  centred = linear_matrix(2, 4, is_centred=True) @ line
  np.testing.assert_allclose(centred, [0, 2, 6, 8])
  # Places 0, 1/2, 1, 3/2.
  cornered = linear_matrix(2, 4, is_centred=False) @ line
  np.testing.assert_allclose(cornered, [0, 4, 8, 8])


def test_linear_does_not_antialias():
  line = np.array([0.0, 9, 0, 9, 0, 9, 0, 9])
  # Places 1.5 and 5.5, or 0 and 4.
  centred = linear_matrix(8, 2, is_centred=True) @ line
  np.testing.assert_allclose(centred, [4.5, 4.5])
  cornered = linear_matrix(8, 2, is_centred=False) @ line
  np.testing.assert_allclose(cornered, [0, 0])


@pytest.mark.parametrize('size', [1, 7, 16, 40])
def test_one_size_is_no_change(size):
  for matrix in (
    linear_matrix(size, size, is_centred=True),
    linear_matrix(size, size, is_centred=False),
    cubic_matrix(size, size),
  ):
    np.testing.assert_allclose(matrix, np.eye(size), atol=1e-7)


@pytest.mark.parametrize('shape', [(40, 64), (9, 100), (300, 21)])
def test_cubic_is_that_of_pillow(shape):
  image = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
  resized = Image.fromarray(image).resize((33, 21), Image.Resampling.BICUBIC)
  found = resample(
    image[None, ..., None],
    cubic_matrix(shape[0], 21),
    cubic_matrix(shape[1], 33),
  )
  np.testing.assert_allclose(
    np.asarray(found)[0, ..., 0], np.asarray(resized), atol=2e-3
  )


def test_channels_and_images_stay_apart():
  images = np.random.default_rng(0).normal(size=(2, 3, 5, 3))
  images = images.astype(np.float32)
  rows, columns = np.eye(3)[::-1], np.eye(5)[::-1]
  found = resample(images, np.float32(rows), np.float32(columns))
  np.testing.assert_array_equal(found, images[:, ::-1, ::-1])
