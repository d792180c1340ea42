"""Own parts by name: networks, losses, data sources and metrics."""

import json
import pathlib
import re
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cyclegan_jax as cg
from cyclegan_jax import cli, losses, register
from cyclegan_jax.config import from_config_dict, to_config_dict
from cyclegan_jax.data.sources import open_images
from cyclegan_jax.errors import ConfigError, DataError, UserError, WorkdirError
from cyclegan_jax.inference import translate
from cyclegan_jax.step import metric_names
from cyclegan_jax.storage import checkpoint

PLUGIN = """
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import cyclegan_jax as cg

@cg.register.adversarial_loss('softplus')
class Softplus:
  def generator(fake_logits):
    return jnp.mean(nn.softplus(-fake_logits))

  def discriminator(real_logits, fake_logits):
    real = jnp.mean(nn.softplus(-real_logits))
    return real + jnp.mean(nn.softplus(fake_logits))

@cg.register.loss_term('total_variation')
def total_variation(real, fake, cycled):
  return jnp.abs(jnp.diff(fake, axis=1)).mean()

@cg.register.generator('shallow')
class Shallow(nn.Module):
  config: object
  channels: int
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Conv(self.config.filters, (3, 3))(x))
    return nn.tanh(nn.Conv(self.channels, (3, 3))(x))

@cg.register.discriminator('patches')
class Patches(nn.Module):
  config: object
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Conv(self.config.filters, (4, 4), (2, 2))(x))
    return nn.Conv(1, (3, 3))(x)

@cg.register.source('noise')
def noise(config):
  rng = np.random.default_rng(0)
  side = config.size
  images = rng.integers(0, 255, (6, side, side, 3), dtype=np.uint8)
  return {'train_a': images, 'train_b': list(images[::-1])}

@cg.register.metric('change')
def change(real, fake):
  return np.abs(real - fake).mean((1, 2, 3))
"""


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch):
  """Forgets what a test registers, as another process would not have it."""
  for name in ('_parts', '_recorded'):
    monkeypatch.setattr(register, name, {k: {} for k in register.BUILT_IN})
  monkeypatch.setattr(register, '_loaded', {})


@pytest.fixture
def plugin(tmp_path):
  path = tmp_path / 'my_parts.py'
  path.write_text(PLUGIN)
  return path


def forget(monkeypatch):
  for name in ('_parts', '_recorded'):
    monkeypatch.setattr(register, name, {k: {} for k in register.BUILT_IN})
  register._loaded.clear()


@pytest.fixture
def config(tiny_config, plugin):
  register.load_plugin(str(plugin))
  return tiny_config.replace(
    data={'name': 'noise'},
    generator={'name': 'shallow'},
    discriminator={'name': 'patches'},
    loss={'adversarial': 'softplus', 'terms': 'total_variation=0.5'},
    evaluation={'every_steps': 2},
    log={'metrics_every_steps': 1},
    steps=2,
    num_devices=1,
  )


def test_an_own_loss_equals_the_built_in_one(config):
  logits = jnp.linspace(-3, 3, 32).reshape(2, 4, 4, 1)
  own, built_in = map(losses.adversarial_loss, ('softplus', 'vanilla'))
  assert own.generator(logits) == built_in.generator(logits)
  assert own.discriminator(logits, -logits) == built_in.discriminator(
    logits, -logits
  )


def test_a_part_that_is_registered_again(tiny_config):
  def outputs_of(factor):
    @cg.register.generator('scaled')
    class Scaled(nn.Module):
      config: object
      channels: int
      axis_name: str | None = None

      @nn.compact
      def __call__(self, x):
        return factor * x

    config = tiny_config.replace(generator={'name': 'scaled'})
    images = jnp.ones((1, 4, 4, 3))
    return translate(config, {}, 'ab', images, jax.random.key(0)).max()

  assert [outputs_of(0.25), outputs_of(0.5)] == [0.25, 0.5]


def test_a_run_of_own_parts(config, plugin, tmp_path, monkeypatch):
  cg.train(config, tmp_path / 'run')
  recorded = json.loads((tmp_path / 'run/config.json').read_text())
  assert recorded['loss']['terms'] == 'total_variation=0.5'
  ((path, sha256),) = register.parse_plugins(recorded['plugins'])
  assert pathlib.Path(path) == plugin
  assert len(sha256) == 64
  record = json.loads(
    (tmp_path / 'run/metrics.jsonl').read_text().splitlines()[-1]
  )
  assert record['generator/total_variation_ab'] > 0
  assert record['evaluation/ab/change'] > 0
  assert set(metric_names(config)) <= set(record)
  forget(monkeypatch)
  with pytest.raises(ConfigError, match=rf"'shallow'.*--plugin={plugin}"):
    cg.load_translator(tmp_path / 'run', 'ab')
  register.load_plugin(str(plugin))
  image = np.zeros((20, 23, 3), np.uint8)
  assert cg.load_translator(tmp_path / 'run', 'ab')(image).shape == image.shape


@pytest.mark.slow
def test_what_is_not_needed_is_not_asked_for(
  tiny_config, plugin, tmp_path, monkeypatch
):
  register.load_plugin(str(plugin))
  config = tiny_config.replace(loss={'adversarial': 'softplus'})
  config = config.replace(plugins=register.loaded_plugins())
  with checkpoint.Saver(tmp_path / 'run/checkpoints', config) as saver:
    saver.save(cg.create_train_state(config, jax.random.key(0)))
  forget(monkeypatch)
  image = np.zeros((16, 16, 3), np.uint8)
  cg.load_translator(tmp_path / 'run', 'ab')(image)
  loaded = checkpoint.load(tmp_path / 'run')
  batch = {d: jnp.zeros((2, 16, 16, 3)) for d in 'ab'}
  with pytest.raises(ConfigError, match=r"'softplus'.*--plugin="):
    cg.train_step(loaded.state, batch, config=loaded.config)


@pytest.mark.parametrize(
  'changes',
  [
    {'generator': {'name': 'shallow'}},
    {'loss': {'adversarial': 'softplus'}},
    {'loss': {'terms': 'total_variation=1'}},
    {'data': {'name': 'noise'}},
  ],
)
def test_an_unknown_name_is_refused(changes, tiny_config):
  with pytest.raises(ConfigError, match='--plugin'):
    tiny_config.replace(**changes)


@pytest.mark.parametrize('terms', ['a', 'a=', 'a=x', 'a=nan', '=1'])
def test_terms_that_are_no_weights(terms, tiny_config):
  with pytest.raises(ConfigError, match=r'config\.loss\.terms'):
    tiny_config.replace(loss={'terms': terms})


def test_names_of_built_in_parts_stay(tiny_config):
  for decorator, name in (
    (register.generator, 'resnet'),
    (register.adversarial_loss, 'lsgan'),
    (register.source, 'folder'),
  ):
    with pytest.raises(ConfigError, match='built in'):
      decorator(name)
  with pytest.raises(ConfigError, match='my-loss'):
    register.loss_term('my-loss')


@pytest.mark.parametrize(
  'text, expected',
  [('1 / 0', 'ZeroDivisionError'), ('def', 'SyntaxError'), (None, 'none.py')],
)
def test_plugins_that_fail(text, expected, tmp_path):
  path = tmp_path / ('none.py' if text is None else 'plugin.py')
  if text is not None:
    path.write_text(text)
  with pytest.raises(ConfigError, match=expected):
    register.load_plugin(str(path))


def test_a_config_file_is_a_plugin(tmp_path, monkeypatch):
  """Also where it imports a recipe and the package is found elsewhere."""
  monkeypatch.chdir(tmp_path)
  package = pathlib.Path(register.__file__).parents[1]
  monkeypatch.setattr(
    sys, 'path', [x for x in sys.path if x not in ('', str(package))]
  )
  monkeypatch.delitem(sys.modules, 'configs', raising=False)
  before = sys.path.copy()
  path = tmp_path / 'my_config.py'
  path.write_text(f'from configs import default\n{PLUGIN}')
  register.load_plugin(str(path))
  assert 'shallow' in register.names('generator')
  assert sys.path == before


def test_a_config_survives_json(config):
  values = to_config_dict(config).to_dict()
  assert from_config_dict(json.loads(json.dumps(values))) == config


class Squares:
  """A data source as Grain's: a length, and an array by index."""

  def __init__(self, value, count=5):
    self.value, self.count = value, count

  def __len__(self):
    return self.count

  def __getitem__(self, index):
    return np.full((20, 22, 3), self.value + index, np.uint8)


@pytest.mark.slow
def test_training_on_own_sequences(tiny_config, tmp_path):
  sources = {'train_a': Squares(0), 'train_b': Squares(100)}
  config = tiny_config.replace(steps=4, num_devices=1)
  straight = cg.train(config, tmp_path / 'straight', sources=sources).state
  cg.train(config.replace(steps=2), tmp_path / 'run', sources=sources)
  result = cg.train(config, tmp_path / 'run', sources=sources)
  assert result.start_step == 2
  jax.tree.map(np.testing.assert_array_equal, result.state.gen, straight.gen)
  # The images are the program's: nothing else can open them.
  with pytest.raises(WorkdirError, match=r'config\.data\.name'):
    cg.train(config, tmp_path / 'run')
  with pytest.raises(DataError, match='sources='):
    open_images(result.config.data)


@pytest.mark.parametrize(
  'sources, expected',
  [
    ({'train_a': Squares(0)}, 'train_b'),
    ({'train_a': Squares(0), 'train_b': Squares(0, 0)}, 'train_b'),
    ({'a': Squares(0)}, "'a'"),
    ({d: [np.zeros((8, 8))] for d in ('train_a', 'train_b')}, 'shape'),
    ({d: [np.ones((8, 8, 3)) * 2] for d in ('train_a', 'train_b')}, 'float64'),
    ({d: [np.zeros((0, 0, 3), 'u1')] for d in ('train_a', 'train_b')}, 'pixel'),
  ],
)
def test_sequences_that_do_not_fit(sources, expected, tiny_config, tmp_path):
  config = tiny_config.replace(num_devices=1)
  with pytest.raises(UserError, match=expected):
    cg.train(config, tmp_path / 'run', sources=sources)


def test_the_command_line(plugin, trained_run, tmp_path, capsys):
  argv = ['evaluate', str(trained_run), '--features', 'none']
  argv += ['--to', str(tmp_path / 'scores.json'), '--plugin', str(plugin)]
  assert cli.main(argv) == 0
  assert '| change ' in capsys.readouterr().out


def code_blocks(name):
  text = (pathlib.Path(__file__).parent.parent / name).read_text()
  return re.findall(r'```python\n(.*?)```', text, re.S)


@pytest.mark.slow
def test_the_examples_of_the_docs_train(tiny_config, tmp_path, monkeypatch):
  (example,) = [x for x in code_blocks('README.md') if 'register' in x]
  (tmp_path / 'readme.py').write_text(example)
  register.load_plugin(str(tmp_path / 'readme.py'))
  assert register.names('loss_term') == ['total_variation']
  forget(monkeypatch)  # the docs have a term of this name, too
  blocks = code_blocks('docs/extend.md')
  assert len(blocks) == 4
  for index, block in enumerate(blocks):
    assert block.count('\n') < 20
    path = tmp_path / f'example_{index}.py'
    path.write_text(block)
    register.load_plugin(str(path))
  config = tiny_config.replace(
    data={'name': 'stripes'},
    generator={'name': 'plain'},
    loss={'adversarial': 'softplus', 'terms': 'total_variation=0.1'},
    evaluation={'every_steps': 2},
    num_devices=1,
    steps=2,
  )
  cg.train(config, tmp_path / 'run')
  last = (tmp_path / 'run/metrics.jsonl').read_text().splitlines()[-1]
  names = json.loads(last)
  assert {'generator/total_variation_ab', 'evaluation/ab/change'} <= set(names)


@pytest.mark.slow
def test_sequences_of_floats_have_the_range_of_their_values(
  tiny_config, tmp_path
):
  rng = np.random.default_rng(0)
  images = rng.uniform(-1000, 2000, (4, 20, 20, 3)).astype(np.float32)
  config = tiny_config.replace(steps=1, num_devices=1)
  sources = {'train_a': images, 'train_b': Squares(0)}
  result = cg.train(config, tmp_path / 'run', sources=sources)
  assert result.config.data.low_a == images.min()
  assert result.config.data.high_a == images.max()
  assert result.config.data.dtype_b == 'uint8'


def test_a_class_of_a_session_without_a_file():
  namespace = {'__name__': '__main__', 'register': register}
  exec(
    '@register.adversarial_loss("mine")\n'
    'class Mine:\n'
    '  generator = discriminator = None\n',
    namespace,
  )
  assert register.find('adversarial_loss', 'mine') is namespace['Mine']


def test_one_name_in_two_plugins(plugin, tmp_path):
  other = tmp_path / 'other.py'
  other.write_text(
    'import cyclegan_jax as cg\ncg.register.metric("change")(len)\n'
  )
  register.load_plugin(str(plugin))
  with pytest.raises(ConfigError, match="'change'"):
    register.load_plugin(str(other))


def test_a_plugin_imports_its_neighbor(tmp_path):
  (tmp_path / 'a_neighbor_of_it.py').write_text('NAME = "near"\n')
  path = tmp_path / 'plugin.py'
  path.write_text(
    'import cyclegan_jax as cg\nfrom a_neighbor_of_it import NAME\n'
    'cg.register.metric(NAME)(len)\n'
  )
  register.load_plugin(str(path))
  assert register.names('metric') == ['near']
