"""Where compiled programs are kept, and where they are not."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.process

RUN = (
  'import jax\n'
  'from cyclegan_jax.storage.cache import keep_compiled_programs\n'
  'keep_compiled_programs()\n'
  'print(jax.config.jax_compilation_cache_dir)\n'
)
COMPILE = (
  'import jax\n'
  'from cyclegan_jax import cli\n'
  'from cyclegan_jax.storage.cache import keep_compiled_programs\n'
  'with cli.log_to_stderr():\n'
  '  keep_compiled_programs()\n'
  '  print(jax.jit(lambda x: x + 1)(1))\n'
)


def kept_in(root, umask=0o022, **environment):
  """Where a process of its own keeps them."""
  names = ('JAX_COMPILATION_CACHE_DIR', 'XLA_FLAGS')
  clean = {name: x for name, x in os.environ.items() if name not in names}
  return subprocess.run(
    [sys.executable, '-c', RUN],
    env=clean | {'XDG_CACHE_HOME': str(root)} | environment,
    umask=umask,
    capture_output=True,
    text=True,
    check=True,
  ).stdout.strip()


def test_a_folder_of_the_user_alone(tmp_path):
  folder = tmp_path / 'cyclegan_jax' / 'compiled'
  assert os.path.dirname(kept_in(tmp_path, umask=0)) == str(folder)
  (of_processor,) = folder.iterdir()
  assert of_processor.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize('mode', [0o770, 0o707])
def test_a_folder_that_others_may_write_to(tmp_path, mode):
  folder = tmp_path / 'cyclegan_jax' / 'compiled'
  folder.mkdir(parents=True)
  folder.chmod(mode)
  assert kept_in(tmp_path) == 'None'


def test_a_file_in_its_place(tmp_path):
  (tmp_path / 'cyclegan_jax').write_text('')
  assert kept_in(tmp_path) == 'None'


def test_what_the_user_said(tmp_path):
  place = str(tmp_path / 'mine')
  assert kept_in(tmp_path, JAX_COMPILATION_CACHE_DIR=place) == place
  assert kept_in(tmp_path, JAX_COMPILATION_CACHE_DIR='gs://x/y') == 'gs://x/y'
  assert kept_in(tmp_path, JAX_ENABLE_COMPILATION_CACHE='0') == 'None'
  assert os.listdir(tmp_path) == ['mine']
  assert os.listdir(place) == []


@pytest.mark.parametrize('place', ['file', 'file/x', 'damaged'])
def test_a_folder_of_the_user_that_cannot_be_used(place, tmp_path):
  """One warning, and none by JAX; programs are compiled."""
  (tmp_path / 'file').touch()

  def compile_with_cache():
    return subprocess.run(
      [sys.executable, '-c', COMPILE],
      env=os.environ
      | {
        'JAX_COMPILATION_CACHE_DIR': str(tmp_path / place),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      },
      capture_output=True,
      text=True,
      check=True,
    )

  if place == 'damaged':
    compile_with_cache()
    (path,) = (tmp_path / place).glob('*-cache')
    path.write_bytes(path.read_bytes()[:50])  # of a killed process
  done = compile_with_cache()
  assert done.stdout == '2\n'
  if place == 'damaged':
    assert done.stderr == ''
  else:
    (warning,) = done.stderr.splitlines()
    assert f'JAX_COMPILATION_CACHE_DIR={tmp_path / place}' in warning
