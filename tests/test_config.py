"""Options: exact messages, round trips, and equality."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import ml_collections
import pytest

from cyclegan_jax.config import (
  Config,
  DataConfig,
  GeneratorConfig,
  LossConfig,
  Section,
  differences,
  expand_paths,
  from_config_dict,
  option_at,
  option_paths,
  size_multiple,
  to_config_dict,
  unknown_option,
)
from cyclegan_jax.errors import ConfigError, UserError
from cyclegan_jax.state import create_train_state
from cyclegan_jax.step import train_step

PATHS = option_paths()


def message_of(function, *args, **kwargs):
  with pytest.raises(ConfigError) as caught:
    function(*args, **kwargs)
  assert isinstance(caught.value, UserError)
  assert '\n' not in str(caught.value)
  return str(caught.value)


def edited(path, value):
  """Nested dicts of the default config with one option changed."""
  values = dataclasses.asdict(Config())
  group = values
  *groups, name = path.split('.')[1:]
  for each in groups:
    group = group[each]
  group[name] = value
  return values


# Messages.


@pytest.mark.parametrize(
  'path, nearest',
  [
    ('config.batchsize', 'config.batch_size'),
    ('config.generator.filter', 'config.generator.filters'),
    ('config.optimizer.beta1', 'config.optimizer.b1'),
    ('config.generator.n_blocks', 'config.generator.blocks'),
    # An option that exists elsewhere: its leaf decides.
    ('config.learning_rate', 'config.optimizer.learning_rate'),
    ('config.loss.pool_size', 'config.pool_size'),
  ],
)
def test_an_unknown_option(path, nearest):
  expected = f'{path} does not exist: did you mean {nearest}?'
  assert unknown_option(path) == expected
  assert message_of(from_config_dict, edited(path, 1)) == expected


def test_an_unknown_group():
  assert message_of(from_config_dict, {'lossess': {'r1': 1.0}}) == (
    'config.lossess does not exist: did you mean config.loss.terms?'
  )


@pytest.mark.parametrize(
  'path, value, expected',
  [
    ('config.batch_size', '4', 'is not an int, such as 4'),
    ('config.batch_size', 4.0, 'is not an int, such as 4'),
    ('config.batch_size', True, 'is not an int, such as 4'),
    ('config.batch_size', None, 'is not an int, such as 4'),
    ('config.loss.cycle_a', '10', 'is not a float, such as 10.0'),
    ('config.loss.cycle_a', True, 'is not a float, such as 10.0'),
    ('config.data.flip', 1, 'is not a bool, such as True'),
    ('config.data.flip', 'yes', 'is not a bool, such as True'),
    ('config.data.name', 3, "is not a str, such as 'embedded'"),
    ('config.data.path', [], "is not a str, such as ''"),
  ],
)
def test_a_wrong_type(path, value, expected):
  message = message_of(from_config_dict, edited(path, value))
  assert message == f'{path}={value!r} {expected}'


@pytest.mark.parametrize(
  'path, value, expected',
  [
    (
      'config.generator.name',
      'unet',
      'is unknown: choose from keras_unet, resnet, torch_unet, vit_unet, or '
      'pass the --plugin=FILE.py that registers it',
    ),
    (
      'config.loss.adversarial',
      'LSGAN',
      'is unknown: choose from minimax, vanilla, lsgan, hinge, wgan_gp, or '
      'pass the --plugin=FILE.py that registers it',
    ),
    ('config.batch_size', 0, 'is too small: at least 1'),
    ('config.seed', -1, 'is too small: at least 0'),
    ('config.data.size', 4, 'is too small: at least 8'),
    ('config.generator.isize', 8192, 'is too large: at most 4096'),
    ('config.generator.dropout', 1.0, 'is too large: at most 0.95'),
    ('config.generator.dropout', -0.1, 'is too small: at least 0'),
    ('config.loss.cycle_a', -1, 'is too small: at least 0'),
    ('config.optimizer.b1', 1, 'is too large: at most 0.9999'),
    ('config.optimizer.eps', 0, 'is too small: at least 1e-16'),
    ('config.optimizer.learning_rate', math.nan, 'is not a finite number'),
    ('config.optimizer.learning_rate', math.inf, 'is not a finite number'),
    ('config.loss.r1', -math.inf, 'is not a finite number'),
  ],
)
def test_out_of_range(path, value, expected):
  # An integer is a float in the message, as it would be in the run.
  kind = type(option_at(path).default)
  message = message_of(from_config_dict, edited(path, value))
  assert message == f'{path}={kind(value)!r} {expected}'


@pytest.mark.parametrize(
  'path', [p for p in PATHS if option_at(p).metadata['low'] is not None]
)
def test_the_bounds_themselves_are_in_range(path):
  """Each section by itself: sizes that fit each other are another matter."""
  kind = Config
  for name in path.split('.')[1:-1]:
    kind = type(kind.__dataclass_fields__[name].default)
  field, name = option_at(path), path.split('.')[-1]
  low, high = field.metadata['low'], field.metadata['high']
  if kind is not Config or name != 'size':
    assert getattr(kind(**{name: low}), name) == low
  below = low - 1 if isinstance(field.default, int) else low - 1e-3
  assert 'is too small' in message_of(kind, **{name: below})
  if high is not None:
    assert getattr(kind(**{name: high}), name) == high
    above = high + 1 if isinstance(field.default, int) else high + 1e-3
    assert 'is too large' in message_of(kind, **{name: above})


@pytest.mark.parametrize(
  'values, expected',
  [
    (
      {'generator': 'resnet'},
      "config.generator='resnet' is a single value: config.generator is a "
      'group of options, such as config.generator.name',
    ),
    (
      {'loss': None},
      'config.loss=None is a single value: config.loss is a group of options, '
      'such as config.loss.adversarial',
    ),
    (
      3,
      'config=3 is a single value: config is a group of options, such as '
      'config.seed',
    ),
  ],
)
def test_a_group_given_a_single_value(values, expected):
  assert message_of(from_config_dict, values) == expected


def test_a_single_option_given_a_group():
  assert message_of(from_config_dict, {'seed': {'a': 1}}) == (
    "config.seed={'a': 1} is not an int, such as 0"
  )


# Sizes that fit each other.


@pytest.mark.parametrize(
  'size, generator, expected',
  [
    (
      96,
      {'isize': 64},
      'config.data.size=96 does not fit the network, which takes 64: make '
      'config.generator.isize, a power of two, equal to it, or set '
      'config.generator.fixed_input_size=False for multiples',
    ),
    (
      96,
      {'isize': 64, 'fixed_input_size': False},
      'config.data.size=96 does not fit keras_unet, which takes multiples of '
      '64: the nearest is 128',
    ),
    (
      63,
      {'name': 'resnet'},
      'config.data.size=63 does not fit resnet, which takes multiples of 4: '
      'the nearest is 64',
    ),
    (
      300,
      {'name': 'torch_unet', 'isize': 256},
      'config.data.size=300 does not fit torch_unet, which takes multiples of '
      '256: the nearest is 256',
    ),
    (
      20,
      {'name': 'torch_unet', 'isize': 64},
      'config.data.size=20 does not fit torch_unet, which takes multiples of '
      '64: the nearest is 64',
    ),
    (96, {'isize': 96}, 'config.generator.isize=96 is not a power of two'),
    (
      96,
      {'name': 'torch_unet', 'isize': 96},
      'config.generator.isize=96 is not a power of two',
    ),
  ],
)
def test_a_size_that_the_network_does_not_take(size, generator, expected):
  data = {'size': size, 'load_size': size}
  got = message_of(Config().replace, data=data, generator=generator)
  assert got == expected


@pytest.mark.parametrize(
  'size, generator',
  [
    (128, {'isize': 64, 'fixed_input_size': False}),
    (60, {'name': 'resnet', 'isize': 96}),  # the ResNet has no isize
    (128, {'name': 'torch_unet', 'isize': 32}),
  ],
)
def test_a_size_that_the_network_takes(size, generator):
  data = {'size': size, 'load_size': size}
  config = Config().replace(data=data, generator=generator)
  assert size % size_multiple(config.generator) == 0


@pytest.mark.parametrize(
  'discriminator, expected',
  [
    (
      {'name': 'patchgan', 'layers': 4},
      'config.data.size=16 is too small for config.discriminator.layers=4: '
      'lower it to 2',
    ),
    (
      {'layers': 5, 'last_layers': 'valid'},
      'config.data.size=16 is too small for config.discriminator.layers=5: '
      'lower it to 2',
    ),
    ({'layers': 5}, None),
    ({'name': 'pixelgan', 'layers': 9}, None),
  ],
)
def test_a_size_that_leaves_no_logits(discriminator, expected):
  changes = {
    'data': {'size': 16, 'load_size': 16},
    'generator': {'isize': 16},
    'discriminator': discriminator,
  }
  if expected is None:
    Config().replace(**changes)
    return
  with pytest.raises(ConfigError) as caught:
    Config().replace(**changes)
  assert str(caught.value) == expected


def test_a_load_size_below_the_crop():
  data = {'size': 64, 'load_size': 32}
  assert message_of(Config().replace, data=data) == (
    'config.data.load_size=32 is smaller than the crop config.data.size=64: '
    'raise one or lower the other'
  )
  # A crop of the image as it is does not read load_size.
  config = Config().replace(data=data | {'preprocess': 'crop'})
  assert config.data.load_size == 32


# Round trips.


def unlike_the_default():
  return Config().replace(
    seed=7,
    ema_decay=0.999,
    data={'name': 'folder', 'path': 'naïve/ü', 'load_size': 71, 'flip': False},
    generator={'name': 'resnet', 'norm': 'instance', 'affine': False},
    loss={'adversarial': 'lsgan', 'cycle_b': 5, 'r1': 0.1},
    optimizer={'learning_rate': 2e-4, 'eps': 1e-7},
    schedule={'name': 'linear'},
  )


@pytest.mark.parametrize('config', [Config(), unlike_the_default()])
def test_round_trips(config):
  values = to_config_dict(config)
  assert isinstance(values, ml_collections.ConfigDict)
  assert from_config_dict(values) == config
  assert from_config_dict(dataclasses.asdict(config)) == config
  assert from_config_dict(json.loads(values.to_json())) == config
  text = json.dumps(dataclasses.asdict(config))
  assert from_config_dict(json.loads(text)) == config


def test_a_config_dict_is_editable():
  values = to_config_dict(Config())
  values.data.size = values.data.load_size = values.generator.isize = 128
  config = from_config_dict(values)
  assert (config.data.size, config.generator.isize) == (128, 128)


def test_a_misspelt_edit_of_a_config_dict_is_found():
  values = to_config_dict(Config())
  values.update_from_flattened_dict({'data.sized': 128})
  assert message_of(from_config_dict, values) == (
    'config.data.sized does not exist: did you mean config.data.size?'
  )


def test_what_is_left_out_has_its_default():
  assert from_config_dict({}) == Config()
  config = from_config_dict({'loss': {'r1': 1.0}})
  assert config == Config().replace(loss={'r1': 1.0})


def test_former_names_of_options():
  old = {
    'log': {'keep_checkpoints': 7, 'doctor': False},
    'max_skipped_steps': 2,
  }
  expected = Config().replace(
    checkpoint={'keep': 7},
    diagnostics={'enabled': False},
    faults={'max_skipped_steps': 2},
  )
  assert from_config_dict(old) == expected
  values = to_config_dict(Config())
  values.log.update(keep_checkpoints=7, doctor=False)
  values.max_skipped_steps = 2
  assert from_config_dict(values) == expected
  assert old['max_skipped_steps'] == 2
  assert 'is too small' in message_of(
    from_config_dict, {'log': {'keep_checkpoints': 0}}
  )


def test_replace_edits_inside_a_group_and_leaves_the_old():
  old = Config()
  new = old.replace(seed=3, loss={'r1': 1.0})
  assert (new.seed, new.loss.r1, new.loss.cycle_a) == (3, 1.0, 10.0)
  assert old == Config()
  whole = old.replace(loss=LossConfig(r1=2.0))
  assert whole.loss == LossConfig(r1=2.0)
  assert 'is too small' in message_of(old.replace, batch_size=0)
  assert 'is too small' in message_of(old.replace, loss={'r1': -1.0})


def test_an_integer_is_stored_as_the_float_it_stands_for():
  cycle = LossConfig(cycle_a=10).cycle_a
  assert isinstance(cycle, float)
  assert LossConfig(cycle_a=10) == LossConfig(cycle_a=10.0)


def test_a_config_is_frozen():
  with pytest.raises(dataclasses.FrozenInstanceError):
    Config().seed = 1
  with pytest.raises(dataclasses.FrozenInstanceError):
    Config().loss.r1 = 1.0


# Equality, and what `jit` makes of it.


def test_equal_configs_are_one_key():
  one, other = unlike_the_default(), unlike_the_default()
  assert one is not other
  assert one == other
  assert hash(one) == hash(other)
  assert len({one, other, Config(), one.replace(seed=8)}) == 3


def test_train_step_is_traced_once_for_equal_configs(tiny_config):
  traces = []

  # A jit inside a jit is traced when the outer one is.
  def counted(state, batch, *, config):
    traces.append(config)
    return train_step(state, batch, config=config)

  step = jax.jit(counted, static_argnames='config')
  state = jax.eval_shape(
    lambda key: create_train_state(tiny_config, key), jax.random.key(0)
  )
  image = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
  batch = {'a': image, 'b': image}
  step.eval_shape(state, batch, config=tiny_config)
  equal = from_config_dict(to_config_dict(tiny_config))
  assert equal is not tiny_config
  step.eval_shape(state, batch, config=equal)
  assert len(traces) == 1
  # It does not go into the program, but is a part of the key all the same.
  step.eval_shape(state, batch, config=tiny_config.replace(seed=9))
  assert len(traces) == 2


# Differences, and the table of options.


def test_differences():
  old = Config()
  new = old.replace(batch_size=8, loss={'r1': 1.0}, data={'path': 'x'})
  assert differences(old, new) == {
    'config.batch_size': (4, 8),
    'config.data.path': ('', 'x'),
    'config.loss.r1': (0.0, 1.0),
  }
  assert differences(old, Config()) == {}


def test_every_option_has_one_path():
  def leaves(values, path):
    for name, value in values.items():
      if isinstance(value, dict):
        yield from leaves(value, f'{path}.{name}')
      else:
        yield f'{path}.{name}', value

  defaults = dict(leaves(dataclasses.asdict(Config()), 'config'))
  assert sorted(PATHS) == sorted(defaults)
  for path in PATHS:
    assert option_at(path).default == defaults[path]


@pytest.mark.parametrize('path', PATHS)
def test_every_option_has_help_and_a_sound_default(path):
  field = option_at(path)
  text = field.metadata['help']
  assert text.strip() == text != ''
  assert not text.endswith('.')
  choices = field.metadata['choices']
  assert choices is None or field.default in choices
  assert type(field.default) in (int, float, bool, str)


def test_every_field_is_an_option_or_a_section():
  """So that none goes unchecked."""
  sections = [Config]
  for section in sections:
    for field in dataclasses.fields(section):
      if isinstance(field.default, Section):
        sections.append(type(field.default))
        expected = f'config.{field.name}'
        assert type(field.default)._path == expected
      else:
        assert 'help' in field.metadata, f'{section.__name__}.{field.name}'
  assert len(sections) == 13


# What the config derives.


def test_channels_by_domain():
  config = Config(data=DataConfig(channels_a=1, channels_b=4))
  assert (config.channels('a'), config.channels('b')) == (1, 4)


@pytest.mark.parametrize(
  'channels_b, weights, expected',
  [
    (3, {}, False),
    (3, {'identity_a': 5.0}, True),
    (3, {'identity_b': 5.0}, True),
    (1, {'identity_a': 5.0, 'identity_b': 5.0}, False),
  ],
)
def test_uses_identity(channels_b, weights, expected):
  config = Config().replace(data={'channels_b': channels_b}, loss=weights)
  assert config.uses_identity is expected


def test_size_multiple():
  assert size_multiple(GeneratorConfig(name='resnet', isize=64)) == 4
  assert size_multiple(GeneratorConfig(name='torch_unet', isize=64)) == 64
  assert size_multiple(GeneratorConfig(name='keras_unet', isize=64)) == 64


def test_paths_are_expanded(monkeypatch):
  monkeypatch.setenv('HOME', '/home/me')
  monkeypatch.setenv('DATA', '/data')
  config = Config(
    data=DataConfig(name='folder', path='$DATA/horses', train_a='~/a'),
    init_from='${DATA}/run',
  )
  expanded = expand_paths(config)
  assert expanded.data.path == '/data/horses'
  assert expanded.data.train_a == '/home/me/a'
  assert expanded.init_from == '/data/run'
  assert expand_paths(expanded) == expanded


@pytest.mark.parametrize(
  'path', [p for p in option_paths() if option_at(p).metadata['is_path']]
)
def test_urls_are_no_paths(path):
  *_, section, name = path.split('.')
  changes = {name: 'gs://bucket/x'}
  if section != 'config':
    changes = {section: changes}
  with pytest.raises(ConfigError, match=path):
    expand_paths(Config().replace(**changes))


def test_names_of_domains():
  drawings, folders = Config().data, Config().replace(data={'name': 'folder'})
  assert drawings.way('ab') == 'horse → zebra'
  assert folders.data.way('ba', ' to ') == 'b to a'
  named = folders.replace(data={'name_a': 'Äpfel', 'name_b': 'x y'}).data
  assert named.way('ab', '/') == 'Äpfel/x y'
  assert named.name_of('a') == 'Äpfel'


@pytest.mark.parametrize(
  ('names', 'option'),
  [
    ({'name_a': 'x\n'}, 'config.data.name_a'),
    ({'name_b': 'x' * 41}, 'config.data.name_b'),
    ({'name_a': 'x', 'name_b': 'x'}, 'config.data.name_b'),
    ({'name_a': 'zebra'}, 'config.data.name_a'),
  ],
)
def test_names_that_cannot_be_shown(names, option):
  with pytest.raises(ConfigError, match=option):
    Config().replace(data=names)
