"""Two processes on this machine come to what one comes to."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from cyclegan_jax.report.metric_writer import read_metrics
from cyclegan_jax.storage import checkpoint

pytestmark = [
  pytest.mark.process,
  pytest.mark.skipif(
    jax.__version_info__ < (0, 10),
    reason='several processes need a newer JAX',
  ),
]
ROOT = pathlib.Path(__file__).parent.parent
SECONDS = 240


def start(workdir, *options, devices=1):
  command = [
    sys.executable,
    'main.py',
    '--config=configs/tiny.py',
    '--config.num_devices=0',
    f'--workdir={workdir}',
    *options,
  ]
  return subprocess.Popen(
    command,
    cwd=ROOT,
    env=os.environ | {'JAX_NUM_CPU_DEVICES': str(devices)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def start_two(workdir, *options, of_second=()):
  """The processes; the second has no business in any folder."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  return [
    start(
      folder,
      '--config.distributed.initialize=True',
      f'--config.distributed.coordinator_address=localhost:{port}',
      '--config.distributed.num_processes=2',
      f'--config.distributed.process_id={index}',
      *options,
      *(of_second if index else ()),
    )
    for index, folder in enumerate([workdir, workdir.parent / 'nowhere'])
  ]


def end(processes):
  """Their outputs and their exit statuses."""
  try:
    outputs = [each.communicate(timeout=SECONDS)[0] for each in processes]
  finally:
    for each in processes:
      each.kill()
  return outputs, [each.returncode for each in processes]


def assert_same(one, other, *, steps):
  one_records, other_records = (
    read_metrics(folder / 'metrics.jsonl') for folder in (one, other)
  )
  assert [r['step'] for r in one_records] == [r['step'] for r in other_records]
  assert one_records[-1]['step'] == steps
  for x, y in zip(one_records, other_records, strict=True):
    assert x.keys() == y.keys()
    for name, value in x.items():
      assert value == pytest.approx(y[name], rel=1e-4, abs=1e-6), name
  names = sorted(path.name for path in (one / 'samples').iterdir())
  assert names == sorted(path.name for path in (other / 'samples').iterdir())
  states = [
    checkpoint.load(folder / 'checkpoints' / str(steps)).state
    for folder in (one, other)
  ]
  for x, y in zip(*(jax.tree.leaves(each.gen) for each in states), strict=True):
    np.testing.assert_allclose(x, y, atol=1e-5)


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  """One process with two devices."""
  workdir = tmp_path_factory.mktemp('hosts') / 'alone'
  (output,), (status,) = end([start(workdir, devices=2)])
  assert status == 0, output
  return workdir


def test_two_processes_are_as_one(alone, tmp_path):
  (first, second), statuses = end(start_two(tmp_path / 'run'))
  assert statuses == [0, 0], first + second
  assert_same(tmp_path / 'run', alone, steps=8)
  assert '2 x cpu in 2 processes' in first
  assert 'trained 8 steps' in first
  assert 'training images' not in second
  assert [path.name for path in tmp_path.iterdir()] == ['run']
  # What differs between the processes is not what a run is.
  config = json.loads((tmp_path / 'run' / 'config.json').read_text())
  assert config['distributed'] == {
    'initialize': False,
    'coordinator_address': '',
    'num_processes': 0,
    'process_id': -1,
  }


def test_the_first_alone_reads_what_they_begin_with(alone, tmp_path):
  options = ['--config.steps=2', '--config.warmup_steps=1', '--config.seed=1']
  given = f'--config.init_from={alone}'
  processes = start_two(
    tmp_path / 'two',
    *options,
    given,
    of_second=['--config.init_from=/nowhere'],
  )
  processes.append(start(tmp_path / 'one', *options, given, devices=2))
  outputs, statuses = end(processes)
  assert statuses == [0, 0, 0], ''.join(outputs)
  assert f'the networks of {alone}' in outputs[0]
  assert 'networks' not in outputs[1]
  assert_same(tmp_path / 'two', tmp_path / 'one', steps=2)


@pytest.mark.parametrize('told', [0, 1])
def test_a_signal_to_either_stops_both_and_both_go_on(alone, tmp_path, told):
  workdir = tmp_path / 'run'
  options = ['--config.steps=100000', '--config.checkpoint.every_steps=4']
  options += ['--config.log.samples_every_steps=4', '--config.epochs=1']
  processes = start_two(workdir, *options)
  metrics = workdir / 'metrics.jsonl'
  began = time.monotonic()
  while not (metrics.exists() and metrics.stat().st_size):
    assert time.monotonic() - began < SECONDS
    assert all(each.poll() is None for each in processes)
    time.sleep(0.05)
  processes[told].send_signal(signal.SIGTERM)
  outputs, statuses = end(processes)
  assert statuses == [128 + signal.SIGTERM] * 2, ''.join(outputs)
  stopped = checkpoint.list_steps(workdir / 'checkpoints')[-1]
  assert f'stopped and saved at step {stopped:,} of 100,000' in outputs[0]
  outputs, statuses = end(
    start_two(workdir, *options, f'--config.steps={stopped + 3}')
  )
  assert statuses == [0, 0], ''.join(outputs)
  assert f'resuming from step {stopped:,}' in outputs[0]
  assert checkpoint.list_steps(workdir / 'checkpoints')[-1] == stopped + 3


def test_the_others_end_with_the_first(tmp_path):
  processes = start_two(tmp_path / 'run', '--config.steps=100000')
  metrics = tmp_path / 'run' / 'metrics.jsonl'
  began = time.monotonic()
  while not (metrics.exists() and metrics.stat().st_size):
    assert time.monotonic() - began < SECONDS
    time.sleep(0.05)
  processes[0].kill()
  _, (_, status) = end(processes)
  assert status != 0


def test_other_images_are_an_error(tmp_path):
  first, second = start_two(
    tmp_path / 'run', of_second=['--config.data.num_train=6']
  )
  output, _ = second.communicate(timeout=SECONDS)
  first.kill()  # else it ends when JAX misses the other, in 100 seconds
  first.communicate()
  assert second.returncode == 1
  assert 'process 1 has other images than the first: give all' in output


def test_without_a_workdir():
  process = subprocess.run(
    [
      sys.executable,
      'main.py',
      '--config=configs/tiny.py',
      '--config.distributed.initialize=True',
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert process.returncode == 2
  assert (
    process.stderr.strip()
    .splitlines()[-1]
    .endswith(
      'config.distributed.initialize=True needs --workdir: all processes of a '
      'run share one'
    )
  )
