"""The page of a run: what it holds, and that nothing breaks out of it."""

import json
import math
import re

import numpy as np
import pages
import pytest

from cyclegan_jax.report.metric_writer import MetricWriter
from cyclegan_jax.report.run_page import sample_path, write_run_page


def add_samples(workdir, steps):
  for step in steps:
    path = sample_path(workdir, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def write(workdir, **options):
  options = {
    'title': 'run',
    'facts': {},
    'config_text': '',
    'step': 20_000,
    'total_steps': 20_000,
  } | options
  write_run_page(workdir, **options)
  text = (workdir / 'index.html').read_text(encoding='utf-8')
  return text, pages.Page(text)


def curves(page: pages.Page) -> dict[str, dict]:
  return {
    f'{chart["name"]}/{curve["name"]}': {
      **curve,
      'x': page.data['steps'][curve['x']],
    }
    for chart in page.data['charts']
    for curve in chart['curves']
  }


def test_samples_and_curves(tmp_path):
  add_samples(tmp_path, [400, 0, 12345678901])
  (tmp_path / 'samples' / 'step_x.png').touch()
  (tmp_path / 'samples' / 'step_00000009.png.tmp').touch()
  with MetricWriter(tmp_path) as writer:
    for step in (10, 20):
      writer.scalars(
        step,
        {
          'generator/cycle_a': step / 3,
          'learning_rate': 2e-4,
          'generator/cycle_b': math.nan,
        },
      )
    writer.scalars(30, {'new/thing': 1.0})
  _, page = write(tmp_path, step=10**11)
  data = page.data
  assert data['samples'] == [
    {'step': 0, 'src': 'samples/step_00000000.png'},
    {'step': 400, 'src': 'samples/step_00000400.png'},
    {'step': 12345678901, 'src': 'samples/step_12345678901.png'},
  ]
  assert data['steps'] == [[10, 20], [30]]
  assert [chart['name'] for chart in data['charts']] == [
    'generator',
    'learning_rate',
    'new',
  ]
  shown = curves(page)
  assert shown['generator/cycle_a']['y'] == [3.3333, 6.6667]
  assert shown['generator/cycle_b']['y'] == [None, None]
  assert shown['generator/cycle_b']['not_finite'] == [10, 20]
  assert shown['learning_rate/learning_rate']['last'] == 2e-4
  assert shown['new/thing']['x'] == [30]


def test_an_empty_run(tmp_path):
  _, page = write(tmp_path, step=0)
  assert page.data == {'samples': [], 'steps': [], 'charts': [], 'changes': []}
  assert page.texts('h1') == ['run']


@pytest.mark.parametrize(
  'step, status, width, samples',
  [
    (1200, 'step 1,200 of 4,000 · 30 %', '30.00%', [100, 1200]),
    (4000, 'step 4,000 of 4,000 · finished', '100.00%', [100, 1200]),
    # Resumed at 150: the sheet of 1200 is of the run that was interrupted.
    (150, 'step 150 of 4,000 · 3 %', '3.75%', [100]),
  ],
)
def test_status(tmp_path, step, status, width, samples):
  add_samples(tmp_path, [100, 1200])
  (tmp_path / 'metrics.jsonl').write_text(
    ''.join(f'{{"step": {i}, "a": {i}}}\n' for i in (100, 1200))
  )
  _, page = write(tmp_path, step=step, total_steps=4000)
  assert status in page.texts('p')
  assert [each['step'] for each in page.data['samples']] == samples
  assert curves(page)['a/a']['x'] == samples
  assert f'width: {width}' in [e[1].get('style') for e in page.elements]


def test_text_is_escaped(tmp_path):
  evil = '</script></pre><script>alert("1")</script>&amp;{{data}}\'"<!--'
  (tmp_path / 'metrics.jsonl').write_text(
    json.dumps({'step': 1, f'{evil}/{evil}': 1.0, 'plain': 2.0}) + '\n'
  )
  add_samples(tmp_path, [1])
  _, page = write(
    tmp_path, title=evil, facts={evil: evil + '2'}, config_text=evil + '\n  3'
  )
  assert len(page.texts('script')) == 2  # the data and the page's own
  assert page.texts('h1') == page.texts('title') == [evil]
  assert page.texts('th') == [evil]
  assert page.texts('td') == [evil + '2']
  assert [each.strip('\n') for each in page.texts('pre')] == [evil + '\n  3']
  prefix, _, rest = f'{evil}/{evil}'.partition('/')
  assert list(curves(page)) == [f'{prefix}/{rest}', 'plain/plain']


def test_the_page_loads_nothing_but_its_samples(tmp_path):
  add_samples(tmp_path, [7])
  text, page = write(tmp_path)
  namespace = 'http://www.w3.org/2000/svg'  # a name, which is never fetched
  # An address in url(#...) is a part of the page itself.
  assert not re.search(
    r'https?:|//\w|url\((?!#)|@import', text.replace(namespace, '')
  )
  assert not re.search(r'\bfetch\(|XMLHttpRequest|import\(', text)
  addresses = [
    attrs[name]
    for _, attrs, _ in page.elements
    for name in ('src', 'href')
    if name in attrs
  ]
  addresses += [each['src'] for each in page.data['samples']]
  assert addresses  # the script's sheets, and the last one without scripts
  assert all((tmp_path / address).is_file() for address in addresses)
  assert not [tag for tag, _, _ in page.elements if tag in ('link', 'base')]


def test_long_curves_are_thinned_but_keep_peaks_and_ends(tmp_path):
  values = np.sin(np.arange(20_000) / 300).round(3).tolist()
  values[7_777] = 50.0
  values[9_001] = -50.0
  values[15_000] = 'NaN'
  with (tmp_path / 'metrics.jsonl').open('w') as file:
    for step, value in enumerate(values, start=1):
      record = {'step': step, 'a': value, 'b/c': 1.0}
      if step <= 500:
        record['short'] = step
      file.write(json.dumps(record) + '\n')
  text, page = write(tmp_path)
  assert curves(page)['short/short']['x'] == list(range(1, 501))
  curve = curves(page)['a/a']
  assert 256 <= len(curve['x']) == len(curve['y']) <= 512
  assert curve['x'] == sorted(curve['x'])
  assert max(curve['high']) == 50.0
  assert min(curve['low']) == -50.0
  near = [i for i, x in enumerate(curve['x']) if abs(x - 7_778) < 100]
  assert 50.0 in [curve['high'][i] for i in near]
  assert curve['not_finite'] == [15_001]
  assert curve['last'] == values[-1]
  assert len(text) < 90_000


def test_the_page_is_replaced(tmp_path):
  write(tmp_path, title='before')
  _, page = write(tmp_path, title='after')
  assert page.texts('h1') == ['after']
  assert [each.name for each in tmp_path.iterdir()] == ['index.html']


def test_damaged_lines_are_counted(tmp_path):
  lines = ['{"step": 10, "a": 1}', 'oops', '[1]', '{"step": 20, "a": 2}', '']
  (tmp_path / 'metrics.jsonl').write_text('\n'.join(lines))
  _, page = write(tmp_path, step=20, total_steps=40)
  assert any('2 lines' in each for each in page.texts('p'))
  assert curves(page)['a/a']['y'] == [1, 2]


def test_changes_of_the_config_are_listed(tmp_path):
  history = [{'step': 1_300, 'changes': {'config.batch_size': [4, 8]}}]
  write_run_page(
    tmp_path,
    title='run',
    facts={},
    history=history,
    config_text='',
    step=1_400,
    total_steps=1_400,
  )
  text = (tmp_path / 'index.html').read_text(encoding='utf-8')
  assert 'changed at step 1,300</th>' in text
  assert '"changes":[{"step":1300,"text":"config.batch_size 4 -> 8"}]' in text
