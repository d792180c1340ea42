"""`cyclegan import`."""

import os
import pathlib
import shlex
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from cyclegan_jax.commands.parser import Parser, local_path
from cyclegan_jax.config import Config, Direction
from cyclegan_jax.errors import WeightsError, WorkdirError
from cyclegan_jax.interop.import_config import make_import_config
from cyclegan_jax.interop.torch_infer import Network
from cyclegan_jax.interop.weight_files import (
  Generator,
  generator_from_torch,
  read_discriminator,
  read_renames,
  read_tensors,
)
from cyclegan_jax.parallel import check_devices
from cyclegan_jax.state import (
  TrainState,
  abstract_train_state,
  create_train_state,
)
from cyclegan_jax.storage.checkpoint import Saver
from cyclegan_jax.storage.disk_errors import explain_disk_errors
from cyclegan_jax.storage.hub_folder import is_saved_generator, read_generator
from cyclegan_jax.training.preflight import gib, num_bytes


def run(argv: list[str], program: str) -> int:
  """Makes a checkpoint from weights files."""
  parser = _parser(program)
  args = parser.parse_args(argv)
  if len(args.generators) > 2:
    parser.error('give one or two generators')
  if len(args.generators) == 2 and args.direction:
    parser.error('argument --direction: is for one generator alone')
  with explain_disk_errors(args.to, option='--to'):
    if args.to.is_file() or not _is_unused(args.to):
      raise WorkdirError(f'{args.to} is not empty. Give another --to.')
  check_devices()
  renames = read_renames(args.map) if args.map else {}
  generators = [
    _read_generator(path, renames, args.dropout) for path in args.generators
  ]
  directions = _directions(generators, args.direction)
  by_direction = dict(zip(directions, generators, strict=True))
  # The authors' D_A classifies what G_A makes: images of b.
  discriminators = {
    domain: read_discriminator(path, renames)
    for domain, path in (('b', args.d_a), ('a', args.d_b))
    if path
  }
  config = make_import_config(by_direction, discriminators, args.size)
  _check_memory(config)
  state = create_train_state(config, jax.random.key(config.seed))
  state = state.replace(
    gen=state.gen | {key: gen.params for key, gen in by_direction.items()},
    disc=state.disc
    | {key: disc.params for key, disc in discriminators.items()},
  )
  _save(args.to, state, config, tuple(by_direction), tuple(discriminators))
  for direction, generator in by_direction.items():
    print(f'{direction}: {generator.path}, {_describe(generator.network)}')
  print(
    'Translate a folder of images with\n  python -m cyclegan_jax translate '
    f'{shlex.quote(str(args.to))} FOLDER --to OUT --direction {directions[0]}'
  )
  return 0


def _parser(program: str) -> Parser:
  parser = Parser(
    program,
    description='Makes a checkpoint from weights: a ResnetGenerator or '
    'UnetGenerator of pytorch-CycleGAN-and-pix2pix in .pth or .safetensors '
    'files, or files of cyclegan export --format safetensors. Torch is not '
    'needed, and no code in a file is run.',
  )
  add = parser.add_argument
  add(
    'generators',
    type=local_path,
    nargs='+',
    metavar='weights',
    help='latest_net_G_A.pth, which maps a to b, and latest_net_G_B.pth; or '
    'ab.safetensors and ba.safetensors',
  )
  add('--to', type=local_path, required=True, help='folder for the checkpoint')
  add(
    '--direction',
    choices=('ab', 'ba'),
    help='direction of a single generator (default: as in the file, or ab)',
  )
  add('--d-a', type=local_path, help='latest_net_D_A.pth, for images of b')
  add('--d-b', type=local_path, help='latest_net_D_B.pth, for images of a')
  add(
    '--size',
    type=int,
    help='height and width of the training images (default: 256)',
  )
  add(
    '--dropout',
    type=float,
    help='dropout rate of a U-Net, whose weights do not show it (default: 0)',
  )
  add(
    '--map',
    type=local_path,
    help="JSON object with the authors' names by the file's names; a key that "
    'ends in a dot replaces a prefix, null leaves tensors out',
  )
  return parser


def _is_unused(folder: pathlib.Path) -> bool:
  """Whether a folder has nothing but what an interrupted import left there."""
  if not folder.is_dir():
    return True
  checkpoints = folder / 'checkpoints'
  left = checkpoints / '.0.tmp'
  return all(path == checkpoints for path in folder.iterdir()) and (
    not checkpoints.exists()
    or all(path == left for path in checkpoints.iterdir())
  )


def _read_generator(
  path: pathlib.Path,
  renames: Mapping[str, str | None],
  dropout: float | None,
) -> Generator:
  """Reads a generator of the authors, or of `cyclegan export`."""
  tensors, metadata = read_tensors(path)
  if not is_saved_generator(metadata):
    return generator_from_torch(path, tensors, renames, dropout)
  saved = read_generator(path, tensors, metadata)
  source, target = (saved.config.channels(each) for each in saved.direction)
  network = Network(saved.config.generator, source, target)
  params = jax.tree.map(jnp.asarray, saved.params)
  return Generator(path, network, params, saved.config, saved.direction)


def _directions(
  generators: list[Generator], direction: Direction | None
) -> list[Direction]:
  """Returns the generators' directions: as given, as in the files, by order."""
  if len(generators) == 1:
    return [direction or generators[0].direction or 'ab']
  first, second = generators
  directions = [first.direction or 'ab', second.direction or 'ba']
  if directions[0] == directions[1]:
    raise WeightsError(
      f'{generators[0].path} and {generators[1].path} are both for direction '
      f'{directions[0]}. Give one for each direction.'
    )
  return directions


def _check_memory(config: Config) -> None:
  """Checks the size: the config in a file may ask for a pool of millions."""
  needed = num_bytes(abstract_train_state(config))
  try:
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  except (AttributeError, ValueError):  # Windows
    return
  if needed > memory:
    raise WeightsError(
      f'a checkpoint would take {gib(needed)} with its optimizers and pools '
      f'(config.pool_size={config.pool_size}, config.data.size='
      f'{config.data.size}, config.discriminator.filters='
      f'{config.discriminator.filters}), but this machine has {gib(memory)}. '
      'Give files of smaller networks, or a smaller --size.'
    )


def _save(
  folder: pathlib.Path,
  state: TrainState,
  config: Config,
  directions: tuple[Direction, ...],
  discriminators: tuple[str, ...],
) -> None:
  with explain_disk_errors(folder, option='--to'):
    with Saver(
      folder / 'checkpoints',
      config,
      directions=directions,
      discriminators=discriminators,
    ) as saver:
      saver.save(state)
    if failure := saver.take_failure():
      raise failure[1]


def _describe(network: Network) -> str:
  config = network.config
  size = f'isize {config.isize}'
  if config.name == 'resnet':
    size = f'{config.blocks} blocks'
  affine = ', affine' * config.affine
  return (
    f'{config.name}, {size}, {config.filters} filters, {config.norm} norm'
    f'{affine}, dropout {config.dropout}, {network.channels_in} to '
    f'{network.channels_out} channels'
  )
