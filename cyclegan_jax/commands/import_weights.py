"""`cyclegan import`."""

import dataclasses
import json
import logging
import os
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cyclegan_jax.commands.parser import Parser
from cyclegan_jax.config import Config, DiscriminatorConfig, Section
from cyclegan_jax.errors import WeightsError, WorkdirError, one_line
from cyclegan_jax.export.model import Model
from cyclegan_jax.export.safetensors_file import is_ours, read_model
from cyclegan_jax.interop.pth import read_pth
from cyclegan_jax.interop.safetensors import read_safetensors
from cyclegan_jax.interop.torch_infer import (
  Network,
  infer_discriminator,
  infer_generator,
)
from cyclegan_jax.interop.torch_names import params_from_torch, rename
from cyclegan_jax.state import (
  TrainState,
  abstract_train_state,
  create_train_state,
)
from cyclegan_jax.storage.checkpoint import (
  Saver,
)
from cyclegan_jax.storage.disk_errors import explain_disk_errors
from cyclegan_jax.training.preflight import (
  gib,
  num_bytes,
)
from cyclegan_jax.types import Params

_SIZE = 256  # the authors'


class _Generator(NamedTuple):
  path: pathlib.Path
  network: Network
  params: Params
  source: Model | None = None  # where it was exported from here


class _Discriminator(NamedTuple):
  path: pathlib.Path
  config: DiscriminatorConfig
  params: Params


def run(argv: list[str], program: str) -> int:
  """Makes a checkpoint of weights."""
  parser = _parser(program)
  given = parser.parse_args(argv)
  if len(given.generators) > 2:
    parser.error('give one or two generators')
  if len(given.generators) == 2 and given.direction:
    parser.error('argument --direction: is for one generator alone')
  if given.to.is_file() or (given.to.is_dir() and any(given.to.iterdir())):
    raise WorkdirError(f'{given.to} is not empty: give another --to')
  renames = _read_map(given.map) if given.map else {}
  ways = (given.direction,) if given.direction else ('ab', 'ba')
  read = [
    _read_generator(path, renames, given.dropout) for path in given.generators
  ]
  if len(read) == 1 and read[0].source and not given.direction:
    ways = (read[0].source.direction,)
  generators = dict(zip(ways, read, strict=False))
  # The authors' D_A judges what G_A makes: images of b.
  judges = {
    domain: _read_discriminator(path, renames)
    for domain, path in (('b', given.d_a), ('a', given.d_b))
    if path
  }
  config = _make_config(generators, judges, given.size)
  _check_channels(config, judges)
  _check_memory(config)
  state = create_train_state(config, jax.random.key(config.seed))
  state = state.replace(
    gen=state.gen | {way: each.params for way, each in generators.items()},
    disc=state.disc | {domain: each.params for domain, each in judges.items()},
  )
  _save(given.to, state, config, tuple(generators), tuple(judges))
  for way, each in generators.items():
    print(f'{way}: {each.path}, {_describe(each.network)}')
  way = next(iter(generators))
  print(
    'Translate a folder of images with\n  python -m cyclegan_jax translate '
    f'{shlex.quote(str(given.to))} FOLDER --to OUT --direction {way}'
  )
  return 0


def _parser(program: str) -> Parser:
  parser = Parser(
    program,
    description="Makes a checkpoint of weights: of the authors' PyTorch code "
    '(a ResnetGenerator or UnetGenerator of pytorch-CycleGAN-and-pix2pix) in '
    '.pth or .safetensors files, or of what cyclegan export --format '
    'safetensors wrote. Torch is not needed, and nothing that a file asks for '
    'is run.',
  )
  add = parser.add_argument
  path: Any = pathlib.Path
  add(
    'generators',
    type=path,
    nargs='+',
    metavar='weights',
    help='latest_net_G_A.pth, which maps a to b, and latest_net_G_B.pth; or '
    'ab.safetensors and ba.safetensors',
  )
  add('--to', type=path, required=True, help='folder for the checkpoint')
  add(
    '--direction',
    choices=('ab', 'ba'),
    help='of a generator that comes alone (default: ab)',
  )
  add('--d-a', type=path, help='latest_net_D_A.pth, which judges images of b')
  add('--d-b', type=path, help='latest_net_D_B.pth, which judges images of a')
  add(
    '--size',
    type=int,
    help='height and width of the training images (default: 256)',
  )
  add(
    '--dropout',
    type=float,
    help="of a U-Net, whose weights don't show it (default: 0)",
  )
  add(
    '--map',
    type=path,
    help="JSON of the authors' names by the file's; a name that ends in a dot "
    'stands for all that begin so, null leaves a tensor out',
  )
  add('--debug', action='store_true', help='show tracebacks')
  return parser


def _read_map(path: pathlib.Path) -> dict[str, str | None]:
  try:
    renames = json.loads(path.read_text(encoding='utf-8'))
    if not isinstance(renames, dict) or not all(
      each is None or isinstance(each, str) for each in renames.values()
    ):
      raise ValueError('it is not an object of texts')
  except (OSError, ValueError, RecursionError) as error:
    raise WeightsError(
      f'{path} can not be read ({one_line(error)}): give JSON such as '
      '{"encoder.": "model."}'
    ) from error
  return renames


def _read_tensors(
  path: pathlib.Path,
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  if path.suffix == '.safetensors':
    return read_safetensors(path)
  return read_pth(path), {}


def _of_ours(model: Model, path: pathlib.Path) -> _Generator:
  network = Network(
    model.config.generator, model.channels_in, model.channels_out
  )
  params = jax.tree.map(jnp.asarray, model.params)
  return _Generator(path, network, params, model)


def _read_generator(
  path: pathlib.Path,
  renames: Mapping[str, str | None],
  dropout: float | None,
) -> _Generator:
  tensors, metadata = _read_tensors(path)
  if is_ours(metadata):
    return _of_ours(read_model(path, tensors, metadata), path)
  tensors = rename(tensors, renames)
  network = infer_generator(tensors, source=str(path))
  config = network.config
  if dropout is not None:
    if config.name != 'torch_unet':
      raise WeightsError(
        f'{path} shows its dropout, {config.dropout}: leave --dropout out'
      )
    config = dataclasses.replace(config, dropout=dropout)
  params = params_from_torch(
    tensors,
    config,
    channels_in=network.channels_in,
    channels_out=network.channels_out,
    source=str(path),
  )
  if config.norm == 'batch':
    logging.getLogger('cyclegan_jax').warning(
      '%s: its running statistics are left out, as batch norm takes those of '
      "the images at hand here, like the authors' test.py without --eval",
      path,
    )
  return _Generator(path, network._replace(config=config), params)


def _read_discriminator(
  path: pathlib.Path, renames: Mapping[str, str | None]
) -> _Discriminator:
  tensors = rename(_read_tensors(path)[0], renames)
  config = infer_discriminator(tensors, source=str(path))
  first = tensors[
    'net.0.weight' if config.name == 'pixelgan' else 'model.0.weight'
  ]
  params = params_from_torch(
    tensors, config, channels_in=first.shape[1], source=str(path)
  )
  return _Discriminator(path, config, params)


def _make_config(
  generators: Mapping[str, _Generator],
  judges: Mapping[str, _Discriminator],
  size: int | None,
) -> Config:
  """The paper's recipe around the networks of the files."""
  (way, first), *others = generators.items()
  network = first.network
  for _, other in others:
    _check_same(first.path, network.config, other.path, other.network.config)
    back = other.network.channels_out, other.network.channels_in
    if back != (network.channels_in, network.channels_out):
      raise WeightsError(
        f'{other.path} maps {back[1]} channels to {back[0]}, but {first.path} '
        f'{network.channels_in} to {network.channels_out}: give two generators '
        'of one run'
      )
  judge = DiscriminatorConfig(
    name='patchgan',
    filters=network.config.filters,
    norm='instance',
    affine=False,
    init='normal',
  )
  if judges:
    one, *rest = judges.values()
    judge = one.config
    for each in rest:
      _check_same(one.path, judge, each.path, each.config)
  if first.source:
    return _adapt(first.source.config, judge if judges else None, size)
  is_unet = network.config.name == 'torch_unet'
  size = size or max(_SIZE, network.config.isize if is_unet else 0)
  data = {'name': 'folder', 'size': size, 'load_size': size * 143 // 128}
  data |= {
    f'channels_{way[0]}': network.channels_in,
    f'channels_{way[1]}': network.channels_out,
  }
  for domain in 'ab':
    data |= {f'dtype_{domain}': 'uint8', f'high_{domain}': 255.0}
  return Config().replace(
    batch_size=1,
    epochs=200,
    pool_size=50,
    data=data,
    generator=dataclasses.asdict(network.config),
    discriminator=dataclasses.asdict(judge),
    loss={
      'adversarial': 'lsgan',
      'discriminator': 0.5,
      'identity_a': 5.0,
      'identity_b': 5.0,
    },
    optimizer={'learning_rate': 2e-4},
    schedule={'name': 'linear', 'decay_epochs': 100},
  )


def _adapt(
  config: Config, judge: DiscriminatorConfig | None, size: int | None
) -> Config:
  if judge:
    config = config.replace(discriminator=dataclasses.asdict(judge))
  if size:
    config = config.replace(data={'size': size, 'load_size': size})
  return config


def _check_same(
  path: pathlib.Path, config: Section, other: pathlib.Path, second: Section
) -> None:
  one, two = dataclasses.asdict(config), dataclasses.asdict(second)
  differences = [
    f'{name} {one[name]!r} and {two[name]!r}'
    for name in one
    if one[name] != two[name]
  ]
  if differences:
    raise WeightsError(
      f'{path} and {other} are of two networks ({"; ".join(differences)}): a '
      'checkpoint has two of a kind, so import each into one of its own'
    )


def _check_channels(
  config: Config, judges: Mapping[str, _Discriminator]
) -> None:
  for domain, judge in judges.items():
    found = judge.params['conv_0']['kernel'].shape[2]
    if found != config.channels(domain):
      raise WeightsError(
        f'{judge.path} judges images of {found} channels, but those of '
        f'{domain} have {config.channels(domain)}: give discriminators of the '
        'same run'
      )


def _check_memory(config: Config) -> None:
  """A file's own config may ask for anything, such as a pool of millions."""
  needed = num_bytes(abstract_train_state(config))
  there = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  if needed > there:
    raise WeightsError(
      f'a checkpoint would take {gib(needed)} with its optimizers and pools '
      f'(config.pool_size={config.pool_size}, config.data.size='
      f'{config.data.size}, config.discriminator.filters='
      f'{config.discriminator.filters}), but this machine has {gib(there)}: '
      'give files of smaller networks, or a smaller --size'
    )


def _save(
  folder: pathlib.Path,
  state: TrainState,
  config: Config,
  directions: tuple[str, ...],
  judges: tuple[str, ...],
) -> None:
  with explain_disk_errors(folder, option='--to'):
    with Saver(
      folder / 'checkpoints',
      config,
      directions=directions,
      discriminators=judges,
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
