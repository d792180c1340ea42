import jax
import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.config import Config
from cyclegan_jax.media.decoding import ImageError
from cyclegan_jax.media.tiff_reader import (
  TiffWindows,
)
from cyclegan_jax.media.tiff_writer import write_tiff_windows
from cyclegan_jax.state import create_train_state
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.translate.files import translate_files
from cyclegan_jax.translate.options import Options
from cyclegan_jax.translate.output_record import RECORD_FILE
from cyclegan_jax.translate.translator import load_translator

tifffile = pytest.importorskip('tifffile')

MANY = 10**7


def noise(shape, dtype):
  rng = np.random.default_rng(0)
  if dtype == 'float32':
    return rng.normal(size=shape).astype(dtype)
  return rng.integers(0, np.iinfo(dtype).max, shape, dtype)


def put(path, image, **options):
  channels = image.shape[-1]
  tifffile.imwrite(
    path,
    image[..., 0] if channels == 1 else image,
    photometric='rgb' if channels == 3 else 'minisblack',
    planarconfig=None if channels == 1 else 'contig',
    **options,
  )
  return path


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
@pytest.mark.parametrize('channels', [1, 3, 5])
@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('rows', [None, 7])
def test_windows_of_a_file(tmp_path, dtype, channels, order, rows):
  image = noise((50, 40, channels), dtype)
  path = put(tmp_path / 'in.tif', image, byteorder=order, rowsperstrip=rows)
  with TiffWindows(
    path.open('rb'), str(path), channels=channels, max_pixels=MANY
  ) as reader:
    assert reader.shape == image.shape
    assert reader.dtype == dtype
    window = reader.read(3, 29, 5, 33)
  np.testing.assert_array_equal(window, image[3:29, 5:33])


EXIF = Image.Exif()
EXIF[271] = 'a camera'
EXIF.get_ifd(0x8769)[0x9003] = '2020:01:01 00:00:00'


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
@pytest.mark.parametrize('channels', [1, 3, 5])
@pytest.mark.parametrize('exif', [None, EXIF.tobytes()])
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
  found = tifffile.imread(path)
  np.testing.assert_array_equal(found.reshape(image.shape), image)
  assert [each.name for each in tmp_path.iterdir()] == ['out.tif']
  with tifffile.TiffFile(path) as tiff:
    tags = tiff.pages[0].tags
    assert tags['InterColorProfile'].value == b'icc'
    assert ('Make' in tags) == (exif is not None)
    if exif:
      assert tags['Make'].value == 'a camera'
      assert tags['ExifTag'].value['DateTimeOriginal'] == '2020:01:01 00:00:00'


def test_a_file_of_more_than_four_gigabytes(tmp_path):
  path = tmp_path / 'out.tif'
  shape = (50_000, 29_000, 3)
  with write_tiff_windows(path, shape, 'uint8') as write:
    write(49_999, 28_998, np.array([[[1, 2, 3], [4, 5, 6]]]))
  with TiffWindows(
    path.open('rb'), str(path), channels=3, max_pixels=10**10
  ) as reader:
    assert reader.shape == shape
    window = reader.read(49_998, 50_000, 28_998, 29_000)
  assert window.tolist() == [[[0] * 3, [0] * 3], [[1, 2, 3], [4, 5, 6]]]


def test_nothing_is_left_of_what_is_not_finished(tmp_path):
  with (
    pytest.raises(KeyboardInterrupt),
    write_tiff_windows(tmp_path / 'out.tif', (9, 9, 3), 'uint8'),
  ):
    raise KeyboardInterrupt
  assert list(tmp_path.iterdir()) == []


STORED = [
  {'compression': 'zlib'},
  {'compression': 'zlib', 'predictor': True, 'rowsperstrip': 7},
  {'compression': 'lzw', 'tile': (16, 32)},
  {'compression': 'zstd', 'bigtiff': True, 'tile': (16, 32)},
  {'tile': (32, 16), 'byteorder': '>'},
]


@pytest.mark.parametrize('options', STORED)
@pytest.mark.parametrize('channels', [1, 3, 5])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16'])
def test_a_file_in_parts(tmp_path, options, channels, dtype):
  image = noise((50, 41, channels), dtype)
  path = put(tmp_path / 'in.tif', image, **options)
  found = np.zeros_like(image)
  with TiffWindows(
    path.open('rb'), str(path), channels=channels, max_pixels=MANY
  ) as reader:
    assert not reader.is_by_rows
    for y, x, part in reader.read_segments():
      found[y : y + part.shape[0], x : x + part.shape[1]] = part
  np.testing.assert_array_equal(found, image)
  assert [each.name for each in tmp_path.iterdir()] == ['in.tif']


def test_a_part_that_is_damaged(tmp_path):
  path = put(tmp_path / 'in.tif', noise((50, 40, 3), 'uint8'), **STORED[1])
  data = bytearray(path.read_bytes())
  middle = len(data) // 2
  data[middle : middle + 60] = bytes(60)
  path.write_bytes(bytes(data))
  with (
    TiffWindows(
      path.open('rb'), str(path), channels=3, max_pixels=MANY
    ) as reader,
    pytest.raises(ImageError, match=r"in.tif can't be read"),
  ):
    list(reader.read_segments())


@pytest.mark.parametrize(
  'options',
  [
    {'planarconfig': 'separate', 'photometric': 'rgb'},
    {'photometric': 'miniswhite'},
    {'extratags': [(274, 3, 1, 6, True)]},  # lies on its side
  ],
)
def test_what_is_read_whole(tmp_path, options):
  path = tmp_path / 'in.tif'
  is_grey = 'planarconfig' not in options
  shape = (32, 32) if is_grey else (3, 32, 32)
  tifffile.imwrite(path, noise(shape, 'uint8'), **options)
  with pytest.raises(ValueError, match='its pixels '):
    TiffWindows(
      path.open('rb'), str(path), channels=1 if is_grey else 3, max_pixels=MANY
    )


def test_a_file_that_is_cut_off(tmp_path):
  path = tmp_path / 'in.tif'
  image = noise((50, 40), 'uint8')
  tifffile.imwrite(path, image)
  with TiffWindows(
    path.open('rb'), str(path), channels=1, max_pixels=MANY
  ) as reader:
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ImageError, match='cut off while it was read'):
      reader.read(0, 50, 0, 40)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  config = Config().replace(
    data={'size': 16, 'load_size': 16, 'dtype_a': 'uint16', 'high_a': 4095.0},
    generator={
      'name': 'resnet',
      'filters': 2,
      'blocks': 1,
      'dropout': 0.0,
      'norm': 'instance',
    },
    discriminator={'filters': 2, 'layers': 1},
  )
  state = create_train_state(config, jax.random.key(0))
  folder = tmp_path_factory.mktemp('run')
  with checkpoint.Saver(folder / 'checkpoints', config) as saver:
    saver.save(state)
  return folder


@pytest.mark.parametrize('stored', [{}, STORED[0], STORED[2]])
@pytest.mark.parametrize('gallery', [False, True])
def test_a_translation_that_is_never_in_memory(
  run, tmp_path, monkeypatch, stored, gallery
):
  """It gives what it gives for the whole image."""
  image = noise((128, 96, 3), 'uint16') % 4096
  path = put(
    tmp_path / 'in.tif', image, extratags=[(271, 2, 0, 'a camera', 1)], **stored
  )
  expected = load_translator(run)(image)
  read_whole = []
  monkeypatch.setattr(
    'cyclegan_jax.translate.stills._read', lambda *_: read_whole.append(1)
  )
  monkeypatch.setattr(
    'cyclegan_jax.translate.translator.default_whole_pixels',
    lambda config: 64 * 64,
  )
  monkeypatch.setattr('cyclegan_jax.translate.large._IN_MEMORY_PIXELS', 0)
  scratch = tmp_path / 'scratch'
  scratch.mkdir()
  options = Options(gallery=gallery, scratch=scratch)
  outcome = translate_files(run, [path], tmp_path / 'out', options)
  assert outcome.failed == read_whole == list(scratch.iterdir()) == []
  made = tifffile.imread(tmp_path / 'out' / 'in.tif')
  assert made.dtype == expected.dtype == np.uint8
  assert abs(made.astype(int) - expected).max() <= 1  # of rounding
  with tifffile.TiffFile(tmp_path / 'out' / 'in.tif') as tiff:
    assert tiff.pages[0].tags['Make'].value == 'a camera'
  if gallery:
    assert 'in.tif' in outcome.page.read_text()
  again = translate_files(run, [path], tmp_path / 'out', options)
  assert (again.num_made, again.num_kept) == (0, 1)


def test_a_large_file_that_is_damaged(run, tmp_path, monkeypatch):
  path = put(tmp_path / 'in.tif', noise((50, 40, 3), 'uint16'), **STORED[0])
  data = bytearray(path.read_bytes())
  middle = len(data) // 2
  data[middle : middle + 600] = bytes(600)
  path.write_bytes(bytes(data))
  monkeypatch.setattr('cyclegan_jax.translate.large._IN_MEMORY_PIXELS', 0)
  monkeypatch.setattr(
    'cyclegan_jax.translate.translator.default_whole_pixels',
    lambda config: 32 * 32,
  )
  outcome = translate_files(run, [path], tmp_path / 'out', Options())
  (message,) = outcome.failed
  assert message.startswith(f"{path} can't be read: ")
  assert [each.name for each in (tmp_path / 'out').iterdir()] == [RECORD_FILE]
