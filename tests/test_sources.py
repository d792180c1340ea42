"""Images by split, from folders and from code."""

import os

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.config import DataConfig
from cyclegan_jax.data.sources import open_images
from cyclegan_jax.data.synthetic import drawings
from cyclegan_jax.errors import ConfigError, DataError

SPLITS = ('train_a', 'train_b', 'test_a', 'test_b')


def noise(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def folders(tmp_path):
  """trainA 3, trainB 2, testA 1, testB 2 images of distinct pixels."""
  counts = {'trainA': 3, 'trainB': 2, 'testA': 1, 'testB': 2}
  for number, (name, count) in enumerate(counts.items()):
    (tmp_path / name).mkdir()
    for i in range(count):
      pixels = noise(6, 5, 3, seed=10 * number + i)
      Image.fromarray(pixels).save(tmp_path / name / f'{i}.png')
  return tmp_path


# Folders.


def test_a_folder_of_images(folders):
  images = open_images(DataConfig(name='folder', path=str(folders)))
  assert tuple(images) == SPLITS
  assert [len(images[split]) for split in SPLITS] == [3, 2, 1, 2]
  second = images['train_b'].read(1)
  np.testing.assert_array_equal(second, noise(6, 5, 3, seed=11))
  assert images['train_b'].shape_of(1) == (6, 5)
  assert images['test_a'].names == (str(folders / 'testA' / '0.png'),)


def test_channels_of_domains(folders):
  config = DataConfig(name='folder', path=str(folders), channels_b=1)
  images = open_images(config)
  assert images['train_a'].read(0).shape == (6, 5, 3)
  assert images['test_b'].read(0).shape == (6, 5, 1)


def test_training_images_replace_missing_test_images(folders, caplog):
  os.rename(folders / 'testA', folders / 'elsewhere')
  images = open_images(DataConfig(name='folder', path=str(folders)))
  assert images['test_a'] is images['train_a']
  assert len(images['test_b']) == 2
  (message,) = caplog.messages
  assert 'config.data.test_a' in message


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
  # A named folder replaces the one in the path.
  config = DataConfig(
    name='folder', path=str(folders), train_a=str(folders / 'testB')
  )
  images = open_images(config)
  assert [len(images[split]) for split in SPLITS] == [2, 2, 1, 2]


@pytest.mark.parametrize(
  'options, expected',
  [
    ({}, 'config.data.path'),
    ({'train_a': '{}/trainA'}, 'config.data.train_b'),
    ({'path': '{}/none'}, "config.data.path='{}/none'"),
    ({'path': '\0'}, r"config.data.path='\x00'"),
    ({'path': '{}/trainA/0.png'}, "config.data.path='{}/trainA/0.png'"),
    ({'path': '{}', 'train_b': '{}/none'}, "config.data.train_b='{}/none'"),
    ({'path': '{}', 'test_a': '{}/none'}, "config.data.test_a='{}/none'"),
    # One level too high: the message lists what is there.
    ({'path': '{}/up'}, '0.txt, 1.txt, 2.txt, 3.txt, 4.txt, 5.txt, data, '),
    ({'path': '{}/empty'}, '{}/empty'),
    ({'path': '{}', 'train_a': '{}/up'}, '{}/up'),
    ({'path': '{}', 'test_b': '{}/empty'}, '{}/empty'),
    ({'path': '{}', 'channels_b': 513}, 'config.data.channels_b=513'),
  ],
)
def test_folder_errors(options, expected, folders):
  (folders / 'empty').mkdir()
  (folders / 'up' / 'data').mkdir(parents=True)
  for name in [*(f'{i}.txt' for i in range(6)), 'new\nline', 'zz.mp4']:
    (folders / 'up' / name).touch()
  options = {
    name: value.format(folders) if isinstance(value, str) else value
    for name, value in options.items()
  }
  with pytest.raises((ConfigError, DataError)) as caught:
    open_images(DataConfig(name='folder', **options))
  assert expected.format(folders) in str(caught.value)
  assert '\n' not in str(caught.value)


# Drawings.


def test_drawings():
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


@pytest.mark.parametrize(
  'name, value', [('channels_b', 1), ('load_size', 2000)]
)
def test_errors_of_drawings(name, value):
  with pytest.raises(ConfigError, match=rf'config\.data\.{name}={value}'):
    open_images(DataConfig(**{name: value}))
