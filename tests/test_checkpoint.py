"""Checkpoints give back every bit, describe themselves, and know damage."""

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

from cyclegan_jax import (
  cli,
  create_train_state,
)
from cyclegan_jax.errors import WorkdirError
from cyclegan_jax.storage import checkpoint, checksums
from cyclegan_jax.storage.checkpoint import Saver
from cyclegan_jax.storage.checksums import (
  DamagedError,
  write_manifest,
)


def assert_same(one, other):
  def check(x, y):
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
      x, y = jax.random.key_data(x), jax.random.key_data(y)
    np.testing.assert_array_equal(x, y)

  assert jax.tree.structure(one) == jax.tree.structure(other)
  jax.tree.map(check, one, other)


@pytest.fixture(scope='module')
def configs(request):
  from cyclegan_jax import Config

  small = Config().replace(
    data={'size': 8, 'load_size': 8},
    generator={'filters': 2, 'isize': 8},
    discriminator={'filters': 2, 'layers': 1},
  )
  return {
    'plain': small,
    'everything': small.replace(pool_size=3, ema_decay=0.9),
  }


@pytest.mark.parametrize('name', ['plain', 'everything'])
def test_round_trip_of_every_leaf_and_of_the_config(name, configs, tmp_path):
  config = configs[name]
  state = create_train_state(config, jax.random.key(7))
  with Saver(tmp_path / 'checkpoints', config) as saver:
    saver.save(state)
  assert saver.take_failure() is None
  for path in (tmp_path, tmp_path / 'checkpoints', tmp_path / 'checkpoints/0'):
    restored, restored_config = checkpoint.load(path)
    assert restored_config == config
    assert_same(restored, state)


def test_a_state_may_be_donated_while_it_is_saved(configs, tmp_path):
  config = configs['plain']
  state = create_train_state(config, jax.random.key(7))
  expected = jax.tree.map(lambda x: x if x.ndim == 0 else np.array(x), state)
  take_over = jax.jit(
    lambda gen: jax.tree.map(lambda x: x + 1, gen), donate_argnums=0
  )
  with Saver(tmp_path / 'checkpoints', config) as saver:
    saver.save(state)
    take_over(state.gen)
  assert_same(checkpoint.load(tmp_path)[0].gen, expected.gen)


@pytest.fixture(scope='module')
def folder_of_three(configs, tmp_path_factory):
  """Checkpoints of steps 0, 1 and 2, with what travels with them."""
  folder = tmp_path_factory.mktemp('run') / 'checkpoints'
  config = configs['plain'].replace(checkpoint={'keep': 5})
  state = create_train_state(config, jax.random.key(0))
  data = {'train_a': {'count': 3, 'sha256': 'ab'}}
  listing = {'train_a': {'version': '', 'images': [['x.png', 7]]}}
  with Saver(folder, config, data=data, listing=listing) as saver:
    for step, loss in enumerate((3.0, 1.0, 2.0)):
      saver.save(state.replace(step=state.step + step), {'loss': loss})
  return folder


@pytest.fixture
def folder(folder_of_three, tmp_path):
  """A copy to break."""
  shutil.copytree(folder_of_three, tmp_path / 'checkpoints')
  return tmp_path / 'checkpoints'


def test_what_travels_with_a_state(folder):
  found = checkpoint.restore(folder / '2')
  assert found.data == {'train_a': {'count': 3, 'sha256': 'ab'}}
  assert found.metrics == {'loss': 2.0}
  assert checkpoint.read_listing(found.path) == {
    'train_a': {'version': '', 'images': [['x.png', 7]]}
  }
  record = json.loads((folder / '2' / 'record.json').read_text())
  assert record['versions'].keys() == {
    'cyclegan_jax',
    'jax',
    'flax',
    'optax',
    'orbax-checkpoint',
  }
  assert record['versions']['jax'] == jax.__version__
  assert record['config']['generator']['filters'] == 2


def test_a_long_list_of_images_takes_little_room(configs, tmp_path):
  names = [[f'{i // 500}/{i:07}.jpg', 1000 + i % 50] for i in range(10_000)]
  listing = {'train_a': {'version': '', 'images': names}}
  with Saver(tmp_path, configs['plain'], listing=listing) as saver:
    saver.save(create_train_state(configs['plain'], jax.random.key(0)))
  size = (tmp_path / '0' / 'data.json.gz').stat().st_size
  assert size < len(json.dumps(listing)) / 5
  assert checkpoint.read_listing(tmp_path / '0') == listing


def test_a_list_that_was_not_packed(folder):
  listing = {'train_a': {'version': '', 'images': [['old.png', 1]]}}
  (folder / '2' / 'data.json.gz').unlink()
  (folder / '2' / 'data.json').write_text(json.dumps(listing))
  (folder / '2' / 'manifest.json').unlink()
  write_manifest(folder / '2', checkpoint.FORMAT)
  found = checkpoint.restore(folder / '2')
  assert checkpoint.read_listing(found.path) == listing


@pytest.mark.parametrize(
  'data', [b'', b'{}', gzip.compress(b'{}', mtime=0)[:-1]]
)
def test_a_list_that_is_none(data, folder):
  (folder / '2' / 'data.json.gz').write_bytes(data)
  (folder / '2' / 'manifest.json').unlink()
  write_manifest(folder / '2', checkpoint.FORMAT)
  with pytest.raises(DamagedError, match=r'data\.json\.gz is not what was'):
    checkpoint.read_listing(folder / '2')


@pytest.mark.parametrize(
  'log, kept',
  [
    ({'keep_checkpoints': 2}, ['3', '4']),
    (
      {'keep_checkpoints': 1, 'best_metric': 'loss'},
      ['2', '4'],
    ),
    (
      {'keep_checkpoints': 1, 'best_metric': 'loss', 'best_mode': 'max'},
      ['1', '4'],
    ),
    ({'keep_checkpoints': 1, 'best_metric': 'fid'}, ['4']),
  ],
)
def test_the_newest_and_the_best_are_kept(log, kept, configs, tmp_path):
  config = configs['plain'].replace(log=log)
  state = create_train_state(config, jax.random.key(0))
  losses = {1: 9.0, 2: 1.0, 3: float('nan'), 4: 5.0}
  with Saver(tmp_path / 'checkpoints', config) as saver:
    for step, loss in losses.items():
      saver.save(state.replace(step=state.step + step), {'loss': loss})
  assert saver.take_failure() is None
  assert sorted(os.listdir(tmp_path / 'checkpoints')) == kept
  assert int(checkpoint.load(tmp_path)[0].step) == 4
  first = tmp_path / 'checkpoints' / kept[0]
  assert int(checkpoint.load(first)[0].step) == int(kept[0])


def test_what_a_dead_process_left_is_passed_over_and_removed(configs, folder):
  shutil.copytree(folder / '2', folder / '.7.tmp')
  os.rename(folder / '0', folder / '.0.old')
  (folder / 'notes').mkdir()
  assert int(checkpoint.load(folder)[0].step) == 2
  Saver(folder, configs['plain'])
  assert sorted(os.listdir(folder)) == ['1', '2', 'notes']


# Damage.


def files_of(path):
  return sorted(each for each in path.rglob('*') if each.is_file())


def test_a_flipped_bit_and_a_cut_anywhere_are_found_and_named(folder):
  checkpoint.restore(folder / '2')
  rng = np.random.default_rng(0)
  files = files_of(folder / '2')
  assert len(files) > 5
  for path in files:
    name = path.relative_to(folder / '2').as_posix()
    content = path.read_bytes()
    cuts = [content[: len(content) // 2], content[:-1], b'']
    flips = []
    for at in {0, len(content) - 1, *rng.integers(len(content), size=20)}:
      flipped = bytearray(content)
      flipped[at] ^= 1 << int(rng.integers(8))
      flips.append(bytes(flipped))
    for damaged in [*cuts, *flips, content + b'x']:
      path.write_bytes(damaged)
      with pytest.raises(DamagedError) as caught:
        checkpoint.restore(folder / '2')
      assert str(caught.value).startswith(f'{name} ')
    path.unlink()
    with pytest.raises(DamagedError, match=f'^{name} is missing$'):
      checkpoint.restore(folder / '2')
    path.write_bytes(content)
  checkpoint.restore(folder / '2')


def test_the_newest_good_one_is_taken_and_the_others_are_named(folder, caplog):
  (folder / '2' / 'record.json').write_text('{}')
  (folder / '1' / 'manifest.json').unlink()
  found = checkpoint.restore_newest(folder)
  assert int(found.state.step) == 0
  expected = [
    f'{folder}/2 is damaged (record.json has 2 bytes instead of ',
    f'{folder}/1 is damaged (manifest.json is missing)',
  ]
  for record, start in zip(caplog.records, expected, strict=True):
    assert record.getMessage().startswith(start)
  assert sorted(os.listdir(folder)) == ['0', '1', '2'], 'nothing is removed'


def test_what_could_not_be_read_takes_no_good_ones_place(configs, folder):
  (folder / '2' / 'record.json').write_text('{}')
  state = checkpoint.restore_newest(folder).state
  config = configs['plain'].replace(checkpoint={'keep': 1})
  with Saver(folder, config, good_step=1) as saver:
    assert saver.last_step == 1
    saver.save(state)  # is there
    saver.wait()
    assert sorted(os.listdir(folder)) == ['0', '1', '2']
    # Once the run comes by that step again, it is as good as any.
    saver.save(state.replace(step=state.step + 1))
  assert saver.take_failure() is None
  assert saver.last_step == 2
  assert os.listdir(folder) == ['2']
  assert_same(checkpoint.load(folder)[0].gen, state.gen)


def test_the_best_is_not_chosen_by_a_damaged_record(folder):
  assert checkpoint.best_step(folder, 'loss', 'min') == 1
  path = folder / '2' / 'record.json'
  path.write_text(path.read_text().replace('2.0', '0.0'))
  assert json.loads(path.read_text())['metrics'] == {'loss': 0.0}
  assert checkpoint.best_step(folder, 'loss', 'min') == 1


def test_what_is_deleted_while_it_is_read_is_looked_for_again(
  configs, folder, monkeypatch
):
  """As by a run that keeps one and has saved the next."""
  check = checkpoint.check_manifest

  def check_late(path):
    if path.name == '2':
      os.rename(path, path.with_name('3'))
    check(path)

  monkeypatch.setattr(checkpoint, 'check_manifest', check_late)
  assert checkpoint.restore_newest(folder).path == folder / '3'


def test_a_run_does_not_start_anew_where_all_are_damaged(folder):
  for step in '012':
    (folder / step / 'manifest.json').write_text('')
  for _ in range(2):
    with pytest.raises(WorkdirError) as caught:
      checkpoint.restore_newest(folder)
    assert str(caught.value) == (
      f'{folder} has no checkpoint left to go on from: {folder}/2 is damaged '
      '(manifest.json is not what was saved): bring a copy back, or give '
      'another --workdir to start anew'
    )


def test_a_damaged_checkpoint_that_is_asked_for(folder):
  (folder / '2' / 'record.json').unlink()
  with pytest.raises(WorkdirError) as caught:
    checkpoint.load(folder / '2')
  assert str(caught.value) == (
    f'{folder}/2 is damaged (record.json is missing): give another '
    "checkpoint, or the run's folder for the newest that is whole"
  )


# Formats.


def newer(path, format=3):
  return (
    f'checkpoint {path} is of format {format}, and this version reads format '
    '2: upgrade cyclegan_jax'
  )


@pytest.mark.parametrize(
  'text, format',
  [
    ('{"format": 3}', 3),
    ('{"files": ["a"], "sha256": null, "format": 99}', 99),
    ('{"format": 3, "blake3": "0f", "shards": [{"of": NaN}]}\n\n', 3),
    ('{"format": 3, "files": {}, "sha256": "0f"}', 3),
    (f'{{"format": {10**30}}}', 10**30),
  ],
)
def test_a_newer_format_is_known_by_its_number_alone(folder, text, format):
  shutil.rmtree(folder / '2')
  (folder / '2').mkdir()
  (folder / '2' / 'manifest.json').write_text(text)
  for path in (folder, folder / '2'):
    with pytest.raises(WorkdirError) as caught:
      checkpoint.load(path)
    assert str(caught.value) == newer(folder / '2', format)


def test_a_newer_format_in_the_manifest_of_today(folder):
  (folder / '2' / 'manifest.json').unlink()
  write_manifest(folder / '2', 3)
  with pytest.raises(WorkdirError) as caught:
    checkpoint.load(folder)
  assert str(caught.value) == newer(folder / '2')


@pytest.mark.parametrize('format', ['true', '3.0', '"3"', '[3]', 'null', '-3'])
def test_what_is_no_number_of_a_format_is_damage(folder, format):
  (folder / '2' / 'manifest.json').write_text(f'{{"format": {format}}}')
  with pytest.raises(DamagedError, match=r'^manifest.json is not what was'):
    checkpoint.restore(folder / '2')


def test_a_flipped_bit_in_the_format_is_damage_and_no_newer_one(folder):
  path = folder / '2' / 'manifest.json'
  good = path.read_text()
  assert good.count('"format": 2') == 1
  # What a bit or two make of a 2.
  for other in '03679':
    path.write_text(good.replace('"format": 2', f'"format": {other}'))
    with pytest.raises(DamagedError, match=r'^manifest.json is not what was'):
      checkpoint.restore(folder / '2')
  # So a run goes on from the checkpoint before.
  assert checkpoint.restore_newest(folder).path == folder / '1'


def test_commands_tell_of_a_newer_format_before_all_else(
  folder, tmp_path, capsys
):
  """All of the run is of that version, config.json too."""
  shutil.rmtree(folder / '2')
  (folder / '2').mkdir()
  content = {'format': 3, 'blake3': '0f', 'shards': 4}
  (folder / '2' / 'manifest.json').write_text(json.dumps(content))
  (tmp_path / 'config.json').write_text('{"not": {"known": "here"}}')
  Image.new('RGB', (8, 8)).save(tmp_path / 'x.png')
  before = files_of(tmp_path)
  run, x, out = (str(tmp_path / name) for name in ('', 'x.png', 'out'))
  for argv in (
    ['translate', run, x, '--to', out],
    ['translate', str(folder / '2'), x, '--to', out],
    ['evaluate', run],
    ['train', f'--workdir={run}', '--config.steps=1'],
    ['export', run, '--format', 'pth', '--to', out],
  ):
    assert cli.main(argv) == 1
    assert capsys.readouterr().err == f'error: {newer(folder / "2")}\n'
  assert files_of(tmp_path) == before
  page = tmp_path / 'page.html'
  assert cli.main(['compare', run, '--to', str(page)]) == 1
  assert capsys.readouterr().err == f'error: {run}: {newer(folder / "2")}\n'


def test_the_first_format_is_refused(folder):
  shutil.rmtree(folder / '2')
  (folder / '2' / 'record').mkdir(parents=True)
  (folder / '2' / 'record' / 'metadata').write_text('{"format": 1}')
  with pytest.raises(WorkdirError, match='/2 has format 1, but this version'):
    checkpoint.load(folder)


def test_a_state_that_these_versions_do_not_know(folder):
  # Whole, but of another optimizer than its config says: as if Optax had
  # changed its state.
  record = json.loads((folder / '2' / 'record.json').read_text())
  record['config']['optimizer']['name'] = 'sgd'
  record['versions'] = {'jax': '9.9', 'optax': '8.8'}
  (folder / '2' / 'record.json').write_text(json.dumps(record))
  (folder / '2' / 'manifest.json').unlink()
  write_manifest(folder / '2', checkpoint.FORMAT)
  with pytest.raises(WorkdirError) as caught:
    checkpoint.load(folder)
  message = str(caught.value)
  assert message.startswith(f'{folder}/2 can not be read here (')
  assert message.endswith(
    '): it was written with jax 9.9, optax 8.8, so use those'
  )
  assert '\n' not in message


# A disk that refuses.


# Orbax leaves what it had under way when a write failed to closed loops.
refuses = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning',
  'ignore::pytest.PytestUnhandledThreadExceptionWarning',
)


@pytest.fixture
def small_files():
  """No file may grow beyond a few KiB: a real error in the middle of a save."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
  yield
  resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@refuses
def test_a_save_that_fails_is_told_and_leaves_what_was_there(
  configs, folder, small_files
):
  config = configs['plain'].replace(checkpoint={'keep': 1})
  state = create_train_state(config, jax.random.key(1))
  with Saver(folder, config) as saver:
    saver.save(state.replace(step=state.step + 5))
    saver.wait()
    step, error = saver.take_failure()
    assert (step, checkpoint.reason_of(error)) == (
      5,
      os.strerror(errno.EFBIG),
    )
    assert saver.take_failure() is None
  assert sorted(os.listdir(folder)) == ['0', '1', '2']
  assert int(checkpoint.load(folder)[0].step) == 2


def test_what_is_written_behind_a_failure_is_removed(configs, folder):
  late = folder / '.5.tmp' / 'state' / 'late'

  def write():
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
      with contextlib.suppress(OSError):  # removed in between
        late.parent.mkdir(parents=True, exist_ok=True)
        late.write_text('x')

  with Saver(folder, configs['plain']) as saver:
    thread = threading.Thread(target=write)
    thread.start()
    saver.fail(5, OSError('full'))
    thread.join()
  assert sorted(os.listdir(folder)) == ['0', '1', '2']


@refuses
def test_after_a_failure_the_next_save_is_as_good_as_any(
  configs, tmp_path, small_files
):
  config = configs['plain']
  state = create_train_state(config, jax.random.key(1))
  with Saver(tmp_path / 'checkpoints', config) as saver:
    saver.save(state)
    saver.wait()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    saver.save(state)
  assert saver.take_failure() is None
  assert_same(checkpoint.load(tmp_path)[0], state)


@pytest.mark.parametrize(
  'make, message',
  [
    (
      lambda path: None,
      '{path} is not a folder: give the folder of a run, or of one of its '
      'checkpoints',
    ),
    (
      lambda path: path.mkdir(),
      '{path} holds no checkpoint: give the folder of a run that has saved one',
    ),
    (
      lambda path: path.write_text('x'),
      '{path} is not a folder: give the folder of a run, or of one of its '
      'checkpoints',
    ),
  ],
  ids=['missing', 'empty', 'file'],
)
def test_what_is_no_checkpoint_is_said_to_be_none(make, message, tmp_path):
  path = tmp_path / 'run'
  make(path)
  with pytest.raises(WorkdirError) as caught:
    checkpoint.load(path)
  assert str(caught.value) == message.format(path=path)


# A manifest with a good checksum of bad content, as only a person makes it.


@pytest.mark.parametrize(
  'content',
  [
    {},
    {'format': 2},
    {'format': None, 'files': {}},
    {'format': float('inf'), 'files': {}},
    {'format': 2, 'files': []},
    {'format': 2, 'files': {'a': {'size': 1}}},
    {'format': 2, 'files': {'a': {'size': 'x', 'sha256': 'x'}}},
    *(
      {'format': 2, 'files': {name: {'size': 1, 'sha256': 'x'}}}
      for name in ('', '.', '/etc/passwd', '../../other', 'a/../../b', 'a\0b')
    ),
  ],
)
def test_a_manifest_of_nonsense_or_malice(folder, content):
  (folder / '2' / 'manifest.json').write_bytes(checksums._encode(content))
  with pytest.raises(DamagedError, match=r'^manifest.json is not what was'):
    checkpoint.restore(folder / '2')


@pytest.mark.parametrize('make', [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_read(folder, make):
  (folder / '2' / 'record.json').unlink()
  make(folder / '2' / 'record.json')
  with pytest.raises(DamagedError, match=r'^record.json is not a file$'):
    checkpoint.restore(folder / '2')


def test_a_metric_too_large_for_a_number_is_never_the_best(folder):
  path = folder / '2' / 'record.json'
  record = json.loads(path.read_text())
  record['metrics']['loss'] = 10**400
  path.write_text(json.dumps(record))
  assert checkpoint.best_step(folder, 'loss', 'max') == 0
