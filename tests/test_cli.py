"""The command line: help, errors, exit statuses, and a run on bad images."""

import json
import logging
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax import __version__, cli
from cyclegan_jax.errors import ConfigError
from cyclegan_jax.storage import checkpoint

ROOT = pathlib.Path(__file__).parent.parent
TINY = f'--config={ROOT}/configs/tiny.py'
# Stops every run before it compiles.
TOO_MANY = '--config.num_devices=99'


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)


def error_of(capsys, *argv, status):
  """The one line that `train` ends with, without its 'error: '."""
  capsys.readouterr()
  assert cli.main(['train', *map(str, argv)]) == status
  captured = capsys.readouterr()
  assert captured.out == ''
  assert captured.err.startswith('error: ')
  assert captured.err.endswith('\n')
  assert captured.err.count('\n') == 1
  return captured.err.removeprefix('error: ').removesuffix('\n')


@pytest.mark.parametrize('argv', [['-h'], ['--help'], []])
def test_help(argv, capsys):
  assert cli.main(argv) == (0 if argv else 2)
  captured = capsys.readouterr()
  assert captured.out == f'{cli.USAGE}\n'
  assert captured.err == ''


def test_help_of_training(capsys):
  assert cli.main(['train', '--help']) == 0
  out = capsys.readouterr().out
  assert '--workdir' in out
  assert '--config.generator.filters=24\n' in out


@pytest.mark.parametrize('command', list(cli.COMMANDS))
def test_every_command_has_help_and_debug(command, capsys):
  if command != 'train':
    with pytest.raises(SystemExit) as caught:
      cli.main([command, '--help'])
    assert caught.value.code == 0
    assert '--debug' in capsys.readouterr().out
  with pytest.raises(ConfigError, match='--'):
    cli.main([command, '--nonsense', '--debug'])


def test_the_version(capsys):
  assert cli.main(['--version']) == 0
  assert capsys.readouterr().out == f'cyclegan_jax {__version__}\n'
  citation = (ROOT / 'CITATION.cff').read_text(encoding='utf-8')
  assert f'\nversion: {__version__}\n' in citation


def test_an_unknown_command(capsys):
  assert cli.main(['trian']) == 2
  captured = capsys.readouterr()
  assert captured.out == ''
  assert "'trian'" in captured.err
  assert captured.err.endswith(f'\n\n{cli.USAGE}\n')


def test_the_command_line_of_the_process(monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['cyclegan', 'train', '--nonsense'])
  assert cli.main() == 2
  assert '--nonsense' in capsys.readouterr().err


# Errors: one line, the exit status, and a traceback on request.


@pytest.mark.parametrize('flag', ['--debug', '-debug', '--debug=true'])
def test_the_traceback_of_an_error(flag, capsys):
  argv = [TINY, '--config.sed=3']
  assert 'config.seed' in error_of(capsys, *argv, status=2)
  with pytest.raises(ConfigError):
    cli.main(['train', *argv, flag])
  assert capsys.readouterr().err == ''


def test_ctrl_c_before_the_run(capsys):
  pathlib.Path('recipe.py').write_text('raise KeyboardInterrupt\n')
  assert cli.main(['train', '--config=recipe.py']) == 130
  assert capsys.readouterr().err == 'stopped\n'


def test_more_devices_than_there_are(tmp_path, capsys):
  message = error_of(capsys, TINY, TOO_MANY, status=2)
  assert message.startswith('config.num_devices=99')
  # The error uses up no number, and keeps what is in a folder.
  assert os.listdir(tmp_path / 'runs') == []
  notes = tmp_path / 'mine' / 'notes.txt'
  notes.parent.mkdir()
  notes.touch()
  error_of(capsys, TINY, TOO_MANY, '--workdir=mine', status=2)
  assert notes.exists()


def test_a_missing_and_an_empty_folder(tmp_path, capsys):
  flags = [TINY, '--config.data.name=folder']
  message = error_of(capsys, *flags, '--config.data.path=my data/ü', status=1)
  assert message.startswith("config.data.path='my data/ü'")
  for name in ('trainA', 'trainB'):
    (tmp_path / name).mkdir()
  (tmp_path / 'trainA' / 'notes.txt').write_text('no image')
  path = f'--config.data.path={tmp_path}'
  assert f'{tmp_path}/trainA' in error_of(capsys, *flags, path, status=1)


def test_a_workdir_that_is_a_file(tmp_path, capsys):
  (tmp_path / 'run').write_text('precious')
  message = error_of(capsys, TINY, '--workdir=run', status=1)
  assert message.startswith('run ')
  assert '--workdir' in message
  assert (tmp_path / 'run').read_text() == 'precious'


def test_log_handlers_are_restored():
  handlers = list(logging.getLogger().handlers)
  assert cli.main(['train', '--nonsense']) == 2
  assert logging.getLogger().handlers == handlers


# Processes.


def run(*command, **options):
  return subprocess.run(
    [sys.executable, *command], capture_output=True, text=True, **options
  )


@pytest.mark.process
def test_main_py_from_another_folder(tmp_path):
  """With a batch that the devices do not divide."""
  devices = '--xla_force_host_platform_device_count=4'
  flags = f'{os.environ["XLA_FLAGS"]} {devices}'
  done = run(
    str(ROOT / 'main.py'),
    TINY,
    '--config.num_devices=0',
    '--config.batch_size=6',
    cwd=tmp_path,
    env=os.environ | {'XLA_FLAGS': flags},
  )
  assert done.returncode == 2
  assert done.stdout == ''
  assert done.stderr.startswith('error: config.batch_size=6 ')
  assert done.stderr.count('\n') == 1


# The three ways to start: `cyclegan` has no folder of its own on sys.path.
WAYS = {
  'cyclegan': (
    '-P',
    '-c',
    'from cyclegan_jax.__main__ import run; run()',
    'train',
  ),
  'module': ('-m', 'cyclegan_jax', 'train'),
  'main.py': (str(ROOT / 'main.py'),),
}


@pytest.mark.process
@pytest.mark.parametrize('way', list(WAYS))
def test_a_config_file_beside_configs(way, tmp_path):
  project, elsewhere = tmp_path / 'project', tmp_path / 'elsewhere'
  for folder, devices in ((project, 98), (elsewhere, 99)):
    (folder / 'configs').mkdir(parents=True)
    (folder / 'configs' / 'base.py').write_text(
      'from cyclegan_jax.config import Config, to_config_dict\n'
      'def get_config():\n'
      f'  return to_config_dict(Config(num_devices={devices}))\n'
    )
  (project / 'my.py').write_text(
    'from configs import base\nget_config = base.get_config\n'
  )
  (tmp_path / 'lib').mkdir()
  (tmp_path / 'lib' / 'cyclegan_jax').symlink_to(ROOT / 'cyclegan_jax')
  for folder in (project, elsewhere):
    done = run(
      *WAYS[way],
      f'--config={os.path.relpath(project / "my.py", folder)}',
      cwd=folder,
      env=os.environ | {'PYTHONPATH': str(tmp_path / 'lib')},
    )
    # The configs beside the file, not those of the current folder.
    assert done.stderr.startswith('error: config.num_devices=98')


@pytest.mark.process
def test_the_module_and_its_traceback(tmp_path):
  done = run(
    *('-m', 'cyclegan_jax', 'train', '--config=missing.py', '--debug'),
    cwd=tmp_path,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
  )
  assert done.returncode == 1
  assert done.stderr.startswith('Traceback (most recent call last):\n')
  last_line = done.stderr.splitlines()[-1]
  assert last_line.startswith('cyclegan_jax.errors.ConfigError: ')
  assert 'missing.py' in last_line


# What a run prints first.


@pytest.mark.slow
def test_warnings_come_after_the_facts(tmp_path, capsys):
  for name in ('trainA', 'trainB'):
    (tmp_path / 'mine' / name).mkdir(parents=True)
    Image.new('RGB', (20, 20)).save(tmp_path / 'mine' / name / '0.png')
  status = cli.main(
    [
      'train',
      TINY,
      '--workdir=run',
      '--config.data.path=mine',
      '--config.steps=2',
      '--config.epochs=3',
      '--config.evaluation.every_steps=2',
    ]
  )
  assert status == 0
  out, err = capsys.readouterr()
  lines = err.splitlines()
  facts = next(i for i, x in enumerate(lines) if x.startswith('folder '))
  warnings = [i for i, x in enumerate(lines) if x.startswith('warning: ')]
  # Of the epochs, and of each folder of test images that is missing.
  assert warnings == [facts + 1, facts + 2, facts + 3]
  assert 'config.epochs=3' in err
  assert 'config.steps=0' in err
  # Options with other values than the defaults, without what is filled in.
  assert lines[0].startswith('config.batch_size=2 ')
  assert 'config.seed' not in err
  assert 'config.steps_per_epoch' not in err
  # Scores, when they are made and at the end.
  line = next(x for x in lines if x.startswith('evaluation in '))
  assert 'step 2: a → b: l1 ' in line
  assert line.split(' of ', 1)[1] in out
  config = json.loads((tmp_path / 'run' / 'config.json').read_text())
  assert config['data']['name'] == 'folder'


def start(command, **options):
  """`python -m cyclegan_jax` as a process."""
  return run(
    *('-m', 'cyclegan_jax', *map(str, command)),
    **{'env': os.environ | {'PYTHONPATH': str(ROOT)}} | options,
  )


@pytest.mark.process
@pytest.mark.parametrize('command', list(cli.COMMANDS))
def test_a_platform_that_is_missing(command, trained_run, tmp_path):
  weights = tmp_path / 'ab.safetensors'
  arguments = {
    'train': [TINY],
    'translate': [trained_run, ROOT / 'experiments', '--to', 'x'],
    'evaluate': [trained_run, '--features', 'none'],
    'compare': [trained_run],
    'serve': [trained_run],
    'export': [trained_run, '--format', 'safetensors', '--to', 'y'],
    'import': [weights, '--to', 'z'],
  }
  if command == 'import':
    to = ['--to', str(weights), '--direction', 'ab', '--format', 'safetensors']
    assert cli.main(['export', str(trained_run), *to]) == 0
  done = start(
    [command, *arguments[command]],
    env=os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cuda'},
  )
  assert 'Traceback' not in done.stderr
  if command == 'compare':
    # Its page has everything but pictures.
    assert 'JAX_PLATFORMS' in done.stderr
  else:
    assert 'JAX_PLATFORMS' in done.stderr.splitlines()[-1]
    assert done.stderr.count('error: ') == 1
  assert done.returncode == 1


@pytest.mark.process
@pytest.mark.parametrize('command', list(cli.COMMANDS))
def test_paths_that_no_command_takes(command, tmp_path, capsys):
  for path in ('gs://bucket/x', 'x' * 300, '$NO_SUCH/x', '~no_such_user/x'):
    if command == 'train':
      arguments = [f'--workdir={path}']
    else:
      arguments = [path, '--to', 'x', '--format', 'onnx']
    assert cli.main([command, *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert path[:20] in line
  assert list(tmp_path.iterdir()) == []


@pytest.mark.process
@pytest.mark.skipif(
  not shutil.which('setpriv') or not sys.platform.startswith('linux'),
  reason='needs setpriv',
)
def test_a_folder_that_may_not_be_read(tmp_path):
  closed = tmp_path / 'closed'
  closed.mkdir(mode=0)
  # Root, too, may not read it then.
  user = ['setpriv', '--bounding-set=-all', '--inh-caps=-all']
  user = user if os.geteuid() == 0 else []
  for argv in (
    ['train', '--config=closed'],
    ['train', TINY, '--config.init_from=closed', '--workdir=run'],
    ['translate', 'closed', 'x', '--to', 'y'],
    ['evaluate', 'closed'],
    ['compare', 'closed'],
    ['import', 'x', '--to', 'closed'],
  ):
    done = subprocess.run(
      [*user, sys.executable, '-m', 'cyclegan_jax', *argv],
      env=os.environ | {'PYTHONPATH': str(ROOT)},
      capture_output=True,
      text=True,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith('error: ')
    assert 'closed' in line
  closed.chmod(0o700)
  assert os.listdir(tmp_path) == ['closed']


@pytest.mark.process
@pytest.mark.parametrize('is_buffered', [True, False])
@pytest.mark.parametrize('argv', [['train', '--help'], ['compare', '--help']])
def test_nobody_reads_standard_output(argv, is_buffered):
  reader, writer = os.pipe()
  os.close(reader)
  env = os.environ | {'PYTHONPATH': str(ROOT)}
  env |= {} if is_buffered else {'PYTHONUNBUFFERED': '1'}
  done = subprocess.run(
    [sys.executable, '-m', 'cyclegan_jax', *argv],
    stdout=writer,
    stderr=subprocess.PIPE,
    text=True,
    env=env,
  )
  os.close(writer)
  assert done.stderr == ''
  assert done.returncode in (0, 141)


def redirected(redirection, *words):
  command = shlex.join([sys.executable, '-m', 'cyclegan_jax', *map(str, words)])
  return subprocess.run(
    f'{command} {redirection}',
    shell=True,
    capture_output=True,
    text=True,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
  )


@pytest.mark.process
@pytest.mark.parametrize('redirection', ['>&-', '2>&-', '>&- 2>&-'])
def test_closed_streams(redirection):
  done = redirected(redirection, 'train', '--help')
  assert done.stderr == ''
  assert done.returncode == 0


@pytest.mark.process
@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full')
def test_streams_on_a_full_disk(trained_run, tmp_path):
  done = redirected('>/dev/full', 'train', '--help')
  assert done.returncode == 1
  (line,) = done.stderr.splitlines()
  assert line.startswith('error: ')
  source = tmp_path / 'in' / 'a.png'
  source.parent.mkdir()
  Image.new('RGB', (16, 16)).save(source)
  (tmp_path / 'in' / 'x.txt').touch()
  words = ['translate', trained_run, source.parent, '--to', 'out']
  done = redirected('2>/dev/full', *words)
  assert done.stdout.endswith(': 1 made\n')
  assert done.returncode == 0
  words = ['evaluate', trained_run, '--features', 'none', '--to', 'x.json']
  done = redirected('>/dev/full', *words)
  assert done.returncode == 1
  assert done.stderr.splitlines()[-1].startswith('error: ')
  assert (tmp_path / 'x.json').exists()


@pytest.mark.process
def test_a_current_folder_that_is_gone(trained_run, tmp_path, monkeypatch):
  gone = tmp_path / 'gone'
  gone.mkdir()
  monkeypatch.chdir(gone)
  gone.rmdir()
  done = redirected('', 'translate', trained_run, ROOT, '--to', 'out')
  monkeypatch.chdir(tmp_path)
  # The shell may also print one.
  assert done.stderr.splitlines()[-1].startswith('error: the current folder')
  assert 'Traceback' not in done.stderr
  assert done.returncode == 1


@pytest.mark.process
def test_nobody_reads_standard_error(tmp_path):
  """A run goes on, as its messages are not its result."""
  reader, writer = os.pipe()
  os.close(reader)
  done = subprocess.run(
    [sys.executable, '-m', 'cyclegan_jax', 'train', TINY, '--workdir=run'],
    stdout=subprocess.PIPE,
    stderr=writer,
    text=True,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
  )
  os.close(writer)
  assert done.returncode == 0
  assert (tmp_path / 'run' / 'checkpoints' / '8').is_dir()


@pytest.mark.process
@pytest.mark.parametrize('encoding', ['ascii', 'cp1252'])
def test_an_encoding_without_arrows(encoding, trained_run, tmp_path):
  done = start(
    ['evaluate', trained_run, '--features', 'none', '--to', 'x.json'],
    env=os.environ | {'PYTHONPATH': str(ROOT), 'PYTHONIOENCODING': encoding},
    encoding=encoding,
  )
  assert (done.returncode, done.stderr.strip()) == (0, '')
  assert 'horse ? zebra' in done.stdout
  assert 'horse → zebra' in (tmp_path / 'x.md').read_text(encoding='utf-8')


@pytest.mark.process
def test_without_posix_locks(tmp_path):
  """As on Windows, which has no module fcntl."""
  pathlib.Path('no_fcntl.py').write_text(
    'import sys\n'
    "sys.modules['fcntl'] = None\n"
    'from cyclegan_jax.__main__ import run\n'
    'run()\n'
  )
  env = os.environ | {'PYTHONPATH': str(ROOT)}
  for command in cli.COMMANDS:
    done = run('no_fcntl.py', command, '--help', env=env)
    assert done.returncode == 0, done.stderr
  done = run('no_fcntl.py', 'train', TINY, '--workdir=run', env=env)
  assert done.returncode == 0
  assert 'Traceback' not in done.stderr


@pytest.mark.process
@pytest.mark.skipif(
  os.geteuid() != 0 or not shutil.which('setpriv'), reason='needs root'
)
def test_a_user_without_a_name_and_a_home(trained_run, tmp_path):
  home = tmp_path / 'here'
  home.mkdir(mode=0o777)
  home.chmod(0o777)
  kept = ('PATH', 'XLA_FLAGS')
  env = {name: os.environ[name] for name in kept} | {'PYTHONPATH': str(ROOT)}
  cache = {'JAX_COMPILATION_CACHE_DIR': os.environ['JAX_COMPILATION_CACHE_DIR']}
  # It may read all files, as those of the tests may be closed to it.
  may_read = '=+dac_read_search'
  user = [
    *('setpriv', '--reuid=12345', '--regid=12345', '--clear-groups'),
    *(f'--inh-caps{may_read}', f'--ambient-caps{may_read}'),
    *(sys.executable, '-m', 'cyclegan_jax'),
  ]
  for command in (
    *([name, '--help'] for name in cli.COMMANDS),
    ['train', TINY, '--workdir=run'],
    ['evaluate', trained_run, '--to', 'x.json'],
    ['compare', 'run', '--images=1'],
  ):
    done = subprocess.run(
      [*user, *map(str, command)],
      cwd=home,
      # Without it, commands look for a place of their own when they start.
      env=env if '--help' in command else env | cache,
      capture_output=True,
      text=True,
    )
    assert done.returncode == 0, (command, done.stderr)
    assert 'Traceback' not in done.stderr
  assert not (home / '~').exists()


# A run on folders with images that cannot be read.


class RunOnBadImages:
  def __init__(self, folder):
    self.workdir = folder / 'my run'
    data = folder / 'my data'
    self.flags = [
      TINY,
      f'--workdir={self.workdir}',
      '--config.data.name=folder',
      f'--config.data.path={data}',
      '--config.data.max_pixels=1000',
    ]
    rng = np.random.default_rng(0)
    for name in ('trainA', 'trainB', 'testA', 'testB'):
      (data / name).mkdir(parents=True)
      for i in range(3):
        image = rng.integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(image).save(data / name / f'{i}.png')
    self.cut = data / 'trainA' / '1.png'
    self.cut.write_bytes(self.cut.read_bytes()[:700])
    self.large = data / 'trainB' / '2.png'
    Image.new('RGB', (26, 40)).save(self.large)

  def train(self, *flags):
    return cli.main(['train', *self.flags, *flags])

  def step(self):
    return int(checkpoint.load(self.workdir).state.step)


@pytest.mark.slow
def test_a_run_on_bad_images(tmp_path, capsys, monkeypatch):
  # Standard error is wrapped at 80 columns, except for the package's lines.
  monkeypatch.setenv('COLUMNS', '80')
  run = RunOnBadImages(tmp_path)
  assert run.train() == 0
  assert run.step() == 8
  assert sorted({*os.listdir(run.workdir)} - {'lock'}) == [
    *('checkpoints', 'config.json', 'index.html', 'metrics.jsonl'),
    *('samples', 'tensorboard'),
  ]
  out, err = capsys.readouterr()
  warnings = [x for x in err.splitlines() if x.startswith('warning: ')]
  assert len(warnings) == 2
  assert any(str(run.cut) in warning for warning in warnings)
  assert any(
    str(run.large) in warning and 'config.data.max_pixels=1000' in warning
    for warning in warnings
  )
  assert f' {run.workdir}\n' in err  # on one line
  # The suggested command can be pasted.
  assert f' translate {shlex.quote(str(run.workdir))} FOLDER' in out

  # Other options are refused.
  config = (run.workdir / 'config.json').read_bytes()
  options = ['--config.seed=3', '--config.generator.dropout=0.25']
  message = error_of(capsys, *run.flags, *options, status=1)
  assert str(run.workdir) in message
  assert 'config.seed: 0 -> 3; config.generator.dropout: 0.5 -> 0.25' in message
  assert (run.workdir / 'config.json').read_bytes() == config

  # Too many bad images end a run without losing a step.
  steps = '--config.steps=10'
  assert run.train(steps, '--config.data.max_corrupt=0') == 1
  error = capsys.readouterr().err.splitlines()[-1]
  assert error.startswith('error: ')
  assert 'config.data.max_corrupt=0' in error
  step = run.step()
  assert step in (8, 9)  # images are read ahead

  # It is resumed, also after a kill that left half a line and a checkpoint.
  metrics = run.workdir / 'metrics.jsonl'
  metrics.write_text(metrics.read_text() + '{"step": 9, "gener')
  (run.workdir / 'checkpoints' / '9.orbax-checkpoint-tmp').mkdir()
  (run.workdir / 'checkpoints' / 'notes.txt').write_text('not a step')
  assert run.train(steps, '--config.data.num_workers=0') == 0
  captured = capsys.readouterr()
  assert f' from step {step}\n' in captured.err
  assert 'trained 10 steps' in captured.out
  assert run.step() == 10
  records = [json.loads(line) for line in metrics.read_text().splitlines()]
  assert [record['step'] for record in records] == [2, 4, 6, 8, 10]
