"""Features of real images, kept on disk by the content they were made from.

A file's name is the hash of the network's weights and of every image's
pixels, as it has seen them: so preprocessing and decoding count too, a file
never goes stale, and processes that write one at a time write the same.
"""

import hashlib
import logging
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Protocol

import jax
import numpy as np

from cyclegan_jax import images
from cyclegan_jax.errors import UserError
from cyclegan_jax.evaluation.image_set import (
  ImageSet,
  padded,
)
from cyclegan_jax.evaluation.pretrained import (
  default_extractor,
  load_extractor,
)
from cyclegan_jax.storage.atomic import replacing
from cyclegan_jax.storage.cache import cache_folder

_VERSION = 1


class Extractor(Protocol):
  """A network whose features distances are taken of.

  Attributes:
    name: 'inception', 'effnet'.
    frechet_name: of the Fréchet distance in its features: 'fid'.
    kernel_name: of the kernel distance in its features: 'kid'.
    dim: number of features.
    digest: changes with weights and code.
  """

  name: str
  frechet_name: str
  kernel_name: str
  dim: int
  digest: str

  def __call__(self, images: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, 3] to float32 [N, dim]."""


def choose_extractor(
  name: str, *, weights: pathlib.Path | None = None
) -> Extractor | None:
  """The network of features.

  Args:
    name: 'inception', which is fetched where it is not found; 'effnet',
      'none', or 'auto' for the first of these that is here; a warning tells
      how to get one, where none is.
    weights: of Inception, as a file.

  Raises:
    UserError: the network that is named can't be had.
  """
  if name == 'none':
    return None
  if name != 'auto':
    return load_extractor(name, weights=weights, download=True)
  try:
    return default_extractor(weights)
  except UserError as error:
    if weights is not None:
      raise
    logging.getLogger('cyclegan_jax').warning('%s', error)
    return None


def default_cache() -> pathlib.Path:
  """$XDG_CACHE_HOME/cyclegan_jax/statistics, or the same in ~/.cache."""
  return cache_folder() / 'statistics'


def extract(
  extractor: Extractor, batch: np.ndarray, batch_size: int
) -> np.ndarray:
  """Features of images as a PNG file of each would hold them.

  Args:
    extractor: the network.
    batch: float [n, H, W, C] in [-1, 1].
    batch_size: what the network is given at once, so that it is compiled
      once; at least n.

  Returns:
    float32 [n, extractor.dim].
  """
  features = extractor(padded(images.to_rgb(batch), batch_size))
  return np.asarray(features, np.float32)[: len(batch)]


def real_features(
  extractor: Extractor,
  real: ImageSet,
  *,
  batch_size: int,
  cache: pathlib.Path | None,
  on_images: Callable[[int], None] = lambda number: None,
) -> np.ndarray:
  """Features of all images of a set, from the cache where it has them.

  Args:
    extractor: the network.
    real: the images.
    batch_size: see `extract`.
    cache: the folder; None for none.
    on_images: is called with the number of images after each batch.

  Returns:
    float32 [N, extractor.dim].

  Raises:
    DataError: an image can't be read any more.
  """

  def compute() -> np.ndarray:
    parts = []
    for indices, batch in real.batches(batch_size):
      parts.append(extract(extractor, batch, batch_size))
      on_images(len(indices))
    return np.concatenate(parts)

  return cached_features(
    extractor, real.digests, compute, cache=cache, batch_size=batch_size
  )


def cached_features(
  extractor: Extractor,
  digests: Sequence[bytes],
  compute: Callable[[], np.ndarray],
  *,
  cache: pathlib.Path | None,
  batch_size: int,
) -> np.ndarray:
  """Features of some images from the cache, or computed and put there.

  A file that is damaged is made anew. A folder that can't be written is told
  in a warning, and nothing is kept.

  Args:
    extractor: the network.
    digests: SHA-256 of each image, in order.
    compute: makes the features.
    cache: the folder; None for none.
    batch_size: of `compute`: another may give other last bits.

  Returns:
    float32 [N, extractor.dim].
  """
  if cache is None:
    return compute()
  key = _key(extractor, digests, batch_size)
  path = cache / f'{key}.npz'
  shape = (len(digests), extractor.dim)
  features = _read(path, key, shape)
  if features is None:
    features = np.asarray(compute(), np.float32)
    try:
      _write(path, key, features)
    except OSError as error:
      logging.getLogger('cyclegan_jax').warning(
        "features of real images can't be kept in %s (%s)",
        cache,
        error.strerror or error,
      )
  return features


def _key(
  extractor: Extractor, digests: Sequence[bytes], batch_size: int
) -> str:
  # Other kinds of devices give other last bits, and a run's records are to
  # be the same whether its cache was empty or not.
  device = jax.local_devices()[0].device_kind
  head = (_VERSION, extractor.name, extractor.digest, batch_size, device)
  hashed = hashlib.sha256(repr(head).encode())
  for digest in digests:
    hashed.update(digest)
  return hashed.hexdigest()


def _read(
  path: pathlib.Path, key: str, shape: tuple[int, int]
) -> np.ndarray | None:
  try:
    # Opened here, as NumPy does not close what it can't read.
    with (
      path.open('rb') as file,
      np.load(file, allow_pickle=False) as content,
    ):
      features, found = content['features'], str(content['key'])
  except FileNotFoundError:
    return None
  except Exception:  # a damaged file ends in nearly any of them
    return None
  is_good = (
    found == key
    and features.dtype == np.float32
    and features.shape == shape
    and bool(np.isfinite(features).all())
  )
  return features if is_good else None


def _write(path: pathlib.Path, key: str, features: np.ndarray) -> None:
  """Writes the file whole or not at all."""
  for folder in (path.parent.parent, path.parent):
    if not folder.is_dir():
      folder.parent.mkdir(parents=True, exist_ok=True)
      folder.mkdir(mode=0o700, exist_ok=True)
  with replacing(path) as temporary, temporary.open('wb') as file:
    np.savez(file, features=features, key=np.array(key))
    file.flush()
    os.fsync(file.fileno())
