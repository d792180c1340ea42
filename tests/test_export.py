"""Exported files give what the translator gives."""

import json
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest

from cyclegan_jax import cli
from cyclegan_jax.commands import export
from cyclegan_jax.config import Config
from cyclegan_jax.errors import ConfigError, UserError, WeightsError
from cyclegan_jax.export.formats import (
  greatest_difference,
  load_format,
)
from cyclegan_jax.export.model import Model
from cyclegan_jax.export.stablehlo_runtime import load_exported
from cyclegan_jax.state import create_train_state
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.storage.safetensors import (
  read_safetensors,
  write_safetensors,
)

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('flatbuffers')
pytest.importorskip('safetensors')

RESNET = {'name': 'resnet', 'filters': 2, 'blocks': 1, 'dropout': 0.0}
KERAS = {'name': 'keras_unet', 'filters': 2, 'isize': 16}
TORCH = {'name': 'torch_unet', 'filters': 2, 'isize': 16, 'dropout': 0.0}
# Deep enough for inner blocks of full width, which have the dropout.
DEEP = {'name': 'torch_unet', 'filters': 1, 'isize': 64, 'dropout': 0.5}
# Four tokens, so that attention is not trivial.
VIT = {'name': 'vit_unet', 'filters': 1, 'blocks': 2, 'heads': 2, 'isize': 32}
RESIZE = {'upsample': 'resize', 'padding': 'reflect'}
FREE_SIZE = {'fixed_input_size': False}

# Every pair of a network and a value of an option occurs. The networks behind
# `slow` differ from one that is not in a single way, or compile for long.
GENERATORS = {
  'resnet': RESNET | {'padding': 'reflect', 'affine': False},
}
SLOW_GENERATORS = {
  'keras': KERAS | {'dropout': 0.5},
  'torch': TORCH | {'norm': 'batch'},
  'resnet, dropout, affine': RESNET | {'dropout': 0.5, 'affine': True},
  'resnet, resize, batch': RESNET | RESIZE | {'norm': 'batch'},
  'resnet, no norm': RESNET | {'norm': 'none', 'upsample': 'resize'},
  'keras, resize, no norm': KERAS | RESIZE | {'norm': 'none', 'dropout': 0.0},
  'keras, dropout, any size': KERAS | FREE_SIZE | {'dropout': 0.5},
  'keras, any size, instance': KERAS
  | FREE_SIZE
  | {'norm': 'instance', 'dropout': 0.0},
  'torch, instance': TORCH | {'norm': 'instance', 'affine': False},
  'torch, no norm, resize': TORCH | RESIZE | {'norm': 'none'},
  'torch, dropout': DEEP,
  'vit': VIT | {'dropout': 0.0, 'norm': 'instance', 'affine': False},
  'vit, dropout, resize': VIT | RESIZE | {'dropout': 0.5},
}


def make_config(generator):
  size = max(generator.get('isize', 16), 16)
  return Config().replace(
    data={
      'size': size,
      'load_size': size,
      'channels_b': 1,
      'dtype_a': 'uint8',
      'high_a': 255.0,
      'dtype_b': 'uint16',
      'high_b': 65535.0,
    },
    generator=generator,
    discriminator={'filters': 1, 'layers': 1},
  )


def make_state(config):
  """A state in which every number matters: scales and biases too."""
  state = create_train_state(config, jax.random.key(0))
  leaves, tree = jax.tree.flatten(state.gen)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  leaves = [
    leaf + 0.2 * jax.random.normal(key, leaf.shape)
    for leaf, key in zip(leaves, keys, strict=True)
  ]
  return state.replace(gen=jax.tree.unflatten(tree, leaves))


def make_model(generator, direction='ab', **options):
  config = make_config(generator)
  params = make_state(config).gen[direction]
  return Model(config, params, direction, step=7, **options)


def images_for(model, batch=2):
  side = model.side or model.config.data.size
  shape = (batch, side, side, model.channels_in)
  return np.random.default_rng(5).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize(
  'name',
  [
    *GENERATORS,
    *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_GENERATORS),
  ],
)
def test_files_match_the_translator(name, tmp_path):
  model = make_model((GENERATORS | SLOW_GENERATORS)[name])
  for format_name in ('onnx', 'stablehlo'):
    run = load_format(format_name)(tmp_path / 'file', model)
    assert greatest_difference(model, run) < 2e-5
    # The output depends on the input, and is not flat.
    images = images_for(model, batch=1)
    made = run(images)
    assert made.shape == (*images.shape[:3], 1)
    assert made.std() > 0.05
    assert abs(made - run(-images)).max() > 0.05


@pytest.fixture(scope='module')
def resnet():
  return make_model(GENERATORS['resnet'])


@pytest.fixture(scope='module')
def resnet_onnx(resnet, tmp_path_factory):
  """(path, function that runs it)"""
  path = tmp_path_factory.mktemp('onnx') / 'ab.onnx'
  return path, load_format('onnx')(path, resnet)


@pytest.fixture(scope='module')
def resnet_stablehlo(resnet, tmp_path_factory):
  path = tmp_path_factory.mktemp('stablehlo') / 'ab.stablehlo'
  load_format('stablehlo')(path, resnet)
  return path


def test_a_wrong_file_is_detected(resnet, resnet_onnx):
  _, run = resnet_onnx
  assert greatest_difference(resnet, lambda x: run(x) + 0.01) > 0.009
  assert greatest_difference(resnet, lambda x: run(x) * np.nan) == np.inf


@pytest.mark.parametrize(
  'name',
  [
    'resnet',
    pytest.param('keras', marks=pytest.mark.slow),
    pytest.param('torch', marks=pytest.mark.slow),
    pytest.param('vit', marks=pytest.mark.slow),
  ],
)
def test_onnx_in_float16(name, tmp_path):
  generator = (GENERATORS | SLOW_GENERATORS)[name]
  half, whole = make_model(generator, dtype='float16'), make_model(generator)
  run = load_format('onnx')(tmp_path / 'half', half)
  load_format('onnx')(tmp_path / 'whole', whole)
  assert 1e-7 < greatest_difference(half, run) < 2e-2
  sizes = [(tmp_path / each).stat().st_size for each in ('half', 'whole')]
  assert sizes[0] < 0.8 * sizes[1]


@pytest.mark.slow
def test_dropout_masks_depend_on_the_seed(tmp_path):
  first, second = (
    make_model(SLOW_GENERATORS['keras'], seed=seed) for seed in (0, 1)
  )
  images = images_for(first)
  for format_name in ('onnx', 'stablehlo'):
    write = load_format(format_name)
    one = write(tmp_path / 'one', first)(images)
    two = write(tmp_path / 'two', second)(images)
    np.testing.assert_allclose(two, second.translate(images), atol=2e-5)
    assert abs(one - two).max() > 0.01


@pytest.mark.slow
def test_images_of_a_batch_are_independent(tmp_path):
  model = make_model(RESNET | {'norm': 'batch'})
  images = images_for(model, batch=3)
  for format_name in ('onnx', 'stablehlo'):
    run = load_format(format_name)(tmp_path / format_name, model)
    np.testing.assert_allclose(run(images)[1:2], run(images[1:2]), atol=1e-5)


def test_the_graph_takes_any_size(resnet, resnet_onnx):
  path, run = resnet_onnx
  images = np.random.default_rng(0).uniform(-1, 1, (1, 20, 36, 3))
  images = images.astype(np.float32)
  np.testing.assert_allclose(run(images), resnet.translate(images), atol=2e-5)
  graph = onnx.load(path).graph
  (shape,) = (value.type.tensor_type.shape for value in graph.input)
  sizes = [each.dim_param or each.dim_value for each in shape.dim]
  assert sizes == ['batch', 3, 'height', 'width']
  # Native operators only, and no sequences of operators in their place.
  assert {node.op_type for node in graph.node} == {
    *('Add', 'Conv', 'ConvTranspose', 'Identity', 'InstanceNormalization'),
    *('Pad', 'Relu', 'Tanh'),
  }


@pytest.mark.slow
def test_metadata(tmp_path):
  model = make_model(SLOW_GENERATORS['keras'], 'ba')
  load_format('onnx')(tmp_path / 'file.onnx', model)
  session = onnxruntime.InferenceSession(tmp_path / 'file.onnx')
  metadata = session.get_modelmeta().custom_metadata_map
  generator = json.loads(metadata.pop('generator'))
  assert generator['name'] == 'keras_unet'
  expected = {
    'layout': 'NCHW',
    'direction': 'ba',
    'step': '7',
    'input_channels': '1',
    'output_channels': '3',
    'input_dtype': 'uint16',
    'input_high': '65535.0',
    'output_dtype': 'uint8',
    'output_high': '255.0',
    'size': '16 x 16',
  }
  assert metadata | expected == metadata
  assert 'seed 0' in metadata['dropout']


# Reading StableHLO files.


@pytest.mark.process
def test_stablehlo_runs_without_flax(resnet, resnet_stablehlo, tmp_path):
  images = images_for(resnet)
  np.save(tmp_path / 'x.npy', images)
  code = """
import sys
import numpy as np
import cyclegan_jax
path, source, target = sys.argv[1:]
np.save(target, cyclegan_jax.load_exported(path)(np.load(source)))
loaded = [each for each in ('flax', 'optax', 'orbax') if each in sys.modules]
assert not loaded, loaded
"""
  files = [resnet_stablehlo, tmp_path / 'x.npy', tmp_path / 'y.npy']
  subprocess.run([sys.executable, '-c', code, *map(str, files)], check=True)
  np.testing.assert_allclose(
    np.load(tmp_path / 'y.npy'), resnet.translate(images), atol=2e-5
  )


def test_damaged_stablehlo_files(resnet_stablehlo, tmp_path):
  path = tmp_path / 'ab.stablehlo'
  with pytest.raises(WeightsError, match=str(path)):
    load_exported(path)
  content = resnet_stablehlo.read_bytes()
  for damaged in (content[:-100], b'PK' * 50, b''):
    path.write_bytes(damaged)
    with pytest.raises(WeightsError, match=str(path)):
      load_exported(path)
  with zipfile.ZipFile(resnet_stablehlo) as file:
    program, metadata = file.read('program.bin'), file.read('metadata.json')
  for members in (
    (b'', metadata),
    (program[: len(program) // 2], metadata),
    (program, b'["x"]'),
    (program, b'[' * 100_000),
    (program, b'\xff'),
  ):
    with zipfile.ZipFile(path, 'w') as file:
      file.writestr('program.bin', members[0])
      file.writestr('metadata.json', members[1])
    with pytest.raises(WeightsError, match=str(path)):
      load_exported(path)


def test_stablehlo_refuses_integers(resnet, resnet_stablehlo):
  translate = load_exported(resnet_stablehlo)
  assert translate.metadata['layout'] == 'NHWC'
  assert translate.metadata['platforms'] == 'cpu, cuda, tpu'
  images = images_for(resnet)
  with pytest.raises(ValueError, match='uint8'):
    translate(np.zeros(images.shape, np.uint8))
  translate(images.astype(np.float64))


# The command.


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """A checkpoint of each generator, by name."""
  paths = {}
  for name in ('resnet', 'keras'):
    config = make_config((GENERATORS | SLOW_GENERATORS)[name])
    paths[name] = tmp_path_factory.mktemp('run')
    with checkpoint.Saver(paths[name] / 'checkpoints', config) as saver:
      saver.save(make_state(config))
  return paths


def run(*argv):
  return cli.main([str(each) for each in argv])


@pytest.mark.slow
def test_how_long_a_stablehlo_file_is_readable_is_printed(
  runs, tmp_path, capsys
):
  to = tmp_path / 'ab.stablehlo'
  command = ['export', runs['resnet'], '--format', 'stablehlo', '--to', to]
  assert run(*command, '--direction', 'ab') == 0
  assert 'jax.export' in capsys.readouterr().out


def test_both_directions_into_a_folder(runs, tmp_path, capsys):
  to = tmp_path / 'out'
  command = ['export', runs['resnet'], '--format', 'onnx', '--to', to]
  assert run(*command) == 0
  assert str(to / 'ab.onnx') in capsys.readouterr().out
  assert sorted(each.name for each in to.iterdir()) == ['ab.onnx', 'ba.onnx']
  assert run(*command) == 1
  assert '--overwrite' in capsys.readouterr().err
  assert run(*command, '--overwrite') == 0


def test_files_with_the_names_of_the_domains(tmp_path):
  config = make_config(GENERATORS['resnet']).replace(
    data={'name_a': 'Äpfel/grün', 'name_b': '../b'}
  )
  with checkpoint.Saver(tmp_path / 'run/checkpoints', config) as saver:
    saver.save(make_state(config))
  to = tmp_path / 'out'
  argv = ['export', tmp_path / 'run', '--format', 'safetensors', '--to', to]
  assert run(*argv) == 0
  assert sorted(each.name for each in to.iterdir()) == [
    '_b2Äpfel_grün.safetensors',
    'Äpfel_grün2_b.safetensors',
  ]


def test_one_direction_into_a_file(runs, tmp_path):
  path = tmp_path / 'deep' / 'horse.onnx'
  options = ['--direction', 'ba', '--dtype', 'float16']
  command = ['export', runs['resnet'], '--format', 'onnx', '--to', path]
  assert run(*command, *options) == 0
  assert [each.name for each in path.parent.iterdir()] == ['horse.onnx']


@pytest.mark.parametrize(
  'name', ['resnet', pytest.param('keras', marks=pytest.mark.slow)]
)
def test_safetensors_there_and_back(name, runs, tmp_path):
  command = ['export', runs[name], '--format', 'safetensors', '--to']
  assert run(*command, tmp_path / 'out') == 0
  files = [tmp_path / 'out' / f'{way}.safetensors' for way in ('ab', 'ba')]
  # The files say their directions, so the order does not matter.
  assert run('import', *files[::-1], '--to', tmp_path / 'back') == 0
  assert run('import', files[0], files[0], '--to', tmp_path / 'twice') == 1
  before, after = map(checkpoint.load, (runs[name], tmp_path / 'back'))
  assert after.config == before.config
  gen, imported = before.state.gen, after.state.gen
  jax.tree.map(np.testing.assert_array_equal, imported, gen)
  assert run('import', files[1], '--to', tmp_path / 'one') == 0
  assert checkpoint.load(tmp_path / 'one').directions == ('ba',)


def test_damaged_safetensors(runs, tmp_path, capsys):
  path, to = tmp_path / 'ab.safetensors', tmp_path / 'back'
  command = ['export', runs['resnet'], '--format', 'safetensors']
  assert run(*command, '--direction', 'ab', '--to', path) == 0
  tensors, metadata = read_safetensors(path)
  content = path.read_bytes()
  config = json.loads(metadata['config'])

  def refuses(part):
    assert run('import', path, '--to', to) == 1
    assert part in capsys.readouterr().err
    assert not to.exists()

  path.write_bytes(content[:-10])
  refuses('safetensors')
  path.write_bytes(content.replace(b'stem.kernel', b'stem.kernul', 1))
  refuses("'stem.kern")
  kernel = tensors['stem.kernel']
  for wrong, part in (
    ({'stem': kernel}, "'stem'"),  # also the name of a group of tensors
    ({'stem.kernel': kernel * np.float32('nan')}, "'stem.kernel'"),
    ({'stem.kernel': kernel.astype(np.int32)}, "'stem.kernel'"),
  ):
    write_safetensors(path, tensors | wrong, metadata)
    refuses(part)
  for wrong in ({'config': '[' * 100_000}, {'direction': 'up'}, {'step': '-1'}):
    write_safetensors(path, tensors, metadata | wrong)
    refuses('metadata')
  huge = json.dumps(config | {'pool_size': 10**12})
  write_safetensors(path, tensors, metadata | {'config': huge})
  refuses('config.pool_size=1000000000000')


def test_wrong_command_lines(tmp_path):
  for argv, option in (
    ([tmp_path / 'x.onnx', '--format', 'onnx'], '--to'),
    ([tmp_path / 'x.pth', '--format', 'onnx'], '--to'),
    ([tmp_path, '--format', 'pickle'], '--format'),
    ([tmp_path], '--format'),
    ([tmp_path, '--format', 'pth', '--dtype', 'float16'], '--dtype'),
    (
      [tmp_path, '--format', 'onnx', '--onnxruntime-web', 'x'],
      '--onnxruntime-web',
    ),
    ([tmp_path, '--format', 'onnx', '--seed', '-1'], '--seed'),
    ([tmp_path, '--format', 'hub', '--title', 'x'], '--title'),
  ):
    with pytest.raises(ConfigError, match=option):
      export.run([str(x) for x in ['run', '--to', *argv]], 'cyclegan export')
  assert list(tmp_path.iterdir()) == []


def test_files_and_folders_in_the_way(runs, tmp_path, capsys):
  blocked = tmp_path / 'file'
  blocked.write_text('')
  command = ['export', runs['resnet'], '--format', 'onnx', '--to']
  assert run(*command, blocked) == 1
  assert str(blocked) in capsys.readouterr().err
  assert blocked.read_text() == ''
  folder = tmp_path / 'x.onnx'
  folder.mkdir()
  assert run(*command, folder, '--direction', 'ab', '--overwrite') == 1
  assert str(folder) in capsys.readouterr().err


def test_a_file_that_differs_is_not_kept(runs, tmp_path, monkeypatch, capsys):
  """As where a runtime computes something else than it should."""
  from cyclegan_jax.export import onnx_graph

  norm = onnx_graph.Graph.norm

  def wrong_norm(self, x, params, **options):
    factor = self.constant(np.array(1.01, np.float32))
    return self.node('Mul', norm(self, x, params, **options), factor)

  monkeypatch.setattr(onnx_graph.Graph, 'norm', wrong_norm)
  command = ['export', runs['resnet'], '--format', 'onnx', '--to', tmp_path]
  assert run(*command) == 1
  assert str(tmp_path / 'ab.onnx') in capsys.readouterr().err
  assert list(tmp_path.iterdir()) == []


def test_a_network_that_the_authors_do_not_have(runs, tmp_path, capsys):
  command = ['export', runs['keras'], '--format', 'pth', '--to', tmp_path]
  assert run(*command) == 1
  assert "the authors'" in capsys.readouterr().err
  assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_missing(monkeypatch):
  monkeypatch.setitem(sys.modules, 'onnxruntime', None)
  with pytest.raises(UserError, match=r'cyclegan_jax\[export\]'):
    load_format('onnx')
