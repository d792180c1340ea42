"""A run that begins with another's networks, and its warm-up."""

import json
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cyclegan_jax as cg
from cyclegan_jax.commands.train_flags import parse_train_flags
from cyclegan_jax.config import from_config_dict
from cyclegan_jax.errors import ConfigError, WorkdirError
from cyclegan_jax.optimizers import learning_rate_schedule, make_optimizer
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.training.fine_tune import read_networks
from cyclegan_jax.training.train import train

ROOT = pathlib.Path(__file__).parent.parent


def leaves(tree):
  return [
    jax.random.key_data(leaf)
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    else leaf
    for leaf in jax.tree.leaves(tree)
  ]


def is_same(one, other):
  pairs = zip(leaves(one), leaves(other), strict=True)
  return all(bool(jnp.array_equal(x, y)) for x, y in pairs)


def assert_same(one, other, atol=0):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for x, y in zip(leaves(one), leaves(other), strict=True):
    np.testing.assert_allclose(x, y, rtol=0, atol=atol)


def state_at(workdir, step):
  return checkpoint.load(workdir / 'checkpoints' / str(step)).state


@pytest.fixture(scope='module')
def config():
  sys.path.insert(0, str(ROOT))
  from configs import tiny

  return from_config_dict(tiny.get_config()).replace(
    steps=4, ema_decay=0.5, data={'num_workers': 0}
  )


@pytest.fixture(scope='module')
def source(config, tmp_path_factory):
  """A run of another seed with two checkpoints, and its last state."""
  workdir = tmp_path_factory.mktemp('source') / 'run'
  config = config.replace(seed=7)
  state = cg.create_train_state(config, jax.random.key(7))
  other = cg.create_train_state(config, jax.random.key(8))
  last = other.replace(step=jnp.int32(4), gen_ema=state.gen)
  with checkpoint.Saver(workdir / 'checkpoints', config) as saver:
    saver.save(state)
    saver.save(last)
  return workdir, last


@pytest.fixture
def tuned(config, source):
  """The config of a run that begins with the source's networks."""
  return config.replace(init_from=str(source[0]))


@pytest.mark.slow
def test_begins_with_what_the_source_s_translator_takes(
  config, tuned, source, tmp_path
):
  train(tuned, tmp_path / 'run')
  fresh = cg.create_train_state(config, jax.random.key(config.seed))
  gen = source[1].gen_ema
  assert not is_same(gen, source[1].gen)
  expected = fresh.replace(gen=gen, gen_ema=gen, disc=source[1].disc)
  assert_same(state_at(tmp_path / 'run', 0), expected)
  written = json.loads((tmp_path / 'run' / 'config.json').read_text())
  assert written['init_from'] == str(source[0])
  assert written['init_sha256'] == read_networks(tuned).sha256


@pytest.mark.slow
def test_generators_alone(config, tuned, source, tmp_path):
  tuned = tuned.replace(init_discriminators=False, ema_decay=0.0)
  train(tuned, tmp_path / 'run')
  fresh = cg.create_train_state(tuned, jax.random.key(config.seed))
  expected = fresh.replace(gen=source[1].gen_ema)
  assert_same(state_at(tmp_path / 'run', 0), expected)


@pytest.mark.slow
def test_goes_on_without_the_source(tuned, source, tmp_path):
  moved = tmp_path / 'source'
  shutil.copytree(source[0], moved)
  tuned = tuned.replace(init_from=str(moved), warmup_steps=1)
  straight = train(tuned, tmp_path / 'straight').state
  train(tuned.replace(steps=2), tmp_path / 'run')
  shutil.rmtree(moved)
  result = train(tuned, tmp_path / 'run')
  assert result.start_step == 2
  assert_same(result.state, straight)
  # It is also resumed with the source in another place, if that has the same
  # networks, or none is there but the checksum is given.
  known = json.loads((tmp_path / 'run' / 'config.json').read_text())
  for changes in (
    {'init_from': str(source[0])},
    {'init_from': 'gone', 'init_sha256': known['init_sha256']},
  ):
    assert train(tuned.replace(**changes), tmp_path / 'run').start_step == 4
  with pytest.raises(WorkdirError, match='config.init_from'):
    train(tuned.replace(init_from='nowhere'), tmp_path / 'run')
  others = str(source[0] / 'checkpoints' / '0')
  with pytest.raises(ConfigError, match='config.init_from'):
    train(tuned.replace(init_from=others), tmp_path / 'run')


@pytest.mark.slow
def test_another_init_from_is_another_run(config, tuned, tmp_path):
  train(tuned, tmp_path / 'run')
  with pytest.raises(WorkdirError, match=r'another config \(config.init_from'):
    train(config, tmp_path / 'run')


@pytest.mark.slow
def test_the_checksum_is_of_the_networks_alone(tuned, source, tmp_path):
  before = read_networks(tuned).sha256
  shutil.copytree(source[0] / 'checkpoints' / '4', tmp_path / 'copy')
  copied = tuned.replace(init_from=str(tmp_path / 'copy'))
  assert read_networks(copied).sha256 == before
  assert read_networks(copied, sha256=before).sha256 == before
  earlier = str(source[0] / 'checkpoints' / '0')
  assert read_networks(tuned.replace(init_from=earlier)).sha256 != before
  alone = tuned.replace(init_discriminators=False)
  assert read_networks(alone).sha256 != before


@pytest.mark.slow
def test_a_source_that_changed_before_the_first_checkpoint(
  tuned, source, tmp_path
):
  moved = tmp_path / 'source'
  shutil.copytree(source[0], moved)
  tuned = tuned.replace(init_from=str(moved))
  train(tuned, tmp_path / 'run')
  shutil.rmtree(tmp_path / 'run' / 'checkpoints')
  (tmp_path / 'run' / 'metrics.jsonl').unlink()
  shutil.rmtree(moved / 'checkpoints' / '4')
  with pytest.raises(ConfigError, match='config.init_sha256'):
    train(tuned, tmp_path / 'run')


@pytest.mark.parametrize(
  'options, texts',
  [
    (
      {'generator': {'filters': 3}},
      ['gen/ab/conv_16/bias of [2], and not [3]'],
    ),
    (
      {'generator': {'isize': 8, 'fixed_input_size': False}},
      ['gen/ab/', ', and not none', 'config.generator'],
    ),
    (
      {'generator': {'norm': 'instance'}},
      ["config.generator.norm='batch', and not 'instance'"],
    ),
    (
      {'discriminator': {'last_layers': 'valid'}},
      [
        "config.discriminator.last_layers='same', and not 'valid'",
        'config.init_discriminators=False',
      ],
    ),
    (
      {'discriminator': {'filters': 4}},
      ['disc/a/conv_0/bias of [2], and not [4]'],
    ),
  ],
)
def test_networks_that_do_not_fit(options, texts, tuned, tmp_path):
  with pytest.raises(ConfigError) as caught:
    train(tuned.replace(**options), tmp_path / 'run')
  told = str(caught.value)
  assert f'config.init_from={tuned.init_from!r} does not fit' in told
  for text in texts:
    assert text in told
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_the_options_of_the_networks_are_taken_from_the_source(
  tuned, source, load_preset
):
  other = load_preset('folder').replace(
    init_from=tuned.init_from, generator={'dtype': 'bfloat16'}
  )
  with pytest.raises(ConfigError, match='does not fit'):
    read_networks(other)
  networks = read_networks(other, explicit=['config.init_from'])
  config = networks.config
  assert networks.sha256 == read_networks(tuned).sha256
  assert config.generator.name == tuned.generator.name == 'keras_unet'
  assert config.generator.filters == tuned.generator.filters
  assert config.discriminator.filters == tuned.discriminator.filters
  # The network takes one size only.
  assert config.data.size == tuned.data.size != other.data.size
  # How it computes is the run's own.
  assert config.generator.dtype == 'bfloat16'
  assert config.generator.init == other.generator.init
  assert config.loss == other.loss
  facts = ' '.join(networks.facts().values())
  assert "config.generator.name='keras_unet'" in facts
  assert 'config.data.size=16' in facts
  # Fresh discriminators are those of the recipe.
  fresh = other.replace(init_discriminators=False, discriminator={'layers': 1})
  alone = read_networks(fresh, explicit=['config.init_from'])
  assert alone.config.discriminator == fresh.discriminator
  for option in ('generator.name', 'data.size'):
    with pytest.raises(ConfigError, match='does not fit') as caught:
      read_networks(other, explicit=[f'config.{option}'])
    assert f'config.{option}' in str(caught.value)


def test_a_size_that_only_the_source_s_networks_take(tuned, tmp_path):
  flags = [f'--config={ROOT}/configs/folder.py', '--config.data.load_size=0']
  flags += ['--config.data.name=embedded', '--config.num_devices=1']
  size = tuned.data.size
  with pytest.raises(ConfigError, match=r'config\.data\.size'):
    parse_train_flags([*flags, f'--config.data.size={size}'])
  flags += [f'--config.init_from={tuned.init_from}']
  parsed = parse_train_flags([*flags, f'--config.data.size={size}'])
  networks = read_networks(parsed.config, explicit=parsed.explicit)
  assert networks.config.data.size == size
  assert networks.config.discriminator.layers == tuned.discriminator.layers
  # What the final networks do not take is refused, by all ways.
  parsed = parse_train_flags([*flags, f'--config.data.size={size + 1}'])
  for explicit in (parsed.explicit, None):
    with pytest.raises(ConfigError, match=r'config\.data\.size'):
      train(parsed.config, tmp_path / 'run', explicit=explicit)
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_a_run_with_taken_options_is_resumed(config, tuned, source, tmp_path):
  moved = tmp_path / 'source'
  shutil.copytree(source[0], moved)
  other = config.replace(
    init_from=str(moved),
    generator={'filters': 3, 'norm': 'instance'},
    discriminator={'filters': 4},
  )
  explicit = ['config.init_from']
  train(other.replace(steps=2), tmp_path / 'run', explicit=explicit)
  shutil.rmtree(moved)
  result = train(other, tmp_path / 'run', explicit=explicit)
  assert (result.start_step, int(result.state.step)) == (2, 4)
  assert result.config.generator == config.generator
  assert result.config.discriminator == config.discriminator


def test_channels_that_do_not_fit(tuned):
  tuned = tuned.replace(data={'channels_b': 4})
  with pytest.raises(ConfigError) as caught:
    read_networks(tuned)
  assert 'gen/ab/convt_16/ConvTranspose_0/bias of [3], and not [4]' in str(
    caught.value
  )


def test_other_discriminators_are_no_trouble_where_they_are_fresh(tuned):
  tuned = tuned.replace(discriminator={'filters': 4, 'norm': 'instance'})
  assert not read_networks(tuned.replace(init_discriminators=False)).disc


def test_no_checkpoint(tuned, tmp_path):
  with pytest.raises(WorkdirError, match=r'config.init_from: .*not a folder'):
    read_networks(tuned.replace(init_from=str(tmp_path / 'nowhere')))
  path = tmp_path / 'latest_net_G_A.pth'
  path.write_bytes(b'')
  with pytest.raises(ConfigError, match=r'is a file.*cyclegan import'):
    read_networks(tuned.replace(init_from=str(path)))


def test_what_was_trained_is_taken_alone(tuned, config, tmp_path):
  """As an import makes of one generator."""
  state = cg.create_train_state(config, jax.random.key(3))
  with checkpoint.Saver(
    tmp_path / 'checkpoints', config, directions=('ba',), discriminators=('b',)
  ) as saver:
    saver.save(state)
  found = read_networks(tuned.replace(init_from=str(tmp_path)))
  assert (list(found.gen), list(found.disc)) == (['ba'], ['b'])
  assert str(found) == (
    f'the networks of {tmp_path / "checkpoints" / "0"}, with untrained '
    'generator ab and discriminator a'
  )
  assert_same(found.gen['ba'], state.gen_ema['ba'])


def batch_of(config, seed=0):
  shape = (2, config.data.size, config.data.size, 3)
  rng = np.random.default_rng(seed)
  return {d: jnp.float32(rng.uniform(-1, 1, shape)) for d in 'ab'}


@pytest.mark.slow
def test_generators_are_held_through_the_warm_up(config):
  plain_config = config.replace(
    pool_size=2, generator={'isize': 4, 'fixed_input_size': False}
  )
  config = plain_config.replace(warmup_steps=2)
  before = state = cg.create_train_state(config, jax.random.key(1))
  for step in range(2):
    batch = batch_of(config, step)
    after, _ = cg.train_step(state, batch, config=config)
    assert_same(after.gen, before.gen)
    assert_same(after.gen_opt, before.gen_opt)
    assert_same(after.gen_ema, before.gen_ema)
    # The discriminators do as if nothing was held. Another program may round
    # otherwise.
    plain, _ = cg.train_step(state, batch, config=plain_config)
    assert not is_same(plain.gen, before.gen)
    assert not is_same(after.disc, state.disc)
    assert_same(after.disc, plain.disc, atol=1e-6)
    assert_same(after.disc_opt, plain.disc_opt, atol=1e-6)
    assert_same(after.pools, plain.pools, atol=1e-6)
    state = after
  # The first step of the generators is that of a fresh optimizer.
  after, _ = cg.train_step(state, batch_of(config), config=config)
  plain, _ = cg.train_step(state, batch_of(config), config=plain_config)
  assert not is_same(after.gen, before.gen)
  assert_same(after, plain, atol=1e-6)


def test_rates_are_those_of_the_run_s_steps():
  """The count of held generators begins at 0 when the run is at step 6."""
  config = cg.Config().replace(
    epochs=10,
    steps_per_epoch=2,
    warmup_steps=6,
    optimizer={'name': 'sgd', 'b1': 0.0},
    schedule={'name': 'linear', 'decay_epochs': 10},
  )
  params = {'x': jnp.ones(())}
  for side, first in (('gen', 6), ('disc', 0)):
    optimizer = make_optimizer(config, side=side)
    state = optimizer.init(params)
    rates = learning_rate_schedule(config, side=side)
    for step in range(first, first + 6):
      updates, state = optimizer.update(params, state, params)
      assert float(updates['x']) == -float(rates(jnp.int32(step)))


def test_a_warm_up_without_end(config, tmp_path):
  with pytest.raises(ConfigError, match='warmup_steps=4 leaves the generators'):
    train(config.replace(warmup_steps=4), tmp_path / 'run')


def command(*words):
  done = subprocess.run(
    [sys.executable, *words], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  return done


@pytest.mark.process
def test_training_on_what_was_imported(tmp_path):
  """From our run to .pth files, to a checkpoint, and on from there."""
  options = [
    '--config=configs/tiny.py',
    '--config.generator.name=resnet',
    '--config.generator.blocks=1',
    '--config.generator.padding=reflect',
    '--config.generator.dropout=0.0',
    '--config.checkpoint.every_steps=1',
    '--config.checkpoint.keep=9',
  ]
  first = tmp_path / 'first'
  command('main.py', *options, '--config.steps=3', f'--workdir={first}')
  package = ['-m', 'cyclegan_jax']
  files, imported = tmp_path / 'pth', tmp_path / 'imported'
  command(*package, 'export', '--format', 'pth', str(first), '--to', str(files))
  paths = [str(files / f'latest_net_G_{letter}.pth') for letter in 'AB']
  command(*package, 'import', *paths, '--to', str(imported))
  tuned = [*options, f'--config.init_from={imported}', '--config.seed=5']
  tuned += ['--config.warmup_steps=2', f'--workdir={tmp_path / "run"}']
  done = command('main.py', *tuned, '--config.steps=3')
  assert (
    f'the networks of {imported}/checkpoints/0, with untrained discriminator a '
    'and discriminator b'
  ) in done.stderr
  trained = state_at(first, 3).translators
  start, held, end = (state_at(tmp_path / 'run', n) for n in (0, 2, 3))
  assert_same(start.gen, trained)
  assert_same(held.gen, trained)
  assert not is_same(held.disc, start.disc)
  assert not is_same(end.gen, trained)
  written = json.loads((tmp_path / 'run' / 'config.json').read_text())
  fresh = cg.create_train_state(from_config_dict(written), jax.random.key(5))
  assert_same(start.disc, fresh.disc)
  # It goes on without what it began with.
  shutil.rmtree(imported)
  done = command('main.py', *tuned, '--config.steps=4')
  assert 'resuming from step 3' in done.stderr
