"""Batches as a function of (seed, step), and what happens to bad images."""

import collections
import itertools
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cyclegan_jax.config import Config, DataConfig
from cyclegan_jax.data.folder_source import images_of_files
from cyclegan_jax.data.image_list import Images
from cyclegan_jax.data.loader import (
  Decoder,
  TrainBatches,
  image_at,
  read_test_image,
  sample_images,
)
from cyclegan_jax.data.resizing import raw_size, resize
from cyclegan_jax.data.sources import open_images
from cyclegan_jax.errors import DataError
from cyclegan_jax.media.decoding import ImageError

MODES = ('resize_and_crop', 'crop', 'scale_and_crop', 'resize_and_center_crop')


def noise(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


class Counted:
  """Counts what is read through an `Images`, and by which threads."""

  def __init__(self, images):
    self.reads = collections.Counter()
    self.threads = set()
    self._images = images
    self._lock = threading.Lock()

  @property
  def images(self):
    return Images(self._images.names, self._read, self._images.shape_of)

  def _read(self, index):
    with self._lock:
      self.reads[index] += 1
      self.threads.add(threading.current_thread().name)
    return self._images.read(index)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Four images of a and three of b, of many shapes, on disk."""
  path = tmp_path_factory.mktemp('images')
  shapes = {'A': [(20, 30), (31, 18), (25, 25), (40, 19)], 'B': [(22, 21)] * 3}
  for number, (name, sizes) in enumerate(shapes.items()):
    for split in ('train', 'test'):
      (path / f'{split}{name}').mkdir()
      for i, size in enumerate(sizes):
        image = Image.fromarray(noise(*size, 3, seed=10 * number + i))
        image.save(path / f'{split}{name}' / f'{i}.png')
  return path


def config_of(folder, **data):
  defaults = {
    'name': 'folder',
    'path': str(folder),
    'size': 16,
    'load_size': 18,
    'num_workers': 0,
    'prefetch_batches': 1,
  }
  batch_size = data.pop('batch_size', 2)
  return Config().replace(
    batch_size=batch_size, generator={'isize': 16}, data=defaults | data
  )


def take(config, images, count, *, start_step=0):
  with TrainBatches(config, images, start_step=start_step) as batches:
    return list(itertools.islice(batches, count))


def assert_same(batches, expected):
  assert len(batches) == len(expected)
  for batch, wanted in zip(batches, expected, strict=True):
    assert batch.keys() == wanted.keys() == {'a', 'b'}
    for domain in 'ab':
      np.testing.assert_array_equal(batch[domain], wanted[domain])


def constants(num_a, num_b):
  """Images of one value each: the image's index."""
  return {
    f'train_{domain}': Images(
      tuple(f'{domain}{i}' for i in range(num)),
      lambda index: np.full((16, 16, 3), index, np.uint8),
      None,
    )
    for domain, num in (('a', num_a), ('b', num_b))
  }


def indices_of(batches, domain):
  return np.concatenate([batch[domain][:, 0, 0, 0] for batch in batches])


# A batch is a function of the seed and the step.


@pytest.mark.parametrize(
  'mode, num_workers, prefetch',
  [('resize_and_crop', 1, 3), ('crop', 8, 4), ('scale_and_crop', 4, 1)],
)
def test_batches_do_not_depend_on_threads(folder, mode, num_workers, prefetch):
  config = config_of(folder, preprocess=mode)
  images = open_images(config.data)
  threaded = config.replace(
    data={'num_workers': num_workers, 'prefetch_batches': prefetch}
  )
  assert_same(take(threaded, images, 7), take(config, images, 7))


@pytest.mark.parametrize(
  'mode, start_step', [('resize_and_crop', 1), ('scale_and_crop', 5)]
)
def test_batches_do_not_depend_on_the_start_step(folder, mode, start_step):
  config = config_of(folder, preprocess=mode)
  images = open_images(config.data)
  assert_same(
    take(config, images, 3, start_step=start_step),
    take(config, images, start_step + 3)[start_step:],
  )


def test_orders_depend_on_seed_domain_and_epoch():
  images, config = constants(50, 50), config_of('', load_size=16)
  batches = take(config, images, 50)
  a, b = indices_of(batches, 'a'), indices_of(batches, 'b')
  other_seed = indices_of(take(config.replace(seed=1), images, 25), 'a')
  for order in (b[:50], a[50:], other_seed):
    assert sorted(order) == sorted(a[:50])
    assert (order != a[:50]).any()


@given(
  num_a=st.integers(1, 9),
  num_b=st.integers(1, 9),
  batch_size=st.integers(1, 7),
  start_step=st.integers(0, 20),
)
def test_each_image_once_in_each_epoch_of_its_own_domain(
  num_a, num_b, batch_size, start_step
):
  config = config_of('', load_size=16, batch_size=batch_size)
  images = constants(num_a, num_b)
  num_steps = -(-3 * max(num_a, num_b) // batch_size)
  batches = take(config, images, num_steps, start_step=start_step)
  for domain, num in (('a', num_a), ('b', num_b)):
    order = indices_of(batches, domain)
    assert len(order) == num_steps * batch_size
    first = -(start_step * batch_size) % num  # where the next epoch begins
    for begin in range(first, len(order) - num + 1, num):
      assert sorted(order[begin : begin + num]) == list(range(num))


@given(st.integers(0, 10**12), st.integers(1, 1000), st.integers(0, 2**63 - 1))
def test_image_at_is_in_range_far_into_a_run(position, num_images, seed):
  assert 0 <= image_at(position, num_images, seed, 'b') < num_images


# Unreadable images.


@pytest.fixture
def broken(folder, tmp_path):
  """Paths as in trainA, with a truncated image and a text file."""
  paths = sorted((folder / 'trainA').iterdir())
  whole = paths[0].read_bytes()
  (tmp_path / 'truncated.png').write_bytes(whole[: len(whole) // 2])
  (tmp_path / 'words.png').write_text('no image')
  names = [
    paths[0],
    tmp_path / 'truncated.png',
    tmp_path / 'words.png',
    paths[2],
    paths[1],
  ]
  return [str(name) for name in names]


def images_of(names, folder):
  options = {'channels': 3, 'max_pixels': 10_000}
  others = sorted(str(each) for each in (folder / 'trainB').iterdir())
  return {
    'train_a': images_of_files(names, **options),
    'train_b': images_of_files(others, **options),
  }


@pytest.mark.parametrize('num_workers', [0, 1, 8])
def test_the_next_readable_image_replaces_an_unreadable_one(
  folder, broken, num_workers, caplog
):
  config = config_of(folder, load_size=16, max_corrupt=2)
  images = images_of(broken, folder)
  sound = [broken[i] for i in (0, 3, 4)]
  threaded = config.replace(
    data={'num_workers': num_workers, 'prefetch_batches': 3, 'cache_gib': 0.0}
  )
  batches = take(threaded, images, 12)
  got = np.concatenate([batch['a'] for batch in batches])
  pixels = [
    resize(
      images_of_files([n], channels=3, max_pixels=10**6).read(0), config.data
    )
    for n in sound
  ]
  # Index 1 and 2 give the image of index 3.
  replacement = {0: 0, 1: 1, 2: 1, 3: 1, 4: 2}
  expected = np.stack(
    [pixels[replacement[image_at(at, 5, 0, 'a')]] for at in range(24)]
  )
  np.testing.assert_array_equal(got, expected)
  assert sorted(text.split()[1] for text in caplog.messages) == sorted(
    broken[1:3]
  )


def test_a_corrupt_image_in_two_threads_counts_once(folder, caplog):
  meeting = threading.Barrier(2, timeout=30)

  def read(index):
    if index == 0:
      meeting.wait()
      raise ImageError('torn', 'it is torn')
    return np.zeros((18, 18, 3), np.uint8)

  images = images_of([], folder) | {
    'train_a': Images(('torn', 'sound'), read, None)
  }
  # Two epochs in one batch, so that two threads ask for the torn one.
  config = config_of(folder, batch_size=4, num_workers=4, max_corrupt=1)
  take(config, images, 1)
  (message,) = caplog.messages
  assert 'torn' in message
  assert '(1 of at most 1)' in message


@pytest.mark.parametrize('num_workers', [0, 4])
def test_too_many_unreadable_images(folder, broken, num_workers):
  config = config_of(folder, max_corrupt=0, num_workers=num_workers)
  images = images_of([broken[2]], folder)
  with pytest.raises(DataError, match=rf'max_corrupt=0: {broken[2]} '):
    take(config, images, 1)


def test_the_limit_is_exceeded_repeatedly(folder, broken):
  """The thread that met the image first may have been reading far ahead."""
  config = config_of(folder, max_corrupt=0)
  decoder = Decoder(config.data, images_of([broken[2]], folder))
  for _ in range(2):
    with pytest.raises(DataError, match='max_corrupt=0'):
      decoder.submit('a', 0, 0)


def test_no_image_is_readable(folder, broken):
  config = config_of(folder)
  with pytest.raises(DataError, match='train_a'):
    take(config, images_of(broken[1:3], folder), 1)


def test_an_image_smaller_than_the_crop(folder, tmp_path):
  path = tmp_path / 'small.png'
  Image.fromarray(noise(15, 40, 3)).save(path)
  images = images_of([str(path)], folder)
  config = config_of(folder, preprocess='crop')
  with pytest.raises(DataError, match=rf'{path}.*config\.data\.size=16'):
    take(config, images, 1)
  enlarged = config.replace(data={'preprocess': 'scale_and_crop'})
  assert take(enlarged, images, 1)[0]['a'].shape == (2, 16, 16, 3)


# Caching and reading ahead.


def reads_of(config, num_batches):
  images = open_images(config.data)
  counted = {name: Counted(images[name]) for name in ('train_a', 'train_b')}
  take(config, {k: v.images for k, v in counted.items()}, num_batches)
  return counted['train_a'].reads, counted['train_b'].reads


@pytest.mark.parametrize('mode', ['resize_and_crop', 'scale_and_crop'])
def test_each_image_is_read_once_with_a_cache(folder, mode):
  config = config_of(folder, preprocess=mode)
  a, b = reads_of(config, 12)  # six epochs of a, eight of b
  assert a == dict.fromkeys(range(4), 1)
  assert b == dict.fromkeys(range(3), 1)
  a, b = reads_of(config.replace(data={'cache_gib': 0.0}), 12)
  assert a == dict.fromkeys(range(4), 6)
  assert b == dict.fromkeys(range(3), 8)


@pytest.mark.parametrize('mode', ['resize_and_crop', 'resize_and_center_crop'])
def test_the_cache_holds_what_fits(folder, mode):
  config = config_of(folder, preprocess=mode, load_size=16)
  images_that_fit = 2
  room = (images_that_fit + 0.5) * 16 * 16 * 3 / 2**30
  a, b = reads_of(config.replace(data={'cache_gib': room}), 12)
  assert sorted([*a.values(), *b.values()]).count(1) == images_that_fit
  assert {*a.values(), *b.values()} == {1, 6, 8}


def test_the_cache_keeps_only_the_center(folder):
  config = config_of(folder, preprocess='resize_and_center_crop', load_size=90)
  assert resize(noise(50, 60, 3), config.data).base is None


@pytest.mark.parametrize('num_workers', [0, 3])
def test_no_more_is_read_ahead_than_requested(folder, num_workers):
  config = config_of(
    folder, num_workers=num_workers, prefetch_batches=3, cache_gib=0.0
  )
  images = open_images(config.data)
  counted = {name: Counted(images[name]) for name in ('train_a', 'train_b')}
  with TrainBatches(
    config, {k: v.images for k, v in counted.items()}
  ) as batches:
    for taken in (1, 2, 3):
      next(batches)
      time.sleep(0.05)  # for threads that would read too far
      for each in counted.values():
        assert each.reads.total() <= 2 * (taken + 3)
    names = set().union(*(each.threads for each in counted.values()))
    assert all(name.startswith('decode') for name in names) == bool(num_workers)


def test_closing_ends_the_threads(folder):
  config = config_of(folder, num_workers=4, prefetch_batches=4)
  before = set(threading.enumerate())
  batches = TrainBatches(config, open_images(config.data))
  next(batches)
  started = set(threading.enumerate()) - before
  assert started
  batches.close()
  assert_ended(started)


def assert_ended(threads):
  # Closing does not wait for them, as their disk may hang.
  for thread in threads:
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_an_error_ends_the_threads(folder, broken):
  config = config_of(folder, num_workers=4, max_corrupt=0)
  before = set(threading.enumerate())
  with pytest.raises(DataError):
    next(TrainBatches(config, images_of([broken[2]], folder)))
  assert_ended(set(threading.enumerate()) - before)


# Waiting.


class Blocked:
  """Images of which one blocks until it is released."""

  def __init__(self, index):
    self.released = threading.Event()
    self._index = index

  def read(self, index):
    if index == self._index:
      self.released.wait(timeout=60)
    return np.full((16, 16, 3), index, np.uint8)

  def images(self, count):
    return Images(tuple(f'a{i}' for i in range(count)), self.read, None)


def test_waiting_is_reported(folder):
  config = config_of(folder, num_workers=2, load_size=16, batch_size=3)
  expected = take(config, constants(3, 3), 2)
  blocked = Blocked(1)
  calls = []

  def on_wait(seconds, reading):
    calls.append((seconds, reading))
    if len(calls) == 3:
      blocked.released.set()

  images = constants(3, 3) | {'train_a': blocked.images(3)}
  with TrainBatches(config, images, on_wait=on_wait) as batches:
    taken = [next(batches), next(batches)]
    assert batches.waited > calls[-1][0]
  assert_same(taken, expected)
  assert [reading for _, reading in calls[:3]] == ['reading a1'] * 3
  seconds = [each for each, _ in calls]
  assert seconds == sorted(seconds)
  assert seconds[0] > 0.1


def test_a_wait_can_be_interrupted(folder):
  config = config_of(folder, num_workers=1, load_size=16, batch_size=3)
  before = set(threading.enumerate())
  blocked = Blocked(1)

  def on_wait(seconds, reading):
    raise InterruptedError

  images = constants(3, 3) | {'train_a': blocked.images(3)}
  with (
    pytest.raises(InterruptedError),
    TrainBatches(config, images, on_wait=on_wait) as batches,
  ):
    next(batches)
  threads = set(threading.enumerate()) - before
  assert any(thread.is_alive() for thread in threads)
  blocked.released.set()
  assert_ended(threads)


def test_names_of_a_batch(folder):
  config = config_of(folder, num_workers=2, load_size=16, batch_size=2)
  images = constants(4, 3)
  with TrainBatches(config, images) as batches:
    for step in range(5):
      batch = next(batches)
      assert batches.names(step) == {
        domain: [f'{domain}{each[0, 0, 0]}' for each in batch[domain]]
        for domain in 'ab'
      }


def test_names_of_replacements(folder):
  def read(index):
    if index == 1:
      raise ImageError('a1', 'broken')
    return np.full((16, 16, 3), index, np.uint8)

  config = config_of(folder, load_size=16, batch_size=3)
  images = constants(3, 3)
  images['train_a'] = Images(images['train_a'].names, read, None)
  with TrainBatches(config, images) as batches:
    batch = next(batches)
    assert sorted(batches.names(0)['a']) == ['a0', 'a2', 'a2']
    assert batches.names(0)['a'] == [f'a{x[0, 0, 0]}' for x in batch['a']]


# Sizes.


@pytest.mark.parametrize(
  'mode, channels', list(zip(MODES, (1, 2, 3, 4), strict=True))
)
def test_shapes_of_batches_and_samples(folder, mode, channels):
  config = config_of(
    folder, preprocess=mode, channels_a=channels, num_workers=0
  ).replace(log={'num_samples': 9})
  images = open_images(config.data)
  height, width = raw_size(config.data)
  assert height == width == (18 if mode == 'resize_and_crop' else 16)
  for batch in take(config, images, 4):
    assert batch['a'].shape == (2, height, width, channels)
    assert batch['b'].shape == (2, height, width, 3)
    assert batch['a'].dtype == batch['b'].dtype == np.uint8
  samples = sample_images(config, images)
  # As many of each as the smaller test set has.
  assert samples['a'].shape == (3, 16, 16, channels)
  assert samples['b'].shape == (3, 16, 16, 3)


def test_samples_are_spread_over_the_test_set():
  images = {
    f'test_{domain}': Images(
      tuple(map(str, range(num))),
      lambda index: np.full((16, 16, 3), index, np.uint8),
      None,
    )
    for domain, num in (('a', 101), ('b', 5))
  }
  config = config_of('').replace(log={'num_samples': 3})
  samples = sample_images(config, images)
  assert samples['a'][:, 0, 0, 0].tolist() == [0, 50, 100]
  assert samples['b'][:, 0, 0, 0].tolist() == [0, 2, 4]


def test_samples_skip_an_unreadable_test_image(folder, broken, caplog):
  config = config_of(folder, load_size=16).replace(log={'num_samples': 5})
  images = images_of(broken, folder)
  images = {'test_a': images['train_a'], 'test_b': images['train_a']}
  samples = sample_images(config, images)['a']
  np.testing.assert_array_equal(samples[1], samples[3])
  np.testing.assert_array_equal(samples[2], samples[3])
  assert any(broken[2] in message for message in caplog.messages)


def test_no_test_image_is_readable(folder, broken):
  images = images_of(broken[2:3], folder)
  images = {'test_a': images['train_a'], 'test_b': images['train_b']}
  with pytest.raises(DataError):
    sample_images(config_of(folder), images)


def test_a_test_image_smaller_than_the_crop(tmp_path):
  path = tmp_path / 'small.png'
  Image.fromarray(noise(40, 15, 3)).save(path)
  images = images_of_files([str(path)], channels=3, max_pixels=10_000)
  data = DataConfig(size=16, load_size=16, preprocess='crop')
  with pytest.raises(DataError, match=rf'{path}.*config\.data\.size=16'):
    read_test_image(data, images, 0)


def test_random_crops_reach_every_place():
  picture = np.arange(17 * 18, dtype=np.int32).reshape(17, 18, 1) % 251
  images = Images(('x',), lambda _: picture.astype(np.uint8), None)
  config = config_of('', preprocess='crop', batch_size=8)
  batches = take(config, {'train_a': images, 'train_b': images}, 8)
  corners = {int(crop[0, 0, 0]) for b in batches for crop in b['a']}
  assert corners == {0, 1, 2, 18, 19, 20}


@pytest.mark.parametrize('mode', ['crop', 'scale_and_crop'])
def test_random_crops_are_windows_at_varied_places(folder, mode):
  config = config_of(folder, preprocess=mode, load_size=24)
  images = open_images(config.data)
  whole = [
    resize(images['train_a'].read(index), config.data) for index in range(4)
  ]
  places = collections.defaultdict(set)
  crops = np.concatenate([b['a'] for b in take(config, images, 30)])
  for position, crop in enumerate(crops):
    index = image_at(position, 4, config.seed, 'a')
    windows = np.lib.stride_tricks.sliding_window_view(
      whole[index], (16, 16), (0, 1)
    )
    found = np.argwhere(
      (windows == np.moveaxis(crop, -1, 0)).all(axis=(2, 3, 4))
    )
    assert len(found) == 1, 'each crop is a window of its image'
    places[index].add(tuple(found[0]))
  assert all(len(each) > 5 for each in places.values())
