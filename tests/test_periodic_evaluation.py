"""Evaluations during training."""

import json
import os
import signal
import time

import jax
import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.config import Config
from cyclegan_jax.data.sources import open_images
from cyclegan_jax.evaluation import image_set
from cyclegan_jax.evaluation.evaluator import Evaluator
from cyclegan_jax.report.metric_writer import read_metrics
from cyclegan_jax.signals import StopSignal
from cyclegan_jax.state import create_train_state
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.training import periodic_evaluation
from cyclegan_jax.training.periodic_evaluation import PeriodicEvaluation
from cyclegan_jax.training.train import train

CONFIG = Config().replace(
  batch_size=2,
  steps=8,
  pool_size=3,
  num_devices=1,
  data={
    'num_train': 5,
    'num_test': 3,
    'size': 16,
    'load_size': 16,
    'num_workers': 0,
  },
  generator={'filters': 2, 'isize': 4, 'fixed_input_size': False},
  discriminator={'name': 'pixelgan', 'filters': 2},
  evaluation={'every_steps': 3, 'features': 'none'},
  checkpoint={'best_metric': 'evaluation/ab/l1', 'keep': 1, 'every_steps': 4},
  log={'num_samples': 2},
)


@pytest.fixture(scope='module')
def straight(tmp_path_factory):
  """A run without interruptions."""
  workdir = tmp_path_factory.mktemp('runs') / 'straight'
  train(CONFIG, workdir)
  return workdir


def evaluated_records(workdir):
  return {
    record['step']: record
    for record in read_metrics(workdir / 'metrics.jsonl')
    if 'evaluation/ab/l1' in record
  }


def saved_steps(workdir):
  return checkpoint.list_steps(workdir / 'checkpoints')


@pytest.mark.slow
def test_a_run_is_evaluated(straight):
  records = evaluated_records(straight)
  assert sorted(records) == [3, 6, 8]
  # Scores and losses of a step are in one record.
  assert all('generator/loss' in record for record in records.values())
  best = min(records, key=lambda step: records[step]['evaluation/ab/l1'])
  assert saved_steps(straight) == sorted({best, 8})
  saved = checkpoint.load(straight / 'checkpoints' / str(best))
  assert saved.metrics['evaluation/ab/l1'] == records[best]['evaluation/ab/l1']
  # They equal those of `cyclegan evaluate` on that checkpoint.
  images = open_images(saved.config.data)
  again = Evaluator(saved.config, images)(saved.state.translators).metrics()
  assert {name: records[best][name] for name in again} == again
  for step in (3, 6, 8):
    content = json.loads((straight / f'evaluation/{step}.json').read_text())
    assert content['step'] == step
  text = (straight / 'evaluation.md').read_text()
  assert text.startswith('# Evaluation at step 8\n')
  history = text.split('## All steps\n\n')[1].splitlines()
  steps = [line.split('|')[1].strip() for line in history]
  assert steps == ['step', '----', '3', '6', '8']


def assert_same_run(one, other):
  for name in ('metrics.jsonl', 'evaluation.md', 'evaluation/6.json'):
    assert (one / name).read_text() == (other / name).read_text()
  assert saved_steps(one) == saved_steps(other)
  for step in saved_steps(one):
    x, y = (
      checkpoint.load(run / 'checkpoints' / str(step)) for run in (one, other)
    )
    assert x.metrics == y.metrics
    jax.tree.map(np.testing.assert_array_equal, x.state.gen, y.state.gen)


@pytest.mark.slow
def test_a_resumed_run_has_the_same_records(straight, tmp_path):
  workdir = tmp_path / 'run'
  # The first run evaluates its last step, 6, and so does the second.
  train(CONFIG.replace(steps=6, checkpoint={'keep': 3}), workdir)
  train(CONFIG, workdir)
  assert_same_run(workdir, straight)


def interrupt_evaluations(patch, is_time=lambda: True):
  class Interrupted(Evaluator):
    def __call__(self, gen):
      if is_time():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)  # the run does not wait for it
      return super().__call__(gen)

  patch.setattr(periodic_evaluation, 'Evaluator', Interrupted)


@pytest.mark.slow
def test_a_signal_during_an_evaluation(straight, tmp_path, monkeypatch):
  workdir = tmp_path / 'run'
  with monkeypatch.context() as patch:
    interrupt_evaluations(patch)
    stopped = train(CONFIG, workdir)
  assert stopped.signal == signal.SIGTERM
  assert int(stopped.state.step) == 3
  assert not evaluated_records(workdir)
  saved = checkpoint.load(workdir / 'checkpoints' / '3')
  assert 'generator/loss' in saved.metrics
  assert 'evaluation/ab/l1' not in saved.metrics
  assert train(CONFIG, workdir).start_step == 3
  assert_same_run(workdir, straight)


@pytest.mark.slow
@pytest.mark.parametrize('steps, evaluated_before', [(6, [3]), (7, [3, 6])])
def test_a_signal_during_the_last_evaluation(
  tmp_path, monkeypatch, steps, evaluated_before
):
  config = CONFIG.replace(steps=steps)
  expected, run = tmp_path / 'straight', tmp_path / 'run'
  train(config, expected)
  with monkeypatch.context() as patch:
    interrupt_evaluations(
      patch, lambda: sorted(evaluated_records(run)) == evaluated_before
    )
    train(config, run)
  assert sorted(evaluated_records(run)) == evaluated_before
  assert train(config, run).start_step == steps
  assert_same_run(run, expected)
  before = (run / 'metrics.jsonl').read_bytes()
  train(config, run)
  assert (run / 'metrics.jsonl').read_bytes() == before


@pytest.fixture
def pairs(tmp_path):
  """The config of a run on two pairs of plain images."""
  for letter, values in (('A', (0, 100)), ('B', (51, 151))):
    for kind in ('train', 'test'):
      for index, value in enumerate(values):
        path = tmp_path / f'{kind}{letter}' / f'{index}.png'
        path.parent.mkdir(exist_ok=True)
        Image.new('RGB', (16, 16), (value,) * 3).save(path)
  return CONFIG.replace(data={'name': 'folder', 'path': str(tmp_path)})


def test_options_of_evaluations(pairs, tmp_path):
  def names(**options):
    config = pairs.replace(evaluation=options)
    return PeriodicEvaluation(config, open_images(config.data)).names

  palette = tmp_path / 'colors.txt'
  palette.write_text('51 51 51 sky\n151 151 151 road\n')
  assert 'evaluation/ab/mean_iou' in names(palette=str(palette))
  assert 'evaluation/ba/mean_iou' not in names(palette=str(palette))
  assert names(pairs='none') == [
    f'evaluation/{d}/cycle_l1' for d in ('ab', 'ba')
  ]


def test_an_image_that_disappears_is_reported(pairs, tmp_path, monkeypatch):
  # As if the images did not fit into memory.
  monkeypatch.setattr(image_set, '_CACHE_BYTES', 0)
  evaluation = PeriodicEvaluation(pairs, open_images(pairs.data))
  gen = create_train_state(pairs, jax.random.key(0)).translators
  path = tmp_path / 'testA' / '1.png'
  path.unlink()
  printed = []

  class Log:
    print = printed.append

  scores = evaluation.run(
    3, gen, workdir=tmp_path, run_log=Log(), stop=StopSignal()
  )
  assert scores == {}
  (message,) = printed
  assert str(path) in message
