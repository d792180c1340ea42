"""The page that compares runs: its facts, damaged records, hostile names."""

import base64
import io
import json
import math
import pathlib
import re
import shutil

import jax
import numpy as np
import pages
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cyclegan_jax import create_train_state
from cyclegan_jax.commands import compare
from cyclegan_jax.compare.page import compare_runs, shortest_labels
from cyclegan_jax.config import Config, DataConfig
from cyclegan_jax.data.sources import open_images
from cyclegan_jax.errors import ConfigError, DataError, UserError, WorkdirError
from cyclegan_jax.evaluation.results import Evaluation, Figure, Row
from cyclegan_jax.images import to_float, to_rgb
from cyclegan_jax.inference import make_translator
from cyclegan_jax.report.metric_history import read_curves
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.storage.workdir import (
  read_config,
  write_config,
)

DASH = '\N{EN DASH}'


class Page(pages.Page):
  """A comparison page."""

  def __init__(self, path):
    self.text = path.read_text(encoding='utf-8')
    super().__init__(self.text)

  def rows(self):
    """The cells of the tables' rows, by the row's name."""
    rows, name = {}, None
    for tag, attrs, texts in self.elements:
      if tag == 'tr':
        name = None
      elif tag == 'th' and attrs['scope'] == 'row':
        name = ''.join(texts).strip()
        rows[name] = []
      elif tag == 'td' and name:
        rows[name].append(''.join(texts).strip())
    return rows

  def charts(self):
    """Curves by chart and run."""
    data = self.data
    return {
      chart['name']: {
        data['runs'][curve['run']]: curve | {'x': data['steps'][curve['x']]}
        for curve in chart['curves']
      }
      for chart in data['charts']
    }

  def pictures(self):
    """Pixels by their texts, 'run: image'."""
    pixels = {}
    for tag, attrs, _ in self.elements:
      if tag == 'img' and attrs.get('src'):
        head, _, data = attrs['src'].partition(',')
        assert head == 'data:image/webp;base64'
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
          pixels[attrs['alt']] = np.asarray(image)
    return pixels


def save_run(folder, *, seed=0, size=8, **data):
  """A run with a checkpoint of step 0 and no records."""
  config = Config().replace(
    seed=seed,
    steps=4,
    data={'size': size, 'load_size': size, 'num_test': 3} | data,
    generator={'filters': 2, 'isize': size},
    discriminator={'filters': 2, 'layers': 1},
  )
  state = create_train_state(config, jax.random.key(seed))
  with checkpoint.Saver(folder / 'checkpoints', config) as saver:
    saver.save(state)
  write_config(folder, config)
  return folder


def record(folder, *lines):
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'metrics.jsonl').write_text(''.join(f'{x}\n' for x in lines))
  return folder


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """Two runs whose folders have one name; do not write to them."""
  root = tmp_path_factory.mktemp('runs')
  paths = [
    save_run(root / name / 'tiny', seed=seed)
    for seed, name in enumerate(('one', 'two'))
  ]
  for path in paths:
    record(path, *(f'{{"step": {i}, "g/loss": {i / 2}}}' for i in (2, 4)))
  return paths


@pytest.mark.slow
def test_two_runs_on_one_page(runs, tmp_path, capsys):
  to = tmp_path / 'new' / 'page.html'
  arguments = [*map(str, runs), '--images', '2', '--to', str(to)]
  assert compare.run(arguments, 'cyclegan compare') == 0
  assert capsys.readouterr().out == f'{to}\n'
  page = Page(to)
  assert page.texts('h1') == ['one/tiny · two/tiny']
  rows = page.rows()
  assert rows['seed'] == ['0', '1']
  assert rows['recorded steps'] == ['4 of 4', '4 of 4']
  assert rows['pictures of step'] == ['0', '0']
  assert 'batch_size' not in rows
  curves = page.charts()['g/loss']
  assert list(curves) == ['one/tiny', 'two/tiny']
  assert all(curve['x'] == [2, 4] for curve in curves.values())
  # Small pictures are stored without loss.
  pictures = page.pictures()
  assert len(pictures) == 2 * 2 * 3
  for run in runs:
    loaded = checkpoint.load(run)
    state, config = loaded.state, loaded.config
    for direction in ('ab', 'ba'):
      name = f'test_{direction[0]}'
      source = open_images(config.data)[name].read(2)
      np.testing.assert_array_equal(pictures[f'input: {name}/00002'], source)
      translate = make_translator(
        config, state.translators, direction, key=jax.random.key(0)
      )
      translated = to_rgb(np.asarray(translate(to_float(source[None]))))
      shown = pictures[f'{run.parent.name}/tiny: {name}/00002']
      np.testing.assert_array_equal(shown, translated[0])


def test_the_page_loads_nothing(runs, tmp_path):
  to = tmp_path / 'page.html'
  assert compare_runs(runs[:1], to, num_images=1) == []
  page = Page(to)
  addresses = set(re.findall(r'\w+://[^\s\'"]+', page.text))
  assert addresses == {'http://www.w3.org/2000/svg'}  # a name, never fetched
  for tag, attrs, _ in page.elements:
    assert tag not in ('link', 'iframe', 'object', 'a')
    assert attrs.get('src', 'data:').startswith('data:')
  assert compare_runs(runs[:1], to, num_images=0) == []
  assert Page(to).pictures() == {}


def test_a_checkpoint_has_the_records_up_to_its_step(runs, tmp_path):
  run = shutil.copytree(runs[0], tmp_path / 'run')
  to = tmp_path / 'page.html'
  compare_runs([run / 'checkpoints/0', run], to, num_images=1)
  page = Page(to)
  assert page.texts('h1') == ['0 · run']
  assert page.rows()['recorded steps'] == ['no records', '4 of 4']
  assert list(page.charts()['g/loss']) == ['run']


@pytest.mark.slow
def test_each_run_has_its_own_size_and_channels(runs, tmp_path):
  for name in ('trainA/1.png', 'trainB/2.png', 'testA/x.png', 'testB/y.png'):
    path = tmp_path / 'data' / name
    path.parent.mkdir(parents=True)
    Image.new('RGB', (30, 20)).save(path)
  gray = save_run(tmp_path / 'gray', size=16, channels_a=1, channels_b=1)
  rgb = shutil.copytree(runs[0], tmp_path / 'rgb')
  folder = {'name': 'folder', 'path': str(tmp_path / 'data')}
  write_config(rgb, read_config(rgb).replace(data=folder))
  to = tmp_path / 'page.html'
  assert compare_runs([rgb, gray], to) == []
  shapes = {name: x.shape for name, x in Page(to).pictures().items()}
  a, b = (str(tmp_path / 'data' / x) for x in ('testA/x.png', 'testB/y.png'))
  assert shapes == {
    f'{maker}: {name}': (size, size, 3)
    for maker, size in (('input', 16), ('rgb', 8), ('gray', 16))
    for name in (a, b)
  }


def test_missing_things_are_reported_where_they_belong(runs, tmp_path, capsys):
  names = ('gone', 'good', 'damaged')
  gone, good, damaged = (
    shutil.copytree(runs[0], tmp_path / name) for name in names
  )
  data = {'name': 'folder', 'path': str(tmp_path / 'no')}
  write_config(gone, read_config(gone).replace(data=data))
  (damaged / 'checkpoints/0/record.json').write_text('{}')
  bare = record(tmp_path / 'bare', '{"step": 1, "g/loss": 3}', 'torn?', '')
  (bare / 'config.json').write_text('{')
  to = tmp_path / 'page.html'
  folders = [gone, good, damaged, bare]
  assert compare.run([*map(str, folders), '--to', str(to)], 'x') == 1
  page = Page(to)
  errors = capsys.readouterr().err.splitlines()
  problems = page.texts('li')
  for run, part in (
    (gone, f"config.data.path='{tmp_path}/no'"),
    (damaged, f'{damaged}/checkpoints'),
    (bare, 'metrics.jsonl: 2 damaged lines'),
    (bare, f'{bare}/config.json'),
  ):
    assert [x for x in errors if x.startswith(f'error: {run}: ') and part in x]
    assert [x for x in problems if x.startswith(f'{run.name}: ') and part in x]
  # Both directions' tables have a cell without pictures for these two.
  for index, run in ((2, damaged), (3, bare)):
    cells = page.texts('td', **{'class': 'trouble', 'data-run': str(index)})
    assert len(cells) == 2
    assert all(str(run) in text for text in cells)
  pictures = page.pictures()
  assert 'gone: test_a/00000' in pictures
  assert 'good: test_b/00002' in pictures
  assert list(page.charts()['g/loss']) == ['gone', 'good', 'damaged', 'bare']


@pytest.mark.parametrize(
  ('files', 'shown'),
  [
    (
      ['1.png', 'in/2.png'],
      {'ab': ['1.png', '2.png'], 'ba': ['1.png', '2.png']},
    ),
    (
      ['testA/1.png', 'trainA/0.png', 'trainB/3.png'],
      {'ab': ['1.png'], 'ba': ['3.png']},
    ),
    (['testB/1.png'], {'ba': ['1.png']}),
  ],
)
def test_images_of_another_folder(files, shown, runs, tmp_path):
  for name in files:
    path = tmp_path / 'data' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (9, 9)).save(path)
  to = tmp_path / 'page.html'
  assert compare_runs(runs[:1], to, data=tmp_path / 'data') == []
  text = Page(to).text
  names = {
    title: re.findall(r'<bdi>(\w+\.png)</bdi>', part)
    for title, part in zip(
      re.findall('<h3>(.*?)</h3>', text), text.split('<h3>')[1:], strict=True
    )
  }
  way = DataConfig().way
  assert names == {way(each): files for each, files in shown.items()}


def test_unreadable_test_images_are_left_out(runs, tmp_path):
  (tmp_path / 'data').mkdir()
  for name in 'abc':
    Image.new('RGB', (9, 9)).save(tmp_path / 'data' / f'{name}.png')
  (tmp_path / 'data/a.png').write_bytes(b'no image')
  to, data = tmp_path / 'page.html', tmp_path / 'data'
  assert compare_runs(runs[:1], to, num_images=2, data=data) == []
  # Of b and c; both directions have one name for each.
  assert len(Page(to).pictures()) == 2 * 2
  for name in 'bc':
    (data / f'{name}.png').unlink()
  with pytest.raises(DataError, match=r'a\.png'):
    compare_runs(runs[:1], to, data=data)


# Scores.


def evaluate(
  folder, step, values, *, name='fid', digest='abc', counts=(64, 60), **facts
):
  """Writes an evaluation with one score a direction."""
  rows = tuple(
    Row(
      direction,
      name,
      Figure(value, counts, spread=0.25),
      Figure(80.0, counts),
      None,
      'test_a translated, test_b',
    )
    for direction, value in zip(('ab', 'ba'), values, strict=True)
  )
  images = {domain: {'sha256': digest} for domain in 'ab'}
  content = Evaluation(
    rows, images, (), {'step': step, **facts}, DataConfig()
  ).to_json()
  path = folder / 'evaluation' / f'{step}.json'
  path.parent.mkdir(exist_ok=True)
  path.write_text(json.dumps(content))


@pytest.fixture
def scored(tmp_path):
  """Makes runs with evaluations, and compares them."""

  def score(**evaluations):
    folders = []
    for run, options in evaluations.items():
      folders.append(record(tmp_path / run, '{"step": 9, "x": 1}'))
      if options:
        evaluate(folders[-1], **{'step': 9, **options})
    to = tmp_path / 'page.html'
    assert compare_runs(folders, to, num_images=0) == []
    return Page(to)

  return score


def best(page):
  return page.texts('span', **{'class': 'best'})


def test_scores_of_the_last_evaluation(scored, tmp_path):
  evaluate(record(tmp_path / 'best', '{}'), 9, (99.0, 99.0))
  (tmp_path / 'best/evaluation/11_other.json').write_text('of other images')
  page = scored(
    best={'step': 10, 'values': (31.5, 12.0)},
    worse={'step': 8, 'values': (40.0, 10.0)},
    lost={'step': 10, 'values': (math.nan, math.inf)},
    never=None,
  )
  rows = page.rows()
  context = 'copy 80 · 64 / 60 images'
  assert rows['at step'] == ['10', '8', '10', DASH]
  assert rows['a → b fid ↓'] == [
    f'31.5 ± 0.25{context}',
    f'40 ± 0.25{context}',
    f'nan ± 0.25{context}',
    DASH,
  ]
  assert best(page) == ['31.5 ± 0.25', '10 ± 0.25']
  assert 'comparable' not in page.text
  broken = tmp_path / 'lost'
  (broken / 'evaluation/13.json').write_text('{"directions"')
  (message,) = compare_runs([broken], tmp_path / 'page.html', num_images=0)
  assert message.startswith(f'{broken}: its last evaluation')


INCEPTION = {'features': {'name': 'inception', 'digest': '1'}}


@pytest.mark.parametrize(
  ('metric', 'one', 'other', 'difference'),
  [
    ('fid', {}, {'digest': 'other', 'counts': (32, 60)}, 'other images'),
    ('fid', {}, {'counts': (32, 60)}, 'other numbers of images'),
    (
      'fid',
      INCEPTION,
      {'features': {'name': 'inception', 'digest': '2'}, 'digest': 'other'},
      'other images, other features',
    ),
    # Pixels depend neither on features nor on a palette.
    (
      'psnr',
      INCEPTION | {'counts': (64,)},
      {'features': None, 'palette': '12', 'counts': (64,)},
      '',
    ),
    (
      'mean_iou',
      {'counts': (64,), 'palette': '12'},
      {'counts': (64,), 'palette': '34'},
      'another palette',
    ),
  ],
)
def test_only_comparable_scores_are_ranked(
  scored, metric, one, other, difference
):
  is_lower_better = metric == 'fid'
  worse, better = (2.0, 3.0)[:: -1 if is_lower_better else 1]
  best_of_all = 1.0 if is_lower_better else 9.0
  page = scored(
    x={'values': (better, worse), 'name': metric, **one},
    y={'values': (best_of_all,) * 2, 'name': metric, **other},
    z={'values': (worse, better), 'name': metric, **one},
  )
  (row,) = [cells for name, cells in page.rows().items() if 'a → b' in name]
  warnings = page.texts('p', **{'class': 'trouble'})
  if difference:
    assert best(page) == [f'{better:g} ± 0.25'] * 2
    marked = [cell.endswith(f'not comparable: {difference}') for cell in row]
    assert marked == [False, True, False]
    assert len(warnings) == 1
  else:
    assert best(page) == ['9 ± 0.25'] * 2
    assert warnings == []


def test_a_score_without_others_of_its_basis_is_not_best(scored):
  page = scored(
    x={'values': (1.0, 2.0), 'digest': 'x'},
    y={'values': (1.0, 2.0), 'digest': 'y'},
  )
  assert best(page) == []
  assert len(page.texts('small', **{'class': 'trouble'})) == 2


def test_stripes_are_best_near_the_truth(scored):
  # Too many are no better than too few; a horse has none.
  page = scored(
    x={'values': (1.5, 0.3), 'name': 'stripes', 'counts': (64,)},
    y={'values': (0.8, 0.2), 'name': 'stripes', 'counts': (64,)},
    z={'values': (0.1, 0.4), 'name': 'stripes', 'counts': (64,)},
  )
  names = [name for name in page.rows() if 'stripes' in name]
  assert names == ['a → b stripes (best at 1)', 'b → a stripes ↓']
  assert best(page) == ['0.8 ± 0.25', '0.2 ± 0.25']


# Records.


def test_hostile_names_and_values_stay_text(tmp_path):
  name = '<script><img src=x onerror=alert(1)> "\'&\u202e {{data}}'
  line = {'step': 1, '</script><script>alert(2)': 1, 'NaN\u2028': 'NaN'}
  run = record(tmp_path / name, json.dumps(line), 'torn', '')
  evaluate(run, 1, (1.0, 1.0), digest='<b>')
  plain = record(tmp_path / 'plain', '{"step": 1, "x": 2}')
  to = tmp_path / 'page.html'
  (message,) = compare_runs([run, plain], to)
  assert message.isprintable()
  page = Page(to)
  assert [tag for tag, *_ in page.elements].count('script') == 2
  assert not [attrs for _, attrs, _ in page.elements if 'onerror' in attrs]
  shown = name.replace('\u202e', '\\u202e')
  assert page.texts('h1') == [f'{shown} · plain']
  assert '\u202e' not in page.text
  assert set(page.charts()) == {'</script><script>alert(2)', 'NaN\u2028', 'x'}
  assert list(page.charts()['NaN\u2028']) == [shown]


def test_records_of_any_kind(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  lines = [
    '{"step": 1, "loss": 1.5, "lr": 1}',
    '{"step": 2, "loss": "NaN"}',
    'not JSON',
    '[1]',
    '{"loss": 1}',
    '{"step": 3, "loss": "Infinity", "rare": -2}',
    '{"step": 4, "loss": {}}',
    '{"step": 5, "loss": 2.5}',
    '[' * 100_000,
    '{"step": 6, "loss": 9',
  ]
  path.write_text('\n'.join(lines))
  records = read_curves(path)
  assert records.last_step == 5
  assert records.num_damaged == 5
  assert records.names == ['loss', 'lr', 'rare']
  loss = records.curves['loss']
  assert loss.steps == [1, 2, 3, 5]
  assert loss.means == [1.5, None, None, 2.5]
  assert loss.not_finite == [2, 3]
  assert loss.last == 2.5
  some = read_curves(path, pattern=re.compile('^r|lo'), end_step=2)
  assert list(some.curves) == ['loss']
  assert some.curves['loss'].steps == [1, 2]
  assert read_curves(tmp_path / 'none.jsonl') == ({}, [], None, 0)


@given(
  values=st.lists(
    st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf]), max_size=200
  ),
  half=st.integers(1, 8),
)
def test_thinned_curves_keep_extremes_means_and_order(
  values, half, tmp_path_factory
):
  path = tmp_path_factory.getbasetemp() / 'thinned.jsonl'
  lines = [
    json.dumps({'step': 3 * i, 'x': x if math.isfinite(x) else str(x)})
    for i, x in enumerate(values)
  ]
  path.write_text(''.join(f'{line}\n' for line in lines))
  records = read_curves(path, max_points=2 * half)
  finite = [x for x in values if math.isfinite(x)]
  if not values:
    assert not records.curves
    return
  curve = records.curves['x']
  assert min(len(values), half) <= len(curve.steps) <= 2 * half
  assert curve.steps == sorted(curve.steps)
  assert bool(curve.not_finite) == (len(finite) < len(values))
  lows = [x for x in curve.lows if x is not None]
  highs = [x for x in curve.highs if x is not None]
  assert min(lows, default=None) == min(finite, default=None)
  assert max(highs, default=None) == max(finite, default=None)
  # A point is the mean of as many values in a row as every other point.
  length = 1
  while -(-len(values) // length) > 2 * half:
    length *= 2
  for place, mean in enumerate(curve.means):
    stretch = values[place * length : (place + 1) * length]
    stretch = [x for x in stretch if math.isfinite(x)]
    assert (mean is None) == (not stretch)
    if stretch:
      assert mean == pytest.approx(np.mean(stretch), rel=1e-9, abs=1e-6)


def test_a_long_record_makes_a_small_page(tmp_path):
  values = np.random.default_rng(0).normal(size=30_000)
  values[12_345] = 77.0
  lines = [f'{{"step": {i}, "x": {x:.6g}}}' for i, x in enumerate(values)]
  long = record(tmp_path / 'long', *lines)
  short = record(tmp_path / 'short', '{"step": 4, "x": 1}')
  to = tmp_path / 'page.html'
  compare_runs([long, short], to, num_images=0)
  curves = Page(to).charts()['x']
  assert len(curves['long']['y']) <= 512
  assert max(curves['long']['high']) == 77
  assert curves['long']['last'] == pytest.approx(values[-1], rel=1e-4)
  assert curves['short'] == {'run': 1, 'x': [4], 'y': [1], 'last': 1}
  assert to.stat().st_size < 100_000


# Arguments.


@pytest.mark.parametrize(
  ('paths', 'labels'),
  [
    (['/r/a/x', '/r/b/x', '/r/y'], ['a/x', 'b/x', 'y']),
    (['/p/a/m/x', '/p/b/m/x'], ['a/m/x', 'b/m/x']),
    (['/a/x', '/b/a/x'], ['/a/x', 'b/a/x']),
    (['/a'], ['a']),
  ],
)
def test_labels_are_as_short_as_they_can_be(paths, labels):
  assert shortest_labels([pathlib.Path(path) for path in paths]) == labels


def test_a_run_given_twice_counts_once(tmp_path, monkeypatch):
  record(tmp_path / 'run', '{"step": 1, "x": 1}')
  monkeypatch.chdir(tmp_path / 'run')
  to = tmp_path / 'page.html'
  compare_runs([pathlib.Path('.'), tmp_path / 'run'], to, num_images=0)
  assert Page(to).texts('h1') == ['run']


def test_errors_of_the_user(tmp_path):
  run = record(tmp_path / 'run', '{"step": 1, "x": 1, "y": 2}')
  records, other, to = run / 'metrics.jsonl', tmp_path / 'other', tmp_path / 'x'
  other.mkdir()
  before = records.read_bytes()
  for error, part, folders, options in (
    (WorkdirError, str(other), [run, other], {}),
    (WorkdirError, f'{tmp_path}/none', [tmp_path / 'none'], {}),
    (WorkdirError, '--to', [run], {'to': other}),
    (WorkdirError, str(records), [run], {'to': records}),
    (ConfigError, 'x, y', [run], {'metrics': re.compile('z')}),
  ):
    with pytest.raises(UserError) as caught:
      compare_runs(folders, **{'to': to, 'num_images': 0} | options)
    assert isinstance(caught.value, error)
    assert part in str(caught.value)
    assert not to.exists()
  assert records.read_bytes() == before
  to.write_text('mine')
  assert compare_runs([run], to, num_images=0, overwrite=True) == []
  assert compare_runs([run], to, num_images=0) == []  # a comparison now


def test_a_data_folder_that_does_not_exist(runs, tmp_path):
  with pytest.raises(DataError, match=f'{tmp_path}/no .* --data'):
    compare_runs(runs, tmp_path / 'x.html', data=tmp_path / 'no')


@pytest.mark.parametrize('argument', ['--images=-1', '--metrics=('])
def test_wrong_arguments(argument):
  option, _, value = argument.partition('=')
  with pytest.raises(ConfigError, match=re.escape(f'{option}: {value!r}')):
    compare.run(['run', argument], 'cyclegan compare')


@pytest.mark.browser
def test_the_page_in_a_browser(runs, tmp_path):
  to = tmp_path / 'page.html'
  compare_runs(runs, to)
  with (
    pages.chromium('--disable-gpu') as browser,
    pages.open_page(browser, to.as_uri()) as page,
  ):
    assert page.locator('.chart path.main').count() == 2
    page.locator('.chart svg.plot').hover()
    page.locator('.chart circle').first.wait_for()
    page.locator('#runs button').first.click()
    assert page.locator('.chart path.main').count() == 1
    assert page.locator('td[data-run="0"]:visible').count() == 0
    page.locator('button.picture:visible').first.click()
    page.keyboard.press('ArrowRight')
    assert 'two/tiny' in page.locator('dialog p').first.inner_text()
    page.keyboard.press('Escape')
    page.locator('#filter').fill('nothing')
    assert page.locator('.chart:visible').count() == 0
