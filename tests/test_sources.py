import concurrent.futures
import io
import logging
import os
import pickle
import re
import struct
import tempfile
import zlib

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.config import DataConfig
from cyclegan_jax.data.file_images import images_of_files
from cyclegan_jax.data.sources import ImageError, open_images
from cyclegan_jax.data.synthetic import drawings
from cyclegan_jax.errors import ConfigError, DataError
from cyclegan_jax.media.decoding import (
  decode_bytes,
  decoded_shape,
)
from cyclegan_jax.media.listing import (
  list_images,
  natural,
)

SPLITS = ('train_a', 'train_b', 'test_a', 'test_b')


def noise(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image, kind='PNG', **options):
  file = io.BytesIO()
  if isinstance(image, np.ndarray):
    image = Image.fromarray(image)
  image.save(file, kind, **options)
  return file.getvalue()


def decoded(data, channels=3, max_pixels=10_000):
  return decode_bytes(data, 'x', channels=channels, max_pixels=max_pixels)


def header_shape(data):
  return decoded_shape(io.BytesIO(data), 'x', max_pixels=10_000)


def put(path, data=None):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(encoded(noise(5, 4, 3)) if data is None else data)
  return path


@pytest.fixture
def folders(tmp_path):
  """trainA 3, trainB 2, testA 1, testB 2 images of distinct pixels."""
  counts = {'trainA': 3, 'trainB': 2, 'testA': 1, 'testB': 2}
  for number, (name, count) in enumerate(counts.items()):
    for i in range(count):
      pixels = noise(6, 5, 3, seed=10 * number + i)
      put(tmp_path / name / f'{i}.png', encoded(pixels))
  return tmp_path


# Decoding.


@pytest.mark.parametrize('kind', ['PNG', 'BMP', 'TIFF'])
def test_lossless_formats_give_the_pixels(kind):
  pixels = noise(7, 5, 3)
  image = decoded(encoded(pixels, kind))
  np.testing.assert_array_equal(image, pixels)
  assert image.dtype == np.uint8
  assert image.flags.writeable


@pytest.mark.parametrize('kind', ['JPEG', 'WEBP'])
def test_lossy_formats_give_nearly_the_pixels(kind):
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
    ('RGB', RED['RGB'], 'PNG', 2, [76, 255]),
    ('RGB', RED['RGB'], 'PNG', 4, [255, 0, 0, 255]),
    ('L', 130, 'PNG', 3, [130, 130, 130]),
    ('L', 130, 'PNG', 1, [130]),
    ('L', 130, 'PNG', 2, [130, 255]),
    ('1', 1, 'PNG', 3, [255, 255, 255]),
    ('1', 1, 'PNG', 1, [255]),
    ('LA', (100, 0), 'PNG', 3, [255, 255, 255]),  # clear: the white below
    ('LA', (100, 51), 'PNG', 1, [224]),  # 0.2 * 100 + 0.8 * 255
    ('LA', (100, 51), 'PNG', 2, [100, 51]),
    ('LA', (100, 51), 'PNG', 4, [100, 100, 100, 51]),
    ('RGBA', (0, 100, 255, 51), 'PNG', 3, [204, 224, 255]),
    ('RGBA', (0, 100, 255, 51), 'PNG', 4, [0, 100, 255, 51]),
    ('RGBA', (0, 0, 0, 0), 'PNG', 1, [255]),
    ('CMYK', RED['CMYK'], 'TIFF', 3, [255, 0, 0]),
    ('CMYK', RED['CMYK'], 'TIFF', 4, [255, 0, 0, 255]),
    ('CMYK', RED['CMYK'], 'TIFF', 1, [76]),
  ],
)
def test_colours_become_the_channels_asked_for(
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


def test_palette_becomes_colours():
  red_green_blue = np.diag([255, 255, 255])
  np.testing.assert_array_equal(decoded(palette_image())[0], red_green_blue)


@pytest.mark.parametrize('transparency', [1, b'\xff\x00\xff'])
def test_palette_with_transparency_is_laid_onto_white(transparency):
  image = decoded(palette_image(transparency=transparency))
  expected = [[255, 0, 0], [255, 255, 255], [0, 0, 255]]
  np.testing.assert_array_equal(image[0], expected)


def test_palette_with_transparency_keeps_it_as_alpha():
  image = decoded(palette_image(transparency=1), channels=4)
  np.testing.assert_array_equal(image[0, :, 3], [255, 0, 255])


def test_colour_key_is_transparent():
  pixels = np.array([[[9, 9, 9], [8, 9, 9]]], np.uint8)
  image = decoded(encoded(pixels, transparency=(9, 9, 9)))
  np.testing.assert_array_equal(image[0], [[255, 255, 255], [8, 9, 9]])


@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_16_bit_grey_is_scaled(kind):
  grey = np.array([[0, 128, 129, 257, 32768, 65406, 65407, 65535]], np.uint16)
  image = decoded(encoded(grey, kind), channels=1)
  # 257 is one step of 8 bits: 128 / 257 rounds down, 129 / 257 up.
  np.testing.assert_array_equal(
    image[0, :, 0], [0, 0, 1, 1, 128, 254, 255, 255]
  )
  np.testing.assert_array_equal(decoded(encoded(grey, kind))[0, 4], [128] * 3)


def test_16_bit_grey_of_the_other_byte_order_is_scaled():
  image = Image.new('I;16B', (2, 1))
  image.putpixel((1, 0), 257 * 77)
  image = decoded(encoded(image, 'TIFF'), channels=1)
  np.testing.assert_array_equal(image[0, :, 0], [0, 77])


@pytest.mark.parametrize('dtype', [np.int32, np.float32])
def test_32_bit_grey_is_refused(dtype):
  with pytest.raises(ImageError) as caught:
    decoded(encoded(np.ones((2, 2), dtype), 'TIFF'))
  assert str(caught.value) == (
    "x can't be read: 32-bit grey has no known range: save it with 8 or 16 "
    'bits a channel'
  )


# What each EXIF orientation asks of a viewer, by numpy.
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


@pytest.mark.parametrize('orientation', UPRIGHT)
@pytest.mark.parametrize(
  'kind, options',
  [
    ('PNG', {}),
    ('JPEG', {'quality': 95}),
    ('WEBP', {'quality': 95}),
    ('TIFF', {}),
    ('TIFF', {'compression': 'tiff_lzw'}),  # read by libtiff
  ],
)
def test_exif_orientation_is_applied(kind, options, orientation):
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


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'WEBP', 'TIFF'])
@pytest.mark.parametrize('orientation', [0, 9, 5638])
def test_an_orientation_that_does_not_exist(kind, orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  data = encoded(noise(4, 6, 3), kind, exif=exif)
  assert decoded(data).shape == (4, 6, 3)
  assert header_shape(data) == (4, 6)


@pytest.mark.parametrize('exif', [b'Exif\0\0garbage', b'Exif\0\0II*\0\xff\xff'])
def test_broken_exif_leaves_the_pixels(exif):
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
@pytest.mark.parametrize(
  'size, count',
  [((101, 100), 10_100), ((30_000, 30_000), 900_000_000)],
  ids=['small', 'bomb'],
)
def test_too_many_pixels_are_not_decoded(function, size, count):
  with pytest.raises(ImageError) as caught:
    function(png_header(*size))
  assert caught.value.reason == (
    f'{size[0]} x {size[1]} = {count} pixels, more than '
    'config.data.max_pixels=10000'
  )


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'WEBP', 'BMP', 'TIFF'])
def test_the_limit_of_pillow_does_not_matter(kind, monkeypatch):
  # 36 pixels: a warning of Pillow's above 20, an error above 5.
  for limit in (20, 5):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', limit)
    data = encoded(noise(6, 6, 3), kind)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
      images = list(pool.map(decoded, [data] * 16))
    assert images[-1].shape == (6, 6, 3)
    assert limit == Image.MAX_IMAGE_PIXELS


DAMAGED = {
  'empty': (b'', 'the file is empty'),
  'text': (b'not an image', 'not a JPEG, PNG, WebP, BMP or TIFF image'),
  'gif': (
    encoded(noise(4, 4), 'GIF'),
    'not a JPEG, PNG, WebP, BMP or TIFF image',
  ),
  'postscript': (b'%!PS-Adobe', 'not a JPEG, PNG, WebP, BMP or TIFF image'),
}


@pytest.mark.parametrize('function', [decoded, header_shape])
@pytest.mark.parametrize('data, reason', DAMAGED.values(), ids=DAMAGED)
def test_reason_of_what_is_no_image(function, data, reason):
  with pytest.raises(ImageError) as caught:
    function(data)
  assert caught.value.reason == reason


@pytest.mark.filterwarnings('ignore:Truncated File Read:UserWarning')
@pytest.mark.filterwarnings('ignore:Corrupt EXIF data:UserWarning')
@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'WEBP', 'BMP', 'TIFF'])
def test_damage_anywhere_is_an_image_error_or_pixels(kind):
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


def test_truncated_file_is_named():
  data = encoded(noise(32, 32, 3), 'JPEG')
  with pytest.raises(
    ImageError, match=r"^x can't be read: image file is trunc"
  ):
    decoded(data[: len(data) // 2])


def test_image_error_survives_pickling_and_stays_on_one_line():
  error = pickle.loads(pickle.dumps(ImageError('a\nb.png', 'it is empty')))
  assert (error.name, error.reason) == ('a\nb.png', 'it is empty')
  assert str(error) == "'a\\nb.png' can't be read: it is empty"
  assert isinstance(error, DataError)


# Folders.


def test_folder_gives_its_pixels_by_index(folders):
  images = open_images(DataConfig(name='folder', path=str(folders)))
  assert tuple(images) == SPLITS
  assert [len(images[split]) for split in SPLITS] == [3, 2, 1, 2]
  second = images['train_b'].read(1)
  np.testing.assert_array_equal(second, noise(6, 5, 3, seed=11))
  assert images['train_b'].shape_of(1) == (6, 5)
  assert images['test_a'].names == (str(folders / 'testA' / '0.png'),)


def test_channels_are_by_domain(folders):
  config = DataConfig(name='folder', path=str(folders), channels_b=1)
  images = open_images(config)
  assert images['train_a'].read(0).shape == (6, 5, 3)
  assert images['test_b'].read(0).shape == (6, 5, 1)


def test_train_images_stand_in_for_missing_test_images(folders, caplog):
  os.rename(folders / 'testA', folders / 'elsewhere')
  with caplog.at_level(logging.WARNING, 'cyclegan_jax'):
    images = open_images(DataConfig(name='folder', path=str(folders)))
  assert images['test_a'] is images['train_a']
  assert len(images['test_b']) == 2
  assert len(caplog.records) == 1
  assert 'config.data.test_a' in caplog.text


def test_folders_of_any_name(folders):
  config = DataConfig(
    name='folder',
    train_a=str(folders / 'trainB'),
    train_b=str(folders / 'trainA'),
    test_a=str(folders / 'testB'),
    test_b=str(folders / 'testA'),
  )
  images = open_images(config)
  assert [len(images[split]) for split in SPLITS] == [2, 3, 2, 1]


def test_a_named_folder_takes_the_place_of_the_one_in_path(folders):
  config = DataConfig(
    name='folder', path=str(folders), train_a=str(folders / 'testB')
  )
  images = open_images(config)
  assert [len(images[split]) for split in SPLITS] == [2, 2, 1, 2]


def test_tilde_is_the_home(folders, monkeypatch):
  monkeypatch.setenv('HOME', str(folders.parent))
  config = DataConfig(name='folder', path=f'~/{folders.name}')
  assert len(open_images(config)['train_a']) == 3


def test_order_is_natural_and_by_path(tmp_path):
  names = ['img10.png', 'img2.PNG', 'b/1.jpeg', 'b/c/01.tif', 'a/9.JPG']
  names += ['img2.png', 'img02.webp', 'ä 1.bmp', 'z.tiff']
  for name in reversed(names):
    put(tmp_path / name)
  found = list_images(str(tmp_path)).images
  assert [os.path.relpath(path, tmp_path) for path in found] == [
    'a/9.JPG',
    'b/1.jpeg',
    'b/c/01.tif',
    'img2.PNG',
    'img2.png',
    'img02.webp',
    'img10.png',
    'z.tiff',
    'ä 1.bmp',
  ]


def test_order_of_numbers():
  def by_parts(name):
    parts = re.split('([0-9]+)', name)
    return [int(x) if i % 2 else x for i, x in enumerate(parts)], name

  rng = np.random.default_rng(0)
  letters = list('0129a/.! \1é')
  names = [''.join(rng.choice(letters, rng.integers(9))) for _ in range(2000)]
  assert sorted(names, key=natural) == sorted(names, key=by_parts)
  # Too long for an int.
  assert sorted(['2' * 5000, '1' * 5001, '3'], key=natural) == [
    '3',
    '2' * 5000,
    '1' * 5001,
  ]


def test_hidden_and_other_files_are_skipped(tmp_path):
  put(tmp_path / 'a.png')
  put(tmp_path / '._a.png')
  put(tmp_path / '.cache' / 'b.png')
  put(tmp_path / 'notes.txt')
  put(tmp_path / 'png')
  (tmp_path / 'folder.png').mkdir()
  os.mkfifo(tmp_path / 'pipe.png')
  listing = list_images(str(tmp_path))
  assert listing.images == [str(tmp_path / 'a.png')]
  assert listing.num_other_files == 3


def test_links_are_followed_once_and_loops_end(tmp_path):
  put(tmp_path / 'real' / 'a.png')
  put(tmp_path / 'outside' / 'b.png')
  root = tmp_path / 'real'
  (root / 'again').symlink_to(root)
  (root / 'inner').mkdir()
  (root / 'inner' / 'up').symlink_to('..')
  (root / 'circle').symlink_to('circle')
  (root / 'x').symlink_to(tmp_path / 'outside')
  (root / 'y').symlink_to(tmp_path / 'outside')
  (root / 'linked.png').symlink_to(root / 'a.png')
  found = list_images(str(root)).images
  assert [os.path.relpath(path, root) for path in found] == [
    'a.png',
    'linked.png',
    'x/b.png',
  ]


@pytest.mark.parametrize('target', ['gone.png', 'lost.png'])
def test_a_link_to_nowhere_is_an_image_error(target, tmp_path):
  (tmp_path / 'lost.png').symlink_to(target)
  found = list_images(str(tmp_path)).images
  images = images_of_files(found, channels=3, max_pixels=100)
  reason = {
    'gone.png': 'No such file or directory',
    'lost.png': 'Too many levels of symbolic links',
  }[target]
  for function in (images.read, images.shape_of):
    with pytest.raises(ImageError) as caught:
      function(0)
    assert str(caught.value) == f"{found[0]} can't be read: {reason}"
    assert caught.value.name == images.names[0]


def test_a_vanished_file_is_an_image_error(folders):
  images = open_images(DataConfig(name='folder', path=str(folders)))
  (folders / 'trainA' / '1.png').unlink()
  with pytest.raises(ImageError, match='No such file or directory'):
    images['train_a'].read(1)


def test_names_may_hold_anything(tmp_path):
  names = [
    b'two words.png',
    'žebra🦓.png'.encode(),
    b'new\nline.png',
    b'\xff.png',
  ]
  for name in names:
    (tmp_path / os.fsdecode(name)).write_bytes(b'')
  found = list_images(str(tmp_path)).images
  assert len(found) == 4
  images = images_of_files(found, channels=3, max_pixels=100)
  for index in range(4):
    with pytest.raises(ImageError) as caught:
      images.read(index)
    message = str(caught.value)
    assert message.endswith("can't be read: the file is empty")
    assert message.isprintable()
    assert message.encode()  # no surrogates, which no terminal takes


@pytest.mark.parametrize(
  'options, texts',
  [
    ({}, ['config.data.path', 'config.data.train_a', 'config.data.train_b']),
    ({'train_a': '{}/trainA'}, ['config.data.train_b', 'config.data.path']),
    ({'path': '{}/none'}, ["config.data.path='{}/none'", 'does not exist']),
    ({'path': '\0'}, [r"config.data.path='\x00'"]),
    ({'path': '{}/trainA/0.png'}, ['0.png', 'is a file']),
    ({'path': '{}', 'train_b': '{}/none'}, ["config.data.train_b='{}/none'"]),
    ({'path': '{}', 'test_a': '{}/none'}, ["config.data.test_a='{}/none'"]),
    (
      {'path': '{}/up'},
      ['{}/up', 'trainA', "3.txt, 4.txt, 5.txt, data, 'new\\nline' and 1 more"],
    ),
    ({'path': '{}/empty'}, ["config.data.path='{}/empty'", 'trainA']),
    ({'path': '{}', 'train_a': '{}/up'}, ['{}/up', '.png', '8 other files']),
    ({'path': '{}', 'test_b': '{}/empty'}, ['{}/empty', '0 other files']),
    ({'path': '{}', 'channels_b': 513}, ['config.data.channels_b=513', '512']),
  ],
)
def test_folder_errors(options, texts, folders):
  (folders / 'empty').mkdir()
  (folders / 'up' / 'data').mkdir(parents=True)
  for name in [*(f'{i}.txt' for i in range(6)), 'new\nline', 'zz.gif']:
    put(folders / 'up' / name)
  root = str(folders)
  options = {
    name: value.replace('{}', root) if isinstance(value, str) else value
    for name, value in options.items()
  }
  with pytest.raises((ConfigError, DataError)) as caught:
    open_images(DataConfig(name='folder', **options))
  for text in texts:
    assert text.replace('{}', root) in str(caught.value)


def test_a_folder_that_may_not_be_listed():
  # Not in tmp_path, which nobody but its owner may enter.
  with tempfile.TemporaryDirectory() as root:
    os.chmod(root, 0o755)
    closed = os.path.join(root, 'closed')
    os.mkdir(closed, 0o000)
    is_root = os.geteuid() == 0
    if is_root:
      os.seteuid(65534)
    try:
      with pytest.raises(DataError) as caught:
        list_images(root)
    finally:
      if is_root:
        os.seteuid(0)
  assert str(caught.value) == f"{closed} can't be listed: Permission denied"


# Drawings.


def test_embedded_draws_what_embedded_draws():
  config = DataConfig(size=16, load_size=24, num_train=12, num_test=3)
  images = open_images(config)
  assert tuple(images) == SPLITS
  assert [len(images[split]) for split in SPLITS] == [12, 12, 3, 3]
  assert images['train_a'].names[11] == 'train_a/00011'
  assert images['test_b'].shape_of(2) == (24, 24)
  np.testing.assert_array_equal(
    images['test_b'].read(2),
    drawings.draw(2, size=24, domain='b', split='test'),
  )


def test_embedded_differs_by_domain_split_and_index():
  config = DataConfig(size=16, load_size=16, num_train=2, num_test=2)
  images = open_images(config)
  drawn = {images[split].read(i).tobytes() for split in SPLITS for i in (0, 1)}
  assert len(drawn) == 8


@pytest.mark.parametrize(
  'option, value', [('channels_b', 1), ('load_size', 2000)]
)
def test_embedded_errors(option, value):
  with pytest.raises(ConfigError, match=f'config.data.{option}={value} '):
    open_images(DataConfig(**{option: value}))
