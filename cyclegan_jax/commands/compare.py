"""`cyclegan compare`."""

import argparse
import pathlib
import re
import sys

from cyclegan_jax.commands.parser import Parser
from cyclegan_jax.compare.runs import compare_runs


def run(argv: list[str], program: str) -> int:
  """Writes the page; the status is 1 where something on it is missing."""
  parser = Parser(
    program,
    description='Writes one HTML page about several runs: the options in which '
    'they differ, their scores, their curves, and what they make of the same '
    'test images.',
  )
  parser.add_argument(
    'runs',
    type=pathlib.Path,
    nargs='+',
    metavar='RUN',
    help="a run's folder, or a checkpoint's",
  )
  parser.add_argument(
    '--to',
    type=pathlib.Path,
    default=pathlib.Path('compare.html'),
    help='the page (compare.html)',
  )
  parser.add_argument(
    '--images',
    type=_count,
    default=6,
    metavar='N',
    help='test images of each side; 0 leaves the pictures out (6)',
  )
  parser.add_argument(
    '--data',
    type=pathlib.Path,
    metavar='FOLDER',
    help="images in place of the first run's test images: a folder, or one "
    'with testA and testB in it',
  )
  parser.add_argument(
    '--metrics',
    type=_pattern,
    metavar='REGEX',
    help="of the curves' names: 'cycle|evaluation' (all)",
  )
  parser.add_argument('--debug', action='store_true', help='show tracebacks')
  options = parser.parse_args(argv)
  missing = compare_runs(
    options.runs,
    options.to,
    num_images=options.images,
    data=options.data,
    metrics=options.metrics,
  )
  print(options.to)
  for message in missing:
    print(f'error: {message}', file=sys.stderr)
  return 1 if missing else 0


def _count(text: str) -> int:
  if not text.isdecimal() or int(text) > 1000:
    raise argparse.ArgumentTypeError(f'{text!r} is not a number up to 1000')
  return int(text)


def _pattern(text: str) -> re.Pattern[str]:
  try:
    return re.compile(text)
  except re.error as error:
    raise argparse.ArgumentTypeError(
      f'{text!r} is not a regular expression ({error})'
    ) from error
