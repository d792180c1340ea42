"""From images to batches: a pure function of (seed, step).

Each domain is an endless stream of its own: permutation after permutation of
its images, so each image comes once an epoch of its own domain and a and b
are drawn independently. Step s takes positions [s * B, (s + 1) * B) of both.
"""

import collections
import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self, TypeAlias

import numpy as np

from cyclegan_jax.config import Config, DataConfig
from cyclegan_jax.data.decoding import printable
from cyclegan_jax.data.resizing import (
  check_crop,
  check_scaled,
  random_crop,
  resize,
)
from cyclegan_jax.data.sources import ImageError, Images
from cyclegan_jax.errors import DataError

# uint8 [B, H, W, C] by domain; float32 in [-1, 1] of files of more than 8 bits.
RawBatch = dict[str, np.ndarray]

_Request: TypeAlias = 'dict[str, list[Future[np.ndarray]]]'

_POLL_SECONDS = 0.2
_DOMAIN_SEEDS = {'a': 0, 'b': 1}
_ORDER, _CROP = 0, 1  # keep the streams of random numbers apart


class TrainBatches:
  """Batches of unpaired images, decoded ahead in threads.

  Each is {'a', 'b'}: [B, H, W, C], uint8 or, where files hold more than 8 bits,
  float32 in [-1, 1]. H = W is load_size where the device crops
  ('resize_and_crop'), else size.

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
      config: seed, batch_size and data.
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
    self._decoder = Decoder(config.data, images)
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
      batch = {
        domain: np.stack([self._wait_for(each, began) for each in futures])
        for domain, futures in self._pending.popleft().items()
      }
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
    return {
      domain: [
        self._decoder.name_at(domain, at, self._config.seed)
        for at in self._positions(step)
      ]
      for domain in 'ab'
    }

  def _read_ahead(self) -> None:
    step = self.step + len(self._pending)
    last = self.step + self._config.data.prefetch_batches
    if self._end_step is not None:
      last = min(last, self._end_step)
    self._pending.extend(self._request(each) for each in range(step, last))

  def _positions(self, step: int) -> range:
    first = step * self._config.batch_size
    return range(first, first + self._config.batch_size)

  def _request(self, step: int) -> '_Request':
    part, num_parts = self._share
    size = self._config.batch_size // num_parts
    ours = self._positions(step)[part * size : (part + 1) * size]
    return {
      domain: [
        self._decoder.submit(domain, at, self._config.seed) for at in ours
      ]
      for domain in 'ab'
    }

  def _wait_for(self, future: 'Future[np.ndarray]', began: float) -> np.ndarray:
    while True:
      try:
        return future.result(timeout=_POLL_SECONDS)
      except TimeoutError:
        if future.done():  # since then, or with an error of this kind
          return future.result()
        if self._on_wait:
          self._on_wait(time.monotonic() - began, self._decoder.reading())


def image_at(position: int, num_images: int, seed: int, domain: str) -> int:
  """The index of the image at a position of a domain's endless stream."""
  epoch, place = divmod(position, num_images)
  return int(_epoch_order(num_images, seed, domain, epoch)[place])


@functools.lru_cache(maxsize=8)
def _epoch_order(
  num_images: int, seed: int, domain: str, epoch: int
) -> np.ndarray:
  seeds = (seed, _DOMAIN_SEEDS[domain], _ORDER, epoch)
  return np.random.default_rng(seeds).permutation(num_images)


class Decoder:
  """Reads and resizes training images, keeps them, counts the unreadable.

  An unreadable image is named once in a warning, and the next readable one
  takes its place, whichever thread finds it. So is one that changed since it
  was listed; under config.data.strict it is a DataError.
  """

  def __init__(self, config: DataConfig, images: Mapping[str, Images]):
    self._config = config
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

  def submit(
    self, domain: str, position: int, seed: int
  ) -> 'Future[np.ndarray]':
    """Asks for the image at a position of the domain's stream."""
    if self._threads:
      return self._threads.submit(self._get, domain, position, seed)
    future: Future[np.ndarray] = Future()
    future.set_result(self._get(domain, position, seed))
    return future

  def _get(self, domain: str, position: int, seed: int) -> np.ndarray:
    num_images = len(self._images[domain])
    index = image_at(position, num_images, seed, domain)
    image = self._read(domain, index)
    if self._config.preprocess in ('crop', 'scale_and_crop'):
      # Sizes differ, so these can't be cropped as one array on the device.
      seeds = (seed, _DOMAIN_SEEDS[domain], _CROP, position)
      return random_crop(image, self._config.size, np.random.default_rng(seeds))
    return image

  def _read(self, domain: str, index: int) -> np.ndarray:
    images = self._images[domain]
    for attempt in range(len(images)):
      at = (domain, (index + attempt) % len(images))
      if at in self._corrupt:
        self._skip(at, self._corrupt[at])
        continue
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
        continue
      finally:
        self._reading.pop(threading.get_ident(), None)
      with self._lock:
        if at not in self._cache and image.nbytes <= self._cache_left:
          self._cache[at] = image
          self._cache_left -= image.nbytes
      return image
    raise DataError(
      f'none of the {len(images)} images of train_{domain} can be read'
    )

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
