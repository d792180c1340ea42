"""Weights under the names of the authors' PyTorch code go in and out.

tests/test_torch_weights.py compares with PyTorch itself.
"""

import json
import os

import jax
import numpy as np
import pytest

from cyclegan_jax import create_train_state
from cyclegan_jax.commands import export, import_weights
from cyclegan_jax.config import Config, DiscriminatorConfig, GeneratorConfig
from cyclegan_jax.errors import ConfigError, WeightsError, WorkdirError
from cyclegan_jax.interop.pth import read_pth, write_pth
from cyclegan_jax.interop.torch_infer import (
  Network,
  infer_discriminator,
  infer_generator,
)
from cyclegan_jax.interop.torch_names import (
  params_from_torch,
  params_to_torch,
  rename,
)
from cyclegan_jax.nets import make_discriminator, make_generator
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.storage.checkpoint import Saver

RESNET = GeneratorConfig(
  name='resnet',
  filters=2,
  blocks=1,
  norm='instance',
  affine=False,
  padding='reflect',
  dropout=0.0,
  init='normal',
)
UNET = GeneratorConfig(
  name='torch_unet',
  filters=1,
  isize=32,
  norm='batch',
  dropout=0.0,
  init='normal',
)
PATCHGAN = DiscriminatorConfig(
  name='patchgan', filters=2, layers=2, norm='batch', init='normal'
)


def random_params(config, channels_in=3, channels_out=3, seed=0):
  if isinstance(config, GeneratorConfig):
    network = make_generator(config, channels=channels_out)
  else:
    network = make_discriminator(config)
  image = jax.ShapeDtypeStruct((1, 64, 64, channels_in), np.float32)
  keys = {'params': jax.random.key(0), 'dropout': jax.random.key(0)}
  shapes = jax.eval_shape(network.init, keys, image)['params']
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), shapes
  )


def torch_arrays(config, *channels, seed=0):
  return params_to_torch(random_params(config, *channels, seed=seed), config)


def assert_equal(params, expected):
  jax.tree.map(np.testing.assert_array_equal, params, expected)


@pytest.mark.parametrize(
  'config, channels',
  [
    (RESNET, (3, 1)),
    (UNET, (1, 3)),
  ],
)
def test_generators_are_inferred_and_converted(config, channels):
  params = random_params(config, *channels)
  tensors = params_to_torch(params, config)
  assert infer_generator(tensors) == Network(config, *channels)
  again = params_from_torch(
    tensors, config, channels_in=channels[0], channels_out=channels[1]
  )
  assert_equal(again, params)


@pytest.mark.parametrize(
  'config',
  [
    PATCHGAN,
    DiscriminatorConfig(
      name='pixelgan', filters=2, norm='instance', affine=False, init='normal'
    ),
  ],
)
def test_discriminators_are_inferred_and_converted(config):
  params = random_params(config)
  tensors = params_to_torch(params, config)
  assert infer_discriminator(tensors) == config
  assert_equal(params_from_torch(tensors, config), params)


def test_prefixes_and_other_names_are_mapped():
  plain = torch_arrays(RESNET)
  for prefix in ('module.', 'state_dict.', 'state_dict.module.'):
    wrapped = {f'{prefix}{name}': array for name, array in plain.items()}
    if 'state_dict' in prefix:
      wrapped['optimizer.state.0.exp_avg'] = np.zeros(3)
    assert list(rename(wrapped)) == list(plain)
  others = {
    f'gen.{"out.w" if name == "model.17.weight" else name}': array
    for name, array in plain.items()
  } | {'gen.extra.scale': np.zeros(2), 'gen.model.extra': np.zeros(2)}
  renames = {
    'gen.': '',
    'gen.out.w': 'model.17.weight',
    'gen.extra.': None,
    'gen.model.extra': None,
  }
  assert list(rename(others, renames)) == list(plain)
  with pytest.raises(WeightsError, match=r"'b'.*--map"):
    rename({'a': np.zeros(1), 'b': np.zeros(1)}, {'a': 'b'})


def without(tensors, *names):
  return {name: x for name, x in tensors.items() if name not in names}


@pytest.mark.parametrize(
  'change, message',
  [
    (
      lambda t: without(t, 'model.4.bias'),
      r'1 missing \(model.4.bias\).*--map',
    ),
    (
      lambda t: t | {'model.99.weight\n': np.zeros(1)},
      r"1 unexpected \('model.99.weight\\n'\)",
    ),
    (
      lambda t: t | {'model.4.weight': np.zeros((4, 3, 3, 3), np.float32)},
      r'model.4.weight is \(4, 3, 3, 3\) instead of \(4, 2, 3, 3\)',
    ),
    (
      lambda t: t | {'model.4.bias': np.full(4, np.nan, np.float32)},
      'model.4.bias, whose numbers are not all finite',
    ),
    (
      lambda t: (
        without(t, 'model.4.weight') | {str(i): np.zeros(1) for i in range(4)}
      ),
      r"1 missing \(model.4.weight\); 4 unexpected \('0', '1', '2', ...\)",
    ),
    (lambda t: without(t, 'model.1.weight'), "'model.1.bias'.*--map"),
    (
      lambda t: t | {'model.1.weight': np.zeros(3)},
      'model.1.weight is no kernel',
    ),
    (lambda t: without(t, 'model.18.weight'), 'model.18.weight is missing'),
    (
      lambda t: t | {'model.10.conv_block.0.weight': np.zeros((8, 8, 3, 3))},
      "padding_type='reflect'",
    ),
  ],
)
def test_weights_that_do_not_fit_are_named(change, message):
  tensors = change(torch_arrays(RESNET))
  with pytest.raises(WeightsError, match=f'^x.pth .*{message}'):
    params_from_torch(
      tensors,
      infer_generator(tensors, source='x.pth').config,
      source='x.pth',
    )


@pytest.mark.parametrize(
  'options, missing',
  [
    ({'name': 'keras_unet'}, "generator.name='keras_unet'"),
    ({'name': 'vit_unet'}, "generator.name='vit_unet'"),
    (
      {'name': 'resnet', 'padding': 'reflect', 'upsample': 'resize'},
      "generator.upsample='resize'",
    ),
    ({'name': 'resnet'}, "generator.padding='zero' with name='resnet'"),
    ({'name': 'torch_unet', 'norm': 'none'}, "generator.norm='none'"),
    (
      {'name': 'torch_unet', 'affine': False},
      "generator.affine=False with norm='batch'",
    ),
    ({'name': 'torch_unet', 'isize': 16}, 'generator.isize=16'),
  ],
)
def test_networks_that_the_authors_do_not_have_are_not_written(
  options, missing
):
  with pytest.raises(WeightsError, match=f'config.{missing}'):
    params_to_torch({}, GeneratorConfig(**options))


def test_a_spectral_discriminator_is_not_written():
  config = DiscriminatorConfig(name='patchgan', spectral_norm=True)
  with pytest.raises(WeightsError, match='spectral_norm=True'):
    params_to_torch({}, config)


# The commands.


def run_import(*argv):
  return import_weights.run([str(word) for word in argv], 'cyclegan import')


def run_export(*argv):
  argv = [str(word) for word in argv]
  return export.run([*argv, '--format', 'pth'], 'cyclegan export')


@pytest.fixture(scope='module')
def both(tmp_path_factory):
  """Two generators and a discriminator as files, and a checkpoint of them."""
  folder = tmp_path_factory.mktemp('both')
  write_pth(folder / 'G_A.pth', torch_arrays(RESNET, 3, 1, seed=1))
  write_pth(folder / 'G_B.pth', torch_arrays(RESNET, 1, 3, seed=2))
  write_pth(folder / 'D_A.pth', torch_arrays(PATCHGAN, 1))
  files = [folder / 'G_A.pth', folder / 'G_B.pth', '--d-a', folder / 'D_A.pth']
  # An import is completed over what an interrupted one left.
  left = folder / 'run' / 'checkpoints' / '.0.tmp' / 'state'
  left.mkdir(parents=True)
  (left / 'd').write_text('half')
  assert run_import(*files, '--to', folder / 'run', '--size', 32) == 0
  assert os.listdir(folder / 'run' / 'checkpoints') == ['0']
  return folder


@pytest.mark.slow
def test_an_imported_checkpoint_holds_the_networks(both):
  saved = checkpoint.load(both / 'run')
  state, config = saved.state, saved.config
  assert_equal(state.gen['ab'], random_params(RESNET, 3, 1, seed=1))
  assert_equal(state.gen['ba'], random_params(RESNET, 1, 3, seed=2))
  assert_equal(state.disc['b'], random_params(PATCHGAN, 1))
  assert (config.generator, config.discriminator) == (RESNET, PATCHGAN)
  assert (config.data.channels_a, config.data.channels_b) == (3, 1)
  assert (config.data.size, config.data.load_size) == (32, 35)
  assert (config.batch_size, config.loss.adversarial) == (1, 'lsgan')


@pytest.mark.slow
def test_it_is_exported_again(both, tmp_path, capsys):
  assert run_export(both / 'run', '--to', tmp_path / 'out') == 0
  for name in ('G_A', 'G_B'):
    path = tmp_path / 'out' / f'latest_net_{name}.pth'
    tensors, expected = read_pth(path), read_pth(both / f'{name}.pth')
    assert list(tensors) == list(expected)
    assert_equal(tensors, expected)
  assert 'ResnetGenerator(3, 1, ngf=2' in capsys.readouterr().out
  one = tmp_path / 'one.pth'
  assert run_export(both / 'run', '--to', one, '--direction', 'ba') == 0
  assert read_pth(one).keys() == expected.keys()
  with pytest.raises(WorkdirError, match=r'one.pth .* --overwrite'):
    run_export(both / 'run', '--to', one, '--direction', 'ba')
  with pytest.raises(ConfigError, match='two generators need a folder'):
    run_export(both / 'run', '--to', tmp_path / 'two.pth')


@pytest.mark.slow
def test_one_direction_under_other_names_does_not_pass_for_two(
  tmp_path, caplog
):
  path, run = tmp_path / 'G.pth', tmp_path / 'run'
  tensors = torch_arrays(UNET)
  write_pth(path, {f'enc.{name}': array for name, array in tensors.items()})
  (tmp_path / 'map.json').write_text(json.dumps({'enc.': ''}))
  options = ['--to', run, '--direction', 'ba', '--size', 32]
  options += ['--map', tmp_path / 'map.json']
  assert run_import(path, *options, '--dropout', '0.5') == 0
  assert [message.startswith(f'{path}: ') for message in caplog.messages] == [
    True
  ]
  assert 'running statistics' in caplog.text
  saved = checkpoint.load(run, direction='ba')
  state, config = saved.state, saved.config
  assert_equal(state.gen['ba'], random_params(UNET))
  assert config.generator.dropout == 0.5
  with pytest.raises(WorkdirError, match='no trained generator for ab'):
    checkpoint.load(run, direction='ab')
  assert run_export(run, '--to', tmp_path / 'out') == 0
  assert [file.name for file in (tmp_path / 'out').iterdir()] == [
    'latest_net_G_B.pth'
  ]


@pytest.mark.slow
def test_the_average_is_exported_where_there_is_one(tmp_path, capsys):
  config = Config().replace(
    ema_decay=0.9,
    data={'size': 32, 'load_size': 32},
    generator={'name': 'torch_unet', 'isize': 32, 'filters': 1},
    discriminator={'filters': 1, 'layers': 1},
  )
  state = create_train_state(config, jax.random.key(0))
  state = state.replace(gen_ema=jax.tree.map(lambda x: x + 1, state.gen))
  with Saver(tmp_path / 'run' / 'checkpoints', config) as saver:
    saver.save(state)
  to = ['--to', tmp_path / 'a.pth', '--direction', 'ab']
  run_export(tmp_path / 'run', *to)
  tensors = read_pth(tmp_path / 'a.pth')
  expected = np.asarray(state.gen_ema['ab']['down_0']['kernel'])
  got = tensors['model.model.0.weight'].transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(got, expected)
  printed = capsys.readouterr().out
  assert 'UnetGenerator(3, 3, ngf=1, norm_layer=BatchNorm2d' in printed
  assert 'without --eval' in printed


def test_networks_that_do_not_belong_together(both, tmp_path):
  generator, other = both / 'G_A.pth', tmp_path / 'B.pth'
  two = {**vars(RESNET), 'blocks': 2}
  write_pth(other, torch_arrays(GeneratorConfig(**two), 1, 3))
  to = ['--to', tmp_path / 'run']
  with pytest.raises(WeightsError, match=r'G_A.pth .*B.pth .*blocks 1 and 2'):
    run_import(generator, other, *to)
  with pytest.raises(WeightsError, match='maps 3 channels to 1'):
    run_import(generator, generator, *to)
  disc = tmp_path / 'D.pth'
  write_pth(disc, torch_arrays(PATCHGAN, 3))
  with pytest.raises(WeightsError, match=r'D.pth .* 3 channels, .* b have 1'):
    run_import(generator, '--d-a', disc, *to)
  assert not (tmp_path / 'run').exists()


def test_wrong_arguments(both, tmp_path):
  file = both / 'G_A.pth'
  with pytest.raises(ConfigError, match='give one or two generators'):
    run_import(file, file, file, '--to', tmp_path)
  with pytest.raises(ConfigError, match='is for one generator alone'):
    run_import(file, file, '--to', tmp_path, '--direction', 'ab')
  with pytest.raises(WorkdirError, match=r'is not empty.*--to'):
    run_import(file, '--to', both)
  with pytest.raises(WeightsError, match=r'G_A.pth .*--dropout'):
    run_import(file, '--to', tmp_path, '--dropout', '0.1')
  (tmp_path / 'map.json').write_text('[1]')
  with pytest.raises(WeightsError, match=r'map.json cannot be read'):
    run_import(file, '--to', tmp_path / 'run', '--map', tmp_path / 'map.json')
