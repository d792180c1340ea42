"""The page that compares runs: real runs, odd records, hostile names."""

import base64
import dataclasses
import html.parser
import io
import json
import math
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
from cyclegan_jax.evaluation.table import (
  Evaluation,
  Figure,
  ImagesUsed,
  Row,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cyclegan_jax import (
  cli,
  create_train_state,
  images,
)
from cyclegan_jax.commands import compare
from cyclegan_jax.compare.page import shortest_labels
from cyclegan_jax.compare.runs import compare_runs
from cyclegan_jax.config import Config
from cyclegan_jax.data.sources import open_images
from cyclegan_jax.errors import ConfigError, DataError, WorkdirError
from cyclegan_jax.inference import make_translator
from cyclegan_jax.report.metric_history import read_curves
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.storage.checkpoint import Saver
from cyclegan_jax.storage.workdir import (
  read_config,
  write_config,
)

ROOT = pathlib.Path(__file__).parent.parent
DASH = '\N{EN DASH}'
VOID = {'meta', 'img', 'input', 'br'}


class Page(html.parser.HTMLParser):
  """Elements with their texts, of a page whose tags are closed in order."""

  def __init__(self, path):
    super().__init__()
    self.elements, self.open = [], []
    self.text = path.read_text(encoding='utf-8')
    self.feed(self.text)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attrs):
    element = (tag, dict(attrs), [])
    self.elements.append(element)
    if tag not in VOID:
      self.open.append(element)

  def handle_endtag(self, tag):
    assert self.open.pop()[0] == tag

  def handle_data(self, data):
    for element in self.open:
      element[2].append(data)

  def texts(self, tag, **attrs):
    return [
      ''.join(text).strip()
      for name, found, text in self.elements
      if name == tag and attrs.items() <= found.items()
    ]

  def rows(self):
    """The cells of each table's rows, by the row's name."""
    rows, name = {}, None
    for tag, attrs, text in self.elements:
      if tag == 'tr':
        name = None
      elif tag == 'th' and attrs['scope'] == 'row':
        name = ''.join(text).strip()
        rows[name] = []
      elif tag == 'td' and name:
        rows[name].append(''.join(text).strip())
    return rows

  def charts(self):
    (data,) = self.texts('script', id='data')
    data = json.loads(data, parse_constant=pytest.fail)
    return {
      chart['name']: {
        data['runs'][curve['run']]: curve | {'x': data['steps'][curve['x']]}
        for curve in chart['curves']
      }
      for chart in data['charts']
    }

  def pictures(self):
    """Pixels by their texts, 'run: image'."""
    found = {}
    for tag, attrs, _ in self.elements:
      if tag == 'img' and attrs.get('src'):
        head, _, data = attrs['src'].partition(',')
        assert head == 'data:image/webp;base64'
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
          found[attrs['alt']] = np.asarray(image)
    return found


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """Two runs of one basename."""
  root = tmp_path_factory.mktemp('runs')
  for name, seed in (('one', 0), ('two', 1)):
    arguments = [
      f'--config={ROOT}/configs/tiny.py',
      f'--workdir={root}/{name}/tiny',
      f'--config.seed={seed}',
      '--config.steps=4',
      '--config.pool_size=0',
      '--config.data.size=8',
      '--config.data.load_size=8',
      '--config.generator.name=resnet',
      '--config.generator.blocks=1',
      # What takes long to compile, and makes no difference to the page.
      '--config.generator.norm=none',
      '--config.discriminator.name=pixelgan',
      '--config.discriminator.norm=none',
      '--config.optimizer.name=sgd',
      '--config.diagnostics.enabled=False',
    ]
    assert not cli.main(['train', *arguments])
  return root


@pytest.fixture(scope='module')
def plain_run(tmp_path_factory):
  """A run of no steps: only what `compare` looks at."""
  return save_run(tmp_path_factory.mktemp('plain') / 'run')


def save_run(folder, **changes):
  config = Config().replace(
    data={'size': 8, 'load_size': 8, 'num_test': 3},
    generator={'filters': 2, 'isize': 8},
    discriminator={'filters': 2, 'layers': 1},
  )
  data = {**dataclasses.asdict(config.data), **changes.pop('data', {})}
  config = config.replace(data=data, **changes)
  state = create_train_state(config, jax.random.key(1))
  with Saver(folder / 'checkpoints', config) as saver:
    saver.save(state)
  write_config(folder, config)
  return folder


def recorded(folder, *lines):
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'metrics.jsonl').write_text(''.join(f'{x}\n' for x in lines))
  return folder


def test_two_runs_on_one_page(runs, tmp_path, capsys):
  folders = [runs / 'one/tiny', runs / 'two/tiny']
  to = tmp_path / 'new' / 'page.html'
  arguments = [*map(str, folders), '--images', '2', '--to', str(to)]
  assert compare.run(arguments, 'cyclegan compare') == 0
  assert capsys.readouterr().out == f'{to}\n'
  page = Page(to)
  assert page.texts('h1') == ['one/tiny · two/tiny']
  assert page.texts('nav') == ['one/tinytwo/tiny']
  rows = page.rows()
  assert rows['seed'] == ['0', '1']
  assert rows['recorded steps'] == ['4 of 4', '4 of 4']
  assert rows['pictures of step'] == ['4', '4']
  assert 'batch_size' not in rows
  charts = page.charts()
  assert list(charts['generator/loss']) == ['one/tiny', 'two/tiny']
  for curves in charts.values():
    assert all(curve['x'] == [2, 4] for curve in curves.values())
  # Small pictures are kept to the last bit.
  pictures = page.pictures()
  assert len(pictures) == 2 * 2 * 3
  for folder in folders:
    loaded = checkpoint.load(folder)
    state, config = loaded.state, loaded.config
    for direction in ('ab', 'ba'):
      name = f'test_{direction[0]}'
      source = open_images(config.data)[name].read(2)
      np.testing.assert_array_equal(pictures[f'input: {name}/00002'], source)
      translator = make_translator(
        config, state.translators, direction, key=jax.random.key(0)
      )
      made = images.to_rgb(
        np.asarray(translator(images.to_float(source[None])))
      )
      shown = pictures[f'{folder.parent.name}/tiny: {name}/00002']
      np.testing.assert_array_equal(shown, made[0])


def test_the_page_needs_nothing_but_itself(runs, tmp_path):
  to = tmp_path / 'page.html'
  assert compare_runs([runs / 'one/tiny'], to, num_images=1) == []
  page = Page(to)
  addresses = set(re.findall(r'\w+://[^\s\'"]+', page.text))
  assert addresses == {'http://www.w3.org/2000/svg'}  # a name, never asked for
  for tag, attrs, _ in page.elements:
    assert tag not in ('link', 'iframe', 'object', 'a')
    assert attrs.get('src', 'data:').startswith('data:')
  assert compare_runs([runs / 'one/tiny'], to, num_images=0) == []
  assert Page(to).pictures() == {}


def test_a_checkpoint_stands_for_its_run_up_to_its_step(runs, tmp_path):
  run = shutil.copytree(runs / 'one/tiny', tmp_path / 'run')
  steps = sorted(int(each.name) for each in (run / 'checkpoints').iterdir())
  assert steps == [0, 4]
  to = tmp_path / 'page.html'
  compare_runs([run / 'checkpoints/0', run], to, num_images=1)
  page = Page(to)
  assert page.texts('h1') == ['0 · run']
  assert page.rows()['pictures of step'] == ['0', '4']
  assert page.rows()['recorded steps'] == ['no records', '4 of 4']
  assert list(page.charts()['generator/loss']) == ['run']


def test_sizes_and_channels_of_each_run(plain_run, tmp_path):
  rng = np.random.default_rng(0)
  for name in ('trainA/1.png', 'trainB/2.png', 'testA/x.png', 'testB/y.png'):
    path = tmp_path / 'data' / name
    path.parent.mkdir(parents=True)
    Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).save(path)
  folder = {'name': 'folder', 'path': str(tmp_path / 'data')}
  grey = save_run(
    tmp_path / 'grey',
    data={'size': 16, 'load_size': 16, 'channels_a': 1, 'channels_b': 1},
    generator={'filters': 2, 'isize': 16},
  )
  rgb = shutil.copytree(plain_run, tmp_path / 'rgb')
  write_config(rgb, read_config(rgb).replace(data=folder))
  to = tmp_path / 'page.html'
  # The first run's images, each at the run's own size and channels.
  assert compare_runs([rgb, grey], to) == []
  shapes = {name: x.shape for name, x in Page(to).pictures().items()}
  a, b = (str(tmp_path / 'data' / x) for x in ('testA/x.png', 'testB/y.png'))
  assert shapes == {
    f'{by}: {name}': (size, size, 3)
    for by, size in (('input', 16), ('rgb', 8), ('grey', 16))
    for name in (a, b)
  }


def test_what_is_missing_is_said_in_its_place(plain_run, tmp_path, capsys):
  gone, good, damaged = (
    shutil.copytree(plain_run, tmp_path / name)
    for name in ('gone', 'good', 'damaged')
  )
  config = read_config(gone)
  data = {'name': 'folder', 'path': str(tmp_path / 'no')}
  write_config(gone, config.replace(data=data))
  recorded(good, '{"step": 1, "loss": 1}')
  recorded(damaged, '{"step": 1, "loss": 2}')
  (damaged / 'checkpoints/0/record.json').write_text('{}')
  bare = recorded(tmp_path / 'bare', '{"step": 1, "loss": 3}', 'torn?', '')
  (bare / 'config.json').write_text('{')
  to = tmp_path / 'page.html'
  runs = [gone, good, damaged, bare]
  assert compare.run([*map(str, runs), '--to', str(to)], 'x') == 1
  page = Page(to)
  errors = capsys.readouterr().err
  messages = {
    'gone': f"config.data.path='{tmp_path}/no' does not exist: give the "
    'folder, or the .zip, that holds trainA and trainB',
    'damaged': f'{damaged}/checkpoints has no checkpoint left to go on from',
    'bare': '2 lines of metrics.jsonl are no records and left out',
  }
  for name, message in messages.items():
    assert f'error: {tmp_path}/{name}: {message}' in errors
    assert any(
      text.startswith(f'{name}: {message}') for text in page.texts('li')
    )
  assert f'{bare}/config.json can not be read' in errors
  # The damaged and the bare stand in both tables, beside the others' pictures.
  places = page.texts('td', **{'class': 'trouble', 'data-run': '2'})
  assert len(places) == 2
  assert all('has no checkpoint left' in text for text in places)
  none = f'{bare} holds no checkpoint: give the folder of a run that has saved '
  places = page.texts('td', **{'class': 'trouble', 'data-run': '3'})
  assert places == [f'{none}one'] * 2
  pictures = page.pictures()
  assert 'gone: test_a/00000' in pictures
  assert 'good: test_b/00002' in pictures
  assert {run: curve['y'] for run, curve in page.charts()['loss'].items()} == {
    'good': [1],
    'damaged': [2],
    'bare': [3],
  }


@pytest.mark.parametrize(
  'inside, named',
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
def test_images_of_another_folder(inside, named, plain_run, tmp_path):
  for name in inside:
    path = tmp_path / 'data' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (9, 9)).save(path)
  to = tmp_path / 'page.html'
  assert compare_runs([plain_run], to, data=tmp_path / 'data') == []
  text = to.read_text(encoding='utf-8')
  found = {
    title: re.findall(r'<bdi>(\w+\.png)</bdi>', part)
    for title, part in zip(
      re.findall('<h3>(.*?)</h3>', text), text.split('<h3>')[1:], strict=True
    )
  }
  assert found == {' → '.join(each): names for each, names in named.items()}


def test_unreadable_test_images_are_left_out(plain_run, tmp_path):
  (tmp_path / 'data').mkdir()
  for name in 'abc':
    Image.new('RGB', (9, 9)).save(tmp_path / 'data' / f'{name}.png')
  (tmp_path / 'data/a.png').write_bytes(b'no image')
  to = tmp_path / 'page.html'
  run = plain_run
  assert compare_runs([run], to, num_images=2, data=tmp_path / 'data') == []
  # Of b and c; both directions have one name for each.
  assert len(Page(to).pictures()) == 2 * 2
  for name in 'bc':
    (tmp_path / 'data' / f'{name}.png').unlink()
  with pytest.raises(DataError, match=r"a\.png can't be read: not a JPEG"):
    compare_runs([run], to, data=tmp_path / 'data')


def evaluated(
  folder, step, values, *, name='fid', digest='abc', counts=(64, 60), **facts
):
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
  used = ImagesUsed('test_a', 64, 64, '', digest, ())
  found = Evaluation(rows, {'a': used, 'b': used}, (), {'step': step, **facts})
  path = folder / 'evaluation' / f'{step}.json'
  path.parent.mkdir(exist_ok=True)
  path.write_text(json.dumps(found.to_json()))


def test_scores_of_the_last_evaluation(tmp_path):
  names = ('best', 'worse', 'lost', 'never')
  runs = [recorded(tmp_path / name, '{"step": 9, "x": 1}') for name in names]
  evaluated(runs[0], 9, (99.0, 99.0))
  evaluated(runs[0], 10, (31.5, 12.0))
  evaluated(runs[1], 8, (40.0, 10.0))
  evaluated(runs[2], 10, (math.nan, math.inf))
  (runs[0] / 'evaluation/11_other.json').write_text('of other images')
  to = tmp_path / 'page.html'
  assert compare_runs(runs, to, num_images=0) == []
  page = Page(to)
  rows = page.rows()
  beside = 'copy 80 · 64 / 60 images'
  assert rows['at step'] == ['10', '8', '10', DASH]
  assert rows['a → b fid ↓'] == [
    f'31.5 ± 0.25{beside}',
    f'40 ± 0.25{beside}',
    f'nan ± 0.25{beside}',
    DASH,
  ]
  assert page.texts('span', **{'class': 'best'}) == ['31.5 ± 0.25', '10 ± 0.25']
  assert 'comparable' not in page.text
  (runs[2] / 'evaluation/13.json').write_text('{"directions"')
  (message,) = compare_runs(runs, to, num_images=0)
  assert message.startswith(f'{runs[2]}: its last evaluation can not be read')


@pytest.mark.parametrize(
  'name, one, other, why',
  [
    ('fid', {}, {'digest': 'other'}, 'other images'),
    ('fid', {}, {'counts': (32, 60)}, 'other numbers of images'),
    (
      'fid',
      {},
      {'digest': 'other', 'counts': (32, 60)},
      'other images',
    ),
    (
      'fid',
      {'features': {'name': 'inception', 'digest': '1'}},
      {'features': {'name': 'inception', 'digest': '2'}},
      'other features',
    ),
    (
      'fid',
      {'features': {'name': 'inception', 'digest': '1'}},
      {'features': {'name': 'inception', 'digest': '2'}, 'digest': 'other'},
      'other images, other features',
    ),
    # What was not looked at with them does not depend on features or colours.
    (
      'psnr',
      {'features': {'name': 'inception', 'digest': '1'}, 'counts': (64,)},
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
def test_the_best_is_one_of_those_judged_alike(name, one, other, why, tmp_path):
  runs = [recorded(tmp_path / each, '{"step": 9, "x": 1}') for each in 'xyz']
  worse, better = (2.0, 3.0)[:: -1 if name == 'fid' else 1]
  evaluated(runs[0], 9, (better, worse), name=name, **one)
  # Better than all, if it were of the same kind.
  evaluated(
    runs[1], 9, (1.0, 1.0) if name == 'fid' else (9.0, 9.0), name=name, **other
  )
  evaluated(runs[2], 9, (worse, better), name=name, **one)
  to = tmp_path / 'page.html'
  assert compare_runs(runs, to, num_images=0) == []
  page = Page(to)
  (row,) = [
    cells for each, cells in page.rows().items() if f'a → b {name}' in each
  ]
  marked = page.texts('span', **{'class': 'best'})
  warning = 'Not all figures can be compared'
  if not why:
    assert marked == ['9 ± 0.25'] * 2
    assert warning not in page.text
    return
  assert marked == [f'{better:g} ± 0.25'] * 2
  assert [cell.endswith(f'not comparable: {why}') for cell in row] == [
    False, True, False
  ]  # fmt: skip
  assert page.texts('p', **{'class': 'trouble'})[0].startswith(warning)


def test_a_run_that_alone_was_judged_so_has_no_best(tmp_path):
  runs = [recorded(tmp_path / each, '{"step": 9, "x": 1}') for each in 'xy']
  for run in runs:
    evaluated(run, 9, (1.0, 2.0), digest=run.name)
  to = tmp_path / 'page.html'
  assert compare_runs(runs, to, num_images=0) == []
  page = Page(to)
  assert page.texts('span', **{'class': 'best'}) == []
  assert (
    page.texts('small', **{'class': 'trouble'})
    == ['not comparable: other images'] * 2
  )


def test_stripes_are_best_where_they_are_the_truth_s(tmp_path):
  runs = [recorded(tmp_path / each, '{"step": 9, "x": 1}') for each in 'xyz']
  # Too many are no better than too few; a horse has none.
  for run, values in zip(
    runs, [(1.5, 0.3), (0.8, 0.2), (0.1, 0.4)], strict=True
  ):
    evaluated(run, 9, values, name='stripes', counts=(64,))
  to = tmp_path / 'page.html'
  assert compare_runs(runs, to, num_images=0) == []
  page = Page(to)
  names = [each for each in page.rows() if 'stripes' in each]
  assert names == ['a → b stripes (best at 1)', 'b → a stripes ↓']
  assert page.texts('span', **{'class': 'best'}) == ['0.8 ± 0.25', '0.2 ± 0.25']


def test_hostile_names_and_values_stay_text(tmp_path):
  name = '</script><img src=x onerror=alert(1)> "\'&\u202e {{data}}'.replace(
    '/', ''
  )
  line = {'step': 1, '</script><script>alert(2)': 1, 'NaN\u2028': 'NaN'}
  run = recorded(tmp_path / name, json.dumps(line), 'torn', '')
  evaluated(run, 1, (1.0, 1.0), digest='<b>')
  plain = recorded(tmp_path / 'plain', '{"step": 1, "x": 2}')
  to = tmp_path / 'page.html'
  (message,) = compare_runs([run, plain], to)
  assert message.isprintable()
  page = Page(to)
  assert [tag for tag, *_ in page.elements].count('script') == 2
  assert not [attrs for tag, attrs, _ in page.elements if 'onerror' in attrs]
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
    '3',
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
  assert records.num_damaged == 6
  assert records.names == ['loss', 'lr', 'rare']
  loss = records.curves['loss']
  assert loss.steps == [1, 2, 3, 5]
  assert loss.means == [1.5, None, None, 2.5]
  assert loss.not_finite == [2, 3]
  assert loss.last == 2.5
  assert records.curves['rare'].means == [-2]
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
  # A stretch's mean is that of equal many of the values in a row.
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
  rng = np.random.default_rng(0)
  values = rng.normal(size=30_000)
  values[12_345] = 77.0
  lines = [f'{{"step": {i}, "x": {x:.6g}}}' for i, x in enumerate(values)]
  long = recorded(tmp_path / 'long', *lines)
  short = recorded(tmp_path / 'short', '{"step": 4, "x": 1}')
  to = tmp_path / 'page.html'
  compare_runs([long, short], to, num_images=0)
  curves = Page(to).charts()['x']
  assert len(curves['long']['y']) <= 512
  assert max(curves['long']['high']) == 77
  assert curves['long']['last'] == pytest.approx(values[-1], rel=1e-4)
  assert curves['short'] == {'run': 1, 'x': [4], 'y': [1], 'last': 1}
  assert to.stat().st_size < 100_000


@pytest.mark.parametrize(
  'paths, labels',
  [
    (['/r/a', '/r/b'], ['a', 'b']),
    (['/r/a/x', '/r/b/x', '/r/y'], ['a/x', 'b/x', 'y']),
    (['/p/a/m/x', '/p/b/m/x'], ['a/m/x', 'b/m/x']),
    (['/x', '/a/x'], ['/x', 'a/x']),
    (['/a/x', '/b/a/x'], ['/a/x', 'b/a/x']),
    (['/a'], ['a']),
  ],
)
def test_labels_are_as_short_as_they_can_be(paths, labels):
  assert shortest_labels([pathlib.Path(each) for each in paths]) == labels


def test_a_run_named_twice_is_taken_once(tmp_path, monkeypatch):
  recorded(tmp_path / 'run', '{"step": 1, "x": 1}')
  monkeypatch.chdir(tmp_path / 'run')
  to = tmp_path / 'page.html'
  here = pathlib.Path('.')
  compare_runs([here, tmp_path / 'run'], to, num_images=0)
  assert Page(to).texts('h1') == ['run']


def test_errors_of_the_user(tmp_path):
  run = recorded(tmp_path / 'run', '{"step": 1, "x": 1, "y": 2}')
  other, to = tmp_path / 'other', tmp_path / 'page.html'
  other.mkdir()

  def fails(kind, message, *folders, **options):
    with pytest.raises(kind) as caught:
      compare_runs(folders or [run], **{'to': to, 'num_images': 0} | options)
    assert str(caught.value) == message
    assert not to.exists()

  fails(
    WorkdirError,
    f'{other} is not a run, as it holds no config.json, metrics.jsonl or '
    'checkpoints: give the folder of a run',
    run,
    other,
  )
  fails(
    WorkdirError,
    f'{tmp_path}/none is not a folder: give the folder of a run',
    tmp_path / 'none',
  )
  fails(
    WorkdirError,
    f'{other} is a folder: give an HTML file with --to',
    to=other,
  )
  records = run / 'metrics.jsonl'
  before = records.read_bytes()
  fails(
    WorkdirError,
    f'{records} exists and was not written by this command: give another --to',
    to=records,
  )
  assert records.read_bytes() == before
  fails(
    ConfigError,
    "--metrics='z' fits no metric of these runs: they have x, y",
    metrics=re.compile('z'),
  )


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--images', '-1'], "argument --images: '-1' is not a number up to 1000"),
    (
      ['--metrics', '('],
      "argument --metrics: '(' is not a regular expression (missing ), "
      'unterminated subpattern at position 0)',
    ),
  ],
)
def test_wrong_arguments(arguments, message):
  with pytest.raises(ConfigError) as caught:
    compare.run(['run', *arguments], 'cyclegan compare')
  assert str(caught.value) == f'{message}: see cyclegan compare --help'


def test_a_folder_that_does_not_exist(plain_run, tmp_path):
  with pytest.raises(DataError) as caught:
    compare_runs([plain_run], tmp_path / 'x.html', data=tmp_path / 'no')
  assert str(caught.value) == (
    f'{tmp_path}/no does not exist: give a folder of images with --data'
  )
