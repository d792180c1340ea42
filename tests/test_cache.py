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
  assert kept_in(tmp_path, JAX_ENABLE_COMPILATION_CACHE='0') == 'None'
  assert list(tmp_path.iterdir()) == []
