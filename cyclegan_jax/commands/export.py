"""`cyclegan export`."""

import argparse
import pathlib
import shlex

from cyclegan_jax.commands.parser import Parser
from cyclegan_jax.config import Direction
from cyclegan_jax.errors import UserError, WorkdirError
from cyclegan_jax.export.authors import TORCH_NAMES, describe_call, notes
from cyclegan_jax.export.formats import (
  FORMATS,
  Write,
  greatest_difference,
  load_format,
)
from cyclegan_jax.export.model import Model
from cyclegan_jax.export.onnxruntime_web import PACKAGE, check_source, vendor
from cyclegan_jax.export.web import (
  INDEX,
  RUNTIME,
  check_values,
  network_name,
  write_page,
)
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.storage.atomic import (
  filling,
  replacing,
)
from cyclegan_jax.storage.disk_errors import explain_disk_errors

# The greatest difference from the live translator on random images, in
# [-1, 1], with which a file is written. 16 bits round each activation to 11.
_LIMITS = {'float32': 1e-3, 'float16': 5e-2}


def run(argv: list[str], program: str) -> int:
  """Writes generators for other programs, each tried before it is there."""
  parser = _parser(program)
  given = parser.parse_args(argv)
  if given.dtype != 'float32' and given.format not in ('onnx', 'web'):
    parser.error('argument --dtype: float16 is for --format onnx and web alone')
  if given.onnxruntime_web and given.format != 'web':
    parser.error('argument --onnxruntime-web: it is for --format web alone')
  if given.format == 'web':
    _write_folder(given)
    return 0
  is_file = given.to.suffix == FORMATS[given.format]
  if is_file and not given.direction:
    parser.error(
      'argument --to: two generators need a folder; for one file give '
      '--direction'
    )
  if not is_file and given.to.suffix in FORMATS.values():
    parser.error(
      f'argument --to: {given.to.name} would be of another --format; files of '
      f'{given.format} end in {FORMATS[given.format]}'
    )
  _write_files(given, is_file)
  return 0


def _write_files(given: argparse.Namespace, is_file: bool) -> None:
  write = load_format(given.format)
  models = _load_models(given)
  paths = [
    given.to if is_file else given.to / _name(given.format, model.direction)
    for model in models
  ]
  for path in paths:
    if path.is_dir():
      raise WorkdirError(f'{path} is a folder: give another --to')
    if path.exists() and not given.overwrite:
      raise WorkdirError(
        f'{path} is there already: give another --to, or --overwrite'
      )
  for path, model in zip(paths, models, strict=True):
    with explain_disk_errors(path.parent, option='--to'):
      path.parent.mkdir(parents=True, exist_ok=True)
      with replacing(path) as temporary:
        difference = _write_checked(path, temporary, model, write)
    _tell(path, path.stat().st_size, model, difference)
    _describe(model, given.format)


def _write_folder(given: argparse.Namespace) -> None:
  """A folder for web servers, whole or not at all."""
  to = given.to
  if to.exists() and not to.is_dir():
    raise WorkdirError(f'{to} is a file: give a folder with --to')
  if to.is_dir() and any(to.iterdir()) and not given.overwrite:
    raise WorkdirError(
      f'{to} has files already: give another --to, or --overwrite, which '
      'leaves those of other names'
    )
  write = load_format('onnx')
  check_source(given.onnxruntime_web)
  models = _load_models(given)
  check_values(models[0].config)
  told = []
  with explain_disk_errors(to, option='--to'):
    to.parent.mkdir(parents=True, exist_ok=True)
    with filling(to, last=INDEX) as folder:
      for model in models:
        name = network_name(model.direction)
        difference = _write_checked(to / name, folder / name, model, write)
        size = (folder / name).stat().st_size
        told.append((to / name, size, model, difference))
      vendor(folder / RUNTIME, given.onnxruntime_web)
      write_page(folder, models)
  for each in told:
    _tell(*each)
    _describe(each[2], given.format)
  print(
    f'{to}: a page for any web server, such as `python -m http.server '
    f'--directory {shlex.quote(str(to))}`'
  )


def _load_models(given: argparse.Namespace) -> list[Model]:
  """Those that are asked for, of those that the checkpoint has."""
  found = checkpoint.load(given.checkpoint, direction=given.direction)
  both: tuple[Direction, ...] = ('ab', 'ba')
  return [
    Model(
      found.config,
      found.state.translators[way],
      way,
      step=int(found.state.step),
      seed=given.seed,
      dtype=given.dtype,
      is_average=found.state.gen_ema is not None,
    )
    for way in both
    if way in found.directions and given.direction in (None, way)
  ]


def _write_checked(
  path: pathlib.Path, temporary: pathlib.Path, model: Model, write: Write
) -> float:
  """Writes a file that will be `path`; how far it is from the translator.

  Raises:
    UserError: too far.
  """
  limit = _LIMITS[model.dtype]
  difference = greatest_difference(model, write(temporary, model))
  if not difference <= limit:
    raise UserError(
      f'{path} is not written: on random images it differs by '
      f'{difference:.2g} from the translator, more than {limit:.0e}; '
      'export the checkpoint before it, or in another format or dtype'
    )
  return difference


def _tell(
  path: pathlib.Path, size: int, model: Model, difference: float
) -> None:
  average = ', its running average' if model.is_average else ''
  print(
    f'{path}: {model.direction}{average}, {size / 2**20:.1f} MiB, at most '
    f'{difference:.1e} from the translator'
  )


def _parser(program: str) -> Parser:
  parser = Parser(
    program,
    description='Writes a generator as a file for other programs. Each is '
    'run on random images and compared with the translator before it gets its '
    'name.',
  )
  add = parser.add_argument
  add('checkpoint', type=pathlib.Path, help="a run's folder, or a checkpoint's")
  add(
    '--format',
    choices=(*FORMATS, 'web'),
    required=True,
    help='onnx: for onnxruntime and browsers; stablehlo: for JAX on CPUs, GPUs '
    "and TPUs, by cyclegan_jax.load_exported; pth: for the authors' PyTorch "
    'code; safetensors: the weights, for cyclegan import; web: a folder for '
    'any web server, whose page translates in the browser',
  )
  add(
    '--to',
    type=pathlib.Path,
    required=True,
    help='folder for both directions; with --direction also a file, by its '
    'ending: ' + ', '.join(FORMATS.values()),
  )
  add('--direction', choices=('ab', 'ba'), help='(default: both)')
  add(
    '--dtype',
    choices=('float32', 'float16'),
    default='float32',
    help='of the weights in onnx and web; inputs and outputs stay float32 '
    '(default: float32)',
  )
  add(
    '--seed',
    type=int,
    default=0,
    help='of the masks of a network with dropout, which become part of the '
    'file (default: 0)',
  )
  add(
    '--onnxruntime-web',
    type=pathlib.Path,
    metavar='FILE|FOLDER',
    help=f'{PACKAGE} for --format web, as npm packs or unpacks it (default: '
    'npm downloads it)',
  )
  add('--overwrite', action='store_true', help='replace what is there')
  add('--debug', action='store_true', help='show tracebacks')
  return parser


def _name(format_name: str, direction: str) -> str:
  if format_name == 'pth':
    return TORCH_NAMES[direction]
  return direction + FORMATS[format_name]


def _describe(model: Model, format_name: str) -> None:
  if format_name == 'pth':
    print(f'  for {describe_call(model.config, model.direction)}')
    for note in notes(model.config):
      print(f'  note: {note}')
    return
  if format_name == 'safetensors':
    return
  said = model.metadata('')
  print(
    f'  takes {said["size"]}, {said["input_channels"]} to '
    f'{said["output_channels"]} channels, {said["range"]}; dropout: '
    f'{said["dropout"]}'
  )
