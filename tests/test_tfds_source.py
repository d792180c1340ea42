import hashlib
import io
import logging
import subprocess
import sys
import tempfile
import zipfile

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
from tensorflow_datasets.image_classification import cycle_gan  # noqa: E402

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
  """A data_dir for maps, of a URL that nobody serves, without retries."""
  monkeypatch.setitem(cycle_gan._DL_URLS, 'maps', URL)
  monkeypatch.setattr(downloader, 'MAX_RETRIES', 0)
  return tmp_path / 'tfds'


def place_zip(data_dir, monkeypatch, counts, extra=()):
  """Puts a zip into the manual folder and makes it the one TFDS knows."""
  path = write_zip(data_dir / 'downloads/manual/maps.zip', counts, extra)
  info = checksums.compute_url_info(path)
  monkeypatch.setitem(cycle_gan.CycleGAN.url_infos, URL, info)
  return path


def open_maps(data_dir, **options):
  return open_images(
    DataConfig(
      name='tfds', dataset='cycle_gan/maps', path=str(data_dir), **options
    )
  )


def contents(images):
  return {images.read(i).tobytes() for i in range(len(images))}


def message_of(**options):
  with pytest.raises(UserError) as caught:
    open_images(DataConfig(name='tfds', **options))
  return str(caught.value)


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
    assert str(caught.value) == (
      "cycle_gan/maps/trainA/00002 can't be read: 5 x 7 = 35 pixels, more "
      'than config.data.max_pixels=34'
    )


def test_zip_without_test_images(data_dir, monkeypatch, caplog):
  place_zip(data_dir, monkeypatch, {'trainA': 2, 'trainB': 1})
  with caplog.at_level(logging.WARNING, 'cyclegan_jax'):
    images = open_maps(data_dir)
  assert contents(images['test_a']) == contents(images['train_a'])
  assert [
    record.getMessage()
    for record in caplog.records
    if 'has no split' in record.getMessage()
  ] == [
    f'cycle_gan/maps has no split test{letter}: the training images of '
    f'{letter.lower()} take its place'
    for letter in 'AB'
  ]


def test_zip_without_a_domain(data_dir, monkeypatch):
  path = place_zip(data_dir, monkeypatch, {'trainA': 1, 'testA': 1})
  with pytest.raises(DataError) as caught:
    open_maps(data_dir)
  assert str(caught.value) == f'{path} has no images in a folder trainB'


@pytest.mark.parametrize(
  'name, trouble',
  [
    ('../../trainA/out.png', "has '..' in its path"),
    ('/outside/trainA/out.png', 'has an absolute path'),
  ],
)
def test_a_zip_that_would_write_elsewhere(name, trouble, data_dir, monkeypatch):
  path = place_zip(data_dir, monkeypatch, COUNTS, [name])
  with pytest.raises(DataError) as caught:
    open_maps(data_dir)
  assert str(caught.value) == (
    f'{path} is not read: its member {name} {trouble}: get it from its maker '
    'anew, or unpack it with a tool that you trust, and give the folder'
  )
  assert not list(data_dir.parent.rglob('out.png'))
  assert not list(data_dir.rglob('*.array_record'))


def test_a_zip_that_is_none(data_dir, monkeypatch):
  path = place_zip(data_dir, monkeypatch, COUNTS)
  path.write_bytes(b'<html>moved</html>')
  info = checksums.compute_url_info(path)
  monkeypatch.setitem(cycle_gan.CycleGAN.url_infos, URL, info)
  with pytest.raises(DataError) as caught:
    open_maps(data_dir)
  assert str(caught.value) == f"{path} can't be read: File is not a zip file"


def test_a_zip_of_another_checksum(data_dir, monkeypatch):
  path = place_zip(data_dir, monkeypatch, COUNTS)
  write_zip(path, {'trainA': 1})
  with pytest.raises(DataError) as caught:
    open_maps(data_dir)
  assert str(caught.value) == (
    f'{path} is not the maps.zip that TFDS knows, by its checksum: get it '
    "anew, or unpack it and set config.data.name='folder'"
  )


def test_no_network(data_dir):
  with pytest.raises(DataError) as caught:
    open_maps(data_dir)
  assert str(caught.value) == (
    f"{URL} can't be downloaded (ConnectionError): get maps.zip by other "
    f'means and put it into {data_dir}/downloads/manual'
  )
  assert not (data_dir / 'cycle_gan/maps/3.0.0').exists()


# Other data sets.


def tiny_builder(name, features, splits):
  """A registered builder that writes `splits`: name -> list of examples."""

  class Tiny(tfds.core.GeneratorBasedBuilder):
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

  return Tiny


@pytest.fixture
def register(monkeypatch):
  """Registers a tiny builder for one test."""
  from tensorflow_datasets.core import registered

  def register(name, features, splits):
    with registered.skip_registration():
      builder = tiny_builder(name, features, splits)
    builder.name = name
    monkeypatch.setitem(registered._DATASET_REGISTRY, name, builder)

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
  grey = tfds.features.Image(shape=(7, 5, 1))
  pixels = picture('grey')[..., 0]
  register('tiny_grey', {'digit': grey}, {'train': [{'digit': png(pixels)}]})
  config = DataConfig(
    name='tfds',
    path=str(tmp_path),
    dataset_a='tiny_pictures',
    dataset_b='tiny_grey',
    channels_b=1,
  )
  with caplog.at_level(logging.WARNING, 'cyclegan_jax'):
    images = open_images(config)
  assert [len(images[split]) for split in SPLITS] == [3, 1, 2, 1]
  assert contents(images['test_a']) == {
    picture(f'test/{i}').tobytes() for i in range(2)
  }
  np.testing.assert_array_equal(images['train_b'].read(0)[..., 0], pixels)
  assert images['test_b'].names == ('tiny_grey/train/00000',)
  assert (
    'tiny_grey has no split test: the training images of b take its place'
    in caplog.text
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
  from concurrent.futures import ThreadPoolExecutor

  config = DataConfig(
    name='tfds',
    path=str(tmp_path),
    dataset_a='tiny_pictures',
    dataset_b='tiny_pictures',
  )
  images = open_images(config)['train_a']
  expected = [images.read(i) for i in range(3)]
  with ThreadPoolExecutor(8) as pool:
    read = list(pool.map(images.read, [0, 1, 2] * 50))
  for i, image in enumerate(read):
    np.testing.assert_array_equal(image, expected[i % 3])


def test_damaged_record_is_an_image_error(register, tmp_path):
  features = {'image': tfds.features.Image()}
  register('tiny_damaged', features, {'train': [{'image': b'junk'}]})
  options = {'dataset_a': 'tiny_damaged', 'dataset_b': 'tiny_damaged'}
  images = open_images(DataConfig(name='tfds', path=str(tmp_path), **options))
  with pytest.raises(ImageError) as caught:
    images['train_a'].read(0)
  assert caught.value.name == 'tiny_damaged/train/00000'
  assert caught.value.reason == 'not a JPEG, PNG, WebP, BMP or TIFF image'


def test_data_set_without_images(register, tmp_path):
  register('tiny_texts', {'text': np.str_}, {'train': [{'text': 'word'}]})
  options = {'dataset_a': 'tiny_texts', 'dataset_b': 'tiny_texts'}
  assert message_of(path=str(tmp_path), **options) == (
    "config.data.dataset_a='tiny_texts' has no feature that is an image: it "
    'has text'
  )


def test_data_set_of_several_images(register, tmp_path):
  image = tfds.features.Image()
  example = {'left': png(picture('l')), 'right': png(picture('r'))}
  features = {'left': image, 'right': image}
  register('tiny_pairs', features, {'train': [example]})
  options = {'dataset_a': 'tiny_pairs', 'dataset_b': 'tiny_pairs'}
  assert message_of(path=str(tmp_path), **options) == (
    "config.data.dataset_a='tiny_pairs' has several features that are images "
    "and none called 'image': it has left, right"
  )


def test_data_set_without_the_splits(tiny, tmp_path):
  assert message_of(path=str(tmp_path), dataset='tiny_pictures') == (
    "config.data.dataset='tiny_pictures' has no split trainA, only test, "
    'train: two data sets of one domain each are config.data.dataset_a and '
    'config.data.dataset_b'
  )


def test_builder_that_needs_tensorflow(register, tmp_path):
  # TFDS encodes arrays by TensorFlow; bytes it takes as they are.
  features = {'image': tfds.features.Image()}
  splits = {'train': [{'image': picture('array')}]}
  register('tiny_arrays', features, splits)
  options = {'dataset_a': 'tiny_arrays', 'dataset_b': 'tiny_arrays'}
  assert message_of(path=str(tmp_path), **options) == (
    "config.data.dataset_a='tiny_arrays' can't be prepared here (No module "
    "named 'tensorflow'): where that is installed, run "
    "tfds.builder(...).download_and_prepare(file_format='array_record'), then "
    'give its data_dir as config.data.path'
  )


def test_builder_that_fails(register, tmp_path):
  register('tiny_wrong', {'image': tfds.features.Image()}, {'train': [{}]})
  options = {'dataset_a': 'tiny_wrong', 'dataset_b': 'tiny_wrong'}
  assert message_of(path=str(tmp_path), **options) == (
    f"config.data.dataset_a='tiny_wrong' can't be prepared in {tmp_path}"
    "/tiny_wrong/1.0.0: 'image' (KeyError)"
  )


def test_data_prepared_as_tfrecord(tiny, tmp_path):
  config = DataConfig(
    name='tfds',
    path=str(tmp_path),
    dataset_a='tiny_pictures',
    dataset_b='tiny_pictures',
  )
  open_images(config)
  folder = tmp_path / 'tiny_pictures' / '1.0.0'
  info = folder / 'dataset_info.json'
  info.write_text(info.read_text().replace('array_record', 'tfrecord'))
  with pytest.raises(DataError) as caught:
    open_images(config)
  assert str(caught.value) == (
    f'{folder} holds tiny_pictures in a format that takes TensorFlow to '
    'read: give another config.data.path, to prepare it anew'
  )


@pytest.mark.parametrize(
  'options, message',
  [
    (
      {},
      'config.data.dataset is not set: give a TFDS data set of two domains, '
      "such as 'cycle_gan/horse2zebra', or two data sets by "
      'config.data.dataset_a and config.data.dataset_b',
    ),
    (
      {'dataset_b': 'mnist'},
      "config.data.dataset_a is not set: give the TFDS data set of a's images",
    ),
    (
      {'dataset': 'x', 'dataset_b': 'y'},
      "config.data.dataset_b='y' and config.data.dataset='x' are both set: "
      "leave one of them ''",
    ),
    (
      {'dataset': 'horse2zebra'},
      "config.data.dataset='horse2zebra' is unknown to TFDS: did you mean one "
      'of cycle_gan/horse2zebra, ',
    ),
    (
      {'dataset_a': 'minst', 'dataset_b': 'x'},
      "config.data.dataset_a='minst' is unknown to TFDS: did you mean one of "
      'mnist, ',
    ),
    (
      {'dataset': 'cycle_gan'},
      "config.data.dataset='cycle_gan' is unknown to TFDS: choose from "
      'cycle_gan/apple2orange, cycle_gan/summer2winter_yosemite, ',
    ),
    (
      {'dataset': 'cycle_gan/horses'},
      "config.data.dataset='cycle_gan/horses' is unknown to TFDS: choose from "
      'cycle_gan/apple2orange, ',
    ),
    (
      {'dataset': 'mnist/28'},
      "config.data.dataset='mnist/28' is unknown to TFDS: choose from mnist",
    ),
    (
      {'dataset': 'x', 'channels_a': 7},
      "config.data.channels_a=7 can't be had from files: choose from 1 "
      '(grey), 2 (grey and alpha), 3 (RGB), 4 (RGBA)',
    ),
  ],
)
def test_option_errors(options, message, tmp_path):
  told = message_of(path=str(tmp_path), **options)
  assert told == message or (message[-1] == ' ' and told.startswith(message))


@pytest.mark.parametrize('package', ['tensorflow_datasets', 'array_record'])
def test_missing_package(package, monkeypatch):
  monkeypatch.setitem(sys.modules, package, None)
  message = message_of(dataset='cycle_gan/maps')
  assert message.startswith("config.data.name='tfds' needs more packages (")
  assert package in message
  assert message.endswith("): pip install 'cyclegan_jax[tfds]'")


def test_config_errors_are_config_errors(tmp_path):
  with pytest.raises(ConfigError):
    open_images(DataConfig(name='tfds', path=str(tmp_path), dataset='minst'))


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
