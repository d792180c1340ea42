"""What a run records and prints, and when."""

import io
import math

import jax
import numpy as np
import pytest
import rich.console

from cyclegan_jax.config import Config
from cyclegan_jax.data.loader import TrainBatches, sample_images
from cyclegan_jax.data.sources import open_images
from cyclegan_jax.report.diagnostics import CHECKS
from cyclegan_jax.report.metric_writer import read_metrics
from cyclegan_jax.report.run_log import RunLog
from cyclegan_jax.state import create_train_state
from cyclegan_jax.training import preflight
from cyclegan_jax.training.compiled_step import compile_step

LOSSES = {
  'generator/loss': np.float32(1),
  'discriminator/a': np.float32(1),
  'discriminator/b': np.float32(1),
}
BAD = LOSSES | {'diagnostics/luminance_ab': -0.9}


@pytest.fixture
def config(tiny_config):
  return tiny_config.replace(steps=100, log={'samples_every_steps': 10})


@pytest.fixture
def gen(config):
  return create_train_state(config, jax.random.key(0)).gen


@pytest.fixture
def make_run_log(tmp_path):
  """Logs of one folder; `run_log.lines()` gives the lines they print."""

  def make(config, start_step=0, reals=None):
    console = rich.console.Console(file=io.StringIO())
    if reals is None:
      rng = np.random.default_rng(0)
      reals = {d: rng.integers(0, 256, (2, 16, 16, 3), np.uint8) for d in 'ab'}
    run_log = RunLog(
      tmp_path,
      config,
      facts={},
      reals=reals,
      start_step=start_step,
      console=console,
    )
    run_log.lines = lambda: console.file.getvalue().splitlines()
    return run_log

  return make


def recorded_steps(workdir):
  return [each['step'] for each in read_metrics(workdir / 'metrics.jsonl')]


def diagnostics_lines(run_log):
  return [line for line in run_log.lines() if line.startswith('diagnostics: ')]


def train(config, run_log, sources):
  """A short training with its log; returns the records."""
  state = create_train_state(config, jax.random.key(config.seed))
  update = compile_step(config, state)
  with run_log, TrainBatches(config, sources) as batches:
    run_log.add_samples(0, state.translators)
    for step in range(1, config.steps + 1):
      run_log.flush()  # before the generators are donated
      outcome = update.run(state, next(batches))
      state = outcome.state
      if step % config.log.samples_every_steps == 0:
        run_log.add_samples(step, state.translators)
      run_log.add_step(step, outcome.metrics)
  return read_metrics(run_log._workdir / 'metrics.jsonl')


def small_recipe(size, **changes):
  """The default recipe at a size for tests, with its images."""
  config = (
    Config()
    .replace(
      steps=60,
      num_devices=1,
      data={
        'num_train': 48,
        'num_test': 4,
        'size': size,
        'load_size': size,
        'num_workers': 0,
      },
      generator={'filters': 4, 'isize': size},
      discriminator={'filters': 4, 'layers': 1},
      log={'num_samples': 4, 'metrics_every_steps': 2},
    )
    .replace(**changes)
  )
  sources = open_images(config.data)
  config = preflight.resolve(config, sources, saved=None)
  return config, sources, sample_images(config, sources)


@pytest.mark.slow
def test_a_healthy_run_has_no_warnings(make_run_log, tmp_path):
  config, sources, reals = small_recipe(16)
  run_log = make_run_log(config, reals=reals)
  records = train(config, run_log, sources)
  metrics = {name for record in records for name in record}
  for name in CHECKS.keys() - {'not_finite'}:
    places = ('a', 'b') if name == 'near_zero' else ('ab', 'ba')
    assert {f'diagnostics/{name}_{place}' for place in places} <= metrics
  assert diagnostics_lines(run_log) == []
  assert 'no problems found' in (tmp_path / 'index.html').read_text()
  steps = [record['step'] for record in records]
  assert steps == sorted(set(steps))  # checks and losses share a line


# Generators that hardly learn, against discriminators that do.
UNEVEN = {
  'discriminator': {'norm': 'none'},
  'optimizer': {'learning_rate': 1e-6, 'disc_learning_rate_ratio': 1e4},
}


@pytest.mark.slow
def test_discriminators_may_win_in_a_warm_up(make_run_log):
  config, sources, reals = small_recipe(8, **UNEVEN, warmup_steps=59)
  run_log = make_run_log(config, reals=reals)
  records = train(config, run_log, sources)
  assert diagnostics_lines(run_log) == []
  limit = 0.05 * 2 * math.log(2)
  late = [each for each in records if each['step'] >= 40]
  assert all(each[f'discriminator/{d}'] < limit for each in late for d in 'ab')
  assert not any('near_zero' in name for each in records for name in each)


@pytest.mark.slow
def test_discriminators_that_win_a_run(make_run_log, tmp_path):
  config, sources, reals = small_recipe(8, **UNEVEN)
  run_log = make_run_log(config, reals=reals)
  records = train(config, run_log, sources)
  lines = [line for line in diagnostics_lines(run_log) if 'near zero' in line]
  assert len(lines) == 2  # once for each discriminator
  page = (tmp_path / 'index.html').read_text()
  for line in lines:
    assert 'config.optimizer.disc_learning_rate_ratio' in line
    assert line.removeprefix('diagnostics: ') in page
  assert records[-1]['diagnostics/near_zero_a'] == 1

  # A resumed run knows these warnings and does not repeat them.
  again = make_run_log(config, config.steps, reals)
  with again:
    again.update_page(config.steps)
    again.flush()
    page = (tmp_path / 'index.html').read_text()
    assert all(line.removeprefix('diagnostics: ') in page for line in lines)
    records[-1].pop('step')
    again.add_step(config.steps + 1, records[-1])
  assert diagnostics_lines(again) == []


@pytest.mark.parametrize('enabled', [True, False])
def test_checks_are_measured_at_their_own_times(
  config, make_run_log, gen, tmp_path, enabled
):
  """Step 0 and the end of a part leave no record that a whole run lacks."""
  config = config.replace(
    log={'metrics_every_steps': 1000}, diagnostics={'enabled': enabled}
  )
  with make_run_log(config) as run_log:
    run_log.add_samples(0, gen)
    for step in (25, 30):
      run_log.add_samples(step, gen)
      run_log.add_step(step, LOSSES)
  assert recorded_steps(tmp_path) == ([30] if enabled else [])


def test_checks_are_recorded_at_any_step(config, make_run_log, gen, tmp_path):
  config = config.replace(
    log={'samples_every_steps': 15, 'metrics_every_steps': 10}
  )
  with make_run_log(config) as run_log:
    for step in range(1, 46):
      if step % 15 == 0:
        run_log.add_samples(step, gen)
      run_log.add_step(step, LOSSES)
  records = read_metrics(tmp_path / 'metrics.jsonl')
  assert [each['step'] for each in records] == [10, 15, 20, 30, 40, 45]
  assert all('generator/loss' in record for record in records)


def test_rewinding_forgets_measurements_but_not_warnings(config, make_run_log):
  with make_run_log(config) as run_log:
    run_log.add_step(10, BAD)
    run_log.add_step(20, BAD)
    run_log.rewind(10)
    run_log.add_step(20, BAD)
    run_log.flush()
    assert diagnostics_lines(run_log) == []
    run_log.add_step(30, BAD)
    run_log.rewind(0)
    for step in (10, 20, 30):
      run_log.add_step(step, BAD)
  assert len(diagnostics_lines(run_log)) == 1


def test_skipped_steps(config, make_run_log, tmp_path):
  with make_run_log(config) as run_log:
    run_log.add_skipped_step(3)
    run_log.add_skipped_step(7)
  (line,) = run_log.lines()
  assert 'config.optimizer.learning_rate' in line
  assert line.endswith('(step 3)')
  assert read_metrics(tmp_path / 'metrics.jsonl') == [
    {'step': 3, 'diagnostics/not_finite': 1.0},
    {'step': 7, 'diagnostics/not_finite': 1.0},
  ]


def test_nothing_is_compiled_after_the_first_samples(config, make_run_log, gen):
  """Wherever training has put the generators."""
  events = []
  # It stays registered, since not every JAX can remove it.
  jax.monitoring.register_event_duration_secs_listener(
    lambda name, *_, **__: events.append(name)
  )

  def compilations():
    return [name for name in events if 'backend_compile' in name]

  with make_run_log(config) as run_log:
    run_log.add_samples(0, gen)
    run_log.flush()
    events.clear()
    run_log.add_samples(10, jax.device_put(gen, jax.devices()[-1]))
    run_log.flush()
    assert compilations() == []
    jax.jit(lambda x: x + 41)(1)  # is counted
    assert compilations() != []


def test_a_disk_that_refuses_does_not_end_a_run(
  config, make_run_log, gen, tmp_path
):
  (tmp_path / 'samples').write_text('a file where a folder should be')
  with make_run_log(config) as run_log:
    run_log.add_samples(10, gen)
    run_log.add_samples(20, gen)
    run_log.flush()
    (tmp_path / 'samples').unlink()
    run_log.add_samples(30, gen)
    run_log.flush()
    assert (tmp_path / 'samples' / 'step_00000030.png').exists()
  (line,) = run_log.lines()
  assert line.startswith('the sample sheet could not be written (')


def test_waiting_for_data_is_reported_if_it_is_long(config, make_run_log):
  with make_run_log(config) as run_log:
    run_log.add_wait(0.0)
    assert run_log.lines() == []
    run_log.add_wait(5.0)
  (line,) = run_log.lines()
  assert line.endswith('(5.0 s)')
