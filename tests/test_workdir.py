import contextlib
import datetime
import errno
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import time

import pytest

from cyclegan_jax.config import Config
from cyclegan_jax.errors import WorkdirError
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.storage.disk_errors import explain_disk_errors
from cyclegan_jax.storage.workdir import (
  check_workdir,
  discard_workdir,
  lock_workdir,
  make_workdir,
  read_config,
  write_config,
)

REPO = pathlib.Path(__file__).parent.parent
FULL = (
  'is on a full disk: free some space, then run the same command again to go on'
)


def message_of(function, *args, **kwargs):
  with pytest.raises(WorkdirError) as caught:
    function(*args, **kwargs)
  text = str(caught.value)
  assert '\n' not in text
  return text


def check(folder, config=None, checkpoint_bytes=0):
  config = config or Config()
  with lock_workdir(folder):
    check_workdir(folder, config, checkpoint_bytes=checkpoint_bytes)
    write_config(folder, config)


# Numbered folders.


def test_folders_are_numbered(tmp_path):
  root = tmp_path / 'deep' / 'runs'
  assert make_workdir(root) == root / '00000'
  assert make_workdir(root) == root / '00001'
  (root / '00041').mkdir()
  assert make_workdir(root) == root / '00042'


def test_other_names_among_numbered_folders(tmp_path):
  for name in ('horses', '7x', '²', '-3', '00002.old'):
    (tmp_path / name).mkdir()
  (tmp_path / '00005').write_text('a file')
  assert make_workdir(tmp_path) == tmp_path / '00006'


def test_runs_is_a_file(tmp_path):
  root = tmp_path / 'runs'
  root.write_text('')
  assert message_of(make_workdir, root) == (
    f'{root} is a file, where a folder has to be: give another --workdir'
  )


# config.json.


def test_the_config_is_written_and_read(tmp_path):
  config = Config(seed=7, epochs=3)
  check(tmp_path / 'new' / 'run', config)
  assert read_config(tmp_path / 'new' / 'run') == config
  names = os.listdir(tmp_path / 'new' / 'run')
  assert sorted(names) == ['config.json', 'lock'], 'nothing else is left'


@pytest.mark.parametrize('name', ['nowhere', 'file'])
def test_no_config_to_read(tmp_path, name):
  (tmp_path / 'file').write_text('')
  assert read_config(tmp_path / name) is None


@pytest.mark.parametrize(
  'content, reason',
  [
    (b'', 'Expecting value: line 1 column 1 (char 0)'),
    (b'{"seed": 0, "ba', 'Unterminated string starting at: line 1 column 13'),
    (
      b'\xff\xfe',
      "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
    ),
    (
      b'[]',
      'config=[] is a single value: config is a group of options, such as '
      'config.seed',
    ),
    (b'{"sed": 0}', 'config.sed does not exist: did you mean config.seed?'),
    (b'{"seed": "0"}', "config.seed='0' is not an int, such as 0"),
  ],
)
def test_a_damaged_config(tmp_path, content, reason):
  path = tmp_path / 'config.json'
  path.write_bytes(content)
  reason += ' (char 12)' if 'Unterminated' in reason else ''
  expected = (
    f'{path} can not be read ({reason}): delete it to go on with the options '
    'of that run, or give another --workdir'
  )
  assert message_of(read_config, tmp_path) == expected
  assert message_of(check, tmp_path) == expected
  assert path.read_bytes() == content, 'nothing is lost'


def test_a_config_that_is_a_folder(tmp_path):
  (tmp_path / 'config.json').mkdir()
  assert message_of(read_config, tmp_path) == (
    f'{tmp_path}/config.json can not be read (Is a directory): delete it to '
    'go on with the options of that run, or give another --workdir'
  )


# One folder, one run.


def test_a_folder_of_another_run(tmp_path):
  old = Config(seed=1)
  check(tmp_path, old)
  new = old.replace(seed=2, loss={'cycle_a': 5.0}, log={'num_samples': 3})
  assert message_of(check, tmp_path, new) == (
    f'{tmp_path} belongs to a run with another config (config.seed: 1 -> 2; '
    'config.loss.cycle_a: 10.0 -> 5.0): give another --workdir, or the same '
    'options to go on with that run'
  )
  assert read_config(tmp_path) == old, 'nothing is lost'


@pytest.mark.parametrize(
  'changes',
  [
    {'steps': 10_000},
    {'epochs': 99},
    {'num_devices': 3},
    {'data': {'num_workers': 9, 'prefetch_batches': 9, 'cache_gib': 0.5}},
    {'data': {'max_corrupt': 0}},
    {'log': {'samples_every_steps': 7}, 'checkpoint': {'keep': 9}},
  ],
)
def test_what_may_change_between_two_starts(tmp_path, changes):
  check(tmp_path, Config())
  check(tmp_path, Config().replace(**changes))
  assert read_config(tmp_path) == Config().replace(**changes)


@pytest.mark.parametrize('name', ['linear', 'cosine'])
@pytest.mark.parametrize('length', ['steps', 'epochs'])
def test_the_length_may_not_change_where_rates_depend_on_it(
  tmp_path, name, length
):
  old = Config().replace(steps=90, epochs=9, schedule={'name': name})
  new = old.replace(**{length: 120})
  check(tmp_path, old)
  assert message_of(check, tmp_path, new) == (
    f'{tmp_path} belongs to a run with another config (config.{length}: '
    f'{getattr(old, length)} -> 120): give another --workdir, or the same '
    'options to go on with that run'
  )


@pytest.mark.parametrize(
  'changes',
  [{'steps_per_epoch': 5}, {'batch_size': 8}, {'data': {'flip': False}}],
)
def test_what_may_not_change_between_two_starts(tmp_path, changes):
  check(tmp_path, Config())
  message = message_of(check, tmp_path, Config().replace(**changes))
  assert 'belongs to a run with another config' in message


# One process at a time.


def holder_of(folder):
  """Another process that has the lock of a folder."""
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


def test_a_second_process_is_refused_and_told_of_the_first(tmp_path):
  folder = tmp_path / 'run'
  before = datetime.datetime.now().astimezone().replace(microsecond=0)
  with holder_of(folder) as first:
    with pytest.raises(WorkdirError) as caught, lock_workdir(folder):
      pytest.fail('locked twice')
    found = re.fullmatch(
      f'{folder} is in use by process {first.pid} on {platform.node()}, '
      r'started (.*): wait for it, stop it, or give another --workdir',
      str(caught.value),
    )
    started = datetime.datetime.fromisoformat(found[1])
    assert before <= started <= datetime.datetime.now().astimezone()
    first.stdin.close()
  with lock_workdir(folder):
    pass


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, caplog):
  with holder_of(tmp_path) as first:
    first.kill()
    first.wait()
    assert json.loads((tmp_path / 'lock').read_text())['pid'] == first.pid
    with lock_workdir(tmp_path):
      owner = json.loads((tmp_path / 'lock').read_text())
      assert owner['pid'] == os.getpid()
  (record,) = caplog.records
  assert re.fullmatch(
    f'process {first.pid} on {platform.node()}, started .* has died while it '
    f'trained into {tmp_path}: taking over',
    record.getMessage(),
  )
  # Whoever ended in order leaves nothing to tell.
  assert (tmp_path / 'lock').read_text() == ''


@pytest.mark.parametrize('content', ['', '{"pid": 1', '[]'])
def test_a_lock_whose_owner_can_not_be_read(tmp_path, content):
  with lock_workdir(tmp_path):
    (tmp_path / 'lock').write_text(content)
    with (
      pytest.raises(WorkdirError, match='in use by another process'),
      lock_workdir(tmp_path),
    ):
      pytest.fail('locked twice')


def test_a_folder_that_came_to_nothing_is_removed(tmp_path):
  with lock_workdir(tmp_path / 'empty'):
    pass
  discard_workdir(tmp_path / 'empty')
  assert not (tmp_path / 'empty').exists()
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full' / 'checkpoints').mkdir()
  discard_workdir(tmp_path / 'full')
  assert (tmp_path / 'full' / 'checkpoints').exists()


# Folders that can't be written.


def test_a_workdir_that_is_a_file(tmp_path):
  path = tmp_path / 'run'
  path.write_text('precious')
  assert message_of(check, path) == (
    f'{path} is a file: give a folder with --workdir'
  )
  assert path.read_text() == 'precious'


def test_a_workdir_below_a_file(tmp_path):
  (tmp_path / 'file').write_text('precious')
  path = tmp_path / 'file' / 'run'
  assert message_of(check, path) == (
    f'{path} can not be written (Not a directory): give another --workdir, or '
    'mend the disk and run the same command again'
  )


def test_a_name_that_is_too_long(tmp_path):
  path = tmp_path / ('x' * 300)
  assert message_of(check, path) == (
    f'{path} can not be written (File name too long): give another --workdir, '
    'or mend the disk and run the same command again'
  )


@contextlib.contextmanager
def without_rights():
  """Nobody's rights for a while, as nothing is forbidden to root."""
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
      message = message_of(check, tmp_path / 'run')
  finally:
    tmp_path.chmod(0o700)
  assert message == (
    f'{tmp_path}/run can not be written (permission denied): change its '
    'permissions, or give another --workdir'
  )


def test_other_errors_pass_through(tmp_path):
  for error in (ValueError('a bug'), RuntimeError('a bug'), KeyError('a bug')):
    with pytest.raises(type(error)), explain_disk_errors(tmp_path):
      raise error


@pytest.mark.parametrize(
  'error',
  [
    OSError(errno.ENOSPC, 'x'),
    OSError(errno.EDQUOT, 'x'),
    # What TensorStore makes of it.
    ValueError('RESOURCE_EXHAUSTED: [OS error 28: No space left on device]'),
    RuntimeError('No space left on device'),
  ],
)
def test_each_way_to_say_that_a_disk_is_full(tmp_path, error):
  def fail(**options):
    with explain_disk_errors(tmp_path, **options):
      raise error

  assert message_of(fail) == f'{tmp_path} {FULL}'
  assert message_of(fail, option='--to') == (
    f'{tmp_path} is on a full disk: free some space, then run the same '
    'command again'
  )


def test_the_file_in_the_way_is_named(tmp_path):
  (tmp_path / 'samples').write_text('')

  def fail():
    with explain_disk_errors(tmp_path):
      (tmp_path / 'samples').mkdir()

  assert message_of(fail) == (
    f'{tmp_path}/samples is a file, where a folder has to be: give another '
    '--workdir'
  )


def test_what_a_killed_run_left_half_written_is_gone(tmp_path):
  left = tmp_path / 'tensorboard' / '.0123456789abcdef.tmp'
  left.parent.mkdir()
  left.touch()
  with lock_workdir(tmp_path):
    assert list(left.parent.iterdir()) == []


# Disks that are full: real ones, which root can make.


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
  assert message_of(check, folder) == (
    f'{folder} can not be written (Read-only file system): give another '
    '--workdir, or mend the disk and run the same command again'
  )


def test_a_disk_that_is_full_at_the_start(make_disk):
  disk = make_disk('size=64k')
  fill(disk / 'ballast')
  assert message_of(check, disk) == f'{disk} {FULL}'


def test_a_disk_too_small_for_the_checkpoints(make_disk):
  disk = make_disk('size=10m')
  config = Config().replace(checkpoint={'keep': 4})
  mib = 2**20
  assert message_of(check, disk / 'run', config, 3 * mib) == (
    f'{disk}/run has 10 MiB free, but the checkpoints of this run take 15 '
    'MiB: free some, or give another --workdir'
  )
  assert not (disk / 'run' / 'config.json').exists()
  check(disk / 'run', config, mib)


def test_checkpoints_that_are_there_need_no_more_room(make_disk):
  disk = make_disk('size=10m')
  config = Config().replace(checkpoint={'keep': 2})
  mib = 2**20
  check(disk, config, 3 * mib)
  for step in (100, 200):
    (disk / 'checkpoints' / str(step)).mkdir(parents=True)
    (disk / 'checkpoints' / str(step) / 'state').write_bytes(bytes(3 * mib))
  check(disk, config, 3 * mib)
  (disk / 'ballast').write_bytes(bytes(2 * mib))
  assert message_of(check, disk, config, 3 * mib) == (
    f'{disk} has 2 MiB free, but the checkpoints of this run take 3 MiB: free '
    'some, or give another --workdir'
  )


@pytest.mark.slow  # test_faults.py fills one too
def test_a_disk_that_fills_up_in_mid_run(make_disk):
  disk = make_disk('size=8m')
  workdir = disk / 'run'
  command = [
    sys.executable,
    'main.py',
    '--config=configs/tiny.py',
    f'--workdir={workdir}',
    '--config.steps=100',
    '--config.checkpoint.every_steps=10',
    '--config.checkpoint.keep=2',
    '--config.log.samples_every_steps=50',
  ]
  with subprocess.Popen(
    command, cwd=REPO, stderr=subprocess.PIPE, text=True
  ) as run:
    while run.poll() is None and not (workdir / 'checkpoints/10').exists():
      time.sleep(0.01)
    fill(disk / 'ballast')
    _, told = run.communicate(timeout=120)
  assert run.returncode == 1
  assert told.splitlines()[-1] == f'error: {workdir} {FULL}'
  assert told.count('error: ') == 2, 'and that of the config'
  assert 'Traceback' not in told

  # The last good checkpoint is whole, though its disk is full.
  loaded = checkpoint.load(workdir)
  state, config = loaded.state, loaded.config
  assert 10 <= int(state.step) < 100
  assert config.steps == 100

  (disk / 'ballast').unlink()
  done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert f'going on from step {int(state.step)}\n' in done.stderr
  assert 'trained 100 steps' in done.stdout
  assert int(checkpoint.load(workdir).state.step) == 100
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  steps = [json.loads(line)['step'] for line in lines]
  assert steps == list(range(2, 101, 2)), 'no record is lost or doubled'


def test_disks_of_users_who_are_not_root():
  if not os.geteuid():
    pytest.skip('the tests above have run, by root')
  unshare = shutil.which('unshare')
  if not unshare or subprocess.run([unshare, '-rm', 'true']).returncode:
    pytest.skip('this system lets no user mount disks of his own')
  command = [unshare, '-rm', sys.executable, '-m', 'pytest', __file__]
  done = subprocess.run(
    [*command, '-k', 'a_disk or checkpoints_that'],
    cwd=REPO,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stdout
