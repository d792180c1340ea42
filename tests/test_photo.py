"""Photographs read and written: what is in the file comes back out."""

import io
import struct
import time

import numpy as np
import pytest
from PIL import Image, ImageCms

from cyclegan_jax.config import DataConfig
from cyclegan_jax.errors import DataError
from cyclegan_jax.media.decoding import (
  ImageError,
  decode,
)
from cyclegan_jax.media.image_files import (
  Photo,
  holds,
  read_photo,
  values_for,
  write_photo,
)

imagecodecs = pytest.importorskip('imagecodecs')
tifffile = pytest.importorskip('tifffile')

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()


def noise(shape, dtype, seed=0):
  rng = np.random.default_rng(seed)
  if np.dtype(dtype).kind == 'f':
    return rng.normal(50, 200, shape).astype(dtype)
  return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def read(path, channels=3):
  return read_photo(str(path), channels=channels, max_pixels=10_000)


def write(path, pixels, like=None):
  write_photo(str(path), pixels, like=like)
  assert [each.name for each in path.parent.iterdir()] == [path.name]


def camera(orientation=1):
  """EXIF data as of a camera, with what leads on to more."""
  exif = Image.Exif()
  exif[0x010F] = 'Maker'
  exif[0x0112] = orientation
  exif[0x8769] = {0x9003: '2024:01:02 03:04:05', 0xA002: 9, 0xA003: 6}
  exif[0x8825] = {1: 'N', 2: (52.0, 31.0, 0.5)}
  loaded = Image.Exif()  # Pillow's TIFF writer takes no other
  loaded.load(exif.tobytes())
  return loaded


def assert_camera(exif):
  """Whether EXIF data is as `camera` made it, for upright pixels."""
  found = Image.Exif()
  found.load(exif)
  assert found[0x010F] == 'Maker'
  assert found.get(0x0112, 1) == 1
  assert found.get_ifd(0x8769)[0x9003] == '2024:01:02 03:04:05'
  assert found.get_ifd(0x8825)[1] == 'N'
  assert [float(each) for each in found.get_ifd(0x8825)[2]] == [52, 31, 0.5]


WRITABLE = [
  *(('x.png', np.uint8, channels) for channels in (1, 2, 3, 4)),
  *(('x.png', np.uint16, channels) for channels in (1, 2, 3, 4)),
  *(('x.tif', np.uint8, channels) for channels in (1, 2, 3, 4, 5)),
  *(('x.TIFF', np.uint16, channels) for channels in (1, 2, 3, 4, 5)),
  *(('x.tif', np.float32, channels) for channels in (1, 2, 3, 4, 7)),
  ('x.bmp', np.uint8, 1),
  ('x.bmp', np.uint8, 3),
]


@pytest.mark.parametrize('name, dtype, channels', WRITABLE)
def test_what_is_written_is_read(name, dtype, channels, tmp_path):
  pixels = noise((21, 13, channels), dtype)
  write(tmp_path / name, pixels)
  got = read(tmp_path / name, channels)
  assert got.pixels.dtype == dtype
  np.testing.assert_array_equal(got.pixels, pixels)
  assert got.alpha is None
  assert got.exif is None
  assert got.icc is None
  assert holds(name[1:], np.dtype(dtype).name, channels)
  expected = {'p': 'PNG', 't': 'TIFF', 'b': 'BMP'}
  assert got.format == expected[name[2].lower()]


@pytest.mark.parametrize('name, dtype, channels', WRITABLE)
def test_others_can_read_what_is_written(name, dtype, channels, tmp_path):
  pixels = noise((21, 13, channels), dtype)
  write(tmp_path / name, pixels)
  if name.lower().startswith('x.t'):
    got = tifffile.imread(tmp_path / name)
    np.testing.assert_array_equal(got.reshape(pixels.shape), pixels)
    is_pillows = channels == 1 or (dtype == np.uint8 and channels < 5)
    if not is_pillows:
      return
  with Image.open(tmp_path / name) as image:
    image.load()
    got = np.asarray(image).reshape(21, 13, -1)
  if dtype == np.uint16 and channels > 1:
    return  # cut to 8 bits by Pillow
  np.testing.assert_array_equal(got, pixels)


@pytest.mark.parametrize('name, tolerance', [('x.jpg', 30), ('x.webp', 40)])
def test_lossy_formats(name, tolerance, tmp_path):
  smooth = np.indices((32, 32)).sum(0)[..., None] * np.array([1, 2, 3])
  write(tmp_path / name, smooth.astype(np.uint8))
  got = read(tmp_path / name).pixels
  np.testing.assert_allclose(got.astype(int), smooth, atol=tolerance)
  write(tmp_path / name, smooth[..., :1].astype(np.uint8))
  got = read(tmp_path / name, 1).pixels
  np.testing.assert_allclose(got.astype(int), smooth[..., :1], atol=4)


def test_strips_of_a_large_file(tmp_path):
  pixels = noise((700, 900, 3), np.uint16)
  write(tmp_path / 'x.tif', pixels)
  photo = read_photo(str(tmp_path / 'x.tif'), channels=3, max_pixels=10**6)
  np.testing.assert_array_equal(photo.pixels, pixels)


# What comes beside pixels.


def source(path, orientation=1):
  """An RGBA or RGB file of the format of a path, with all it can hold."""
  exif, pixels = camera(orientation), noise((6, 9, 4), np.uint8)
  if path.suffix == '.jpg':
    pixels = pixels[..., :3]
  options = {} if path.suffix != '.webp' else {'lossless': True}
  image = Image.fromarray(pixels)
  image.save(path, exif=exif, icc_profile=SRGB, **options)
  return pixels


@pytest.mark.parametrize('target', ['x.png', 'x.jpg', 'x.webp', 'x.tif'])
@pytest.mark.parametrize('name', ['s.png', 's.jpg', 's.webp', 's.tif'])
def test_exif_and_profile_go_from_any_format_to_any(name, target, tmp_path):
  source(tmp_path / name)
  photo = read(tmp_path / name)
  assert_camera(photo.exif)
  assert photo.icc == SRGB
  (tmp_path / 'out').mkdir()
  write(tmp_path / 'out' / target, photo.pixels, photo)
  again = read(tmp_path / 'out' / target)
  assert_camera(again.exif)
  assert again.icc == SRGB
  assert again.pixels.shape == photo.pixels.shape


@pytest.mark.parametrize(
  'target, dtype',
  [('x.png', np.uint16), ('x.tif', np.uint16), ('x.tif', np.float32)],
)
def test_exif_and_profile_of_more_than_8_bits(target, dtype, tmp_path):
  like = Photo(noise((6, 9, 3), dtype), None, camera().tobytes(), SRGB, 'PNG')
  write(tmp_path / target, like.pixels, like)
  again = read(tmp_path / target)
  assert_camera(again.exif)
  assert again.icc == SRGB
  np.testing.assert_array_equal(again.pixels, like.pixels)


@pytest.mark.parametrize('endian', ['<', '>'])
def test_exif_of_either_byte_order_in_tiff(endian, tmp_path):
  exif = camera()
  exif.endian = endian
  like = Photo(noise((6, 9, 5), np.uint16), None, exif.tobytes())
  write(tmp_path / 'x.tif', like.pixels, like)
  start = {'<': b'II*\0', '>': b'MM\0*'}[endian]
  assert (tmp_path / 'x.tif').read_bytes().startswith(start)
  again = read(tmp_path / 'x.tif', 5)
  assert_camera(again.exif)
  np.testing.assert_array_equal(again.pixels, like.pixels)
  np.testing.assert_array_equal(
    tifffile.imread(tmp_path / 'x.tif'), like.pixels
  )


@pytest.mark.parametrize('name', ['s.png', 's.jpg', 's.webp', 's.tif'])
@pytest.mark.parametrize('orientation', [3, 6])
def test_pixels_are_turned_and_the_tag_says_so(orientation, name, tmp_path):
  source(tmp_path / name, orientation)
  photo = read(tmp_path / name)
  with (tmp_path / name).open('rb') as file:
    expected = decode(file, name, channels=4, max_pixels=100)
  assert photo.pixels.shape[:2] == expected.shape[:2]
  assert photo.pixels.shape[:2] == ((9, 6) if orientation == 6 else (6, 9))
  assert_camera(photo.exif)
  found = Image.Exif()
  found.load(photo.exif)
  if name != 's.tif':
    has_size = 0xA002 in found.get_ifd(0x8769)
    assert has_size == (orientation == 3)


def test_alpha_passes_through(tmp_path):
  for name in ('s.png', 's.tif', 's.webp'):
    pixels = source(tmp_path / name)
    photo = read(tmp_path / name)
    np.testing.assert_array_equal(photo.alpha, pixels[..., 3])
    target = tmp_path / f'out_{name}'
    write_photo(str(target), 255 - photo.pixels, like=photo)
    again = read(target)
    np.testing.assert_array_equal(again.alpha, pixels[..., 3])
    if name != 's.webp':
      opaque = pixels[..., 3] > 0
      np.testing.assert_array_equal(
        again.pixels[opaque], 255 - photo.pixels[opaque]
      )
  # It is a channel where the network takes it for one.
  assert read(tmp_path / 's.png', 4).alpha is None


def test_alpha_of_another_depth(tmp_path):
  alpha = np.array([[0, 128, 255]], np.uint8)
  like = Photo(np.zeros((1, 3, 3), np.uint8), alpha)
  write_photo(str(tmp_path / 'x.png'), noise((1, 3, 3), np.uint16), like=like)
  np.testing.assert_array_equal(read(tmp_path / 'x.png').alpha, alpha * 257.0)
  write_photo(str(tmp_path / 'x.tif'), noise((1, 3, 3), np.float32), like=like)
  np.testing.assert_allclose(read(tmp_path / 'x.tif').alpha, alpha / 255)


def test_grey_with_alpha(tmp_path):
  alpha = noise((4, 5), np.uint16, seed=1)
  like = Photo(noise((4, 5, 3), np.uint16), alpha)
  grey = noise((4, 5, 1), np.uint16, seed=2)
  for name in ('x.png', 'x.tif'):
    write_photo(str(tmp_path / name), grey, like=like)
    got = read(tmp_path / name, 2).pixels
    np.testing.assert_array_equal(got[..., 0], grey[..., 0])
    np.testing.assert_array_equal(got[..., 1], alpha)


def test_what_is_fully_transparent_is_white(tmp_path):
  pixels = np.full((1, 2, 4), 7, np.uint8)
  pixels[0, 0, 3] = 0
  Image.fromarray(pixels).save(tmp_path / 'x.png')
  np.testing.assert_array_equal(
    read(tmp_path / 'x.png').pixels, [[[255] * 3, [7] * 3]]
  )


def test_without_alpha_on_white(tmp_path):
  like = Photo(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8))
  for name in ('x.jpg', 'x.bmp'):
    write_photo(str(tmp_path / name), like.pixels, like=like)
    assert read(tmp_path / name).pixels.min() > 250


def test_a_profile_of_other_colours_is_dropped(tmp_path):
  like = Photo(noise((4, 5, 3), np.uint8), icc=SRGB)
  write(tmp_path / 'x.png', like.pixels[..., :1], like)
  assert read(tmp_path / 'x.png', 1).icc is None


def test_where_on_earth_a_tiff_is_from(tmp_path):
  pixels = noise((6, 9, 5), np.uint16)
  scale = (0.5, 0.5, 0.0)
  tags = [(33550, 'd', 3, scale, True), (34735, 'H', 4, (1, 1, 0, 0), True)]
  tifffile.imwrite(
    tmp_path / 's.tif', pixels, photometric='minisblack', extratags=tags
  )
  with tifffile.TiffFile(tmp_path / 's.tif') as file:
    assert file.pages[0].samplesperpixel == 1  # six pages, of 9 x 5
  tifffile.imwrite(
    tmp_path / 's.tif',
    pixels,
    photometric='minisblack',
    planarconfig='contig',
    extratags=tags,
  )
  photo = read(tmp_path / 's.tif', 5)
  (tmp_path / 'out').mkdir()
  write(tmp_path / 'out' / 'x.tif', photo.pixels, photo)
  with tifffile.TiffFile(tmp_path / 'out' / 'x.tif') as file:
    assert file.pages[0].tags[33550].value == scale
    assert file.pages[0].tags[34735].value == (1, 1, 0, 0)
    assert 'ImageDescription' not in file.pages[0].tags


@pytest.mark.parametrize('exif', [b'II*\0\xff\xff\xff\xff', b'nonsense', b''])
def test_exif_that_is_broken_is_left_out(exif, tmp_path):
  path = tmp_path / 'x.png'
  image = Image.fromarray(noise((4, 4, 3), np.uint8))
  image.save(path, exif=b'Exif\0\0' + exif)
  assert b'eXIf' in path.read_bytes()
  photo = read(path)
  np.testing.assert_array_equal(photo.pixels, np.asarray(image))
  for name in ('x.tif', 'x.jpg', 'y.png'):
    write_photo(str(tmp_path / name), photo.pixels, like=photo)
    found = Image.Exif()
    found.load(read(tmp_path / name).exif or b'')
    assert dict(found) == {}
  for name in ('x.tif', 'y.png'):
    back = read(tmp_path / name)
    np.testing.assert_array_equal(back.pixels, photo.pixels)


def test_exif_that_a_jpeg_has_no_room_for(tmp_path):
  pixels = np.full((4, 4, 3), 99, np.uint8)
  for size, is_kept in ((65_000, True), (70_000, False)):
    exif = Image.Exif()
    exif[0x010F] = 'x' * size
    like = Photo(pixels, exif=exif.tobytes())
    write(tmp_path / 'x.jpg', like.pixels, like)
    back = read(tmp_path / 'x.jpg')
    assert (back.exif == like.exif) == is_kept
    assert (back.exif is None) != is_kept
    np.testing.assert_array_equal(back.pixels, pixels)


# What can't be.


@pytest.mark.parametrize(
  'name, shape, dtype, reason',
  [
    ('x.png', (4, 4, 3), np.float32, 'PNG has no floats: give it the ending '
     '.tif'),
    ('x.png', (4, 4, 5), np.uint8, 'PNG has no 5 channels: give it the ending '
     '.tif'),
    ('x.jpg', (4, 4, 3), np.uint16, 'JPEG has no uint16: give it the ending '
     '.tif or .png'),
    ('x.webp', (4, 4, 5), np.uint8, 'WebP has no 5 channels: give it the '
     'ending .tif'),
    ('x.bmp', (4, 4, 1), np.float32, 'BMP has no float32: give it the ending '
     '.tif'),
    ('x.gif', (4, 4, 3), np.uint8, 'its ending is none of .png, .tif, .tiff, '
     '.jpg, .jpeg, .webp, .bmp'),
  ],
)  # fmt: skip
def test_what_a_format_has_no_room_for(name, shape, dtype, reason, tmp_path):
  path = tmp_path / name
  with pytest.raises(DataError) as caught:
    write_photo(str(path), np.ones(shape, dtype))
  assert str(caught.value) == f"{path} can't be written: {reason}"
  if name != 'x.gif':
    assert not holds(path.suffix, np.dtype(dtype).name, shape[-1])
  assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
  path = tmp_path / 'x.png'
  path.mkdir()
  with pytest.raises(OSError, match='directory'):
    write_photo(str(path), np.zeros((2, 2, 3), np.uint8))
  assert [each.name for each in tmp_path.iterdir()] == ['x.png']


def test_what_can_not_be_read(tmp_path):
  (tmp_path / 'x.tif').write_bytes(b'II*\0nonsense')
  for path, channels in ((tmp_path / 'x.tif', 3), (tmp_path / 'none.png', 3)):
    with pytest.raises(ImageError):
      read(path, channels)


# What values mean.

EIGHT, SIXTEEN = ('uint8', 0, 255), ('uint16', 0, 65535)
FLOATS = {'dtype_a': 'float32', 'low_a': -1.0, 'high_a': 5.0}


@pytest.mark.parametrize(
  'dtype, options, source_values, target_values',
  [
    ('uint8', {}, EIGHT, EIGHT),
    ('uint16', {}, SIXTEEN, SIXTEEN),
    ('uint8', {'dtype_b': 'uint16'}, EIGHT, SIXTEEN),
    ('uint8', {'dtype_a': 'uint16'}, EIGHT, EIGHT),
    ('uint8', {'dtype_a': 'uint16', 'dtype_b': 'uint16'}, EIGHT, EIGHT),
    ('uint16', {'dtype_a': 'uint16'}, SIXTEEN, EIGHT),
    ('float32', FLOATS, ('float32', -1, 5), EIGHT),
    ('uint16', FLOATS, SIXTEEN, SIXTEEN),
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
  with pytest.raises(ImageError) as caught:
    values_for(
      np.zeros((1, 1, 3), np.float32), DataConfig(), 'ab', name='x.tif'
    )
  assert str(caught.value) == (
    "x.tif can't be read: its values are float32, which has no range that one "
    'could know, and those of its domain uint8: save it as integers, or train '
    'with config.data.dtype_a or dtype_b float32'
  )


@pytest.mark.parametrize('mode', ['L', 'RGB', 'P', 'CMYK', '1', 'RGBA', 'LA'])
@pytest.mark.parametrize('channels', [1, 3])
def test_8_bits_are_read_as_in_training(mode, channels, tmp_path):
  pixels = noise((9, 8, 4), np.uint8)
  pixels[..., 3] = 255
  image = Image.fromarray(pixels).convert('RGB').convert(mode)
  image.save(tmp_path / 'x.tif')
  with (tmp_path / 'x.tif').open('rb') as file:
    expected = decode(file, 'x', channels=channels, max_pixels=1000)
  np.testing.assert_array_equal(
    read(tmp_path / 'x.tif', channels).pixels, expected
  )


def test_an_image_in_memory_is_closed(tmp_path, recwarn):
  buffer = io.BytesIO()
  Image.new('RGB', (4, 4)).save(buffer, 'PNG')
  (tmp_path / 'x.png').write_bytes(buffer.getvalue())
  read(tmp_path / 'x.png')
  assert not recwarn.list


# Files of more than one picture.


def flat_pages(count, shape=(9, 8)):
  return [Image.new('L', shape[::-1], 10 * index) for index in range(count)]


@pytest.mark.parametrize('name', ['x.png', 'x.webp', 'x.tif'])
def test_frames_are_counted(name, tmp_path):
  first, *others = flat_pages(3)
  path = tmp_path / name
  options = {} if name == 'x.tif' else {'duration': 20}
  first.save(path, save_all=True, append_images=others, **options)
  photo = read(path)
  assert photo.num_frames == 3
  assert photo.pixels.max() < 3  # of the first
  first.save(path)
  assert read(path).num_frames == 1


def test_a_picture_before_the_animation_counts(tmp_path):
  first, *others = flat_pages(3)
  first.save(
    tmp_path / 'x.png',
    save_all=True,
    append_images=others,
    duration=20,
    default_image=True,
  )
  assert read(tmp_path / 'x.png').num_frames == 3


@pytest.mark.parametrize('is_big', [False, True])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16'])
def test_thumbnails_and_masks_are_no_pages(dtype, is_big, tmp_path):
  path = tmp_path / 'x.tif'
  page = noise((9, 8), dtype)
  with tifffile.TiffWriter(path, bigtiff=is_big) as writer:
    for kind, pixels in (
      (0, page),
      (1, page[::2, ::2]),
      (1, page),
      (2, page),  # one page of many
      (4, page > 99),  # a mask
      (0, page[:5]),
    ):
      writer.write(
        pixels, subfiletype=kind, photometric='minisblack', metadata=None
      )
  assert read(path, 1).num_frames == 2
  with tifffile.TiffWriter(path) as writer:  # as the older tag says it
    for kind in (1, 2, 3):
      writer.write(
        page,
        photometric='minisblack',
        metadata=None,
        extratags=[(255, 'H', 1, kind, True)],
      )
  assert read(path, 1).num_frames == 2


def test_pages_that_are_channels_are_one_image(tmp_path):
  pages = noise((5, 9, 8), 'uint16')
  tifffile.imwrite(tmp_path / 'x.tif', pages, photometric='minisblack')
  photo = read(tmp_path / 'x.tif', 5)
  assert photo.pixels.shape == (9, 8, 5)
  assert photo.num_frames == 1
  assert read(tmp_path / 'x.tif', 1).num_frames == 5
  # Three grey pages of 8 bits are not red, green and blue.
  tifffile.imwrite(
    tmp_path / 'x.tif', pages[:3].astype(np.uint8), photometric='minisblack'
  )
  assert read(tmp_path / 'x.tif', 3).num_frames == 3


def test_a_circle_of_pages(tmp_path):
  path = tmp_path / 'x.tif'
  tifffile.imwrite(
    path, noise((3, 9, 8), 'uint8'), photometric='minisblack', metadata=None
  )
  with tifffile.TiffFile(path) as tiff:
    offsets = [page.offset for page in tiff.pages]
    num_tags = len(tiff.pages[2].tags)
  data = bytearray(path.read_bytes())
  struct.pack_into('<I', data, offsets[2] + 2 + 12 * num_tags, offsets[1])
  path.write_bytes(data)
  assert read(path, 1).num_frames == 3


def test_a_large_number_of_pages_is_counted_fast(tmp_path):
  path = tmp_path / 'x.tif'
  pages = np.zeros((3000, 8, 8), np.uint8)
  tifffile.imwrite(path, pages, photometric='minisblack')
  start = time.perf_counter()
  assert read(path, 1).num_frames == 3000
  assert time.perf_counter() - start < 5
