"""n + k steps equal n steps, a stop, and k more steps."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from cyclegan_jax.storage import checkpoint
from cyclegan_jax.training.train import train

ROOT = pathlib.Path(__file__).parent.parent


def arrays(state):
  for leaf in jax.tree.leaves(state):
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      leaf = jax.random.key_data(leaf)
    yield np.asarray(leaf)


def records(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def scalars(workdir):
  """(step, name, value) of all TensorBoard events of a run."""
  from tensorboardX.proto.event_pb2 import Event

  values = []
  for path in sorted((workdir / 'tensorboard').iterdir()):
    data = path.read_bytes()
    while data:
      size = int.from_bytes(data[:8], 'little')
      event = Event.FromString(data[12 : 12 + size])
      data = data[16 + size :]
      values += [
        (event.step, value.tag, value.simple_value)
        for value in event.summary.value
        if value.HasField('simple_value')
      ]
  return values


def assert_same_run(workdir, straight):
  state, expected = (
    checkpoint.load(folder).state for folder in (workdir, straight)
  )
  assert int(state.step) == 8
  for one, other in zip(arrays(state), arrays(expected), strict=True):
    np.testing.assert_array_equal(one, other)
  assert records(workdir) == records(straight)
  assert scalars(workdir) == scalars(straight)


def test_resumed_after_fewer_steps(trained_run, load_preset, tmp_path):
  config = load_preset('tiny')
  train(config.replace(steps=5), tmp_path)
  assert train(config, tmp_path).start_step == 5
  assert_same_run(tmp_path, trained_run)


@pytest.mark.slow
def test_threads_and_checkpoints_change_nothing(
  trained_run, load_preset, tmp_path
):
  config = load_preset('tiny').replace(
    data={'num_workers': 8, 'prefetch_batches': 1},
    checkpoint={'every_steps': 1},
  )
  train(config, tmp_path)
  assert_same_run(tmp_path, trained_run)


@pytest.mark.process
@pytest.mark.usefixtures('hangup')
@pytest.mark.parametrize(
  'number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
)
def test_resumed_after_a_signal(number, trained_run, load_preset, tmp_path):
  workdir = tmp_path / 'run'
  # Long enough to be still at it when the signal comes.
  process = subprocess.Popen(
    [
      sys.executable,
      'main.py',
      '--config=configs/tiny.py',
      '--config.steps=100000',
      f'--workdir={workdir}',
    ],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  deadline = time.monotonic() + 300
  while not list(workdir.glob('samples/step_00000000.png')):
    assert process.poll() is None, process.stderr.read()
    assert time.monotonic() < deadline, 'the first samples never came'
    time.sleep(0.05)
  os.kill(process.pid, number)
  out, error = process.communicate(timeout=120)
  assert process.returncode == 128 + number, error
  assert 'Traceback' not in error
  assert number.name in out
  assert f'--workdir={workdir}' in out.splitlines()[-1]
  if int(checkpoint.load(workdir).state.step) <= 8:
    train(load_preset('tiny'), workdir)
    assert_same_run(workdir, trained_run)


@pytest.fixture
def float64():
  # In float32 rounding alone would differ, which Adam blows up where a
  # gradient is zero but for it. For all threads: one of them compiles.
  jax.config.update('jax_enable_x64', True)
  yield
  jax.config.update('jax_enable_x64', False)


@pytest.mark.slow
@pytest.mark.usefixtures('float64')
def test_resumed_on_another_number_of_devices(load_preset, tmp_path):
  config = load_preset('tiny').replace(
    batch_size=4,
    steps=6,
    num_devices=1,
    generator={'dtype': 'float64'},
    discriminator={'dtype': 'float64'},
  )
  expected = train(config, tmp_path / 'one')
  train(config.replace(num_devices=4, steps=3), tmp_path / 'two')
  result = train(config.replace(num_devices=2), tmp_path / 'two')
  assert result.start_step == 3
  # The pools are compared too: another query would swap other images.
  assert int(result.state.pools['a'].count) == 3
  for one, other in zip(
    arrays(result.state), arrays(expected.state), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
  for one, other in zip(
    records(tmp_path / 'one'), records(tmp_path / 'two'), strict=True
  ):
    assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
