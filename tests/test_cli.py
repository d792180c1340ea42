import json
import os
import pathlib
import shlex
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax import cli
from cyclegan_jax.errors import ConfigError
from cyclegan_jax.storage import checkpoint

ROOT = pathlib.Path(__file__).parent.parent
TINY = f'--config={ROOT}/configs/tiny.py'
# Stops every run before it compiles.
TOO_MANY = '--config.num_devices=99'


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)


def error_of(capsys, *argv, status):
  """The one line that a command ends with, without its 'error: '."""
  capsys.readouterr()
  assert cli.main(['train', *map(str, argv)]) == status
  captured = capsys.readouterr()
  assert captured.out == ''
  assert captured.err.startswith('error: ')
  assert captured.err.endswith('\n')
  assert captured.err.count('\n') == 1
  return captured.err.removeprefix('error: ').removesuffix('\n')


# Commands.


@pytest.mark.parametrize('flag', ['-h', '--help'])
def test_help(flag, capsys):
  assert cli.main([flag]) == 0
  captured = capsys.readouterr()
  assert captured.out == f'{cli.USAGE}\n'
  assert captured.err == ''


def test_help_of_training(capsys):
  assert cli.main(['train', '--help']) == 0
  out = capsys.readouterr().out
  assert '--workdir' in out
  assert '--config.generator.filters=24\n' in out


def test_no_command(capsys):
  assert cli.main([]) == 2
  assert capsys.readouterr().out == f'{cli.USAGE}\n'


def test_an_unknown_command(capsys):
  assert cli.main(['trian']) == 2
  captured = capsys.readouterr()
  assert captured.out == ''
  assert captured.err == (f"error: 'trian' is not a command\n\n{cli.USAGE}\n")


def test_the_command_line_of_the_process(monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['cyclegan', 'train', '--nonsense'])
  assert cli.main() == 2
  assert capsys.readouterr().err == (
    'error: --nonsense is not a flag: did you mean --config?\n'
  )


# Errors: their lines, their status and their traceback.


def test_a_wrong_option(capsys):
  assert error_of(capsys, TINY, '--config.sed=3', status=2) == (
    'config.sed does not exist: did you mean config.seed?'
  )


@pytest.mark.parametrize('flag', ['--debug', '-debug', '--debug=true'])
def test_the_traceback_of_an_error(flag, capsys):
  with pytest.raises(ConfigError):
    cli.main(['train', TINY, '--config.sed=3', flag])
  assert capsys.readouterr().err == ''


def test_ctrl_c_before_the_run(capsys):
  pathlib.Path('recipe.py').write_text('raise KeyboardInterrupt\n')
  assert cli.main(['train', '--config=recipe.py']) == 130
  assert capsys.readouterr().err == 'stopped\n'


def test_more_devices_than_there_are(capsys):
  message = error_of(capsys, TINY, TOO_MANY, status=2)
  assert message.startswith('config.num_devices=99, but there are only ')


def test_a_missing_folder(capsys):
  flags = ['--config.data.name=folder', '--config.data.path=my data/ü']
  assert error_of(capsys, TINY, *flags, status=1) == (
    "config.data.path='my data/ü' does not exist: give the folder, or the "
    '.zip, that holds trainA and trainB'
  )


def test_an_empty_folder(tmp_path, capsys):
  for name in ('trainA', 'trainB'):
    (tmp_path / name).mkdir()
  (tmp_path / 'trainA' / 'notes.txt').write_text('no image')
  flags = ['--config.data.name=folder', f'--config.data.path={tmp_path}']
  assert error_of(capsys, TINY, *flags, status=1) == (
    f'{tmp_path}/trainA holds no images (.bmp, .jpeg, .jpg, .png, .tif, .tiff, '
    '.webp) and 1 other file'
  )


def test_a_workdir_that_is_a_file(tmp_path, capsys):
  (tmp_path / 'run').write_text('precious')
  assert error_of(capsys, TINY, '--workdir=run', status=1) == (
    'run is a file: give a folder with --workdir'
  )
  assert (tmp_path / 'run').read_text() == 'precious'


def test_a_number_is_not_used_up_by_an_error(tmp_path, capsys):
  error_of(capsys, TINY, TOO_MANY, status=2)
  assert os.listdir(tmp_path / 'runs') == []
  # A folder that was asked for stays, as does what one holds.
  (tmp_path / 'mine').mkdir()
  error_of(capsys, TINY, TOO_MANY, '--workdir=mine', status=2)
  assert (tmp_path / 'mine').is_dir()


def test_hooks_of_others_are_kept(monkeypatch):
  def hook(_):
    raise AssertionError

  monkeypatch.setattr(sys, 'unraisablehook', hook)
  monkeypatch.setattr(threading, 'excepthook', hook)
  assert cli.main(['train', '--nonsense']) == 2
  assert sys.unraisablehook is threading.excepthook is hook


# Processes.


def run(*command, **options):
  return subprocess.run(
    [sys.executable, *command], capture_output=True, text=True, **options
  )


def test_a_batch_that_devices_do_not_divide(tmp_path):
  flags = os.environ['XLA_FLAGS']
  devices = '--xla_force_host_platform_device_count=4'
  done = run(
    # From another folder than its own.
    str(ROOT / 'main.py'),
    TINY,
    '--config.num_devices=0',
    '--config.batch_size=6',
    cwd=tmp_path,
    env=os.environ | {'XLA_FLAGS': f'{flags} {devices}'},
  )
  assert done.returncode == 2
  assert done.stdout == ''
  assert done.stderr == (
    'error: config.batch_size=6 can not be divided over 4 devices: make it a '
    'multiple of 4, or set config.num_devices\n'
  )


def test_the_module_and_its_traceback(tmp_path):
  done = run(
    '-m',
    'cyclegan_jax',
    'train',
    '--config=missing.py',
    '--debug',
    cwd=tmp_path,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
  )
  assert done.returncode == 1
  assert done.stderr.startswith('Traceback (most recent call last):\n')
  assert done.stderr.endswith(
    'cyclegan_jax.errors.ConfigError: config file missing.py does not exist: '
    'give one such as configs/default.py\n'
  )


# A run, on folders with images that can't be read.


class Trained:
  def __init__(self, folder):
    self.data = folder / 'my data'
    self.workdir = folder / 'my run'
    self.flags = [
      TINY,
      f'--workdir={self.workdir}',
      '--config.data.name=folder',
      f'--config.data.path={self.data}',
      '--config.data.max_pixels=1000',
    ]
    rng = np.random.default_rng(0)
    for name in ('trainA', 'trainB', 'testA', 'testB'):
      (self.data / name).mkdir(parents=True)
      for i in range(3):
        image = rng.integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(image).save(self.data / name / f'{i}.png')
    self.torn = self.data / 'trainA' / '1.png'
    self.torn.write_bytes(self.torn.read_bytes()[:700])
    self.large = self.data / 'trainB' / '2.png'
    Image.new('RGB', (26, 40)).save(self.large)

  def main(self, *more):
    return cli.main(['train', *self.flags, *more])

  def step(self):
    return int(checkpoint.load(self.workdir).state.step)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    # Standard error is shown on lines of 80 columns, except what is ours.
    patch.setenv('COLUMNS', '80')
    run = Trained(tmp_path_factory.mktemp('trained'))
    told = tmp_path_factory.mktemp('told')
    with (
      (told / 'out').open('w') as out,
      (told / 'err').open('w') as error,
    ):
      patch.setattr(sys, 'stdout', out)
      patch.setattr(sys, 'stderr', error)
      run.status = run.main()
    run.out = (told / 'out').read_text()
    run.err = (told / 'err').read_text()
  return run


def test_a_run_is_recorded(trained):
  assert trained.status == 0, trained.err
  assert trained.step() == 8
  assert sorted(os.listdir(trained.workdir)) == [
    'checkpoints',
    'config.json',
    'index.html',
    'lock',
    'metrics.jsonl',
    'samples',
    'tensorboard',
  ]


def test_bad_images_are_skipped_with_a_warning(trained):
  assert trained.torn.exists()
  lines = trained.err.splitlines()
  warnings = sorted(line for line in lines if line.startswith('warning'))
  assert len(warnings) == 2
  large, torn = sorted(warnings, key=lambda line: str(trained.torn) in line)
  assert torn.startswith(
    f"warning: skipped {trained.torn} can't be read: image file is truncated"
  )
  assert large.startswith(
    f"warning: skipped {trained.large} can't be read: 26 x 40 = 1040 pixels, "
    'more than config.data.max_pixels=1000 ('
  )
  counts = {line.rpartition('(')[2] for line in warnings}
  assert counts == {'1 of at most 10)', '2 of at most 10)'}


def test_the_folder_is_told_on_one_line(trained):
  assert f'folder           {trained.workdir}\n' in trained.err


def test_what_the_end_says_can_be_pasted(trained):
  quoted = shlex.quote(str(trained.workdir))
  assert trained.out.endswith(
    'Translate a folder of images of a to b with\n'
    f'  python -m cyclegan_jax translate {quoted} FOLDER --to OUT '
    '--direction ab\n'
  )


def test_another_config(trained, capsys):
  before = (trained.workdir / 'config.json').read_bytes()
  message = error_of(
    capsys,
    *trained.flags,
    '--config.seed=3',
    '--config.generator.dropout=0.25',
    '--config.steps=99',
    status=1,
  )
  assert message == (
    f'{trained.workdir} belongs to a run with another config (config.seed: 0 '
    '-> 3; config.generator.dropout: 0.5 -> 0.25): give another --workdir, or '
    'the same options to go on with that run'
  )
  assert (trained.workdir / 'config.json').read_bytes() == before


def test_too_many_bad_images_and_going_on(trained, capsys):
  """The budget ends a run, which goes on where it was once it is raised."""
  capsys.readouterr()
  steps = '--config.steps=10'
  assert trained.main(steps, '--config.data.max_corrupt=0') == 1
  *_, told = capsys.readouterr().err.splitlines()
  assert told.startswith('error: ')
  assert (
    ' images can not be read, more than config.data.max_corrupt=0: ' in told
  )
  assert told.endswith(': mend or remove it, or raise the budget')
  # Nothing is lost: step 9 is done or not, as its images were read ahead.
  step = trained.step()
  assert step in (8, 9)

  # A killed run leaves half a line and half a checkpoint.
  metrics = trained.workdir / 'metrics.jsonl'
  metrics.write_text(metrics.read_text() + '{"step": 9, "gener')
  (trained.workdir / 'checkpoints' / '9.orbax-checkpoint-tmp').mkdir()
  (trained.workdir / 'checkpoints' / 'notes.txt').write_text('not a step')
  assert trained.main(steps, '--config.data.num_workers=0') == 0
  captured = capsys.readouterr()
  assert f'resuming from step {step}\n' in captured.err
  assert 'trained 10 steps' in captured.out
  assert trained.step() == 10
  records = [json.loads(line) for line in metrics.read_text().splitlines()]
  assert [record['step'] for record in records] == [2, 4, 6, 8, 10]
