"""`cyclegan evaluate`."""

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator

import rich.console
import rich.progress

from cyclegan_jax.commands.parser import (
  CHECKPOINT_HELP,
  Parser,
  local_path,
  random_seed,
  whole_number,
)
from cyclegan_jax.config import Config
from cyclegan_jax.data.ranges import with_values
from cyclegan_jax.data.sources import (
  Images,
  folder_options,
  open_images,
  open_test_images,
)
from cyclegan_jax.errors import ConfigError, DataError, WorkdirError, printable
from cyclegan_jax.evaluation.evaluator import Evaluator, OnProgress
from cyclegan_jax.evaluation.pretrained import choose_extractor
from cyclegan_jax.evaluation.results import EVALUATION_FOLDER, is_evaluation
from cyclegan_jax.metrics.label_maps import Palette, read_palette
from cyclegan_jax.parallel import check_devices
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.storage.atomic import replace_text
from cyclegan_jax.storage.disk_errors import explain_disk_errors
from cyclegan_jax.storage.hub_folder import is_hub_folder
from cyclegan_jax.terminal import is_live, stderr_console


def run(argv: list[str], program: str) -> int:
  """Evaluates a checkpoint; the status is 1 where images cannot be read."""
  parser = _parser(program)
  options = parser.parse_args(argv)
  if options.to is not None and options.to.suffix != '.json':
    parser.error(f'argument --to: {options.to} does not end in .json')
  if options.inception and options.features in ('effnet', 'none'):
    parser.error(
      f'argument --inception: not with --features {options.features}'
    )
  # Small files first: their errors should not wait for the checkpoint.
  palette = read_palette(options.palette or '')
  check_devices()
  name = 'inception' if options.inception else options.features
  extractor = choose_extractor(name, weights=options.inception)
  found = checkpoint.load(options.checkpoint)
  if options.palette is None:
    palette = _palette_of_run(found.config)
  step = int(found.state.step)
  path = options.to or _default_path(found.path, step, options.data)
  if not options.overwrite:
    _check_targets(path)
  config, images = _open_images(found, options.checkpoint, options.data)
  if not any(
    f'test_{direction[0]}' in images for direction in found.directions
  ):
    raise DataError(
      f'{options.data} has no images that {found.path} translates, which was '
      f'imported for direction {" and ".join(found.directions)} only: give a '
      f'folder with test{found.directions[0][0].upper()} with --data'
    )
  with _progress_bars() as on_progress:
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
  texts = evaluation.files(step, stem=path.stem)
  # It took long: each place gets it, also where the other refuses it.
  try:
    print(texts[f'{path.stem}.md'], flush=True)
  finally:
    with explain_disk_errors(path.parent, option='--to'):
      path.parent.mkdir(parents=True, exist_ok=True)
      for name, text in texts.items():
        replace_text(path.with_name(name), text)
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
  add = parser.add_argument
  add('checkpoint', type=local_path, help=CHECKPOINT_HELP)
  add(
    '--data',
    type=local_path,
    help='a folder with testA or testB or both, or a .zip of it, in place of '
    "the run's own images",
  )
  add(
    '--to',
    type=local_path,
    help='the .json file; a table goes beside it as .md (default: '
    "evaluation/<step>.json in the run's folder)",
  )
  add(
    '--overwrite',
    action='store_true',
    help='replace files that are no evaluations',
  )
  add(
    '--features',
    choices=('auto', 'inception', 'effnet', 'none'),
    default='auto',
    help='the network in whose features sets are compared: inception for FID '
    'and KID, effnet for fd_effnet and kd_effnet; auto: inception where its '
    'weights are found, else effnet where it is installed',
  )
  add(
    '--inception',
    type=local_path,
    help="Inception's weights: pt_inception-2015-12-05-6726825d.pth",
  )
  add(
    '--max-images',
    type=whole_number(1),
    help='images of each domain, spread evenly over all (default: all)',
  )
  add(
    '--pairs',
    choices=('auto', 'none'),
    help='auto: test images of one name in both folders are pairs (default: '
    "the run's config.evaluation.pairs)",
  )
  add(
    '--palette',
    type=lambda text: text and str(local_path(text)),
    help="colors of label maps: 'cityscapes', or a file of them; 'none' "
    "(default: the run's config.evaluation.palette)",
  )
  add(
    '--seed',
    type=random_seed,
    default=0,
    help='random seed for dropout, halves and subsets (default: 0)',
  )
  return parser


def _palette_of_run(config: Config) -> Palette | None:
  try:
    return read_palette(config.evaluation.palette)
  except DataError as error:
    raise DataError(f"{error}, or 'none', with --palette") from error


def _open_images(
  found: checkpoint.Checkpoint,
  name: pathlib.Path,
  folder: pathlib.Path | None,
) -> tuple[Config, dict[str, Images]]:
  """Opens the run's images, or those of another folder.

  Args:
    found: the checkpoint.
    name: the checkpoint as the user named it, for messages.
    folder: of the other images.

  Returns:
    The config that reads them, and the images by split and domain.
  """
  config = found.config
  if folder is None:
    try:
      return config, open_images(config.data)
    except (ConfigError, DataError) as error:
      if is_hub_folder(found.path) and config.data.name == 'folder':
        raise DataError(
          f'{printable(str(name))} comes without the images of its run: give a '
          'folder with testA or testB or both with --data'
        ) from error
      raise DataError(
        f"{error}; or give another folder's images with --data"
      ) from error
  config = config.replace(data=folder_options(folder, {}))
  images = open_test_images(config.data, option='--data')
  if not images:
    raise DataError(
      f'{printable(str(folder))} has neither a folder testA nor testB (nor '
      'trainA, trainB): give one that has with --data'
    )
  return config, with_values(images, config.data)


def _check_targets(path: pathlib.Path) -> None:
  """Makes sure that only older evaluations are overwritten."""
  for target in (path, path.with_suffix('.md')):
    if os.path.isdir(target):
      raise WorkdirError(f'{target} is a folder: give a file with --to')
    if os.path.exists(target) and not is_evaluation(target):
      raise WorkdirError(
        f'{target} exists and was not written by this command: give another '
        '--to, or --overwrite'
      )


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
def _progress_bars() -> Iterator[OnProgress]:
  """A function that shows a bar for each task that it is called for."""
  console = stderr_console()
  with rich.progress.Progress(
    console=console, transient=True, disable=not is_live(console)
  ) as progress:
    tasks: dict[str, rich.progress.TaskID] = {}

    def show(name: str, done: int, total: int) -> None:
      if name not in tasks:
        tasks[name] = progress.add_task(name, total=total)
      progress.update(tasks[name], completed=done)

    yield show
