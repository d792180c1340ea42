"""Each metric's best value, and options that would keep the worst."""

import math

import jax
import pytest

from cyclegan_jax import create_train_state
from cyclegan_jax.config import Config
from cyclegan_jax.errors import ConfigError
from cyclegan_jax.evaluation.results import shown_name
from cyclegan_jax.metrics.goals import (
  HIGHER,
  LOWER,
  badness,
  best_at,
  check_best_metric,
)
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.storage.checkpoint import Saver
from cyclegan_jax.training.train import train

ARROWS = {'↓': LOWER, '↑': HIGHER}


@pytest.mark.parametrize(
  'metric',
  [
    *('fid', 'kid', 'fd_effnet', 'kd_effnet', 'l1', 'psnr', 'ssim'),
    *('cycle_l1', 'background_l1', 'stripes'),
    *('pixel_accuracy', 'class_accuracy', 'mean_iou'),
  ],
)
def test_best_values_agree_with_the_arrows_of_the_table(metric):
  expected = ARROWS.get(shown_name(metric)[-1])
  assert best_at(metric) == expected
  if expected is not None:
    for direction in ('ab', 'ba'):
      assert best_at(f'evaluation/{direction}/{metric}') == expected


@pytest.mark.parametrize(
  'metric, expected',
  [
    ('generator/loss', LOWER),
    ('generator/cycle_a', LOWER),
    ('discriminator/a', None),
    ('learning_rate', None),
    ('evaluation/ab/kid_std', None),
    ('evaluation/ab/stripes', 1),
    ('evaluation/ba/stripes', LOWER),
    ('', None),
  ],
)
def test_best_values(metric, expected):
  assert best_at(metric) == expected


@pytest.mark.parametrize(
  'metric, mode, worst_to_best',
  [
    ('evaluation/ab/fid', 'auto', [90.0, 10.0, -1.0]),
    ('evaluation/ba/psnr', 'auto', [10.0, 30.0]),
    ('evaluation/ab/stripes', 'auto', [0.1, 1.6, 0.7, 1.1]),
    ('evaluation/ba/stripes', 'auto', [1.1, 0.4, 0.0]),
    ('discriminator/a', 'auto', [2.0, 1.0]),
    ('discriminator/a', 'min', [2.0, 1.0]),
    ('discriminator/a', 'max', [1.0, 2.0]),
    ('evaluation/ab/stripes', 'max', [0.1, 1.1, 1.6]),
  ],
)
def test_the_better_the_lower(metric, mode, worst_to_best):
  found = [badness(metric, value, mode=mode) for value in worst_to_best]
  assert all(math.isfinite(each) for each in found)
  assert found == sorted(found, reverse=True)
  assert len(set(found)) == len(found)


NAMES = (
  'generator/loss',
  'discriminator/a',
  'learning_rate',
  'evaluation/ab/psnr',
  'evaluation/ab/kid_std',
  'evaluation/ab/stripes',
  'evaluation/ba/stripes',
)


def config_with(metric, mode='auto', *, every_steps=5):
  return Config().replace(
    checkpoint={'best_metric': metric, 'best_mode': mode},
    evaluation={'every_steps': every_steps},
  )


@pytest.mark.parametrize(
  'metric, mode',
  [
    ('', 'max'),
    ('generator/loss', 'min'),
    ('evaluation/ab/psnr', 'max'),
    ('evaluation/ab/stripes', 'max'),
    ('discriminator/a', 'max'),
  ],
)
def test_options_that_fit(metric, mode):
  check_best_metric(config_with(metric, mode), NAMES)


@pytest.mark.parametrize(
  'metric, mode, option',
  [
    ('evaluation/ab/fidd', 'max', 'checkpoint.best_metric'),
    ('mine', 'min', 'checkpoint.best_metric'),
    ('evaluation/ab/psnr', 'min', 'checkpoint.best_mode'),
    ('generator/loss', 'max', 'checkpoint.best_mode'),
    ('evaluation/ab/stripes', 'min', 'checkpoint.best_mode'),
    ('evaluation/ba/stripes', 'max', 'checkpoint.best_mode'),
    ('discriminator/a', 'auto', 'checkpoint.best_mode'),
    ('evaluation/ab/kid_std', 'auto', 'checkpoint.best_mode'),
  ],
)
def test_options_that_do_not_fit(metric, mode, option):
  with pytest.raises(ConfigError, match=option) as caught:
    check_best_metric(config_with(metric, mode), NAMES)
  assert metric in str(caught.value)


def test_a_score_of_evaluations_needs_evaluations():
  with pytest.raises(ConfigError, match=r'evaluation\.every_steps'):
    check_best_metric(config_with('evaluation/ab/psnr', every_steps=0), NAMES)


def test_a_wrong_best_metric_leaves_no_files(tmp_path):
  config = Config().replace(
    num_devices=1,
    data={'num_train': 4, 'num_test': 2},
    checkpoint={'best_metric': 'generator/los'},
  )
  with pytest.raises(ConfigError, match='generator/loss'):
    train(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  'metric, values, best',
  [
    ('evaluation/ab/psnr', [10.0, 30.0, 20.0], 1),
    ('evaluation/ab/mean_iou', [0.5, 0.1, 0.1], 0),
    ('evaluation/ab/kid', [0.5, 0.1, 0.2], 1),
    ('evaluation/ab/stripes', [0.2, 0.9, 1.7], 1),
    ('generator/loss', [2.0, 1.0, 1.0], 2),  # the newer of equals
  ],
)
def test_the_best_checkpoint_without_a_mode(metric, values, best, tmp_path):
  config = Config().replace(
    data={'size': 8, 'load_size': 8},
    generator={'filters': 1, 'isize': 8, 'norm': 'none'},
    discriminator={'name': 'pixelgan', 'filters': 1, 'norm': 'none'},
    optimizer={'name': 'sgd'},
    checkpoint={'best_metric': metric, 'keep': 1},
  )
  assert config.checkpoint.best_mode == 'auto'
  state = create_train_state(config, jax.random.key(0))
  folder = tmp_path / 'checkpoints'
  with Saver(folder, config) as saver:
    for step, value in enumerate(values):
      saver.save(state.replace(step=state.step + step), {metric: value})
  assert checkpoint.best_step(folder, metric, 'auto') == best
  assert checkpoint.list_steps(folder) == sorted({best, len(values) - 1})
