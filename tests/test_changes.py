"""Runs that continue for longer, or with other options."""

import json
import pathlib
import re

import jax
import numpy as np
import pytest
from PIL import Image

from cyclegan_jax import cli
from cyclegan_jax.config import Config
from cyclegan_jax.errors import ConfigError, WorkdirError
from cyclegan_jax.optimizers import learning_rate_schedule
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.training.changes import continued
from cyclegan_jax.training.train import train

RUN = pathlib.Path('run')
LINEAR = Config().replace(
  epochs=10,
  steps=40,
  steps_per_epoch=4,
  schedule={'name': 'linear', 'decay_epochs': 5},
)


def continue_with(old, step=4, explicit=(), moved=(), may_change=False, **new):
  return continued(
    RUN,
    old,
    old.replace(**new),
    step=step,
    explicit=explicit,
    moved=moved,
    may_change=may_change,
  )


@pytest.mark.parametrize(
  'new',
  [
    {'steps': 10_000},
    {'epochs': 99, 'steps': 99},
    {'num_devices': 3},
    {'data': {'num_workers': 9, 'prefetch_batches': 9, 'cache_gib': 0.5}},
    {'data': {'max_corrupt': 0}},
    {'log': {'samples_every_steps': 7}, 'checkpoint': {'keep': 9}},
    {'evaluation': {'every_steps': 7}, 'faults': {'on_save_error': 'stop'}},
  ],
)
def test_options_that_need_no_permission(new):
  old = Config()
  assert continue_with(old, **new) == old.replace(**new)


@pytest.mark.parametrize(
  'new, option',
  [
    ({'steps_per_epoch': 5}, 'config.steps_per_epoch: 0 -> 5'),
    ({'batch_size': 8}, 'config.batch_size: 4 -> 8'),
    ({'data': {'flip': False}}, 'config.data.flip: True -> False'),
    ({'loss': {'cycle_a': 5.0}}, 'config.loss.cycle_a: 10.0 -> 5.0'),
  ],
)
def test_options_that_need_permission(new, option):
  old = Config().replace(steps=90)
  new = {**new, 'log': {'num_samples': 3}}
  with pytest.raises(WorkdirError) as caught:
    continue_with(old, **new)
  assert f'({option})' in str(caught.value)
  assert '--change' in str(caught.value)
  changed = continue_with(old, may_change=True, **new)
  assert changed == old.replace(**new)


@pytest.mark.parametrize(
  'new',
  [
    {'generator': {'filters': 3}},
    {'pool_size': 7},
    {'optimizer': {'name': 'sgd'}},
    {'ema_decay': 0.5},
  ],
)
def test_shapes_cannot_change(new):
  with pytest.raises(ConfigError, match=r'config\.init_from'):
    continue_with(Config(), may_change=True, **new)
  with pytest.raises(WorkdirError) as caught:
    continue_with(Config(), **new)
  assert '--change' not in str(caught.value)


def test_a_change_does_not_end_the_run():
  old = Config().replace(steps=90, steps_per_epoch=10)
  with pytest.raises(ConfigError, match=r'config\.epochs'):
    continue_with(old, step=60, may_change=True, batch_size=8, steps=45)


def test_a_rate_of_zero_asks_for_another():
  cosine = LINEAR.replace(
    epochs=90_000, steps=360_000, schedule={'name': 'cosine'}
  )
  with pytest.raises(ConfigError, match=r'config\.schedule\.max_rate'):
    continue_with(cosine, step=360_000, steps=400_000, epochs=100_000)


def test_images_and_networks_may_move():
  new = {'data': {'name': 'folder', 'path': '/new'}, 'init_from': '/new'}
  data = ('config.data.name', 'config.data.path')
  continue_with(Config(), moved=(*data, 'config.init_from'), **new)
  with pytest.raises(WorkdirError) as caught:
    continue_with(Config(), moved=data, **new)
  assert 'config.init_from' in str(caught.value)
  assert 'config.data' not in str(caught.value)


def test_a_run_may_end_earlier_only_with_rates_of_the_step():
  assert continue_with(Config().replace(steps=90), steps=60).steps == 60
  with pytest.raises(WorkdirError, match=r'config\.steps: 40 -> 30'):
    continue_with(LINEAR, steps=30)


def rates(config, steps):
  schedule = learning_rate_schedule(config, side='gen')
  return [float(schedule(step)) for step in steps]


def test_a_longer_run_is_constant_until_its_own_decay():
  longer = continue_with(LINEAR, step=10, steps=80, epochs=20)
  assert longer.schedule.max_rate == 0
  assert len(set(rates(longer, range(60)))) == 1
  assert rates(longer, [79])[0] < rates(longer, [60])[0] < 5e-4


def test_the_rate_of_an_extended_run_does_not_rise(caplog):
  last = rates(LINEAR, [39])[0]
  longer = continue_with(LINEAR, step=40, steps=80, epochs=20)
  assert 'config.schedule.max_rate' in caplog.text
  assert rates(longer, range(40, 80)) == pytest.approx([last] * 40)
  # It holds for all further stretches, and for the discriminators.
  resumed = continue_with(
    longer, step=50, steps=80, epochs=20, schedule={'max_rate': 0.0}
  )
  assert resumed == longer
  ratio = longer.replace(optimizer={'disc_learning_rate_ratio': 2.0})
  disc = learning_rate_schedule(ratio, side='disc')
  assert float(disc(50)) == pytest.approx(2 * last)
  # A rate that the user repeats is no other rate.
  repeated = continue_with(
    LINEAR,
    step=40,
    explicit=['config.optimizer.learning_rate'],
    steps=80,
    epochs=20,
  )
  assert repeated == longer
  # Unless it is asked for.
  raised = continue_with(
    LINEAR,
    step=40,
    explicit=['config.schedule.max_rate'],
    steps=80,
    epochs=20,
    schedule={'max_rate': 3e-4},
  )
  assert rates(raised, [40]) == [pytest.approx(3e-4)]


def test_epochs_of_another_length_do_not_raise_the_rate(caplog):
  # Four of five epochs of the fall are over, of eight steps they would be none.
  new = LINEAR.replace(epochs=10, steps=80, steps_per_epoch=8)
  last = rates(LINEAR, [35])[0]
  changed = continue_with(
    LINEAR, step=36, may_change=True, epochs=10, steps=80, steps_per_epoch=8
  )
  assert rates(new, [36])[0] > last
  assert rates(changed, [36]) == pytest.approx([last])
  assert 'config.schedule.max_rate' in caplog.text
  # Also where the run is not longer.
  new = LINEAR.replace(epochs=20, steps_per_epoch=2)
  last = rates(LINEAR, [33])[0]
  assert rates(new, [34])[0] > last
  same = continue_with(
    LINEAR, step=34, may_change=True, epochs=20, steps_per_epoch=2
  )
  assert rates(same, [34]) == pytest.approx([last])


def arrays(workdir):
  state = checkpoint.load(workdir).state
  return jax.tree.leaves(state.replace(key=jax.random.key_data(state.key)))


@pytest.mark.slow
def test_a_run_extended_twice_and_changed_resumes_exactly(
  tiny_config, tmp_path
):
  config = tiny_config.replace(
    num_devices=1, pool_size=3, steps=4, checkpoint={'every_steps': 2}
  )
  run = tmp_path / 'run'
  train(config, run)
  train(config.replace(steps=6), run)
  changed = config.replace(steps=8, loss={'cycle_a': 3.0}, batch_size=4)
  with pytest.raises(WorkdirError, match=r'config\.batch_size: 2 -> 4'):
    train(changed, run)
  result = train(changed, run, may_change=True)
  assert result.start_step == 6
  history = [
    json.loads(line)
    for line in (run / 'config_history.jsonl').read_text().splitlines()
  ]
  assert [change['step'] for change in history] == [4, 6]
  assert history[0]['changes']['config.steps'] == [4, 6]
  assert history[1]['changes']['config.loss.cycle_a'] == [10.0, 3.0]
  assert checkpoint.load(run).history == tuple(history)
  # A longer stretch of the changed run, straight and with a stop in it.
  longer = changed.replace(steps=12)
  expected = arrays(run)
  train(longer.replace(steps=10), run)
  assert not all(map(np.array_equal, arrays(run), expected))
  train(longer, run)
  resumed = arrays(run)
  for step in ('10', '12'):
    (run / 'checkpoints' / step).rename(tmp_path / step)
  train(longer, run)
  for one, other in zip(arrays(run), resumed, strict=True):
    np.testing.assert_array_equal(one, other)
  page = (run / 'index.html').read_text()
  found = re.search(r'"changes":(\[.*?\]),"steps"', page)
  assert found
  assert 'config.loss.cycle_a 10.0' in found[1]


def draw_images(folder, counts):
  rng = np.random.default_rng(0)
  for domain, count in counts.items():
    (folder / f'train{domain}').mkdir(parents=True, exist_ok=True)
    for index in range(count):
      image = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
      Image.fromarray(image).save(folder / f'train{domain}' / f'{index}.png')


@pytest.mark.slow
def test_other_images_have_other_epochs(tiny_config, tmp_path):
  for name, counts in (
    ('old', {'A': 4, 'B': 8}),
    ('new', {'A': 12, 'B': 4}),
  ):
    draw_images(tmp_path / name, counts)
  config = tiny_config.replace(
    num_devices=1,
    steps=4,
    data={'name': 'folder', 'path': str(tmp_path / 'old')},
    schedule={'name': 'linear'},
    checkpoint={'every_steps': 1},
  )
  run = tmp_path / 'run'
  assert train(config, run).config.steps_per_epoch == 4
  moved = config.replace(data={'path': str(tmp_path / 'new')}, steps=8)
  with pytest.raises(WorkdirError, match=r'config\.data\.path'):
    train(moved, run)
  result = train(moved, run, may_change=True)
  assert (result.config.steps_per_epoch, result.config.epochs) == (6, 2)
  # The same command again changes nothing, and resumes exactly.
  straight = arrays(run)
  for step in '78':
    (run / 'checkpoints' / step).rename(tmp_path / step)
  train(moved, run, may_change=True)
  for one, other in zip(arrays(run), straight, strict=True):
    np.testing.assert_array_equal(one, other)
  # So has the same folder with other images.
  draw_images(tmp_path / 'new', {'A': 14})
  changed = train(moved.replace(steps=9), run, may_change=True).config
  assert changed.steps_per_epoch == 7
  # A number that is asked for stays.
  asked = moved.replace(steps=10, steps_per_epoch=3)
  draw_images(tmp_path / 'new', {'A': 20})
  assert train(asked, run, may_change=True).config.steps_per_epoch == 3
  history = [
    json.loads(line)['changes'].get('config.steps_per_epoch')
    for line in (run / 'config_history.jsonl').read_text().splitlines()
  ]
  assert history == [[4, 6], [6, 7], [7, 3]]


def test_the_flag(trained_run, tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  argv = ['train', f'--config={trained_run}', f'--workdir={trained_run}']
  argv.append('--config.num_devices=1')
  assert cli.main([*argv, '--config.loss.cycle_a=3']) == 1
  assert '--change' in capsys.readouterr().err
  argv = [*argv, '--change', '--config.pool_size=9']
  assert cli.main(argv) == 2
  assert 'config.pool_size' in capsys.readouterr().err
