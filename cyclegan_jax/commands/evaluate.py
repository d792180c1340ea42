"""`cyclegan evaluate`."""

import argparse
import contextlib
import pathlib
import sys
from collections.abc import Iterator

import rich.console
import rich.progress

from cyclegan_jax.commands.parser import Parser
from cyclegan_jax.config import Config, source_options
from cyclegan_jax.data.sources import Images, open_images
from cyclegan_jax.errors import ConfigError, DataError
from cyclegan_jax.evaluation.evaluator import Evaluator, OnProgress
from cyclegan_jax.evaluation.pretrained import choose_extractor
from cyclegan_jax.evaluation.results import EVALUATION_FOLDER
from cyclegan_jax.metrics.label_maps import Palette, read_palette
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.storage.atomic import replace_text
from cyclegan_jax.storage.disk_errors import explain_disk_errors


def run(argv: list[str], program: str) -> int:
  """Evaluates a checkpoint; the status is 1 where images can't be read."""
  parser = _parser(program)
  options = parser.parse_args(argv)
  if not 0 <= options.seed < 2**63:
    parser.error(f'argument --seed: {options.seed} is not from 0 to 2**63 - 1')
  if options.max_images is not None and options.max_images < 1:
    parser.error(f'argument --max-images: {options.max_images} is less than 1')
  if options.to is not None and options.to.suffix != '.json':
    parser.error(f'argument --to: {options.to} does not end in .json')
  if options.inception and options.features in ('effnet', 'none'):
    parser.error(
      f'argument --inception: not with --features {options.features}'
    )
  # What can be wrong without reading much, first.
  palette = read_palette(options.palette or '')
  name = 'inception' if options.inception else options.features
  extractor = choose_extractor(name, weights=options.inception)
  found = checkpoint.load(options.checkpoint)
  if options.palette is None:
    palette = _own_palette(found.config)
  config = _with_data(found.config, options.data)
  images = _open(config, options)
  with _progress() as on_progress:
    evaluator = Evaluator(
      config,
      images,
      extractor=extractor,
      seed=options.seed,
      max_images=options.max_images,
      pairs=options.pairs or found.config.evaluation.pairs,
      palette=palette,
      directions=found.directions,
      on_progress=on_progress,
    )
    evaluation = evaluator(found.state.translators)
  step = int(found.state.step)
  path = options.to or _default_path(found.path, step, options.data)
  texts = evaluation.files(step, stem=path.stem)
  with explain_disk_errors(path.parent, option='--to'):
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
      replace_text(path.with_name(name), text)
  print(texts[f'{path.stem}.md'])
  print(f'written to {path} and {path.with_suffix(".md")}')
  for message in evaluation.failures:
    print(f'error: {message}', file=sys.stderr)
  return 1 if evaluation.failures else 0


def _parser(program: str) -> Parser:
  parser = Parser(
    program,
    description='Scores the translations of test images, beside two '
    'baselines: the untranslated copy, and real against real.',
  )
  parser.add_argument(
    'checkpoint', type=pathlib.Path, help="a run's folder, or a checkpoint's"
  )
  parser.add_argument(
    '--data',
    type=pathlib.Path,
    help='a folder with testA and testB, or a .zip of it, in place of the '
    "run's own images",
  )
  parser.add_argument(
    '--to',
    type=pathlib.Path,
    help='the .json file; a table goes beside it as .md (default: '
    "evaluation/<step>.json in the run's folder)",
  )
  parser.add_argument(
    '--features',
    choices=('auto', 'inception', 'effnet', 'none'),
    default='auto',
    help='the network in whose features sets are compared: inception for FID '
    'and KID, effnet for fd_effnet and kd_effnet; auto: inception where its '
    'weights are found, else effnet where it is installed',
  )
  parser.add_argument(
    '--inception',
    type=pathlib.Path,
    help="Inception's weights: pt_inception-2015-12-05-6726825d.pth",
  )
  parser.add_argument(
    '--max-images', type=int, help='of each side, spread over all'
  )
  parser.add_argument(
    '--pairs',
    choices=('auto', 'none'),
    help='auto: test images of one name in both folders are pairs (default: '
    "as the run's config.evaluation.pairs)",
  )
  parser.add_argument(
    '--palette',
    help="colours of label maps: 'cityscapes', or a file of them; 'none' "
    "(default: the run's config.evaluation.palette)",
  )
  parser.add_argument(
    '--seed', type=int, default=0, help='of dropout, of halves and subsets'
  )
  parser.add_argument('--debug', action='store_true', help='show tracebacks')
  return parser


def _own_palette(config: Config) -> Palette | None:
  """The run's: nobody has to say again what it knows."""
  try:
    return read_palette(config.evaluation.palette)
  except DataError as error:
    raise DataError(f"{error}, or 'none', with --palette") from error


def _with_data(config: Config, folder: pathlib.Path | None) -> Config:
  """The config with a folder's images in place of its own."""
  if folder is None:
    return config
  data = dict.fromkeys(source_options(), '')
  data |= {'name': 'folder', 'path': str(folder)}
  for domain in 'ab':
    inner = folder / f'test{domain.upper()}'
    if inner.is_dir():
      # Nothing is trained: so no training images are asked for.
      data |= {f'train_{domain}': str(inner), f'test_{domain}': str(inner)}
  return config.replace(data=data)


_SPLITS = ('train', 'test')


def _open(config: Config, options: argparse.Namespace) -> dict[str, Images]:
  try:
    images = open_images(config.data)
  except (ConfigError, DataError) as error:
    if options.data is not None:
      raise
    raise DataError(
      f"{error}; or give another folder's images with --data"
    ) from error
  for domain in 'ab':
    train, test = (getattr(config.data, f'{s}_{domain}') for s in _SPLITS)
    if train and train == test:
      del images[f'train_{domain}']  # of `_with_data`: no such images
  return images


def _default_path(
  found: pathlib.Path, step: int, data: pathlib.Path | None
) -> pathlib.Path:
  """Where the result goes: into the run, if the checkpoint is of one."""
  folder = found.absolute().parent
  is_in_run = folder.name == 'checkpoints'
  run = folder.parent if is_in_run else pathlib.Path()
  # The scores on other images don't take the place of the run's own.
  name = f'{step}' if data is None else f'{step}_{data.absolute().stem}'
  return run / EVALUATION_FOLDER / f'{name}.json'


@contextlib.contextmanager
def _progress() -> Iterator[OnProgress]:
  """Shows a bar for each thing that is done."""
  console = rich.console.Console(stderr=True)
  with rich.progress.Progress(console=console, transient=True) as progress:
    tasks: dict[str, rich.progress.TaskID] = {}

    def show(what: str, done: int, total: int) -> None:
      if what not in tasks:
        tasks[what] = progress.add_task(what, total=total)
      progress.update(tasks[what], completed=done)

    yield show
