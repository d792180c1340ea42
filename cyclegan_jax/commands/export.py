"""`cyclegan export`."""

import argparse
import dataclasses
import pathlib
import re
import shlex
import shutil

from cyclegan_jax.commands.parser import (
  CHECKPOINT_HELP,
  Parser,
  local_path,
  random_seed,
)
from cyclegan_jax.config import Direction
from cyclegan_jax.errors import UserError, WorkdirError
from cyclegan_jax.evaluation.results import read_scores, read_values
from cyclegan_jax.export import pth_file
from cyclegan_jax.export.formats import (
  FORMATS,
  WriteFile,
  greatest_difference,
  load_format,
)
from cyclegan_jax.export.model import Model
from cyclegan_jax.export.model_card import (
  CARD_FILE,
  SHEET_FILE,
  model_card,
  without_private_paths,
)
from cyclegan_jax.export.onnxruntime_web import (
  PACKAGE,
  check_runtime_source,
  copy_runtime,
)
from cyclegan_jax.export.web_page import (
  INDEX_FILE,
  RUNTIME_FOLDER,
  check_browser_can_show,
  network_file,
  write_page,
)
from cyclegan_jax.report.run_page import list_samples, sample_path
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.storage.atomic import (
  filling,
  replacing,
)
from cyclegan_jax.storage.disk_errors import explain_disk_errors
from cyclegan_jax.storage.hub_folder import FILE_NAMES
from cyclegan_jax.storage.workdir import write_config

_NEW_CARD_FILE = 'README.new.md'  # beside one that is there
# The greatest difference from the translator on random images in [-1, 1] with
# which a file is written. float16 rounds each activation to 11 bits.
_TOLERANCES = {'float32': 1e-3, 'float16': 5e-2}


def run(argv: list[str], program: str) -> int:
  """Writes generators for other programs, after a test run of each."""
  parser = _parser(program)
  options = parser.parse_args(argv)
  if options.dtype != 'float32' and options.format not in ('onnx', 'web'):
    parser.error('argument --dtype: float16 is for --format onnx and web only')
  if options.onnxruntime_web and options.format != 'web':
    parser.error('argument --onnxruntime-web: it is for --format web only')
  if options.title and options.format != 'web':
    parser.error('argument --title: it is for --format web only')
  if options.format == 'web':
    _write_site(options)
    return 0
  if options.format == 'hub':
    _write_hub_folder(options)
    return 0
  ending = options.to.suffix.removeprefix('.')
  is_file = ending == options.format
  if is_file and not options.direction:
    parser.error(
      'argument --to: two generators need a folder; for one file give '
      '--direction'
    )
  if ending in FORMATS and not is_file:
    parser.error(
      f'argument --to: {options.to.name} has the ending of another --format; '
      f'files of {options.format} end in .{options.format}'
    )
  _write_files(options, is_file)
  return 0


def _write_files(options: argparse.Namespace, is_file: bool) -> None:
  write = load_format(options.format)
  models = _load_models(options)
  paths = [
    options.to if is_file else options.to / _file_name(model, options.format)
    for model in models
  ]
  for path in paths:
    if path.is_dir():
      raise WorkdirError(f'{path} is a folder: give another --to')
    if path.exists() and not options.overwrite:
      raise WorkdirError(
        f'{path} already exists: give another --to, or --overwrite'
      )
  for path, model in zip(paths, models, strict=True):
    with explain_disk_errors(path.parent, option='--to'):
      path.parent.mkdir(parents=True, exist_ok=True)
      with replacing(path) as temporary:
        summary = _write_checked(path, temporary, model, write)
    print(summary)
    _print_usage(model, options.format)


def _file_name(model: Model, format_name: str) -> str:
  """The name of a file in a folder: as programs expect it, or for people."""
  if format_name == 'pth':
    return pth_file.FILE_NAMES[model.direction]
  data, stem = model.config.data, str(model.direction)
  if data.name_a or data.name_b:
    names = [re.sub(r'\W+', '_', data.name_of(domain)) for domain in stem]
    if names[0].casefold() != names[1].casefold():
      stem = '2'.join(names)
  return f'{stem}.{format_name}'


def _write_site(options: argparse.Namespace) -> None:
  """Writes a folder for web servers, whole or not at all."""
  to = options.to
  _check_folder(options)
  write = load_format('onnx')
  check_runtime_source(options.onnxruntime_web)
  models = _load_models(options)
  check_browser_can_show(models[0].config)
  summaries = []
  with explain_disk_errors(to, option='--to'):
    to.parent.mkdir(parents=True, exist_ok=True)
    with filling(to, last=INDEX_FILE) as folder:
      for model in models:
        name = network_file(model.direction)
        summaries.append(_write_checked(to / name, folder / name, model, write))
      copy_runtime(folder / RUNTIME_FOLDER, options.onnxruntime_web)
      write_page(folder, models, title=options.title)
  for summary, model in zip(summaries, models, strict=True):
    print(summary)
    _print_usage(model, options.format)
  print(
    f'{to}: a page for any web server, such as `python -m http.server '
    f'--directory {shlex.quote(str(to))}`'
  )


def _check_folder(options: argparse.Namespace) -> None:
  """Raises WorkdirError unless --to is a folder that may be filled."""
  to = options.to
  if to.exists() and not to.is_dir():
    raise WorkdirError(f'{to} is a file: give a folder with --to')
  if (to / 'checkpoints').exists():
    raise WorkdirError(
      f'{to} is the folder of a run, whose files would be replaced: give '
      'another --to'
    )
  if to.is_dir() and any(to.iterdir()) and not options.overwrite:
    raise WorkdirError(
      f'{to} is not empty: give another --to, or --overwrite, which keeps '
      'files of other names'
    )


def _write_hub_folder(options: argparse.Namespace) -> None:
  """Writes a folder for a model hub, whole or not at all."""
  to = options.to
  _check_folder(options)
  write = load_format('safetensors')
  found = checkpoint.load(options.checkpoint, direction=options.direction)
  config = without_private_paths(found.config)
  models = [
    dataclasses.replace(model, config=config)
    for model in _models_of(found, options)
  ]
  step = models[0].step
  run = found.path.absolute().parent.parent
  scores, values, sheets = '', {}, []
  summaries = []
  if found.path.absolute().parent.name == 'checkpoints':
    scores, values = read_scores(run, step), read_values(run, step)
    sheets = [each for each, _ in list_samples(run) if each <= step]
  counts = {split: facts['count'] for split, facts in found.data.items()}
  with explain_disk_errors(to, option='--to'):
    to.parent.mkdir(parents=True, exist_ok=True)
    # A card that is there may have been filled in by hand.
    is_kept = (to / CARD_FILE).exists()
    card_file = _NEW_CARD_FILE if is_kept else CARD_FILE
    with filling(to, last=card_file) as folder:
      for model in models:
        name = FILE_NAMES[model.direction]
        summaries.append(_write_checked(to / name, folder / name, model, write))
      write_config(folder, config)
      if sheets:
        shutil.copyfile(sample_path(run, sheets[-1]), folder / SHEET_FILE)
      card = model_card(
        models,
        counts=counts,
        scores=scores,
        values=values,
        has_sheet=bool(sheets),
      )
      (folder / card_file).write_text(card, encoding='utf-8')
  print(*summaries, sep='\n')
  if is_kept:
    print(f'  {to / CARD_FILE} stays; the new card is {to / card_file}')
  if not scores:
    print(f'  without scores: `cyclegan evaluate` has none of step {step:,}')
  print(
    f'{to}: fill in {to / CARD_FILE}, then upload it with\n  hf upload '
    f'OWNER/NAME {shlex.quote(str(to))}'
  )


def _load_models(options: argparse.Namespace) -> list[Model]:
  """The generators of the checkpoint, or that of --direction."""
  return _models_of(
    checkpoint.load(options.checkpoint, direction=options.direction), options
  )


def _models_of(
  found: checkpoint.Checkpoint, options: argparse.Namespace
) -> list[Model]:
  both: tuple[Direction, ...] = ('ab', 'ba')
  return [
    Model(
      found.config,
      found.state.translators[direction],
      direction,
      step=int(found.state.step),
      seed=options.seed,
      dtype=options.dtype,
      is_average=found.state.gen_ema is not None,
    )
    for direction in both
    if direction in found.directions and options.direction in (None, direction)
  ]


def _write_checked(
  path: pathlib.Path, temporary: pathlib.Path, model: Model, write: WriteFile
) -> str:
  """Writes a file and compares it with the translator.

  Args:
    path: where the file will be.
    temporary: where it is written.
    model: the generator.
    write: writes the format.

  Returns:
    A line about the file.

  Raises:
    UserError: the file differs from the translator by more than rounding.
  """
  tolerance = _TOLERANCES[model.dtype]
  difference = greatest_difference(model, write(temporary, model))
  if difference > tolerance:
    raise UserError(
      f'{path} is not written: on random images it differs by '
      f'{difference:.2g} from the translator, more than {tolerance:.0e}; '
      'export an earlier checkpoint, or to another format or dtype'
    )
  average = ', running average' if model.is_average else ''
  way = model.config.data.way(model.direction)
  mebibytes = temporary.stat().st_size / 2**20
  return (
    f'{path}: {way}{average}, {mebibytes:.1f} MiB, at most {difference:.1e} '
    'from the translator'
  )


def _print_usage(model: Model, format_name: str) -> None:
  """Prints what users of a file must know of it."""
  if format_name == 'pth':
    call = pth_file.options_for_authors_code(model.config, model.direction)
    print(f'  for {call}')
    for note in pth_file.differences_from_authors_code(model.config):
      print(f'  note: {note}')
  elif format_name != 'safetensors':
    facts = model.metadata('')
    print(
      f'  takes {facts["size"]}, {facts["input_channels"]} to '
      f'{facts["output_channels"]} channels, {facts["range"]}; dropout: '
      f'{facts["dropout"]}'
    )
  if format_name == 'stablehlo':
    print(
      '  runs with this version of JAX and, as jax.export promises, with those '
      'of the next six months: export again after that'
    )


def _parser(program: str) -> Parser:
  parser = Parser(
    program,
    description='Writes a generator as a file for other programs. Each file is '
    'run on random images and compared with the translator first.',
  )
  add = parser.add_argument
  add('checkpoint', type=local_path, help=CHECKPOINT_HELP)
  add(
    '--format',
    choices=(*FORMATS, 'hub', 'web'),
    required=True,
    help='onnx: for onnxruntime and browsers; stablehlo: for JAX on CPUs, GPUs '
    "and TPUs, by cyclegan_jax.load_exported; pth: for the authors' PyTorch "
    'code; safetensors: the weights, for cyclegan import; hub: a folder for a '
    'model hub, with a model card; web: a folder for any web server, whose '
    'page translates in the browser',
  )
  add(
    '--to',
    type=local_path,
    required=True,
    help='folder for both directions; with --direction also a file, whose '
    'ending is the format: ab.onnx',
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
    type=random_seed,
    default=0,
    help='random seed for dropout masks, which become part of the file '
    '(default: 0)',
  )
  add(
    '--onnxruntime-web',
    type=local_path,
    metavar='FILE|FOLDER',
    help=f'{PACKAGE} for --format web, as npm packs or unpacks it (default: '
    'npm downloads it)',
  )
  add(
    '--title',
    default='',
    help='heading of the page of --format web, in place of "Translate images" '
    'and the facts about the network',
  )
  add('--overwrite', action='store_true', help='replace existing files')
  return parser
