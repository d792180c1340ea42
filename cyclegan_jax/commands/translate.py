"""`cyclegan translate`."""

import argparse
import re
import shlex
import sys

import jax

from cyclegan_jax.commands.parser import (
  CHECKPOINT_HELP,
  Parser,
  local_path,
  random_seed,
  whole_number,
)
from cyclegan_jax.parallel import check_devices
from cyclegan_jax.translate.files import translate_files
from cyclegan_jax.translate.options import ENDINGS, Options

_BATCH_SIZE = 16  # on an accelerator; larger batches are no faster on a CPU


def run(argv: list[str], program: str) -> int:
  """Translates images; the status is 1 where some failed."""
  arguments = _parser(program).parse_args(argv)
  check_devices()
  on_cpu = jax.default_backend() == 'cpu'
  outcome = translate_files(
    arguments.checkpoint,
    arguments.inputs,
    arguments.to,
    Options(
      direction=arguments.direction,
      seed=arguments.seed,
      samples=arguments.samples,
      size=arguments.size,
      batch_size=arguments.batch_size or (1 if on_cpu else _BATCH_SIZE),
      shard=arguments.shard,
      overwrite=arguments.overwrite,
      file_format=arguments.format,
      gallery=arguments.gallery,
      max_pixels=arguments.max_pixels,
      scratch=arguments.scratch,
    ),
  )
  for note in outcome.notes:
    print(f'note: {note}', file=sys.stderr)
  for message in outcome.failed:
    print(f'error: {message}', file=sys.stderr)
  kept = f', {outcome.num_kept:,} were there already' * bool(outcome.num_kept)
  failed = f', {len(outcome.failed):,} failed' * bool(outcome.failed)
  print(f'{arguments.to}: {outcome.num_made:,} made{kept}{failed}')
  if outcome.page:
    print(f'look at them: {shlex.quote(str(outcome.page))}')
  return 1 if outcome.failed else 0


def _parser(program: str) -> Parser:
  parser = Parser(
    program,
    description='Translates images, animated GIFs and videos with a trained '
    "checkpoint. Outputs have their inputs' names, sizes and depth. Existing "
    'outputs are kept, so the same command resumes an interrupted one.',
  )
  add = parser.add_argument
  add('checkpoint', type=local_path, help=CHECKPOINT_HELP)
  add(
    'inputs',
    type=local_path,
    nargs='+',
    metavar='input',
    help="files, folders of them, patterns such as 'in/**/*.jpg'",
  )
  add('--to', type=local_path, required=True, help='folder for the outputs')
  add('--direction', choices=('ab', 'ba'), default='ab', help='(default: ab)')
  add(
    '--size',
    type=_size,
    metavar='WxH',
    help='resize before translating: 512x, x512 keep the aspect ratio',
  )
  add(
    '--samples',
    type=whole_number(1),
    default=1,
    help='translations of each image, for networks with dropout (default: 1)',
  )
  add(
    '--seed',
    type=random_seed,
    default=0,
    help='random seed for dropout masks (default: 0)',
  )
  add(
    '--gallery',
    action='store_true',
    help='write a page of all translations, index.html',
  )
  add('--overwrite', action='store_true', help='replace existing outputs')
  add(
    '--shard',
    type=_shard,
    default=(1, 1),
    metavar='I/N',
    help='translate only the I-th of N shares of the files, from 1/N to N/N',
  )
  add(
    '--format',
    choices=('auto', *ENDINGS),
    default='auto',
    help='format of output images (default: auto, PNG, TIFF, DICOM and NIfTI '
    'stay, all else becomes PNG)',
  )
  add(
    '--batch-size',
    type=whole_number(1),
    help='images of one size per batch (default: 1 on a CPU, else '
    f'{_BATCH_SIZE})',
  )
  add(
    '--max-pixels',
    type=whole_number(1),
    default=0,
    help="refuse images with more pixels (default: the checkpoint's limit)",
  )
  add(
    '--scratch',
    type=local_path,
    help='folder for temporary files of large images (default: the output '
    'folder)',
  )
  return parser


def _size(text: str) -> tuple[int, int]:
  match = re.fullmatch('([1-9][0-9]{0,4})?x([1-9][0-9]{0,4})?', text)
  if not match or text == 'x':
    raise argparse.ArgumentTypeError(
      f"{text!r} is not a size such as 512x384, '512x' or 'x384'"
    )
  return int(match[1] or 0), int(match[2] or 0)


def _shard(text: str) -> tuple[int, int]:
  match = re.fullmatch('([0-9]{1,6})/([0-9]{1,6})', text)
  if not match or not 1 <= int(match[1]) <= int(match[2]):
    raise argparse.ArgumentTypeError(
      f'{text!r} is not a share such as 1/4, from 1/N to N/N'
    )
  return int(match[1]), int(match[2])
