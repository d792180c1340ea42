"""TIFF files of any size, translated without being in memory as a whole."""

import jax
import numpy as np
import pytest

from cyclegan_jax.config import Config
from cyclegan_jax.state import create_train_state
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.translate.files import translate_files
from cyclegan_jax.translate.options import Options
from cyclegan_jax.translate.output_record import RECORD_FILE
from cyclegan_jax.translate.translator import load_translator

tifffile = pytest.importorskip('tifffile')


CONFIG = Config().replace(
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


def save_run(folder, config):
  state = create_train_state(config, jax.random.key(0))
  with checkpoint.Saver(folder / 'checkpoints', config) as saver:
    saver.save(state)
  return folder


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  return save_run(tmp_path_factory.mktemp('run'), CONFIG)


@pytest.fixture
def everything_is_large(monkeypatch):
  monkeypatch.setattr('cyclegan_jax.translate.large._IN_MEMORY_PIXELS', 0)
  monkeypatch.setattr(
    'cyclegan_jax.translate.translator.default_whole_pixels',
    lambda config: 64 * 64,
  )


def put(path, shape, **options):
  image = np.random.default_rng(0).integers(0, 4096, shape, np.uint16)
  tifffile.imwrite(path, image, photometric='rgb', **options)
  return image


@pytest.mark.parametrize(
  'options, gallery',
  [
    ({}, True),
    ({'compression': 'zlib', 'rowsperstrip': 7}, False),
    ({'compression': 'lzw', 'tile': (16, 32)}, True),
  ],
)
def test_it_gives_what_the_whole_image_gives(
  run, tmp_path, monkeypatch, options, gallery, everything_is_large
):
  path = tmp_path / 'in.tif'
  tags = [(271, 2, 0, 'a camera', True), (42113, 2, 0, '-9', True)]
  image = put(path, (128, 96, 3), extratags=tags, **options)
  expected = load_translator(run)(image)
  read_whole = []
  monkeypatch.setattr(
    'cyclegan_jax.translate.stills._read', lambda *_: read_whole.append(1)
  )
  scratch = tmp_path / 'scratch'
  scratch.mkdir()
  options = Options(gallery=gallery, scratch=scratch)
  outcome = translate_files(run, [path], tmp_path / 'out', options)
  assert outcome.failed == read_whole == list(scratch.iterdir()) == []
  with tifffile.TiffFile(tmp_path / 'out' / 'in.tif') as file:
    made = file.asarray()
    assert file.pages[0].tags['Make'].value == 'a camera'
    assert file.pages[0].tags[42113].value == '-9'
  assert made.dtype == expected.dtype == np.uint8
  assert abs(made.astype(int) - expected).max() <= 1  # of rounding
  if gallery:
    assert 'in.tif' in outcome.page.read_text()
  again = translate_files(run, [path], tmp_path / 'out', options)
  assert (again.num_made, again.num_kept) == (0, 1)


def test_a_file_that_is_damaged(run, tmp_path, everything_is_large):
  path = tmp_path / 'in.tif'
  put(path, (90, 60, 3), compression='zlib')
  data = bytearray(path.read_bytes())
  middle = len(data) // 2
  data[middle : middle + 600] = bytes(600)
  path.write_bytes(bytes(data))
  outcome = translate_files(run, [path], tmp_path / 'out', Options())
  (message,) = outcome.failed
  assert str(path) in message
  written = [entry.name for entry in (tmp_path / 'out').iterdir()]
  assert written == [RECORD_FILE]


def test_notes_are_those_of_the_whole_image(
  tmp_path, monkeypatch, everything_is_large
):
  config = CONFIG.replace(
    data={'dtype_a': 'float32', 'low_a': 0.0, 'high_a': 1.0}
    | {'dtype_b': 'uint8'}
  )
  run = save_run(tmp_path / 'run', config)
  image = np.full((96, 80, 3), 0.5, np.float32)
  image[:40] = np.nan
  image[-20:] = 2
  path = tmp_path / 'in.tif'
  tifffile.imwrite(path, image, photometric='rgb')
  tiles = translate_files(run, [path], tmp_path / 'tiles').notes
  monkeypatch.setattr('cyclegan_jax.translate.files.is_large', lambda *_: False)
  whole = translate_files(run, [path], tmp_path / 'whole').notes
  assert len(tiles) == len(whole) == 2
  assert tiles[0] == whole[0]
  assert 'uint8' in tiles[0]
  assert '0 to 1' in tiles[1]
  assert '36%' in whole[1]


@pytest.mark.parametrize(
  'dtype, nodata', [('uint16', '0'), ('float32', '1e30'), ('float32', 'nan')]
)
def test_pixels_without_data_stay_so(
  tmp_path, monkeypatch, dtype, nodata, everything_is_large
):
  """The same as those of an image that is translated as a whole."""
  config = CONFIG.replace(
    data={'dtype_a': dtype, 'low_a': 0.0, 'high_a': 4095.0}
    | {'dtype_b': dtype, 'low_b': 0.0, 'high_b': 4095.0}
  )
  run = save_run(tmp_path / 'run', config)
  image = np.random.default_rng(0).integers(1, 4096, (96, 80, 3))
  image = image.astype(dtype)
  image[:40, :30] = float(nodata)
  tags = [(42113, 2, 0, nodata, True)]
  path = tmp_path / 'in.tif'
  tifffile.imwrite(path, image, photometric='rgb', extratags=tags)
  assert not translate_files(run, [path], tmp_path / 'tiles').failed
  monkeypatch.setattr('cyclegan_jax.translate.files.is_large', lambda *_: False)
  assert not translate_files(run, [path], tmp_path / 'whole').failed
  tiles, whole = (
    tifffile.imread(tmp_path / folder / 'in.tif')
    for folder in ('tiles', 'whole')
  )
  mark = np.dtype(dtype).type(nodata)
  np.testing.assert_array_equal(whole[:40, :30], np.full((40, 30, 3), mark))
  assert (whole[40:] != mark).all()
  assert np.isfinite(whole[40:]).all()
  np.testing.assert_allclose(tiles, whole, rtol=1e-3, atol=1)
