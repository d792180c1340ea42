"""Weights of the authors' networks go in and out, layer for layer.

The networks are written here with torch.nn as the authors' code numbers its
layers, saved by torch itself, and read without it.
"""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

from cyclegan_jax import (
  create_train_state,
  make_translator,
)
from cyclegan_jax.commands import export, import_weights
from cyclegan_jax.config import Config, DiscriminatorConfig, GeneratorConfig
from cyclegan_jax.errors import ConfigError, WeightsError, WorkdirError
from cyclegan_jax.interop.pth import read_pth, write_pth
from cyclegan_jax.interop.torch_infer import (
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

torch = pytest.importorskip('torch')
nn = torch.nn

pytestmark = pytest.mark.torch

NORMS = {
  'batch': nn.BatchNorm2d,
  'instance': nn.InstanceNorm2d,
  'affine': functools.partial(nn.InstanceNorm2d, affine=True),
  'old instance': functools.partial(
    nn.InstanceNorm2d, track_running_stats=True
  ),
  'none': lambda channels: nn.Identity(),
}


class Block(nn.Module):
  def __init__(self, channels, norm, bias, dropout):
    super().__init__()
    layers = []
    for half in range(2):
      layers += [
        nn.ReflectionPad2d(1),
        nn.Conv2d(channels, channels, 3, bias=bias),
        norm(channels),
      ]
      if not half:
        layers.append(nn.ReLU())
        layers += [nn.Dropout(0.5)] * dropout
    self.conv_block = nn.Sequential(*layers)

  def forward(self, x):
    return x + self.conv_block(x)


class ResNet(nn.Module):
  def __init__(self, norm, i=3, o=3, f=4, blocks=2, dropout=False):
    super().__init__()
    bias, make = 'instance' in norm or norm == 'affine', NORMS[norm]
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(i, f, 7, bias=bias), make(f)]
    layers.append(nn.ReLU())
    for width in (f, 2 * f):
      down = nn.Conv2d(width, 2 * width, 3, 2, 1, bias=bias)
      layers += [down, make(2 * width), nn.ReLU()]
    layers += [Block(4 * f, make, bias, dropout) for _ in range(blocks)]
    for width in (2 * f, f):
      up = nn.ConvTranspose2d(2 * width, width, 3, 2, 1, 1, bias=bias)
      layers += [up, make(width), nn.ReLU()]
    layers += [nn.ReflectionPad2d(3), nn.Conv2d(f, o, 7), nn.Tanh()]
    self.model = nn.Sequential(*layers)

  def forward(self, x):
    return self.model(x)


class Level(nn.Module):
  """One level of the U-Net; its activations work in place, as theirs do."""

  def __init__(self, make, bias, outer, inner, i=None, inside=None, last=True):
    super().__init__()
    self.is_first = not last
    down = nn.Conv2d(i or outer, inner, 4, 2, 1, bias=bias)
    leaky, relu = nn.LeakyReLU(0.2, inplace=True), nn.ReLU(inplace=True)
    below = 2 * inner if inside else inner
    up_bias = True if self.is_first else bias
    up = nn.ConvTranspose2d(below, outer, 4, 2, 1, bias=up_bias)
    if self.is_first:
      layers = [down, inside, relu, up, nn.Tanh()]
    elif inside is None:
      layers = [leaky, down, relu, up, make(outer)]
    else:
      layers = [leaky, down, make(inner), inside, relu, up, make(outer)]
    self.model = nn.Sequential(*layers)

  def forward(self, x):
    return self.model(x) if self.is_first else torch.cat([x, self.model(x)], 1)


class UNet(nn.Module):
  def __init__(self, norm, i=3, o=3, f=3, depth=5):
    super().__init__()
    bias, make = 'instance' in norm or norm == 'affine', NORMS[norm]
    level = Level(make, bias, 8 * f, 8 * f)
    for _ in range(depth - 5):
      level = Level(make, bias, 8 * f, 8 * f, inside=level)
    for width in (4 * f, 2 * f, f):
      level = Level(make, bias, width, 2 * width, inside=level)
    self.model = Level(make, bias, o, f, i, inside=level, last=False)

  def forward(self, x):
    return self.model(x)


class PatchGAN(nn.Module):
  def __init__(self, norm, i=3, f=4, n=3):
    super().__init__()
    bias, make = 'instance' in norm or norm == 'affine', NORMS[norm]
    layers, width = [nn.Conv2d(i, f, 4, 2, 1), nn.LeakyReLU(0.2)], f
    for level in range(1, n + 1):
      new = f * min(2**level, 8)
      stride = 2 if level < n else 1
      layers.append(nn.Conv2d(width, new, 4, stride, 1, bias=bias))
      layers += [make(new), nn.LeakyReLU(0.2)]
      width = new
    self.model = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, 1, 1))

  def forward(self, x):
    return self.model(x)


class PixelGAN(nn.Module):
  def __init__(self, norm, i=3, f=4):
    super().__init__()
    bias, make = 'instance' in norm or norm == 'affine', NORMS[norm]
    layers = [nn.Conv2d(i, f, 1), nn.LeakyReLU(0.2)]
    layers += [nn.Conv2d(f, 2 * f, 1, bias=bias), make(2 * f)]
    layers += [nn.LeakyReLU(0.2), nn.Conv2d(2 * f, 1, 1, bias=bias)]
    self.net = nn.Sequential(*layers)

  def forward(self, x):
    return self.net(x)


def draw(net, seed=0):
  """Weights and statistics far from those of a new network."""
  generator = torch.Generator().manual_seed(seed)
  for name, weight in net.state_dict().items():
    if weight.is_floating_point():
      noise = torch.randn(weight.shape, generator=generator)
      fan = weight[0].numel() if weight.ndim == 4 else 1
      is_scale = name.endswith(('weight', 'var')) and weight.ndim == 1
      weight.copy_(1 + 0.3 * noise if is_scale else noise / fan**0.5)
  return net


def images(size, channels=3, seed=1):
  values = np.random.default_rng(seed).uniform(-1, 1, (1, size, size, channels))
  return values.astype(np.float32)


def run_theirs(net, x):
  with torch.no_grad():
    y = net(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
  return y.numpy().transpose(0, 2, 3, 1)


def check(got, expected):
  assert got.shape == expected.shape
  assert np.std(expected) > 0.05
  assert np.mean(np.abs(np.abs(expected) - 1) < 0.01) < 0.5
  assert np.max(np.abs(got - expected)) < 1e-4


def saved(net, path, *, zipped=True):
  torch.save(net.state_dict(), path, _use_new_zipfile_serialization=zipped)
  return path


GENERATORS = {
  'resnet': (lambda: ResNet('instance', i=1), {'affine': False}),
  'resnet affine': (lambda: ResNet('affine', o=2), {}),
  'resnet with old statistics': (
    lambda: ResNet('old instance', blocks=1),
    {'affine': False, 'blocks': 1},
  ),
  'resnet batch': (lambda: ResNet('batch'), {'norm': 'batch'}),
  'resnet none': (
    lambda: ResNet('none'),
    {'norm': 'none', 'affine': False},
  ),
  'resnet dropout': (
    lambda: ResNet('instance', dropout=True),
    {'affine': False, 'dropout': 0.5},
  ),
  'unet instance': (
    lambda: UNet('instance', i=2, o=1),
    {'affine': False, 'isize': 32},
  ),
  'unet affine': (lambda: UNet('affine', depth=6), {'isize': 64}),
  'unet batch': (
    lambda: UNet('batch', depth=7, f=1),
    {'norm': 'batch', 'isize': 128, 'filters': 1},
  ),
}


def expected_config(name):
  is_unet = 'unet' in name
  common = {'norm': 'instance', 'dropout': 0.0, 'init': 'normal'}
  if is_unet:
    common |= {'name': 'torch_unet', 'filters': 3, 'padding': 'zero'}
  else:
    common |= {'name': 'resnet', 'filters': 4, 'padding': 'reflect'}
    common |= {'blocks': 2}
  return GeneratorConfig(**common | GENERATORS[name][1])


def as_today(net):
  """As the authors' test.py runs it: dropout aside, which torch draws."""
  for layer in net.modules():
    if isinstance(layer, nn.Dropout):
      layer.eval()
    elif isinstance(layer, nn.InstanceNorm2d):
      layer.track_running_stats = False
  return net


def to_ours(tensors, **source):
  network = infer_generator(tensors, **source)
  params = params_from_torch(
    tensors,
    network.config,
    channels_in=network.channels_in,
    channels_out=network.channels_out,
    **source,
  )
  return network, params


def run_ours(network, params, x):
  config = dataclasses.replace(network.config, dropout=0.0)
  ours = make_generator(config, channels=network.channels_out)
  return jax.jit(ours.apply)({'params': params}, x)


@pytest.mark.parametrize('name', GENERATORS)
def test_generator_layer_for_layer(name, tmp_path):
  net = draw(GENERATORS[name][0]())
  tensors = read_pth(saved(net, tmp_path / 'G.pth'))
  older = read_pth(saved(net, tmp_path / 'old.pth', zipped=False))
  assert list(older) == list(tensors)
  for key, each in tensors.items():
    np.testing.assert_array_equal(older[key], each)
  assert set(tensors) == set(net.state_dict())
  network, params = to_ours(tensors)
  assert network.config == expected_config(name)
  x = images(max(32, network.config.isize), network.channels_in)
  expected = run_theirs(as_today(net), x)
  assert expected.shape[-1] == network.channels_out
  check(run_ours(network, params, x), expected)


@pytest.mark.parametrize(
  'name', [name for name in GENERATORS if not name.endswith('none')]
)
def test_what_is_written_loads_strictly_and_gives_the_same(name, tmp_path):
  net = draw(GENERATORS[name][0]())
  network, params = to_ours(arrays(net))
  write_pth(tmp_path / 'G.pth', params_to_torch(params, network.config))
  other = GENERATORS[name.replace(' with old statistics', '')][0]()
  if 'old' in name:
    other = ResNet('instance', blocks=1)
  loaded = torch.load(tmp_path / 'G.pth', weights_only=True)
  other.load_state_dict(loaded, strict=True)
  x = images(max(32, network.config.isize), network.channels_in)
  expected = run_theirs(as_today(net), x)
  np.testing.assert_array_equal(run_theirs(as_today(other), x), expected)


def arrays(net):
  return {name: each.numpy() for name, each in net.state_dict().items()}


DISCRIMINATORS = {
  'patchgan instance': (
    lambda: PatchGAN('instance'),
    {'affine': False},
  ),
  'patchgan batch': (
    lambda: PatchGAN('batch', i=1, n=2),
    {'norm': 'batch', 'layers': 2},
  ),
  'patchgan affine': (lambda: PatchGAN('affine', n=4), {'layers': 4}),
  'pixelgan instance': (
    lambda: PixelGAN('instance'),
    {'name': 'pixelgan', 'affine': False},
  ),
  'pixelgan batch': (
    lambda: PixelGAN('batch'),
    {'name': 'pixelgan', 'norm': 'batch'},
  ),
}


@pytest.mark.parametrize('name', DISCRIMINATORS)
def test_discriminator_in_and_out(name):
  make, options = DISCRIMINATORS[name]
  net = draw(make())
  config = infer_discriminator(arrays(net))
  common = {'name': 'patchgan', 'filters': 4, 'norm': 'instance'}
  assert config == DiscriminatorConfig(**common | {'init': 'normal'} | options)
  channels = next(net.parameters()).shape[1]
  params = params_from_torch(arrays(net), config, channels_in=channels)
  x = images(64, channels)
  ours = jax.jit(make_discriminator(config).apply)({'params': params}, x)
  expected = run_theirs(net, x)
  check(ours, expected)
  other = make()
  other.load_state_dict(
    {
      key: torch.from_numpy(np.array(each))
      for key, each in params_to_torch(params, config).items()
    }
  )
  np.testing.assert_array_equal(run_theirs(other, x), expected)


def test_a_resnet_of_full_size_has_the_papers_number_of_parameters():
  with torch.device('meta'):
    net = ResNet('instance', f=64, blocks=9)
  tensors = {
    name: np.zeros(each.shape, np.float32)
    for name, each in net.state_dict().items()
  }
  network, params = to_ours(tensors)
  assert (network.config.blocks, network.config.filters) == (9, 64)
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  assert count == 11_378_179


def resnet_arrays(**options):
  return arrays(draw(ResNet('instance', f=2, blocks=1, **options)))


def test_names_of_wrappers_and_of_others_are_mapped():
  plain = resnet_arrays()
  for wrapped in (
    {f'module.{name}': each for name, each in plain.items()},
    {f'state_dict.{name}': each for name, each in plain.items()}
    | {'optimizer.state.0.exp_avg': np.zeros(3)},
    {f'state_dict.module.{name}': each for name, each in plain.items()},
  ):
    assert list(rename(wrapped)) == list(plain)
  others = {
    f'gen.{"out.w" if name == "model.18.weight" else name}': each
    for name, each in plain.items()
  } | {'gen.extra.scale': np.zeros(2), 'gen.model.extra': np.zeros(2)}
  renames = {
    'gen.': '',
    'gen.out.w': 'model.18.weight',
    'gen.extra.': None,
    'gen.model.extra': None,
  }
  assert list(rename(others, renames)) == list(plain)


def test_two_tensors_of_one_name_are_told():
  with pytest.raises(WeightsError) as caught:
    rename({'a': np.zeros(1), 'b': np.zeros(1)}, {'a': 'b'})
  assert str(caught.value) == (
    "two tensors come to the name 'b': mend the map of names"
  )


def without(tensors, *names):
  return {name: each for name, each in tensors.items() if name not in names}


NO_FIT = "x.pth does not fit resnet of the authors' code: "
ADVICE = ': give weights of that network alone, or --map for other names'


@pytest.mark.parametrize(
  'change, message',
  [
    (
      lambda t: without(t, 'model.4.bias'),
      NO_FIT + '1 missing (model.4.bias)' + ADVICE,
    ),
    (
      lambda t: t | {'model.99.weight\n': np.zeros(1)},
      NO_FIT + "1 unexpected ('model.99.weight\\n')" + ADVICE,
    ),
    (
      lambda t: t | {'model.4.bias': np.zeros(9, np.float32)},
      NO_FIT + '1 wrong (model.4.bias is (9,) instead of (4,))' + ADVICE,
    ),
    (
      lambda t: t | {'model.4.weight': np.zeros((4, 3, 3, 3), np.float32)},
      NO_FIT
      + '1 wrong (model.4.weight is (4, 3, 3, 3) instead of (4, 2, 3, 3))'
      + ADVICE,
    ),
    (
      lambda t: t | {'model.4.bias': np.full(4, np.nan, np.float32)},
      NO_FIT
      + '1 wrong (model.4.bias, whose numbers are not all finite)'
      + ADVICE,
    ),
    (
      lambda t: (
        without(t, 'model.4.weight') | {str(i): np.zeros(1) for i in range(4)}
      ),
      NO_FIT
      + '1 missing (model.4.weight); '
      + "4 unexpected ('0', '1', '2', ...)"
      + ADVICE,
    ),
    (
      lambda t: without(t, 'model.1.weight'),
      "x.pth has none of the authors' generators: its tensors are "
      "'model.1.bias', 'model.4.weight', 'model.4.bias', 15 in all; if it is "
      'one under other names, give --map',
    ),
    (
      lambda t: t | {'model.1.weight': np.zeros(3)},
      "x.pth does not fit the authors' code: model.1.weight is no kernel",
    ),
    (
      lambda t: without(t, 'model.18.weight'),
      "x.pth does not fit the authors' code: model.18.weight is missing",
    ),
    (
      lambda t: t | {'model.10.conv_block.0.weight': np.zeros((8, 8, 3, 3))},
      'x.pth is of a ResnetGenerator that pads its blocks by zeros: give one '
      "with padding_type='reflect', the authors' default",
    ),
  ],
)
def test_what_does_not_fit_is_named(change, message):
  tensors = change(resnet_arrays())
  with pytest.raises(WeightsError) as caught:
    to_ours(tensors, source='x.pth')
  assert str(caught.value) == message


@pytest.mark.parametrize(
  'options, lacking',
  [
    ({'name': 'keras_unet'}, "config.generator.name='keras_unet'"),
    ({'name': 'vit_unet'}, "config.generator.name='vit_unet'"),
    (
      {'name': 'resnet', 'padding': 'reflect', 'upsample': 'resize'},
      "config.generator.upsample='resize'",
    ),
    (
      {'name': 'resnet'},
      "config.generator.padding='zero' with name='resnet'",
    ),
    (
      {'name': 'torch_unet', 'padding': 'reflect'},
      "config.generator.padding='reflect' with name='torch_unet'",
    ),
    ({'name': 'torch_unet', 'norm': 'none'}, "config.generator.norm='none'"),
    (
      {'name': 'torch_unet', 'affine': False},
      "config.generator.affine=False with norm='batch'",
    ),
    ({'name': 'torch_unet', 'isize': 16}, 'config.generator.isize=16'),
  ],
)
def test_what_the_authors_do_not_have_is_not_written(options, lacking):
  with pytest.raises(WeightsError) as caught:
    params_to_torch({}, GeneratorConfig(**options))
  assert str(caught.value) == (
    f"{lacking} is nothing that the authors' code has, so its weights can not "
    'be written for it: choose another format'
  )


def test_a_spectral_discriminator_is_not_written():
  config = DiscriminatorConfig(name='patchgan', spectral_norm=True)
  with pytest.raises(WeightsError) as caught:
    params_to_torch({}, config)
  assert str(caught.value).startswith(
    "config.discriminator.spectral_norm=True is nothing that the authors' code"
  )


# The commands.


def run_import(*argv):
  return import_weights.run([str(each) for each in argv], 'cyclegan import')


def run_export(*argv):
  argv = [str(each) for each in argv]
  return export.run([*argv, '--format', 'pth'], 'cyclegan export')


@pytest.fixture(scope='module')
def both(tmp_path_factory):
  """Two generators of theirs, and a checkpoint of them."""
  folder = tmp_path_factory.mktemp('both')
  nets = {
    'ab': draw(ResNet('instance', i=3, o=1, f=2), seed=1),
    'ba': draw(ResNet('instance', i=1, o=3, f=2), seed=2),
  }
  judge = draw(PatchGAN('batch', i=1, f=2, n=2))
  files = [
    saved(nets['ab'], folder / 'G_A.pth'),
    saved(nets['ba'], folder / 'G_B.pth', zipped=False),
    '--d-a',
    saved(judge, folder / 'D_A.pth'),
  ]
  assert run_import(*files, '--to', folder / 'run', '--size', 32) == 0
  return folder, nets, judge


def test_an_imported_checkpoint_translates_like_theirs(both):
  folder, nets, judge = both
  for direction, net in nets.items():
    loaded = checkpoint.load(folder / 'run', direction=direction)
    state, config = loaded.state, loaded.config
    x = images(32, 3 if direction == 'ab' else 1)
    translator = make_translator(config, state.translators, direction)
    check(translator(x), run_theirs(net, x))
  assert (config.data.channels_a, config.data.channels_b) == (3, 1)
  assert (config.data.size, config.data.load_size) == (32, 35)
  assert (config.batch_size, config.loss.adversarial) == (1, 'lsgan')
  x = images(32, 1)
  logits = make_discriminator(config.discriminator).apply(
    {'params': state.disc['b']}, x
  )
  check(logits, run_theirs(judge, x))


def test_it_goes_back_to_them(both, tmp_path, capsys):
  folder, nets, _ = both
  assert run_export(folder / 'run', '--to', tmp_path / 'out') == 0
  names = {'ab': 'latest_net_G_A.pth', 'ba': 'latest_net_G_B.pth'}
  for direction, net in nets.items():
    loaded = torch.load(tmp_path / 'out' / names[direction], weights_only=True)
    assert list(loaded) == list(net.state_dict())
    for name, each in net.state_dict().items():
      assert torch.equal(loaded[name], each)
  printed = capsys.readouterr().out.splitlines()
  assert printed[:2] == [
    f'{tmp_path}/out/latest_net_G_A.pth: ab, 0.0 MiB, at most 0.0e+00 from the '
    'translator',
    '  for ResnetGenerator(3, 1, ngf=2, norm_layer=InstanceNorm2d, '
    'use_dropout=False, n_blocks=2)',
  ]
  one = tmp_path / 'one.pth'
  assert run_export(folder / 'run', '--to', one, '--direction', 'ba') == 0
  assert read_pth(one).keys() == nets['ba'].state_dict().keys()
  with pytest.raises(WorkdirError) as caught:
    run_export(folder / 'run', '--to', one, '--direction', 'ba')
  assert str(caught.value) == (
    f'{one} is there already: give another --to, or --overwrite'
  )
  with pytest.raises(ConfigError, match='two generators need a folder'):
    run_export(folder / 'run', '--to', tmp_path / 'two.pth')


def test_one_direction_under_other_names_does_not_pass_for_two(
  tmp_path, caplog
):
  net = draw(UNet('batch', f=1))
  path, run = tmp_path / 'G.pth', tmp_path / 'run'
  write_pth(path, {f'enc.{name}': each for name, each in arrays(net).items()})
  (tmp_path / 'map.json').write_text(json.dumps({'enc.': ''}))
  options = ['--to', run, '--direction', 'ba', '--size', 32]
  options += ['--map', tmp_path / 'map.json']
  assert run_import(path, *options, '--dropout', '0.5') == 0
  assert caplog.messages == [
    f'{path}: its running statistics are left out, as batch norm takes those '
    "of the images at hand here, like the authors' test.py without --eval"
  ]
  loaded = checkpoint.load(run, direction='ba')
  state, config = loaded.state, loaded.config
  bias = net.state_dict()['model.model.3.bias'].numpy()
  np.testing.assert_array_equal(
    state.gen['ba']['up_0']['ConvTranspose_0']['bias'], bias
  )
  assert config.generator.dropout == 0.5
  with pytest.raises(WorkdirError, match='--direction ba'):
    checkpoint.load(run, direction='ab')
  assert run_export(run, '--to', tmp_path / 'out') == 0
  assert [each.name for each in (tmp_path / 'out').iterdir()] == [
    'latest_net_G_B.pth'
  ]
  tensors = read_pth(tmp_path / 'out' / 'latest_net_G_B.pth')
  net.load_state_dict({k: torch.from_numpy(v) for k, v in tensors.items()})


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
  run_export(tmp_path / 'run', '--to', tmp_path / 'out')
  tensors = read_pth(tmp_path / 'out' / 'latest_net_G_A.pth')
  expected = np.asarray(state.gen_ema['ab']['down_0']['kernel'])
  got = tensors['model.model.0.weight'].transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(got, expected)
  assert capsys.readouterr().out.splitlines()[3:] == [
    f'{tmp_path}/out/latest_net_G_B.pth: ba, its running average, 0.0 MiB, at '
    'most 0.0e+00 from the translator',
    '  for UnetGenerator(3, 3, ngf=1, norm_layer=BatchNorm2d, '
    'use_dropout=True, num_downs=5)',
    '  note: its batch norm takes the statistics of the images at hand, so use '
    'it without --eval: the running statistics in the files say nothing',
  ]


def test_a_map_that_is_none(tmp_path):
  (tmp_path / 'map.json').write_text('[1]')
  with pytest.raises(WeightsError) as caught:
    run_import(
      'G.pth', '--to', tmp_path / 'run', '--map', tmp_path / 'map.json'
    )
  assert str(caught.value) == (
    f'{tmp_path}/map.json can not be read (it is not an object of texts): '
    'give JSON such as {"encoder.": "model."}'
  )


def test_two_that_do_not_belong_together(both, tmp_path):
  folder, *_ = both
  other = saved(ResNet('instance', i=1, o=3, f=2, blocks=1), tmp_path / 'B.pth')
  with pytest.raises(WeightsError) as caught:
    run_import(folder / 'G_A.pth', other, '--to', tmp_path / 'run')
  assert str(caught.value) == (
    f'{folder}/G_A.pth and {other} are of two networks (blocks 2 and 1): a '
    'checkpoint has two of a kind, so import each into one of its own'
  )
  with pytest.raises(WeightsError) as caught:
    run_import(*[folder / 'G_A.pth'] * 2, '--to', tmp_path / 'run')
  assert str(caught.value) == (
    f'{folder}/G_A.pth maps 3 channels to 1, but {folder}/G_A.pth 3 to 1: '
    'give two generators of one run'
  )
  judge = saved(PatchGAN('instance', i=3, f=2), tmp_path / 'D.pth')
  with pytest.raises(WeightsError) as caught:
    run_import(folder / 'G_A.pth', '--d-a', judge, '--to', tmp_path / 'run')
  assert str(caught.value) == (
    f'{judge} judges images of 3 channels, but those of b have 1: give '
    'discriminators of the same run'
  )
  assert not (tmp_path / 'run').exists()


def test_wrong_arguments(both, tmp_path):
  folder, *_ = both
  g = folder / 'G_A.pth'
  with pytest.raises(ConfigError, match='give one or two generators'):
    run_import(g, g, g, '--to', tmp_path)
  with pytest.raises(ConfigError, match='is for one generator alone'):
    run_import(g, g, '--to', tmp_path, '--direction', 'ab')
  with pytest.raises(WorkdirError) as caught:
    run_import(g, '--to', folder)
  assert str(caught.value) == f'{folder} is not empty: give another --to'
  with pytest.raises(WeightsError) as caught:
    run_import(g, '--to', tmp_path, '--dropout', '0.1')
  assert str(caught.value) == (
    f'{g} shows its dropout, 0.0: leave --dropout out'
  )
