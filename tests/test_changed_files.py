"""Files that change, vanish or break while a run reads them."""

import itertools
import logging
import os
import threading

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.config import Config
from cyclegan_jax.data.loader import TrainBatches
from cyclegan_jax.data.sources import open_images
from cyclegan_jax.errors import DataError

SIZE = 16


def save(path, seed, *, shape=(SIZE, SIZE, 3)):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
  Image.fromarray(pixels).save(path)
  return pixels


@pytest.fixture
def folder(tmp_path):
  for i in range(4):
    save(tmp_path / 'trainA' / f'{i}.png', i)
    save(tmp_path / 'trainB' / f'{i}.png', 10 + i)
  return tmp_path


def config_of(folder, **data):
  """Nothing is cached: each image is read once an epoch, of two batches."""
  defaults = {
    'name': 'folder',
    'path': str(folder),
    'size': SIZE,
    'load_size': SIZE,
    'num_workers': 0,
    'prefetch_batches': 1,
    'cache_gib': 0.0,
  }
  return Config().replace(
    batch_size=2, generator={'isize': SIZE}, data=defaults | data
  )


def warnings_of(caplog):
  return [
    each.getMessage()
    for each in caplog.records
    if each.levelno == logging.WARNING and 'folder of test' not in each.msg
  ]


def epochs(batches, count):
  """The images of a, by epoch."""
  return [
    np.concatenate([b['a'] for b in itertools.islice(batches, 2)])
    for _ in range(count)
  ]


def contains(images, image):
  return bool((images == image).all(axis=(1, 2, 3)).any())


@pytest.mark.parametrize('num_workers', [0, 8])
def test_a_changed_image_is_reported_once_and_used(folder, num_workers, caplog):
  config = config_of(folder, num_workers=num_workers)
  path = folder / 'trainA' / '2.png'
  with TrainBatches(config, open_images(config.data)) as batches:
    first, *_ = epochs(batches, 1)
    assert not warnings_of(caplog)
    old = np.asarray(Image.open(path))
    new = save(path, 99)
    epochs(batches, 1)  # some images may have been read ahead
    for epoch in epochs(batches, 3):
      assert contains(epoch, new)
      assert not contains(epoch, old)
  assert contains(first, old)
  (warning,) = warnings_of(caplog)
  assert warning.startswith(f'{path} changed')


@pytest.mark.parametrize(
  'num_workers, is_broken', [(0, False), (0, True), (4, False)]
)
def test_a_changed_image_ends_a_strict_run(folder, num_workers, is_broken):
  config = config_of(folder, strict=True, num_workers=num_workers)
  path = folder / 'trainA' / '2.png'
  with TrainBatches(config, open_images(config.data)) as batches:
    epochs(batches, 1)
    if is_broken:
      path.write_bytes(b'')
    else:
      save(path, 99)
    with pytest.raises(DataError, match=r'config\.data\.strict') as caught:
      epochs(batches, 3)
  assert str(caught.value).startswith(f'{path} changed')


def test_the_same_size_at_another_time_is_a_change(folder, caplog):
  config = config_of(folder)
  with TrainBatches(config, open_images(config.data)) as batches:
    os.utime(folder / 'trainB' / '0.png', (1, 1))
    epochs(batches, 2)
  (warning,) = warnings_of(caplog)
  assert warning.startswith(f'{folder}/trainB/0.png changed')


def test_cached_images_are_not_read_again(folder, caplog):
  config = config_of(folder, cache_gib=1.0, strict=True)
  with TrainBatches(config, open_images(config.data)) as batches:
    before, *_ = epochs(batches, 1)
    for path in (folder / 'trainA').iterdir():
      save(path, 99)
    again = epochs(batches, 2)[1]
  assert sorted(map(bytes, again)) == sorted(map(bytes, before))
  assert not warnings_of(caplog)


def damage(path, how):
  """Damages a file; returns the reason that a warning gives."""
  content = path.read_bytes()
  match how:
    case 'vanished':
      path.unlink()
      return 'No such file or directory'
    case 'half written':
      path.write_bytes(content[: len(content) // 2])
      return 'image file is truncated'
    case 'emptied':
      path.write_bytes(b'')
      return 'the file is empty'
    case 'a folder':
      path.unlink()
      path.mkdir()
      return 'a folder'
    case 'a pipe':
      path.unlink()
      os.mkfifo(path)
      return 'not a regular file'
    case 'a device':
      path.unlink()
      path.symlink_to('/dev/zero')
      return 'not a regular file'


@pytest.mark.parametrize(
  'how, num_workers',
  [
    ('vanished', 0),
    ('half written', 1),
    ('emptied', 8),
    ('a folder', 1),
    ('a pipe', 8),
    ('a device', 0),
  ],
)
def test_an_image_that_breaks_during_a_run(folder, how, num_workers, caplog):
  config = config_of(folder, num_workers=num_workers)
  images = open_images(config.data)
  path = folder / 'trainA' / '2.png'
  broken, substitute = (
    np.asarray(Image.open(folder / 'trainA' / f'{i}.png')) for i in (2, 3)
  )
  with TrainBatches(config, images) as batches:
    epochs(batches, 1)
    reason = damage(path, how)
    epochs(batches, 1)
    for epoch in epochs(batches, 2):
      assert not contains(epoch, broken)
      assert (epoch == substitute).all(axis=(1, 2, 3)).sum() == 2
  (warning,) = warnings_of(caplog)
  assert str(path) in warning
  assert reason in warning
  assert warning.endswith(' (1 of at most 10)')


def test_more_images_vanish_than_the_budget(folder):
  config = config_of(folder, max_corrupt=2)
  with TrainBatches(config, open_images(config.data)) as batches:
    epochs(batches, 1)
    for i in range(3):
      (folder / 'trainA' / f'{i}.png').unlink()
    with pytest.raises(DataError, match=r'config\.data\.max_corrupt=2'):
      epochs(batches, 2)


def test_broken_images_give_the_same_batches_in_any_threads(folder):
  images = open_images(config_of(folder).data)
  damage(folder / 'trainA' / '1.png', 'a pipe')
  damage(folder / 'trainA' / '3.png', 'half written')
  damage(folder / 'trainB' / '0.png', 'vanished')
  save(folder / 'trainB' / '1.png', 99)
  runs = []
  for num_workers in (0, 1, 8):
    config = config_of(folder, num_workers=num_workers, prefetch_batches=3)
    with TrainBatches(config, images) as batches:
      runs.append(list(itertools.islice(batches, 9)))
  for run in runs[1:]:
    for batch, expected in zip(run, runs[0], strict=True):
      for domain in 'ab':
        np.testing.assert_array_equal(batch[domain], expected[domain])


def test_a_pipe_blocks_no_thread(folder):
  config = config_of(folder, num_workers=4)
  images = open_images(config.data)
  for i in range(3):
    damage(folder / 'trainA' / f'{i}.png', 'a pipe')
  before = set(threading.enumerate())
  with TrainBatches(config, images) as batches:
    epochs(batches, 2)
  for thread in set(threading.enumerate()) - before:
    thread.join(10)
    assert not thread.is_alive()


def test_a_line_is_not_scaled_to_a_huge_image(tmp_path, caplog):
  save(tmp_path / 'trainA' / 'line.png', 0, shape=(1, 60_000, 3))
  save(tmp_path / 'trainA' / 'sound.png', 0)
  save(tmp_path / 'trainB' / '0.png', 0)
  config = config_of(
    tmp_path, preprocess='scale_and_crop', load_size=64, max_pixels=100_000
  )
  with TrainBatches(config, open_images(config.data)) as batches:
    epochs(batches, 1)
  (warning,) = warnings_of(caplog)
  assert f'{tmp_path}/trainA/line.png' in warning
  assert 'config.data.max_pixels=100000' in warning
