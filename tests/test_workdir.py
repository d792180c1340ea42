"""The folder of a run: config, lock, and disks that cannot be written."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from cyclegan_jax.config import Config
from cyclegan_jax.errors import WorkdirError
from cyclegan_jax.storage.disk_errors import explain_disk_errors
from cyclegan_jax.storage.workdir import (
  check_free_space,
  lock_workdir,
  make_workdir,
  read_config,
  write_config,
)

REPO = pathlib.Path(__file__).parent.parent


def message_of(function, *args, **kwargs):
  with pytest.raises(WorkdirError) as caught:
    function(*args, **kwargs)
  text = str(caught.value)
  assert '\n' not in text
  return text


def prepare(folder, config=None, checkpoint_bytes=0):
  config = config or Config()
  with lock_workdir(folder):
    check_free_space(folder, config, checkpoint_bytes)
    write_config(folder, config)


# Numbered folders.


def test_folders_are_numbered(tmp_path):
  root = tmp_path / 'deep' / 'runs'
  assert make_workdir(root) == root / '00000'
  for name in ('00041', 'horses', '7x', '²', '-3', '00099.old'):
    (root / name).mkdir()
  (root / '00050').write_text('a file')
  assert make_workdir(root) == root / '00051'


def test_runs_is_a_file(tmp_path):
  root = tmp_path / 'runs'
  root.write_text('')
  assert str(root) in message_of(make_workdir, root)


# config.json.


def test_the_config_is_written_and_read(tmp_path):
  config = Config(seed=7, epochs=3, steps=30)
  prepare(tmp_path / 'new' / 'run', config)
  assert read_config(tmp_path / 'new' / 'run') == config
  names = os.listdir(tmp_path / 'new' / 'run')
  assert sorted(names) == ['config.json', 'lock'], 'nothing else is left'


@pytest.mark.parametrize('name', ['nowhere', 'file'])
def test_no_config_to_read(tmp_path, name):
  (tmp_path / 'file').write_text('')
  assert read_config(tmp_path / name) is None


@pytest.mark.parametrize(
  'content',
  [
    b'',
    b'{"seed": 0, "ba',
    b'\xff\xfe',
    b'[]',
    b'{"sed": 0}',
    b'{"seed": "0"}',
    b'{}',
    b'{"seed": 1}',
  ],
)
def test_a_damaged_config(tmp_path, content):
  path = tmp_path / 'config.json'
  path.write_bytes(content)
  assert str(path) in message_of(read_config, tmp_path)
  assert path.read_bytes() == content, 'nothing is lost'


def test_a_config_that_is_a_folder(tmp_path):
  (tmp_path / 'config.json').mkdir()
  assert 'config.json' in message_of(read_config, tmp_path)


# One process at a time.


def holder_of(folder):
  """Starts another process that holds the lock of a folder."""
  program = (
    'import pathlib, sys\n'
    'from cyclegan_jax.storage.workdir import lock_workdir\n'
    'with lock_workdir(pathlib.Path(sys.argv[1])):\n'
    '  print("locked", flush=True)\n'
    '  sys.stdin.read()\n'
  )
  process = subprocess.Popen(
    [sys.executable, '-c', program, str(folder)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == 'locked\n'
  return process


def test_a_second_process_is_refused_and_the_first_is_named(tmp_path):
  folder = tmp_path / 'run'
  with holder_of(folder) as first:
    with (
      pytest.raises(WorkdirError, match=f'process {first.pid} on '),
      lock_workdir(folder),
    ):
      pytest.fail('locked twice')
    first.stdin.close()
  with lock_workdir(folder):
    pass


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, caplog):
  with holder_of(tmp_path) as first:
    first.kill()
    first.wait()
    with lock_workdir(tmp_path):
      owner = json.loads((tmp_path / '.cyclegan_lock.json').read_text())
      assert owner['pid'] == os.getpid()
      (tmp_path / 'config.json').touch()
  (record,) = caplog.records
  assert f'process {first.pid} on ' in record.getMessage()
  assert sorted(os.listdir(tmp_path)) == ['config.json', 'lock']


@pytest.mark.parametrize('content', ['', '{"pid": 1', '[]'])
def test_a_lock_whose_owner_cannot_be_read(tmp_path, content):
  with lock_workdir(tmp_path):
    (tmp_path / '.cyclegan_lock.json').write_text(content)
    with (
      pytest.raises(WorkdirError, match='another process'),
      lock_workdir(tmp_path),
    ):
      pytest.fail('locked twice')


def test_a_folder_that_is_still_empty_is_removed(tmp_path):
  with lock_workdir(tmp_path / 'empty'):
    pass
  assert not (tmp_path / 'empty').exists()
  with lock_workdir(tmp_path / 'full'):
    (tmp_path / 'full' / 'checkpoints').mkdir()
  assert (tmp_path / 'full' / 'checkpoints').exists()


def test_a_refused_folder_stays_as_it_is(tmp_path):
  for name in ('photo.png', '.mine.tmp', '.0123456789abcdeg.tmp', 'lock.json'):
    (tmp_path / name).write_text(name)
  before = sorted(tmp_path.iterdir())
  with pytest.raises(WorkdirError), lock_workdir(tmp_path):
    raise WorkdirError('not a run')
  assert sorted(tmp_path.iterdir()) == before
  assert all(path.read_text() == path.name for path in before)


def test_half_written_files_of_a_killed_run_are_removed(tmp_path):
  left = tmp_path / 'tensorboard' / '.0123456789abcdef.tmp'
  left.parent.mkdir()
  left.touch()
  with lock_workdir(tmp_path):
    assert list(left.parent.iterdir()) == []


# Folders that cannot be written.


def test_a_workdir_that_is_a_file(tmp_path):
  path = tmp_path / 'run'
  path.write_text('precious')
  assert '--workdir' in message_of(prepare, path)
  assert path.read_text() == 'precious'


def test_a_workdir_below_a_file(tmp_path):
  (tmp_path / 'file').write_text('precious')
  path = tmp_path / 'file' / 'run'
  assert '--workdir' in message_of(prepare, path)


def test_a_name_that_is_too_long(tmp_path):
  message = message_of(prepare, tmp_path / ('x' * 300))
  assert 'File name too long' in message


@contextlib.contextmanager
def without_rights():
  """Drops root's rights for a while, since root may write anything."""
  user = os.geteuid()
  if user:
    yield
    return
  os.seteuid(65534)
  try:
    yield
  finally:
    os.seteuid(user)


def test_a_workdir_without_the_right_to_write(tmp_path):
  tmp_path.chmod(0o500)
  try:
    with without_rights():
      message = message_of(prepare, tmp_path / 'run')
  finally:
    tmp_path.chmod(0o700)
  assert f'{tmp_path}/run' in message
  assert 'permission denied' in message


def test_other_errors_pass_through(tmp_path):
  for error in (ValueError('a bug'), RuntimeError('a bug'), KeyError('a bug')):
    with pytest.raises(type(error)), explain_disk_errors(tmp_path):
      raise error


@pytest.mark.parametrize(
  'error',
  [
    OSError(errno.ENOSPC, 'x'),
    OSError(errno.EDQUOT, 'x'),
    # As TensorStore reports it.
    ValueError('RESOURCE_EXHAUSTED: [OS error 28: No space left on device]'),
    RuntimeError('No space left on device'),
  ],
)
def test_each_report_of_a_full_disk(tmp_path, error):
  def fail(**options):
    with explain_disk_errors(tmp_path, **options):
      raise error

  message = message_of(fail)
  assert f'{tmp_path} is on a full disk' in message
  assert message.startswith(message_of(fail, option='--to'))


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
  (tmp_path / 'samples').write_text('')

  def fail():
    with explain_disk_errors(tmp_path):
      (tmp_path / 'samples').mkdir()

  assert f'{tmp_path}/samples is a file' in message_of(fail)


# Real disks that are full, which root can mount.


@pytest.fixture
def make_disk(tmp_path):
  """A function that mounts a small disk in memory and returns its folder."""
  if os.geteuid():
    pytest.skip('only root can mount a small disk')
  folder = tmp_path / 'disk'
  folder.mkdir()

  def mount(options):
    command = ['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
      pytest.skip(f'no disk could be mounted: {done.stderr.strip()}')
    return folder

  yield mount
  if os.path.ismount(folder):
    subprocess.run(['umount', '--lazy', str(folder)], check=True)


def fill(path):
  """Writes a file until its disk is full to the last page."""
  with contextlib.suppress(OSError), path.open('wb', buffering=0) as file:
    while True:
      file.write(bytes(4096))
  assert shutil.disk_usage(path).free == 0


def test_a_disk_that_can_only_be_read(make_disk):
  folder = make_disk('size=1m,ro') / 'run'
  assert 'Read-only file system' in message_of(prepare, folder)


def test_a_disk_that_is_full_at_the_start(make_disk):
  disk = make_disk('size=64k')
  fill(disk / 'ballast')
  assert f'{disk} is on a full disk' in message_of(prepare, disk)


def test_a_disk_too_small_for_the_checkpoints(make_disk):
  disk = make_disk('size=10m')
  config = Config().replace(checkpoint={'keep': 4})
  mib = 2**20
  message = message_of(prepare, disk / 'run', config, 3 * mib)
  assert '10 MiB free' in message
  assert '15 MiB' in message
  assert not (disk / 'run').exists()
  prepare(disk / 'run', config, mib)


def test_existing_checkpoints_need_no_more_room(make_disk):
  disk = make_disk('size=10m')
  config = Config().replace(checkpoint={'keep': 2})
  mib = 2**20
  for step in (100, 200):
    (disk / 'checkpoints' / str(step)).mkdir(parents=True)
    (disk / 'checkpoints' / str(step) / 'state').write_bytes(bytes(3 * mib))
  prepare(disk, config, 3 * mib)
  (disk / 'ballast').write_bytes(bytes(2 * mib))
  assert '3 MiB' in message_of(prepare, disk, config, 3 * mib)
