"""`cyclegan serve`."""

import argparse
import pathlib
import re

from cyclegan_jax.commands.parser import Parser
from cyclegan_jax.errors import UserError


def run(argv: list[str], program: str) -> int:
  """Serves the page until Ctrl-C or SIGTERM."""
  given = _parser(program).parse_args(argv)
  try:
    from cyclegan_jax.serve.limits import Limits
    from cyclegan_jax.serve.server import serve
  except ImportError as error:
    raise UserError(
      f'cyclegan serve needs more packages ({error}): pip install '
      "'cyclegan_jax[serve]'"
    ) from error
  limits = Limits(
    max_pixels=given.max_pixels,
    queue=given.queue,
    work_seconds=given.timeout,
  )
  serve(given.checkpoints, port=given.port, limits=limits, on_start=_tell)
  return 0


def _tell(address: str) -> None:
  print(f'{address} (Ctrl-C to stop)', flush=True)


def _parser(program: str) -> Parser:
  parser = Parser(
    program,
    description='Serves a page that translates images with trained '
    'checkpoints, on 127.0.0.1 alone: drop, paste or choose images, or take '
    'them with the camera.',
  )
  add = parser.add_argument
  add(
    'checkpoints',
    type=pathlib.Path,
    nargs='+',
    metavar='checkpoint',
    help="a run's folder, or a checkpoint's; of several the page lets choose",
  )
  add(
    '--port',
    type=_port,
    default=8000,
    help='(default: 8000; 0 for any that is free)',
  )
  add(
    '--max-pixels',
    type=_count,
    default=2**25,
    help='larger images are refused (default: 33,554,432)',
  )
  add(
    '--queue',
    type=_count,
    default=16,
    help='images that wait or are translated at once; beyond that requests '
    'have to come again (default: 16)',
  )
  add(
    '--timeout',
    type=_count,
    default=1800,
    metavar='SECONDS',
    help='a translation that takes longer is given up (default: 1800)',
  )
  add('--debug', action='store_true', help='show tracebacks')
  return parser


def _port(text: str) -> int:
  if not re.fullmatch('[0-9]{1,5}', text) or int(text) > 65535:
    raise argparse.ArgumentTypeError(f'{text!r} is not a port, 0 to 65535')
  return int(text)


def _count(text: str) -> int:
  if not re.fullmatch('[0-9]{1,12}', text) or not int(text):
    raise argparse.ArgumentTypeError(f'{text!r} is not a count, 1 or more')
  return int(text)
