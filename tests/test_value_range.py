"""Ranges of values: measured, recorded with a run, and used both ways."""

import json

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.config import Config, DataConfig
from cyclegan_jax.data.file_images import images_of_files
from cyclegan_jax.data.ranges import resolve_values, with_values
from cyclegan_jax.data.resizing import resize_to
from cyclegan_jax.data.sources import open_images
from cyclegan_jax.errors import ConfigError, DataError, ImageError
from cyclegan_jax.images import to_float, to_uint8
from cyclegan_jax.media.image_files import values_for, write_photo
from cyclegan_jax.media.value_range import Values, rescaled, values_of

CT = ('int16', -1000, 2000)


def noise(shape, dtype, seed=0):
  rng = np.random.default_rng(seed)
  if np.dtype(dtype).kind == 'f':
    return rng.normal(50, 200, shape).astype(dtype)
  return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@pytest.mark.parametrize('dtype', ['uint8', 'uint16'])
def test_integers_come_back_as_they_were(dtype):
  values = Values(dtype, 0, np.iinfo(dtype).max)
  pixels = np.arange(values.high + 1).astype(dtype)
  seen = values.to_network(pixels)
  assert seen.dtype == np.float32
  assert (seen.min(), seen.max()) == (-1, 1)
  np.testing.assert_array_equal(values.from_network(seen), pixels)
  if dtype == 'uint8':
    np.testing.assert_array_equal(seen, to_float(pixels))
    floats = np.linspace(-2, 2, 4001, dtype=np.float32)
    np.testing.assert_array_equal(values.from_network(floats), to_uint8(floats))


def test_a_range_of_ones_own():
  values = Values('uint16', 1000, 3000)
  pixels = np.array([0, 1000, 2000, 3000, 65535], np.uint16)
  np.testing.assert_allclose(values.to_network(pixels), [-1, -1, 0, 1, 1])
  got = values.from_network(np.array([-3, -1, 0, 1, np.nan], np.float32))
  np.testing.assert_array_equal(got, [1000, 1000, 2000, 3000, 1000])
  got = Values(*CT).from_network(np.array([-1, 0.5, 1], np.float32))
  assert got.dtype == np.int16
  np.testing.assert_array_equal(got, [-1000, 1250, 2000])


def test_floats_are_clipped_and_nan_is_low():
  values = Values('float32', -1024, 3071)
  floats = np.array([-1024, 3071, 1023.5, 1e30, np.inf, -np.inf, np.nan])
  seen = values.to_network(floats.astype(np.float32))
  np.testing.assert_allclose(seen, [-1, 1, 0, 1, 1, -1, -1], atol=1e-7)
  np.testing.assert_allclose(
    values.from_network(seen[:3]), [-1024, 3071, 1023.5]
  )


def test_files_of_another_type_than_their_domain():
  assert Values('uint16', 7, 9).of('uint8') == ('uint8', 0, 255)
  assert Values('float32', -1, 1).of('uint16') == ('uint16', 0, 65535)
  assert Values('uint16', 7, 9).of('uint16') == ('uint16', 7, 9)
  # Numbers of measured ranges mean the same in both types.
  assert Values(*CT).of('float32') == ('float32', -1000, 2000)
  assert Values('float32', -1, 1).of('int16') == ('int16', -1, 1)
  for dtype in ('float32', 'int16'):
    with pytest.raises(ValueError, match=f'dtype_b {dtype}'):
      Values('uint16', 7, 9).of(dtype)


def test_rescaled():
  pixels = np.array([0, 1, 255], np.uint8)
  np.testing.assert_array_equal(rescaled(pixels, 'uint16'), [0, 257, 65535])
  np.testing.assert_array_equal(rescaled(pixels, 'float32')[[0, 2]], [0, 1])
  back = rescaled(rescaled(pixels, 'uint16'), 'uint8')
  np.testing.assert_array_equal(back, pixels)


EIGHT, SIXTEEN = ('uint8', 0, 255), ('uint16', 0, 65535)
FLOATS = {'dtype_a': 'float32', 'low_a': -1.0, 'high_a': 5.0}
CT_A = {'dtype_a': 'int16', 'low_a': -1000.0, 'high_a': 2000.0}


@pytest.mark.parametrize(
  'dtype, options, source_values, target_values',
  [
    ('uint8', {}, EIGHT, EIGHT),
    ('uint16', {}, SIXTEEN, SIXTEEN),
    ('uint8', {'dtype_b': 'uint16'}, EIGHT, SIXTEEN),
    ('uint8', {'dtype_a': 'uint16', 'dtype_b': 'uint16'}, EIGHT, EIGHT),
    ('uint16', {'dtype_a': 'uint16'}, SIXTEEN, EIGHT),
    ('float32', FLOATS, ('float32', -1, 5), EIGHT),
    ('uint16', FLOATS, SIXTEEN, SIXTEEN),
    ('int16', CT_A, CT, EIGHT),
    ('float32', CT_A, ('float32', -1000, 2000), EIGHT),
    (
      'uint8',
      {'dtype_b': 'float32', 'low_b': 2.0, 'high_b': 3.0},
      EIGHT,
      ('float32', 2, 3),
    ),
  ],
)
def test_values_for(dtype, options, source_values, target_values):
  pixels = np.zeros((1, 1, 3), dtype)
  got = values_for(pixels, DataConfig(**options), 'ab')
  assert got == (source_values, target_values)


def test_floats_for_integers():
  pixels = np.zeros((1, 1, 3), np.float32)
  with pytest.raises(ImageError, match='config.data.dtype_a') as caught:
    values_for(pixels, DataConfig(), 'ab', name='x.tif')
  assert caught.value.name == 'x.tif'


# Options.


@pytest.mark.parametrize(
  'options, names',
  [
    ({'dtype_b': 'int32'}, ['config.data.dtype_b', 'int16']),
    ({'low_a': 2.0, 'high_a': 1.0}, ['config.data.low_a', 'high_a']),
  ],
)
def test_options_that_are_wrong(options, names):
  with pytest.raises(ConfigError) as caught:
    DataConfig(**options)
  assert all(name in str(caught.value) for name in names)


def test_values_of_a_config():
  assert values_of(DataConfig(), 'a') == EIGHT
  config = DataConfig(dtype_a='uint16', low_a=5, high_a=6, dtype_b='float32')
  assert values_of(config, 'a') == ('uint16', 5, 6)
  with pytest.raises(ConfigError, match=r'config\.data\.low_b'):
    values_of(config, 'b')


def test_drawings_have_8_bits():
  config = DataConfig(num_train=1, num_test=1, dtype_a='uint16')
  with pytest.raises(ConfigError, match=r'config\.data\.dtype_a'):
    resolve_values(config, open_images(config))


# Folders.


def put(path, pixels):
  path.parent.mkdir(parents=True, exist_ok=True)
  write_photo(str(path), pixels)


@pytest.fixture
def folders(tmp_path):
  """16-bit RGB in trainA, floats of five channels in trainB."""
  data = tmp_path / 'data'
  for i in range(3):
    put(data / 'trainA' / f'{i}.tif', noise((20, 22, 3), np.uint16, seed=i))
    put(data / 'trainB' / f'{i}.tif', noise((18, 20, 5), np.float32, seed=i))
  return data


def folder_config(path, **options):
  return DataConfig(
    **{
      **{'name': 'folder', 'path': str(path), 'channels_b': 5},
      **{'size': 16, 'load_size': 18, 'num_workers': 0},
      **options,
    }
  )


def test_values_are_found_and_measured(folders):
  config = folder_config(folders)
  images = open_images(config)
  resolved = resolve_values(config, images)
  floats = [noise((18, 20, 5), np.float32, seed=i) for i in range(3)]
  assert values_of(resolved, 'a') == SIXTEEN
  low, high = float(np.min(floats)), float(np.max(floats))
  assert values_of(resolved, 'b') == ('float32', low, high)
  images = with_values(images, resolved)
  read = images['train_b'].read(1)
  assert read.dtype == np.float32
  expected = (floats[1] - low) / (high - low) * 2 - 1
  np.testing.assert_allclose(read, expected, atol=1e-5)
  assert min(images['train_b'].read(i).min() for i in range(3)) == -1
  # What is resolved stays, and what a run had before is taken over.
  assert resolve_values(resolved, images) == resolved
  assert resolve_values(config, images, saved=resolved) == resolved
  old = resolve_values(config, images, saved=DataConfig())
  assert values_of(old, 'a') == values_of(old, 'b') == EIGHT
  # What is given is not measured.
  config = folder_config(folders, low_b=-5.0, high_b=5.0)
  resolved = resolve_values(config, open_images(config))
  assert values_of(resolved, 'b') == ('float32', -5, 5)


def test_int16_is_measured_as_floats_are(folders):
  for i in range(3):
    pixels = np.linspace(-1000, 2000 - i, 90).reshape(9, 10, 1)
    put(folders / 'trainA' / f'{i}.tif', pixels.astype(np.int16))
  config = folder_config(folders, channels_a=1)
  images = open_images(config)
  resolved = resolve_values(config, images)
  assert values_of(resolved, 'a') == CT
  read = with_values(images, resolved)['train_a'].read(0)
  assert (read.min(), read.max()) == (-1, 1)


@pytest.mark.parametrize(
  'pixels',
  [
    np.ones((18, 20, 5), np.float32),
    np.linspace(-3.4e38, 1, 1800, dtype=np.float32).reshape(18, 20, 5),
    np.full((18, 20, 5), np.nan, np.float32),
  ],
)
def test_floats_without_a_range(pixels, folders):
  for path in (folders / 'trainB').iterdir():
    put(path, pixels)
  config = folder_config(folders)
  with pytest.raises(DataError, match=r'train_b.* config\.data\.low_b'):
    resolve_values(config, open_images(config))


def test_depths_mixed(tmp_path):
  eight = np.array([[[0, 128, 255]]], np.uint8)
  Image.fromarray(eight).save(tmp_path / '0.png')
  put(tmp_path / '1.tif', eight.astype(np.uint16) * 257)
  put(tmp_path / '2.tif', eight.astype(np.float32))
  paths = [str(path) for path in sorted(tmp_path.iterdir())]
  images = images_of_files(paths, channels=3, max_pixels=100)
  config = DataConfig(dtype_a='uint16')
  deep = with_values({'train_a': images}, config)['train_a']
  np.testing.assert_array_equal(deep.read(0), deep.read(1))
  np.testing.assert_array_equal(deep.read(0), to_float(eight))
  with pytest.raises(ImageError, match='dtype_a or dtype_b float32') as caught:
    deep.read(2)
  assert caught.value.name == paths[2]
  # In a domain of 8 bits.
  assert images.read(1).dtype == np.uint8
  np.testing.assert_array_equal(images.read(1), eight)


def test_resizing_keeps_the_type_and_the_range():
  for dtype in (np.uint16, np.int16, np.float32):
    pixels = noise((9, 8, 5), dtype)
    got = resize_to(pixels, 30, 20, DataConfig())
    assert got.dtype == dtype
    assert got.shape == (30, 20, 5)
    assert pixels.min() <= got.min() <= got.max() <= pixels.max()
    half = resize_to(np.full((8, 8, 1), 30_001, dtype), 4, 4, DataConfig())
    np.testing.assert_array_equal(half, 30_001)
  pixels[:3] = np.nan  # of pixels without data
  got = resize_to(pixels, 30, 20, DataConfig())
  assert np.nanmin(pixels) <= got.min() <= got.max() <= np.nanmax(pixels)


# Runs.


@pytest.mark.slow
def test_a_run_on_deep_images_and_its_resume(folders, tmp_path):
  from cyclegan_jax.storage import checkpoint
  from cyclegan_jax.training.train import train

  config = Config().replace(
    batch_size=2,
    steps=2,
    num_devices=1,
    data={
      **{'name': 'folder', 'path': str(folders), 'channels_b': 5},
      **{'size': 8, 'load_size': 10, 'num_workers': 0},
    },
    generator={'filters': 2, 'isize': 4, 'fixed_input_size': False},
    discriminator={'name': 'pixelgan', 'filters': 2},
    log={'num_samples': 2},
    diagnostics={'enabled': False},
  )
  train(config, tmp_path / 'run')
  saved = json.loads((tmp_path / 'run' / 'config.json').read_text())['data']
  floats = [noise((18, 20, 5), np.float32, seed=i) for i in range(3)]
  assert (saved['dtype_a'], saved['low_a'], saved['high_a']) == SIXTEEN
  assert saved['dtype_b'] == 'float32'
  assert saved['low_b'] == float(np.min(floats))
  assert saved['high_b'] == float(np.max(floats))
  # Another image would have another range: the run keeps its own.
  put(folders / 'trainB' / '9.tif', np.full((18, 20, 5), 1e6, np.float32))
  result = train(config.replace(steps=3), tmp_path / 'run')
  assert result.start_step == 2
  assert int(result.state.step) == 3
  assert result.config.data.high_b == saved['high_b']
  config = checkpoint.load(tmp_path / 'run').config
  assert config.data.low_b == saved['low_b']
