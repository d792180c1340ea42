"""`cyclegan compare`."""

import argparse
import pathlib
import re
import sys

from cyclegan_jax.commands.parser import Parser, local_path, whole_number
from cyclegan_jax.compare.page import compare_runs


def run(argv: list[str], program: str) -> int:
  """Writes the page; the status is 1 where something on it is missing."""
  options = _parser(program).parse_args(argv)
  missing = compare_runs(
    options.runs,
    options.to,
    num_images=options.images,
    data=options.data,
    metrics=options.metrics,
    overwrite=options.overwrite,
  )
  print(options.to)
  for message in missing:
    print(f'error: {message}', file=sys.stderr)
  return 1 if missing else 0


def _parser(program: str) -> Parser:
  parser = Parser(
    program,
    description='Writes one HTML page about several runs: the options in which '
    'they differ, their scores, their curves, and their translations of the '
    'same test images.',
  )
  add = parser.add_argument
  add(
    'runs',
    type=local_path,
    nargs='+',
    metavar='RUN',
    help="a run's folder, or a checkpoint's",
  )
  add(
    '--to',
    type=local_path,
    default=pathlib.Path('compare.html'),
    help='the page (default: compare.html)',
  )
  add(
    '--images',
    type=whole_number(0, 1000),
    default=6,
    metavar='N',
    help='test images of each domain; 0 for no pictures (default: 6)',
  )
  add(
    '--data',
    type=local_path,
    metavar='FOLDER',
    help="images in place of the first run's test images: a folder of them, "
    'or of testA and testB',
  )
  add(
    '--metrics',
    type=_pattern,
    metavar='REGEX',
    help="curves to show, by name: 'cycle|evaluation' (default: all)",
  )
  add(
    '--overwrite',
    action='store_true',
    help='replace a file that is no comparison',
  )
  return parser


def _pattern(text: str) -> re.Pattern[str]:
  try:
    return re.compile(text)
  except re.error as error:
    raise argparse.ArgumentTypeError(
      f'{text!r} is not a regular expression ({error})'
    ) from error
