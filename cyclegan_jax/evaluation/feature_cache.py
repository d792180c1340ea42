"""Features of real images, cached on disk by their content.

A file's name is a hash of the network's weights and of the pixels that the
network saw. So changed images, preprocessing or weights never give stale
features, and processes that write the same file write the same content.
"""

import hashlib
import io
import logging
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from cyclegan_jax.errors import one_line
from cyclegan_jax.metrics.feature_network import FeatureExtractor
from cyclegan_jax.storage.atomic import replace_bytes
from cyclegan_jax.storage.cache import cache_folder

_VERSION = 1


def cached_features(
  extractor: FeatureExtractor,
  digests: Sequence[bytes],
  compute: Callable[[], np.ndarray],
  *,
  batch_size: int,
) -> np.ndarray:
  """Reads the features of some images from the cache, or computes them.

  A damaged file is replaced. A warning says so if the cache cannot be written.

  Args:
    extractor: the feature network.
    digests: SHA-256 of each image, in order.
    compute: returns the features.
    batch_size: batch size of `compute`; another one may change the last bits.

  Returns:
    float32 [N, extractor.dim].
  """
  folder = cache_folder()
  if folder is None:
    return np.asarray(compute(), np.float32)
  key = _key(extractor, digests, batch_size)
  path = folder / 'features' / f'{key}.npz'
  features = _read(path, key, (len(digests), extractor.dim))
  if features is None:
    features = np.asarray(compute(), np.float32)
    try:
      path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
      content = io.BytesIO()
      np.savez(content, features=features, key=np.array(key))
      replace_bytes(path, content.getvalue())
    except OSError as error:
      logging.getLogger('cyclegan_jax').warning(
        'features of real images cannot be cached in %s (%s)',
        path.parent,
        one_line(error),
      )
  return features


def _key(
  extractor: FeatureExtractor, digests: Sequence[bytes], batch_size: int
) -> str:
  # Other kinds of devices give other last bits, and the scores of a run must
  # not depend on what is in the cache.
  device = jax.local_devices()[0].device_kind
  head = (_VERSION, extractor.name, extractor.digest, batch_size, device)
  digest = hashlib.sha256(repr(head).encode())
  for image_digest in digests:
    digest.update(image_digest)
  return digest.hexdigest()


def _read(
  path: pathlib.Path, key: str, shape: tuple[int, int]
) -> np.ndarray | None:
  """Reads the features of a file; None if it is missing or damaged."""
  try:
    # Opened here, as NumPy does not close a file that it cannot read.
    with (
      path.open('rb') as file,
      np.load(file, allow_pickle=False) as content,
    ):
      features, stored_key = content['features'], str(content['key'])
  except Exception:  # a damaged file can raise nearly any of them
    return None
  is_valid = (
    stored_key == key
    and features.dtype == np.float32
    and features.shape == shape
    and bool(np.isfinite(features).all())
  )
  return features if is_valid else None
