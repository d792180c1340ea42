import ast
import dataclasses
import io
import pathlib
import re
import tokenize

import pytest

from cyclegan_jax.commands.train_flags import parse_train_flags
from cyclegan_jax.config import Config, from_config_dict
from cyclegan_jax.errors import ConfigError
from cyclegan_jax.optimizers import decay_epochs

CONFIGS = pathlib.Path(__file__).parent.parent / 'configs'
NAMES = sorted(path.stem for path in CONFIGS.glob('*.py'))


def config_of(name):
  return parse_train_flags([f'--config={CONFIGS / name}.py']).config


def text_of(name):
  return (CONFIGS / f'{name}.py').read_text()


def test_the_recipes_are_there():
  assert NAMES == ['default', 'folder', 'keras', 'paper', 'tiny', 'tpu']


@pytest.mark.parametrize('name', NAMES)
def test_it_builds(name):
  config = config_of(name)
  assert isinstance(config, Config)
  assert from_config_dict(dataclasses.asdict(config)) == config


@pytest.mark.parametrize('name', NAMES)
def test_its_docstring_has_its_command(name):
  doc = ast.get_docstring(ast.parse(text_of(name)))
  lines = [line.strip() for line in doc.splitlines()]
  command = f'python main.py --config=configs/{name}.py'
  (line,) = [line for line in lines if line.startswith('python main.py')]
  assert line == command or line.startswith(f'{command} --config.')


@pytest.mark.parametrize('name', NAMES)
def test_the_flags_of_its_command_are_understood(name, monkeypatch):
  monkeypatch.chdir(CONFIGS.parent)
  (command,) = re.findall('python main.py (.*)', text_of(name))
  config = parse_train_flags(command.split()).config
  assert config.replace(data={'path': ''}) == config_of(name)


@pytest.mark.parametrize('name', NAMES)
def test_it_is_short(name):
  tokens = tokenize.generate_tokens(io.StringIO(text_of(name)).readline)
  skipped = (tokenize.NL, tokenize.COMMENT, tokenize.NEWLINE)
  lines = {token.start[0] for token in tokens if token.type not in skipped}
  doc = ast.parse(text_of(name)).body[0]
  lines -= set(range(doc.lineno, doc.end_lineno + 1))
  assert len(lines) < 30


def test_the_default_recipe_is_the_default():
  assert config_of('default') == Config()


def test_the_seed_recipe():
  config = config_of('keras')
  assert (config.data.size_before_crop, config.data.size) == (143, 128)
  assert config.data.preprocess == 'resize_and_center_crop'
  assert config.generator.filters == config.discriminator.filters == 64
  assert config.loss == Config().loss
  assert config.batch_size == 1
  assert config.epochs == 150


def test_the_paper_recipe():
  config = config_of('paper')
  assert (config.data.size_before_crop, config.data.size) == (286, 256)
  assert config.generator.name == 'resnet'
  assert config.generator.blocks == 9
  assert config.generator.filters == config.discriminator.filters == 64
  assert config.generator.norm == config.discriminator.norm == 'instance'
  assert config.discriminator.name == 'patchgan'
  assert config.loss.adversarial == 'lsgan'
  assert (config.loss.cycle_a, config.loss.cycle_b) == (10, 10)
  assert (config.loss.identity_a, config.loss.identity_b) == (5, 5)
  assert config.loss.discriminator == 0.5
  assert config.pool_size == 50
  assert config.epochs == 200
  assert decay_epochs(config.schedule, config.epochs) == 100
  assert config.optimizer.learning_rate == 2e-4
  assert config.optimizer.b1 == 0.5


def test_the_tpu_recipe_is_the_paper_s_but_for_speed():
  paper = config_of('paper')
  assert config_of('tpu') == paper.replace(
    batch_size=8,
    generator={'dtype': 'bfloat16'},
    discriminator={'dtype': 'bfloat16'},
  )


def test_the_folder_recipe_wants_a_folder():
  config = config_of('folder')
  assert config.data.name == 'folder'
  assert config.data.path == ''


@pytest.mark.parametrize('name', NAMES)
def test_each_can_be_overridden(name):
  flags = [f'--config={CONFIGS / name}.py', '--config.seed=41']
  assert parse_train_flags(flags).config == config_of(name).replace(seed=41)
  with pytest.raises(ConfigError):
    parse_train_flags([*flags, '--config.sed=41'])
