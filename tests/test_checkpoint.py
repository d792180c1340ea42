"""Checkpoints give back every bit, and carry their config."""

import json
import shutil

import jax
import numpy as np
import pytest

from cyclegan_jax import checkpoint, create_train_state
from cyclegan_jax.errors import WorkdirError


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
  with checkpoint.open_manager(tmp_path / 'checkpoints') as manager:
    checkpoint.save(manager, state, config)
  for path in (tmp_path, tmp_path / 'checkpoints', tmp_path / 'checkpoints/0'):
    restored, restored_config = checkpoint.load(path)
    assert restored_config == config
    assert_same(restored, state)


def test_newest_are_kept(configs, tmp_path):
  config = configs['plain']
  state = create_train_state(config, jax.random.key(0))
  with checkpoint.open_manager(tmp_path / 'checkpoints', keep=2) as manager:
    for step in (1, 2, 3):
      checkpoint.save(manager, state.replace(step=state.step + step), config)
  names = sorted(p.name for p in (tmp_path / 'checkpoints').iterdir())
  assert names == ['2', '3']
  assert int(checkpoint.load(tmp_path)[0].step) == 3
  assert int(checkpoint.load(tmp_path / 'checkpoints' / '2')[0].step) == 2


def test_half_written_checkpoint_is_passed_over(configs, tmp_path):
  config = configs['plain']
  state = create_train_state(config, jax.random.key(0))
  folder = tmp_path / 'checkpoints'
  with checkpoint.open_manager(folder) as manager:
    checkpoint.save(manager, state, config)
  # What a kill in the middle of the next save leaves behind.
  shutil.copytree(folder / '0', folder / '5.orbax-checkpoint-tmp-1')
  assert int(checkpoint.load(tmp_path)[0].step) == 0


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


def test_a_newer_format_is_refused(configs, tmp_path):
  config = configs['plain']
  state = create_train_state(config, jax.random.key(0))
  with checkpoint.open_manager(tmp_path / 'checkpoints') as manager:
    checkpoint.save(manager, state, config)
  record = tmp_path / 'checkpoints' / '0' / 'record' / 'metadata'
  content = json.loads(record.read_text())
  record.write_text(json.dumps(content | {'format': 99}))
  with pytest.raises(WorkdirError) as caught:
    checkpoint.load(tmp_path)
  assert str(caught.value) == (
    f'{tmp_path}/checkpoints/0 has format 99, but this version of '
    'cyclegan_jax reads format 1: use the version that wrote it'
  )
