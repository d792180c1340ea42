"""`cyclegan evaluate` on a checkpoint."""

import importlib.util
import json
import shutil

import jax
import pytest
from PIL import Image

from cyclegan_jax.commands import evaluate as command
from cyclegan_jax.config import Config
from cyclegan_jax.errors import (
  ConfigError,
  DataError,
  UserError,
  WeightsError,
  WorkdirError,
)
from cyclegan_jax.evaluation import pretrained
from cyclegan_jax.state import create_train_state
from cyclegan_jax.storage.checkpoint import Saver

CONFIG = Config().replace(
  data={
    'num_train': 1,
    'num_test': 3,
    'size': 16,
    'load_size': 16,
    'num_workers': 0,
  },
  generator={'filters': 1, 'isize': 4, 'fixed_input_size': False},
  discriminator={'name': 'pixelgan', 'filters': 1},
)
NO_FEATURES = ('--features', 'none')


@pytest.fixture(autouse=True)
def no_weights(tmp_path, monkeypatch):
  """A cache without Inception's weights."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  for name in ('CYCLEGAN_INCEPTION', 'TORCH_HOME'):
    monkeypatch.delenv(name, raising=False)


def save_run(folder, config=CONFIG):
  """A run with a checkpoint of untrained networks at step 8."""
  state = create_train_state(config, jax.random.key(0))
  with Saver(folder / 'checkpoints', config) as saver:
    saver.save(state.replace(step=state.step + 8))
  return folder


@pytest.fixture
def run(tmp_path):
  return save_run(tmp_path / 'run')


@pytest.fixture
def folder(tmp_path):
  """testA and testB with three pairs of plain images."""
  for letter, values in (('A', (0, 100, 200)), ('B', (51, 151, 251))):
    for index, value in enumerate(values):
      path = tmp_path / 'mine' / f'test{letter}' / f'{index}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.new('RGB', (16, 16), (value,) * 3).save(path)
  return tmp_path / 'mine'


def call(*words):
  return command.run([str(word) for word in words], 'cyclegan evaluate')


def read(path):
  return json.loads(path.read_text())


def test_scores_of_a_run(run, capsys):
  assert call(run, *NO_FEATURES) == 0
  path = run / 'evaluation' / '8.json'
  content = read(path)
  assert content['step'] == 8
  assert content['features'] is None
  assert content['directions']['ab']['stripes']['real']['value'] == 1
  table = path.with_suffix('.md').read_text()
  assert table.startswith('# Evaluation at step 8\n')
  out = capsys.readouterr().out
  assert out.startswith(table)
  assert out.splitlines()[-1] == f'written to {path} and {path.parent}/8.md'
  # The same bytes from the checkpoint's own folder.
  before = path.read_bytes()
  path.unlink()
  assert call(run / 'checkpoints' / '8', *NO_FEATURES) == 0
  assert path.read_bytes() == before


def test_scores_on_another_folder(run, folder, tmp_path, capsys, monkeypatch):
  assert call(run, '--data', folder, *NO_FEATURES) == 0
  content = read(run / 'evaluation' / '8_mine.json')
  assert content['images']['a']['root'] == f'{folder}/testA/'
  assert content['images']['a']['split'] == 'test_a'
  assert content['pairs'] == {'ab': 3, 'ba': 3}
  copy = content['directions']['ab']['l1']['copy']
  assert copy['value'] == pytest.approx(0.2, abs=1e-6)
  # Results of a checkpoint outside of a run go to the current folder.
  monkeypatch.chdir(tmp_path)
  (run / 'checkpoints' / '8').rename(tmp_path / 'alone')
  assert call('alone', '--data', 'mine', '--max-images', 2, *NO_FEATURES) == 0
  content = read(tmp_path / 'evaluation' / '8_mine.json')
  assert content['images']['a']['num_read'] == 2
  # An unreadable image is reported by the exit status.
  (folder / 'testA' / '1.png').write_bytes(b'')
  to = tmp_path / 'out' / 'scores.json'
  words = ['--data', folder, '--pairs', 'none', '--to', to]
  assert call('alone', *words, *NO_FEATURES) == 1
  assert f'{folder}/testA/1.png' in capsys.readouterr().err
  assert read(to)['pairs'] == {'ab': 0, 'ba': 0}
  assert to.with_suffix('.md').exists()


@pytest.mark.parametrize(
  'words',
  [
    ('--seed', '-1'),
    ('--max-images', '0'),
    ('--to', 'x.md'),
    ('--inception', 'x.pth', '--features', 'effnet'),
  ],
)
def test_invalid_options(words):
  with pytest.raises(ConfigError, match=f'argument {words[0]}'):
    call('run', *words)


def test_images_of_one_domain(run, folder, capsys):
  shutil.rmtree(folder / 'testB')
  assert call(run, '--data', folder, *NO_FEATURES) == 0
  content = read(run / 'evaluation' / '8_mine.json')
  assert list(content['images']) == ['a']
  assert list(content['directions']['ab']) == ['cycle_l1']
  assert content['directions']['ba'] == {}
  assert any('images of b' in note for note in content['notes'])
  archive = shutil.make_archive(str(folder), 'zip', folder)
  assert call(run, '--data', archive, '--palette', 'cityscapes') == 0
  zipped = read(run / 'evaluation' / '8_mine.json')
  sums = [each['images']['a']['sha256'] for each in (content, zipped)]
  assert sums[0] == sums[1]


def test_a_folder_without_images_of_a_domain(run, folder, tmp_path):
  for letter in 'AB':
    (folder / f'test{letter}').rename(folder / f'photos{letter}')
  for path in (folder, folder / 'gone'):
    with pytest.raises(DataError, match=f'{path}.*') as caught:
      call(run, '--data', path, *NO_FEATURES)
    assert '--data' in str(caught.value)
    assert 'config.' not in str(caught.value)


def test_images_that_the_only_generator_does_not_take(tmp_path, folder):
  shutil.rmtree(folder / 'testA')
  state = create_train_state(CONFIG, jax.random.key(0))
  with Saver(
    tmp_path / 'one' / 'checkpoints', CONFIG, directions=('ab',)
  ) as saver:
    saver.save(state)
  with pytest.raises(DataError, match='testA.*--data'):
    call(tmp_path / 'one', '--data', folder, *NO_FEATURES)


def test_files_of_others_are_kept(run, tmp_path):
  to = tmp_path / 'report.json'
  for name in ('report.json', 'report.md'):
    (tmp_path / name).write_text('mine')
    with pytest.raises(WorkdirError, match=f'{name}.*--to'):
      call(run, '--to', to, *NO_FEATURES)
    assert (tmp_path / name).read_text() == 'mine'
    (tmp_path / name).unlink()
  to.with_suffix('.md').write_text('mine')
  assert call(run, '--to', to, '--overwrite', *NO_FEATURES) == 0
  assert read(to)['step'] == 8
  # An evaluation is replaced.
  assert call(run, '--to', to, '--seed', '1', *NO_FEATURES) == 0
  assert read(to)['seed'] == 1


def test_a_table_that_cannot_be_stored_is_shown(run, capsys):
  (run / 'evaluation').write_text('a file in its place')
  with pytest.raises(WorkdirError, match='--to'):
    call(run, *NO_FEATURES)
  assert '| cycle_l1' in capsys.readouterr().out


def test_missing_images_of_the_run(tmp_path):
  data = {'name': 'folder', 'path': str(tmp_path / 'gone')}
  run = save_run(tmp_path / 'run', CONFIG.replace(data=data))
  with pytest.raises(DataError, match=f'{tmp_path}/gone.*--data'):
    call(run, *NO_FEATURES)


def test_missing_or_damaged_weights(run, tmp_path):
  path = tmp_path / 'weights.pth'
  with pytest.raises(UserError, match=str(path)):
    call(run, '--inception', path)
  path.write_bytes(b'other')
  with pytest.raises(WeightsError, match=str(path)):
    call(run, '--inception', path)
  assert not (run / 'evaluation').exists()


def test_scores_without_a_feature_network(run, caplog, monkeypatch):
  monkeypatch.setattr(pretrained, '_EFFNET_PACKAGE', 'not_installed_anywhere')
  assert call(run) == 0
  assert len(caplog.messages) == 1
  content = read(run / 'evaluation' / '8.json')
  assert content['features'] is None
  assert 'l1' in content['directions']['ab']


@pytest.mark.slow
@pytest.mark.skipif(
  importlib.util.find_spec(pretrained._EFFNET_PACKAGE) is None,
  reason='the extra effnet is not installed',
)
def test_scores_with_a_feature_network(run):
  assert call(run) == 0
  content = read(run / 'evaluation' / '8.json')
  assert content['features']['name'] == 'effnet'
  for direction in ('ab', 'ba'):
    row = content['directions'][direction]['fd_effnet']
    assert row['copy']['value'] < row['translated']['value']


def test_label_maps(tmp_path, folder):
  palette = tmp_path / 'colors.txt'
  palette.write_text('51 51 51 sky\n251 251 251 road\n')
  config = CONFIG.replace(
    data={
      'name': 'folder',
      **{f'{split}_a': str(folder / 'testA') for split in ('train', 'test')},
      **{f'{split}_b': str(folder / 'testB') for split in ('train', 'test')},
    },
    evaluation={'palette': str(palette)},
  )
  run = save_run(tmp_path / 'run', config)

  def metrics(*words):
    assert call(run, *NO_FEATURES, *words) == 0
    content = read(run / 'evaluation' / '8.json')
    return list(content['directions']['ab'])

  pairs = ['l1', 'psnr', 'ssim']
  labels = ['pixel_accuracy', 'class_accuracy', 'mean_iou']
  assert metrics() == [*pairs, *labels, 'cycle_l1']
  assert metrics('--palette', 'none') == [*pairs, 'cycle_l1']
  assert metrics('--pairs', 'none') == ['cycle_l1']
  palette.unlink()
  with pytest.raises(DataError, match=f'{palette}.*--palette'):
    metrics()
  assert metrics('--palette', 'none') == [*pairs, 'cycle_l1']
