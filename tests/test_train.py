"""What a run does when things go wrong in the middle."""

import os
import pathlib
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.errors import ConfigError, DataError, WorkdirError
from cyclegan_jax.report.metric_writer import read_metrics
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.storage.workdir import lock_workdir
from cyclegan_jax.training.train import train


@pytest.fixture
def config(load_preset):
  return load_preset('tiny').replace(data={'num_workers': 0})


def saved_steps(workdir):
  return checkpoint.list_steps(workdir / 'checkpoints')


def assert_same(one, other):
  def check(x, y):
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
      x, y = jax.random.key_data(x), jax.random.key_data(y)
    np.testing.assert_array_equal(x, y)

  jax.tree.map(check, one, other)


def write_images(folder, count, *, broken=()):
  folder.mkdir(parents=True)
  rng = np.random.default_rng(0)
  for index in range(count):
    path = folder / f'{index}.png'
    Image.fromarray(rng.integers(0, 255, (20, 20, 3), np.uint8)).save(path)
    if index in broken:
      path.write_bytes(path.read_bytes()[:60])


@pytest.mark.slow
def test_too_many_corrupt_images_end_the_run_and_lose_nothing(config, tmp_path):
  # 12 images of a at 2 a step: the broken one comes within 6 steps; it is
  # put where the order of seed 0 has it at step 4 or later.
  from cyclegan_jax.data.loader import image_at

  broken = image_at(9, 12, config.seed, 'a')
  write_images(tmp_path / 'trainA', 12, broken=[broken])
  write_images(tmp_path / 'trainB', 12)
  write_images(tmp_path / 'testA', 2)
  write_images(tmp_path / 'testB', 2)
  config = config.replace(
    data={
      'name': 'folder',
      'path': str(tmp_path),
      'max_corrupt': 0,
      'prefetch_batches': 1,
    },
    checkpoint={'every_steps': 100},
  )
  with pytest.raises(DataError, match=f'{broken}.png'):
    train(config, tmp_path / 'run')
  assert saved_steps(tmp_path / 'run') == [0, 4]
  # Once the image is mended the same call goes on and finishes.
  good = next(p for p in (tmp_path / 'trainB').iterdir())
  shutil.copy(good, tmp_path / 'trainA' / f'{broken}.png')
  result = train(config, tmp_path / 'run')
  assert (result.start_step, int(result.state.step)) == (4, 8)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  import importlib
  import sys

  sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
  from cyclegan_jax.config import from_config_dict

  config = from_config_dict(
    importlib.import_module('configs.tiny').get_config()
  )
  workdir = tmp_path_factory.mktemp('run')
  return config, workdir, train(config, workdir)


@pytest.mark.slow
def test_score_of_a_finished_run_is_told_again(finished):
  config, workdir, first = finished
  again = train(config, workdir)
  assert first.score is not None
  assert again.score == first.score
  assert again.start_step == 8


def copy_of(finished, tmp_path):
  config, workdir, _ = finished
  shutil.copytree(workdir, tmp_path / 'run')
  return config, tmp_path / 'run'


@pytest.mark.slow
def test_options_are_compared_with_the_checkpoint_s_too(finished, tmp_path):
  config, workdir = copy_of(finished, tmp_path)
  (workdir / 'config.json').unlink()
  with pytest.raises(WorkdirError) as caught:
    train(config.replace(loss={'cycle_a': 1.0}), workdir)
  assert 'config.loss.cycle_a: 10.0 -> 1.0' in str(caught.value)
  # The refused options were not written down as the run's.
  assert not (workdir / 'config.json').exists()
  assert train(config, workdir).start_step == 8


@pytest.mark.slow
def test_damaged_records_end_a_run_before_it_compiles(
  finished, tmp_path, capsys
):
  config, workdir = copy_of(finished, tmp_path)
  metrics = workdir / 'metrics.jsonl'
  metrics.write_text(metrics.read_text().replace('{', '', 1))
  with pytest.raises(WorkdirError, match=f'{metrics}, line 1 '):
    train(config.replace(steps=10), workdir)
  assert 'compiling' not in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_whose_checkpoints_are_gone_is_not_trained_anew(
  finished, tmp_path
):
  config, workdir = copy_of(finished, tmp_path)
  before = (workdir / 'metrics.jsonl').read_bytes()
  for folder in list((workdir / 'checkpoints').iterdir()):
    shutil.rmtree(folder)
  with pytest.raises(WorkdirError, match='checkpoints'):
    train(config, workdir)
  assert (workdir / 'metrics.jsonl').read_bytes() == before


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over(finished, tmp_path, caplog):
  config, workdir = copy_of(finished, tmp_path)
  before = (workdir / 'metrics.jsonl').read_text()
  (workdir / 'checkpoints' / '8' / 'record.json').write_text('{}')
  result = train(config, workdir)
  assert (result.start_step, int(result.state.step)) == (4, 8)
  (warning,) = [
    each.getMessage()
    for each in caplog.records
    if 'damaged' in each.getMessage()
  ]
  assert warning.startswith(
    f'{workdir}/checkpoints/8 is damaged (record.json has 2 bytes'
  )
  assert_same(result.state, finished[2].state)
  assert (workdir / 'metrics.jsonl').read_text() == before
  names = sorted(each.name for each in (workdir / 'checkpoints').iterdir())
  assert names == ['0', '4', '8']
  checkpoint.load(workdir / 'checkpoints' / '8')


@pytest.mark.slow
def test_the_best_checkpoint_is_chosen_by_a_metric_that_there_is(
  config, tmp_path
):
  with pytest.raises(ConfigError, match='discriminator/a'):
    train(config.replace(checkpoint={'best_metric': 'fid'}), tmp_path / 'run')
  config = config.replace(
    checkpoint={
      'best_metric': 'generator/cycle_a',
      'keep': 1,
      'every_steps': 1,
    },
    log={'metrics_every_steps': 1},
  )
  train(config, tmp_path / 'run')
  records = read_metrics(tmp_path / 'run' / 'metrics.jsonl')
  best = min(records, key=lambda each: each['generator/cycle_a'])['step']
  assert saved_steps(tmp_path / 'run') == sorted({best, 8})


# Images that change between two starts.


def folder_config(config, tmp_path, **data):
  for name in ('trainA', 'trainB', 'testA', 'testB'):
    write_images(tmp_path / name, 5)
  return config.replace(
    data={'name': 'folder', 'path': str(tmp_path), 'num_workers': 2, **data}
  )


@pytest.mark.slow
def test_images_that_changed_between_two_starts(config, tmp_path, caplog):
  config = folder_config(config, tmp_path)
  workdir = tmp_path / 'run'
  train(config.replace(steps=4), workdir)
  assert not caplog.records
  (tmp_path / 'trainA' / '1.png').rename(tmp_path / 'trainA' / 'new.png')
  changed = 'train_a: 1 image added (new.png), 1 removed (1.png)'
  with pytest.raises(DataError, match='config.data.strict') as caught:
    train(config.replace(data={'strict': True}), workdir)
  assert changed in str(caught.value)
  result = train(config, workdir)
  assert (result.start_step, int(result.state.step)) == (4, 8)
  (warning,) = caplog.records
  assert changed in warning.getMessage()
  # From now on these are the run's.
  caplog.clear()
  train(config.replace(data={'strict': True}), workdir)
  assert not caplog.records


@pytest.mark.slow
def test_a_folder_that_moved_is_the_same(config, tmp_path, monkeypatch):
  """But for its path, which is an option of the run."""
  config = folder_config(config, tmp_path / 'old')
  first = train(config, tmp_path / 'one')
  (tmp_path / 'old').rename(tmp_path / 'new')
  moved = config.replace(data={'path': str(tmp_path / 'new')})
  second = train(moved, tmp_path / 'two')
  assert_same(first.state, second.state)
  # Either run is resumed with the images in another place, as a relative path
  # and as an archive.
  monkeypatch.chdir(tmp_path)
  shutil.make_archive('zipped', 'zip', tmp_path / 'new')
  for place in ('new', 'zipped.zip'):
    more = config.replace(data={'path': place}, steps=9)
    result = train(more, tmp_path / 'one')
    assert (result.start_step, int(result.state.step)) == (8, 9)
    shutil.rmtree(tmp_path / 'one' / 'checkpoints' / '9')
  # Other images in another place are those of another run.
  (tmp_path / 'new' / 'trainA' / '1.png').unlink()
  with pytest.raises(WorkdirError, match=r'config\.data\.path'):
    train(moved, tmp_path / 'one')
  data = [
    checkpoint.load(tmp_path / run / 'checkpoints' / '8').data
    for run in ('one', 'two')
  ]
  assert data[0] == data[1]
  assert data[0]['train_a']['count'] == 5


def test_files_of_others_end_a_new_run(config, tmp_path):
  for name in ('index.html', 'metrics.jsonl', 'evaluation.md'):
    path = tmp_path / name
    path.write_text('mine')
    with pytest.raises(WorkdirError, match=f'{path}.*--workdir'):
      train(config, tmp_path)
    assert path.read_text() == 'mine'
    path.unlink()


@pytest.mark.parametrize('on_save_error', ['retry', 'stop'])
def test_a_first_checkpoint_that_cannot_be_written(
  on_save_error, config, tmp_path, capsys
):
  (tmp_path / 'checkpoints').write_text('a file in its place')
  faults = {'on_save_error': on_save_error}
  with pytest.raises(WorkdirError, match=f'{tmp_path}.*--workdir'):
    train(config.replace(faults=faults), tmp_path)
  assert 'compiling' not in capsys.readouterr().err


def test_a_name_that_is_not_utf_8(config, tmp_path):
  workdir = tmp_path / os.fsdecode(b'r\xe9sum\xe9')
  with pytest.raises(WorkdirError, match='--workdir'):
    train(config, workdir)
  assert not workdir.exists()


# One process a folder.


def test_a_folder_in_use_is_refused(finished, tmp_path):
  config, workdir = copy_of(finished, tmp_path)
  with (
    lock_workdir(workdir),
    pytest.raises(WorkdirError, match=f'is in use by process {os.getpid()} '),
  ):
    train(config, workdir)


@pytest.mark.skipif(jax.__version_info__ >= (0, 10), reason='JAX is new enough')
def test_several_processes_are_refused_where_jax_is_old(config, tmp_path):
  config = config.replace(distributed={'initialize': True, 'num_processes': 2})
  with pytest.raises(ConfigError, match=r'need JAX 0\.10 or newer'):
    train(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
