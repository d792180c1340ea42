"""n + k steps equal n steps, a stop, a new process and k steps."""

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


def command(workdir, *options):
  return [
    sys.executable,
    'main.py',
    '--config=configs/tiny.py',
    '--config.ema_decay=0.9',
    f'--workdir={workdir}',
    *options,
  ]


def run(workdir, *options):
  return subprocess.run(
    command(workdir, *options), cwd=ROOT, capture_output=True, text=True
  )


def records(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


@pytest.fixture(scope='module')
def straight(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('runs') / 'straight'
  done = run(workdir)
  assert done.returncode == 0, done.stderr
  return workdir


def assert_same_end(one, other):
  one, other = checkpoint.load(one).state, checkpoint.load(other).state

  def check(x, y):
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
      x, y = jax.random.key_data(x), jax.random.key_data(y)
    np.testing.assert_array_equal(x, y)

  assert int(one.step) == 8
  jax.tree.map(check, one, other)


def test_stopped_by_steps_and_gone_on_with(straight, tmp_path):
  workdir = tmp_path / 'run'
  first = run(workdir, '--config.steps=5')
  assert first.returncode == 0, first.stderr
  second = run(workdir)
  assert second.returncode == 0, second.stderr
  assert 'resuming from step 5' in second.stderr
  assert_same_end(workdir, straight)
  assert records(workdir) == records(straight)
  assert scalars(workdir) == scalars(straight)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal_and_gone_on_with(number, straight, tmp_path):
  workdir = tmp_path / 'run'
  # Long enough to be still at it when the signal comes.
  process = subprocess.Popen(
    command(workdir, '--config.steps=100000'),
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  deadline = time.monotonic() + 300
  while not list(workdir.glob('samples/step_00000000.png')):
    assert process.poll() is None, process.stderr.read()
    assert time.monotonic() < deadline, 'the first samples never came'
    time.sleep(0.2)
  os.kill(process.pid, number)
  out, error = process.communicate(timeout=120)
  assert process.returncode == 128 + number, error
  assert f'{number.name}: stopped and saved at step ' in out
  assert f'--workdir={workdir}' in out.splitlines()[-1]
  stopped_at = int(checkpoint.load(workdir).state.step)
  assert not error.count('Traceback'), error
  if stopped_at < 8:
    second = run(workdir)
    assert second.returncode == 0, second.stderr
    assert_same_end(workdir, straight)


def test_a_finished_run_says_so_and_changes_nothing(straight):
  before = records(straight)
  again = run(straight)
  assert again.returncode == 0, again.stderr
  assert 'already has all of its 8 steps' in again.stdout
  assert records(straight) == before


def scalars(workdir):
  """(step, name, value) of all that TensorBoard has to read."""
  from tensorboardX.proto.event_pb2 import Event

  found = []
  for path in sorted((workdir / 'tensorboard').iterdir()):
    data = path.read_bytes()
    while data:
      size = int.from_bytes(data[:8], 'little')
      event = Event.FromString(data[12 : 12 + size])
      data = data[16 + size :]
      found += [
        (event.step, value.tag, value.simple_value)
        for value in event.summary.value
        if value.HasField('simple_value')
      ]
  return found


@pytest.fixture
def float64():
  # In float32 rounding alone would differ, which Adam blows up where a
  # gradient is zero but for it. For all threads: one of them compiles.
  jax.config.update('jax_enable_x64', True)
  yield
  jax.config.update('jax_enable_x64', False)


@pytest.mark.parametrize('devices', [(1, 4), (4, 2)])
def test_on_another_number_of_devices(devices, load_preset, tmp_path, float64):
  config = load_preset('tiny').replace(
    batch_size=4,
    steps=6,
    ema_decay=0.9,
    num_devices=1,
    generator={'dtype': 'float64'},
    discriminator={'dtype': 'float64'},
  )
  expected = train(config, tmp_path / 'one')
  first, second = devices
  train(config.replace(num_devices=first, steps=3), tmp_path / 'two')
  result = train(config.replace(num_devices=second), tmp_path / 'two')
  assert result.start_step == 3

  def check(x, y):
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
      x, y = jax.random.key_data(x), jax.random.key_data(y)
    np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)

  jax.tree.map(check, result.state, expected.state)
  # The same fakes in the same places: another query would be far away.
  for domain in 'ab':
    pool = result.state.pools[domain]
    assert int(pool.count) == 3
    np.testing.assert_allclose(
      pool.images, expected.state.pools[domain].images, atol=1e-5
    )
  for one, other in zip(
    records(tmp_path / 'one'), records(tmp_path / 'two'), strict=True
  ):
    assert one == pytest.approx(other, rel=1e-4, abs=1e-5)


def test_the_same_config_gives_the_same_bits(straight, tmp_path):
  """With other threads, and while it says all it can."""
  done = run(
    tmp_path / 'run',
    '--config.data.num_workers=8',
    '--config.data.prefetch_batches=1',
    '--config.checkpoint.every_steps=1',
  )
  assert done.returncode == 0, done.stderr
  assert_same_end(tmp_path / 'run', straight)
  assert records(tmp_path / 'run') == records(straight)
