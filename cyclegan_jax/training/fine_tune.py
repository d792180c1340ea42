"""Starting a run from the networks of another checkpoint."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from cyclegan_jax.config import (
  Config,
  check_sizes,
  differences,
  same_shape_options,
)
from cyclegan_jax.errors import ConfigError, WorkdirError
from cyclegan_jax.nets import make_discriminator
from cyclegan_jax.state import TrainState, abstract_train_state
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.types import Params

_SECTIONS = {'gen': 'generator', 'disc': 'discriminator'}
# How networks are computed and begin, not which ones they are.
_NOT_OF_NETWORKS = ('dtype', 'init')


class Networks(NamedTuple):
  """Trained networks of a checkpoint.

  Attributes:
    path: the checkpoint.
    gen: generators by direction; their running average, if there is one.
    disc: discriminators by domain.
    sha256: checksum of all parameters.
    config: of the run that starts from them.
    adopted: the values of its options that are those of the checkpoint, by
      path.
  """

  path: pathlib.Path
  gen: dict[str, Params]
  disc: dict[str, Params]
  sha256: str
  config: Config
  adopted: dict[str, Any]

  def __str__(self) -> str:
    missing = [f'generator {d}' for d in ('ab', 'ba') if d not in self.gen]
    missing += [f'discriminator {d}' for d in 'ab' if d not in self.disc]
    untrained = f', with untrained {" and ".join(missing)}' if missing else ''
    return f'the networks of {self.path}{untrained}'

  def facts(self) -> dict[str, str]:
    """Rows for the table of facts of a run."""
    facts = {'starts from': str(self)}
    if self.adopted:
      texts = [f'{path}={value!r}' for path, value in self.adopted.items()]
      facts['taken from it'] = ', '.join(texts)
    return facts


def read_networks(
  config: Config,
  *,
  sha256: str = '',
  explicit: Collection[str] | None = None,
) -> Networks:
  """Reads the trained networks of config.init_from.

  Args:
    config: of the run that starts from them.
    sha256: the checksum that they must have; '' for any.
    explicit: paths of the options that the user set; the other options of the
      networks are taken from the checkpoint. None for all.

  Raises:
    ConfigError: the architectures differ, or the checksum does.
    WorkdirError: no checkpoint can be read there.
  """
  path = pathlib.Path(config.init_from)
  if os.path.isfile(path):
    raise ConfigError(
      f'config.init_from={config.init_from!r} is a file: pass the folder of a '
      'run or of a checkpoint; `cyclegan import` converts .pth and '
      '.safetensors files to one'
    )
  try:
    found = checkpoint.load(path)
  except WorkdirError as error:
    raise WorkdirError(f'config.init_from: {error}') from error
  gen: dict[str, Params] = {
    direction: found.state.translators[direction]
    for direction in found.directions
  }
  disc: dict[str, Params] = {}
  if config.init_discriminators:
    if found.discriminators and not found.state.disc:
      # Left out without their plugin, which is then named.
      make_discriminator(found.config.discriminator)
    disc = {domain: found.state.disc[domain] for domain in found.discriminators}
  given = config
  if explicit is not None:
    config = with_network_options(
      config, found.config, explicit, discriminators=bool(disc)
    )
  adopted = {path: new for path, (_, new) in differences(given, config).items()}
  check_sizes(config)
  state = abstract_train_state(config)
  _check_fit('gen', gen, state.gen, found, config)
  _check_fit('disc', disc, state.disc, found, config)
  checksum = _checksum({**gen, **disc})
  networks = Networks(found.path, gen, disc, checksum, config, adopted)
  if sha256 and networks.sha256 != sha256:
    raise ConfigError(
      f'config.init_from={config.init_from!r} holds other networks than those '
      f'that this run started from (config.init_sha256={sha256!r}, but '
      f'{found.path} has {networks.sha256!r}): restore them, or pass another '
      '--workdir'
    )
  return networks


def with_network_options(
  config: Config,
  source: Config,
  explicit: Collection[str],
  *,
  discriminators: bool,
) -> Config:
  """Takes the options of the networks from the run that they come from.

  The size of the images is also taken, where the networks do not take that of
  the config.

  Args:
    config: of the run that starts from the networks, or is resumed.
    source: the config of the networks.
    explicit: paths of the options that stay as they are.
    discriminators: whether the discriminators are taken, too.

  Raises:
    ConfigError: the networks do not take images of the explicit size.
  """
  changes: dict[str, dict[str, Any]] = {}
  for section in ('generator', 'discriminator')[: 1 + discriminators]:
    changes[section] = {
      name: value
      for name, value in dataclasses.asdict(getattr(source, section)).items()
      if name not in _NOT_OF_NETWORKS
      and f'config.{section}.{name}' not in explicit
    }
  config = config.replace(**changes)
  try:
    check_sizes(config)
    return config
  except ConfigError as error:
    if 'config.data.size' in explicit:
      raise ConfigError(
        f'config.init_from={config.init_from!r} does not fit this run: {error}'
      ) from error
  data = {'size': source.data.size}
  if 'config.data.load_size' not in explicit:
    data['load_size'] = 0
  config = config.replace(data=data)
  check_sizes(config)
  return config


def with_networks(state: TrainState, networks: Networks) -> TrainState:
  """Replaces the networks of an initial state by trained ones.

  Optimizers, step and running average start as in any new run.
  """
  gen = state.gen | networks.gen
  return state.replace(
    gen=gen,
    disc=state.disc | networks.disc,
    # A copy: one buffer under two names could not be donated.
    gen_ema=None if state.gen_ema is None else jax.tree.map(jnp.copy, gen),
  )


def _check_fit(
  side: str,
  loaded: Mapping[str, Params],
  expected: Mapping[str, Params],
  found: checkpoint.Checkpoint,
  config: Config,
) -> None:
  """Raises ConfigError if the networks do not match the config."""
  name = _SECTIONS[side]
  one, two = getattr(found.config, name), getattr(config, name)
  changed = [
    f'config.{name}.{option}={getattr(one, option)!r}, and not '
    f'{getattr(two, option)!r}'
    for option in same_shape_options(type(one))
    if getattr(one, option) != getattr(two, option)
  ]
  changed += _first_difference(side, loaded, expected)
  if loaded and changed:
    advice = f'use the config.{name} and the channels of that run'
    if side == 'disc':
      advice += ', or set config.init_discriminators=False'
    raise ConfigError(
      f'config.init_from={config.init_from!r} does not fit this run: '
      f'{found.path} has {"; ".join(changed)}: {advice}'
    )


def _first_difference(
  side: str, loaded: Mapping[str, Params], expected: Mapping[str, Params]
) -> list[str]:
  """Describes the first parameter whose name or shape differs."""
  for key, params in loaded.items():
    old, new = (_flat(tree) for tree in (params, expected[key]))
    for name in dict.fromkeys([*old, *new]):
      shapes = [
        list(flat[name].shape) if name in flat else 'none'
        for flat in (old, new)
      ]
      if shapes[0] != shapes[1]:
        return [f'{side}/{key}/{name} of {shapes[0]}, and not {shapes[1]}']
  return []


def _flat(params: Params) -> dict[str, jax.Array]:
  return flax.traverse_util.flatten_dict(params, sep='/')


def _checksum(networks: Mapping[str, Params]) -> str:
  """SHA-256 of names, shapes, dtypes and values."""
  hashed = hashlib.sha256()
  for name, leaf in sorted(_flat(networks).items()):
    array = np.asarray(leaf)
    hashed.update(f'{name} {array.shape} {array.dtype.str} '.encode())
    hashed.update(array.tobytes())
  return hashed.hexdigest()
