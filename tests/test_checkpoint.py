"""Checkpoints return every bit, describe themselves and reveal damage."""

import contextlib
import errno
import gzip
import json
import os
import resource
import shutil
import threading
import time

import jax
import numpy as np
import pytest
from PIL import Image

from cyclegan_jax import Config, cli, create_train_state
from cyclegan_jax.errors import WorkdirError
from cyclegan_jax.storage import checkpoint, checksums
from cyclegan_jax.storage.checkpoint import Saver
from cyclegan_jax.storage.checksums import DamagedError, write_manifest
from cyclegan_jax.storage.disk_errors import error_reason
from cyclegan_jax.storage.workdir import write_config

NEWER = checkpoint.FORMAT + 1
CONFIG = Config().replace(
  data={'size': 8, 'load_size': 8},
  generator={'filters': 2, 'isize': 8},
  discriminator={'filters': 2, 'layers': 1},
)
DATA = {'train_a': {'count': 3, 'sha256': 'ab'}}
IMAGE_LIST = {'train_a': {'version': '', 'images': [['x.png', 7]]}}


def assert_same(one, other):
  def check(x, y):
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
      x, y = jax.random.key_data(x), jax.random.key_data(y)
    np.testing.assert_array_equal(x, y)

  assert jax.tree.structure(one) == jax.tree.structure(other)
  jax.tree.map(check, one, other)


def make_state(config=CONFIG, step=0):
  state = create_train_state(config, jax.random.key(7))
  return state.replace(step=state.step + step)


@pytest.fixture(scope='module')
def folder_of_three(tmp_path_factory):
  """Checkpoints of steps 0, 1 and 2."""
  folder = tmp_path_factory.mktemp('run') / 'checkpoints'
  config = CONFIG.replace(checkpoint={'keep': 5})
  with Saver(folder, config, data=DATA, image_list=IMAGE_LIST) as saver:
    for step, loss in enumerate((3.0, 1.0, 2.0)):
      saver.save(make_state(step=step), {'loss': loss})
  return folder


@pytest.fixture
def folder(folder_of_three, tmp_path):
  """A copy that a test may change."""
  shutil.copytree(folder_of_three, tmp_path / 'checkpoints')
  return tmp_path / 'checkpoints'


def list_files(path):
  return sorted(file for file in path.rglob('*') if file.is_file())


def rewrite(path, name, data):
  """Replaces a file of a checkpoint, and its checksum."""
  (path / name).write_bytes(data)
  (path / 'manifest.json').unlink()
  write_manifest(path, checkpoint.FORMAT)


def rewrite_record(path, **changes):
  record = json.loads((path / 'record.json').read_text())
  rewrite(path, 'record.json', json.dumps(record | changes).encode())


@pytest.mark.parametrize('changes', [{}, {'pool_size': 3, 'ema_decay': 0.9}])
def test_every_leaf_and_the_config_come_back(changes, tmp_path):
  config = CONFIG.replace(**changes)
  state = make_state(config)
  with Saver(tmp_path / 'checkpoints', config) as saver:
    saver.save(state)
  assert saver.take_failure() is None
  for path in (tmp_path, tmp_path / 'checkpoints', tmp_path / 'checkpoints/0'):
    loaded = checkpoint.load(path)
    assert loaded.config == config
    assert_same(loaded.state, state)


def test_a_state_may_be_donated_while_it_is_saved(tmp_path):
  state = make_state()
  expected = jax.tree.map(np.array, state.gen)
  take_over = jax.jit(
    lambda gen: jax.tree.map(lambda x: x + 1, gen), donate_argnums=0
  )
  with Saver(tmp_path / 'checkpoints', CONFIG) as saver:
    saver.save(state)
    take_over(state.gen)
  assert_same(checkpoint.load(tmp_path).state.gen, expected)


def test_what_a_checkpoint_holds(folder):
  loaded = checkpoint.load(folder / '2')
  assert loaded.data == DATA
  assert loaded.metrics == {'loss': 2.0}
  assert loaded.directions == ('ab', 'ba')
  assert loaded.discriminators == ('a', 'b')
  assert checkpoint.load_image_list(loaded.path) == IMAGE_LIST
  record = json.loads((folder / '2' / 'record.json').read_text())
  assert record['versions']['jax'] == jax.__version__
  assert record['config']['generator']['filters'] == 2


def test_the_names_and_codes_are_those_of_the_run_by_now(folder, tmp_path):
  names = {'name_a': 'apple', 'name_b': 'orange', 'modality_b': 'MR'}
  names |= {'modality_a': 'CT', 'rescale_type_a': 'HU', 'rescale_type_b': 'US'}
  write_config(folder.parent, CONFIG.replace(seed=3, steps=9, data=names))
  for path in (folder.parent, folder / '1'):
    loaded = checkpoint.load(path).config
    assert loaded == CONFIG.replace(data=names, checkpoint={'keep': 5})
  # A copy elsewhere, and a damaged file, leave what the checkpoint holds.
  shutil.copytree(folder / '1', tmp_path / 'copy/1')
  assert checkpoint.load(tmp_path / 'copy/1').config.data.name_a == ''
  for text in ('{', '[' * 100_000, '{"data": {"name_a": 3}}'):
    (folder.parent / 'config.json').write_text(text)
    assert checkpoint.load(folder).config.data.name_a == ''


def test_a_long_list_of_images_is_compressed(tmp_path):
  names = [[f'{i // 500}/{i:07}.jpg', 1000 + i % 50] for i in range(10_000)]
  image_list = {'train_a': {'version': '', 'images': names}}
  with Saver(tmp_path, CONFIG, image_list=image_list) as saver:
    saver.save(make_state())
  size = (tmp_path / '0' / 'data.json.gz').stat().st_size
  assert size < len(json.dumps(image_list)) / 5
  assert checkpoint.load_image_list(tmp_path / '0') == image_list


@pytest.mark.parametrize(
  'data', [b'', b'{}', gzip.compress(b'{}', mtime=0)[:-1]]
)
def test_a_damaged_list_of_images(data, folder):
  rewrite(folder / '2', 'data.json.gz', data)
  with pytest.raises(DamagedError, match=r'^data\.json\.gz '):
    checkpoint.load_image_list(folder / '2')


def test_only_trained_networks_are_given(folder):
  rewrite_record(folder / '2', directions=['ba', 7], discriminators=[])
  loaded = checkpoint.load(folder / '2', direction='ba')
  assert (loaded.directions, loaded.discriminators) == (('ba',), ())
  with pytest.raises(WorkdirError, match='--direction ba'):
    checkpoint.load(folder / '2', direction='ab')


@pytest.mark.parametrize(
  'options, kept',
  [
    ({'keep': 2}, ['3', '4']),
    ({'keep': 1, 'best_metric': 'loss'}, ['2', '4']),
    ({'keep': 1, 'best_metric': 'loss', 'best_mode': 'max'}, ['1', '4']),
    ({'keep': 1, 'best_metric': 'fid'}, ['4']),
  ],
)
def test_the_newest_and_the_best_are_kept(options, kept, tmp_path):
  config = CONFIG.replace(checkpoint=options)
  losses = {1: 9.0, 2: 1.0, 3: float('nan'), 4: 5.0}
  with Saver(tmp_path / 'checkpoints', config) as saver:
    for step, loss in losses.items():
      saver.save(make_state(step=step), {'loss': loss})
  assert saver.take_failure() is None
  assert sorted(os.listdir(tmp_path / 'checkpoints')) == kept
  assert int(checkpoint.load(tmp_path).state.step) == 4


def test_leftovers_of_a_killed_process_are_ignored_and_removed(folder):
  shutil.copytree(folder / '2', folder / '.7.tmp')
  os.rename(folder / '0', folder / '.0.old')
  (folder / 'notes').mkdir()
  assert int(checkpoint.load(folder).state.step) == 2
  Saver(folder, CONFIG)
  assert sorted(os.listdir(folder)) == ['1', '2', 'notes']


# Damage.


def test_a_flipped_bit_and_a_cut_in_any_file_are_named(folder):
  checkpoint.load(folder / '2')
  rng = np.random.default_rng(0)
  files = list_files(folder / '2')
  assert len(files) > 5
  for path in files:
    name = path.relative_to(folder / '2').as_posix()
    content = path.read_bytes()
    damages = [content[: len(content) // 2], content[:-1], content + b'x']
    for at in {0, len(content) - 1, *rng.integers(len(content), size=20)}:
      flipped = bytearray(content)
      flipped[at] ^= 1 << int(rng.integers(8))
      damages.append(bytes(flipped))
    for damaged in damages:
      path.write_bytes(damaged)
      with pytest.raises(WorkdirError, match=rf'is damaged \({name} '):
        checkpoint.load(folder / '2')
    path.unlink()
    with pytest.raises(WorkdirError, match=rf'is damaged \({name} is missing'):
      checkpoint.load(folder / '2')
    path.write_bytes(content)
  checkpoint.load(folder / '2')


def test_a_flipped_bit_in_the_format_is_not_a_newer_format(folder):
  path = folder / '2' / 'manifest.json'
  content = path.read_text()
  assert content.count('"format": 1') == 1
  for other in '0359':
    path.write_text(content.replace('"format": 1', f'"format": {other}'))
    with pytest.raises(WorkdirError, match=r'is damaged \(manifest\.json '):
      checkpoint.load(folder / '2')
  assert checkpoint.load(folder).path == folder / '1'


def test_the_newest_valid_one_is_loaded_and_the_others_are_named(
  folder, caplog
):
  (folder / '2' / 'record.json').write_text('{}')
  (folder / '1' / 'manifest.json').unlink()
  loaded = checkpoint.load_newest(folder)
  assert int(loaded.state.step) == 0
  expected = [
    f'{folder}/2 is damaged (record.json has 2 bytes instead of ',
    f'{folder}/1 is damaged (manifest.json is missing)',
  ]
  for record, start in zip(caplog.records, expected, strict=True):
    assert record.getMessage().startswith(start)
  assert sorted(os.listdir(folder)) == ['0', '1', '2'], 'nothing is removed'


def test_a_damaged_checkpoint_takes_no_valid_one_s_place(folder):
  (folder / '2' / 'record.json').write_text('{}')
  state = checkpoint.load_newest(folder).state
  config = CONFIG.replace(checkpoint={'keep': 1})
  with Saver(folder, config, resume_step=1) as saver:
    assert saver.last_step == 1
    saver.save(state)  # exists
    saver.wait()
    assert sorted(os.listdir(folder)) == ['0', '1', '2']
    # Once the run comes to that step again, it is replaced.
    saver.save(state.replace(step=state.step + 1))
  assert saver.take_failure() is None
  assert saver.last_step == 2
  assert os.listdir(folder) == ['2']
  assert_same(checkpoint.load(folder).state.gen, state.gen)


def test_the_best_is_not_chosen_by_a_damaged_record(folder):
  path = folder / '2' / 'record.json'
  path.write_text(path.read_text().replace('2.0', '0.0'))
  assert json.loads(path.read_text())['metrics'] == {'loss': 0.0}
  assert checkpoint.best_step(folder, 'loss', 'min') == 1


def test_the_best_is_not_chosen_by_a_metric_that_is_no_float(folder):
  rewrite_record(folder / '2', metrics={'loss': 10**400})
  assert checkpoint.best_step(folder, 'loss', 'max') == 0


def test_a_checkpoint_that_is_deleted_while_it_is_read(folder, monkeypatch):
  """As by a run that keeps one and has saved the next."""
  check_manifest = checkpoint.check_manifest

  def check_late(path):
    if path.name == '2':
      os.rename(path, path.with_name('3'))
    check_manifest(path)

  monkeypatch.setattr(checkpoint, 'check_manifest', check_late)
  assert checkpoint.load_newest(folder).path == folder / '3'


def test_a_run_does_not_start_anew_if_all_are_damaged(folder):
  for step in '012':
    (folder / step / 'manifest.json').write_text('')
  with pytest.raises(WorkdirError, match=f'{folder}/2 is damaged'):
    checkpoint.load_newest(folder)


def test_a_run_in_a_folder_that_is_not_utf_8(folder, tmp_path, caplog):
  renamed = tmp_path / os.fsdecode(b'r\xe9sum\xe9')
  shutil.copytree(folder, renamed)
  with pytest.raises(WorkdirError, match='not UTF-8.*rename'):
    checkpoint.load(renamed)
  assert not caplog.records


@pytest.mark.parametrize('kind', ['missing', 'empty', 'file'])
def test_a_path_without_a_checkpoint(kind, tmp_path):
  path = tmp_path / 'run'
  if kind == 'empty':
    path.mkdir()
  elif kind == 'file':
    path.write_text('x')
  with pytest.raises(WorkdirError, match=f'^{path} '):
    checkpoint.load(path)


# Manifests with a right checksum of wrong content, as only a person writes.


@pytest.mark.parametrize(
  'content',
  [
    {},
    {'format': 1},
    {'format': None, 'files': {}},
    {'format': True, 'files': {}},
    {'format': 1, 'files': []},
    {'format': 1, 'files': {'a': {'size': 1}}},
    {'format': 1, 'files': {'a': {'size': 'x', 'sha256': 'x'}}},
    {'format': 1, 'files': {'a': {'size': float('inf'), 'sha256': 'x'}}},
    *(
      {'format': 1, 'files': {name: {'size': 1, 'sha256': 'x'}}}
      for name in ('', '.', '/etc/passwd', 'a/../../b', 'a\0b')
    ),
  ],
)
def test_a_manifest_with_wrong_content(folder, content):
  (folder / '2' / 'manifest.json').write_bytes(checksums._encode(content))
  with pytest.raises(WorkdirError, match=r'is damaged \(manifest\.json '):
    checkpoint.load(folder / '2')


@pytest.mark.parametrize('make', [os.mkdir, os.mkfifo])
def test_only_regular_files_are_read(folder, make):
  (folder / '2' / 'record.json').unlink()
  make(folder / '2' / 'record.json')
  with pytest.raises(WorkdirError, match=r'is damaged \(record\.json '):
    checkpoint.load(folder / '2')


# Other versions.


def write_newer_format(path):
  """A checkpoint of which only the rules of a manifest are known."""
  shutil.rmtree(path)
  path.mkdir()
  content = {'format': NEWER, 'blake3': '0f', 'shards': 4}
  (path / 'manifest.json').write_bytes(checksums._encode(content))


def test_a_newer_format(folder):
  write_newer_format(folder / '2')
  for path in (folder, folder / '2'):
    with pytest.raises(WorkdirError, match=f'{folder}/2 has format {NEWER}'):
      checkpoint.load(path)


def test_commands_report_a_newer_format_first(folder, tmp_path, capsys):
  """All of the run is of that version, config.json too."""
  write_newer_format(folder / '2')
  (tmp_path / 'config.json').write_text('{"not": {"known": "here"}}')
  Image.new('RGB', (8, 8)).save(tmp_path / 'x.png')
  before = list_files(tmp_path)
  run, image, to = (str(tmp_path / name) for name in ('', 'x.png', 'to'))
  for argv in (
    ['translate', run, image, '--to', to],
    ['translate', str(folder / '2'), image, '--to', to],
    ['evaluate', run],
    ['train', f'--workdir={run}', '--config.steps=1'],
    ['export', run, '--format', 'pth', '--to', to],
  ):
    assert cli.main(argv) == 1
    error = capsys.readouterr().err
    assert f'{folder / "2"} has format {NEWER}' in error.splitlines()[-1]
  assert list_files(tmp_path) == before
  # A comparison shows what it can, and names the run that it cannot read.
  assert cli.main(['compare', run, '--to', str(tmp_path / 'page.html')]) == 1
  assert f'{folder / "2"} has format {NEWER}' in capsys.readouterr().err


@pytest.mark.parametrize('versions', [{}, {'jax': '9.9', 'optax': '8.8'}])
def test_a_state_that_the_libraries_cannot_read(folder, versions):
  # Valid, but of another optimizer than its config says: as if Optax had
  # changed its state.
  record = json.loads((folder / '2' / 'record.json').read_text())
  record['config']['optimizer']['name'] = 'sgd'
  record['versions'] |= versions
  rewrite_record(folder / '2', **record)
  with pytest.raises(WorkdirError, match=f'^{folder}/2 ') as caught:
    checkpoint.load(folder)
  message = str(caught.value)
  assert '\n' not in message
  # Only versions that differ from the installed ones are to blame.
  assert ('install jax 9.9, optax 8.8' in message) == bool(versions)
  assert ('install' in message) == bool(versions)


def test_a_network_that_this_version_does_not_have(folder):
  config = json.loads((folder / '2' / 'record.json').read_text())['config']
  config['generator']['name'] = 'hourglass'
  rewrite_record(folder / '2', config=config)
  with pytest.raises(WorkdirError, match=r'config\.generator\.name') as caught:
    checkpoint.load(folder / '2')
  assert 'version of cyclegan_jax' in str(caught.value)
  assert 'jax 0.' not in str(caught.value)
  # The installed version is not to blame, another one is.
  assert 'install' not in str(caught.value)
  versions = {'cyclegan_jax': '9.9', 'jax': '9.9'}
  rewrite_record(folder / '2', config=config, versions=versions)
  with pytest.raises(WorkdirError, match='install cyclegan_jax 9.9, which'):
    checkpoint.load(folder / '2')


# A disk that refuses.


@contextlib.contextmanager
def small_files():
  """Limits files to a few KiB: a real error in the middle of a save."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_failed_save_is_reported_and_leaves_the_others(folder, capfd):
  config = CONFIG.replace(checkpoint={'keep': 1})
  with Saver(folder, config) as saver:
    with small_files():
      for _ in range(3):
        saver.save(make_state(step=5))
      saver.wait()
    step, error = saver.take_failure()
    assert (step, error_reason(error)) == (5, os.strerror(errno.EFBIG))
    assert saver.take_failure() is None
  assert sorted(os.listdir(folder)) == ['0', '1', '2']
  assert int(checkpoint.load(folder).state.step) == 2
  assert capfd.readouterr() == ('', '')  # the caller reports it


def test_after_a_failure_the_next_save_is_valid(tmp_path):
  state = make_state()
  with Saver(tmp_path / 'checkpoints', CONFIG) as saver:
    with small_files():
      saver.save(state)
      saver.wait()
    saver.save(state)
  assert saver.take_failure() is None
  assert_same(checkpoint.load(tmp_path).state, state)


def test_files_that_appear_after_a_failure_are_removed(folder):
  late = folder / '.5.tmp' / 'state' / 'late'

  def write():
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
      with contextlib.suppress(OSError):  # removed in between
        late.parent.mkdir(parents=True, exist_ok=True)
        late.write_text('x')

  with Saver(folder, CONFIG) as saver:
    thread = threading.Thread(target=write)
    thread.start()
    saver.fail(5, OSError('full'))
    thread.join()
  assert sorted(os.listdir(folder)) == ['0', '1', '2']
