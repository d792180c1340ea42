"""`cyclegan translate`."""

import argparse
import pathlib
import re
import shlex
import sys

import jax

from cyclegan_jax.commands.parser import Parser
from cyclegan_jax.translate.files import translate_files
from cyclegan_jax.translate.options import ENDINGS, Options

_BATCH_SIZE = 16  # of an accelerator; a CPU gains nothing by more than one


def run(argv: list[str], program: str) -> int:
  """Translates images; the status is 1 where some were not."""
  given = _parser(program).parse_args(argv)
  on_cpu = jax.default_backend() == 'cpu'
  outcome = translate_files(
    given.checkpoint,
    given.inputs,
    given.to,
    Options(
      direction=given.direction,
      seed=given.seed,
      samples=given.samples,
      size=given.size,
      batch_size=given.batch_size or (1 if on_cpu else _BATCH_SIZE),
      shard=given.shard,
      overwrite=given.overwrite,
      file_format=given.format,
      gallery=given.gallery,
      max_pixels=given.max_pixels,
      scratch=given.scratch,
    ),
  )
  for note in outcome.notes:
    print(f'note: {note}', file=sys.stderr)
  for message in outcome.failed:
    print(f'error: {message}', file=sys.stderr)
  kept = f', {outcome.num_kept:,} were there already' * bool(outcome.num_kept)
  failed = f', {len(outcome.failed):,} failed' * bool(outcome.failed)
  print(f'{given.to}: {outcome.num_made:,} made{kept}{failed}')
  if outcome.page:
    print(f'look at them: {shlex.quote(str(outcome.page))}')
  return 1 if outcome.failed else 0


def _parser(program: str) -> Parser:
  parser = Parser(
    program,
    description='Translates images, animated GIFs and videos with a trained '
    "checkpoint. Outputs have their inputs' names, sizes and depth; those that "
    'are there already are kept, so the same command goes on after a stop.',
  )
  add = parser.add_argument
  add('checkpoint', type=pathlib.Path, help="a run's folder, or a checkpoint's")
  add(
    'inputs',
    type=pathlib.Path,
    nargs='+',
    metavar='input',
    help="files, folders of them, patterns such as 'in/**/*.jpg'",
  )
  add('--to', type=pathlib.Path, required=True, help='folder for the outputs')
  add('--direction', choices=('ab', 'ba'), default='ab', help='(default: ab)')
  add(
    '--size',
    type=_size,
    metavar='WxH',
    help='resize before translating: 512x, x512 keep the shape of the image',
  )
  add(
    '--samples',
    type=_count,
    default=1,
    help='translations of each, where the network has dropout (default: 1)',
  )
  add('--seed', type=_seed, default=0, help="dropout's (default: 0)")
  add('--gallery', action='store_true', help='make a page of them, index.html')
  add('--overwrite', action='store_true', help='make outputs anew')
  add(
    '--shard',
    type=_shard,
    default=(1, 1),
    metavar='I/N',
    help='only the I-th of N shares of the work, from 1/N to N/N',
  )
  add(
    '--format',
    choices=('auto', *ENDINGS),
    default='auto',
    help='of images (default: auto, PNG and TIFF stay, all else becomes PNG)',
  )
  add(
    '--batch-size',
    type=_count,
    help='images of one size at once (default: 1 on a CPU, else '
    f'{_BATCH_SIZE})',
  )
  add(
    '--max-pixels',
    type=_count,
    default=0,
    help="larger images are refused (default: the checkpoint's)",
  )
  add(
    '--scratch',
    type=pathlib.Path,
    help='folder for what large images keep on the disk meanwhile (default: '
    'that of the outputs)',
  )
  add('--debug', action='store_true', help='show tracebacks')
  return parser


def _count(text: str) -> int:
  if not re.fullmatch('[0-9]{1,12}', text) or not int(text):
    raise argparse.ArgumentTypeError(f'{text!r} is not a count, 1 or more')
  return int(text)


def _seed(text: str) -> int:
  if not re.fullmatch('[0-9]{1,19}', text) or int(text) >= 2**63:
    raise argparse.ArgumentTypeError(f'{text!r} is not from 0 to 2**63 - 1')
  return int(text)


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
