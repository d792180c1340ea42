"""Files for other programs: each gives what the live translator gives."""

import json
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest

from cyclegan_jax import cli
from cyclegan_jax.config import Config
from cyclegan_jax.errors import ConfigError, UserError, WeightsError
from cyclegan_jax.export.formats import (
  greatest_difference,
  load_format,
)
from cyclegan_jax.export.model import Model
from cyclegan_jax.export.runtime import load_exported
from cyclegan_jax.interop.safetensors import (
  read_safetensors,
  write_safetensors,
)
from cyclegan_jax.state import create_train_state
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.storage.checkpoint import Saver

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('flatbuffers')
pytest.importorskip('safetensors')

RESNET = {'name': 'resnet', 'filters': 2, 'blocks': 1, 'norm': 'instance'}
TORCH = {'name': 'torch_unet', 'filters': 2, 'isize': 16, 'dropout': 0.0}
# Deep enough for its inner blocks of full width, which have the dropout.
DEEP = {'name': 'torch_unet', 'filters': 1, 'isize': 64, 'dropout': 0.5}
# Four tokens, so that they have something to attend to.
VIT = {'name': 'vit_unet', 'filters': 1, 'blocks': 2, 'heads': 2, 'isize': 32}
VIT |= {'dropout': 0.0}
SEED = {'name': 'keras_unet', 'filters': 2, 'isize': 16}

GENERATORS = {
  'resnet': RESNET | {'dropout': 0.0, 'padding': 'reflect', 'affine': False},
  'resnet, zeros, affine': RESNET | {'dropout': 0.0},
  'resnet, resize': RESNET | {'dropout': 0.0, 'upsample': 'resize'},
  'resnet, resize, reflect': RESNET
  | {'dropout': 0.0, 'upsample': 'resize', 'padding': 'reflect'},
  'resnet, dropout': RESNET | {'dropout': 0.5},
  'resnet, batch': RESNET | {'dropout': 0.0, 'norm': 'batch'},
  'resnet, no norm': RESNET | {'dropout': 0.0, 'norm': 'none'},
  'torch unet': TORCH | {'norm': 'batch'},
  'torch unet, instance': TORCH | {'norm': 'instance', 'affine': False},
  'torch unet, no norm': TORCH | {'norm': 'none'},
  'torch unet, dropout': DEEP,
  'seed unet': SEED | {'dropout': 0.5},
  'seed unet, any size': SEED | {'dropout': 0.0, 'fixed_input_size': False},
  'seed unet, dropout, multiples': SEED
  | {'dropout': 0.5, 'fixed_input_size': False},
  'seed unet, resize, reflect': SEED
  | {'dropout': 0.0, 'upsample': 'resize', 'padding': 'reflect'},
  'seed unet, instance': SEED | {'norm': 'instance'},
  'seed unet, no norm': SEED | {'norm': 'none', 'dropout': 0.0},
  'vit unet': VIT | {'norm': 'instance', 'affine': False},
  'vit unet, dropout, resize, reflect': VIT
  | {'dropout': 0.5, 'upsample': 'resize', 'padding': 'reflect'},
}


def make_config(generator: dict) -> Config:
  size = max(generator.get('isize', 16), 16)
  return Config().replace(
    data={
      'size': size,
      'load_size': size,
      'channels_a': 3,
      'channels_b': 1,
      'dtype_a': 'uint8',
      'high_a': 255.0,
      'dtype_b': 'uint16',
      'high_b': 65535.0,
    },
    generator=generator,
    discriminator={'filters': 1, 'layers': 1},
  )


def draw(config: Config):
  """A state whose every number matters: scales and biases too."""
  state = create_train_state(config, jax.random.key(0))
  leaves, tree = jax.tree.flatten(state.gen)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  drawn = [
    leaf + 0.2 * jax.random.normal(key, leaf.shape)
    for leaf, key in zip(leaves, keys, strict=True)
  ]
  return state.replace(gen=jax.tree.unflatten(tree, drawn))


def make_model(generator: dict, direction='ab', **options) -> Model:
  config = make_config(generator)
  params = draw(config).gen[direction]
  return Model(config, params, direction, step=7, **options)


def images_for(model: Model, batch=2, side=None) -> np.ndarray:
  side = model.side or side or model.config.data.size
  shape = (batch, side, side, model.channels_in)
  return np.random.default_rng(5).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize('name', GENERATORS)
def test_it_gives_what_the_translator_gives(name, tmp_path):
  model = make_model(GENERATORS[name])
  for format_name in ('onnx', 'stablehlo'):
    run = load_format(format_name)(tmp_path / 'file', model)
    assert greatest_difference(model, run) < 2e-5
    # It is a translation: it depends on its input, and is not flat.
    images = images_for(model, batch=1)
    made = run(images)
    assert made.shape == (*images.shape[:3], 1)
    assert made.std() > 0.05
    assert abs(made - run(-images)).max() > 0.05


def test_a_file_that_is_wrong_is_told_from_one_that_is_right(tmp_path):
  model = make_model(GENERATORS['resnet'])
  run = load_format('onnx')(tmp_path / 'file', model)
  assert greatest_difference(model, lambda x: run(x) + 0.01) > 0.009
  assert greatest_difference(model, lambda x: run(x) * np.nan) == np.inf


@pytest.mark.parametrize(
  'name', ['resnet', 'seed unet', 'torch unet', 'vit unet']
)
def test_onnx_in_16_bits(name, tmp_path):
  model = make_model(GENERATORS[name], dtype='float16')
  wide = make_model(GENERATORS[name])
  run = load_format('onnx')(tmp_path / 'half', model)
  load_format('onnx')(tmp_path / 'whole', wide)
  assert 1e-7 < greatest_difference(model, run) < 2e-2
  sizes = [(tmp_path / each).stat().st_size for each in ('half', 'whole')]
  assert sizes[0] < 0.8 * sizes[1]


def test_dropout_has_the_masks_of_its_seed(tmp_path):
  first, second = (
    make_model(GENERATORS['seed unet'], seed=seed) for seed in (0, 1)
  )
  images = images_for(first)
  for format_name in ('onnx', 'stablehlo'):
    write = load_format(format_name)
    one = write(tmp_path / 'one', first)(images)
    two = write(tmp_path / 'two', second)(images)
    np.testing.assert_allclose(two, second.translate(images), atol=2e-5)
    assert abs(one - two).max() > 0.01


def test_an_image_does_not_depend_on_those_beside_it(tmp_path):
  model = make_model(GENERATORS['resnet, batch'])
  images = images_for(model, batch=3)
  for format_name in ('onnx', 'stablehlo'):
    run = load_format(format_name)(tmp_path / format_name, model)
    np.testing.assert_allclose(run(images)[1:2], run(images[1:2]), atol=1e-5)


def test_any_size_where_the_network_takes_any(tmp_path):
  model = make_model(GENERATORS['resnet'])
  run = load_format('onnx')(tmp_path / 'file.onnx', model)
  images = np.random.default_rng(0).uniform(-1, 1, (1, 20, 36, 3))
  images = images.astype(np.float32)
  np.testing.assert_allclose(run(images), model.translate(images), atol=2e-5)
  graph = onnx.load(tmp_path / 'file.onnx')
  (shape,) = (each.type.tensor_type.shape for each in graph.graph.input)
  assert [each.dim_param or each.dim_value for each in shape.dim] == [
    'batch',
    3,
    'height',
    'width',
  ]
  # Native operators, none of them a sequence that stands in for one.
  kinds = {each.op_type for each in graph.graph.node}
  assert kinds == {
    'Add',
    'Conv',
    'ConvTranspose',
    'Identity',
    'InstanceNormalization',
    'Pad',
    'Relu',
    'Tanh',
  }


def test_what_a_file_says_of_itself(tmp_path):
  model = make_model(GENERATORS['seed unet'], 'ba')
  load_format('onnx')(tmp_path / 'file.onnx', model)
  load_format('stablehlo')(tmp_path / 'file.stablehlo', model)
  session = onnxruntime.InferenceSession(tmp_path / 'file.onnx')
  said = session.get_modelmeta().custom_metadata_map
  assert said['layout'] == 'NCHW'
  other = load_exported(tmp_path / 'file.stablehlo').metadata
  assert other['layout'] == 'NHWC'
  assert other['platforms'] == 'cpu, cuda, tpu'
  for each in (said, other):
    assert (each['direction'], each['step']) == ('ba', '7')
    assert (each['input_channels'], each['output_channels']) == ('1', '3')
    assert (each['input_dtype'], each['input_high']) == ('uint16', '65535.0')
    assert (each['output_dtype'], each['output_high']) == ('uint8', '255.0')
    assert each['size'] == '16 x 16'
    assert each['dropout'] == 'masks of seed 0, part of the file'
    assert json.loads(each['generator'])['name'] == 'keras_unet'


def test_an_exported_file_runs_without_flax(tmp_path):
  model = make_model(GENERATORS['resnet'])
  path = tmp_path / 'ab.stablehlo'
  load_format('stablehlo')(path, model)
  images = images_for(model)
  np.save(tmp_path / 'x.npy', images)
  code = """
import sys
import numpy as np
import cyclegan_jax
path, given, made = sys.argv[1:]
np.save(made, cyclegan_jax.load_exported(path)(np.load(given)))
loaded = [each for each in ('flax', 'optax', 'orbax') if each in sys.modules]
assert not loaded, loaded
"""
  files = [path, tmp_path / 'x.npy', tmp_path / 'y.npy']
  subprocess.run([sys.executable, '-c', code, *map(str, files)], check=True)
  np.testing.assert_allclose(
    np.load(tmp_path / 'y.npy'), model.translate(images), atol=2e-5
  )


@pytest.mark.parametrize('damage', ['cut', 'other', 'empty', 'missing'])
def test_an_exported_file_that_is_damaged(damage, tmp_path):
  path = tmp_path / 'ab.stablehlo'
  load_format('stablehlo')(path, make_model(GENERATORS['resnet']))
  content = path.read_bytes()
  if damage == 'missing':
    path.unlink()
  else:
    path.write_bytes(
      {'cut': content[:-100], 'other': b'PK' * 50, 'empty': b''}[damage]
    )
  with pytest.raises(WeightsError, match='cyclegan'):
    load_exported(path)


def pack(path, **members):
  with zipfile.ZipFile(path, 'w') as file:
    for name, content in members.items():
      file.writestr(name.replace('_', '.'), content)


def test_a_zip_file_of_something_else(tmp_path):
  path = tmp_path / 'ab.stablehlo'
  load_format('stablehlo')(path, make_model(GENERATORS['resnet']))
  with zipfile.ZipFile(path) as file:
    program, said = file.read('program.bin'), file.read('metadata.json')
  for content in (b'', b'junk', program[: len(program) // 2]):
    pack(path, program_bin=content, metadata_json=said)
    with pytest.raises(WeightsError, match='export it again'):
      load_exported(path)
  for content in (b'7', b'["x"]', b'[' * 100_000, b'\xff'):
    pack(path, program_bin=program, metadata_json=content)
    with pytest.raises(WeightsError, match='export it again'):
      load_exported(path)


def test_an_exported_file_refuses_bytes(tmp_path):
  path = tmp_path / 'ab.stablehlo'
  model = make_model(GENERATORS['resnet'])
  load_format('stablehlo')(path, model)
  images = images_for(model)
  with pytest.raises(ValueError, match='uint8: give float32 in'):
    load_exported(path)(np.zeros(images.shape, np.uint8))
  # Other floats do: their values say the same.
  load_exported(path)(images.astype(np.float64))


# The commands.


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """A checkpoint of each of three generators, by name."""
  found = {}
  for name in ('resnet', 'seed unet', 'torch unet'):
    config = make_config(GENERATORS[name])
    folder = tmp_path_factory.mktemp('run')
    with Saver(folder / 'checkpoints', config) as saver:
      saver.save(draw(config))
    found[name] = folder
  return found


def run(*argv):
  return cli.main([str(each) for each in argv])


@pytest.mark.parametrize(
  ('name', 'format_name'),
  [
    ('resnet', 'onnx'),
    ('seed unet', 'stablehlo'),
    ('torch unet', 'safetensors'),
  ],
)
def test_both_directions_into_a_folder(
  name, format_name, runs, tmp_path, capsys
):
  command = ['export', runs[name], '--format', format_name]
  assert run(*command, '--to', tmp_path / 'out') == 0
  printed = capsys.readouterr().out
  assert 'ab.' in printed
  assert 'from the translator' in printed
  files = sorted(each.name for each in (tmp_path / 'out').iterdir())
  assert files == [f'ab.{format_name}', f'ba.{format_name}']
  assert run(*command, '--to', tmp_path / 'out') == 1
  assert 'is there already: give another --to, or --over' in (
    capsys.readouterr().err
  )
  assert run(*command, '--to', tmp_path / 'out', '--overwrite') == 0


@pytest.mark.parametrize('name', ['resnet', 'seed unet'])
def test_safetensors_there_and_back(name, runs, tmp_path):
  export = ['export', runs[name], '--format', 'safetensors', '--to']
  assert run(*export, tmp_path / 'out') == 0
  files = [tmp_path / 'out' / f'{way}.safetensors' for way in ('ab', 'ba')]
  # The files say their directions, so the order does not matter.
  assert run('import', *files[::-1], '--to', tmp_path / 'back') == 0
  assert run('import', files[0], files[0], '--to', tmp_path / 'twice') == 1
  before, after = map(checkpoint.load, (runs[name], tmp_path / 'back'))
  assert after.config == before.config
  assert jax.tree.all(
    jax.tree.map(
      lambda x, y: bool((x == y).all()), before.state.gen, after.state.gen
    )
  )
  assert run('import', files[1], '--to', tmp_path / 'one') == 0
  assert checkpoint.load(tmp_path / 'one').directions == ('ba',)


def test_damaged_safetensors(runs, tmp_path, capsys):
  path = tmp_path / 'ab.safetensors'
  export = ['export', runs['resnet'], '--format', 'safetensors']
  assert run(*export, '--direction', 'ab', '--to', path) == 0
  content = path.read_bytes()
  (tmp_path / 'whole.safetensors').write_bytes(content)
  path.write_bytes(content[:-10])
  assert run('import', path, '--to', tmp_path / 'back') == 1
  assert 'cannot be read as safetensors' in capsys.readouterr().err
  path.write_bytes(content.replace(b'stem.kernel', b'stem.kernul', 1))
  assert run('import', path, '--to', tmp_path / 'back') == 1
  assert 'does not fit its own config' in capsys.readouterr().err
  # A name that is a tensor's and a group's.
  tensors, said = read_safetensors(tmp_path / 'whole.safetensors')
  write_safetensors(path, tensors | {'stem': tensors['stem.kernel']}, said)
  assert run('import', path, '--to', tmp_path / 'back') == 1
  assert 'does not fit its own config' in capsys.readouterr().err
  write_safetensors(path, tensors, said | {'config': '[' * 100_000})
  assert run('import', path, '--to', tmp_path / 'back') == 1
  assert 'does not say whose its weights are' in capsys.readouterr().err
  for wrong in ({'direction': 'up'}, {'step': '-1'}):
    write_safetensors(path, tensors, said | wrong)
    assert run('import', path, '--to', tmp_path / 'back') == 1
    assert 'does not say whose its weights are' in capsys.readouterr().err
  kernel = tensors['stem.kernel']
  for wrong in (kernel * np.float32('nan'), kernel.astype(np.int32)):
    write_safetensors(path, tensors | {'stem.kernel': wrong}, said)
    assert run('import', path, '--to', tmp_path / 'back') == 1
    assert 'not all finite float32' in capsys.readouterr().err
  config = json.loads(said['config']) | {'pool_size': 10**12}
  write_safetensors(path, tensors, said | {'config': json.dumps(config)})
  assert run('import', path, '--to', tmp_path / 'back') == 1
  assert 'config.pool_size=1000000000000' in capsys.readouterr().err
  assert not (tmp_path / 'back').exists()


def test_one_direction_as_a_file(runs, tmp_path):
  path = tmp_path / 'deep' / 'horse.onnx'
  export = ['export', runs['resnet'], '--format', 'onnx', '--to', path]
  assert run(*export, '--direction', 'ba', '--dtype', 'float16') == 0
  assert [each.name for each in path.parent.iterdir()] == ['horse.onnx']
  onnx.checker.check_model(onnx.load(path))


def test_wrong_command_lines(runs, tmp_path, capsys):
  common = ['export', runs['resnet'], '--to']
  for argv, message in (
    ([tmp_path / 'x.onnx', '--format', 'onnx'], 'need a folder'),
    ([tmp_path / 'x.pth', '--format', 'onnx'], 'of another --format'),
    ([tmp_path, '--format', 'pickle'], 'invalid choice'),
    ([tmp_path, '--format', 'pth', '--dtype', 'float16'], 'onnx and web alone'),
  ):
    assert run(*common, *argv) == 2
    assert message in capsys.readouterr().err
  assert list(tmp_path.iterdir()) == []
  blocked = tmp_path / 'file'
  blocked.write_text('')
  assert run(*common, blocked, '--format', 'onnx') == 1
  assert str(blocked) in capsys.readouterr().err
  assert blocked.read_text() == ''
  folder = tmp_path / 'x.onnx'
  folder.mkdir()
  command = [*common, folder, '--format', 'onnx', '--direction', 'ab']
  assert run(*command, '--overwrite') == 1
  assert f'{folder} is a folder' in capsys.readouterr().err


def test_a_file_that_differs_is_not_left(runs, tmp_path, monkeypatch, capsys):
  """As where a runtime computes something else than it should."""
  from cyclegan_jax.export import onnx_graph

  plain = onnx_graph.Graph.norm
  monkeypatch.setattr(
    onnx_graph.Graph,
    'norm',
    lambda self, x, params, **kw: self.node(
      'Mul',
      plain(self, x, params, **kw),
      self.constant(np.array(1.01, np.float32)),
    ),
  )
  command = ['export', runs['resnet'], '--format', 'onnx', '--to', tmp_path]
  assert run(*command) == 1
  assert 'is not written: on random images it differs' in (
    capsys.readouterr().err
  )
  assert list(tmp_path.iterdir()) == []


def test_a_network_that_the_authors_do_not_have(runs, tmp_path, capsys):
  command = ['export', runs['seed unet'], '--format', 'pth', '--to', tmp_path]
  assert run(*command) == 1
  assert "config.generator.name='keras_unet'" in capsys.readouterr().err
  assert list(tmp_path.iterdir()) == []


def test_a_format_whose_package_is_missing(monkeypatch):
  monkeypatch.setitem(sys.modules, 'onnxruntime', None)
  with pytest.raises(UserError, match=r"install 'cyclegan_jax\[export\]'"):
    load_format('onnx')


def test_errors_are_of_the_command_line():
  with pytest.raises(ConfigError, match='--format'):
    cli.load_command(['export']).run(['run', '--to', 'x'], 'cyclegan export')
