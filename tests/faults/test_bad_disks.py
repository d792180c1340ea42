"""Disks that fail or fill up, damaged files, and steps that must be skipped."""

import contextlib
import errno
import pathlib
import shutil
import signal

import numpy as np
import pytest
from fault_lab import mounted, saved_steps
from PIL import Image

pytestmark = pytest.mark.faults

A_SAVE = 160  # operations on files of a checkpoint that is saved, about


def assert_reported(run, status):
  """Checks that a run ended with one error, or with none."""
  assert run.status == status, run.stderr
  errors = [line for line in run.stderr.splitlines() if 'error: ' in line[:8]]
  assert len(errors) == status
  assert 'Traceback' not in run.stderr


@pytest.mark.parametrize(
  'error, at',
  [
    (errno.EIO, 2.1 * A_SAVE),
    (errno.ENOSPC, 2.4 * A_SAVE),
    (errno.EROFS, 2.6 * A_SAVE),
    (errno.EIO, 2.9 * A_SAVE),
  ],
)
def test_one_operation_of_a_save_fails(error, at, lab):
  workdir = lab.path('failing')
  run = lab.run(
    workdir, under=workdir / 'checkpoints', at=int(at), count=1, do=error
  )
  assert run.was_hit
  if run.status == 0:
    assert_reported(run, 0)
    lab.reference().check_finished(workdir)
  else:
    assert_reported(run, 1)
    lab.finish(workdir)


@pytest.mark.parametrize(
  'error, at, options',
  [
    (errno.EIO, 1, ()),
    (errno.ENOSPC, 2.5 * A_SAVE, ()),
    (errno.EIO, 2.5 * A_SAVE, ('--config.faults.on_save_error=stop',)),
  ],
)
def test_all_operations_fail_from_then_on(error, at, options, lab):
  workdir = lab.path('failing')
  run = lab.run(
    workdir, *options, under=workdir / 'checkpoints', at=int(at), do=error
  )
  assert_reported(run, 1)
  if saved_steps(workdir):
    lab.reference().check_saved(workdir)
  lab.finish(workdir)


def fill(path):
  with path.open('wb', buffering=0) as file, contextlib.suppress(OSError):
    while True:
      file.write(bytes(4096))


@pytest.mark.parametrize('is_freed', [True, False])
def test_the_disk_fills_up(is_freed, lab):
  reference = lab.reference()
  with mounted(lab.path('disk'), '-t', 'tmpfs', '-o', 'size=8m', 'x') as disk:
    workdir, ballast = disk / 'run', disk / 'ballast'
    run = lab.start(workdir)
    run.wait_until(lambda: len(saved_steps(workdir)) > 1)
    fill(ballast)
    run.wait_until(lambda: 'checkpoint of step' in run.stderr)
    if is_freed:
      ballast.unlink()
    run.wait()
    ballast.unlink(missing_ok=True)
    assert_reported(run, int(not is_freed))
    reference.check_saved(workdir)
    lab.finish(workdir)


# Files that are not as they were written.


def flip_bit(path):
  data = bytearray(path.read_bytes() or b'\0')
  data[len(data) // 2] ^= 4
  path.write_bytes(bytes(data))


def halve(path):
  data = path.read_bytes()
  path.write_bytes(data[: len(data) // 2] if data else b'\0')


@pytest.fixture(scope='module')
def stopped_at_12(lab):
  workdir = lab.path('stopped')
  assert lab.run(workdir, '--config.steps=12').status == 0
  return workdir


@pytest.mark.parametrize(
  'damage, part', [(flip_bit, 0), (halve, 1), (pathlib.Path.unlink, 2)]
)
def test_a_file_of_the_newest_checkpoint_is_damaged(
  damage, part, lab, stopped_at_12
):
  newest = stopped_at_12 / 'checkpoints' / '12'
  files = sorted(path for path in newest.rglob('*') if path.is_file())
  for path in files[part::5]:
    workdir = lab.path('damaged')
    shutil.copytree(stopped_at_12, workdir)
    damage(workdir / path.relative_to(stopped_at_12))
    run = lab.finish(workdir)
    assert path.relative_to(newest).as_posix() in run.stderr


@pytest.mark.parametrize('at', [1, 10])
def test_the_newest_checkpoint_cannot_be_read(at, lab, stopped_at_12):
  workdir = lab.path('unreadable')
  shutil.copytree(stopped_at_12, workdir)
  newest = workdir / 'checkpoints' / '12'
  run = lab.run(workdir, kind='read', under=newest, at=at, do=errno.EIO)
  assert run.was_hit
  assert_reported(run, 0)
  assert str(newest) in run.stderr
  lab.reference().check_finished(workdir)


# Images.


def write_images(folder, seed=0):
  rng = np.random.default_rng(seed)
  for name in ('trainA', 'trainB', 'testA', 'testB'):
    (folder / name).mkdir(parents=True)
    for i in range(6):
      pixels = rng.integers(0, 256, (10, 10, 3), np.uint8)
      Image.fromarray(pixels).save(folder / name / f'{i}.png')


def test_an_image_vanishes_and_comes_back(lab):
  data, workdir = lab.path('images'), lab.path('bad_image')
  write_images(data)
  options = (
    '--config.data.name=folder',
    f'--config.data.path={data}',
    '--config.data.cache_gib=0.0',
    '--config.data.max_corrupt=0',
  )
  lab.reference(*options)
  image = data / 'trainA' / '3.png'
  content = image.read_bytes()
  run = lab.start(workdir, *options)
  run.wait_until(lambda: len(saved_steps(workdir)) > 1)
  image.unlink()
  run.wait()
  assert_reported(run, 1)
  assert str(image) in run.stderr
  image.write_bytes(content)
  lab.finish(workdir, *options)


# A loss that is not finite.


def write_white_images(folder):
  """One white image a side, and gray ones."""
  for name in ('trainA', 'trainB', 'testA', 'testB'):
    (folder / name).mkdir(parents=True)
    for i in range(4):
      pixels = np.full((8, 8, 3), 255 if i == 2 else 120 + 3 * i, np.uint8)
      Image.fromarray(pixels).save(folder / name / f'{i}.png')


@pytest.mark.parametrize('seconds', [0, 0.1])
def test_killed_while_it_looks_for_a_bad_step(seconds, lab):
  data, workdir = lab.path('white'), lab.path('infinite')
  write_white_images(data)
  # The loss overflows where white meets white, and there alone.
  options = (
    '--config.data.name=folder',
    f'--config.data.path={data}',
    '--config.batch_size=1',
    '--config.data.load_size=8',
    '--config.generator.norm=none',
    '--config.generator.dropout=0.0',
    '--config.optimizer.name=sgd',
    '--config.optimizer.b1=0.0',
    '--config.optimizer.learning_rate=1e-41',
    '--config.loss.cycle_a=2.1e38',
    '--config.loss.cycle_b=2.1e38',
  )
  lab.reference(*options)
  run = lab.start(workdir, *options)
  run.wait_until(lambda: 'not finite' in run.stderr)
  run.sleep(seconds)
  run.send(signal.SIGKILL)
  run.wait()
  assert 'not finite' in run.stderr
  lab.finish(workdir, *options)
  assert len((workdir / 'skipped.jsonl').read_text().splitlines()) > 1
