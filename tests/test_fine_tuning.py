"""Runs that begin with the networks of another."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cyclegan_jax import checkpoint, cli
from cyclegan_jax.checkpoint import Saver
from cyclegan_jax.errors import ConfigError, WorkdirError
from cyclegan_jax.fine_tuning import begin_from
from cyclegan_jax.state import create_train_state
from cyclegan_jax.step import train_step
from cyclegan_jax.train import train


def same(one, two) -> bool:
  return jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), one, two))


def saved(config, folder, *, directions=('ab', 'ba'), **changes):
  """A checkpoint of networks of its own, in a run's folder."""
  state = create_train_state(config, jax.random.key(77))
  state = state.replace(step=jnp.int32(5), **changes)
  with Saver(folder / 'checkpoints', config, directions=directions) as saver:
    saver.save(state)
  return state


def test_networks_are_its_own_and_all_else_is_fresh(tiny_config, tmp_path):
  old = saved(tiny_config, tmp_path)
  config = tiny_config.replace(init_from=str(tmp_path), pool_size=3)
  fresh = create_train_state(config, jax.random.key(0))
  state, source = begin_from(config, fresh)
  assert same(state.gen, old.gen)
  assert same(state.disc, old.disc)
  rest = {'gen': fresh.gen, 'disc': fresh.disc}
  assert same(
    jax.tree.leaves(state.replace(key=jax.random.key_data(state.key), **rest)),
    jax.tree.leaves(fresh.replace(key=jax.random.key_data(fresh.key))),
  )
  assert source == (
    f'generators and discriminators of {tmp_path}/checkpoints/5, step 5'
  )


def test_generators_alone(tiny_config, tmp_path):
  old = saved(tiny_config, tmp_path)
  config = tiny_config.replace(
    init_from=str(tmp_path),
    init_discriminators=False,
    discriminator={'filters': 3},  # so these could not be taken
  )
  fresh = create_train_state(config, jax.random.key(0))
  state, source = begin_from(config, fresh)
  assert same(state.gen, old.gen)
  assert same(state.disc, fresh.disc)
  assert source.startswith('generators of ')


def test_the_average_is_what_it_begins_with(tiny_config, tmp_path):
  averaged = tiny_config.replace(ema_decay=0.9)
  gen = create_train_state(averaged, jax.random.key(5)).gen
  saved(averaged, tmp_path, gen_ema=gen)
  for decay in (0.0, 0.5):
    config = tiny_config.replace(init_from=str(tmp_path), ema_decay=decay)
    state, _ = begin_from(config, create_train_state(config, jax.random.key(0)))
    assert same(state.gen, gen)
    assert (state.gen_ema is None) == (decay == 0)
    assert state.gen_ema is None or same(state.gen_ema, gen)


def test_one_imported_generator(tiny_config, tmp_path):
  old = saved(tiny_config, tmp_path, directions=('ba',))
  config = tiny_config.replace(init_from=str(tmp_path))
  fresh = create_train_state(config, jax.random.key(0))
  state, source = begin_from(config, fresh)
  assert same(state.gen['ba'], old.gen['ba'])
  assert same(state.gen['ab'], fresh.gen['ab'])
  assert source.startswith('the generator ba and discriminators of ')


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'generator': {'filters': 3}},
      r'has another generator: gen\.ab\.\S+ is \[.*2\] there and \[.*3\] here',
    ),
    ({'generator': {'norm': 'none'}}, r'is missing there and \[8\] here'),
    (
      {'discriminator': {'filters': 3}},
      r'another discriminator: .*, or config\.init_discriminators=False$',
    ),
  ],
)
def test_other_networks(tiny_config, tmp_path, changes, message):
  saved(tiny_config, tmp_path)
  config = tiny_config.replace(init_from=str(tmp_path), **changes)
  with pytest.raises(ConfigError, match=message):
    begin_from(config, create_train_state(config, jax.random.key(0)))


def test_no_checkpoint(tiny_config, tmp_path):
  config = tiny_config.replace(
    init_from=str(tmp_path / 'gone'), steps=1, num_devices=1
  )
  with pytest.raises(WorkdirError, match='gone is not a folder'):
    train(config, tmp_path / 'run')
  assert not (tmp_path / 'run' / 'config.json').exists()


@pytest.mark.parametrize('ema_decay', [0.0, 0.9])
def test_generators_are_held_while_it_warms_up(tiny_config, ema_decay):
  config = tiny_config.replace(
    warmup_steps=2, steps=4, ema_decay=ema_decay, steps_per_epoch=4
  )
  first = state = create_train_state(config, jax.random.key(0))
  draw = np.random.default_rng(0).uniform
  for step in range(4):
    batch = {
      domain: draw(-1, 1, (2, 16, 16, 3)).astype(np.float32) for domain in 'ab'
    }
    before = state
    state, _ = train_step(state, batch, config=config)
    is_held = step < 2
    assert same(state.gen, first.gen) == is_held
    assert same(state.gen_opt, first.gen_opt) == is_held
    if ema_decay:
      assert same(state.gen_ema, first.gen_ema) == is_held
    assert not same(state.disc, before.disc)


def test_a_run_does_not_need_its_source_again(tiny_config, tmp_path, capfd):
  source, run = tmp_path / 'source', tmp_path / 'run'
  old = saved(tiny_config, source)
  config = tiny_config.replace(
    init_from=str(source), steps=2, warmup_steps=1, num_devices=1
  )
  result = train(config.replace(log={'checkpoint_every_steps': 1}), run)
  assert 'begins with generators and disc' in capfd.readouterr().err
  first = checkpoint.restore(run / 'checkpoints' / '0').state
  assert same(first.gen, old.gen)
  # Held for a step, then they learn.
  assert same(checkpoint.restore(run / 'checkpoints' / '1').state.gen, old.gen)
  assert not same(result.state.gen, old.gen)
  assert json.loads((run / 'config.json').read_text())['init_from'] == str(
    source
  )
  shutil.rmtree(source)
  shutil.rmtree(run / 'checkpoints' / '2')
  again = train(config.replace(log={'checkpoint_every_steps': 1}), run)
  assert again.start_step == 1
  assert same(again.state.gen, result.state.gen)


def test_imported_weights_are_trained_on(tiny_config, tmp_path):
  """As a user does it, by commands."""
  generator = {
    'name': 'resnet',
    'filters': 2,
    'blocks': 1,
    'norm': 'instance',
    'affine': False,
    'padding': 'reflect',
    'dropout': 0.0,
  }
  config = tiny_config.replace(generator=generator)
  old = saved(config, tmp_path / 'old')
  files, imported = tmp_path / 'files', tmp_path / 'imported'
  run = tmp_path / 'run'
  export = ['export', tmp_path / 'old', '--format', 'pth', '--to', files]
  assert cli.main([str(each) for each in export]) == 0
  names = ('latest_net_G_A.pth', 'latest_net_G_B.pth')
  given = [*(files / name for name in names), '--to', imported]
  assert cli.main(['import', *map(str, given)]) == 0
  recipe = tmp_path / 'recipe.py'
  values = dataclasses.asdict(config)
  recipe.write_text(
    'from cyclegan_jax.config import from_config_dict, to_config_dict\n'
    f'VALUES = {values!r}\n'
    'def get_config():\n  return to_config_dict(from_config_dict(VALUES))\n'
  )
  command = [
    'train',
    f'--config={recipe}',
    f'--workdir={run}',
    f'--config.init_from={imported}',
    '--config.init_discriminators=False',
    '--config.steps=1',
    '--config.num_devices=1',
  ]
  assert cli.main(command) == 0
  first = checkpoint.restore(run / 'checkpoints' / '0').state
  assert same(first.gen, old.gen)
  assert int(checkpoint.load(run)[0].step) == 1
