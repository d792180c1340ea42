"""Scores beside their baselines, from folders and from a run."""

import importlib.util
import json
import os
import pathlib
import shutil
import signal
import stat
import sys
import threading
import time

import jax
import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.commands import evaluate as command
from cyclegan_jax.config import from_config_dict
from cyclegan_jax.data.sources import open_images
from cyclegan_jax.errors import ConfigError, DataError, UserError
from cyclegan_jax.evaluation import image_set, pretrained
from cyclegan_jax.evaluation.evaluator import (
  Evaluator,
  evaluate,
)
from cyclegan_jax.evaluation.feature_cache import (
  cached_features,
  choose_extractor,
  default_cache,
)
from cyclegan_jax.images import to_float, to_rgb
from cyclegan_jax.inference import make_translator
from cyclegan_jax.metrics.distances import frechet_distance, gather_statistics
from cyclegan_jax.metrics.label_maps import Palette
from cyclegan_jax.report.metric_writer import read_metrics
from cyclegan_jax.state import create_train_state
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.training import periodic_evaluation as interim_module
from cyclegan_jax.training.train import train


class MeanColours:
  """Mean red and mean green in [0, 1]: features that a hand can compute."""

  name = 'means'
  frechet_name = 'fd_means'
  kernel_name = 'kd_means'
  dim = 2
  digest = 'version 1'

  def __init__(self):
    self.shapes = []

  def __call__(self, images):
    assert images.dtype == np.uint8
    self.shapes.append(images.shape)
    return np.float32(images[..., :2].mean(axis=(1, 2)) / 255)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  """An empty one, without Inception's weights."""
  folder = tmp_path_factory.mktemp('cache')
  monkeypatch.setenv('XDG_CACHE_HOME', str(folder))
  for name in ('CYCLEGAN_INCEPTION', 'TORCH_HOME'):
    monkeypatch.delenv(name, raising=False)
  return folder / 'cyclegan_jax' / 'statistics'


def write(path, value, size=16):
  """A plain image of one colour, or of a grey."""
  path.parent.mkdir(parents=True, exist_ok=True)
  colour = value if isinstance(value, tuple) else (value,) * 3
  Image.new('RGB', (size, size), colour).save(path)


def folder_of(tmp_path, a, b, *, name_a='{}.png', name_b='{}.png'):
  """Folders of plain images; what a and b hold are their values in order."""
  for split, values, name in (
    ('A', a, name_a),
    ('B', b, name_b),
  ):
    for index, value in enumerate(values):
      for kind in ('train', 'test'):
        path = tmp_path / f'{kind}{split}' / name.format(index)
        write(path, value)
  return tmp_path


@pytest.fixture(scope='module')
def tiny():
  sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
  config = from_config_dict(
    importlib.import_module('configs.tiny').get_config()
  )
  # As small as networks get, as most of the time goes into compiling them.
  return config.replace(
    data={'num_workers': 2, 'load_size': 16},
    generator={'isize': 4, 'fixed_input_size': False},
    discriminator={'name': 'pixelgan'},
  )


@pytest.fixture(scope='module')
def gen(tiny):
  return create_train_state(tiny, jax.random.key(0)).translators


def evaluated(config, gen, folder, **options):
  config = config.replace(data={'name': 'folder'})
  images = open_images(config.replace(data={'path': str(folder)}).data)
  options = {'extractor': MeanColours(), 'cache': None, **options}
  # One config for all folders: translators are compiled for it once.
  return evaluate(config, gen, images, **options)


def row_of(evaluation, direction, metric):
  (row,) = [
    each
    for each in evaluation.rows
    if (each.direction, each.metric) == (direction, metric)
  ]
  return row


def metrics_of(evaluation, direction):
  return [
    each.metric for each in evaluation.rows if each.direction == direction
  ]


# Sets of images.


def reds(*values):
  return [(value, 0, 0) for value in values]


def test_baselines_by_hand(tiny, gen, tmp_path):
  a, b = [51, 102, 51, 102], [153, 255, 153, 255]
  folder = folder_of(
    tmp_path, reds(*a), reds(*b), name_a='a{}.png', name_b='b{}.png'
  )
  evaluation = evaluated(tiny, gen, folder)
  # Red alone varies: (m1 - m2)^2 + (s1 - s2)^2, in shares of 255.
  values = {'a': np.divide(a, 255), 'b': np.divide(b, 255)}
  mean = values['b'].mean() - values['a'].mean()
  std = values['b'].std(ddof=1) - values['a'].std(ddof=1)
  for direction in ('ab', 'ba'):
    row = row_of(evaluation, direction, 'fd_means')
    assert row.copy.value == pytest.approx(mean**2 + std**2, abs=1e-6)
    assert row.copy.images == (4, 4)
    # Each half of two images of [x, y, x, y] is (x, x), (x, y) or (y, y).
    target = values[direction[1]]
    order = np.random.default_rng(0).permutation(4)
    one, two = target[order[:2]], target[order[2:]]
    expected = (one.mean() - two.mean()) ** 2
    expected += (one.std(ddof=1) - two.std(ddof=1)) ** 2
    assert row.real.value == pytest.approx(expected, abs=1e-6)
    assert row.real.images == (2, 2)
    kernel = row_of(evaluation, direction, 'kd_means')
    assert kernel.copy.spread is not None
    assert kernel.real.images == (2, 2)


def test_a_copy_of_the_same_domain_has_no_distance(tiny, gen, tmp_path):
  values = reds(10, 60, 140, 200)
  evaluation = evaluated(tiny, gen, folder_of(tmp_path, values, values))
  row = row_of(evaluation, 'ab', 'fd_means')
  assert row.copy.value == pytest.approx(0, abs=1e-6)
  assert row.translated.value > 1e-3


def test_translations_are_what_the_translator_gives(tiny, gen, tmp_path):
  folder = folder_of(tmp_path, reds(20, 90, 200, 5), reds(0, 255, 30, 90))
  evaluation = evaluated(tiny, gen, folder, seed=7)
  red = np.uint8([20, 90, 200, 5])[:, None, None, None]
  real = np.zeros((4, 16, 16, 3), np.uint8) + red * np.uint8([1, 0, 0])
  forth = make_translator(tiny, gen, 'ab', key=jax.random.key(7))
  back = make_translator(tiny, gen, 'ba', key=jax.random.key(7))
  fake = np.asarray(forth(to_float(real)))
  means = MeanColours()(to_rgb(fake))
  target = np.array([[0, 0], [255, 0], [30, 0], [90, 0]]) / 255
  expected = frechet_distance(
    gather_statistics(means), gather_statistics(target)
  )
  row = row_of(evaluation, 'ab', 'fd_means')
  assert row.translated.value == pytest.approx(expected, abs=1e-5)
  assert row.sources == 'test_a translated, test_b'
  error = np.abs(np.asarray(back(fake)) - to_float(real)).mean() / 2
  cycle = row_of(evaluation, 'ab', 'cycle_l1')
  assert cycle.translated.value == pytest.approx(error, abs=1e-5)
  # A copy comes back as it was.
  assert cycle.copy == (0, (4,), None)
  one, two = np.split(np.random.default_rng(7).permutation(4), 2)
  reds_of = red.ravel()[one].astype(float) - red.ravel()[two]
  assert cycle.real.value == pytest.approx(np.abs(reds_of).mean() / 255 / 3)
  assert cycle.real.images == (2,)


@pytest.mark.parametrize('num, has_real', [(1, None), (3, False), (4, True)])
def test_few_images(tiny, gen, tmp_path, num, has_real):
  # Mostly four images a side: batches of one size are compiled once.
  values = reds(10, 40, 70, 100)
  folder = folder_of(tmp_path, values, values[:num])
  evaluation = evaluated(tiny, gen, folder)
  found = metrics_of(evaluation, 'ab')
  if has_real is None:
    assert 'fd_means' not in found
    assert 'too few images for fd_means and kd_means' in evaluation.notes
  else:
    assert (row_of(evaluation, 'ab', 'fd_means').real is not None) == has_real


def test_at_most_so_many_images_spread_over_all(tiny, gen, tmp_path):
  folder = folder_of(tmp_path, reds(*range(9)), reds(*range(100, 105)))
  evaluation = evaluated(tiny, gen, folder, max_images=3)
  assert evaluation.images['a'].num_read == 3
  assert evaluation.images['a'].num_all == 9
  row = row_of(evaluation, 'ab', 'fd_means')
  assert row.translated.images == (3, 3)
  # 0, 4 and 8 of a, 100, 102 and 104 of b.
  expected = ((102 - 4) / 255) ** 2 + ((4 - 2) / 255) ** 2
  assert row.copy.value == pytest.approx(expected, abs=1e-6)


def test_the_network_sees_batches_of_one_shape(tiny, gen, tmp_path):
  folder = folder_of(tmp_path, reds(*range(4)), reds(*range(3)))
  extractor = MeanColours()
  evaluated(tiny, gen, folder, extractor=extractor)
  assert set(extractor.shapes) == {(4, 16, 16, 3)}


# Pairs.


@pytest.mark.parametrize(
  'name_a, name_b, is_paired',
  [
    ('{}.png', '{}.png', True),
    ('{}.png', '{}.bmp', True),
    ('{}_A.png', '{}_B.png', True),
    ('sub/{}.png', 'sub/{}.png', True),
    ('sub/{}.png', '{}.png', False),
    ('x{}.png', 'y{}.png', False),
  ],
)
def test_pairs_are_files_of_one_name(
  tiny, gen, tmp_path, name_a, name_b, is_paired
):
  folder = folder_of(
    tmp_path,
    [0, 100, 200, 9],
    [51, 151, 251, 60],
    name_a=name_a,
    name_b=name_b,
  )
  evaluation = evaluated(tiny, gen, folder, extractor=None)
  if not is_paired:
    assert metrics_of(evaluation, 'ab') == ['cycle_l1']
    return
  assert metrics_of(evaluation, 'ab') == ['l1', 'psnr', 'ssim', 'cycle_l1']
  for direction in ('ab', 'ba'):
    l1 = row_of(evaluation, direction, 'l1')
    assert l1.copy.value == pytest.approx(0.2, abs=1e-6)
    assert l1.copy.images == l1.translated.images == (4,)
    one, two = np.split(np.random.default_rng(0).permutation(4), 2)
    target = np.array({'a': [0, 100, 200, 9], 'b': [51, 151, 251, 60]}[
      direction[1]
    ])  # fmt: skip
    apart = np.abs(target[one] - target[two]).mean() / 255
    assert l1.real.value == pytest.approx(apart, abs=1e-6)
    assert l1.real.images == (2,)
    psnr = row_of(evaluation, direction, 'psnr')
    assert psnr.copy.value == pytest.approx(20 * np.log10(5), abs=1e-4)
    # Two flat images: their means alone differ.
    assert row_of(evaluation, direction, 'ssim').copy.value < 1


def test_pairs_can_be_left_out(tiny, gen, tmp_path):
  folder = folder_of(tmp_path, [0, 100, 1, 2], [51, 151, 3, 4])
  evaluation = evaluated(tiny, gen, folder, extractor=None, pairs='none')
  assert metrics_of(evaluation, 'ab') == ['cycle_l1']


def test_a_few_equal_names_are_chance(tiny, gen, tmp_path):
  folder = folder_of(tmp_path, [1, 2, 3, 4], [4, 5, 6], name_b='n{}.png')
  write(folder / 'testB' / '0.png', 7)
  evaluation = evaluated(tiny, gen, folder, extractor=None)
  assert metrics_of(evaluation, 'ab') == ['cycle_l1']


def test_equal_pairs_are_infinitely_good_copies(tiny, gen, tmp_path):
  folder = folder_of(tmp_path, [1, 2, 3, 4], [1, 2, 3, 4])
  evaluation = evaluated(tiny, gen, folder, extractor=None)
  row = row_of(evaluation, 'ab', 'psnr')
  assert row.copy.value == np.inf
  content = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
  assert content['directions']['ab']['psnr']['copy'] == {
    'value': 'Infinity',
    'images': [4],
  }


def test_channels_that_differ(tiny, tmp_path):
  config = tiny.replace(data={'channels_b': 1})
  gen = create_train_state(config, jax.random.key(0)).translators
  folder = folder_of(tmp_path, [10, 90, 200], [20, 80, 250])
  evaluation = evaluated(config, gen, folder)
  # Grey is grey to the network of features, but no copy of a colour image.
  assert row_of(evaluation, 'ab', 'fd_means').copy is not None
  for direction in ('ab', 'ba'):
    assert row_of(evaluation, direction, 'l1').copy is None


def test_label_maps(tiny, gen, tmp_path):
  palette = Palette(('sky', 'road'), np.uint8([[0, 0, 255], [90, 90, 90]]))
  labels = [(0, 0, 255), (90, 90, 90)]
  folder = folder_of(tmp_path, reds(120, 240, 120, 240), labels * 2)
  evaluation = evaluated(tiny, gen, folder, extractor=None, palette=palette)
  names = ['pixel_accuracy', 'class_accuracy', 'mean_iou']
  assert metrics_of(evaluation, 'ab')[3:-1] == names
  assert metrics_of(evaluation, 'ba') == ['l1', 'psnr', 'ssim', 'cycle_l1']
  # Sky and road in turn: of halves that are both of one kind all is equal.
  one, two = np.split(np.random.default_rng(0).permutation(4) % 2, 2)
  real = row_of(evaluation, 'ab', 'pixel_accuracy').real
  assert real == (np.mean(one == two), (2,), None)
  assert row_of(evaluation, 'ba', 'l1').real.images == (2,)
  # Both reds are nearer to grey.
  copy = [row_of(evaluation, 'ab', name).copy.value for name in names]
  assert copy == [0.5, 0.5, 0.25]
  content = evaluation.to_json()
  assert content['label_maps'] == 'b'
  # Other colours are told apart in what programs read.
  other = palette._replace(colours=palette.colours + np.uint8(1))
  again = evaluated(tiny, gen, folder, extractor=None, palette=other)
  assert len({content['palette'], again.to_json()['palette'], None}) == 3


# The embedded drawings.


def test_embedded_drawings_have_the_truth(tiny, gen):
  images = open_images(tiny.data)
  evaluation = evaluate(tiny, gen, images)
  assert metrics_of(evaluation, 'ab') == [
    'l1', 'psnr', 'ssim', 'cycle_l1', 'stripes', 'background_l1'
  ]  # fmt: skip
  stripes = row_of(evaluation, 'ab', 'stripes')
  assert stripes.copy.value < stripes.real.value == 1
  l1 = row_of(evaluation, 'ab', 'l1')
  # The counterpart differs in the coat alone.
  assert 0 < l1.copy.value < 0.1 < l1.translated.value
  assert evaluation.images['a'].split == 'test_a'
  assert stripes.sources == 'test_a translated'
  stripes = row_of(evaluate(tiny, gen, images, max_images=2), 'ab', 'stripes')
  assert stripes.translated.images == (3,)
  assert stripes.sources == 'all 3 of test_a translated'


@pytest.mark.parametrize('extractor', [None, MeanColours()])
def test_the_names_are_known_before(tiny, gen, extractor):
  images = open_images(tiny.data)
  evaluator = Evaluator(tiny, images, extractor=extractor, cache=None)
  evaluation = evaluator(gen)
  assert sorted(evaluator.names) == sorted(evaluation.flat())
  assert evaluator(gen) == evaluation
  if extractor:
    assert 'evaluation/ab/kd_means_std' in evaluator.names


def test_one_direction_alone(tiny, gen):
  images = open_images(tiny.data)
  evaluation = evaluate(
    tiny, gen, images, extractor=MeanColours(), cache=None, directions=('ab',)
  )
  assert {row.direction for row in evaluation.rows} == {'ab'}
  assert 'cycle_l1' not in metrics_of(evaluation, 'ab')


# Bad images.


def test_unreadable_images_are_named_and_the_rest_goes_on(tiny, gen, tmp_path):
  folder = folder_of(tmp_path, [0, 10, 200, 30], [51, 61, 251, 81])
  (folder / 'testA' / '1.png').write_bytes(b'no image')
  (folder / 'testB' / '2.png').write_bytes(b'')
  evaluation = evaluated(tiny, gen, folder)
  a = f"{folder}/testA/1.png can't be read: not a JPEG, PNG, WebP, BMP or"
  b = f"{folder}/testB/2.png can't be read: the file is empty"
  assert evaluation.failures[0].startswith(a)
  assert evaluation.failures[1:] == (b,)
  assert evaluation.images['a'].num_read == 3
  assert row_of(evaluation, 'ab', 'fd_means').translated.images == (3, 3)
  # 0 and 3: the others have lost one half.
  assert row_of(evaluation, 'ab', 'l1').translated.images == (2,)
  text = evaluation.to_markdown()
  assert f'  - {b}\n' in text
  assert 'test_a: 3 of 4 images' in text


def test_nothing_can_be_read(tiny, gen, tmp_path):
  folder = folder_of(tmp_path, [0], [51])
  path = folder / 'testA' / '0.png'
  path.write_bytes(b'')
  with pytest.raises(DataError) as caught:
    evaluated(tiny, gen, folder)
  assert str(caught.value) == (
    f"none of 1 images of test_a can be read: {path} can't be read: the file "
    'is empty'
  )


def test_training_images_that_stand_in_are_told(tiny, gen, tmp_path, caplog):
  folder = folder_of(tmp_path, [0, 9, 3, 4], [51, 70, 60, 70])
  for path in (folder / 'testA').iterdir():
    path.unlink()
  (folder / 'testA').rmdir()
  evaluation = evaluated(tiny, gen, folder)
  assert 'train_a: 4 of 4 images' in evaluation.to_markdown()
  row = row_of(evaluation, 'ab', 'fd_means')
  assert row.sources == 'train_a translated, test_b'
  assert 'its training images take their place' in caplog.text


# The cache.


def files_of(cache):
  return sorted(cache.iterdir())


def test_features_are_computed_once(tiny, gen, cache):
  images = open_images(tiny.data)
  first, second = MeanColours(), MeanColours()
  one = evaluate(tiny, gen, images, extractor=first)
  assert len(files_of(cache)) == 2
  for folder in (cache, cache.parent):
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
  two = evaluate(tiny, gen, images, extractor=second)
  assert one == two
  # A batch of each side's translations, but none of real images.
  assert (len(first.shapes), len(second.shapes)) == (4, 2)
  # Other images, another size and another network are other files.
  evaluate(tiny, gen, images, extractor=first, max_images=2)
  assert len(files_of(cache)) == 4
  second.digest = 'version 2'
  evaluate(tiny, gen, images, extractor=second)
  assert len(files_of(cache)) == 6


DAMAGES = {
  'cut': lambda data: data[: len(data) // 2],
  'empty': lambda data: b'',
  'flipped': lambda data: data[:120] + bytes([data[120] ^ 1]) + data[121:],
  'other': lambda data: b'not an archive at all',
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_file_is_made_anew(damage, tmp_path):
  digests = [bytes([n]) * 32 for n in range(3)]
  made = []

  def compute():
    made.append(1)
    return np.arange(6, dtype=np.float32).reshape(3, 2)

  def cached():
    return cached_features(
      MeanColours(), digests, compute, cache=tmp_path, batch_size=2
    )

  expected = cached()
  (path,) = tmp_path.iterdir()
  good = path.read_bytes()
  path.write_bytes(DAMAGES[damage](good))
  np.testing.assert_array_equal(cached(), expected)
  assert len(made) == 2
  assert path.read_bytes() == good
  np.testing.assert_array_equal(cached(), expected)
  assert len(made) == 2


def test_each_flipped_bit_is_noticed_or_harmless(tmp_path):
  digests = [bytes(32), bytes(32)]
  expected = np.float32([[1, 2], [3, 4]])

  def cached():
    return cached_features(
      MeanColours(), digests, lambda: expected, cache=tmp_path, batch_size=2
    )

  cached()
  (path,) = tmp_path.iterdir()
  good = path.read_bytes()
  for at in range(0, len(good), 7):
    path.write_bytes(good[:at] + bytes([good[at] ^ 16]) + good[at + 1 :])
    np.testing.assert_array_equal(cached(), expected)


def test_files_of_other_content_are_not_believed(tmp_path):
  digests = [bytes(32)]
  cached_features(
    MeanColours(),
    digests,
    lambda: np.float32([[1, 2]]),
    cache=tmp_path,
    batch_size=1,
  )
  (path,) = tmp_path.iterdir()
  other = cached_features(
    MeanColours(),
    [bytes(31) + b'x'],
    lambda: np.float32([[5, 6]]),
    cache=tmp_path,
    batch_size=1,
  )
  (new,) = set(tmp_path.iterdir()) - {path}
  path.write_bytes(new.read_bytes())
  found = cached_features(
    MeanColours(),
    digests,
    lambda: np.float32([[1, 2]]),
    cache=tmp_path,
    batch_size=1,
  )
  assert found.tolist() == [[1, 2]]
  assert other.tolist() == [[5, 6]]


def test_many_write_the_same_at_once(tmp_path):
  pretrained = (
    np.random.default_rng(0).normal(size=(500, 64)).astype(np.float32)
  )

  class Wide(MeanColours):
    dim = 64

  found = []

  def work():
    for _ in range(5):
      found.append(
        cached_features(
          Wide(),
          [bytes(32)] * 500,
          lambda: pretrained,
          cache=tmp_path / 'new' / 'folder',
          batch_size=1,
        )
      )

  threads = [threading.Thread(target=work) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(found) == 20
  for each in found:
    np.testing.assert_array_equal(each, pretrained)
  assert len(list((tmp_path / 'new' / 'folder').iterdir())) == 1


def test_a_cache_that_can_not_be_written(tmp_path, caplog):
  place = tmp_path / 'file'
  place.write_text('')
  found = cached_features(
    MeanColours(),
    [bytes(32)],
    lambda: np.float32([[1, 2]]),
    cache=place,
    batch_size=1,
  )
  assert found.tolist() == [[1, 2]]
  (record,) = caplog.records
  assert record.getMessage().startswith(
    f"features of real images can't be kept in {place} ("
  )


def test_where_the_cache_is(monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  assert default_cache() == tmp_path / 'cyclegan_jax' / 'statistics'
  home = pathlib.Path('~/.cache/cyclegan_jax/statistics').expanduser()
  for value in ('', 'relative'):
    monkeypatch.setenv('XDG_CACHE_HOME', value)
    assert default_cache() == home


# For people.


def test_the_table(tiny, gen, tmp_path):
  folder = folder_of(tmp_path, [0, 100, 150, 200], [51, 151, 201, 251])
  evaluation = evaluated(tiny, gen, folder)
  lines = evaluation.table()
  assert [cell.strip() for cell in lines[0].split('|')[1:-1]] == [
    'direction',
    'metric',
    'translated',
    'copy',
    'real vs real',
    'images',
  ]
  assert len({len(line) for line in lines}) == 1
  (line,) = [each for each in lines if 'a → b' in each and ' l1 ↓' in each]
  cells = [cell.strip() for cell in line.split('|')[1:-1]]
  assert cells[3] == '0.2 (4)'
  assert cells[4].endswith(' (2)')
  (line,) = [each for each in lines if 'b → a' in each and 'kd_means' in each]
  cells = [cell.strip() for cell in line.split('|')[1:-1]]
  assert cells[2].count('±') == 1
  assert cells[2].endswith('(4 / 4)')
  assert cells[4].endswith('(2 / 2)')


# The command.


@pytest.fixture
def finished(straight, tmp_path):
  """A copy of a run of eight steps, without the scores of its last."""
  run = shutil.copytree(straight, tmp_path / 'run')
  for path in (run / 'evaluation').glob('8.*'):
    path.unlink()
  return run


def call(*words):
  return command.run([str(word) for word in words], 'cyclegan evaluate')


def test_from_a_run_s_folder_alone(finished, capsys):
  assert call(finished, '--features', 'none') == 0
  path = finished / 'evaluation' / '8.json'
  content = json.loads(path.read_text())
  assert content['step'] == 8
  assert content['features'] is None
  text = path.with_suffix('.md').read_text()
  out = capsys.readouterr().out
  assert out.startswith(text)
  assert out.splitlines()[-1] == f'written to {path} and {path.parent}/8.md'
  assert text.startswith('# Evaluation at step 8\n')
  # The same again, to the byte, from the checkpoint's own folder.
  before = path.read_bytes()
  path.unlink()
  assert call(finished / 'checkpoints' / '8', '--features', 'none') == 0
  assert path.read_bytes() == before


def test_on_another_folder(finished, tmp_path, capsys, monkeypatch):
  folder = folder_of(tmp_path / 'mine', [0, 100, 200], [51, 151, 251])
  for name in ('trainA', 'trainB'):  # nothing is trained
    for path in (folder / name).iterdir():
      path.unlink()
    (folder / name).rmdir()
  assert call(finished, '--data', folder, '--features', 'none') == 0
  content = json.loads((finished / 'evaluation' / '8_mine.json').read_text())
  assert content['images']['a']['root'] == f'{folder}/testA/'
  assert content['images']['a']['split'] == 'test_a'
  assert content['pairs'] == {'ab': 3, 'ba': 3}
  l1 = content['directions']['ab']['l1']
  assert l1['copy']['value'] == pytest.approx(0.2, abs=1e-6)
  # A checkpoint that lies in no run: into the current folder.
  monkeypatch.chdir(tmp_path)
  (finished / 'checkpoints' / '8').rename(tmp_path / 'alone')
  try:
    assert call('alone', '--data', 'mine', '--features', 'none') == 0
  finally:
    (tmp_path / 'alone').rename(finished / 'checkpoints' / '8')
  assert (tmp_path / 'evaluation' / '8_mine.md').exists()
  (folder / 'testA' / '1.png').write_bytes(b'')
  capsys.readouterr()
  to = tmp_path / 'out' / 'scores.json'
  words = ['--data', folder, '--features', 'none', '--to', to]
  assert call(finished, *words, '--max-images', 2, '--pairs', 'none') == 0
  assert call(finished, *words) == 1
  captured = capsys.readouterr()
  assert captured.err.splitlines()[-1] == (
    f"error: {folder}/testA/1.png can't be read: the file is empty"
  )
  assert to.exists()
  assert to.with_suffix('.md').exists()


@pytest.mark.parametrize(
  'words, expected',
  [
    (['--seed', '-1'], 'argument --seed: -1 is not from 0 to 2**63 - 1'),
    (['--max-images', '0'], 'argument --max-images: 0 is less than 1'),
    (['--to', 'x.md'], 'argument --to: x.md does not end in .json'),
    (
      ['--features', 'effnet', '--inception', 'x.pth'],
      'argument --inception: not with --features effnet',
    ),
  ],
)
def test_wrong_words(words, expected, finished):
  with pytest.raises(ConfigError) as caught:
    call(finished, *words)
  assert str(caught.value) == f'{expected}: see cyclegan evaluate --help'


def test_the_run_s_images_are_gone(tiny, tmp_path):
  folder = folder_of(tmp_path / 'data', [0, 100], [51, 151])
  config = tiny.replace(steps=1, data={'name': 'folder', 'path': str(folder)})
  train(config, tmp_path / 'run')
  folder.rename(tmp_path / 'moved')
  with pytest.raises(DataError) as caught:
    call(tmp_path / 'run', '--features', 'none')
  assert str(caught.value) == (
    f"config.data.path='{folder}' does not exist: give the folder, or the "
    ".zip, that holds trainA and trainB; or give another folder's images with "
    '--data'
  )
  moved = ['--data', tmp_path / 'moved']
  assert call(tmp_path / 'run', *moved, '--features', 'none') == 0


def test_a_network_that_is_asked_for_must_be_there(
  finished, tmp_path, monkeypatch
):
  missing = tmp_path / 'missing.pth'
  with pytest.raises(UserError, match=f'{missing} is no file'):
    call(finished, '--inception', missing)
  # Found, so it is not fetched; but it is another file.
  monkeypatch.setenv('CYCLEGAN_INCEPTION', str(tmp_path / 'other.pth'))
  (tmp_path / 'other.pth').write_bytes(b'other')
  for name in ('inception', 'auto'):
    with pytest.raises(UserError, match='is damaged or another file'):
      choose_extractor(name, weights=tmp_path / 'other.pth')
  with pytest.raises(UserError, match='is damaged or another file'):
    call(finished, '--features', 'inception')
  assert not (finished / 'evaluation' / '8.json').exists()


def test_without_any_network_the_rest_is_scored(finished, caplog, monkeypatch):
  monkeypatch.setattr(pretrained, '_EFFNET_PACKAGE', 'not_installed_anywhere')
  assert call(finished) == 0
  (record,) = caplog.records
  assert record.getMessage().startswith('no network for features is here: ')
  content = json.loads((finished / 'evaluation' / '8.json').read_text())
  assert 'l1' in content['directions']['ab']
  assert content['features'] is None


@pytest.mark.skipif(
  importlib.util.find_spec(pretrained._EFFNET_PACKAGE) is None,
  reason='the extra effnet is not installed',
)
def test_with_a_real_network(finished, judged):
  assert call(finished) == 0
  content = json.loads((finished / 'evaluation' / '8.json').read_text())
  assert content['features']['name'] == 'effnet'
  for direction in ('ab', 'ba'):
    row = content['directions'][direction]['fd_effnet']
    assert row['copy']['value'] < row['translated']['value']
  # The same inside of training.
  config = judged.replace(evaluation={'features': 'auto'})
  interim = interim_module.PeriodicEvaluation(config, open_images(config.data))
  assert 'evaluation/ab/kd_effnet' in interim.names
  assert interim.describe() == (
    'every 3 steps and at the last, on 3 + 3 images, features: effnet'
  )


# Inside of training.


@pytest.fixture(scope='module')
def judged(tiny):
  """The config of a run that is evaluated, between checkpoints too."""
  return tiny.replace(
    steps=8,
    data={'num_workers': 0},
    evaluation={'every_steps': 3},
    checkpoint={'best_metric': 'evaluation/ab/l1', 'keep': 1, 'every_steps': 4},
    log={'samples_every_steps': 3},
  )


@pytest.fixture(scope='module')
def straight(judged, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('runs') / 'straight'
  train(judged, workdir)
  return workdir


def judged_records(workdir):
  return {
    each['step']: each
    for each in read_metrics(workdir / 'metrics.jsonl')
    if 'evaluation/ab/l1' in each
  }


def saved_steps(workdir):
  return checkpoint.list_steps(workdir / 'checkpoints')


def test_a_run_is_evaluated_as_it_goes(judged, straight):
  records = judged_records(straight)
  assert sorted(records) == [3, 6, 8]
  # On the line of the losses.
  assert all('generator/loss' in each for each in records.values())
  best = min(records, key=lambda step: records[step]['evaluation/ab/l1'])
  assert saved_steps(straight) == sorted({best, 8})
  saved = checkpoint.load(straight / 'checkpoints' / str(best))
  assert (
    saved.metrics['evaluation/ab/l1'] == (records[best]['evaluation/ab/l1'])
  )
  # The record is what the command says of that checkpoint.
  images = open_images(judged.data)
  again = evaluate(saved.config, saved.state.translators, images).flat()
  assert {name: records[best][name] for name in again} == again
  for step in (3, 6, 8):
    content = json.loads((straight / f'evaluation/{step}.json').read_text())
    assert content['step'] == step
  text = (straight / 'evaluation.md').read_text()
  assert text.startswith('# Evaluation at step 8\n')
  history = text.split('## All steps\n\n')[1].splitlines()
  assert [line.split('|')[1].strip() for line in history] == [
    'step', '-' * 6, '3', '6', '8'
  ]  # fmt: skip


def assert_same_run(one, other):
  for name in ('metrics.jsonl', 'evaluation.md', 'evaluation/6.json'):
    assert (one / name).read_text() == (other / name).read_text()
  assert saved_steps(one) == saved_steps(other)
  for step in saved_steps(one):
    x, y = (
      checkpoint.load(run / 'checkpoints' / str(step)) for run in (one, other)
    )
    assert x.metrics == y.metrics
    for p, q in zip(
      jax.tree.leaves(x.state.gen), jax.tree.leaves(y.state.gen), strict=True
    ):
      np.testing.assert_array_equal(p, q)


def test_in_two_parts_it_has_the_same_records(judged, straight, tmp_path):
  workdir = tmp_path / 'run'
  # Of six steps, the last is evaluated by both.
  train(judged.replace(steps=6, checkpoint={'keep': 3}), workdir)
  train(judged, workdir)
  assert_same_run(workdir, straight)


def test_a_signal_in_the_middle_of_an_evaluation(
  judged, straight, tmp_path, monkeypatch
):
  workdir = tmp_path / 'run'
  evaluator = interim_module.Evaluator

  class Interrupted(evaluator):
    def __call__(self, gen):
      os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(0.5)  # it is never waited for
      return super().__call__(gen)

  monkeypatch.setattr(interim_module, 'Evaluator', Interrupted)
  stopped = train(judged, workdir)
  assert stopped.signal == signal.SIGTERM
  assert int(stopped.state.step) == 3
  assert not judged_records(workdir)
  saved = checkpoint.load(workdir / 'checkpoints' / '3')
  assert 'generator/loss' in saved.metrics
  assert 'evaluation/ab/l1' not in saved.metrics
  monkeypatch.undo()
  assert train(judged, workdir).start_step == 3
  assert_same_run(workdir, straight)


@pytest.mark.parametrize('steps, judged_before', [(6, [3]), (7, [3, 6])])
def test_a_signal_in_the_last_evaluation(
  judged, tmp_path, monkeypatch, steps, judged_before
):
  config = judged.replace(steps=steps)
  train(config, tmp_path / 'one')
  evaluator = interim_module.Evaluator
  with monkeypatch.context() as patch:

    class Interrupted(evaluator):
      def __call__(self, gen):
        if sorted(judged_records(tmp_path / 'two')) == judged_before:
          os.kill(os.getpid(), signal.SIGTERM)
          time.sleep(0.5)
        return super().__call__(gen)

    patch.setattr(interim_module, 'Evaluator', Interrupted)
    train(config, tmp_path / 'two')
  assert sorted(judged_records(tmp_path / 'two')) == judged_before
  assert train(config, tmp_path / 'two').start_step == steps
  assert sorted(judged_records(tmp_path / 'two')) == sorted({3, 6, steps})
  assert_same_run(tmp_path / 'two', tmp_path / 'one')
  before = (tmp_path / 'two' / 'metrics.jsonl').read_bytes()
  train(config, tmp_path / 'two')
  assert (tmp_path / 'two' / 'metrics.jsonl').read_bytes() == before


LABELS = ['pixel_accuracy', 'class_accuracy', 'mean_iou']


@pytest.fixture
def labelled(tiny, tmp_path):
  """The config of a run on red images and label maps of the same names."""
  maps = [(0, 0, 255), (90, 90, 90)] * 2
  folder = folder_of(tmp_path / 'data', reds(120, 240, 120, 240), maps)
  palette = tmp_path / 'colours.txt'
  palette.write_text('0 0 255 sky\n90 90 90 road\n')
  return tiny.replace(
    steps=1,
    data={'name': 'folder', 'path': str(folder), 'num_workers': 0},
    evaluation={'every_steps': 9, 'palette': str(palette)},
  )


def scored(run, direction='ab'):
  content = json.loads((run / 'evaluation' / '1.json').read_text())
  return list(content['directions'][direction])


def test_pairs_and_label_maps_while_it_trains(labelled, tmp_path, capsys):
  run = tmp_path / 'run'
  config = labelled.replace(
    checkpoint={'best_metric': 'evaluation/ab/mean_iou'}
  )
  train(config, run)
  # At the last step, though nine are not done.
  assert sorted(judged_records(run)) == [1]
  assert scored(run) == ['l1', 'psnr', 'ssim', *LABELS, 'cycle_l1']
  before = (run / 'evaluation' / '1.json').read_bytes()
  # The command need not be told what the run knows, but can be.
  assert call(run, '--features', 'none') == 0
  assert (run / 'evaluation' / '1.json').read_bytes() == before
  assert call(run, '--features', 'none', '--palette', 'none') == 0
  assert scored(run) == ['l1', 'psnr', 'ssim', 'cycle_l1']
  assert call(run, '--features', 'none', '--pairs', 'none') == 0
  assert scored(run) == ['cycle_l1']
  path = tmp_path / 'colours.txt'
  path.unlink()
  with pytest.raises(DataError) as caught:
    call(run, '--features', 'none')
  assert str(caught.value) == (
    f"palette {path} can't be read (No such file or directory): give a JSON "
    "or text file of colours, or 'cityscapes', or 'none', with --palette"
  )
  assert call(run, '--features', 'none', '--palette', 'none') == 0
  # Nor does a run begin without it.
  with pytest.raises(DataError, match=f"palette {path} can't be read"):
    train(config, tmp_path / 'new')
  assert not (tmp_path / 'new').exists()


def test_equal_names_that_are_no_pairs_while_it_trains(labelled):
  config = labelled.replace(evaluation={'pairs': 'none'})
  interim = interim_module.PeriodicEvaluation(config, open_images(config.data))
  assert interim.names == [f'evaluation/{d}/cycle_l1' for d in ('ab', 'ba')]


def test_an_image_that_goes_away_does_not_end_the_run(
  judged, tmp_path, monkeypatch, capfd
):
  folder = folder_of(tmp_path / 'data', [0, 100], [51, 151])
  config = judged.replace(
    data={'name': 'folder', 'path': str(folder)}, checkpoint={'best_metric': ''}
  )
  # As if there were too many to keep in memory.
  monkeypatch.setattr(image_set, '_KEPT_BYTES', 0)
  evaluator = interim_module.Evaluator
  path = folder / 'testA' / '1.png'

  class Losing(evaluator):
    def __call__(self, gen):
      if path.exists():
        path.unlink()
      return super().__call__(gen)

  monkeypatch.setattr(interim_module, 'Evaluator', Losing)
  result = train(config, tmp_path / 'run')
  assert int(result.state.step) == 8
  assert not judged_records(tmp_path / 'run')
  told = capfd.readouterr().err
  assert (
    f"no evaluation of step 3: {path} can't be read: No such file or directory"
  ) in told
