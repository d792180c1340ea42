"""`cyclegan serve`."""

from cyclegan_jax.commands.parser import (
  CHECKPOINT_HELP,
  Parser,
  local_path,
  whole_number,
)
from cyclegan_jax.errors import UserError


def run(argv: list[str], program: str) -> int:
  """Serves the page until Ctrl-C or SIGTERM."""
  options = _parser(program).parse_args(argv)
  try:
    from cyclegan_jax.serve.limits import Limits
    from cyclegan_jax.serve.server import serve
  except ImportError as error:
    raise UserError(
      f'cyclegan serve needs more packages ({error}): pip install '
      "'cyclegan_jax[serve]'"
    ) from error
  limits = Limits(
    max_pixels=options.max_pixels,
    queue=options.queue,
    work_seconds=options.timeout,
  )
  serve(
    options.checkpoints,
    port=options.port,
    limits=limits,
    title=options.title,
    on_start=lambda url: print(f'{url} (Ctrl-C to stop)', flush=True),
  )
  return 0


def _parser(program: str) -> Parser:
  parser = Parser(
    program,
    description='Serves a page that translates images with trained '
    'checkpoints, on 127.0.0.1 only: drop, paste or choose images, or take '
    'them with the camera.',
  )
  add = parser.add_argument
  add(
    'checkpoints',
    type=local_path,
    nargs='+',
    metavar='checkpoint',
    help=f'{CHECKPOINT_HELP}; the page offers a choice of several',
  )
  add(
    '--title',
    default='',
    help='heading of the page, in place of "Translate images" and the facts '
    'about the networks',
  )
  add(
    '--port',
    type=whole_number(0, 65535),
    default=8000,
    help='(default: 8000; 0 for any free port)',
  )
  add(
    '--max-pixels',
    type=whole_number(1),
    default=2**25,
    help='refuse images with more pixels (default: 33,554,432)',
  )
  add(
    '--queue',
    type=whole_number(1),
    default=16,
    help='images that wait or are translated at once; further requests get '
    'HTTP 503 (default: 16)',
  )
  add(
    '--timeout',
    type=whole_number(1),
    default=1800,
    metavar='SECONDS',
    help='abandon a translation that takes longer (default: 1800)',
  )
  return parser
