"""Resizing and cropping against Pillow and by hand."""

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.config import DataConfig
from cyclegan_jax.data.resizing import check_scaled, resize, resize_to
from cyclegan_jax.errors import DataError


def noise(*shape):
  return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


PIL_METHODS = {
  'bilinear': Image.Resampling.BILINEAR,
  'bicubic': Image.Resampling.BICUBIC,
  'lanczos': Image.Resampling.LANCZOS,
}


@pytest.mark.parametrize(
  'method, channels, mode',
  [('bilinear', 1, 'L'), ('bicubic', 3, 'RGB'), ('lanczos', 4, 'CMYK')],
)
def test_resizing_equals_pillow(method, channels, mode):
  image = noise(13, 29, channels)
  config = DataConfig(interpolation=method)
  # CMYK are four independent channels; in RGBA, Pillow would weight the colors
  # by alpha.
  expected = Image.frombytes(mode, (29, 13), image.tobytes()).resize(
    (17, 40), PIL_METHODS[method]
  )
  np.testing.assert_array_equal(
    resize_to(image, 40, 17, config),
    np.asarray(expected).reshape(40, 17, channels),
  )


def test_two_channels_are_resized_independently():
  image = noise(13, 29, 2)
  config = DataConfig()
  resized = resize_to(image, 40, 17, config)
  for i in range(2):
    np.testing.assert_array_equal(
      resized[..., i : i + 1], resize_to(image[..., i : i + 1], 40, 17, config)
    )


@pytest.mark.parametrize(
  'mode, is_test, shape',
  [
    ('resize_and_crop', False, (18, 18)),
    ('resize_and_crop', True, (16, 16)),
    ('crop', False, (20, 50)),
    ('crop', True, (16, 16)),
    ('scale_and_crop', False, (18, 45)),  # the shorter side to load_size
    ('scale_and_crop', True, (16, 16)),
    ('resize_and_center_crop', False, (16, 16)),
    ('resize_and_center_crop', True, (16, 16)),
  ],
)
def test_shapes(mode, is_test, shape):
  config = DataConfig(size=16, load_size=18, preprocess=mode)
  for wide in (True, False):
    image = noise(20, 50, 3) if wide else noise(50, 20, 3)
    resized = resize(image, config, is_test=is_test)
    assert resized.shape == (*shape[:: 1 if wide else -1], 3)


def test_center_crops():
  image = noise(20, 50, 3)
  config = DataConfig(size=16, load_size=18, preprocess='crop')
  np.testing.assert_array_equal(
    resize(image, config, is_test=True), image[2:18, 17:33]
  )
  config = DataConfig(
    size=16, load_size=18, preprocess='resize_and_center_crop'
  )
  np.testing.assert_array_equal(
    resize(image, config), resize_to(image, 18, 18, config)[1:17, 1:17]
  )


def test_an_image_that_would_become_too_large():
  config = DataConfig(load_size=286, preprocess='scale_and_crop')
  check_scaled(np.zeros((1, 10, 3), np.uint8), 'x.png', config)
  with pytest.raises(DataError, match=r'x\.png.*config\.data\.max_pixels'):
    check_scaled(np.zeros((1, 65535, 3), np.uint8), 'x.png', config)
