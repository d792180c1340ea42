"""From images to batches: a pure function of (seed, step).

Each domain is an endless stream of its own: permutation after permutation of
its images, so each image comes once an epoch of its own domain and a and b
are drawn independently. Step s takes positions [s * B, (s + 1) * B) of both.

Where pairs are asked for they are a third stream, and config.data.paired_share
of the positions take the next of it in place of the next of a and of b.
"""

import collections
import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Self

import numpy as np

from cyclegan_jax.config import Config, DataConfig
from cyclegan_jax.data.pairs import training_pairs
from cyclegan_jax.data.resizing import (
  check_crop,
  check_scaled,
  random_crop,
  resize,
)
from cyclegan_jax.data.sources import ImageError, Images
from cyclegan_jax.errors import DataError, printable

# uint8 [B, H, W, C] by domain; float32 in [-1, 1] of files of more than 8 bits.
# Where there are pairs also 'is_pair': bool [B].
RawBatch = dict[str, np.ndarray]

_Decoded = dict[str, np.ndarray]  # [H, W, C] of a domain, or of both of a pair

_POLL_SECONDS = 0.2
_STREAM_SEEDS = {'a': 0, 'b': 1, 'pairs': 2}
_SHARE_PARTS = 1_000_000
_HOST_CROPS = ('crop', 'scale_and_crop')
_ORDER, _CROP = 0, 1  # keep the streams of random numbers apart


class _Request(NamedTuple):
  """A batch that is being decoded."""

  futures: 'dict[str, list[Future[_Decoded]]]'  # by domain
  is_pair: list[bool]


class TrainBatches:
  """Batches of images, decoded ahead in threads.

  Each is {'a', 'b'}: [B, H, W, C], uint8 or, where files hold more than 8 bits,
  float32 in [-1, 1]. H = W is load_size where the device crops
  ('resize_and_crop'), else size. With config.loss.paired_weight it has
  'is_pair' too, bool [B]: whether an example's a and b are a pair.

  Attributes:
    step: of the batch that comes next.
    waited: seconds for which the taker of the batches has waited.
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
    """Starts nothing: the first batch does.

    Args:
      config: seed, batch_size, data and loss.paired_weight.
      images: 'train_a' and 'train_b'.
      start_step: the step of the first batch; batch(step) does not depend on
        it, nor on the number of threads.
      end_step: the first step whose batch is not asked for; None for no end.
      on_wait: is called every now and then while a batch does not come, with
        the seconds since it was asked for and a text that says what is being
        read; what it raises ends the wait.
      share: which of how many parts of each batch to give.
    """
    self.step = start_step
    self.waited = 0.0
    self._config = config
    self._images = images
    self._end_step = end_step
    self._pairs = training_pairs(config, images)
    self._decoder = Decoder(config.data, images, self._pairs)
    self._on_wait = on_wait
    self._share = share
    self._pending: collections.deque[_Request] = collections.deque()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def close(self) -> None:
    """Ends the threads, without waiting for a disk that hangs."""
    self._decoder.close()

  def __iter__(self) -> Self:
    return self

  def __next__(self) -> RawBatch:
    """The batch of `step`, which then is the next one.

    Raises:
      DataError: more images can't be read than config.data.max_corrupt.
      StopIteration: it is of `end_step`.
    """
    if self.step == self._end_step:
      raise StopIteration
    began = time.monotonic()
    try:
      self._read_ahead()
      request = self._pending.popleft()
      batch = {
        domain: np.stack(
          [self._wait_for(each, began)[domain] for each in futures]
        )
        for domain, futures in request.futures.items()
      }
      if self._pairs:
        batch['is_pair'] = np.array(request.is_pair)
    except BaseException:
      self.close()
      raise
    finally:
      self.waited += time.monotonic() - began
    self.step += 1
    return batch

  def names(self, step: int) -> dict[str, list[str]]:
    """The names of the images that batch(step) is made of.

    As far as is known: the place of one that can't be read goes to the next,
    once that was tried.
    """
    names: dict[str, list[str]] = {'a': [], 'b': []}
    for position in self._positions(step):
      is_pair, at = self._place(position)
      for domain, of_domain in names.items():
        name_at = (
          self._decoder.name_at_pair if is_pair else self._decoder.name_at
        )
        of_domain.append(name_at(domain, at, self._config.seed))
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

  def _place(self, position: int) -> tuple[bool, int]:
    """Whether an example is a pair, and its position in its own stream."""
    if not self._pairs:
      return False, position
    share = self._config.data.paired_share
    before, after = (
      num_paired(each, share) for each in (position, position + 1)
    )
    return (True, before) if after > before else (False, position - before)

  def _request(self, step: int) -> _Request:
    part, num_parts = self._share
    size = self._config.batch_size // num_parts
    ours = self._positions(step)[part * size : (part + 1) * size]
    places = [self._place(position) for position in ours]
    seed, submit = self._config.seed, self._decoder.submit
    # A pair is decoded by one thread, as it takes both or none.
    pairs = {
      at: self._decoder.submit_pair(at, seed)
      for is_pair, at in places
      if is_pair
    }
    futures = {
      domain: [
        pairs[at] if is_pair else submit(domain, at, seed)
        for is_pair, at in places
      ]
      for domain in 'ab'
    }
    return _Request(futures, [is_pair for is_pair, _ in places])

  def _wait_for(self, future: 'Future[_Decoded]', began: float) -> _Decoded:
    while True:
      try:
        return future.result(timeout=_POLL_SECONDS)
      except TimeoutError:
        if future.done():  # since then, or with an error of this kind
          return future.result()
        if self._on_wait:
          self._on_wait(time.monotonic() - began, self._decoder.reading())


def num_paired(position: int, share: float) -> int:
  """How many of the examples before a position are pairs: evenly spread."""
  return position * round(share * _SHARE_PARTS) // _SHARE_PARTS


def image_at(position: int, num_images: int, seed: int, stream: str) -> int:
  """The index of the image at a position of an endless stream.

  Args:
    position: from 0.
    num_images: in an epoch of the stream.
    seed: of the run.
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
  """Reads and resizes training images, keeps them, counts the unreadable.

  An unreadable image is named once in a warning, and the next readable one
  takes its place, whichever thread finds it. So is one that changed since it
  was listed; under config.data.strict it is a DataError. Of a pair both are
  read, or the next pair takes its place.
  """

  def __init__(
    self,
    config: DataConfig,
    images: Mapping[str, Images],
    pairs: Sequence[tuple[int, int]] = (),
  ):
    self._config = config
    self._pairs = pairs
    self._images = {domain: images[f'train_{domain}'] for domain in 'ab'}
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
    """Drops what is asked for; a thread that reads ends when it has read."""
    if self._threads:
      self._threads.shutdown(wait=False, cancel_futures=True)

  def reading(self) -> str:
    """What is being read right now, for a message."""
    names = sorted(self._reading.copy().values())
    more = f' and {len(names) - 2} more' if len(names) > 2 else ''
    return f'reading {", ".join(names[:2])}{more}' if names else 'decoding'

  def name_at(self, domain: str, position: int, seed: int) -> str:
    """The name of the image at a position of the domain's stream."""
    images = self._images[domain]
    index = image_at(position, len(images), seed, domain)
    while (domain, index) in self._corrupt:
      index = (index + 1) % len(images)
    return images.names[index]

  def name_at_pair(self, domain: str, position: int, seed: int) -> str:
    """As `name_at`, of one image of a pair."""
    place = image_at(position, len(self._pairs), seed, 'pairs')
    while not self._corrupt.keys().isdisjoint(self._keys(place)):
      place = (place + 1) % len(self._pairs)
    return self._images[domain].names[self._pairs[place]['ab'.index(domain)]]

  def submit(self, domain: str, position: int, seed: int) -> 'Future[_Decoded]':
    """Asks for the image at a position of the domain's stream."""
    return self._submit(self._get, domain, position, seed)

  def submit_pair(self, position: int, seed: int) -> 'Future[_Decoded]':
    """Asks for both images at a position of the stream of pairs."""
    return self._submit(self._get_pair, position, seed)

  def _submit(
    self, get: Callable[..., _Decoded], *args: Any
  ) -> 'Future[_Decoded]':
    if self._threads:
      return self._threads.submit(get, *args)
    future: Future[_Decoded] = Future()
    future.set_result(get(*args))
    return future

  def _get(self, domain: str, position: int, seed: int) -> _Decoded:
    num_images = len(self._images[domain])
    first = image_at(position, num_images, seed, domain)
    for attempt in range(num_images):
      image = self._read((domain, (first + attempt) % num_images))
      if image is not None:
        return {domain: self._crop(image, domain, position, seed)}
    raise DataError(
      f'none of the {num_images} images of train_{domain} can be read'
    )

  def _get_pair(self, position: int, seed: int) -> _Decoded:
    first = image_at(position, len(self._pairs), seed, 'pairs')
    for attempt in range(len(self._pairs)):
      pair = self._read_pair((first + attempt) % len(self._pairs))
      if pair is not None:
        # By the same numbers, so that both are cut at the same place.
        return {
          domain: self._crop(image, 'pairs', position, seed)
          for domain, image in pair.items()
        }
    raise DataError(f'none of the {len(self._pairs)} pairs can be read')

  def _crop(
    self, image: np.ndarray, stream: str, position: int, seed: int
  ) -> np.ndarray:
    if self._config.preprocess not in _HOST_CROPS:
      return image
    # Sizes differ, so these can't be cropped as one array on the device.
    seeds = (seed, _STREAM_SEEDS[stream], _CROP, position)
    return random_crop(image, self._config.size, np.random.default_rng(seeds))

  def _keys(self, place: int) -> list[tuple[str, int]]:
    """What of a pair may be unreadable: an image, or the two together."""
    a, b = self._pairs[place]
    return [('a', a), ('b', b), ('pairs', place)]

  def _read_pair(self, place: int) -> _Decoded | None:
    """Both images of a pair; None if they can't be had."""
    at_a, at_b, at_pair = self._keys(place)
    a = self._read(at_a)
    b = None if a is None else self._read(at_b)
    if a is None or b is None:
      return None
    if self._config.preprocess in _HOST_CROPS and a.shape[:2] != b.shape[:2]:
      names = (self._images[at[0]].names[at[1]] for at in (at_a, at_b))
      shapes = (f'{x.shape[1]} x {x.shape[0]}' for x in (a, b))
      name, partner = names
      one, other = shapes
      reason = (
        f'it is {one}, and {printable(partner)}, its pair, {other}: crops of '
        'them would not show the same'
      )
      self._skip(at_pair, ImageError(name, reason))
      return None
    return {'a': a, 'b': b}

  def _read(self, at: tuple[str, int]) -> np.ndarray | None:
    """An image of a domain by its index; None if it can't be read."""
    images = self._images[at[0]]
    if at in self._corrupt:
      self._skip(at, self._corrupt[at])
      return None
    if at in self._cache:
      return self._cache[at]
    try:
      self._reading[threading.get_ident()] = printable(images.names[at[1]])
      image = images.read(at[1])
      self._check_unchanged(at)
      check_scaled(image, images.names[at[1]], self._config)
      image = resize(image, self._config)
      check_crop(image, images.names[at[1]], self._config)
    except ImageError as error:
      if self._config.strict:
        self._check_unchanged(at)
      self._skip(at, error)
      return None
    finally:
      self._reading.pop(threading.get_ident(), None)
    with self._lock:
      if at not in self._cache and image.nbytes <= self._cache_left:
        self._cache[at] = image
        self._cache_left -= image.nbytes
    return image

  def _check_unchanged(self, at: tuple[str, int]) -> None:
    images = self._images[at[0]]
    path = images.changed(at[1]) if images.changed else ''
    if not path:
      return
    told = f'{printable(path)} changed since the run began'
    if self._config.strict:
      raise DataError(
        f'{told}: put it back, or set config.data.strict=False to use its new '
        'content'
      )
    with self._lock:
      is_new = path not in self._changed
      self._changed.add(path)
    if is_new:
      logging.getLogger('cyclegan_jax').warning(
        '%s: its new content is used', told
      )

  def _skip(self, at: tuple[str, int], error: ImageError) -> None:
    with self._lock:
      is_new = at not in self._corrupt
      self._corrupt.setdefault(at, error)
      # Its own count, so that all threads that meet it come to the same end.
      count = list(self._corrupt).index(at) + 1
    budget = self._config.max_corrupt
    if count > budget:
      raise DataError(
        f'{count} images can not be read, more than '
        f'config.data.max_corrupt={budget}: {error}: mend or remove it, or '
        'raise the budget'
      )
    if is_new:
      logging.getLogger('cyclegan_jax').warning(
        'skipped %s (%d of at most %d)', error, count, budget
      )


def sample_images(
  config: Config, images: Mapping[str, Images]
) -> dict[str, np.ndarray]:
  """Fixed test images of both domains, spread over each test set.

  Args:
    config: log.num_samples and data.
    images: 'test_a' and 'test_b'.

  Returns:
    {'a', 'b'}: [N, size, size, C] as in a raw batch, N the same for both.

  Raises:
    DataError: none can be read, or one is smaller than the crop.
  """
  tests = {domain: images[f'test_{domain}'] for domain in 'ab'}
  num = min(config.log.num_samples, *map(len, tests.values()))
  return {
    domain: np.stack(
      [
        _readable_test_image(config.data, of_domain, int(index))
        for index in np.linspace(0, len(of_domain) - 1, num)
      ]
    )
    for domain, of_domain in tests.items()
  }


def _readable_test_image(
  config: DataConfig, images: Images, index: int
) -> np.ndarray:
  """The test image at an index, or the next that can be read."""
  for attempt in range(len(images)):
    try:
      return read_test_image(config, images, (index + attempt) % len(images))
    except ImageError as error:
      logging.getLogger('cyclegan_jax').warning('skipped %s', error)
  raise DataError(f'none of {len(images)} test images can be read')


def read_test_image(
  config: DataConfig, images: Images, index: int
) -> np.ndarray:
  """A test image of the size that the networks see: [size, size, C].

  Of uint8, or float32 in [-1, 1] where files hold more than 8 bits.

  Raises:
    DataError: it can't be read or is smaller than the crop.
  """
  image = images.read(index)
  check_scaled(image, images.names[index], config)
  if config.preprocess == 'crop':
    check_crop(image, images.names[index], config)
  return resize(image, config, is_test=True)
