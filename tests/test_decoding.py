"""Decoding of image files to arrays."""

import concurrent.futures
import importlib.util
import io
import pickle
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, features

from cyclegan_jax.errors import DataError
from cyclegan_jax.media.decoding import (
  ImageError,
  decode,
  decode_stored,
  decoded_shape,
  stored_kind,
)


def noise(*shape):
  return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def encoded(image, kind='PNG', **options):
  file = io.BytesIO()
  if isinstance(image, np.ndarray):
    image = Image.fromarray(image)
  image.save(file, kind, **options)
  return file.getvalue()


def decoded(data, channels=3):
  return decode(io.BytesIO(data), 'x', channels=channels, max_pixels=10_000)


def header_shape(data):
  return decoded_shape(io.BytesIO(data), 'x', max_pixels=10_000)


@pytest.mark.parametrize('kind', ['PNG', 'BMP', 'TIFF'])
def test_lossless_formats_keep_the_pixels(kind):
  pixels = noise(7, 5, 3)
  image = decoded(encoded(pixels, kind))
  np.testing.assert_array_equal(image, pixels)
  assert image.dtype == np.uint8
  assert image.flags.writeable


@pytest.mark.parametrize('kind', ['JPEG', 'WEBP'])
def test_lossy_formats_nearly_keep_the_pixels(kind):
  pixels = np.full((16, 24, 3), (200, 30, 90), np.uint8)
  image = decoded(encoded(pixels, kind, quality=100))
  assert image.shape == (16, 24, 3)
  assert np.abs(image.astype(int) - pixels).max() <= 4


RED = {'RGB': (255, 0, 0), 'RGBA': (255, 0, 0, 255), 'CMYK': (0, 255, 255, 0)}


@pytest.mark.parametrize(
  'mode, color, kind, channels, expected',
  [
    ('RGB', RED['RGB'], 'PNG', 3, [255, 0, 0]),
    ('RGB', RED['RGB'], 'PNG', 1, [76]),  # 0.299 * 255
    ('RGB', RED['RGB'], 'PNG', 4, [255, 0, 0, 255]),
    ('L', 130, 'PNG', 3, [130, 130, 130]),
    ('L', 130, 'PNG', 1, [130]),
    ('1', 1, 'PNG', 3, [255, 255, 255]),
    ('LA', (100, 0), 'PNG', 3, [255, 255, 255]),  # transparent on white
    ('LA', (100, 51), 'PNG', 1, [224]),  # 0.2 * 100 + 0.8 * 255
    ('LA', (100, 51), 'PNG', 2, [100, 51]),
    ('RGBA', (0, 100, 255, 51), 'PNG', 3, [204, 224, 255]),
    ('RGBA', (0, 100, 255, 51), 'PNG', 4, [0, 100, 255, 51]),
    ('CMYK', RED['CMYK'], 'TIFF', 3, [255, 0, 0]),
    ('CMYK', RED['CMYK'], 'TIFF', 4, [255, 0, 0, 255]),
  ],
)
def test_colors_become_the_requested_channels(
  mode, color, kind, channels, expected
):
  image = decoded(encoded(Image.new(mode, (3, 2), color), kind), channels)
  assert image.shape == (2, 3, channels)
  np.testing.assert_array_equal(image[1, 2], expected)


def test_cmyk_jpeg_is_not_inverted():
  data = encoded(Image.new('CMYK', (8, 8), RED['CMYK']), 'JPEG', quality=100)
  assert np.abs(decoded(data)[4, 4].astype(int) - [255, 0, 0]).max() <= 3


def palette_image(**options):
  image = Image.new('P', (3, 1))
  image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
  image.putdata([0, 1, 2])
  return encoded(image, 'PNG', **options)


def test_a_palette_becomes_colors():
  red_green_blue = np.diag([255, 255, 255])
  np.testing.assert_array_equal(decoded(palette_image())[0], red_green_blue)


@pytest.mark.parametrize('transparency', [1, b'\xff\x00\xff'])
def test_transparency_of_a_palette_is_blended_with_white(transparency):
  image = decoded(palette_image(transparency=transparency))
  expected = [[255, 0, 0], [255, 255, 255], [0, 0, 255]]
  np.testing.assert_array_equal(image[0], expected)


def test_transparency_of_a_palette_becomes_alpha():
  image = decoded(palette_image(transparency=1), channels=4)
  np.testing.assert_array_equal(image[0, :, 3], [255, 0, 255])


def test_a_color_key_is_transparent():
  pixels = np.array([[[9, 9, 9], [8, 9, 9]]], np.uint8)
  image = decoded(encoded(pixels, transparency=(9, 9, 9)))
  np.testing.assert_array_equal(image[0], [[255, 255, 255], [8, 9, 9]])


@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_16_bit_gray_is_scaled(kind):
  grey = np.array([[0, 128, 129, 257, 32768, 65406, 65407, 65535]], np.uint16)
  image = decoded(encoded(grey, kind), channels=1)
  # 257 is one step of 8 bits: 128 / 257 rounds down, 129 / 257 up.
  np.testing.assert_array_equal(
    image[0, :, 0], [0, 0, 1, 1, 128, 254, 255, 255]
  )
  np.testing.assert_array_equal(decoded(encoded(grey, kind))[0, 4], [128] * 3)


def test_16_bit_gray_of_the_other_byte_order():
  image = Image.new('I;16B', (2, 1))
  image.putpixel((1, 0), 257 * 77)
  image = decoded(encoded(image, 'TIFF'), channels=1)
  np.testing.assert_array_equal(image[0, :, 0], [0, 77])


@pytest.mark.parametrize('dtype', [np.int32, np.float32])
def test_32_bit_gray_is_refused(dtype):
  with pytest.raises(ImageError, match='^x '):
    decoded(encoded(np.ones((2, 2), dtype), 'TIFF'))


# What each EXIF orientation asks of a viewer.
UPRIGHT = {
  1: lambda x: x,
  2: lambda x: x[:, ::-1],
  3: lambda x: x[::-1, ::-1],
  4: lambda x: x[::-1],
  5: lambda x: x.swapaxes(0, 1),
  6: lambda x: np.rot90(x, -1),
  7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
  8: np.rot90,
}


FORMATS = (
  ('PNG', {}),
  ('JPEG', {'quality': 95}),
  ('WEBP', {'quality': 95}),
  ('TIFF', {'compression': 'tiff_lzw'}),
)


@pytest.mark.parametrize(
  'orientation, kind, options',
  [(number, *FORMATS[number % 4]) for number in UPRIGHT],
)
def test_exif_orientation_is_applied(orientation, kind, options):
  # Even quarters of 16 x 24 survive lossy formats.
  quarters = np.array([[0, 80], [160, 240]], np.uint8)
  pixels = np.repeat(np.repeat(quarters, 16, 0), 24, 1)
  exif = Image.Exif()
  exif[0x0112] = orientation
  data = encoded(pixels, kind, exif=exif, **options)
  image = decoded(data, channels=1)[..., 0]
  expected = UPRIGHT[orientation](pixels)
  assert image.shape == expected.shape == header_shape(data)
  difference = image.astype(int) - expected
  assert np.abs(difference[4::8, 4::8]).max() < 9


@pytest.mark.parametrize(
  'kind, orientation',
  [('PNG', 0), ('JPEG', 9), ('WEBP', 5638), ('TIFF', 9)],
)
def test_an_invalid_orientation_is_ignored(kind, orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  data = encoded(noise(4, 6, 3), kind, exif=exif)
  assert decoded(data).shape == (4, 6, 3)
  assert header_shape(data) == (4, 6)


@pytest.mark.parametrize('exif', [b'Exif\0\0garbage', b'Exif\0\0II*\0\xff\xff'])
def test_broken_exif_is_ignored(exif):
  data = encoded(noise(4, 6, 3), 'JPEG', exif=exif)
  assert decoded(data).shape == (4, 6, 3)
  assert header_shape(data) == (4, 6)


def test_first_frame_of_an_animation():
  frames = [Image.new('RGB', (4, 3), color) for color in ('red', 'blue')]
  data = encoded(frames[0], 'TIFF', save_all=True, append_images=frames[1:])
  np.testing.assert_array_equal(decoded(data)[0, 0], [255, 0, 0])


def png_header(width, height):
  def chunk(kind, data):
    check = struct.pack('>I', zlib.crc32(kind + data))
    return struct.pack('>I', len(data)) + kind + data + check

  header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  return (
    b'\x89PNG\r\n\x1a\n'
    + chunk(b'IHDR', header)
    + chunk(b'IDAT', zlib.compress(b''))
    + chunk(b'IEND', b'')
  )


@pytest.mark.parametrize('function', [decoded, header_shape])
@pytest.mark.parametrize('size', [(101, 100), (30_000, 30_000)])
def test_too_many_pixels_are_not_decoded(function, size):
  with pytest.raises(ImageError, match=r'config\.data\.max_pixels=10000'):
    function(png_header(*size))


@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_the_limit_of_pillow_does_not_matter(kind, monkeypatch):
  # 36 pixels: a warning of Pillow's above 20, an error above 5.
  for limit in (20, 5):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', limit)
    data = encoded(noise(6, 6, 3), kind)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
      images = list(pool.map(decoded, [data] * 16))
    assert images[-1].shape == (6, 6, 3)
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize('function', [decoded, header_shape])
@pytest.mark.parametrize(
  'data',
  [b'', b'not an image', encoded(noise(4, 4), 'TGA'), b'%!PS-Adobe'],
)
def test_files_of_other_formats(function, data):
  with pytest.raises(ImageError, match='^x '):
    function(data)


@pytest.mark.filterwarnings('ignore:Truncated File Read:UserWarning')
@pytest.mark.filterwarnings('ignore:Corrupt EXIF data:UserWarning')
@pytest.mark.fuzz
@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'WEBP', 'BMP', 'TIFF'])
def test_damaged_files_give_pixels_or_an_image_error(kind):
  data = encoded(noise(12, 12, 3), kind)
  random = np.random.default_rng(0)
  reasons = []
  for cut in np.linspace(0, len(data) - 1, 25).astype(int):
    flipped = bytearray(data)
    for at in random.integers(0, len(data), 4):
      flipped[at] ^= 1 << random.integers(8)
    for damaged in (data[:cut], bytes(flipped)):
      try:
        assert decoded(damaged).dtype == np.uint8
      except ImageError as error:
        reasons.append(error.reason)
  assert len(reasons) >= 15
  assert all(len(reason.splitlines()) == 1 for reason in reasons)


def test_a_truncated_file_is_named():
  data = encoded(noise(32, 32, 3), 'JPEG')
  with pytest.raises(ImageError, match='^x .*trunc'):
    decoded(data[: len(data) // 2])


def test_image_errors_can_be_pickled_and_have_one_line():
  error = pickle.loads(pickle.dumps(ImageError('a\nb.png', 'it is empty')))
  assert (error.name, error.reason) == ('a\nb.png', 'it is empty')
  assert str(error).startswith("'a\\nb.png' ")
  assert isinstance(error, DataError)


# Further formats.


@pytest.mark.parametrize('kind', ['PPM', 'GIF', 'AVIF'])
def test_further_formats(kind):
  if kind == 'AVIF' and not features.check('avif'):
    pytest.skip('Pillow was built without AVIF')
  image = Image.new('RGB', (6, 4), (200, 100, 50))
  file = io.BytesIO()
  options = {'save_all': True, 'append_images': [image.rotate(180)]}
  image.save(file, kind, **({} if kind == 'PPM' else options))
  pixels = decode(file, 'x', channels=3, max_pixels=24)
  assert pixels.shape == (4, 6, 3)
  assert np.abs(pixels - [200.0, 100.0, 50.0]).max() < 8
  assert stored_kind(file, 'x', max_pixels=24) == ('uint8', 3)
  with pytest.raises(ImageError, match='max_pixels'):
    decode(file, 'x', channels=3, max_pixels=23)


def test_gray_of_16_bits_in_pgm():
  pixels = np.random.default_rng(0).integers(0, 65536, (3, 5), np.uint16)
  data = b'P5 5 3 65535 ' + pixels.astype('>u2').tobytes()
  stored = decode_stored(io.BytesIO(data), 'x', channels=1, max_pixels=99)
  np.testing.assert_array_equal(stored.pixels[..., 0], pixels)
  assert stored_kind(io.BytesIO(data), 'x', max_pixels=99) == ('uint16', 1)


def test_a_heic_file_names_the_package():
  if importlib.util.find_spec('pillow_heif'):
    pytest.skip('pillow-heif is installed')
  data = b'\0\0\0\x18ftypheic' + bytes(50)
  with pytest.raises(ImageError, match='pillow-heif'):
    decode(io.BytesIO(data), 'x', channels=3, max_pixels=99)


def test_a_tiff_file_that_is_not_read_is_not_called_another_format():
  file = io.BytesIO()
  tifffile.imwrite(file, np.zeros((8, 8, 3), np.uint8), photometric='rgb')
  data = file.getvalue().replace(
    struct.pack('<HHII', 259, 3, 1, 1), struct.pack('<HHII', 259, 3, 1, 99)
  )
  with pytest.raises(ImageError, match='compression 99') as caught:
    decode(io.BytesIO(data), 'x', channels=3, max_pixels=99)
  assert 'not a JPEG' not in caught.value.reason
