"""Test images to be judged: read in batches, known by their content."""

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

# Decoded images of one set that are kept, so that a set that is judged again
# and again during a run is read once.
_KEPT_BYTES = 256 * 2**20


class ImageSet:
  """Test images of one domain, as the networks see them.

  All are read once when the set is made, to know which can be read at all and
  what they hold. What is too much for memory is read again when it is used.

  Attributes:
    domain: 'a' or 'b'.
    split: 'test_a', or 'train_a' where its training images take their place.
    root: the folder or archive that they come from; '' for no files.
    indices: of the readable images among all of their split.
    num_chosen: of images that were tried.
    num_all: of images in the split.
    failures: a message for each image that can't be read.
    digests: SHA-256 of each readable image's pixels.
  """

  def __init__(
    self,
    config: Config,
    images: Mapping[str, Images],
    domain: str,
    *,
    max_images: int | None = None,
    on_image: Callable[[], None] = lambda: None,
  ):
    """Reads all images once.

    Args:
      config: its data section says how they are read.
      images: of all splits of both domains.
      domain: 'a' or 'b'.
      max_images: of more, that many are taken, spread over all; None takes
        all.
      on_image: is called after each.

    Raises:
      DataError: none can be read.
    """
    self._config = config
    self._images = of_domain = images[f'test_{domain}']
    train = images.get(f'train_{domain}')
    is_train = train is not None and list(train.names) == list(of_domain.names)
    self.domain = domain
    self.split = f'{"train" if is_train else "test"}_{domain}'
    self.root = of_domain.root
    self.num_all = len(of_domain)
    chosen = spread(self.num_all, max_images)
    self.num_chosen = len(chosen)
    self.indices: list[int] = []
    self.failures: list[str] = []
    self.digests: list[bytes] = []
    self._readable: set[int] = set()
    self._kept: dict[int, np.ndarray] = {}
    room = _KEPT_BYTES
    for index, read in self._read_all(chosen):
      if isinstance(read, DataError):
        self.failures.append(str(read))
      else:
        self.indices.append(index)
        self._readable.add(index)
        self.digests.append(_digest(read))
        if read.nbytes <= room:
          room -= read.nbytes
          self._kept[index] = read
      on_image()
    if not self.indices:
      raise DataError(
        f'none of {self.num_chosen} images of {self.split} can be read: '
        f'{self.failures[0]}'
      )

  def __len__(self) -> int:
    return len(self.indices)

  @property
  def names(self) -> list[str]:
    """Names of the readable images."""
    return [self._images.names[index] for index in self.indices]

  @property
  def listed(self) -> Images:
    """All images of the split, which `read` takes by their place."""
    return self._images

  def batches(self, size: int) -> Iterator[tuple[list[int], np.ndarray]]:
    """The readable images in their order.

    Args:
      size: of a batch; the last may be smaller.

    Yields:
      Indices among all images of the split, and float32 [n, H, W, C] in
      [-1, 1].

    Raises:
      DataError: an image can't be read any more.
    """
    for start in range(0, len(self.indices), size):
      indices = self.indices[start : start + size]
      found = []
      for _, read in self._read_all(indices):
        if isinstance(read, DataError):
          raise read
        found.append(pixels.to_float(read))
      yield indices, np.stack(found)

  def read(self, index: int) -> np.ndarray:
    """One image, float32 [H, W, C] in [-1, 1].

    Args:
      index: among all images of the split.

    Raises:
      DataError: it can't be read.
    """
    return pixels.to_float(self._read(index))

  def can_read(self, index: int) -> bool:
    """Whether an image can be read; one that can't is a failure.

    Args:
      index: among all images of the split.
    """
    if index in self._readable:
      return True
    read = self._try(index)
    if isinstance(read, DataError) and str(read) not in self.failures:
      self.failures.append(str(read))
    return not isinstance(read, DataError)

  def _read(self, index: int) -> np.ndarray:
    if index in self._kept:
      return self._kept[index]
    return read_test_image(self._config.data, self._images, index)

  def _try(self, index: int) -> 'np.ndarray | DataError':
    try:
      return self._read(index)
    except DataError as error:
      return error

  def _read_all(
    self, indices: Sequence[int]
  ) -> 'Iterator[tuple[int, np.ndarray | DataError]]':
    """Reads in threads, a few ahead, in order."""
    width = max(1, self._config.data.num_workers)
    with ThreadPoolExecutor(width, 'evaluate') as threads:
      for start in range(0, len(indices), 4 * width):
        part = indices[start : start + 4 * width]
        yield from zip(part, threads.map(self._try, part), strict=True)


def _digest(image: np.ndarray) -> bytes:
  hashed = hashlib.sha256(f'{image.dtype.str} {image.shape} '.encode())
  hashed.update(np.ascontiguousarray(image).data)
  return hashed.digest()


def spread(count: int, max_count: int | None) -> list[int]:
  """At most `max_count` of the indices below `count`, evenly spread."""
  if max_count is None or count <= max_count:
    return list(range(count))
  return [int(i) for i in np.linspace(0, count - 1, max_count)]


def padded(batch: np.ndarray, size: int) -> np.ndarray:
  """The batch with its last image repeated, up to a size."""
  missing = size - len(batch)
  return np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)])


def find_pairs(source: ImageSet, target: ImageSet) -> dict[int, int]:
  """Images of two folders that are pairs, as `match_names` finds them.

  Returns:
    From an index of the source's split to one of the target's. Empty where
    less than half of the images have a partner: then some names are equal
    by chance.
  """
  pairs = match_names(
    source.listed, target.listed, domains=source.domain + target.domain
  )
  pairs = {index: pairs[index] for index in source.indices if index in pairs}
  if 2 * len(pairs) < len(source.indices):
    return {}
  return {i: j for i, j in pairs.items() if target.can_read(j)}
