"""Batches of training images as a pure function of (seed, step).

Each domain is an endless stream: one permutation of its images after another.
So each image occurs once per epoch of its own domain, and a and b are drawn
independently. Step s takes the positions [s * B, (s + 1) * B) of both streams.

Pairs are a third stream. If the loss uses them, a fraction
config.data.paired_share of the positions takes the next pair instead of the
next images of a and of b.
"""

import collections
import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Self

import numpy as np

from cyclegan_jax.config import Config, DataConfig
from cyclegan_jax.data.image_list import Images
from cyclegan_jax.data.pairs import training_pairs
from cyclegan_jax.data.resizing import (
  check_crop,
  check_scaled,
  random_crop,
  resize,
)
from cyclegan_jax.errors import DataError, printable
from cyclegan_jax.media.decoding import ImageError

# [B, H, W, C] by domain: uint8, or float32 in [-1, 1] if files have more than
# 8 bits. With pairs also 'is_pair': bool [B].
RawBatch = dict[str, np.ndarray]

# [H, W, C] of one domain, or of both for a pair.
_Decoded = dict[str, np.ndarray]

_POLL_SECONDS = 0.2
_STREAM_SEEDS = {'a': 0, 'b': 1, 'pairs': 2}
_SHARE_PARTS = 1_000_000
_HOST_CROPS = ('crop', 'scale_and_crop')
_ORDER, _CROP = 0, 1  # tell the streams of random numbers apart


class _PendingBatch(NamedTuple):
  """A batch that is being decoded."""

  futures: dict[str, list[Future[_Decoded]]]  # by domain
  is_pair: list[bool]


class TrainBatches:
  """Iterator over batches of images, which threads decode ahead.

  A batch is {'a', 'b'}: [B, H, W, C], uint8, or float32 in [-1, 1] if files
  have more than 8 bits. H = W is load_size if the device crops
  ('resize_and_crop'), else size. With config.loss.paired_weight it also has
  'is_pair', bool [B]: whether a and b of an example are a pair.

  Attributes:
    step: step of the next batch.
    waited: seconds that the caller has waited for batches.
  """

  def __init__(
    self,
    config: Config,
    images: Mapping[str, Images],
    *,
    start_step: int = 0,
    end_step: int | None = None,
    on_wait: Callable[[float, str], None] | None = None,
    share: tuple[int, int] = (0, 1),
  ):
    """Starts nothing; the first batch does.

    Args:
      config: seed, batch_size, data and loss.paired_weight.
      images: 'train_a' and 'train_b'.
      start_step: step of the first batch. Batches depend neither on it nor on
        the number of threads.
      end_step: step after the last batch; None for an endless iterator.
      on_wait: called repeatedly while a batch is delayed, with the seconds
        since it was requested and a text that names the images being read. Its
        exceptions end the wait.
      share: (i, n) yields the i-th of n equal parts of each batch, from 0.
    """
    self.step = start_step
    self.waited = 0.0
    self._config = config
    self._end_step = end_step
    self._pairs = training_pairs(config, images)
    self._decoder = Decoder(config.data, images, self._pairs)
    self._on_wait = on_wait
    self._share = share
    self._pending: collections.deque[_PendingBatch] = collections.deque()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def close(self) -> None:
    """Ends the threads without waiting for a disk that hangs."""
    self._decoder.close()

  def __iter__(self) -> Self:
    return self

  def __next__(self) -> RawBatch:
    """Returns the batch of `step` and increments `step`.

    Raises:
      DataError: more images are unreadable than config.data.max_corrupt.
      StopIteration: `step` is `end_step`.
    """
    if self.step == self._end_step:
      raise StopIteration
    start_time = time.monotonic()
    try:
      self._read_ahead()
      pending = self._pending.popleft()
      batch = {
        domain: np.stack(
          [self._wait_for(future, start_time)[domain] for future in futures]
        )
        for domain, futures in pending.futures.items()
      }
      if self._pairs:
        batch['is_pair'] = np.array(pending.is_pair)
    except BaseException:
      self.close()
      raise
    finally:
      self.waited += time.monotonic() - start_time
    self.step += 1
    return batch

  def names(self, step: int) -> dict[str, list[str]]:
    """Names of the images in the batch of a step, by domain.

    An unreadable image is named until it was tried; then the one that replaces
    it is.
    """
    names: dict[str, list[str]] = {'a': [], 'b': []}
    for position in self._positions(step):
      is_pair, place = self._stream_position(position)
      for domain in 'ab':
        stream = 'pairs' if is_pair else domain
        names[domain].append(
          self._decoder.names_at(stream, place, self._config.seed)[domain]
        )
    return names

  def _read_ahead(self) -> None:
    step = self.step + len(self._pending)
    last = self.step + self._config.data.prefetch_batches
    if self._end_step is not None:
      last = min(last, self._end_step)
    self._pending.extend(self._request(each) for each in range(step, last))

  def _positions(self, step: int) -> range:
    first = step * self._config.batch_size
    return range(first, first + self._config.batch_size)

  def _stream_position(self, position: int) -> tuple[bool, int]:
    """Whether an example is a pair, and its position in its stream."""
    if not self._pairs:
      return False, position
    share = self._config.data.paired_share
    before = num_paired(position, share)
    is_pair = num_paired(position + 1, share) > before
    return is_pair, before if is_pair else position - before

  def _request(self, step: int) -> _PendingBatch:
    part, num_parts = self._share
    size = self._config.batch_size // num_parts
    seed, submit = self._config.seed, self._decoder.submit
    pending = _PendingBatch({'a': [], 'b': []}, [])
    for position in self._positions(step)[part * size : (part + 1) * size]:
      is_pair, place = self._stream_position(position)
      if is_pair:  # one thread decodes both or neither
        a = b = submit('pairs', place, seed)
      else:
        a, b = (submit(domain, place, seed) for domain in 'ab')
      pending.futures['a'].append(a)
      pending.futures['b'].append(b)
      pending.is_pair.append(is_pair)
    return pending

  def _wait_for(self, future: Future[_Decoded], start_time: float) -> _Decoded:
    while True:
      try:
        return future.result(timeout=_POLL_SECONDS)
      except TimeoutError:
        if future.done():  # in the meantime, or with a TimeoutError of its own
          return future.result()
        if self._on_wait:
          self._on_wait(time.monotonic() - start_time, self._decoder.reading())


def num_paired(position: int, share: float) -> int:
  """Number of pairs among the examples before a position, evenly spread."""
  return position * round(share * _SHARE_PARTS) // _SHARE_PARTS


def image_at(position: int, num_images: int, seed: int, stream: str) -> int:
  """Index of the image at a position of an endless stream.

  Args:
    position: position from 0.
    num_images: number of images, the length of an epoch.
    seed: random seed of the run.
    stream: 'a', 'b' or 'pairs'.
  """
  epoch, place = divmod(position, num_images)
  return int(_epoch_order(num_images, seed, stream, epoch)[place])


@functools.lru_cache(maxsize=8)
def _epoch_order(
  num_images: int, seed: int, stream: str, epoch: int
) -> np.ndarray:
  seeds = (seed, _STREAM_SEEDS[stream], _ORDER, epoch)
  return np.random.default_rng(seeds).permutation(num_images)


class Decoder:
  """Reads, resizes and caches training images, and skips unreadable ones.

  An unreadable image is reported by one warning, and the next readable image
  of its stream takes its place, whichever thread finds it. So is an image
  that changed since it was listed; with config.data.strict that is a
  DataError. A pair is replaced by the next pair if either image is unreadable.
  """

  def __init__(
    self,
    config: DataConfig,
    images: Mapping[str, Images],
    pairs: Sequence[tuple[int, int]] = (),
  ):
    """Starts the threads.

    Args:
      config: data options.
      images: 'train_a' and 'train_b'.
      pairs: indices of a and b of each pair.
    """
    self._config = config
    self._pairs = pairs
    self._images = {domain: images[f'train_{domain}'] for domain in 'ab'}
    self._lengths = {
      'pairs': len(pairs),
      **{domain: len(each) for domain, each in self._images.items()},
    }
    # Keys are (stream, index); only pairs of unequal sizes use 'pairs'.
    self._cache: dict[tuple[str, int], np.ndarray] = {}
    self._cache_left = int(config.cache_gib * 2**30)
    self._corrupt: dict[tuple[str, int], ImageError] = {}
    self._changed: set[str] = set()
    self._reading: dict[int, str] = {}  # by thread
    self._lock = threading.Lock()
    self._threads = (
      ThreadPoolExecutor(config.num_workers, 'decode')
      if config.num_workers
      else None
    )

  def close(self) -> None:
    """Cancels requests; a thread ends after the image that it is reading."""
    if self._threads:
      self._threads.shutdown(wait=False, cancel_futures=True)

  def reading(self) -> str:
    """The images that are being read, for a message."""
    names = sorted(self._reading.copy().values())
    more = f' and {len(names) - 2} more' if len(names) > 2 else ''
    return f'reading {", ".join(names[:2])}{more}' if names else 'decoding'

  def names_at(self, stream: str, position: int, seed: int) -> dict[str, str]:
    """Names by domain of the images at a position of a stream."""
    index = image_at(position, self._lengths[stream], seed, stream)
    while not self._corrupt.keys().isdisjoint(
      [(stream, index), *self._members(stream, index)]
    ):
      index = (index + 1) % self._lengths[stream]
    return {
      domain: self._images[domain].names[member]
      for domain, member in self._members(stream, index)
    }

  def submit(self, stream: str, position: int, seed: int) -> Future[_Decoded]:
    """Requests the images at a position of a stream, 'a', 'b' or 'pairs'."""
    if self._threads:
      return self._threads.submit(self._decode, stream, position, seed)
    future: Future[_Decoded] = Future()
    future.set_result(self._decode(stream, position, seed))
    return future

  def _decode(self, stream: str, position: int, seed: int) -> _Decoded:
    length = self._lengths[stream]
    first = image_at(position, length, seed, stream)
    for attempt in range(length):
      images = self._read_members(stream, (first + attempt) % length)
      if images is not None:
        return {
          domain: self._crop(image, stream, position, seed)
          for domain, image in images.items()
        }
    raise DataError(
      f'none of the {length} pairs is readable'
      if stream == 'pairs'
      else f'none of the {length} images of train_{stream} is readable'
    )

  def _members(self, stream: str, index: int) -> list[tuple[str, int]]:
    """The (domain, index) of an image of a domain, or of both of a pair."""
    if stream != 'pairs':
      return [(stream, index)]
    return list(zip('ab', self._pairs[index], strict=True))

  def _read_members(self, stream: str, index: int) -> _Decoded | None:
    """The image, or both images of a pair; None if one is unreadable."""
    images: _Decoded = {}
    for key in self._members(stream, index):
      image = self._read(key)
      if image is None:
        return None
      images[key[0]] = image
    shapes = [f'{x.shape[1]} x {x.shape[0]}' for x in images.values()]
    if self._config.preprocess in _HOST_CROPS and len(set(shapes)) > 1:
      name, partner = (
        self._images[domain].names[member]
        for domain, member in self._members(stream, index)
      )
      reason = (
        f'it is {shapes[0]}, and {printable(partner)}, its pair, {shapes[1]}: '
        'their crops would differ'
      )
      self._skip((stream, index), ImageError(name, reason))
      return None
    return images

  def _crop(
    self, image: np.ndarray, stream: str, position: int, seed: int
  ) -> np.ndarray:
    """Crops where sizes differ; else the device does, as one array.

    Both images of a pair are cropped by the same random numbers.
    """
    if self._config.preprocess not in _HOST_CROPS:
      return image
    seeds = (seed, _STREAM_SEEDS[stream], _CROP, position)
    return random_crop(image, self._config.size, np.random.default_rng(seeds))

  def _read(self, key: tuple[str, int]) -> np.ndarray | None:
    """An image by domain and index; None if it is unreadable."""
    if key in self._corrupt:
      self._skip(key, self._corrupt[key])
      return None
    if key in self._cache:
      return self._cache[key]
    domain, index = key
    images = self._images[domain]
    name = images.names[index]
    try:
      self._reading[threading.get_ident()] = printable(name)
      image = images.read(index)
      self._check_unchanged(images, index)
      check_scaled(image, name, self._config)
      image = resize(image, self._config)
      check_crop(image, name, self._config)
    except ImageError as error:
      if self._config.strict:
        self._check_unchanged(images, index)
      self._skip(key, error)
      return None
    finally:
      self._reading.pop(threading.get_ident(), None)
    with self._lock:
      if key not in self._cache and image.nbytes <= self._cache_left:
        self._cache[key] = image
        self._cache_left -= image.nbytes
    return image

  def _check_unchanged(self, images: Images, index: int) -> None:
    path = images.changed(index) if images.changed else ''
    if not path:
      return
    message = f'{printable(path)} changed since the run began'
    if self._config.strict:
      raise DataError(
        f'{message}. Restore it, or set config.data.strict=False to use its '
        'new content'
      )
    with self._lock:
      is_new = path not in self._changed
      self._changed.add(path)
    if is_new:
      logging.getLogger('cyclegan_jax').warning(
        '%s: its new content is used', message
      )

  def _skip(self, key: tuple[str, int], error: ImageError) -> None:
    """Counts an unreadable image.

    Raises:
      DataError: there are more than config.data.max_corrupt.
    """
    with self._lock:
      before = [self._origin(*each) for each in self._corrupt.items()]
      origin = self._origin(key, error)
      is_new = origin not in before
      self._corrupt.setdefault(key, error)
      # The image's own number, so that all its threads come to the same end.
      count = list(dict.fromkeys([*before, origin])).index(origin) + 1
    budget = self._config.max_corrupt
    if count > budget:
      raise DataError(
        f'{count} images or volumes are unreadable, more than '
        f'config.data.max_corrupt={budget}: {error}. Repair or remove it, or '
        'raise the limit'
      )
    if is_new:
      logging.getLogger('cyclegan_jax').warning(
        'skipped %s (%d of at most %d)', error, count, budget
      )

  def _origin(
    self, key: tuple[str, int], error: ImageError
  ) -> tuple[str, int | str]:
    """What counts as unreadable: an image, or the file of a slice."""
    stream, index = key
    images = self._images.get(stream)
    is_slice = images and images.names[index].startswith(f'{error.name}[')
    return stream, error.name if is_slice else index


def sample_images(
  config: Config, images: Mapping[str, Images]
) -> dict[str, np.ndarray]:
  """Reads fixed test images of both domains, spread over each test set.

  Args:
    config: log.num_samples and data.
    images: 'test_a' and 'test_b'.

  Returns:
    {'a', 'b'}: [N, size, size, C] as in a raw batch, N equal for both.

  Raises:
    DataError: no image is readable, or one is smaller than the crop.
  """
  tests = {domain: images[f'test_{domain}'] for domain in 'ab'}
  num = min(config.log.num_samples, *map(len, tests.values()))
  return {
    domain: np.stack(
      [
        _next_readable(config.data, test, int(index))
        for index in np.linspace(0, len(test) - 1, num)
      ]
    )
    for domain, test in tests.items()
  }


def _next_readable(
  config: DataConfig, images: Images, index: int
) -> np.ndarray:
  """Reads the test image at an index, or the next readable one."""
  error: ImageError
  for attempt in range(len(images)):
    try:
      return read_test_image(config, images, (index + attempt) % len(images))
    except ImageError as caught:
      error = caught
      logging.getLogger('cyclegan_jax').warning('skipped %s', error)
  raise DataError(
    f'none of {len(images)} test images is readable; the last: {error}'
  )


def read_test_image(
  config: DataConfig, images: Images, index: int
) -> np.ndarray:
  """Reads a test image at the networks' size.

  Returns:
    [size, size, C]: uint8, or float32 in [-1, 1] if files have more than 8
    bits.

  Raises:
    DataError: the image is unreadable or smaller than the crop.
  """
  image = images.read(index)
  check_scaled(image, images.names[index], config)
  if config.preprocess == 'crop':
    check_crop(image, images.names[index], config)
  return resize(image, config, is_test=True)
