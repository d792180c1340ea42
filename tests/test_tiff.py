"""TIFF files read and written: bands, layouts, depths, windows and lies."""

import io
import logging
import struct

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.errors import ImageError, UserError
from cyclegan_jax.media import tiff_reader
from cyclegan_jax.media.decoding import (
  decode,
  decode_stored,
  decoded_shape,
  stored_kind,
)
from cyclegan_jax.media.image_files import Photo, read_photo, write_photo
from cyclegan_jax.media.metadata import read_metadata, resized_tags
from cyclegan_jax.media.tiff_reader import TiffWindows
from cyclegan_jax.media.tiff_writer import encode_tiff, write_tiff_windows

imagecodecs = pytest.importorskip('imagecodecs')
tifffile = pytest.importorskip('tifffile')

MAX_PIXELS = 10_000
SCALE, KEYS, NODATA = 33550, 34735, 42113
GEOREFERENCE = [
  (SCALE, 'd', 3, (10.0, 20.0, 0.0), True),
  (33922, 'd', 6, (1.0, 2.0, 0.0, 5e5, 4.6e6, 0.0), True),
  (KEYS, 'H', 4, (1, 1, 0, 0), True),
  (34737, 's', 0, 'WGS 84|', True),
  (NODATA, 's', 0, '-9999', True),
]


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


def refusal(data, channels=3):
  with pytest.raises(ImageError) as caught:
    stored(data, channels)
  assert '\n' not in str(caught.value)
  return caught.value.reason


# Reading.


@pytest.mark.parametrize(
  'dtype, channels, options',
  [
    ('uint8', 5, {'byteorder': '>', 'compression': 'lzw', 'predictor': True}),
    ('uint8', 2, {'compression': 'packbits', 'tile': (16, 32)}),
    ('uint16', 5, {'bigtiff': True, 'rowsperstrip': 16}),
    ('uint16', 4, {'byteorder': '>', 'planarconfig': 'separate'}),
    ('int16', 1, {'compression': 'zstd', 'bigtiff': True, 'byteorder': '>'}),
    ('uint16', 1, {'compression': 'lzw', 'photometric': 'miniswhite'}),
    ('float32', 6, {'compression': 'zlib', 'predictor': 3, 'tile': (32, 16)}),
    (
      'float32',
      5,
      {'planarconfig': 'separate', 'compression': 'zlib', 'rowsperstrip': 7},
    ),
  ],
)
def test_layouts(dtype, channels, options):
  pixels = noise((40, 24, channels), dtype)
  options = {'planarconfig': 'contig'} | options
  if channels == 1:
    data = tiff(pixels[..., 0], **options | {'planarconfig': None})
  elif options['planarconfig'] == 'separate':
    data = tiff(np.moveaxis(pixels, -1, 0), **options)
  else:
    data = tiff(pixels, **options)
  if options.get('photometric') == 'miniswhite':
    pixels = 65535 - pixels
  got = stored(data, channels)
  assert got.alpha is None
  assert got.pixels.dtype == dtype
  np.testing.assert_array_equal(got.pixels, pixels)
  file = io.BytesIO(data)
  kind = stored_kind(file, 'x', max_pixels=MAX_PIXELS)
  assert kind[0] == dtype
  assert decoded_shape(file, 'x', max_pixels=MAX_PIXELS) == (40, 24)


BANDS = {
  'red, green, blue, infrared': (
    4,
    {'photometric': 'rgb', 'extrasamples': ['unspecified']},
  ),
  'two, black is zero': (2, {'planarconfig': 'contig'}),
  'four, black is zero': (4, {'planarconfig': 'contig'}),
  'RGB planes': (3, {'photometric': 'rgb', 'planarconfig': 'separate'}),
  'four planes': (4, {'planarconfig': 'separate'}),
  'five of RGB': (
    5,
    {'photometric': 'rgb', 'extrasamples': ['unspecified'] * 2},
  ),
  'two pages': (2, {}),
  'four pages': (4, {}),
}


@pytest.mark.parametrize('channels, options', BANDS.values(), ids=BANDS)
def test_8_bits_give_all_bands_as_16_do(channels, options):
  pixels = noise((12, 9, channels), np.uint8)
  for scale, dtype in ((1, np.uint8), (257, np.uint16)):
    bands = pixels.astype(dtype) * dtype(scale)
    if options.get('planarconfig') == 'separate' or not options:
      bands = np.moveaxis(bands, -1, 0)
    data = tiff(bands, **options)
    got = stored(data, channels)
    assert got.pixels.dtype == dtype
    np.testing.assert_array_equal(got.pixels, pixels * dtype(scale))
    # The same in a domain of 8 bits.
    eight = decode(io.BytesIO(data), 'x', channels=channels, max_pixels=999)
    np.testing.assert_array_equal(eight, pixels)


def test_pages_that_are_not_channels():
  pages = noise((5, 8, 9), np.float32)
  got = stored(tiff(pages), 5)
  np.testing.assert_array_equal(got.pixels, np.moveaxis(pages, 0, -1))
  # Where another number is asked for, the first page is taken.
  np.testing.assert_array_equal(stored(tiff(pages), 1).pixels[..., 0], pages[0])
  assert '1 channel, not the 7' in refusal(tiff(pages), 7)
  # Three gray pages of 8 bits are not red, green and blue.
  pages = noise((3, 8, 9), np.uint8)
  got = stored(tiff(pages), 3).pixels
  np.testing.assert_array_equal(got, np.stack([pages[0]] * 3, -1))


@pytest.mark.parametrize(
  'dtype, becomes',
  [
    *((kind, 'float32') for kind in ('int8', 'uint32', 'int32')),
    *((kind, 'float32') for kind in ('float16', 'float64')),
    ('int16', 'int16'),
  ],
)
def test_numbers_of_other_types(dtype, becomes):
  pixels = noise((6, 7), dtype)
  got = stored(tiff(pixels), 1).pixels
  assert got.dtype == becomes
  np.testing.assert_array_equal(got[..., 0], pixels.astype(becomes))


def test_pixels_without_data():
  pixels = noise((6, 7), np.float32)
  pixels[0, :3] = -9999
  got = stored(tiff(pixels, extratags=GEOREFERENCE), 1).pixels[..., 0]
  assert np.isnan(got[0, :3]).all()
  np.testing.assert_array_equal(got[1:], pixels[1:])
  whole = noise((6, 7), np.int16) // 4
  whole[0, :3] = -9999
  got = stored(tiff(whole, extratags=GEOREFERENCE), 1).pixels[..., 0]
  assert (got[0, :3] == np.delete(whole, [0, 1, 2]).min()).all()
  for text in ('nan', 'none', '1e999', '3.5'):  # no harm in any of them
    tags = [(NODATA, 's', 0, text, True)]
    got = stored(tiff(pixels, extratags=tags), 1).pixels[..., 0]
    np.testing.assert_array_equal(got, pixels)


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'float32'])
@pytest.mark.parametrize('channels', [1, 3])
def test_where_there_are_no_data(dtype, channels):
  pixels = noise((6, 7, channels), np.dtype(dtype)) // 2 + 1
  expected = np.zeros((6, 7), bool)
  expected[0, :3] = True
  pixels[expected] = 0
  pixels[3, 3, 0], expected[3, 3] = 0, channels == 1  # of one channel alone
  data = tiff(
    pixels if channels == 3 else pixels[..., 0],
    photometric='rgb' if channels == 3 else 'minisblack',
    extratags=[(NODATA, 's', 0, '0', True)],
  )
  np.testing.assert_array_equal(stored(data, channels).missing, expected)


def test_rgb_becomes_gray_as_pillow_has_it():
  for dtype in (np.uint16, np.float32):
    pixels = noise((5, 6, 3), dtype)
    got = stored(tiff(pixels, photometric='rgb'), 1).pixels[..., 0]
    expected = pixels @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(got, expected, atol=0.51, rtol=1e-5)


def test_alpha_by_which_colors_are_multiplied_is_taken_out():
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


def test_orientation_is_applied_as_pillow_does():
  pixels = noise((6, 9, 3), np.uint16)
  for orientation in range(1, 9):
    tags = [(274, 'H', 1, orientation, True)]
    data = tiff(pixels, photometric='rgb', extratags=tags)
    got = stored(data, 3).pixels
    eight = tiff(
      (pixels >> 8).astype(np.uint8), photometric='rgb', extratags=tags
    )
    np.testing.assert_array_equal(got >> 8, stored(eight, 3).pixels)
    shape = decoded_shape(io.BytesIO(data), 'x', max_pixels=MAX_PIXELS)
    assert shape == got.shape[:2]
  with Image.open(io.BytesIO(eight)) as image:
    np.testing.assert_array_equal(got >> 8, np.asarray(image.convert('RGB')))


@pytest.mark.parametrize(
  'shape, channels',
  [((4, 4, 5), 3), ((4, 4, 3), 5), ((4, 4, 5), 4), ((4, 4, 2), 3), ((4, 4), 7)],
)
def test_channels_that_are_not_there(shape, channels):
  for dtype in (np.uint8, np.uint16):
    data = tiff(noise(shape, dtype), planarconfig='contig')
    assert f'not the {channels}' in refusal(data, channels)


# Files that lie.


def patched(data, tag, value):
  """A little-endian TIFF file with another value in a tag."""
  data = bytearray(data)
  (offset,) = struct.unpack_from('<I', data, 4)
  (num,) = struct.unpack_from('<H', data, offset)
  for at in range(offset + 2, offset + 2 + 12 * num, 12):
    code, kind, count = struct.unpack_from('<HHI', data, at)
    if code == tag:
      assert count == 1
      struct.pack_into({3: '<H', 4: '<I'}[kind], data, at + 8, value)
      return bytes(data)
  raise AssertionError(f'no tag {tag}')


LIES = {
  'wide': (256, 2**31, 'config.data.max_pixels=10000'),
  'high': (257, 2**16 - 1, 'config.data.max_pixels=10000'),
  'channels': (277, 60_000, 'more than 512'),
  'JPEG': (259, 7, 'compression 7'),
  'unknown compression': (259, 65000, 'compression 65000'),
  'unknown predictor': (317, 9, 'predictor 9'),
  'strips of no rows': (278, 0, 'no rows'),
  'many strips': (278, 1, '40 parts'),
  'beyond the end': (273, 2**31, 'truncated'),
  'too few bytes': (279, 100, '100 bytes of pixels, not 9600'),
  'no pixels': (256, 0, 'no pixels'),
  'planes': (284, 7, 'planar configuration 7'),
  'palette': (262, 3, 'palette'),
}


@pytest.mark.parametrize('tag, value, reason', LIES.values(), ids=LIES)
def test_a_tag_that_lies(tag, value, reason):
  options = {'predictor': True, 'compression': 'zlib'} if tag == 317 else {}
  data = tiff(noise((40, 24, 5), np.uint16), planarconfig='contig', **options)
  assert reason in refusal(patched(data, tag, value), 5)


def test_a_volume():
  data = tiff(noise((2, 40, 24), np.int16), volumetric=True)
  assert refusal(data, 1) == 'it is a volume'


def test_a_tile_that_is_far_larger_than_its_image():
  pixels = noise((40, 24, 5), np.uint16)
  data = tiff(pixels, tile=(16, 16), planarconfig='contig')
  huge = patched(patched(data, 322, 2**15), 323, 2**10)
  assert refusal(huge, 5) == 'its tiles are 32768 x 1024'


@pytest.mark.parametrize('is_installed', [True, False])
def test_a_strip_that_unpacks_to_more_than_it_may(is_installed, monkeypatch):
  """imagecodecs has a limit; for tifffile's own decoder, ours is checked."""
  monkeypatch.setattr(tiff_reader, 'has_imagecodecs', lambda: is_installed)
  pixels = noise((40, 24, 5), np.uint16)
  data = tiff(pixels, planarconfig='contig', compression='zlib')
  np.testing.assert_array_equal(stored(data, 5).pixels, pixels)
  bomb = imagecodecs.zlib_encode(bytes(10_000_000))
  data = patched(patched(data + bomb, 273, len(data)), 279, len(bomb))
  assert refusal(data, 5)


def test_strips_that_overlap():
  """Each would be read again: 4096 times the file."""
  data = tiff(noise((64, 64), np.int16), rowsperstrip=1, compression='zlib')
  data += bytes(100_000)
  with tifffile.TiffFile(io.BytesIO(data)) as file:
    tags = file.pages[0].tags
    starts, counts = tags[273], tags[279]
    data = bytearray(data)
    kind = {3: 'H', 4: 'I'}[counts.dtype]
    struct.pack_into('<64I', data, starts.valueoffset, *[8] * 64)
    struct.pack_into(f'<64{kind}', data, counts.valueoffset, *[60_000] * 64)
  assert refusal(bytes(data), 1) == 'its strips overlap'


def test_pages_in_a_circle():
  data = bytearray(tiff(noise((3, 4, 4), np.uint16)))
  (first,) = struct.unpack_from('<I', data, 4)
  (num,) = struct.unpack_from('<H', data, first)
  struct.pack_into('<I', data, first + 2 + 12 * num, first)
  assert '1 channel, not the 5' in refusal(bytes(data), 5)


@pytest.mark.parametrize(
  'tag, kind, count',
  [
    *((65426, 4, 100), (65426, 7, 100), (33628, 4, 5000)),
    *((270, 2, 2**31), (700, 4, 2**22), (700, 17, 2**20)),
  ],
)
def test_tags_that_would_take_much(tag, kind, count):
  """Those that tifffile interprets, and those that are large or shared."""
  data = tiff(
    noise((8, 9, 5), np.uint16),
    planarconfig='contig',
    extratags=[(tag, 'I', 2, (1, 1), True)],
  ) + bytes(30_000)
  at = data.index(struct.pack('<HHI', tag, 4, 2))
  data = bytearray(data)
  struct.pack_into('<HHI', data, at, tag, kind, count)
  assert 'claim' in refusal(bytes(data), 5)


def test_tags_of_other_programs_do_no_harm(caplog):
  pixels = noise((8, 9, 5), np.uint16)
  data = tiff(
    pixels,
    planarconfig='contig',
    description='ImageJ=1.1\nimages=100000000\nscanimage.SI=1',
    extratags=[
      (330, 'I', 2, (8, 8), True),  # directories inside
      (50839, 'B', 8, b'nonsense', True),  # of ImageJ
      (51023, 's', 0, '<OME><!--' * 100, True),
      (NODATA, 's', 0, '-9999', True),
    ],
  )
  caplog.clear()
  np.testing.assert_array_equal(stored(data, 5).pixels, pixels)
  # tifffile's warnings stay inside: others get theirs.
  assert not caplog.records
  logging.getLogger('tifffile').warning('heard')
  assert len(caplog.records) == 1


@pytest.mark.media
@pytest.mark.parametrize('compression', [None, 'lzw', 'zlib'])
def test_no_cut_and_no_flip_of_a_byte_is_worse_than_an_error(compression):
  pixels = noise((12, 11, 5), np.uint16)
  data = tiff(pixels, planarconfig='contig', compression=compression)
  rng = np.random.default_rng(0)
  messages, decoded = [], []
  for _ in range(300):
    damaged = bytearray(data[: rng.integers(0, len(data) + 1)])
    if rng.random() < 0.7:
      damaged = bytearray(data)
      for at in rng.integers(0, min(len(data), 600), 3):
        damaged[at] = rng.integers(256)
    try:
      decoded.append(stored(bytes(damaged), 5).pixels)
    except ImageError as error:
      messages.append(str(error))
  assert len(messages) > 100
  assert all(len(message.splitlines()) == 1 for message in messages)
  for image in decoded:
    assert image.shape[-1] == 5
    assert image[..., 0].size <= MAX_PIXELS


def test_compressions_that_need_imagecodecs(monkeypatch, tmp_path):
  monkeypatch.setattr(tiff_reader, 'has_imagecodecs', lambda: False)
  pixels = noise((8, 9, 5), np.uint16)
  for compression in ('lzw', 'zstd'):
    data = tiff(pixels, planarconfig='contig', compression=compression)
    with pytest.raises(UserError, match=r'cyclegan_jax\[depth\]') as caught:
      stored(data, 5)
    assert not isinstance(caught.value, ImageError)  # it ends a run
  # Pillow has all compressions.
  gray = tiff(pixels[..., 0], compression='lzw')
  np.testing.assert_array_equal(stored(gray, 1).pixels, pixels[..., :1])
  like = Photo(pixels)
  write_photo(str(tmp_path / 'x.tif'), pixels, like=like)
  photo = read_photo(str(tmp_path / 'x.tif'), channels=5, max_pixels=999)
  np.testing.assert_array_equal(photo.pixels, pixels)


# Writing.


EXIF = Image.Exif()
EXIF[271] = 'a camera'
EXIF[282], EXIF[283], EXIF[296] = 300.0, 300.0, 3
EXIF.get_ifd(0x8769)[0x9003] = '2020:01:01 00:00:00'
EXIF.get_ifd(0x8825)[1] = 'N'


@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize(
  'dtype, channels', [('uint8', 1), ('int16', 1), ('uint16', 5), ('uint8', 3)]
)
def test_exif_and_georeference(dtype, channels, order):
  pixels = noise((20, 9, channels), dtype)
  EXIF.endian = order
  source = tiff(pixels[..., 0], extratags=GEOREFERENCE, bigtiff=True)
  metadata = read_metadata(io.BytesIO(source), 'x', max_pixels=999)
  assert metadata.exif is None
  data = encode_tiff(
    pixels, exif=EXIF.tobytes(), icc=b'profile', tags=metadata.tags
  )
  assert data.startswith({'<': b'II*\0', '>': b'MM\0*'}[order])
  with tifffile.TiffFile(io.BytesIO(data)) as file:
    assert len(file.pages) == 1
    tags = file.pages[0].tags
    got = file.asarray().reshape(pixels.shape)
    assert tags[34665].value['DateTimeOriginal'] == '2020:01:01 00:00:00'
    assert tags[34853].value['GPSLatitudeRef'] == 'N'
    assert tags[271].value == 'a camera'
    assert (tags[282].value, tags[296].value) == ((300, 1), 3)
    assert tags[SCALE].value == (10, 20, 0)
    assert tags[KEYS].value == (1, 1, 0, 0)
    assert tags[34737].value == 'WGS 84|'
    assert tags[NODATA].value == '-9999'
    assert tags[34675].value == b'profile'
  np.testing.assert_array_equal(got, pixels)
  if channels < 5:
    with Image.open(io.BytesIO(data)) as image:
      inner = image.getexif().get_ifd(0x8769)
      assert inner[0x9003] == '2020:01:01 00:00:00'
  again = read_metadata(io.BytesIO(data), 'x', max_pixels=999)
  assert again.tags == metadata.tags


def test_a_georeference_of_another_size():
  source = tiff(noise((4, 4), np.uint8), extratags=GEOREFERENCE)
  metadata = read_metadata(io.BytesIO(source), 'x', max_pixels=999)
  values = {tag[0]: tag[3] for tag in resized_tags(metadata.tags, 0.5, 2)}
  assert values[SCALE] == (20, 10, 0)
  assert values[33922] == (0.5, 4, 0, 5e5, 4.6e6, 0)
  assert values[KEYS] == (1, 1, 0, 0)
  # x = 10 column + 3 row + 500, y = 2 column - 10 row + 900.
  matrix = (10.0, 3.0, 0.0, 500.0, 2.0, -10.0, 0.0, 900.0, *[0.0] * 7, 1.0)
  ((*_, resized, _),) = resized_tags(((34264, 12, 16, matrix, True),), 0.5, 2)
  assert resized[:8] == (20, 1.5, 0, 500, 4, -5, 0, 900)


# By windows.


def put(path, image, **options):
  channels = image.shape[-1]
  path.write_bytes(
    tiff(
      image[..., 0] if channels == 1 else image,
      photometric='rgb' if channels == 3 else 'minisblack',
      planarconfig=None if channels == 1 else 'contig',
      **options,
    )
  )
  return path


def opened(path, channels, max_pixels=10**7):
  return TiffWindows(
    path.open('rb'), str(path), channels=channels, max_pixels=max_pixels
  )


@pytest.mark.parametrize(
  'dtype, channels, options',
  [
    ('uint8', 1, {}),
    ('uint16', 3, {'byteorder': '>', 'rowsperstrip': 7}),
    ('int16', 1, {'rowsperstrip': 7, 'bigtiff': True}),
    ('float32', 5, {'byteorder': '>'}),
  ],
)
def test_windows_of_a_file(tmp_path, dtype, channels, options):
  image = noise((50, 40, channels), dtype)
  path = put(tmp_path / 'in.tif', image, **options)
  with opened(path, channels) as reader:
    assert reader.shape == image.shape
    assert reader.dtype == dtype
    window = reader.read(3, 29, 5, 33)
  np.testing.assert_array_equal(window, image[3:29, 5:33])


@pytest.mark.parametrize(
  'dtype, channels, exif',
  [
    ('uint8', 3, None),
    ('uint16', 1, EXIF.tobytes()),
    ('int16', 1, None),
    ('float32', 5, EXIF.tobytes()),
  ],
)
def test_a_file_by_windows(tmp_path, dtype, channels, exif):
  image = noise((50, 40, channels), dtype)
  path = tmp_path / 'out.tif'
  with write_tiff_windows(
    path, image.shape, dtype, exif=exif, icc=b'icc'
  ) as write:
    for y in (32, 0, 16, 48):
      for x in (0, 32):
        write(y, x, image[y : y + 16, x : x + 32])
    assert not path.exists()
  assert [each.name for each in tmp_path.iterdir()] == ['out.tif']
  with tifffile.TiffFile(path) as file:
    tags = file.pages[0].tags
    np.testing.assert_array_equal(file.asarray().reshape(image.shape), image)
    assert tags['InterColorProfile'].value == b'icc'
    assert ('Make' in tags) == ('ExifTag' in tags) == (exif is not None)
    if exif:
      assert tags['ExifTag'].value['DateTimeOriginal'] == '2020:01:01 00:00:00'
  with opened(path, channels) as reader:
    assert reader.is_by_rows
    np.testing.assert_array_equal(reader.read(0, 50, 0, 40), image)


def test_a_file_of_more_than_four_gigabytes(tmp_path):
  source = tiff(noise((4, 4), np.uint8), extratags=GEOREFERENCE)
  metadata = read_metadata(io.BytesIO(source), 'x', max_pixels=999)
  path = tmp_path / 'out.tif'
  shape = (50_000, 29_000, 3)
  with write_tiff_windows(
    path, shape, 'uint8', exif=EXIF.tobytes(), tags=metadata.tags
  ) as write:
    write(49_999, 28_998, np.array([[[1, 2, 3], [4, 5, 6]]]))
  with opened(path, 3, max_pixels=10**10) as reader:
    assert reader.shape == shape
    window = reader.read(49_998, 50_000, 28_998, 29_000)
  assert window.tolist() == [[[0] * 3, [0] * 3], [[1, 2, 3], [4, 5, 6]]]
  with path.open('rb') as file:
    found = read_metadata(file, 'x', max_pixels=10**10)
  assert found.tags == metadata.tags


def test_nothing_is_left_of_what_is_not_finished(tmp_path):
  with (
    pytest.raises(KeyboardInterrupt),
    write_tiff_windows(tmp_path / 'out.tif', (9, 9, 3), 'uint8'),
  ):
    raise KeyboardInterrupt
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  'dtype, channels, options',
  [
    ('uint8', 3, {'compression': 'zlib', 'predictor': True, 'rowsperstrip': 7}),
    ('uint16', 5, {'compression': 'lzw', 'tile': (16, 32), 'byteorder': '>'}),
    ('int16', 1, {'compression': 'zstd', 'bigtiff': True, 'tile': (16, 32)}),
    ('uint8', 1, {'tile': (32, 16)}),
  ],
)
def test_a_file_in_segments(tmp_path, dtype, channels, options):
  image = noise((50, 41, channels), dtype)
  path = put(tmp_path / 'in.tif', image, **options)
  found = np.zeros_like(image)
  with opened(path, channels) as reader:
    assert not reader.is_by_rows
    for y, x, segment in reader.read_segments():
      found[y : y + segment.shape[0], x : x + segment.shape[1]] = segment
  np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize(
  'shape, options',
  [
    ((3, 32, 32), {'planarconfig': 'separate', 'photometric': 'rgb'}),
    ((32, 32), {'photometric': 'miniswhite'}),
    ((32, 32), {'extratags': [(274, 3, 1, 6, True)]}),  # lies on its side
  ],
)
def test_a_file_that_is_converted_is_read_whole(tmp_path, shape, options):
  (tmp_path / 'in.tif').write_bytes(tiff(noise(shape, np.uint8), **options))
  with pytest.raises(ValueError, match='converted'):
    opened(tmp_path / 'in.tif', 3 if len(shape) == 3 else 1)


def test_a_file_that_is_damaged_or_cut_off(tmp_path):
  options = {'compression': 'zlib', 'rowsperstrip': 7}
  path = put(tmp_path / 'in.tif', noise((50, 40, 3), 'uint8'), **options)
  data = bytearray(path.read_bytes())
  middle = len(data) // 2
  data[middle : middle + 60] = bytes(60)
  path.write_bytes(bytes(data))
  with opened(path, 3) as reader, pytest.raises(ImageError, match='in.tif'):
    list(reader.read_segments())
  path = put(tmp_path / 'cut.tif', noise((50, 40, 1), 'uint8'))
  with opened(path, 1) as reader:
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ImageError, match='cut off'):
      reader.read(0, 50, 0, 40)
