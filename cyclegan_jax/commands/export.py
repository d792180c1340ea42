"""`cyclegan export`."""

import pathlib

from cyclegan_jax import checkpoint
from cyclegan_jax.atomic import replacing
from cyclegan_jax.commands.parser import Parser
from cyclegan_jax.config import Direction
from cyclegan_jax.errors import UserError, WorkdirError
from cyclegan_jax.export import FORMATS, greatest_difference, load_format
from cyclegan_jax.export.authors import TORCH_NAMES, describe_call, notes
from cyclegan_jax.export.model import Model
from cyclegan_jax.workdir import explain_disk_errors

# The greatest difference from the live translator on random images, in
# [-1, 1], with which a file is written. 16 bits round each activation to 11.
_LIMITS = {'float32': 1e-3, 'float16': 5e-2}


def run(argv: list[str], program: str) -> int:
  """Writes generators for other programs, each tried before it is there."""
  parser = _parser(program)
  given = parser.parse_args(argv)
  if given.dtype != 'float32' and given.format != 'onnx':
    parser.error('argument --dtype: float16 is for --format onnx alone')
  ending = FORMATS[given.format]
  is_file = given.to.suffix == ending
  if is_file and not given.direction:
    parser.error(
      'argument --to: two generators need a folder; for one file give '
      '--direction'
    )
  if not is_file and given.to.suffix in FORMATS.values():
    parser.error(
      f'argument --to: {given.to.name} would be of another --format; files of '
      f'{given.format} end in {ending}'
    )
  write = load_format(given.format)
  found = checkpoint.find(given.checkpoint, direction=given.direction)
  both: tuple[Direction, ...] = ('ab', 'ba')
  paths = {
    way: given.to / _name(given.format, way)
    for way in both
    if way in found.directions and given.direction in (None, way)
  }
  if is_file:
    paths = {given.direction: given.to}
  for path in paths.values():
    if path.is_dir():
      raise WorkdirError(f'{path} is a folder: give another --to')
    if path.exists() and not given.overwrite:
      raise WorkdirError(
        f'{path} is there already: give another --to, or --overwrite'
      )
  limit = _LIMITS[given.dtype]
  for way, path in paths.items():
    model = Model(
      found.config,
      found.state.translators[way],
      way,
      step=int(found.state.step),
      seed=given.seed,
      dtype=given.dtype,
    )
    with explain_disk_errors(path.parent, option='--to'):
      path.parent.mkdir(parents=True, exist_ok=True)
      with replacing(path) as temporary:
        difference = greatest_difference(model, write(temporary, model))
        if not difference <= limit:
          raise UserError(
            f'{path} is not written: on random images it differs by '
            f'{difference:.2g} from the translator, more than {limit:.0e}; '
            'export the checkpoint before it, or in another format or dtype'
          )
    size = path.stat().st_size / 2**20
    average = '' if found.state.gen_ema is None else ', its running average'
    print(
      f'{path}: {way}{average}, {size:.1f} MiB, at most {difference:.1e} from '
      'the translator'
    )
    _describe(model, given.format)
  return 0


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
    choices=tuple(FORMATS),
    required=True,
    help='onnx: for onnxruntime and browsers; stablehlo: for JAX on CPUs, GPUs '
    "and TPUs, by cyclegan_jax.load_exported; pth: for the authors' PyTorch "
    'code; safetensors: the weights, for cyclegan import',
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
    help='of the weights in ONNX; inputs and outputs stay float32 (default: '
    'float32)',
  )
  add(
    '--seed',
    type=int,
    default=0,
    help='of the masks of a network with dropout, which become part of the '
    'file (default: 0)',
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
