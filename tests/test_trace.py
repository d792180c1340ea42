"""A profiler's trace of a run."""

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


def traced_steps(workdir):
  (path,) = workdir.glob('profile/plugins/profile/*/perfetto_trace.json.gz')
  events = json.loads(gzip.decompress(path.read_bytes()))['traceEvents']
  return {
    int(event['args']['step_num'])
    for event in events
    if event.get('name') == 'step'
  }


@pytest.mark.slow
def test_a_trace_does_not_change_a_run(config, tmp_path):
  plain = train(config, tmp_path / 'plain').state
  traced = train(config.replace(profile=True), tmp_path / 'traced').state
  for one, other in zip(*map(jax.tree.leaves, (plain, traced)), strict=True):
    if jax.dtypes.issubdtype(one.dtype, jax.dtypes.prng_key):
      one, other = map(jax.random.key_data, (one, other))
    np.testing.assert_array_equal(one, other)
  assert not (tmp_path / 'plain' / 'profile').exists()
  assert traced_steps(tmp_path / 'traced') == {6, 7, 8, 9, 10}


@pytest.mark.parametrize('start, end', [(7, 8), (0, 3), (0, 30)])
def test_any_number_of_steps_can_be_traced(tmp_path, start, end):
  messages = []
  with StepTrace(tmp_path, start, end, report=messages.append) as trace:
    for step in range(start, end):
      trace.before_step(step, None)
  (text,) = messages
  assert str(tmp_path) in text


def test_a_trace_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  messages = []
  with StepTrace(tmp_path / 'file', 0, 9, report=messages.append) as trace:
    for step in range(9):
      trace.before_step(step, None)
  (text,) = messages
  assert text.startswith(f'{tmp_path}/file: ')


def test_one_trace_at_a_time(tmp_path):
  messages = []
  with (
    StepTrace(tmp_path / '1', 0, 1, report=messages.append) as first,
    StepTrace(tmp_path / '2', 0, 1, report=messages.append) as second,
  ):
    first.before_step(0, None)
    second.before_step(0, None)
  assert messages[0].startswith(f'{tmp_path}/2: ')
  assert messages[1].endswith(f'{tmp_path}/1')
