"""A profiler's trace of a run, and what it must not disturb."""

import gzip
import json

import jax
import numpy as np
import pytest

from cyclegan_jax.report.trace import StepTrace
from cyclegan_jax.training.train import train


@pytest.fixture
def config(load_preset):
  return load_preset('tiny').replace(steps=12, num_devices=1)


def events(workdir):
  (path,) = workdir.glob('profile/plugins/profile/*/perfetto_trace.json.gz')
  return json.loads(gzip.decompress(path.read_bytes()))['traceEvents']


def test_a_run_is_the_same_with_a_trace(config, tmp_path, capsys):
  plain = train(config, tmp_path / 'plain').state
  traced = train(config.replace(profile=True), tmp_path / 'traced').state
  for first, second in zip(*map(jax.tree.leaves, (plain, traced)), strict=True):
    if jax.dtypes.issubdtype(first.dtype, jax.dtypes.prng_key):
      first, second = map(jax.random.key_data, (first, second))
    np.testing.assert_array_equal(first, second)
  assert not (tmp_path / 'plain' / 'profile').exists()
  assert 'a trace from step 6 is in' in capsys.readouterr().err
  steps = {
    int(each['args']['step_num'])
    for each in events(tmp_path / 'traced')
    if each.get('name') == 'step'
  }
  assert steps == {6, 7, 8, 9, 10}


@pytest.mark.parametrize('start, end', [(0, 1), (7, 8), (0, 3), (0, 30)])
def test_steps_however_few(tmp_path, start, end):
  said = []
  with StepTrace(tmp_path, start, end, say=said.append) as trace:
    for done in range(start, end):
      trace.step(done, None)
  assert len(said) == 1


def test_a_trace_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  said = []
  with StepTrace(tmp_path / 'file', 0, 9, say=said.append) as trace:
    for done in range(9):
      trace.step(done, None)
  assert len(said) == 1
  assert said[0].startswith(f'no trace: {tmp_path}/file: ')


def test_one_trace_at_a_time(tmp_path):
  said = []
  with (
    StepTrace(tmp_path / '1', 0, 1, say=said.append) as first,
    StepTrace(tmp_path / '2', 0, 1, say=said.append) as second,
  ):
    first.step(0, None)
    second.step(0, None)
  assert said[0].startswith(f'no trace: {tmp_path}/2: ')
  assert said[1] == f'a trace from step 1 is in {tmp_path}/1'
