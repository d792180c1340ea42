"""Test images of one domain, read in batches and identified by content."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cyclegan_jax import images as pixels
from cyclegan_jax.config import Config
from cyclegan_jax.data.image_list import Images
from cyclegan_jax.data.loader import read_test_image
from cyclegan_jax.data.pairs import match_names
from cyclegan_jax.errors import DataError

# Decoded images of one set that stay in memory, so that repeated evaluations
# during a run read them once.
_CACHE_BYTES = 256 * 2**20


class ImageSet:
  """Test images of one domain, as the networks see them.

  All images are read once when the set is made, to find out which are
  readable and to hash their content. Images beyond the memory limit are read
  again when they are used.

  Attributes:
    domain: 'a' or 'b'.
    split: 'test_a', or 'train_a' if there are no test images.
    root: folder or archive of the images; '' if they are not files.
    all_images: all images of the split, readable or not.
    indices: indices of the readable images in `all_images`.
    failures: a message for each unreadable image.
    digests: SHA-256 of each readable image's pixels.
  """

  def __init__(
    self,
    config: Config,
    images: Mapping[str, Images],
    domain: str,
    *,
    max_images: int | None = None,
    on_image: Callable[[int], None] = lambda number: None,
  ):
    """Reads all images once.

    Args:
      config: config whose data section says how images are read.
      images: images of all splits of both domains.
      domain: 'a' or 'b'.
      max_images: limit; of more images that many are taken, evenly spread.
      on_image: called with 1 after each image.

    Raises:
      DataError: no image is readable.
    """
    self._config = config
    self.domain = domain
    self.all_images = images[f'test_{domain}']
    train = images.get(f'train_{domain}')
    is_train = train is not None and list(train.names) == list(
      self.all_images.names
    )
    self.split = f'{"train" if is_train else "test"}_{domain}'
    self.root = self.all_images.root
    chosen = spread(len(self.all_images), max_images)
    self.indices: list[int] = []
    self.failures: list[str] = []
    self.digests: list[bytes] = []
    self._cache: dict[int, np.ndarray] = {}
    bytes_left = _CACHE_BYTES
    for index, image in self._read_all(chosen):
      if isinstance(image, DataError):
        self.failures.append(str(image))
      else:
        self.indices.append(index)
        self.digests.append(_digest(image))
        if image.nbytes <= bytes_left:
          bytes_left -= image.nbytes
          self._cache[index] = image
      on_image(1)
    if not self.indices:
      raise DataError(
        f'none of {len(chosen)} images of {self.split} is readable: '
        f'{self.failures[0]}'
      )

  def __len__(self) -> int:
    return len(self.indices)

  def batches(self, size: int) -> Iterator[tuple[list[int], np.ndarray]]:
    """Iterates over the readable images in order.

    Args:
      size: batch size; the last batch may be smaller.

    Yields:
      Indices in `all_images`, and float32 [n, H, W, C] in [-1, 1].

    Raises:
      DataError: an image is no longer readable.
    """
    for start in range(0, len(self.indices), size):
      indices = self.indices[start : start + size]
      batch = []
      for _, image in self._read_all(indices):
        if isinstance(image, DataError):
          raise image
        batch.append(pixels.to_float(image))
      yield indices, np.stack(batch)

  def read(self, index: int) -> np.ndarray:
    """Reads one image, float32 [H, W, C] in [-1, 1].

    Args:
      index: index in `all_images`.

    Raises:
      DataError: the image is unreadable.
    """
    return pixels.to_float(self._read(index))

  def can_read(self, index: int) -> bool:
    """Whether an image is readable; an unreadable one is added to `failures`.

    Args:
      index: index in `all_images`.
    """
    image = self._read_or_error(index)
    if isinstance(image, DataError) and str(image) not in self.failures:
      self.failures.append(str(image))
    return not isinstance(image, DataError)

  def _read(self, index: int) -> np.ndarray:
    if index in self._cache:
      return self._cache[index]
    return read_test_image(self._config.data, self.all_images, index)

  def _read_or_error(self, index: int) -> np.ndarray | DataError:
    try:
      return self._read(index)
    except DataError as error:
      return error

  def _read_all(
    self, indices: Sequence[int]
  ) -> Iterator[tuple[int, np.ndarray | DataError]]:
    """Reads in threads, a few images ahead, in order."""
    num_threads = max(1, self._config.data.num_workers)
    with ThreadPoolExecutor(num_threads, 'evaluate') as threads:
      for start in range(0, len(indices), 4 * num_threads):
        part = indices[start : start + 4 * num_threads]
        yield from zip(
          part, threads.map(self._read_or_error, part), strict=True
        )


def find_pairs(source: ImageSet, target: ImageSet) -> dict[int, int]:
  """Finds the images of two folders that are pairs, by `match_names`.

  Returns:
    Indices in `source.all_images` to indices in `target.all_images`. Empty if
    fewer than half of the images have a partner: then some names are equal by
    chance.
  """
  pairs = match_names(
    source.all_images, target.all_images, domains=source.domain + target.domain
  )
  pairs = {index: pairs[index] for index in source.indices if index in pairs}
  if 2 * len(pairs) < len(source.indices):
    return {}
  # Those that `max_images` left out were not read yet.
  readable = set(target.indices)
  return {i: j for i, j in pairs.items() if j in readable or target.can_read(j)}


def random_halves(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Draws two disjoint halves of the indices below `count`.

  Random, as neighbors may be alike, as in a video. An odd one is left out.
  """
  order = np.random.default_rng(seed).permutation(count)
  half = count // 2
  return order[:half], order[half : 2 * half]


def spread(count: int, max_count: int | None) -> list[int]:
  """Takes at most `max_count` of the indices below `count`, evenly spread."""
  if max_count is None or count <= max_count:
    return list(range(count))
  return [int(i) for i in np.linspace(0, count - 1, max_count)]


def pad_batch(batch: np.ndarray, size: int) -> np.ndarray:
  """Repeats the last image of a batch until it has `size` images."""
  missing = size - len(batch)
  return np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)])


def _digest(image: np.ndarray) -> bytes:
  digest = hashlib.sha256(f'{image.dtype.str} {image.shape} '.encode())
  digest.update(np.ascontiguousarray(image).data)
  return digest.digest()
