"""From images to batches: a pure function of (seed, step).

Each domain is an endless stream of its own: permutation after permutation of
its images, so each image comes once an epoch of its own domain and a and b
are drawn independently. Step s takes positions [s * B, (s + 1) * B) of both.
"""

import collections
import functools
import logging
import threading
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from cyclegan_jax.config import Config, DataConfig
from cyclegan_jax.data.resizing import check_crop, random_crop, resize
from cyclegan_jax.data.sources import ImageError, Images
from cyclegan_jax.errors import DataError

RawBatch = dict[str, np.ndarray]  # uint8 [B, H, W, C] by domain

_DOMAIN_SEEDS = {'a': 0, 'b': 1}
_ORDER, _CROP = 0, 1  # keep the streams of random numbers apart


def train_batches(
  config: Config, images: Mapping[str, Images], *, start_step: int = 0
) -> Generator[RawBatch]:
  """Endless batches of unpaired images, decoded ahead in threads.

  Args:
    config: seed, batch_size and data.
    images: 'train_a' and 'train_b'.
    start_step: the step of the first batch; batch(step) does not depend on
      it, nor on the number of threads.

  Yields:
    {'a', 'b'}: uint8 [B, H, W, C]. H = W is load_size where the device crops
    ('resize_and_crop'), else size.

  Raises:
    DataError: more images can't be read than config.data.max_corrupt.
  """
  with Decoder(config.data, images) as decoder:
    pending: collections.deque[dict[str, list[Future[np.ndarray]]]]
    pending = collections.deque()
    step = start_step
    while True:
      while len(pending) < config.data.prefetch_batches:
        pending.append(_request(decoder, config, step))
        step += 1
      batch = pending.popleft()
      yield {
        domain: np.stack([future.result() for future in futures])
        for domain, futures in batch.items()
      }


def _request(
  decoder: 'Decoder', config: Config, step: int
) -> dict[str, list[Future[np.ndarray]]]:
  first = step * config.batch_size
  positions = range(first, first + config.batch_size)
  return {
    domain: [decoder.submit(domain, at, config.seed) for at in positions]
    for domain in 'ab'
  }


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
  takes its place, whichever thread finds it.
  """

  def __init__(self, config: DataConfig, images: Mapping[str, Images]):
    self._config = config
    self._images = {domain: images[f'train_{domain}'] for domain in 'ab'}
    self._cache: dict[tuple[str, int], np.ndarray] = {}
    self._cache_left = int(config.cache_gib * 2**30)
    self._corrupt: dict[tuple[str, int], ImageError] = {}
    self._lock = threading.Lock()
    self._threads = (
      ThreadPoolExecutor(config.num_workers, 'decode')
      if config.num_workers
      else None
    )

  def __enter__(self) -> 'Decoder':
    """Starts nothing: threads start with the first request."""
    return self

  def __exit__(self, *_: object) -> None:
    """Ends the threads; what is under way is finished, the rest dropped."""
    if self._threads:
      self._threads.shutdown(wait=True, cancel_futures=True)

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
        image = resize(images.read(at[1]), self._config)
        check_crop(image, images.names[at[1]], self._config)
      except ImageError as error:
        self._skip(at, error)
        continue
      with self._lock:
        if at not in self._cache and image.nbytes <= self._cache_left:
          self._cache[at] = image
          self._cache_left -= image.nbytes
      return image
    raise DataError(
      f'none of the {len(images)} images of train_{domain} can be read'
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
    {'a', 'b'}: uint8 [N, size, size, C], N the same for both.

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
  """A test image as the networks see it: uint8 [size, size, C].

  Raises:
    DataError: it can't be read or is smaller than the crop.
  """
  image = images.read(index)
  if config.preprocess == 'crop':
    check_crop(image, images.names[index], config)
  return resize(image, config, is_test=True)
