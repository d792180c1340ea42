"""Image files read and written: what is in the file comes back out."""

import io
import pathlib
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image, ImageCms

from cyclegan_jax.errors import DataError, ImageError, UserError
from cyclegan_jax.media import decoding
from cyclegan_jax.media.decoding import decode, decode_opaque, decode_stored
from cyclegan_jax.media.image_files import (
  Photo,
  holds,
  read_photo,
  write_photo,
)

imagecodecs = pytest.importorskip('imagecodecs')
tifffile = pytest.importorskip('tifffile')

ROOT = pathlib.Path(__file__).parent.parent
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
  assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def camera(orientation=1):
  """EXIF data as of a camera, with tags that lead to more."""
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
  loaded = Image.Exif()
  loaded.load(exif)
  assert loaded[0x010F] == 'Maker'
  assert loaded.get(0x0112, 1) == 1
  assert loaded.get_ifd(0x8769)[0x9003] == '2024:01:02 03:04:05'
  assert loaded.get_ifd(0x8825)[1] == 'N'
  degrees = [float(part) for part in loaded.get_ifd(0x8825)[2]]
  assert degrees == [52, 31, 0.5]


@pytest.mark.parametrize(
  'name, dtype, channels',
  [
    *(('x.png', np.uint8, channels) for channels in (1, 2, 3, 4)),
    *(('x.png', np.uint16, channels) for channels in (1, 2, 3, 4)),
    *(('x.tif', np.uint8, channels) for channels in (1, 2, 4, 5)),
    *(('x.TIFF', np.uint16, channels) for channels in (2, 3)),
    *(('x.tif', np.float32, channels) for channels in (1, 3, 7)),
    ('x.tif', np.int16, 1),
    *(('x.bmp', np.uint8, channels) for channels in (1, 3)),
  ],
)
def test_what_is_written_is_read(name, dtype, channels, tmp_path):
  pixels = noise((21, 13, channels), dtype)
  write(tmp_path / name, pixels)
  got = read(tmp_path / name, channels)
  assert got.pixels.dtype == dtype
  np.testing.assert_array_equal(got.pixels, pixels)
  assert got.alpha is got.exif is got.icc is None
  assert holds(name[1:], np.dtype(dtype).name, channels)
  expected = {'p': 'PNG', 't': 'TIFF', 'b': 'BMP'}
  assert got.format == expected[name[2].lower()]
  # Others read it, too.
  if got.format == 'TIFF':
    other = tifffile.imread(tmp_path / name)
  elif dtype == np.uint16 and channels > 1:
    other = imagecodecs.png_decode((tmp_path / name).read_bytes())
  else:
    with Image.open(tmp_path / name) as image:
      other = np.asarray(image)
  np.testing.assert_array_equal(other.reshape(pixels.shape), pixels)


def test_lossy_formats(tmp_path):
  smooth = np.indices((32, 32)).sum(0)[..., None] * np.array([1, 2, 3])
  for name, tolerance in (('x.jpg', 30), ('x.webp', 40)):
    for channels, atol in ((3, tolerance), (1, 4)):
      pixels = smooth[..., :channels]
      write_photo(str(tmp_path / name), pixels.astype(np.uint8))
      got = read(tmp_path / name, channels).pixels
      np.testing.assert_allclose(got.astype(int), pixels, atol=atol)


# Colors of 16 bits in PNG files.


def stored(data, channels):
  file = io.BytesIO(data)
  return decode_stored(file, 'x', channels=channels, max_pixels=10_000)


def test_png_of_16_bits_keeps_all_of_them():
  for channels in (2, 3, 4):
    pixels = noise((5, 6, channels), np.uint16)
    got = stored(imagecodecs.png_encode(pixels), channels)
    assert got.pixels.dtype == np.uint16
    np.testing.assert_array_equal(got.pixels, pixels)
    if channels != 3:
      split = stored(imagecodecs.png_encode(pixels), channels - 1)
      np.testing.assert_array_equal(split.pixels, pixels[..., :-1])
      np.testing.assert_array_equal(split.alpha, pixels[..., -1])


def test_gray_of_16_bits():
  pixels = noise((5, 6), np.uint16)
  for kind in ('PNG', 'TIFF'):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    got = stored(buffer.getvalue(), 1).pixels
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got[..., 0], pixels)
    got = stored(buffer.getvalue(), 3).pixels
    np.testing.assert_array_equal(got, np.repeat(pixels[..., None], 3, -1))


def test_alpha_that_is_not_asked_for_is_laid_onto_white():
  pixels = np.array([[[1000, 2000, 3000, 0], [1000, 2000, 3000, 65535]]])
  data = imagecodecs.png_encode(pixels.astype(np.uint16))
  decoded = decode_opaque(io.BytesIO(data), 'x', channels=3, max_pixels=100)
  np.testing.assert_array_equal(
    decoded.pixels, [[[65535] * 3, [1000, 2000, 3000]]]
  )


def test_a_photograph_has_no_five_channels():
  buffer = io.BytesIO()
  Image.new('RGB', (4, 4)).save(buffer, 'PNG')
  with pytest.raises(ImageError, match='3 channels, not the 5'):
    stored(buffer.getvalue(), 5)


def test_a_truncated_png():
  data = imagecodecs.png_encode(noise((9, 9, 3), np.uint16))
  for cut in (0, 30, 60, 200, -13):
    with pytest.raises(ImageError) as caught:
      stored(data[:cut], 3)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.media
def test_no_damage_of_a_png_is_worse_than_an_error():
  pixels = noise((12, 11, 4), np.uint16)
  data = imagecodecs.png_encode(pixels)
  rng = np.random.default_rng(0)
  for _ in range(150):
    damaged = bytearray(data[: rng.integers(0, len(data))])
    if rng.random() < 0.7:
      damaged = bytearray(data)
      for at in rng.integers(0, len(data), 3):
        damaged[at] ^= rng.integers(1, 256)
    with pytest.raises(ImageError):  # it proves all its pixels
      stored(bytes(damaged), 4)


def test_deep_colors_need_imagecodecs(monkeypatch):
  data = imagecodecs.png_encode(noise((5, 6, 3), np.uint16))
  monkeypatch.setattr(decoding, 'has_imagecodecs', lambda: False)
  with pytest.raises(UserError, match=r'cyclegan_jax\[depth\]') as caught:
    stored(data, 3)
  # It ends a run, where an image would be skipped and counted.
  assert not isinstance(caught.value, DataError)


WITHOUT_IMAGECODECS = """
import sys
sys.modules['imagecodecs'] = None
from cyclegan_jax.media.image_files import read_photo
for path in sys.argv[1:]:
  photo = read_photo(path, channels=5 if '5' in path else 1, max_pixels=10000)
  print(photo.pixels.dtype, photo.pixels.sum())
"""


@pytest.mark.process
def test_without_the_extra(tmp_path):
  pixels = noise((5, 6, 5), np.uint16)
  Image.fromarray(pixels[..., 0]).save(tmp_path / 'gray.png')
  Image.fromarray(pixels[..., 0]).save(
    tmp_path / 'gray.tif', compression='tiff_lzw'
  )
  write_photo(str(tmp_path / '5.tif'), pixels)
  names = ['gray.png', 'gray.tif', '5.tif']
  done = subprocess.run(
    [sys.executable, '-c', WITHOUT_IMAGECODECS, *names],
    cwd=tmp_path,
    env={'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  gray, all_of_it = pixels[..., 0].sum(), pixels.sum()
  assert done.stdout.splitlines() == [
    *(f'uint16 {gray}', f'uint16 {gray}', f'uint16 {all_of_it}'),
  ]


# What comes beside pixels.


def source(path, orientation=1):
  """Writes an RGBA or RGB file with all that its format can hold."""
  exif, pixels = camera(orientation), noise((6, 9, 4), np.uint8)
  if path.suffix == '.jpg':
    pixels = pixels[..., :3]
  options = {} if path.suffix != '.webp' else {'lossless': True}
  image = Image.fromarray(pixels)
  image.save(path, exif=exif, icc_profile=SRGB, **options)
  return pixels


@pytest.mark.parametrize(
  'name, target',
  [
    *(('s.png', 'x.tif'), ('s.tif', 'x.jpg'), ('s.jpg', 'x.webp')),
    *(('s.webp', 'x.png'), ('s.tif', 'x.tif'), ('s.jpg', 'x.tif')),
  ],
)
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


def test_exif_and_profile_of_a_deep_png(tmp_path):
  pixels = noise((6, 9, 3), np.uint16)
  like = Photo(pixels, None, camera().tobytes(), SRGB, 'PNG')
  write(tmp_path / 'x.png', pixels, like)
  again = read(tmp_path / 'x.png')
  assert_camera(again.exif)
  assert again.icc == SRGB
  np.testing.assert_array_equal(again.pixels, pixels)


@pytest.mark.parametrize('name', ['s.png', 's.jpg', 's.webp', 's.tif'])
def test_pixels_are_turned_and_the_tag_says_so(name, tmp_path):
  for orientation in (3, 6):
    source(tmp_path / name, orientation)
    photo = read(tmp_path / name)
    with (tmp_path / name).open('rb') as file:
      expected = decode(file, name, channels=4, max_pixels=100)
    assert photo.pixels.shape[:2] == expected.shape[:2]
    assert photo.pixels.shape[:2] == ((9, 6) if orientation == 6 else (6, 9))
    assert_camera(photo.exif)
    loaded = Image.Exif()
    loaded.load(photo.exif)
    if name != 's.tif':
      has_size = 0xA002 in loaded.get_ifd(0x8769)
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


def test_bands_are_not_taken_for_alpha(tmp_path):
  pixels = noise((4, 5, 4), np.uint8)
  like = Photo(pixels, colors=4)  # such as near infrared beside RGB
  write_photo(str(tmp_path / 'x.tif'), pixels, like=like)
  again = read(tmp_path / 'x.tif', 4)
  assert again.colors == 4
  np.testing.assert_array_equal(again.pixels, pixels)
  for ending in ('jpg', 'bmp', 'webp'):
    with pytest.raises(DataError, match=r'4 channels.*\.tif'):
      write_photo(str(tmp_path / f'x.{ending}'), pixels, like=like)


def test_alpha_of_another_depth(tmp_path):
  alpha = np.array([[0, 128, 255]], np.uint8)
  like = Photo(np.zeros((1, 3, 3), np.uint8), alpha)
  write_photo(str(tmp_path / 'x.png'), noise((1, 3, 3), np.uint16), like=like)
  np.testing.assert_array_equal(read(tmp_path / 'x.png').alpha, alpha * 257.0)
  write_photo(str(tmp_path / 'x.tif'), noise((1, 3, 3), np.float32), like=like)
  np.testing.assert_allclose(read(tmp_path / 'x.tif').alpha, alpha / 255)
  gray = noise((1, 3, 1), np.uint8)
  write_photo(str(tmp_path / 'x.tif'), gray, like=like)
  got = read(tmp_path / 'x.tif', 2).pixels
  np.testing.assert_array_equal(got, np.stack([gray[..., 0], alpha], -1))


def test_transparent_pixels_are_white(tmp_path):
  pixels = np.full((1, 2, 4), 7, np.uint8)
  pixels[0, 0, 3] = 0
  Image.fromarray(pixels).save(tmp_path / 'x.png')
  np.testing.assert_array_equal(
    read(tmp_path / 'x.png').pixels, [[[255] * 3, [7] * 3]]
  )
  like = Photo(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8))
  for name in ('x.jpg', 'x.bmp'):  # without alpha
    write_photo(str(tmp_path / name), like.pixels, like=like)
    assert read(tmp_path / name).pixels.min() > 250


def test_a_profile_of_other_colors_is_dropped(tmp_path):
  like = Photo(noise((4, 5, 3), np.uint8), icc=SRGB)
  write(tmp_path / 'x.png', like.pixels[..., :1], like)
  assert read(tmp_path / 'x.png', 1).icc is None


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
    again = read(tmp_path / name)
    loaded = Image.Exif()
    loaded.load(again.exif or b'')
    assert dict(loaded) == {}
    if name != 'x.jpg':
      np.testing.assert_array_equal(again.pixels, photo.pixels)


def test_exif_that_a_jpeg_has_no_room_for(tmp_path):
  pixels = np.full((4, 4, 3), 99, np.uint8)
  for size, fits in ((65_000, True), (70_000, False)):
    exif = Image.Exif()
    exif[0x010F] = 'x' * size
    like = Photo(pixels, exif=exif.tobytes())
    write(tmp_path / 'x.jpg', like.pixels, like)
    back = read(tmp_path / 'x.jpg')
    assert back.exif == (like.exif if fits else None)
    np.testing.assert_array_equal(back.pixels, pixels)


# What cannot be.


@pytest.mark.parametrize(
  'name, channels, dtype, other',
  [
    ('x.png', 3, np.float32, '.tif'),
    ('x.png', 1, np.int16, '.tif'),
    ('x.png', 5, np.uint8, '.tif'),
    ('x.jpg', 3, np.uint16, '.tif or .png'),
    ('x.webp', 5, np.uint8, '.tif'),
    ('x.bmp', 1, np.float32, '.tif'),
    ('x.gif', 3, np.uint8, '.bmp'),
  ],
)
def test_what_a_format_has_no_room_for(name, channels, dtype, other, tmp_path):
  path = tmp_path / name
  with pytest.raises(DataError) as caught:
    write_photo(str(path), np.ones((4, 4, channels), dtype))
  message = str(caught.value)
  assert message.startswith(str(path))
  assert message.endswith(other)
  if name != 'x.gif':
    assert not holds(path.suffix, np.dtype(dtype).name, channels)
  assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
  path = tmp_path / 'x.png'
  path.mkdir()
  with pytest.raises(OSError, match='directory'):
    write_photo(str(path), np.zeros((2, 2, 3), np.uint8))
  assert [entry.name for entry in tmp_path.iterdir()] == ['x.png']


@pytest.mark.parametrize('mode', ['L', 'RGB', 'P', 'CMYK', '1', 'RGBA', 'LA'])
def test_8_bits_are_read_as_in_training(mode, tmp_path):
  pixels = noise((9, 8, 4), np.uint8)
  pixels[..., 3] = 255
  image = Image.fromarray(pixels).convert('RGB').convert(mode)
  image.save(tmp_path / 'x.tif')
  for channels in (1, 3):
    with (tmp_path / 'x.tif').open('rb') as file:
      got = decode(file, 'x', channels=channels, max_pixels=1000)
    expected = np.asarray(image.convert('L' if channels == 1 else 'RGB'))
    np.testing.assert_array_equal(got, expected.reshape(got.shape))
    photo = read(tmp_path / 'x.tif', channels)
    np.testing.assert_array_equal(photo.pixels, got)


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


@pytest.mark.parametrize('dtype, is_big', [('uint8', True), ('uint16', False)])
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
      (0, page[:5]),  # a page of another size
    ):
      writer.write(
        pixels, subfiletype=kind, photometric='minisblack', metadata=None
      )
  assert read(path, 1).num_frames == 3
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


@pytest.mark.parametrize(
  'dtype, nodata, is_marked',
  [
    ('float32', '-9999', True),
    ('float32', 'nan', True),
    ('float32', '', True),  # NaN without a tag
    ('float32', 'inf', True),
    ('int16', '-32768', True),
    ('uint8', '0', True),
    ('uint8', '-9999', False),  # which it has not
    ('uint8', 'nan', False),
    ('uint8', '0.5', False),
  ],
)
def test_pixels_without_data_stay_so(dtype, nodata, is_marked, tmp_path):
  source = np.full((4, 5), 7, np.float32)
  source[1, 2] = float(nodata or 'nan')
  tags = [(42113, 's', 0, nodata, True)] if nodata else []
  tifffile.imwrite(tmp_path / 'in.tif', source, extratags=tags)
  photo = read_photo(str(tmp_path / 'in.tif'), channels=1, max_pixels=99)
  translated = np.full((4, 5, 3), 9, dtype)
  write_photo(str(tmp_path / 'out.tif'), translated, like=photo)
  with tifffile.TiffFile(tmp_path / 'out.tif') as file:
    made = file.asarray()
    assert file.pages[0].tags.valueof(42113, default='') == nodata
  expected = translated.copy()
  if is_marked:
    expected[1, 2] = float(nodata or 'nan')
  np.testing.assert_array_equal(made, expected)
