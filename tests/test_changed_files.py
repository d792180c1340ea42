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


@pytest.mark.parametrize('num_workers', [0, 1, 8])
def test_a_changed_image_is_told_once_and_used(folder, num_workers, caplog):
  config = config_of(folder, num_workers=num_workers)
  with TrainBatches(config, open_images(config.data)) as batches:
    first, *_ = epochs(batches, 1)
    assert not warnings_of(caplog)
    path = folder / 'trainA' / '2.png'
    old = np.asarray(Image.open(path))
    new = save(path, 99)
    epochs(batches, 1)  # some of which may have been read ahead
    for epoch in epochs(batches, 3):
      assert contains(epoch, new)
      assert not contains(epoch, old)
  assert contains(first, old)
  assert warnings_of(caplog) == [
    f'{path} changed since the run began: its new content is used'
  ]


@pytest.mark.parametrize('num_workers', [0, 4])
def test_a_changed_image_ends_a_strict_run(folder, num_workers):
  config = config_of(folder, strict=True, num_workers=num_workers)
  with TrainBatches(config, open_images(config.data)) as batches:
    epochs(batches, 1)
    path = folder / 'trainA' / '2.png'
    save(path, 99)
    with pytest.raises(DataError) as caught:
      epochs(batches, 3)
  assert str(caught.value) == (
    f'{path} changed since the run began: put it back, or set '
    'config.data.strict=False to use its new content'
  )


def test_a_changed_image_that_is_broken_ends_a_strict_run(folder):
  config = config_of(folder, strict=True)
  with TrainBatches(config, open_images(config.data)) as batches:
    (folder / 'trainA' / '2.png').write_bytes(b'')
    with pytest.raises(DataError, match=r'2\.png changed since the run began'):
      epochs(batches, 3)


def test_the_same_size_at_another_time_is_a_change(folder, caplog):
  config = config_of(folder)
  with TrainBatches(config, open_images(config.data)) as batches:
    os.utime(folder / 'trainB' / '0.png', (1, 1))
    epochs(batches, 2)
  assert warnings_of(caplog) == [
    f'{folder}/trainB/0.png changed since the run began: its new content is '
    'used'
  ]


def test_what_is_cached_is_not_read_again(folder, caplog):
  config = config_of(folder, cache_gib=1.0, strict=True)
  with TrainBatches(config, open_images(config.data)) as batches:
    before, *_ = epochs(batches, 1)
    for path in (folder / 'trainA').iterdir():
      save(path, 99)
    again = epochs(batches, 2)[1]
  assert sorted(map(bytes, again)) == sorted(map(bytes, before))
  assert not warnings_of(caplog)


def damage(path, how):
  """Does to a file what happens to files; returns how it is told."""
  whole = path.read_bytes()
  match how:
    case 'vanished':
      path.unlink()
      return 'No such file or directory'
    case 'half written':
      path.write_bytes(whole[: len(whole) // 2])
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


DAMAGES = (
  'vanished',
  'half written',
  'emptied',
  'a folder',
  'a pipe',
  'a device',
)


@pytest.mark.parametrize('num_workers', [0, 1, 8])
@pytest.mark.parametrize('how', DAMAGES)
def test_an_image_that_breaks_in_mid_run(folder, how, num_workers, caplog):
  config = config_of(folder, num_workers=num_workers)
  images = open_images(config.data)
  path = folder / 'trainA' / '2.png'
  broken, stands_in = (
    np.asarray(Image.open(folder / 'trainA' / f'{i}.png')) for i in (2, 3)
  )
  with TrainBatches(config, images) as batches:
    epochs(batches, 1)
    reason = damage(path, how)
    epochs(batches, 1)
    for epoch in epochs(batches, 2):
      assert not contains(epoch, broken)
      assert (epoch == stands_in).all(axis=(1, 2, 3)).sum() == 2
  (told,) = warnings_of(caplog)
  assert told.startswith(f"skipped {path} can't be read: {reason}")
  assert told.endswith(' (1 of at most 10)')


def test_more_images_vanish_than_the_budget(folder):
  config = config_of(folder, max_corrupt=2)
  with TrainBatches(config, open_images(config.data)) as batches:
    epochs(batches, 1)
    for i in range(3):
      (folder / 'trainA' / f'{i}.png').unlink()
    with pytest.raises(DataError) as caught:
      epochs(batches, 2)
  told = str(caught.value)
  assert told.startswith(
    '3 images can not be read, more than config.data.max_corrupt=2: '
  )
  assert told.endswith(
    "can't be read: No such file or directory: mend or remove it, or raise "
    'the budget'
  )


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


def test_a_pipe_holds_no_thread(folder):
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


def test_a_line_does_not_become_a_plane(tmp_path, caplog):
  save(tmp_path / 'trainA' / 'line.png', 0, shape=(1, 60_000, 3))
  save(tmp_path / 'trainA' / 'sound.png', 0)
  save(tmp_path / 'trainB' / '0.png', 0)
  config = config_of(
    tmp_path, preprocess='scale_and_crop', load_size=64, max_pixels=100_000
  )
  with TrainBatches(config, open_images(config.data)) as batches:
    epochs(batches, 1)
  assert warnings_of(caplog) == [
    f"skipped {tmp_path}/trainA/line.png can't be read: 60000 x 1, with "
    'config.data.load_size=64 as its shorter side, is 245760000 pixels, more '
    'than config.data.max_pixels=100000 (1 of at most 10)'
  ]
