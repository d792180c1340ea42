"""Scores and their baselines, on folders of plain images and on drawings."""

import json
import stat

import jax
import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.config import Config
from cyclegan_jax.data.sources import open_images
from cyclegan_jax.errors import DataError
from cyclegan_jax.evaluation.evaluator import Evaluator
from cyclegan_jax.images import to_float, to_rgb
from cyclegan_jax.inference import make_translator
from cyclegan_jax.metrics.distances import frechet_distance
from cyclegan_jax.metrics.label_maps import Palette
from cyclegan_jax.state import create_train_state
from cyclegan_jax.storage.cache import cache_folder

CONFIG = Config().replace(
  data={
    'num_train': 1,
    'num_test': 3,
    'size': 16,
    'load_size': 16,
    'num_workers': 2,
  },
  generator={'filters': 1, 'isize': 4, 'fixed_input_size': False},
  discriminator={'name': 'pixelgan', 'filters': 1},
)
LABEL_METRICS = ['pixel_accuracy', 'class_accuracy', 'mean_iou']


class MeanColors:
  """Mean red and green in [0, 1]: features that can be computed by hand."""

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
def empty_cache(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


@pytest.fixture(scope='module')
def gen():
  return create_train_state(CONFIG, jax.random.key(0)).translators


def write(path, value):
  """A plain image of a color, or of a gray level."""
  path.parent.mkdir(parents=True, exist_ok=True)
  color = value if isinstance(value, tuple) else (value,) * 3
  Image.new('RGB', (16, 16), color).save(path)


def make_folder(folder, a, b, *, name_a='{}.png', name_b='{}.png'):
  """Folders of plain images of the given values, in order."""
  for letter, values, name in (('A', a, name_a), ('B', b, name_b)):
    write(folder / f'train{letter}' / 'unused.png', 0)
    for index, value in enumerate(values):
      write(folder / f'test{letter}' / name.format(index), value)
  return folder


def evaluate(gen, folder, *, config=CONFIG, **options):
  config = config.replace(data={'name': 'folder'})
  images = open_images(config.replace(data={'path': str(folder)}).data)
  # One config for all folders, for which translators are compiled once.
  return Evaluator(config, images, **options)(gen)


def find_row(evaluation, direction, metric):
  (row,) = [
    row
    for row in evaluation.rows
    if (row.direction, row.metric) == (direction, metric)
  ]
  return row


def metrics_of(evaluation, direction):
  return [row.metric for row in evaluation.rows if row.direction == direction]


def halves(values, seed=0):
  order = np.random.default_rng(seed).permutation(len(values))
  half = len(values) // 2
  return values[order[:half]], values[order[half : 2 * half]]


def reds(*values):
  return [(value, 0, 0) for value in values]


# Distances between sets.


def test_baselines_by_hand(gen, tmp_path):
  values = {'a': [51, 102, 51, 102], 'b': [153, 255, 153, 255]}
  folder = make_folder(
    tmp_path,
    *(reds(*values[domain]) for domain in 'ab'),
    name_a='a{}.png',
    name_b='b{}.png',
  )
  evaluation = evaluate(gen, folder, extractor=MeanColors())

  # Only red varies: (m1 - m2)^2 + (s1 - s2)^2.
  def distance(x, y):
    mean, std = x.mean() - y.mean(), x.std(ddof=1) - y.std(ddof=1)
    return pytest.approx(mean**2 + std**2, abs=1e-6)

  a, b = (np.divide(values[domain], 255) for domain in 'ab')
  for direction, target in (('ab', b), ('ba', a)):
    row = find_row(evaluation, direction, 'fd_means')
    assert row.copy.value == distance(a, b)
    assert row.copy.images == (4, 4)
    assert row.real.value == distance(*halves(target))
    assert row.real.images == (2, 2)
    kernel = find_row(evaluation, direction, 'kd_means')
    assert kernel.copy.spread is not None
    assert kernel.real.images == (2, 2)
  assert metrics_of(evaluation, 'ab') == ['fd_means', 'kd_means', 'cycle_l1']


def test_translations_are_those_of_the_translator(gen, tmp_path):
  red = np.uint8([20, 90, 200, 5])
  folder = make_folder(tmp_path, reds(*red.tolist()), reds(0, 255, 30, 90))
  evaluation = evaluate(gen, folder, extractor=MeanColors(), seed=7)
  real = red[:, None, None, None] * np.ones((4, 16, 16, 1), np.uint8)
  real = to_float(real * np.uint8([1, 0, 0]))
  translate, reconstruct = (
    make_translator(CONFIG, gen, direction, key=jax.random.key(7))
    for direction in ('ab', 'ba')
  )
  fake = np.asarray(translate(real))
  target = np.array([[0, 0], [255, 0], [30, 0], [90, 0]]) / 255
  expected = frechet_distance(MeanColors()(to_rgb(fake)), target)
  row = find_row(evaluation, 'ab', 'fd_means')
  assert row.translated.value == pytest.approx(expected, abs=1e-5)
  assert row.sources == 'test_a translated, test_b'
  cycle = find_row(evaluation, 'ab', 'cycle_l1')
  error = np.abs(np.asarray(reconstruct(fake)) - real).mean() / 2
  assert cycle.translated.value == pytest.approx(error, abs=1e-5)
  assert cycle.copy == (0, (4,), None)
  one, two = halves(red.astype(float), seed=7)
  expected = np.abs(one - two).mean() / 255 / 3
  assert cycle.real.value == pytest.approx(expected)
  assert cycle.real.images == (2,)


@pytest.mark.parametrize('number', [1, 3])
def test_few_images(gen, tmp_path, number):
  values = reds(10, 40, 70, 100)
  folder = make_folder(tmp_path, values, values[:number])
  evaluation = evaluate(gen, folder, extractor=MeanColors())
  if number == 1:
    assert 'fd_means' not in metrics_of(evaluation, 'ab')
  else:  # a half of one image has no covariance
    assert find_row(evaluation, 'ab', 'fd_means').real is None


def test_max_images_are_evenly_spread(gen, tmp_path):
  folder = make_folder(tmp_path, reds(*range(9)), reds(*range(100, 105)))
  extractor = MeanColors()
  evaluation = evaluate(gen, folder, extractor=extractor, max_images=3)
  assert evaluation.images['a']['num_read'] == 3
  assert evaluation.images['a']['num_all'] == 9
  row = find_row(evaluation, 'ab', 'fd_means')
  assert row.translated.images == (3, 3)
  # 0, 4 and 8 of a, 100, 102 and 104 of b.
  expected = ((102 - 4) / 255) ** 2 + ((4 - 2) / 255) ** 2
  assert row.copy.value == pytest.approx(expected, abs=1e-6)
  # Batches have one shape, so the network is compiled once.
  assert set(extractor.shapes) == {(3, 16, 16, 3)}


def test_features_of_real_images_are_cached(gen):
  images = open_images(CONFIG.data)
  folder = cache_folder() / 'features'
  first, second = MeanColors(), MeanColors()
  evaluations = [
    Evaluator(CONFIG, images, extractor=extractor)(gen)
    for extractor in (first, second)
  ]
  assert evaluations[0] == evaluations[1]
  assert len(list(folder.iterdir())) == 2
  assert stat.S_IMODE(folder.stat().st_mode) == 0o700
  # A batch of translations for each direction, but none of real images.
  assert (len(first.shapes), len(second.shapes)) == (4, 2)
  # Other images and another network have files of their own.
  Evaluator(CONFIG, images, extractor=first, max_images=2)
  second.digest = 'version 2'
  Evaluator(CONFIG, images, extractor=second)
  assert len(list(folder.iterdir())) == 6


# Pairs.


def test_pairs_are_scored(gen, tmp_path):
  a, b = np.array([0, 100, 200, 9]), np.array([51, 151, 251, 60])
  folder = make_folder(tmp_path, a.tolist(), b.tolist())
  evaluation = evaluate(gen, folder)
  names = ['l1', 'psnr', 'ssim', 'cycle_l1']
  for direction, target in (('ab', b), ('ba', a)):
    assert metrics_of(evaluation, direction) == names
    l1 = find_row(evaluation, direction, 'l1')
    assert l1.copy.value == pytest.approx(0.2, abs=1e-6)
    assert l1.copy.images == l1.translated.images == (4,)
    one, two = halves(target)
    assert l1.real.value == pytest.approx(np.abs(one - two).mean() / 255)
    psnr = find_row(evaluation, direction, 'psnr')
    assert psnr.copy.value == pytest.approx(20 * np.log10(5), abs=1e-4)
  assert metrics_of(evaluate(gen, folder, pairs='none'), 'ab') == ['cycle_l1']


def test_a_few_equal_names_are_chance(gen, tmp_path):
  folder = make_folder(tmp_path, [1, 2, 3, 4], [4, 5, 6], name_b='n{}.png')
  write(folder / 'testB' / '0.png', 7)
  assert metrics_of(evaluate(gen, folder), 'ab') == ['cycle_l1']


def test_infinite_scores_are_valid_json(gen, tmp_path):
  evaluation = evaluate(gen, make_folder(tmp_path, [1, 2], [1, 2]))
  assert find_row(evaluation, 'ab', 'psnr').copy.value == np.inf
  content = json.loads(evaluation.files(5)['5.json'])
  assert content['step'] == 5
  psnr = content['directions']['ab']['psnr']
  assert psnr['copy'] == {'value': 'Infinity', 'images': [2]}


def test_different_channels(tmp_path):
  config = CONFIG.replace(data={'channels_b': 1})
  gen = create_train_state(config, jax.random.key(0)).translators
  folder = make_folder(tmp_path, [10, 90, 200], [20, 80, 250])
  evaluation = evaluate(gen, folder, config=config, extractor=MeanColors())
  # The feature network sees gray as RGB, but a copy is not of the target's
  # shape.
  assert find_row(evaluation, 'ab', 'fd_means').copy is not None
  for direction in ('ab', 'ba'):
    assert find_row(evaluation, direction, 'l1').copy is None


def test_label_maps(gen, tmp_path):
  palette = Palette(('sky', 'road'), np.uint8([[0, 0, 255], [90, 90, 90]]))
  folder = make_folder(
    tmp_path, reds(120, 240, 120, 240), [(0, 0, 255), (90, 90, 90)] * 2
  )
  evaluation = evaluate(gen, folder, palette=palette)
  assert metrics_of(evaluation, 'ab')[3:-1] == LABEL_METRICS
  assert metrics_of(evaluation, 'ba') == ['l1', 'psnr', 'ssim', 'cycle_l1']
  one, two = halves(np.array([0, 1, 0, 1]))
  real = find_row(evaluation, 'ab', 'pixel_accuracy').real
  assert real == (np.mean(one == two), (2,), None)
  # Both reds are nearer to gray.
  rows = [find_row(evaluation, 'ab', name) for name in LABEL_METRICS]
  assert [row.copy.value for row in rows] == [0.5, 0.5, 0.25]
  assert evaluation.facts['label_maps'] == 'b'
  other = palette._replace(colors=palette.colors + np.uint8(1))
  again = evaluate(gen, folder, palette=other)
  assert evaluation.facts['palette'] != again.facts['palette']


# Drawings, and runs of one direction.


def test_drawings_have_the_truth(gen):
  images = open_images(CONFIG.data)
  evaluator = Evaluator(CONFIG, images, extractor=MeanColors(), max_images=2)
  evaluation = evaluator(gen)
  assert sorted(evaluator.names) == sorted(evaluation.metrics())
  assert 'evaluation/ab/kd_means_std' in evaluator.names
  assert metrics_of(evaluation, 'ab')[2:] == [
    *('l1', 'psnr', 'ssim', 'cycle_l1', 'stripes', 'background_l1')
  ]
  stripes = find_row(evaluation, 'ab', 'stripes')
  assert stripes.copy.value < stripes.real.value == 1
  assert stripes.translated.images == (3,)  # cheap, so all are scored
  l1 = find_row(evaluation, 'ab', 'l1')
  # The counterpart differs only inside the mask.
  assert 0 < l1.copy.value < 0.1 < l1.translated.value


def test_one_direction(gen):
  evaluator = Evaluator(
    CONFIG,
    open_images(CONFIG.data),
    extractor=MeanColors(),
    directions=('ab',),
  )
  evaluation = evaluator(gen)
  assert sorted(evaluator.names) == sorted(evaluation.metrics())
  assert {row.direction for row in evaluation.rows} == {'ab'}
  assert 'cycle_l1' not in metrics_of(evaluation, 'ab')


# Unreadable and missing images.


def test_unreadable_images_are_reported(gen, tmp_path):
  folder = make_folder(tmp_path, [0, 10, 200, 30], [51, 61, 251, 81])
  paths = [folder / 'testA' / '1.png', folder / 'testB' / '2.png']
  paths[0].write_bytes(b'no image')
  paths[1].write_bytes(b'')
  evaluation = evaluate(gen, folder, extractor=MeanColors())
  text = evaluation.to_markdown()
  for path, failure in zip(paths, evaluation.failures, strict=True):
    assert failure.startswith(f'{path} ')
    assert f'  - {failure}\n' in text
  assert 'test_a: 3 of 4 images' in text
  row = find_row(evaluation, 'ab', 'fd_means')
  assert row.translated.images == (3, 3)
  # Pairs 0 and 3 are left.
  assert find_row(evaluation, 'ab', 'l1').translated.images == (2,)


def test_no_image_is_readable(gen, tmp_path):
  folder = make_folder(tmp_path, [0], [51])
  path = folder / 'testA' / '0.png'
  path.write_bytes(b'')
  with pytest.raises(DataError, match=f'test_a.*{path}'):
    evaluate(gen, folder)


def test_training_images_replace_missing_test_images(gen, tmp_path):
  folder = make_folder(tmp_path, [], [60])
  evaluation = evaluate(gen, folder, pairs='none')
  assert 'train_a: 1 of 1 images' in evaluation.to_markdown()
  row = find_row(evaluation, 'ab', 'cycle_l1')
  assert row.sources == 'train_a reconstructed'


# The table.


def test_the_table(gen, tmp_path):
  folder = make_folder(tmp_path, [0, 100, 150, 200], [51, 151, 201, 251])
  evaluation = evaluate(gen, folder, extractor=MeanColors())
  lines = evaluation.table()
  assert len({len(line) for line in lines}) == 1
  cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]
  assert cells[0] == [
    *('direction', 'metric', 'translated', 'copy', 'real vs real', 'images')
  ]
  rows = {tuple(row[:2]): row[2:] for row in cells[2:]}
  _, copy, real, _ = rows['a → b', 'l1 ↓']
  assert copy == '0.2 (4)'
  assert real.endswith(' (2)')
  translated, _, real, _ = rows['b → a', 'kd_means']
  assert translated.count('±') == 1
  assert translated.endswith('(4 / 4)')
  assert real.endswith('(2 / 2)')
