"""Folders for a model hub, and the hub's own client against a local server."""

import contextlib
import hashlib
import http.server
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import urllib.parse

import jax
import numpy as np
import pytest
import tifffile
from PIL import Image

from cyclegan_jax import cli
from cyclegan_jax.compare.runs import check_is_run
from cyclegan_jax.config import Config
from cyclegan_jax.errors import UserError, WeightsError, WorkdirError
from cyclegan_jax.export.model_card import without_private_paths
from cyclegan_jax.state import create_train_state
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.storage.hub_folder import local_folder
from cyclegan_jax.storage.safetensors import (
  read_safetensors,
  write_safetensors,
)
from cyclegan_jax.storage.workdir import read_config
from cyclegan_jax.training.train import train
from cyclegan_jax.translate.translator import load_translator

pytest.importorskip('safetensors')
huggingface_hub = pytest.importorskip('huggingface_hub')
pytest.importorskip('huggingface_hub.constants')  # else loaded on first use

COMMIT = 'c0ffee' * 6 + 'c0de'
CONFIG = Config().replace(
  data={
    'name': 'folder',
    'path': '/home/someone/photos',
    'name_a': 'apple | *',
    'name_b': 'orange',
    'size': 16,
    'load_size': 16,
    'channels_b': 1,
    'dtype_a': 'uint8',
    'dtype_b': 'uint16',
  },
  generator={'name': 'resnet', 'filters': 2, 'blocks': 1, 'dropout': 0.0},
  discriminator={'filters': 1, 'layers': 1},
  ema_decay=0.5,
  init_from='hf:owner/other@v1',
  steps=9,
)
SCORES = '| direction | fid |\n| - | - |\n| apple → orange | 12.5 |'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A run with a sample sheet and an evaluation."""
  folder = tmp_path_factory.mktemp('hub') / 'run'
  state = create_train_state(CONFIG, jax.random.key(0))
  halved = jax.tree.map(lambda x: x / 2 + 0.01, state.gen)
  with checkpoint.Saver(
    folder / 'checkpoints', CONFIG, data={'train_a': {'count': 1234}}
  ) as saver:
    saver.save(state.replace(gen_ema=halved))
  (folder / 'samples').mkdir()
  Image.new('RGB', (8, 8)).save(folder / 'samples/step_00000000.png')
  (folder / 'evaluation').mkdir()
  rows = {
    name: {'translated': {'value': value, 'images': [5, 5]}}
    for name, value in {'fid': 12.5, 'kid': 1e-5, 'psnr': 'inf'}.items()
  }
  evaluation = {
    'notes': ['a note'],
    'directions': {'ab': rows, 'ba': {'fid': rows['fid']}},
  }
  (folder / 'evaluation/0.json').write_text(json.dumps(evaluation))
  (folder / 'evaluation/0.md').write_text(f'{SCORES}\n\n- in /home/someone\n')
  return folder


@pytest.fixture(scope='module')
def exported(run):
  to = run.parent / 'exported'
  assert export(run, to) == 0
  return to


def export(run, to, *options):
  argv = ['export', run, '--format', 'hub', '--to', to, *options]
  return cli.main([str(each) for each in argv])


def images(channels=3, dtype=np.uint8):
  generator = np.random.default_rng(0)
  high = np.iinfo(dtype).max
  return generator.integers(0, high, (2, 20, 24, channels)).astype(dtype)


def assert_translates_alike(path, run):
  for direction, inputs in (('ab', images()), ('ba', images(1, np.uint16))):
    made, expected = (
      load_translator(each, direction)(inputs) for each in (path, run)
    )
    np.testing.assert_array_equal(made, expected)


@pytest.mark.slow
def test_an_exported_folder_translates_as_its_run(exported, run):
  assert sorted(each.name for each in exported.iterdir()) == [
    'README.md',
    'ab.safetensors',
    'ba.safetensors',
    'config.json',
    'samples.png',
  ]
  assert_translates_alike(exported, run)
  loaded = checkpoint.load(exported)
  assert loaded.config == read_config(exported)
  assert loaded.discriminators == ()


def test_a_run_is_not_exported_into_its_own_folder(run, tmp_path, capsys):
  own = tmp_path / 'run'
  shutil.copytree(run, own)
  for format in ('hub', 'web'):  # both have files of a run's names
    before = sorted(own.iterdir())
    assert export(own, own, '--overwrite', '--format', format) == 1
    message = capsys.readouterr().err
    assert str(own) in message
    assert '--to' in message
    assert sorted(own.iterdir()) == before


def test_a_run_with_the_files_of_a_hub_folder(run, exported, tmp_path):
  own = tmp_path / 'run'
  shutil.copytree(run, own)
  shutil.copyfile(exported / 'ab.safetensors', own / 'ab.safetensors')
  assert checkpoint.load(own).path == own / 'checkpoints' / '0'
  check_is_run(own)


def test_the_model_card(exported):
  text = (exported / 'README.md').read_text(encoding='utf-8')
  card = huggingface_hub.ModelCard(text)  # reads the front matter as YAML
  assert card.data.library_name == 'cyclegan_jax'
  assert card.data.pipeline_tag == 'image-to-image'
  assert card.data.license == 'unknown'
  assert card.data.base_model == 'owner/other'
  assert card.data.model_name.startswith('apple | * to orange and')
  results = card.data.eval_results
  assert [(each.metric_name, each.metric_value) for each in results] == [
    ('fid, apple | * to orange', 12.5),
    ('kid, apple | * to orange', 1e-5),
    ('fid, orange to apple | *', 12.5),
  ]
  assert {each.task_type for each in results} == {'image-to-image'}
  # The client would write the same.
  written = huggingface_hub.ModelCard(str(card))
  assert written.data.to_dict() == card.data.to_dict()
  for part in (
    SCORES,
    '- a note',
    '(samples.png)',
    '1,234 training images',
    "config.generator.name='resnet'",
    r'apple \| \* to orange',
    'Intended use',
  ):
    assert part in card.content
  assert '{{' not in text
  for path in exported.iterdir():
    assert b'someone' not in path.read_bytes()


def test_a_card_that_was_filled_in_stays(exported, run, tmp_path):
  folder = tmp_path / 'hub'
  shutil.copytree(exported, folder)
  (folder / 'README.md').write_text('license: mine')
  argv = ['export', str(run), '--format', 'hub', '--to', str(folder)]
  assert cli.main([*argv, '--overwrite']) == 0
  assert (folder / 'README.md').read_text() == 'license: mine'
  assert 'license' in (folder / 'README.new.md').read_text()


def test_private_paths_and_plugins():
  config = CONFIG.replace(
    plugins='/home/x/my.py@12,C:\\y\\z.py@34',
    data={'train_a': '~/a', 'train_b': 'photos'},
    evaluation={'palette': 'cityscapes'},
  )
  public = without_private_paths(config)
  assert public.plugins == 'my.py@12,z.py@34'
  assert (public.data.train_a, public.data.train_b) == ('', 'photos')
  assert public.data.path == ''
  assert public.evaluation.palette == 'cityscapes'
  assert public.init_from == 'hf:owner/other@v1'
  assert without_private_paths(Config()) == Config()


def test_one_direction_without_sheet_and_scores(run, tmp_path, capsys):
  shutil.copytree(run / 'checkpoints', tmp_path / 'run/checkpoints')
  to = tmp_path / 'to'
  assert export(tmp_path / 'run', to, '--direction', 'ba') == 0
  assert sorted(each.name for each in to.iterdir()) == [
    'README.md',
    'ba.safetensors',
    'config.json',
  ]
  card = (to / 'README.md').read_text(encoding='utf-8')
  assert 'samples.png' not in card
  assert huggingface_hub.ModelCard(card).data.eval_results is None
  assert checkpoint.load(to).directions == ('ba',)
  with pytest.raises(WorkdirError, match='--direction ba'):
    load_translator(to, 'ab')
  assert export(tmp_path / 'run', to) == 1
  assert '--overwrite' in capsys.readouterr().err


@pytest.mark.parametrize(
  'dtype, channels',
  [
    pytest.param('uint8', 3, marks=pytest.mark.slow),
    ('uint8', 1),
    pytest.param('uint16', 1, marks=pytest.mark.slow),
    pytest.param('float32', 1, marks=pytest.mark.slow),
  ],
)
def test_the_code_of_a_card(dtype, channels, tmp_path, monkeypatch):
  limits = {'low_a': -1000.0, 'high_a': 400.0} if dtype == 'float32' else {}
  config = CONFIG.replace(
    data={'channels_a': channels, 'dtype_a': dtype, **limits}, ema_decay=0.0
  )
  with checkpoint.Saver(tmp_path / 'run/checkpoints', config) as saver:
    saver.save(create_train_state(config, jax.random.key(0)))
  assert export(tmp_path / 'run', tmp_path / 'hub', '--direction', 'ab') == 0
  card = (tmp_path / 'hub/README.md').read_text(encoding='utf-8')
  (code,) = re.findall(r'```python\n(.*?)```', card, re.S)
  assert 'hf:OWNER/NAME' in code
  image = images(channels)[0].astype(dtype)
  monkeypatch.chdir(tmp_path)
  if dtype == 'uint8':
    Image.fromarray(np.squeeze(image)).save('input.png')
  else:
    tifffile.imwrite('input.tif', np.squeeze(image))
  names = {}
  exec(code.replace('hf:OWNER/NAME', 'hub'), names)
  np.testing.assert_array_equal(names['image'], image)
  expected = load_translator('hub', 'ab').translate_stored(image[None])[0]
  np.testing.assert_array_equal(names['output'], expected)
  assert names['output'].shape == (20, 24, 1)


@pytest.mark.parametrize('change', ['swapped', 'mixed', 'damaged', 'foreign'])
def test_a_damaged_folder(change, exported, tmp_path):
  folder = tmp_path / 'copy'
  shutil.copytree(exported, folder)
  ab, ba = folder / 'ab.safetensors', folder / 'ba.safetensors'
  tensors, metadata = read_safetensors(ab)
  if change == 'swapped':
    shutil.copyfile(ba, ab)
  elif change == 'mixed':
    write_safetensors(ab, tensors, metadata | {'step': '9'})
  elif change == 'damaged':
    ab.write_bytes(ab.read_bytes()[:-1])
  else:
    write_safetensors(ab, {'x': np.zeros(1, np.float32)}, {})
  with pytest.raises(WeightsError, match=str(folder)):
    checkpoint.load(folder)


def test_commands_that_need_more_than_the_folder(
  exported, tmp_path, capsys, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  assert cli.main(['evaluate', str(exported), '--features', 'none']) == 1
  message = capsys.readouterr().err.strip().splitlines()[-1]
  assert '--data' in message
  assert str(exported) in message
  for name in (str(exported), 'hf:owner/name'):
    assert cli.main(['compare', name]) == 1
    message = capsys.readouterr().err.strip()
    assert name in message
    assert 'run' in message
    assert '\n' not in message


def test_the_folder_is_not_trained_into(exported):
  before = (exported / 'config.json').read_bytes()
  with pytest.raises(WorkdirError, match=f'{exported} .*--workdir'):
    train(Config(), exported)
  assert (exported / 'config.json').read_bytes() == before


def test_other_commands_take_the_folder(exported, tmp_path):
  photos = tmp_path / 'photos'
  for domain, inputs in (('A', images()), ('B', images(1, np.uint16))):
    (photos / f'test{domain}').mkdir(parents=True)
    for index, image in enumerate(inputs):
      path = photos / f'test{domain}' / f'{domain}{index}.png'
      Image.fromarray(np.squeeze(image)).save(path)
  for argv in (
    ['translate', exported, photos / 'testA', '--to', tmp_path / 'out'],
    ['translate', exported, photos / 'testA', '--to', tmp_path / 'out'],
    ['export', exported, '--format', 'hub', '--to', tmp_path / 'again'],
    [
      *('evaluate', exported, '--data', photos, '--features', 'none'),
      *('--to', tmp_path / 'scores.json'),
    ],
  ):
    assert cli.main([str(each) for each in argv]) == 0
  table = (tmp_path / 'scores.md').read_text(encoding='utf-8')
  assert 'orange' in table
  assert len(list((tmp_path / 'out').glob('*.png'))) == 2
  one, two = (
    checkpoint.load(folder).state.gen
    for folder in (exported, tmp_path / 'again')
  )
  jax.tree.map(np.testing.assert_array_equal, one, two)


# The hub.


class Hub(http.server.BaseHTTPRequestHandler):
  """The part of the hub's protocol by which repositories are downloaded."""

  protocol_version = 'HTTP/1.1'
  repositories: dict[str, pathlib.Path]  # by name
  requests: list[str]

  def do_GET(self):
    path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
    self.requests.append(f'{self.command} {path}')
    for name, folder in self.repositories.items():
      files = sorted(folder.iterdir())
      if path == f'/api/models/{name}/revision/main':
        siblings = [{'rfilename': each.name} for each in files]
        return self.send_json({'id': name, 'sha': COMMIT, 'siblings': siblings})
      if path == f'/api/models/{name}/tree/{COMMIT}':
        return self.send_json([self.describe(each) for each in files])
      for file in files:
        if path == f'/{name}/resolve/{COMMIT}/{file.name}':
          return self.send(file.read_bytes(), 'application/octet-stream')
      if path.startswith(f'/api/models/{name}/revision/'):
        return self.refuse('RevisionNotFound')
    return self.refuse('RepoNotFound')

  do_HEAD = do_GET  # noqa: N815

  def describe(self, path):
    digest = hashlib.sha1(path.read_bytes()).hexdigest()
    size = path.stat().st_size
    return {'type': 'file', 'oid': digest, 'size': size, 'path': path.name}

  def send_json(self, content):
    self.send(json.dumps(content).encode(), 'application/json')

  def refuse(self, code):
    self.send(b'{}', 'application/json', 404, {'X-Error-Code': code})

  def send(self, body, kind, status=200, headers=()):
    self.send_response(status)
    self.send_header('Content-Type', kind)
    self.send_header('Content-Length', str(len(body)))
    self.send_header('ETag', f'"{hashlib.sha1(body).hexdigest()}"')
    self.send_header('X-Repo-Commit', COMMIT)
    for name, value in dict(headers).items():
      self.send_header(name, value)
    self.end_headers()
    if self.command != 'HEAD':
      self.wfile.write(body)

  def log_message(self, *arguments):
    pass


@contextlib.contextmanager
def serving(repositories):
  """Yields the server's address and the list of its requests."""
  requests = []
  handler = type(
    'Handler', (Hub,), {'repositories': repositories, 'requests': requests}
  )
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
  server.daemon_threads = True
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  try:
    yield f'http://127.0.0.1:{server.server_port}', requests
  finally:
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def hub(exported, tmp_path, monkeypatch):
  """A hub that this process uses; yields the list of its requests."""
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'empty/x.txt').write_text('x')
  repositories = {'owner/name': exported, 'owner/empty': tmp_path / 'empty'}
  constants = huggingface_hub.constants
  with serving(repositories) as (address, requests):
    monkeypatch.setenv('HF_ENDPOINT', address)
    # HF_HUB_CACHE is read when the client is imported.
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
    yield requests
  huggingface_hub.close_session()


@pytest.mark.slow
def test_a_translator_from_the_hub(hub, run):
  assert_translates_alike('hf:owner/name', run)
  assert any(each.endswith('/ba.safetensors') for each in hub)
  assert not any(each.endswith('/samples.png') for each in hub)
  # From the cache.
  hub.clear()
  assert_translates_alike(f'hf:owner/name@{COMMIT}', run)
  assert hub == []


@pytest.mark.slow
def test_a_run_begun_from_the_folder_resumes_with_the_repository(
  hub, exported, tmp_path
):
  config = CONFIG.replace(
    init_from=str(exported), batch_size=1, steps=1, num_devices=1
  )
  sources = {
    'train_a': [*images()],
    'train_b': [*images(1, np.uint16)],
  }
  train(config, tmp_path / 'run', sources=sources)
  longer = config.replace(init_from='hf:owner/name', steps=2)
  result = train(longer, tmp_path / 'run', sources=sources)
  assert result.start_step == 1


@pytest.mark.parametrize(
  'name',
  ['hf:owner/none', 'hf:owner/empty', 'hf:owner/name@v9', 'hf:x', 'hf:a/b/c'],
)
def test_no_such_repository(name, hub):
  with pytest.raises(WorkdirError) as caught:
    load_translator(name, 'ab')
  assert name in str(caught.value)
  assert '\n' not in str(caught.value)


def test_no_server(tmp_path, monkeypatch):
  constants = huggingface_hub.constants
  monkeypatch.setenv('HF_ENDPOINT', 'http://127.0.0.1:9')
  monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
  with pytest.raises(WorkdirError, match='hf:owner/name'):
    load_translator('hf:owner/name', 'ab')


def test_without_the_client(monkeypatch):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(UserError, match=r'cyclegan_jax\[hub\]'):
    local_folder('hf:owner/name')


def test_an_evaluation_names_the_repository(hub, capsys):
  assert cli.main(['evaluate', 'hf:owner/name', '--features', 'none']) == 1
  message = capsys.readouterr().err.strip().splitlines()[-1]
  assert 'hf:owner/name' in message
  assert '--data' in message
  assert 'cache' not in message


@pytest.mark.process
def test_the_command_line_with_a_hub(exported, tmp_path):
  (tmp_path / 'in').mkdir()
  Image.fromarray(images()[0]).save(tmp_path / 'in' / 'x.png')
  with serving({'owner/name': exported}) as (address, _):
    done = subprocess.run(
      [
        *(sys.executable, '-m', 'cyclegan_jax', 'translate', 'hf:owner/name'),
        *(tmp_path / 'in', '--to', tmp_path / 'out'),
      ],
      env=os.environ
      | {'HF_ENDPOINT': address, 'HF_HOME': str(tmp_path / 'hf')},
      capture_output=True,
      text=True,
    )
  assert done.returncode == 0, done.stderr
  expected = load_translator(exported, 'ab')(images()[0])
  made = np.asarray(Image.open(tmp_path / 'out' / 'x.png'))
  np.testing.assert_allclose(made, np.squeeze(expected), rtol=0, atol=2)
