"""Starting a run from the networks of another checkpoint."""

import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from cyclegan_jax.config import Config, same_shape_options
from cyclegan_jax.errors import ConfigError, WorkdirError
from cyclegan_jax.state import TrainState, abstract_train_state
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.types import Params

_SECTIONS = {'gen': 'generator', 'disc': 'discriminator'}


class Networks(NamedTuple):
  """Trained networks of a checkpoint.

  Attributes:
    path: the checkpoint.
    gen: generators by direction; their running average, if there is one.
    disc: discriminators by domain.
    sha256: checksum of all parameters.
  """

  path: pathlib.Path
  gen: dict[str, Params]
  disc: dict[str, Params]
  sha256: str

  def __str__(self) -> str:
    missing = [f'generator {d}' for d in ('ab', 'ba') if d not in self.gen]
    missing += [f'discriminator {d}' for d in 'ab' if d not in self.disc]
    untrained = f', with untrained {" and ".join(missing)}' if missing else ''
    return f'the networks of {self.path}{untrained}'


def read_networks(config: Config, *, sha256: str = '') -> Networks:
  """Reads the trained networks of config.init_from.

  Args:
    config: of the run that starts from them.
    sha256: the checksum that they must have; '' for any.

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
    disc = {domain: found.state.disc[domain] for domain in found.discriminators}
  state = abstract_train_state(config)
  _check_fit('gen', gen, state.gen, found, config)
  _check_fit('disc', disc, state.disc, found, config)
  networks = Networks(found.path, gen, disc, _checksum({**gen, **disc}))
  if sha256 and networks.sha256 != sha256:
    raise ConfigError(
      f'config.init_from={config.init_from!r} holds other networks than those '
      f'that this run started from (config.init_sha256={sha256!r}, but '
      f'{found.path} has {networks.sha256!r}): restore them, or pass another '
      '--workdir'
    )
  return networks


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
