"""Images of TFDS: the CycleGAN data sets, and others of any kind."""

import hashlib
import io
import logging
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.config import DataConfig
from cyclegan_jax.data.fingerprint import fingerprint
from cyclegan_jax.data.sources import ImageError, open_images
from cyclegan_jax.errors import ConfigError, DataError, UserError

tfds = pytest.importorskip('tensorflow_datasets')
pytest.importorskip('array_record')

from tensorflow_datasets.core.download import checksums, downloader  # noqa: E402
from tensorflow_datasets.image_classification import CycleGAN  # noqa: E402

SPLITS = ('train_a', 'train_b', 'test_a', 'test_b')
COUNTS = {'trainA': 3, 'trainB': 2, 'testA': 1, 'testB': 2}
URL = 'http://127.0.0.1:9/maps.zip'  # the discard port: refused at once


@pytest.fixture(autouse=True)
def _quiet_and_tidy(tmp_path, monkeypatch):
  # Every builder of TFDS leaves an empty temporary folder behind.
  (tmp_path / 'scratch').mkdir()
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'scratch'))
  monkeypatch.setenv('TMPDIR', str(tmp_path / 'scratch'))
  tfds.disable_progress_bar()
  yield
  tfds.enable_progress_bar()


def picture(name):
  """Pixels that only this name has."""
  seed = int(hashlib.sha256(name.encode()).hexdigest(), 16)
  pixels = np.random.default_rng(seed).integers(0, 256, (7, 5, 3))
  return pixels.astype(np.uint8)


def test_a_folder_of_images_is_not_for_tfds(tmp_path):
  (tmp_path / 'trainA').mkdir()
  config = DataConfig(name='tfds', dataset='mnist', path=str(tmp_path))
  with pytest.raises(ConfigError, match='config.data.name=folder'):
    open_images(config)


def png(pixels):
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'PNG')
  return file.getvalue()


def write_zip(path, counts, extra=()):
  """A zip laid out as the real ones, with what macOS's archiver adds."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('maps/', b'')
    for split, count in counts.items():
      archive.writestr(f'maps/{split}/', b'')
      for i in range(count):
        data = png(picture(f'{split}/{i}'))
        archive.writestr(f'maps/{split}/{i}_{split[-1]}.png', data)
      archive.writestr(f'__MACOSX/maps/{split}/._0_{split[-1]}.png', b'junk')
    for name in extra:
      archive.writestr(name, b'junk')
  return path


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
  """A data_dir for maps, with a URL that nobody serves, without retries."""
  for url in list(CycleGAN.url_infos):
    if url.endswith('/maps.zip'):
      monkeypatch.setitem(CycleGAN.url_infos, URL, CycleGAN.url_infos[url])
      monkeypatch.delitem(CycleGAN.url_infos, url)
  monkeypatch.setattr(downloader, 'MAX_RETRIES', 0)
  return tmp_path / 'tfds'


def place_zip(data_dir, monkeypatch, counts, extra=()):
  """Puts a zip into the manual folder and makes it the one TFDS knows."""
  path = write_zip(data_dir / 'downloads/manual/maps.zip', counts, extra)
  info = checksums.compute_url_info(path)
  monkeypatch.setitem(CycleGAN.url_infos, URL, info)
  return path


def open_maps(data_dir, **options):
  return open_images(
    DataConfig(
      name='tfds', dataset='cycle_gan/maps', path=str(data_dir), **options
    )
  )


def contents(images):
  return {images.read(i).tobytes() for i in range(len(images))}


def error_of(kind=ConfigError, **options):
  """The message of the error when the data set is opened."""
  with pytest.raises(kind) as caught:
    open_images(DataConfig(name='tfds', **options))
  return str(caught.value)


def error_of_maps(data_dir):
  return error_of(DataError, dataset='cycle_gan/maps', path=str(data_dir))


def test_cycle_gan_zip_gives_its_pixels(data_dir, monkeypatch):
  place_zip(data_dir, monkeypatch, COUNTS, ['maps/trainA/notes.txt'])
  images = open_maps(data_dir)
  assert tuple(images) == SPLITS
  for (split, count), name in zip(COUNTS.items(), SPLITS, strict=True):
    expected = {picture(f'{split}/{i}').tobytes() for i in range(count)}
    assert len(images[name]) == count
    assert contents(images[name]) == expected
  assert images['train_a'].shape_of(0) == (7, 5)
  assert images['test_b'].names[1] == 'cycle_gan/maps/testB/00001'


def test_fingerprint_is_of_what_was_prepared(data_dir, monkeypatch):
  place_zip(data_dir, monkeypatch, COUNTS)
  before = fingerprint(open_maps(data_dir))
  assert fingerprint(open_maps(data_dir)) == before
  assert [before[split]['count'] for split in SPLITS] == [3, 2, 1, 2]
  place_zip(data_dir, monkeypatch, COUNTS, ['maps/trainA/more.png'])
  data_dir.joinpath('cycle_gan').rename(data_dir / 'old')
  after = fingerprint(open_maps(data_dir))
  assert [split for split in SPLITS if after[split] != before[split]] == [
    'train_a'
  ]


def test_prepared_data_needs_no_zip_and_keeps_its_order(data_dir, monkeypatch):
  path = place_zip(data_dir, monkeypatch, COUNTS)
  first = open_maps(data_dir)['train_a']
  path.unlink()
  again = open_maps(data_dir)['train_a']
  for i in range(3):
    np.testing.assert_array_equal(again.read(i), first.read(i))


def test_stock_builder_reads_the_same_files(data_dir, monkeypatch):
  place_zip(data_dir, monkeypatch, COUNTS)
  ours = open_maps(data_dir)['train_b']
  stock = tfds.builder('cycle_gan/maps', data_dir=data_dir)
  records = stock.as_data_source('trainB')
  assert [record['label'] for record in records] == [1, 1]
  for i, record in enumerate(records):
    np.testing.assert_array_equal(record['image'], ours.read(i))


def test_channels_and_max_pixels_hold(data_dir, monkeypatch):
  place_zip(data_dir, monkeypatch, COUNTS)
  images = open_maps(data_dir, channels_b=1, max_pixels=34)
  small = open_maps(data_dir, channels_b=1, max_pixels=35)
  assert small['test_b'].read(0).shape == (7, 5, 1)
  for function in (images['train_a'].read, images['train_a'].shape_of):
    with pytest.raises(ImageError) as caught:
      function(2)
    assert 'cycle_gan/maps/trainA/00002' in str(caught.value)
    assert 'config.data.max_pixels=34' in str(caught.value)


def test_zip_without_test_images(data_dir, monkeypatch, caplog):
  place_zip(data_dir, monkeypatch, {'trainA': 2, 'trainB': 1})
  with caplog.at_level(logging.WARNING, 'cyclegan_jax'):
    images = open_maps(data_dir)
  assert contents(images['test_a']) == contents(images['train_a'])
  for split in ('testA', 'testB'):
    assert f'cycle_gan/maps has no split {split}' in caplog.text


def test_zip_without_a_domain(data_dir, monkeypatch):
  path = place_zip(data_dir, monkeypatch, {'trainA': 1, 'testA': 1})
  message = error_of_maps(data_dir)
  assert str(path) in message
  assert 'trainB' in message


def test_a_zip_that_is_refused(data_dir, monkeypatch):
  name = '../../trainA/out.png'
  path = place_zip(data_dir, monkeypatch, COUNTS, [name])
  message = error_of_maps(data_dir)
  assert str(path) in message
  assert name in message
  assert not list(data_dir.parent.rglob('out.png'))
  assert not list(data_dir.rglob('*.array_record'))


def test_a_zip_that_is_none(data_dir, monkeypatch):
  path = place_zip(data_dir, monkeypatch, COUNTS)
  path.write_bytes(b'<html>moved</html>')
  info = checksums.compute_url_info(path)
  monkeypatch.setitem(CycleGAN.url_infos, URL, info)
  assert str(path) in error_of_maps(data_dir)


def test_a_zip_of_another_checksum(data_dir, monkeypatch):
  path = place_zip(data_dir, monkeypatch, COUNTS)
  write_zip(path, {'trainA': 1})
  message = error_of_maps(data_dir)
  assert str(path) in message
  assert "config.data.name='folder'" in message


def test_no_network(data_dir):
  message = error_of_maps(data_dir)
  assert URL in message
  assert f'{data_dir}/downloads/manual' in message
  assert not (data_dir / 'cycle_gan/maps/3.0.0').exists()


# Other data sets.


@pytest.fixture
def register(monkeypatch):
  """Registers a builder that writes `splits`: name -> list of examples."""
  from tensorflow_datasets.core import registered

  def register(name, features, splits):
    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
      VERSION = tfds.core.Version('1.0.0')

      def _info(self):
        return tfds.core.DatasetInfo(
          builder=self, features=tfds.features.FeaturesDict(features)
        )

      def _split_generators(self, dl_manager):
        del dl_manager
        return {split: self._generate_examples(split) for split in splits}

      def _generate_examples(self, split):
        yield from enumerate(splits[split])

    Tiny.name = name
    monkeypatch.setitem(registered._DATASET_REGISTRY, name, Tiny)

  return register


def examples(name, count):
  return [
    {'image': png(picture(f'{name}/{i}')), 'label': i} for i in range(count)
  ]


@pytest.fixture
def tiny(register):
  features = {'image': tfds.features.Image(), 'label': np.int64}
  splits = {'train': examples('train', 3), 'test': examples('test', 2)}
  register('tiny_pictures', features, splits)
  return features


def test_two_data_sets_of_any_kind(tiny, register, tmp_path, caplog):
  gray = tfds.features.Image(shape=(7, 5, 1))
  pixels = picture('gray')[..., 0]
  register('tiny_gray', {'digit': gray}, {'train': [{'digit': png(pixels)}]})
  config = DataConfig(
    name='tfds',
    path=str(tmp_path),
    dataset_a='tiny_pictures',
    dataset_b='tiny_gray',
    channels_b=1,
  )
  with caplog.at_level(logging.WARNING, 'cyclegan_jax'):
    images = open_images(config)
  assert 'tiny_gray has no split test' in caplog.text
  assert [len(images[split]) for split in SPLITS] == [3, 1, 2, 1]
  assert contents(images['test_a']) == {
    picture(f'test/{i}').tobytes() for i in range(2)
  }
  np.testing.assert_array_equal(images['train_b'].read(0)[..., 0], pixels)
  assert images['test_b'].names == ('tiny_gray/train/00000',)


def open_tiny(tmp_path, name='tiny_pictures'):
  return open_images(
    DataConfig(name='tfds', path=str(tmp_path), dataset_a=name, dataset_b=name)
  )


def test_one_data_set_for_both_domains(tiny, tmp_path):
  config = DataConfig(
    name='tfds',
    path=str(tmp_path),
    dataset_a='tiny_pictures',
    dataset_b='tiny_pictures:1.0.0',
  )
  images = open_images(config)
  assert contents(images['train_a']) == contents(images['train_b'])


def test_reads_from_many_threads(tiny, tmp_path):
  images = open_tiny(tmp_path)['train_a']
  expected = [images.read(i) for i in range(3)]
  with ThreadPoolExecutor(8) as pool:
    read = list(pool.map(images.read, [0, 1, 2] * 50))
  for i, image in enumerate(read):
    np.testing.assert_array_equal(image, expected[i % 3])


def test_damaged_record_is_an_image_error(register, tmp_path):
  features = {'image': tfds.features.Image()}
  register('tiny_damaged', features, {'train': [{'image': b'junk'}]})
  images = open_tiny(tmp_path, 'tiny_damaged')
  with pytest.raises(ImageError) as caught:
    images['train_a'].read(0)
  assert caught.value.name == 'tiny_damaged/train/00000'


def error_of_tiny(kind, tmp_path, name):
  with pytest.raises(kind) as caught:
    open_tiny(tmp_path, name)
  message = str(caught.value)
  assert message.startswith(f'config.data.dataset_a={name!r} ')
  return message


@pytest.mark.parametrize('names', [[], ['left', 'right']])
def test_no_image_feature_or_several(names, register, tmp_path):
  features = dict.fromkeys(names, tfds.features.Image())
  example = {name: png(picture(name)) for name in names}
  register(
    'tiny_wrong',
    {**features, 'text': np.str_},
    {'train': [{**example, 'text': 'word'}]},
  )
  message = error_of_tiny(ConfigError, tmp_path, 'tiny_wrong')
  assert ', '.join([*names, 'text']) in message


def test_data_set_without_the_splits(tiny, tmp_path):
  message = error_of(path=str(tmp_path), dataset='tiny_pictures')
  assert "config.data.dataset='tiny_pictures' has no split trainA" in message
  assert 'config.data.dataset_a' in message


def test_builder_that_needs_tensorflow(register, tmp_path):
  # TFDS encodes arrays by TensorFlow; bytes it takes as they are.
  features = {'image': tfds.features.Image()}
  splits = {'train': [{'image': picture('array')}]}
  register('tiny_arrays', features, splits)
  message = error_of_tiny(DataError, tmp_path, 'tiny_arrays')
  assert "No module named 'tensorflow'" in message
  assert 'config.data.path' in message


def test_builder_that_fails(register, tmp_path):
  register('tiny_wrong', {'image': tfds.features.Image()}, {'train': [{}]})
  message = error_of_tiny(DataError, tmp_path, 'tiny_wrong')
  assert f'{tmp_path}/tiny_wrong/1.0.0' in message
  assert 'KeyError' in message


def test_data_prepared_as_tfrecord(tiny, tmp_path):
  open_tiny(tmp_path)
  folder = tmp_path / 'tiny_pictures' / '1.0.0'
  info = folder / 'dataset_info.json'
  info.write_text(info.read_text().replace('array_record', 'tfrecord'))
  with pytest.raises(DataError, match='TensorFlow') as caught:
    open_tiny(tmp_path)
  assert str(folder) in str(caught.value)
  assert 'config.data.path' in str(caught.value)


@pytest.mark.parametrize(
  'options, texts',
  [
    ({}, ['config.data.dataset is not set', 'config.data.dataset_a']),
    ({'dataset_b': 'mnist'}, ['config.data.dataset_a is not set']),
    (
      {'dataset': 'x', 'dataset_b': 'y'},
      ["config.data.dataset_b='y'", "config.data.dataset='x'"],
    ),
    (
      {'dataset': 'horse2zebra'},
      ["config.data.dataset='horse2zebra'", 'cycle_gan/horse2zebra'],
    ),
    (
      {'dataset_a': 'minst', 'dataset_b': 'x'},
      ["config.data.dataset_a='minst'", 'mnist'],
    ),
    (
      {'dataset': 'cycle_gan'},
      ["config.data.dataset='cycle_gan'", 'cycle_gan/apple2orange'],
    ),
    (
      {'dataset': 'cycle_gan/horses'},
      ["config.data.dataset='cycle_gan/horses'", 'cycle_gan/apple2orange'],
    ),
    ({'dataset': 'mnist/28'}, ["config.data.dataset='mnist/28'", ' mnist']),
    ({'dataset': 'x', 'channels_a': 7}, ['config.data.channels_a=7']),
  ],
)
def test_option_errors(options, texts, tmp_path):
  message = error_of(path=str(tmp_path), **options)
  for text in texts:
    assert text in message


@pytest.mark.parametrize('package', ['tensorflow_datasets', 'array_record'])
def test_missing_package(package, monkeypatch):
  monkeypatch.setitem(sys.modules, package, None)
  message = error_of(UserError, dataset='cycle_gan/maps')
  assert "config.data.name='tfds'" in message
  assert package in message
  assert 'pip install array_record tensorflow-datasets' in message


WITHOUT_TENSORFLOW = """
import sys
from cyclegan_jax.config import DataConfig
from cyclegan_jax.data.sources import open_images
assert 'tensorflow_datasets' not in sys.modules
config = DataConfig(name='tfds', dataset='cycle_gan/maps', path=sys.argv[1])
images = open_images(config)
print([images[name].read(0).shape for name in sorted(images)])
assert 'tensorflow_datasets' in sys.modules
assert not [name for name in sys.modules if name.split('.')[0] == 'tensorflow']
"""


@pytest.mark.process
def test_tensorflow_is_never_imported(data_dir, monkeypatch):
  place_zip(data_dir, monkeypatch, COUNTS)
  open_maps(data_dir)
  done = subprocess.run(
    [sys.executable, '-c', WITHOUT_TENSORFLOW, str(data_dir)],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout == f'{[(7, 5, 3)] * 4}\n'
