"""The command line of a run: `--config=FILE --config.option=value ...`.

ml_collections reads the overrides; what goes wrong becomes a ConfigError in
one line.
"""

import argparse
import dataclasses
import difflib
import json
import pathlib
import re
import sys
import traceback
from collections.abc import Set
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from cyclegan_jax import register
from cyclegan_jax.commands.parser import local_path
from cyclegan_jax.config import (
  DEFAULT_CHECKPOINTS,
  DEFAULT_SHEETS,
  FORMER_NAMES,
  Config,
  from_config_dict,
  option_at,
  option_paths,
  similar_options,
  source_of,
  source_options,
  to_config_dict,
  unknown_option,
  wrong_type,
)
from cyclegan_jax.errors import ConfigError

# Names that other trainers have for the folder of a run.
_OTHER_NAMES_OF_WORKDIR = (
  'name',
  'checkpoints_dir',
  'output_dir',
  'outdir',
  'save_dir',
  'logdir',
  'resume',
)

USAGE = """\
Trains two translators between two folders of images.

  python main.py --config=configs/default.py [--workdir=FOLDER]
                 [--config.OPTION=VALUE ...] [--change] [--plugin=FILE.py ...]
                 [--debug]

--config    a recipe, as in configs/: a Python file, which is executed; or the
            config.json of a run, or its folder, for the same options
--workdir   folder of the run; an existing run is resumed
            (default: the next free number under runs/)
--change    lets an existing run continue with other options than before;
            more steps need no permission. With other images or another batch
            size, the steps of an epoch are computed anew, and epochs are
            counted with them from step 0
--plugin    Python file that registers own networks, losses, data sources or
            metrics; it is executed. May be given several times
--debug     show the traceback of an error
"""


@dataclasses.dataclass(frozen=True)
class TrainFlags:
  """Parsed command line of `cyclegan train`."""

  config: Config
  workdir: pathlib.Path | None
  explicit: frozenset[str]  # paths of the options among the flags
  may_change: bool  # of an existing run's options


def parse_train_flags(argv: list[str]) -> TrainFlags:
  """Reads the command line of a run.

  Args:
    argv: the arguments, without the program's name.

  Returns:
    The config, not yet resolved, and the workdir if one was given.

  Raises:
    ConfigError: a file, a flag, an option or a value is wrong.
  """
  rest = _load_plugins([_with_present_name(each) for each in argv])
  file, rest = _take_config_file(rest)
  path = file and str(_local_path('--config', file))
  explicit = _check_options(rest)
  options = to_config_dict(Config()) if path is None else _load(path)
  recorded = None
  if path is not None and not path.endswith('.py'):
    recorded = from_config_dict(options)
  values = flags.FlagValues()
  stray = _parse(values, options, rest)
  if stray:
    raise ConfigError(_unknown_flag(stray[0]))
  if recorded is not None:
    _reopen(values.config, recorded, explicit, may_change=values.change)
  config = from_config_dict(values.config)
  if config.data.name == 'embedded' and 'config.data.name' not in explicit:
    # Who names images wants to train on them.
    config = config.replace(data={'name': source_of(config.data)})
  workdir = None
  if values.workdir:
    workdir = _local_path('--workdir', values.workdir)
  return TrainFlags(config, workdir, explicit, values.change)


def _reopen(
  options: ml_collections.ConfigDict,
  recorded: Config,
  explicit: Set[str],
  *,
  may_change: bool,
) -> None:
  """Opens what a run filled in, where the user's options would contradict it.

  A run's config.json does not tell what its user left open. Counts that are
  those of an open option are taken for it.

  Args:
    options: of a config.json, with the user's.
    recorded: without the user's.
    explicit: paths of the user's.
    may_change: whether a run continues, maybe with other images in its folder.
  """
  sources = {f'config.data.{name}' for name in source_options()}
  is_new_data = not sources.isdisjoint(explicit)
  has_new_epochs = is_new_data or may_change or 'config.batch_size' in explicit
  counts_epochs = recorded.steps == recorded.epochs * recorded.steps_per_epoch
  steps, schedule, data = recorded.steps, recorded.schedule, recorded.data
  causes = {
    'config.num_devices': True,  # this machine may have others
    'config.steps': 'config.epochs' in explicit
    or (
      counts_epochs and (has_new_epochs or 'config.steps_per_epoch' in explicit)
    ),
    'config.steps_per_epoch': has_new_epochs,
    'config.schedule.decay_epochs': schedule.decay_epochs
    == recorded.epochs // 2,
    'config.schedule.max_rate': 'config.optimizer.learning_rate' in explicit,
    'config.log.samples_every_steps': recorded.log.samples_every_steps
    == max(1, steps // DEFAULT_SHEETS),
    'config.checkpoint.every_steps': recorded.checkpoint.every_steps
    == max(1, steps // DEFAULT_CHECKPOINTS),
    'config.init_sha256': 'config.init_from' in explicit,
    'config.data.load_size': 'config.data.size' in explicit
    or (
      is_new_data
      and data.load_size
      == dataclasses.replace(data, load_size=0).size_before_crop
    ),
  }
  for domain in 'ab':
    has_new_window = f'config.data.window_{domain}' in explicit
    has_new_dtype = f'config.data.dtype_{domain}' in explicit
    causes |= {
      f'config.data.dtype_{domain}': is_new_data,
      **{
        f'config.data.{name}_{domain}': is_new_data
        or has_new_window
        or has_new_dtype
        for name in ('low', 'high')
      },
      **{
        f'config.data.{name}_{domain}': is_new_data or has_new_window
        for name in ('modality', 'rescale_type')
      },
    }
  for path, is_open in causes.items():
    if is_open and path not in explicit:
      *_, section, name = path.split('.')
      group = options if section == 'config' else options[section]
      group[name] = option_at(path).default


def _local_path(option: str, text: str) -> pathlib.Path:
  try:
    return local_path(text)
  except argparse.ArgumentTypeError as error:
    raise ConfigError(f'{option}: {error}') from error


def options_help() -> str:
  """Every option with its default and its meaning."""
  lines = []
  for path in option_paths():
    field = option_at(path)
    choices = field.metadata['choices']
    known = f' [{", ".join(choices)}]' if choices else ''
    lines.append(f'--{path}={field.default}')
    used_by = ', '.join(field.metadata['used_by'])
    only = f' ({used_by} only)' if used_by else ''
    lines.append(f'    {field.metadata["help"]}{known}{only}')
  return '\n'.join(lines)


def _parse(
  values: flags.FlagValues, options: ml_collections.ConfigDict, argv: list[str]
) -> list[str]:
  """Parses, and says in one line what could not be."""
  flags.DEFINE_string('workdir', '', '', flag_values=values)
  flags.DEFINE_bool('debug', False, '', flag_values=values)
  flags.DEFINE_bool('change', False, '', flag_values=values)
  try:
    config_flags.DEFINE_config_dict(
      'config', options, flag_values=values, sys_argv=argv
    )
    # Else absl looks for similar flags, and recurses too deep for long ones.
    return values(['main.py', *argv], known_only=True)[1:]
  except flags.IllegalFlagValueError as error:
    found = re.match(r'flag --(config\.[\w.]+)=(.*?): ', str(error), re.S)
    if found is None:
      raise ConfigError(_one_line(error)) from error
    raise ConfigError(
      wrong_type(found[1], found[2], option_at(found[1]).default)
    ) from error
  except (flags.Error, ValueError) as error:
    text = _one_line(error)
    found = re.fullmatch('Missing value for flag (.*)', text)
    if found:
      text = f'{found[1]} has no value: give {found[1]}=VALUE'
    raise ConfigError(text) from error


def _load(path: str) -> ml_collections.ConfigDict:
  """Runs a config file, the user's own program, or reads a run's config."""
  if path and (pathlib.Path(path) / 'config.json').is_file():
    path = str(pathlib.Path(path) / 'config.json')
  if not path or pathlib.Path(path).is_dir():
    raise ConfigError(
      f'--config={path} is not a file: give one such as configs/default.py'
    )
  if not pathlib.Path(path).exists():
    raise ConfigError(
      f'config file {path} does not exist: give one such as configs/default.py'
    )
  if path.endswith('.json'):
    return _read_json(path)
  scope = {'__name__': 'config_file', '__file__': path}
  file = pathlib.Path(path).absolute()
  # So that `from configs import default` works wherever one stands, whichever
  # way the program was started: beside the file, in the current folder, and
  # in that of this package.
  before = [str(folder) for folder in (file.parent, file.parent.parent)]
  package = pathlib.Path(__file__).absolute().parents[2]
  after = [str(folder) for folder in (pathlib.Path.cwd(), package)]
  old = sys.path.copy()
  sys.path[:] = [*before, *old, *after]
  try:
    with register.registering(file):
      exec(compile(file.read_bytes(), path, 'exec'), scope)
    get_config: Any = scope.get('get_config')
    if get_config is None:
      raise ConfigError(
        f'config file {path} has no function get_config(): see '
        'configs/default.py'
      )
    options = get_config()
  except ConfigError:
    raise
  except (Exception, SystemExit) as error:
    raise ConfigError(_file_error(path, error)) from error
  finally:
    sys.path[:] = old
  if not isinstance(options, ml_collections.ConfigDict):
    raise ConfigError(
      f'config file {path}: get_config() returned a '
      f'{type(options).__name__}, not a ConfigDict: see configs/default.py'
    )
  return options


def _read_json(path: str) -> ml_collections.ConfigDict:
  """Reads the options that a run has recorded."""
  try:
    text = pathlib.Path(path).read_text(encoding='utf-8')
    return to_config_dict(from_config_dict(json.loads(text)))
  except (OSError, ValueError, RecursionError, ConfigError) as error:
    reason = getattr(error, 'strerror', None) or _one_line(error)
    raise ConfigError(f'config file {path} cannot be read: {reason}') from error


def _file_error(path: str, error: BaseException) -> str:
  if isinstance(error, SyntaxError):
    where = f', line {error.lineno}' if error.lineno else ''
    return f'config file {error.filename or path}{where}: {error.msg}'
  if isinstance(error, OSError) and error.filename == path:
    return f'config file {path} cannot be read: {error.strerror}'
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if frame.filename == path]
  where = f', line {lines[-1]}' if lines else ''
  text = _one_line(error)
  # By ml_collections, of a group that is read by a wrong name.
  found = re.search(r'Did you mean "(\w+)" instead of "(\w+)"', text)
  if found:
    what = f'{found[2]!r} does not exist: did you mean {found[1]!r}?'
  else:
    what = f'{type(error).__name__}: {text}'
  return f'config file {path}{where}: {what}'


def _one_line(error: BaseException) -> str:
  return ' '.join(str(error).split())


def _unknown_flag(argument: str) -> str:
  name = argument.lstrip('-').split('=')[0]
  if not argument.startswith('-') or not name:
    return f'{argument!r} is not a flag: options are given as --config.seed=1'
  known = ['config', 'workdir', 'change', 'plugin', 'debug']
  guesses = [
    *('workdir' for other in _OTHER_NAMES_OF_WORKDIR if other == name),
    *difflib.get_close_matches(name, known, n=1, cutoff=0.7),
    *similar_options(f'config.{name}', cutoff=0.8),
  ]
  shown = name if name.isprintable() else repr(name)
  hint = f'did you mean --{guesses[0]}?' if guesses else '--help lists them'
  return f'--{shown} is not a flag: {hint}'


def _with_present_name(argument: str) -> str:
  for former, present in FORMER_NAMES.items():
    argument = re.sub(
      rf'^(--?config\.){re.escape(former)}(?==|$)', rf'\g<1>{present}', argument
    )
  return argument


def _load_plugins(argv: list[str]) -> list[str]:
  """Loads the plugins of a command line; returns the other arguments."""
  paths, rest = _take_flag('plugin', 'FILE.py', argv)
  for path in paths:
    register.load_plugin(str(_local_path('--plugin', path)))
  return rest


def _take_config_file(argv: list[str]) -> tuple[str | None, list[str]]:
  """The value of --config, and the other arguments."""
  paths, rest = _take_flag('config', 'FILE', argv)
  if len(paths) > 1:
    raise ConfigError(f'--config is given twice: {paths[0]} and {paths[1]}')
  return paths[0] if paths else None, rest


def _take_flag(
  name: str, example: str, argv: list[str]
) -> tuple[list[str], list[str]]:
  """The values of a flag that absl does not read, and the other arguments."""
  values, rest = [], []
  words = iter(argv)
  for word in words:
    found = re.fullmatch(f'--?{name}(=(.*))?', word, re.S)
    if found is None:
      rest.append(word)
      continue
    value = found[2] if found[1] else next(words, None)
    if value is None:
      raise ConfigError(f'--{name} has no value: give --{name}={example}')
    values.append(value)
  return values, rest


def _check_options(argv: list[str]) -> frozenset[str]:
  """Checks and returns the paths of the options that are given.

  ml_collections would end in a traceback, naming no nearest option.
  """
  known = option_paths()
  given = set()
  for each in argv:
    # Absl knows these two by itself: files of flags, and flags to overlook.
    if re.match('--?(flagfile|undefok)(=|$)', each):
      raise ConfigError(_unknown_flag(each))
    found = re.match(r'--?(no)?(config\.[^=]*)', each)
    if found is None:
      continue
    path = found[2]
    if path in known:
      if found[1] and not isinstance(option_at(path).default, bool):
        raise ConfigError(
          f'--no{path}: {path} is not a bool: give --{path}=VALUE'
        )
      given.add(path)
      continue
    inner = [each for each in known if each.startswith(path + '.')]
    if inner:
      raise ConfigError(
        f'{path} is a group of options: give one of them, such as {inner[0]}'
      )
    raise ConfigError(unknown_option(path))
  return frozenset(given)
