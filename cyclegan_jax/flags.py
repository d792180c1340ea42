"""The command line of a run: `--config=FILE --config.option=value ...`.

ml_collections reads the file and the overrides; what goes wrong becomes a
ConfigError in one line.
"""

import dataclasses
import difflib
import pathlib
import re
import traceback

from absl import flags
from ml_collections import config_flags

from cyclegan_jax.config import (
  Config,
  from_config_dict,
  option_at,
  option_paths,
  to_config_dict,
  unknown_option,
  wrong_type,
)
from cyclegan_jax.errors import ConfigError

USAGE = """\
Trains two translators between two folders of images.

  python main.py --config=configs/default.py [--workdir=FOLDER]
                 [--config.OPTION=VALUE ...] [--debug]

--config    a recipe, see configs/; it is Python and is run as such
--workdir   the run's folder; a run that is there is gone on with
            (default: the next free number under runs/)
--debug     show the traceback of an error
"""


@dataclasses.dataclass(frozen=True)
class TrainFlags:
  """What the command line asks for."""

  config: Config
  workdir: pathlib.Path | None


def parse_train_flags(argv: list[str]) -> TrainFlags:
  """Reads the command line of a run.

  Args:
    argv: the arguments, without the program's name.

  Returns:
    The config, not yet resolved, and the workdir if one was given.

  Raises:
    ConfigError: a file, a flag, an option or a value is wrong.
  """
  _check_options(argv)
  values = flags.FlagValues()
  flags.DEFINE_string('workdir', '', '', flag_values=values)
  flags.DEFINE_bool('debug', False, '', flag_values=values)
  path = _config_file(argv)
  if path is None:
    config_flags.DEFINE_config_dict(
      'config', to_config_dict(Config()), flag_values=values, sys_argv=argv
    )
  elif not pathlib.Path(path).is_file():
    raise ConfigError(
      f'config file {path} does not exist: give one such as configs/default.py'
    )
  else:
    config_flags.DEFINE_config_file(
      'config', path, flag_values=values, sys_argv=argv
    )
  rest = _parse(values, argv, path)
  if rest:
    raise ConfigError(
      f'{rest[0]!r} is not a flag: options are given as --config.seed=1'
    )
  config = from_config_dict(values.config)
  workdir = pathlib.Path(values.workdir) if values.workdir else None
  return TrainFlags(config, workdir)


def options_help() -> str:
  """Every option with its default and its meaning."""
  lines = []
  for path in option_paths():
    field = option_at(path)
    choices = field.metadata['choices']
    known = f' [{", ".join(choices)}]' if choices else ''
    lines.append(f'--{path}={field.default}')
    lines.append(f'    {field.metadata["help"]}{known}')
  return '\n'.join(lines)


def _parse(
  values: flags.FlagValues, argv: list[str], path: str | None
) -> list[str]:
  """Parses, and says in one line what could not be."""
  try:
    return values(['main.py', *argv])[1:]
  except flags.UnrecognizedFlagError as error:
    nearest = difflib.get_close_matches(
      error.flagname, ['config', 'workdir', 'debug'], n=1, cutoff=0.0
    )
    raise ConfigError(
      f'--{error.flagname} is not a flag: did you mean --{nearest[0]}?'
    ) from error
  except flags.IllegalFlagValueError as error:
    found = re.match(r'flag --(config\.[\w.]+)=(.*?): ', str(error), re.S)
    if found is None:
      raise ConfigError(str(error)) from error
    raise ConfigError(
      wrong_type(found[1], found[2], option_at(found[1]).default)
    ) from error
  except flags.Error as error:
    raise ConfigError(' '.join(str(error).split())) from error
  except Exception as error:
    # The file is the user's own program: anything can come out of it.
    raise ConfigError(_file_error(path, error)) from error


def _file_error(path: str | None, error: Exception) -> str:
  text = ' '.join(str(error).split())
  if isinstance(error, SyntaxError):
    return f'config file {path}, line {error.lineno}: {error.msg}'
  lines = [
    frame.lineno
    for frame in traceback.extract_tb(error.__traceback__)
    if path and pathlib.Path(frame.filename).name == pathlib.Path(path).name
  ]
  where = f', line {lines[-1]}' if lines else ''
  if 'get_config' in text and not lines:
    return f'config file {path} has no function get_config()'
  return f'config file {path}{where}: {type(error).__name__}: {text}'


def _config_file(argv: list[str]) -> str | None:
  for index, each in enumerate(argv):
    if each in ('--config', '-config') and index + 1 < len(argv):
      return argv[index + 1]
    if re.match('--?config=', each):
      return each.split('=', 1)[1]
  return None


def _check_options(argv: list[str]) -> None:
  """ml_collections would end in a traceback, naming no nearest option."""
  for each in argv:
    found = re.match(r'--?(?:no)?(config\.[^=]*)', each)
    if found is None:
      continue
    known = option_paths()
    if found[1] in known:
      continue
    if any(path.startswith(found[1] + '.') for path in known):
      raise ConfigError(
        f'{found[1]} is a group of options: give one of them, such as '
        f'{next(path for path in known if path.startswith(found[1] + "."))}'
      )
    raise ConfigError(unknown_option(found[1]))
