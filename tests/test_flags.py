import argparse
import dataclasses
import json
import pathlib
import sys

import pytest

from cyclegan_jax.commands.parser import local_path
from cyclegan_jax.commands.train_flags import (
  USAGE,
  options_help,
  parse_train_flags,
)
from cyclegan_jax.config import (
  _OTHER_NAMES,
  FORMER_NAMES,
  Config,
  DataConfig,
  expand_paths,
  from_config_dict,
  option_paths,
)
from cyclegan_jax.errors import ConfigError
from cyclegan_jax.storage.workdir import write_config

DEFAULT = pathlib.Path(__file__).parent.parent / 'configs' / 'default.py'
FILE = f'--config={DEFAULT}'


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)


def message_of(*argv):
  with pytest.raises(ConfigError) as caught:
    parse_train_flags(list(argv))
  text = str(caught.value)
  assert '\n' not in text
  assert 'Traceback' not in text
  return text


def config_of(*argv):
  return parse_train_flags(list(argv)).config


def write(text, name='recipe.py'):
  pathlib.Path(name).write_text(text, encoding='utf-8')
  return f'--config={name}'


HEAD = """from configs import default

def get_config():
  config = default.get_config()
"""


def recipe(*lines):
  body = ''.join(f'  {line}\n' for line in (*lines, 'return config'))
  return write(HEAD + body)


# What is understood.


def test_no_flags_are_the_default_recipe():
  parsed = parse_train_flags([])
  assert parsed.config == Config()
  assert parsed.workdir is None


def test_a_file_and_overrides():
  parsed = parse_train_flags(
    [
      FILE,
      '--workdir=runs/a b ü',
      '--config.seed=3',
      '--config.optimizer.learning_rate=1e-3',
      '--config.generator.name=resnet',
      '--noconfig.data.flip',
    ]
  )
  assert parsed.workdir == pathlib.Path('runs/a b ü')
  assert parsed.config == Config().replace(
    seed=3,
    optimizer={'learning_rate': 1e-3},
    generator={'name': 'resnet'},
    data={'flip': False},
  )


@pytest.mark.parametrize(
  'argv',
  [
    ['--config', str(DEFAULT), '--config.seed', '3'],
    ['-config', str(DEFAULT), '-config.seed=3'],
    ['--config.seed=3', FILE],
    [FILE, '--config.seed=2', '--config.seed=3'],
    [FILE, '--debug', '--config.seed=3'],
    ['--config.seed=3'],
  ],
)
def test_ways_to_write_the_same(argv):
  assert config_of(*argv).seed == 3


@pytest.mark.parametrize(
  'flag, expected',
  [
    ('--config.data.flip', True),
    ('--config.data.flip=True', True),
    ('--config.data.flip=false', False),
    ('--config.data.flip=0', False),
    ('--noconfig.data.flip', False),
  ],
)
def test_switches(flag, expected):
  assert config_of(FILE, flag).data.flip is expected


@pytest.mark.parametrize(
  'path', ['/tmp/a b', "it's", 'ü/日本', '--x', 'a=b', '']
)
def test_paths_of_any_letters(path):
  assert config_of(f'--config.data.path={path}').data.path == path


def test_home_and_variables_in_paths(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.setenv('DISK', str(tmp_path / 'disk'))
  (tmp_path / 'mine.py').write_bytes(DEFAULT.read_bytes())
  flags = parse_train_flags(['--config=~/mine.py', '--workdir=$DISK/run'])
  assert flags.workdir == tmp_path / 'disk' / 'run'
  assert parse_train_flags(['--workdir', '~/run']).workdir == tmp_path / 'run'
  for arguments in (['$DISK/a.png'], [f'{tmp_path}/disk/a.png']):
    assert list(map(local_path, arguments)) == [tmp_path / 'disk' / 'a.png']
  monkeypatch.chdir(tmp_path)
  for name in ('$DISK', '~'):  # as shells find them by a pattern
    pathlib.Path(name).touch()
    assert local_path(name) == pathlib.Path(name)
  with pytest.raises(argparse.ArgumentTypeError, match='empty'):
    local_path('')


@pytest.mark.parametrize(
  ('path', 'name'),
  [
    ('$NO_SUCH', 'NO_SUCH'),
    ('$NO_SUCH/x', 'NO_SUCH'),
    ('a/${NO_SUCH}/x', 'NO_SUCH'),
    ('$SET/run$NO_SUCH', 'NO_SUCH'),
    ('${}/x', '${}'),
    ('~no_such_user/x', '~no_such_user'),
    ('$EMPTY', '$EMPTY'),
  ],
)
def test_variables_and_users_that_do_not_exist(
  path, name, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('SET', str(tmp_path))
  monkeypatch.setenv('EMPTY', '')
  for option in ('--workdir', '--config', '--plugin'):
    with pytest.raises(ConfigError) as caught:
      parse_train_flags([f'{option}={path}'])
    assert option in str(caught.value)
    assert name in str(caught.value)
  with pytest.raises(ConfigError, match='config.data.path') as caught:
    expand_paths(Config(data=DataConfig(name='folder', path=path)))
  assert name in str(caught.value)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('folder', ['$NO_SUCH', 'a${NO_SUCH}b', '~no_such'])
def test_folders_named_like_a_variable_or_a_user(folder, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('SET', str(tmp_path))
  pathlib.Path(folder).mkdir()
  for path in (folder, f'{folder}/new', f'{folder}/*.png'):
    assert local_path(path) == pathlib.Path(path)
  assert local_path(f'$SET/{folder}/new') == tmp_path / folder / 'new'
  assert local_path('./~no_such_user') == pathlib.Path('~no_such_user')


@pytest.mark.parametrize(
  'path', ['C:/data', r'C:\data', 'C://data', '10:30 photos', 'x:/y']
)
def test_colons_in_paths(path):
  assert local_path(path) == pathlib.Path(path)
  assert parse_train_flags([f'--workdir={path}']).workdir == pathlib.Path(path)


@pytest.mark.parametrize('option', ['--workdir', '--config', '--plugin'])
@pytest.mark.parametrize(
  'path',
  [
    *('gs://bucket/run', 'https://x.org/a.py', 'file:///run', 'x' * 300),
    str(pathlib.PurePosixPath('gs://bucket/run')),
  ],
)
def test_paths_that_no_file_can_have(option, path):
  with pytest.raises(ConfigError, match=f'{option}: .*{path[:10]}'):
    parse_train_flags([f'{option}={path}'])


def test_an_empty_workdir_is_none():
  assert parse_train_flags(['--workdir=']).workdir is None


def test_the_last_workdir_counts():
  parsed = parse_train_flags(['--workdir=a', '--workdir=b'])
  assert parsed.workdir == pathlib.Path('b')


def test_a_whole_number_is_a_float():
  config = config_of('--config.optimizer.learning_rate=1')
  assert config.optimizer.learning_rate == 1.0


def test_a_file_sees_what_lies_beside_its_folder(tmp_path, monkeypatch):
  for name in ('recipes', 'elsewhere'):
    (tmp_path / name).mkdir()
  (tmp_path / 'recipes' / 'base_of_mine.py').write_text(
    'from cyclegan_jax.config import Config, to_config_dict\n'
    'def get_config():\n'
    '  return to_config_dict(Config(seed=5))\n'
  )
  (tmp_path / 'recipes' / 'mine.py').write_text(
    'from recipes import base_of_mine\nget_config = base_of_mine.get_config\n'
  )
  monkeypatch.chdir(tmp_path / 'elsewhere')
  before = sys.path.copy()
  assert config_of('--config=../recipes/mine.py').seed == 5
  assert sys.path == before


def test_the_path_of_modules_stays(tmp_path, monkeypatch):
  monkeypatch.setattr(sys, 'path', [str(DEFAULT.parent.parent), *sys.path])
  before = sys.path.copy()
  config_of(FILE)
  message_of(recipe('1 / 0'))
  assert sys.path == before


def test_a_file_is_run_afresh_each_time():
  flag = recipe('config.seed = 1')
  assert config_of(flag).seed == 1
  recipe('config.seed = 2')
  assert config_of(flag).seed == 2
  assert not pathlib.Path('__pycache__').exists()


# What is wrong with a flag.


@pytest.mark.parametrize(
  'argv, expected',
  [
    # Options that don't exist, with the nearest.
    (
      ['--config.sed=3'],
      'config.sed does not exist: did you mean config.seed?',
    ),
    (
      ['--config.data.siez=3'],
      'config.data.siez does not exist: did you mean config.data.size?',
    ),
    (
      ['--config.learning_rate=3'],
      'config.learning_rate does not exist: did you mean '
      'config.optimizer.learning_rate?',
    ),
    (
      ['--noconfig.flip'],
      'config.flip does not exist: did you mean config.data.flip?',
    ),
    (['--config.=1'], 'config. does not exist: did you mean config.seed?'),
    # Groups.
    (
      ['--config.log=3'],
      'config.log is a group of options: give one of them, such as '
      'config.log.metrics_every_steps',
    ),
    (
      ['--config.data'],
      'config.data is a group of options: give one of them, such as '
      'config.data.name',
    ),
    # Wrong types.
    (['--config.seed=x'], "config.seed='x' is not an int, such as 0"),
    (['--config.seed=1.5'], "config.seed='1.5' is not an int, such as 0"),
    (['--config.seed='], "config.seed='' is not an int, such as 0"),
    (
      ['--config.data.flip=maybe'],
      "config.data.flip='maybe' is not a bool, such as True",
    ),
    (
      ['--config.loss.cycle_a=ten'],
      "config.loss.cycle_a='ten' is not a float, such as 10.0",
    ),
    (
      ['--noconfig.seed'],
      '--noconfig.seed: config.seed is not a bool: give --config.seed=VALUE',
    ),
    # Unknown choices and values out of range.
    (
      ['--config.generator.name=unet'],
      "config.generator.name='unet' is unknown: choose from keras_unet, "
      'resnet, torch_unet, vit_unet, or pass the --plugin=FILE.py that '
      'registers it',
    ),
    (['--config.batch_size=0'], 'config.batch_size=0 is too small: at least 1'),
    (
      ['--config.optimizer.learning_rate=nan'],
      'config.optimizer.learning_rate=nan is not a finite number',
    ),
    # A size that the network cannot take.
    (
      ['--config.data.size=60', '--config.data.load_size=60'],
      'config.data.size=60 does not fit the network, which takes 64: make '
      'config.generator.isize, a power of two, equal to it, or set '
      'config.generator.fixed_input_size=False for multiples',
    ),
    # Missing values.
    (['--workdir'], '--workdir has no value: give --workdir=VALUE'),
    (['--config.seed'], '--config.seed has no value: give --config.seed=VALUE'),
    (['--config'], '--config has no value: give --config=FILE'),
    # Flags that don't exist.
    (['--wrkdir=x'], '--wrkdir is not a flag: did you mean --workdir?'),
    (['--conf=x'], '--conf is not a flag: did you mean --config?'),
    (['--flagfile=x'], '--flagfile is not a flag: --help lists them'),
    (['--undefok=x', '--x'], '--undefok is not a flag: --help lists them'),
    # Stray arguments.
    (
      ['stray'],
      "'stray' is not a flag: options are given as --config.seed=1",
    ),
    (
      ['config.seed=3'],
      "'config.seed=3' is not a flag: options are given as --config.seed=1",
    ),
    (
      ['--', '--config.seed=3'],
      "'--' is not a flag: options are given as --config.seed=1",
    ),
    (['--nodebug=1'], '--nodebug=1 does not take an argument'),
    (
      ['--' + 'noa.' * 600],
      f'--{"noa." * 600} is not a flag: --help lists them',
    ),
    ([''], "'' is not a flag: options are given as --config.seed=1"),
    # A long dash, as word processors make them.
    (
      ['\u2013-config.seed=3'],
      "'\u2013-config.seed=3' is not a flag: options are given as "
      '--config.seed=1',
    ),
  ],
)
def test_a_wrong_flag(argv, expected):
  assert message_of(FILE, *argv) == expected


@pytest.mark.parametrize(
  'flag, expected',
  [
    ('batch_size', 'config.batch_size'),
    ('batch-size', 'config.batch_size'),
    ('bs', 'config.batch_size'),
    ('epochs', 'config.epochs'),
    ('n_epochs', 'config.epochs'),
    ('data.path', 'config.data.path'),
    ('dataroot', 'config.data.path'),
    ('lr', 'config.optimizer.learning_rate'),
    ('config.lr', 'config.optimizer.learning_rate'),
    ('lr_policy', 'config.schedule.name'),
    ('gpu_ids', 'config.num_devices'),
    ('name', 'workdir'),
    ('checkpoints_dir', 'workdir'),
  ],
)
def test_names_of_other_trainers(flag, expected):
  message = message_of(f'--{flag}=4')
  assert message.startswith((f'--{flag} ', f'{flag} '))
  assert message.endswith(f' {expected}?') or message.endswith(
    f' --{expected}?'
  )


def test_a_run_s_config_with_other_options(tmp_path):
  recorded = Config().replace(
    steps=90,
    epochs=9,
    steps_per_epoch=10,
    num_devices=3,
    data={'name': 'folder', 'path': 'x', 'high_a': 255.0, 'dtype_a': 'uint8'},
    generator={'fixed_input_size': False, 'isize': 16},
  )
  path = tmp_path / 'config.json'
  path.write_text(json.dumps(dataclasses.asdict(recorded)))

  def config_of(*argv):
    return parse_train_flags([f'--config={path}', *argv]).config

  assert config_of() == recorded.replace(num_devices=0)
  assert config_of('--config.epochs=20').steps == 0
  assert config_of('--change').steps_per_epoch == 0
  assert config_of('--config.data.size=128').data.size_before_crop > 128
  other = config_of('--config.data.path=y')
  assert (other.steps_per_epoch, other.data.high_a) == (0, 0.0)
  assert not other.data.dtype_a


@pytest.fixture
def filled_in():
  """A run whose user set epochs, a window and where networks come from."""
  config = Config().replace(
    steps=3200,
    epochs=10,
    steps_per_epoch=320,
    init_from='source',
    init_sha256='12',
    data={
      'name': 'folder',
      'path': 'x',
      'load_size': 71,
      'dtype_a': 'int16',
      'window_a': 'ct_soft',
      'dtype_b': 'uint16',
      'high_b': 65535.0,
      'modality_b': 'MR',
      'rescale_type_b': 'US',
    },
    schedule={'name': 'linear', 'decay_epochs': 5, 'max_rate': 1e-5},
    log={'samples_every_steps': 200},
    checkpoint={'every_steps': 320},
  )
  write_config(pathlib.Path(), config)
  return config


def reopened(*argv):
  return config_of(
    '--config=config.json', *(f'--config.{text}' for text in argv)
  )


def test_lengths_that_a_run_filled_in(filled_in):
  open_counts = filled_in.replace(
    schedule={'decay_epochs': -1},
    log={'samples_every_steps': 0},
    checkpoint={'every_steps': 0},
  )
  assert reopened() == open_counts
  longer = open_counts.replace(epochs=20, steps=0)
  assert reopened('epochs=20') == longer
  # Epochs of another length are as many as before, unless steps were asked for.
  other = open_counts.replace(steps=0, steps_per_epoch=0, batch_size=8)
  assert reopened('batch_size=8') == other
  assert reopened('steps_per_epoch=9').steps == 0
  assert reopened('batch_size=8', 'steps=90').steps == 90
  write_config(pathlib.Path(), filled_in.replace(steps=3100))
  assert reopened('batch_size=8').steps == 3100
  # Numbers that are not those of an open option are the user's.
  own = filled_in.replace(
    schedule={'decay_epochs': 3},
    log={'samples_every_steps': 7},
    checkpoint={'every_steps': 7},
  )
  write_config(pathlib.Path(), own)
  assert reopened('epochs=20') == own.replace(epochs=20, steps=0)


def test_values_that_a_run_filled_in(filled_in):
  data = reopened('data.path=y').data
  assert data == DataConfig(
    name='folder', path='y', window_a='ct_soft', load_size=0
  )
  assert (data.modality_a, data.modality_b) == ('CT', '')
  data = reopened('data.path=y', 'data.modality_b=PT').data
  assert data.modality_b == 'PT'
  bone = reopened('data.window_a=ct_bone').data
  assert (bone.low_a, bone.high_a, bone.modality_a) == (-500, 1300, 'CT')
  no_window = reopened('data.window_a=none').data
  assert (no_window.low_a, no_window.high_a) == (0, 0)
  assert (no_window.modality_a, no_window.rescale_type_a) == ('', '')
  assert no_window.modality_b == 'MR'
  assert reopened('data.dtype_b=uint8').data.high_b == 0


def test_networks_and_a_rate_that_a_run_filled_in(filled_in):
  assert reopened('init_from=other').init_sha256 == ''
  assert reopened('init_from=other', 'init_sha256=3').init_sha256 == '3'
  assert reopened('optimizer.learning_rate=1e-3').schedule.max_rate == 0
  assert reopened('seed=3').schedule.max_rate == 1e-5


def test_former_names_are_accepted():
  flags = parse_train_flags(
    ['--config.log.keep_checkpoints=7', '--config.log.doctor=False']
  )
  assert flags.config.checkpoint.keep == 7
  assert not flags.config.diagnostics.enabled
  assert 'config.checkpoint.keep' in flags.explicit


def test_other_names_are_of_options():
  known = {*option_paths()}
  assert {*_OTHER_NAMES.values()} <= known
  assert {f'config.{name}' for name in FORMER_NAMES.values()} <= known


# Options that follow from others.


@pytest.mark.parametrize(
  'flags, expected',
  [
    (['path=mine'], 'folder'),
    (['train_a=x', 'train_b=y'], 'folder'),
    (['test_a=x'], 'folder'),
    (['path=mine', 'train_a=x'], 'folder'),
    (['dataset=mnist'], 'tfds'),
    (['dataset=mnist', 'path=downloads'], 'tfds'),
    (['dataset_a=mnist', 'dataset_b=svhn'], 'tfds'),
    (['path='], 'embedded'),
    (['train_a=x', 'dataset=mnist'], 'embedded'),  # refused later
    (['path=mine', 'name=embedded'], 'embedded'),
    (['path=mine', 'name=tfds'], 'tfds'),
  ],
)
def test_naming_images_chooses_their_source(flags, expected):
  flags = [f'--config.data.{flag}' for flag in flags]
  assert config_of(FILE, *flags).data.name == expected


def test_a_recipe_that_names_images_chooses_their_source():
  assert config_of(recipe('config.data.path = "mine"')).data.name == 'folder'


def test_the_given_options_are_known():
  argv = [FILE, '--config.seed', '1', '--noconfig.data.flip', '-config.steps=2']
  expected = {'config.seed', 'config.data.flip', 'config.steps'}
  assert parse_train_flags(argv).explicit == expected


# A run's config.json.


@pytest.fixture
def recorded():
  config = Config().replace(
    seed=5, data={'size': 128}, generator={'isize': 128}
  )
  pathlib.Path('run').mkdir()
  write_config(pathlib.Path('run'), config)
  return config


@pytest.mark.parametrize('path', ['run/config.json', 'run', 'run/'])
def test_the_options_of_a_run(recorded, path):
  assert config_of(f'--config={path}') == recorded
  assert config_of(f'--config={path}', '--config.seed=6').seed == 6


@pytest.mark.parametrize(
  'text', ['', '{"seed": 1', '[1]', '{"sed": 1}', '{"seed": "x"}', '\udcff']
)
def test_a_damaged_config_of_a_run(text):
  pathlib.Path('config.json').write_bytes(text.encode('utf-8', 'surrogatepass'))
  assert 'config.json' in message_of('--config=config.json')


# What is wrong with the file.


def test_a_file_that_does_not_exist():
  assert message_of('--config=missing.py') == (
    'config file missing.py does not exist: give one such as configs/default.py'
  )


@pytest.mark.parametrize('path', ['', '.', '/tmp'])
def test_no_file(path):
  assert message_of(f'--config={path}') == (
    f'--config={path} is not a file: give one such as configs/default.py'
  )


def test_two_files():
  assert message_of(FILE, '--config=other.py') == (
    f'--config is given twice: {DEFAULT} and other.py'
  )


def test_broken_python():
  flag = write('x = 1\ndef get_config(:\n')
  assert message_of(flag) == 'config file recipe.py, line 2: invalid syntax'


def test_broken_python_in_what_it_imports(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(tmp_path)
  write('x = 1\n\ny = = 2\n', 'broken_import_of_a_test.py')
  flag = write('import broken_import_of_a_test\n')
  assert message_of(flag) == (
    f'config file {tmp_path}/broken_import_of_a_test.py, line 3: invalid syntax'
  )


@pytest.mark.parametrize('text', ['', 'def get_cofnig():\n  pass\n'])
def test_no_get_config(text):
  assert message_of(write(text)) == (
    'config file recipe.py has no function get_config(): see configs/default.py'
  )


@pytest.mark.parametrize(
  'value, kind', [('None', 'NoneType'), ('{"seed": 1}', 'dict'), ('3', 'int')]
)
def test_get_config_returns_something_else(value, kind):
  flag = write(f'def get_config():\n  return {value}\n')
  expected = (
    f'config file recipe.py: get_config() returned a {kind}, not a '
    'ConfigDict: see configs/default.py'
  )
  assert message_of(flag) == expected
  assert message_of(flag, '--config.seed=3') == expected


@pytest.mark.parametrize(
  'text, expected',
  [
    (
      'def get_config():\n  raise RuntimeError("two\\nlines")\n',
      'config file recipe.py, line 2: RuntimeError: two lines',
    ),
    (
      'import there_is_no_such_module\n',
      'config file recipe.py, line 1: ModuleNotFoundError: No module named '
      "'there_is_no_such_module'",
    ),
    (
      'import sys\nsys.exit("bye")\n',
      'config file recipe.py, line 2: SystemExit: bye',
    ),
    (
      '\n\nopen("no/such/file")\n',
      'config file recipe.py, line 3: FileNotFoundError: [Errno 2] No such '
      "file or directory: 'no/such/file'",
    ),
    (
      'def get_config(size):\n  pass\n',
      'config file recipe.py: TypeError: get_config() missing 1 required '
      "positional argument: 'size'",
    ),
  ],
)
def test_a_file_that_raises(text, expected):
  assert message_of(write(text)) == expected


def test_the_line_is_that_of_the_file_and_not_of_what_it_calls(tmp_path):
  flag = recipe('config.seed = 1', 'int("x")')
  assert message_of(flag) == (
    'config file recipe.py, line 6: ValueError: invalid literal for int() '
    "with base 10: 'x'"
  )


def test_the_line_is_the_innermost():
  flag = write('def get_config():\n  return make()\ndef make():\n  1 / 0\n')
  assert message_of(flag) == (
    'config file recipe.py, line 4: ZeroDivisionError: division by zero'
  )


@pytest.mark.parametrize(
  'line, expected',
  [
    ('config.sed = 1', 'config.sed does not exist: did you mean config.seed?'),
    (
      'config.data.update(siez=1)',
      'config.data.siez does not exist: did you mean config.data.size?',
    ),
    (
      'config.dataa.size = 1',
      "config file recipe.py, line 5: 'dataa' does not exist: did you mean "
      "'data'?",
    ),
    (
      'config.lock(); config.sed = 1',
      "config file recipe.py, line 5: 'sed' does not exist: did you mean "
      "'seed'?",
    ),
    ('config.batch_size = 0', 'config.batch_size=0 is too small: at least 1'),
    (
      'config.data = None',
      'config.data=None is a single value: config.data is a group of options, '
      'such as config.data.name',
    ),
  ],
)
def test_a_wrong_line(line, expected):
  assert message_of(recipe(line)) == expected


def test_a_wrong_type_in_a_line():
  # The rest of the sentence is by ml_collections.
  message = message_of(recipe('config.seed = "x"'))
  assert message.startswith('config file recipe.py, line 5: TypeError: ')
  assert "'seed'" in message


# Help.


def test_help_tells_of_every_option():
  text = options_help()
  for path in option_paths():
    assert f'--{path}=' in text
  assert '--config.seed=0\n    random seed' in text
  assert '(resnet, vit_unet only)' in text
  assert '[keras_unet, resnet, torch_unet, vit_unet]' in text
  assert '--workdir' in USAGE


def test_every_default_in_the_help_is_understood():
  flags = [
    line for line in options_help().splitlines() if line.startswith('--')
  ]
  assert config_of(*flags) == Config()
  assert from_config_dict({}) == Config()
