"""Images of more than 8 bits, and of more channels than four."""

import io
import json
import pathlib
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.config import Config, DataConfig
from cyclegan_jax.data.file_images import images_of_files
from cyclegan_jax.data.ranges import resolve_values, with_values
from cyclegan_jax.data.resizing import resize_to
from cyclegan_jax.data.sources import open_images
from cyclegan_jax.errors import ConfigError, DataError, UserError, WorkdirError
from cyclegan_jax.images import to_float, to_uint8
from cyclegan_jax.media.decoding import (
  ImageError,
  decode_opaque,
  decode_stored,
  decoded_shape,
  stored_dtype,
)
from cyclegan_jax.media.value_range import (
  Values,
  rescaled,
  values_of,
)
from cyclegan_jax.storage.workdir import (
  check_workdir,
  read_config,
  write_config,
)
from cyclegan_jax.training import preflight

imagecodecs = pytest.importorskip('imagecodecs')
tifffile = pytest.importorskip('tifffile')

ROOT = pathlib.Path(__file__).parent.parent
MAX_PIXELS = 10_000


def noise(shape, dtype, seed=0):
  rng = np.random.default_rng(seed)
  if np.dtype(dtype).kind == 'f':
    return rng.normal(50, 200, shape).astype(dtype)
  info = np.iinfo(dtype)
  return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


def tiff(pixels, **options):
  buffer = io.BytesIO()
  options.setdefault('photometric', 'minisblack')
  tifffile.imwrite(buffer, pixels, metadata=None, **options)
  return buffer.getvalue()


def stored(data, channels, max_pixels=MAX_PIXELS):
  file = io.BytesIO(data)
  return decode_stored(file, 'x', channels=channels, max_pixels=max_pixels)


def refusal(data, channels=3, max_pixels=MAX_PIXELS):
  with pytest.raises(ImageError) as caught:
    stored(data, channels, max_pixels)
  assert '\n' not in str(caught.value)
  return str(caught.value).removeprefix("x can't be read: ")


# What files hold, and what is made of it.


@pytest.mark.parametrize('byteorder', ['<', '>'])
@pytest.mark.parametrize('planar', ['contig', 'separate'])
@pytest.mark.parametrize('compression', [None, 'lzw', 'deflate', 'zstd'])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
def test_five_channels_of_tiff(dtype, compression, planar, byteorder):
  pixels = noise((40, 24, 5), dtype)
  data = tiff(
    pixels if planar == 'contig' else np.moveaxis(pixels, -1, 0),
    planarconfig=planar,
    compression=compression,
    predictor=compression is not None,
    byteorder=byteorder,
    rowsperstrip=16,
  )
  got = stored(data, 5)
  assert got.alpha is None
  assert got.pixels.dtype == dtype
  np.testing.assert_array_equal(got.pixels, pixels)
  file = io.BytesIO(data)
  assert stored_dtype(file, 'x', max_pixels=MAX_PIXELS) == np.dtype(dtype).name
  assert decoded_shape(file, 'x', max_pixels=MAX_PIXELS) == (40, 24)


@pytest.mark.parametrize('options', [{'tile': (16, 32)}, {'bigtiff': True}])
def test_tiles_and_large_offsets(options):
  pixels = noise((40, 50, 6), np.uint16)
  options = {'compression': 'deflate', 'planarconfig': 'contig'} | options
  np.testing.assert_array_equal(
    stored(tiff(pixels, **options), 6).pixels, pixels
  )


def test_pages_are_channels_where_they_are_as_many():
  pages = noise((5, 8, 9), np.float32)
  got = stored(tiff(pages, photometric='minisblack'), 5)
  np.testing.assert_array_equal(got.pixels, np.moveaxis(pages, 0, -1))
  # Of others the first is taken.
  np.testing.assert_array_equal(stored(tiff(pages), 1).pixels[..., 0], pages[0])


@pytest.mark.parametrize(
  'dtype', [np.int8, np.int16, np.uint32, np.int32, np.float16, np.float64]
)
def test_other_numbers_become_floats(dtype):
  pixels = noise((6, 7), dtype)
  got = stored(tiff(pixels), 1).pixels
  assert got.dtype == np.float32
  np.testing.assert_array_equal(got[..., 0], pixels.astype(np.float32))


@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_grey_of_16_bits_by_pillow(kind):
  pixels = noise((5, 6), np.uint16)
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, kind)
  got = stored(buffer.getvalue(), 1).pixels
  assert got.dtype == np.uint16
  np.testing.assert_array_equal(got[..., 0], pixels)
  # As RGB, it is grey.
  got = stored(buffer.getvalue(), 3).pixels
  np.testing.assert_array_equal(got, np.repeat(pixels[..., None], 3, -1))


def test_white_may_be_zero():
  pixels = noise((5, 6), np.uint16)
  got = stored(tiff(65535 - pixels, photometric='miniswhite'), 1).pixels
  np.testing.assert_array_equal(got[..., 0], pixels)


@pytest.mark.parametrize('channels', [2, 3, 4])
def test_png_of_16_bits_keeps_all_of_them(channels):
  pixels = noise((5, 6, channels), np.uint16)
  got = stored(imagecodecs.png_encode(pixels), channels)
  assert got.pixels.dtype == np.uint16
  np.testing.assert_array_equal(got.pixels, pixels)
  if channels != 3:
    split = stored(imagecodecs.png_encode(pixels), channels - 1)
    np.testing.assert_array_equal(split.pixels, pixels[..., :-1])
    np.testing.assert_array_equal(split.alpha, pixels[..., -1])


@pytest.mark.parametrize('dtype', [np.uint16, np.float32])
def test_rgb_becomes_grey_as_pillow_has_it(dtype):
  pixels = noise((5, 6, 3), dtype)
  got = stored(tiff(pixels, photometric='rgb'), 1).pixels[..., 0]
  expected = pixels @ np.array([0.299, 0.587, 0.114])
  np.testing.assert_allclose(got, expected, atol=0.51, rtol=1e-5)


def test_alpha_by_which_colours_are_multiplied_is_taken_out():
  straight = noise((5, 6, 3), np.uint16)
  alpha = noise((5, 6, 1), np.uint16, seed=1) | 32768
  multiplied = np.rint(straight * (alpha / 65535)).astype(np.uint16)
  data = tiff(
    np.concatenate([multiplied, alpha], -1),
    photometric='rgb',
    extrasamples=['assocalpha'],
  )
  got = stored(data, 3)
  np.testing.assert_array_equal(got.alpha, alpha[..., 0])
  np.testing.assert_allclose(got.pixels.astype(int), straight, atol=1)


def test_alpha_that_is_not_asked_for_is_laid_onto_white():
  pixels = np.array([[[1000, 2000, 3000, 0], [1000, 2000, 3000, 65535]]])
  data = imagecodecs.png_encode(pixels.astype(np.uint16))
  got = decode_opaque(io.BytesIO(data), 'x', channels=3, max_pixels=100)
  np.testing.assert_array_equal(got, [[[65535] * 3, [1000, 2000, 3000]]])


@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientation_is_applied(orientation):
  pixels = noise((6, 9, 3), np.uint16)
  exif = Image.Exif()
  exif[0x112] = orientation
  upright = np.asarray(Image.fromarray((pixels >> 8).astype(np.uint8)))
  buffer = io.BytesIO()
  Image.fromarray(upright).save(buffer, 'PNG', exif=exif)
  expected = stored(buffer.getvalue(), 3).pixels
  extratags = [(274, 'H', 1, orientation, True)]
  data = tiff(pixels, photometric='rgb', extratags=extratags)
  got = stored(data, 3).pixels
  np.testing.assert_array_equal(got >> 8, expected)
  shape = decoded_shape(io.BytesIO(data), 'x', max_pixels=MAX_PIXELS)
  assert shape == got.shape[:2]


@pytest.mark.parametrize(
  'shape, channels, message',
  [
    ((4, 4, 5), 3, 'it has 5 channels, not 3'),
    ((4, 4, 3), 5, 'it has 3 channels, not 5'),
    ((4, 4, 5), 4, 'it has 5 channels, not 4'),
    ((4, 4, 2), 3, 'it has 2 channels, not 3'),
    ((4, 4), 7, 'it has 1 channel, not 7'),
  ],
)
def test_channels_that_are_not_there(shape, channels, message):
  data = tiff(noise(shape, np.uint16), planarconfig='contig')
  assert refusal(data, channels) == message


def test_a_photograph_has_no_five_channels():
  buffer = io.BytesIO()
  Image.new('RGB', (4, 4)).save(buffer, 'PNG')
  assert refusal(buffer.getvalue(), 5) == 'it has 3 channels, not 5'


# Files that lie.


def patched(data, tag, value):
  """A little-endian TIFF file, with another value in a tag of its header."""
  data = bytearray(data)
  (offset,) = struct.unpack_from('<I', data, 4)
  (num,) = struct.unpack_from('<H', data, offset)
  for at in range(offset + 2, offset + 2 + 12 * num, 12):
    found, kind, count = struct.unpack_from('<HHI', data, at)
    if found == tag:
      assert count == 1
      struct.pack_into({3: '<H', 4: '<I'}[kind], data, at + 8, value)
      return bytes(data)
  raise AssertionError(f'no tag {tag}')


LIES = {
  'wide': (256, 2**31, '2147483648 x 40 = 85899345920 pixels, more than '
           'config.data.max_pixels=10000'),
  'high': (257, 2**16 - 1, '24 x 65535 = 1572840 pixels, more than '
           'config.data.max_pixels=10000'),
  'taller': (257, 41, 'its pixels lie in 1 parts, which it lacks'),
  'channels': (277, 60_000, 'it has 60000 channels, more than 512 that are '
               'read'),
  'compression': (259, 7, 'its compression 7 is not read at this depth'),
  'custom compression': (259, 65000, 'its compression 65000 is not read at '
                         'this depth'),
  'strips of nothing': (278, 0, 'its strips have no rows'),
  'beyond the end': (273, 2**31, 'it is truncated: some of its pixels lie '
                     'beyond its end'),
  'too few bytes': (279, 100, 'it has 100 bytes of pixels, not 9600'),
  'no pixels': (256, 0, 'it has no pixels'),
  'planes': (284, 7, 'its planar configuration 7 is unknown'),
  'palette': (262, 3, 'its uint16 are indices of a palette'),
}  # fmt: skip


@pytest.mark.parametrize('tag, value, message', LIES.values(), ids=LIES)
def test_a_tag_that_lies(tag, value, message):
  pixels = noise((40, 24, 5), np.uint16)
  data = tiff(pixels, planarconfig='contig')
  if tag == 257 and value == 41:
    data = patched(data, 278, 40)
    message = message.replace('1 parts', '2 parts')
  assert refusal(patched(data, tag, value), 5) == message


def test_a_tile_that_is_far_larger_than_its_image():
  data = tiff(
    noise((40, 24, 5), np.uint16), tile=(16, 16), planarconfig='contig'
  )
  huge = patched(patched(data, 322, 2**15), 323, 2**10)
  assert refusal(huge, 5) == 'its tiles are 32768 x 1024'


def test_a_strip_that_unpacks_to_more_than_it_may():
  pixels = noise((40, 24, 5), np.uint16)
  data = tiff(pixels, planarconfig='contig', compression='deflate')
  bomb = imagecodecs.zlib_encode(bytes(10_000_000))
  place = len(data)
  data = patched(patched(data + bomb, 273, place), 279, len(bomb))
  assert 'INSUFFICIENT_SPACE' in refusal(data, 5)


def test_pages_in_a_circle():
  data = bytearray(tiff(noise((3, 4, 4), np.uint16)))
  (first,) = struct.unpack_from('<I', data, 4)
  (num,) = struct.unpack_from('<H', data, first)
  struct.pack_into('<I', data, first + 2 + 12 * num, first)
  assert refusal(bytes(data), 5) == 'it has 1 channel, not 5'


def test_tags_of_other_programs_are_not_read():
  """Tifffile would follow them: here they don't come so far."""
  pixels = noise((8, 9, 5), np.uint16)
  tags = [
    (34412, 'B', 64, bytes(64), True),  # of Zeiss: offsets of their own
    (330, 'I', 2, (8, 8), True),  # directories inside
    (51023, 's', 0, '<OME><!--' * 100, True),
  ]
  buffer = io.BytesIO()
  tifffile.imwrite(
    buffer,
    pixels,
    photometric='minisblack',
    planarconfig='contig',
    description='ImageJ=1.1\nimages=100000000\nscanimage.SI=1',
    metadata=None,
    extratags=tags,
  )
  got = stored(buffer.getvalue(), 5).pixels
  np.testing.assert_array_equal(got, pixels)


@pytest.mark.parametrize('make', ['tiff', 'lzw', 'png'])
def test_no_cut_and_no_flip_of_a_byte_is_worse_than_an_error(make):
  pixels = noise((12, 11, 4 if make == 'png' else 5), np.uint16)
  if make == 'png':
    data = imagecodecs.png_encode(pixels)
  else:
    compression = None if make == 'tiff' else 'lzw'
    data = tiff(pixels, planarconfig='contig', compression=compression)
  channels = pixels.shape[-1]
  rng = np.random.default_rng(0)
  told, made = [], []
  for _ in range(150):
    damaged = bytearray(data[: rng.integers(0, len(data) + 1)])
    if rng.random() < 0.7:
      damaged = bytearray(data)
      for at in rng.integers(0, len(data), 3):
        damaged[at] = rng.integers(256)
    try:
      made.append(stored(bytes(damaged), channels).pixels)
    except ImageError as error:
      told.append(str(error))
  assert len(told) > 50
  for each in told:
    assert re.fullmatch(r"x can't be read: .+", each)
  # What can be read all the same is an image of those that were asked for.
  for each in made:
    assert each.shape[-1] == channels
    assert each[..., 0].size <= MAX_PIXELS
    assert each.dtype in (np.uint8, np.uint16, np.float32)
  if make == 'png':  # which proves all its pixels
    assert not made
  else:
    assert len(made) > 20


@pytest.mark.parametrize(
  'cut, reason',
  [
    (0, 'the file is empty'),
    (30, 'not a JPEG, PNG, WebP, BMP or TIFF image'),
    (60, 'png_read_data_fn input stream too small'),
    (200, 'png_read_data_fn input stream too small'),
    (-13, 'png_read_data_fn input stream too small'),
  ],
)
def test_a_truncated_png(cut, reason):
  data = imagecodecs.png_encode(noise((9, 9, 3), np.uint16))
  assert stored(data, 3).pixels.shape == (9, 9, 3)
  assert refusal(data[:cut]) == reason


# Values.


@pytest.mark.parametrize('dtype', ['uint8', 'uint16'])
def test_integers_come_back_as_they_were(dtype):
  values = Values(dtype, 0, np.iinfo(dtype).max)
  pixels = np.arange(values.high + 1).astype(dtype)
  seen = values.to_network(pixels)
  assert seen.dtype == np.float32
  assert seen.min() == -1
  assert seen.max() == 1
  np.testing.assert_array_equal(values.from_network(seen), pixels)
  if dtype == 'uint8':
    np.testing.assert_array_equal(seen, to_float(pixels))
    given = np.linspace(-2, 2, 4001, dtype=np.float32)
    got = values.from_network(given)
    np.testing.assert_array_equal(got, to_uint8(given))


def test_a_range_of_ones_own():
  values = Values('uint16', 1000, 3000)
  pixels = np.array([0, 1000, 2000, 3000, 65535], np.uint16)
  np.testing.assert_allclose(values.to_network(pixels), [-1, -1, 0, 1, 1])
  got = values.from_network(np.array([-3, -1, 0, 1, np.nan], np.float32))
  np.testing.assert_array_equal(got, [1000, 1000, 2000, 3000, 1000])


def test_floats_are_clipped_and_nan_is_low():
  values = Values('float32', -1024, 3071)
  given = np.array([-1024, 3071, 1023.5, 1e30, np.inf, -np.inf, np.nan])
  seen = values.to_network(given.astype(np.float32))
  np.testing.assert_allclose(seen, [-1, 1, 0, 1, 1, -1, -1], atol=1e-7)
  np.testing.assert_allclose(
    values.from_network(seen[:3]), [-1024, 3071, 1023.5]
  )


def test_integers_of_another_type_are_taken_by_their_own_range():
  assert Values('uint16', 7, 9).of('uint8') == ('uint8', 0, 255)
  assert Values('float32', -1, 1).of('uint16') == ('uint16', 0, 65535)
  assert Values('uint16', 7, 9).of('uint16') == ('uint16', 7, 9)
  with pytest.raises(ValueError, match='has no range that one could know'):
    Values('uint16', 7, 9).of('float32')


def test_rescaled():
  given = np.array([0, 1, 255], np.uint8)
  np.testing.assert_array_equal(rescaled(given, 'uint16'), [0, 257, 65535])
  np.testing.assert_array_equal(rescaled(given, 'float32')[[0, 2]], [0, 1])
  back = rescaled(rescaled(given, 'uint16'), 'uint8')
  np.testing.assert_array_equal(back, given)


# Options.


@pytest.mark.parametrize(
  'options, message',
  [
    (
      {'dtype_b': 'int16'},
      "config.data.dtype_b='int16' is unknown: choose from uint8, uint16, "
      "float32, or '' for the first training image's",
    ),
    (
      {'low_a': 2.0, 'high_a': 1.0},
      'config.data.low_a=2.0 is not below config.data.high_a=1.0: set both, or '
      'both to 0 for the full range',
    ),
  ],
)
def test_options_that_are_wrong(options, message):
  with pytest.raises(ConfigError) as caught:
    DataConfig(**options)
  assert str(caught.value) == message


def test_values_of_a_config():
  assert values_of(DataConfig(), 'a') == ('uint8', 0, 255)
  config = DataConfig(dtype_a='uint16', low_a=5, high_a=6, dtype_b='float32')
  assert values_of(config, 'a') == ('uint16', 5, 6)
  with pytest.raises(ConfigError) as caught:
    values_of(config, 'b')
  assert str(caught.value) == (
    'config.data.low_b and config.data.high_b are not set: floats have no '
    'range that one could know'
  )


def test_drawings_have_8_bits():
  config = DataConfig(num_train=1, num_test=1, dtype_a='uint16')
  with pytest.raises(ConfigError) as caught:
    resolve_values(config, open_images(config))
  assert str(caught.value) == (
    "config.data.dtype_a='uint16' does not fit the images of "
    "config.data.name='embedded', which have 8 bits"
  )


# Folders.


@pytest.fixture
def folders(tmp_path):
  """16-bit RGB in trainA, floats of five channels in trainB."""
  for name in ('trainA', 'trainB'):
    (tmp_path / 'data' / name).mkdir(parents=True)
  for index in range(3):
    rgb = noise((20, 22, 3), np.uint16, seed=index)
    (tmp_path / 'data' / 'trainA' / f'{index}.tif').write_bytes(
      tiff(rgb, photometric='rgb')
    )
    floats = noise((18, 20, 5), np.float32, seed=index)
    (tmp_path / 'data' / 'trainB' / f'{index}.tif').write_bytes(
      tiff(floats, planarconfig='contig')
    )
  return tmp_path / 'data'


def folder_config(path, **options):
  return DataConfig(
    **{
      **{'name': 'folder', 'path': str(path), 'channels_b': 5},
      **{'size': 16, 'load_size': 18, 'num_workers': 0},
      **options,
    }
  )


def test_values_are_found_and_measured(folders, caplog):
  config = folder_config(folders)
  images = open_images(config)
  resolved = resolve_values(config, images)
  floats = [noise((18, 20, 5), np.float32, seed=i) for i in range(3)]
  assert values_of(resolved, 'a') == ('uint16', 0, 65535)
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
  assert values_of(old, 'a') == values_of(old, 'b') == ('uint8', 0, 255)


def test_a_range_that_is_given_is_not_measured(folders):
  config = folder_config(folders, low_b=-5.0, high_b=5.0)
  resolved = resolve_values(config, open_images(config))
  assert values_of(resolved, 'b') == ('float32', -5, 5)


@pytest.mark.parametrize(
  'pixels, trouble',
  [
    (
      np.ones((18, 20, 5), np.float32),
      'the values of train_b reach from 1 to 1, which is no range',
    ),
    (
      np.linspace(-3.4e38, 1, 1800, dtype=np.float32).reshape(18, 20, 5),
      'the values of train_b reach from -3.4e+38 to 1, which is no range',
    ),
    (
      np.full((18, 20, 5), np.nan, np.float32),
      'none of the 3 images of train_b holds floats',
    ),
  ],
)
def test_floats_without_a_range(pixels, trouble, folders):
  for path in (folders / 'trainB').iterdir():
    path.write_bytes(tiff(pixels, planarconfig='contig'))
  config = folder_config(folders)
  with pytest.raises(DataError) as caught:
    resolve_values(config, open_images(config))
  assert str(caught.value) == (
    f'{trouble}: set config.data.low_b and config.data.high_b'
  )


def test_depths_mixed(tmp_path):
  eight = np.array([[[0, 128, 255]]], np.uint8)
  Image.fromarray(eight).save(tmp_path / '0.png')
  (tmp_path / '1.tif').write_bytes(
    tiff(eight.astype(np.uint16) * 257, photometric='rgb')
  )
  (tmp_path / '2.tif').write_bytes(
    tiff(eight.astype(np.float32), photometric='rgb')
  )
  paths = [str(path) for path in sorted(tmp_path.iterdir())]
  images = images_of_files(paths, channels=3, max_pixels=100)
  config = DataConfig(dtype_a='uint16')
  deep = with_values({'train_a': images}, config)['train_a']
  np.testing.assert_array_equal(deep.read(0), deep.read(1))
  np.testing.assert_array_equal(deep.read(0), to_float(eight))
  with pytest.raises(ImageError) as caught:
    deep.read(2)
  assert str(caught.value) == (
    f"{paths[2]} can't be read: its values are float32, which has no range "
    'that one could know, and those of its domain uint16: save it as '
    'integers, or train with config.data.dtype_a or dtype_b float32'
  )
  assert images.read(0).dtype == np.uint8


def test_many_channels_of_8_bits_stay_bytes(tmp_path):
  pixels = noise((6, 7, 5), np.uint16)
  path = tmp_path / 'x.tif'
  path.write_bytes(tiff(pixels, planarconfig='contig'))
  images = images_of_files([str(path)], channels=5, max_pixels=100)
  got = images.read(0)
  assert got.dtype == np.uint8
  np.testing.assert_array_equal(got, np.rint(pixels / 257))


@pytest.mark.parametrize('dtype', [np.uint16, np.float32])
def test_resizing_keeps_the_type_and_the_range(dtype):
  pixels = noise((9, 8, 5), dtype)
  got = resize_to(pixels, 30, 20, DataConfig())
  assert got.dtype == dtype
  assert got.shape == (30, 20, 5)
  assert (got.min(), got.max()) >= (pixels.min(), 0)
  assert got.max() <= pixels.max()
  half = resize_to(np.full((8, 8, 1), 40_001, dtype), 4, 4, DataConfig())
  np.testing.assert_array_equal(half, 40_001)


# A run.


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
  assert (saved['dtype_a'], saved['low_a'], saved['high_a']) == (
    *('uint16', 0.0, 65535.0),
  )
  assert saved['dtype_b'] == 'float32'
  assert saved['low_b'] == float(np.min(floats))
  assert saved['high_b'] == float(np.max(floats))
  # Another image would have another range: the run keeps its own.
  (folders / 'trainB' / '9.tif').write_bytes(
    tiff(np.full((18, 20, 5), 1e6, np.float32))
  )
  result = train(config.replace(steps=3), tmp_path / 'run')
  assert result.start_step == 2
  assert int(result.state.step) == 3
  assert result.config.data.high_b == saved['high_b']
  config = checkpoint.load(tmp_path / 'run').config
  assert config.data.low_b == saved['low_b']


def test_a_run_from_before_there_was_a_depth(folders, tmp_path):
  """It was of 8 bits, whatever its files hold, and goes on so."""
  config = Config().replace(
    num_devices=1,
    steps_per_epoch=1,
    data={'name': 'folder', 'path': str(folders), 'channels_b': 5},
  )
  images = open_images(config.data)
  new = preflight.resolve(config, images, saved=config)
  write_config(tmp_path, new)
  path = tmp_path / 'config.json'
  saved = json.loads(path.read_text())
  for name in ('dtype', 'low', 'high'):
    for domain in 'ab':
      del saved['data'][f'{name}_{domain}']
  path.write_text(json.dumps(saved))
  old = read_config(tmp_path)
  resolved = preflight.resolve(config, images, saved=old)
  assert values_of(resolved.data, 'a') == ('uint8', 0, 255)
  check_workdir(tmp_path, resolved, checkpoint_bytes=1)
  deep = resolved.replace(data={'dtype_a': 'uint16', 'high_a': 65535.0})
  with pytest.raises(WorkdirError, match="dtype_a: 'uint8' -> 'uint16'"):
    check_workdir(tmp_path, deep, checkpoint_bytes=1)


# Without the packages.

LACKING = """
import sys
sys.modules['{}'] = None
import numpy as np
from cyclegan_jax.data.file_images import images_of_files
from cyclegan_jax.data.folder_source import open_folder
from cyclegan_jax.config import DataConfig
from cyclegan_jax.errors import UserError

def told(function, *args):
  try:
    return function(*args).dtype
  except UserError as error:
    return f'{{type(error).__name__}}: {{error}}'

paths = sys.argv[1:]
images = images_of_files(paths, channels=3, max_pixels=10000)
for index in range(len(paths)):
  print(told(images.stored, index))
print(told(open_folder, DataConfig(name='folder', channels_a=7)))
"""


@pytest.mark.parametrize('package', ['tifffile', 'imagecodecs'])
def test_without_the_extra(package, tmp_path):
  grey = noise((5, 6), np.uint16)
  Image.fromarray(grey).save(tmp_path / 'grey.png')
  Image.fromarray(grey).save(tmp_path / 'grey.tif')
  Image.fromarray(grey.astype(np.float32)).save(tmp_path / 'float.tif')
  rgb = noise((5, 6, 3), np.uint16)
  (tmp_path / 'rgb.png').write_bytes(imagecodecs.png_encode(rgb))
  (tmp_path / 'rgb.tif').write_bytes(tiff(rgb, photometric='rgb'))
  names = ['grey.png', 'grey.tif', 'float.tif', 'rgb.png', 'rgb.tif']
  done = subprocess.run(
    [sys.executable, '-c', LACKING.format(package), *names],
    cwd=tmp_path,
    env={'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  reason = f'import of {package} halted; None in sys.modules'
  message = (
    f'UserError: {{}} needs more packages ({reason}): pip install '
    "'cyclegan_jax[depth]'"
  )
  lines = done.stdout.splitlines()
  assert lines[:3] == ['uint16', 'uint16', 'float32']
  missing = [*names[3:], 'config.data.channels_a=7']
  assert lines[3:] == [message.format(name) for name in missing]


def test_the_error_is_not_one_of_an_image():
  """So that it ends a run, where an image would be skipped and counted."""
  assert not issubclass(UserError, DataError)
