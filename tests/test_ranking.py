"""Each metric's best value, and options that would keep the worst."""

import math

import jax
import pytest

from cyclegan_jax import create_train_state
from cyclegan_jax.config import Config
from cyclegan_jax.errors import ConfigError
from cyclegan_jax.evaluation.table import shown_name
from cyclegan_jax.metrics.goals import (
  HIGHER,
  LOWER,
  badness,
  best_at,
  check_best,
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
def test_the_table_and_the_arrows_that_are_shown_agree(metric):
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


@pytest.mark.parametrize(
  'metric, mode',
  [
    ('', 'max'),
    ('generator/loss', 'min'),
    ('evaluation/ab/psnr', 'max'),
    ('evaluation/ab/stripes', 'max'),
    ('evaluation/ba/stripes', 'min'),
    ('discriminator/a', 'max'),
    ('evaluation/ab/kid_std', 'min'),
    ('a/loss/of/my/own', 'auto'),  # told of once the names are known
  ],
)
def test_options_that_fit(metric, mode):
  log = {'best_metric': metric, 'best_mode': mode}
  check_best(Config().replace(log=log).log)


UNKNOWN = (
  "config.log.best_metric='{}' is unknown: evaluations have evaluation/ab/ and "
  'evaluation/ba/ with fid, kid, fd_effnet, kd_effnet, l1, psnr, ssim, '
  'cycle_l1, background_l1, pixel_accuracy, class_accuracy, mean_iou, stripes'
)
WORST = (
  "config.log.best_mode='{}' would keep the worst checkpoint, as {} is the "
  'better the {} it is: leave out best_mode'
)
NEITHER = (
  "config.log.best_metric='{}' says by neither direction what is best: set "
  "config.log.best_mode to 'min' or 'max', or choose another such as "
  "'generator/loss'"
)


@pytest.mark.parametrize(
  'metric, mode, message',
  [
    ('evaluation/ab/fidd', 'auto', UNKNOWN),
    ('evaluation/ab/fidd', 'max', UNKNOWN),
    ('evaluation/fidd_std', 'auto', UNKNOWN),
    ('evaluation/ab/psnr', 'min', WORST.format('min', '{}', 'higher')),
    ('evaluation/ba/kid', 'max', WORST.format('max', '{}', 'lower')),
    ('generator/loss', 'max', WORST.format('max', '{}', 'lower')),
    ('evaluation/ab/stripes', 'min', WORST.format('min', '{}', 'nearer to 1')),
    ('evaluation/ba/stripes', 'max', WORST.format('max', '{}', 'lower')),
    ('discriminator/a', 'auto', NEITHER),
    ('learning_rate', 'auto', NEITHER),
    ('evaluation/ab/kid_std', 'auto', NEITHER),
  ],
)
def test_options_that_do_not_fit(metric, mode, message):
  log = Config().replace(log={'best_metric': metric, 'best_mode': mode}).log
  with pytest.raises(ConfigError) as caught:
    check_best(log)
  assert str(caught.value) == message.format(metric)


def test_a_metric_of_one_s_own(tmp_path):
  log = Config().replace(log={'best_metric': 'mine'}).log
  with pytest.raises(ConfigError) as caught:
    check_best(log, ['mine', 'generator/loss'])
  assert str(caught.value) == NEITHER.format('mine')


def test_it_is_told_before_anything_is_read_or_written(tmp_path):
  config = Config().replace(
    data={'name': 'folder', 'path': str(tmp_path / 'none')},
    log={'best_metric': 'evaluation/ab/psnr', 'best_mode': 'min'},
  )
  with pytest.raises(ConfigError, match='would keep the worst checkpoint'):
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
    log={'best_metric': metric, 'keep_checkpoints': 1},
  )
  assert config.log.best_mode == 'auto'
  state = create_train_state(config, jax.random.key(0))
  folder = tmp_path / 'checkpoints'
  with Saver(folder, config) as saver:
    for step, value in enumerate(values):
      saver.save(state.replace(step=state.step + step), {metric: value})
  assert checkpoint.best_step(folder, metric, 'auto') == best
  assert checkpoint.find_steps(folder) == sorted({best, len(values) - 1})
