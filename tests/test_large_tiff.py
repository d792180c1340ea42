import jax
import numpy as np
import pytest

from cyclegan_jax import checkpoint
from cyclegan_jax.config import Config
from cyclegan_jax.data.decoding import ImageError
from cyclegan_jax.data.large_tiff import TiffReader, TiffWriter
from cyclegan_jax.state import create_train_state
from cyclegan_jax.translate import Options, translate_files
from cyclegan_jax.translator import Translator

tifffile = pytest.importorskip('tifffile')

MANY = 10**7


def noise(shape, dtype):
  rng = np.random.default_rng(0)
  if dtype == 'float32':
    return rng.normal(size=shape).astype(dtype)
  return rng.integers(0, np.iinfo(dtype).max, shape, dtype)


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
@pytest.mark.parametrize('channels', [1, 3, 5])
@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('rows', [None, 7])
def test_windows_of_a_file(tmp_path, dtype, channels, order, rows):
  image = noise((50, 40, channels), dtype)
  path = tmp_path / 'in.tif'
  tifffile.imwrite(
    path,
    image[..., 0] if channels == 1 else image,
    byteorder=order,
    rowsperstrip=rows,
    photometric='rgb' if channels == 3 else 'minisblack',
    planarconfig=None if channels == 1 else 'contig',
  )
  with TiffReader(path, channels=channels, max_pixels=MANY) as reader:
    assert reader.shape == image.shape
    assert reader.dtype == dtype
    window = reader.read(3, 29, 5, 33)
  np.testing.assert_array_equal(window, image[3:29, 5:33])


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
@pytest.mark.parametrize('channels', [1, 3, 5])
def test_a_file_by_windows(tmp_path, dtype, channels):
  image = noise((50, 40, channels), dtype)
  path = tmp_path / 'out.tif'
  with TiffWriter(path, image.shape, dtype) as writer:
    for y in (32, 0, 16, 48):
      for x in (0, 32):
        writer.write(y, x, image[y : y + 16, x : x + 32])
    assert not path.exists()
    writer.finish()
  found = tifffile.imread(path)
  np.testing.assert_array_equal(found.reshape(image.shape), image)
  assert [each.name for each in tmp_path.iterdir()] == ['out.tif']


def test_nothing_is_left_of_what_is_not_finished(tmp_path):
  with TiffWriter(tmp_path / 'out.tif', (9, 9, 3), 'uint8'):
    pass
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  'options',
  [
    {'compression': 'zlib'},
    {'tile': (16, 16)},
    {'photometric': 'miniswhite'},
    {'extratags': [(274, 3, 1, 6, True)]},  # lies on its side
  ],
)
def test_what_is_read_whole(tmp_path, options):
  path = tmp_path / 'in.tif'
  tifffile.imwrite(path, noise((32, 32), 'uint8'), **options)
  with pytest.raises(ValueError, match='its pixels '):
    TiffReader(path, channels=1, max_pixels=MANY)


def test_a_file_that_is_cut_off(tmp_path):
  path = tmp_path / 'in.tif'
  image = noise((50, 40), 'uint8')
  tifffile.imwrite(path, image)
  with TiffReader(path, channels=1, max_pixels=MANY) as reader:
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ImageError, match='cut off while it was read'):
      reader.read(0, 50, 0, 40)


def test_a_translation_that_is_never_in_memory(tmp_path, monkeypatch):
  """It gives what it gives for the whole image."""
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
  with checkpoint.Saver(tmp_path / 'run' / 'checkpoints', config) as saver:
    saver.save(state)
  image = noise((128, 96, 3), 'uint16') % 4096
  path = tmp_path / 'in.tif'
  tifffile.imwrite(path, image, photometric='rgb')
  expected = Translator(config, state.translators, 'ab')(image)
  monkeypatch.setattr(
    'cyclegan_jax.translator.default_whole_pixels', lambda config: 64 * 64
  )
  monkeypatch.setattr('cyclegan_jax.translate._IN_MEMORY_PIXELS', 0)
  outcome = translate_files(
    tmp_path / 'run', [path], tmp_path / 'out', Options()
  )
  assert outcome.failed == []
  made = tifffile.imread(tmp_path / 'out' / 'in.tif')
  assert made.dtype == expected.dtype == np.uint8
  assert abs(made.astype(int) - expected).max() <= 1  # of rounding
  with tifffile.TiffFile(tmp_path / 'out' / 'in.tif') as tiff:
    assert tiff.is_bigtiff  # that is, by windows
