"""The networks that a run begins with, where another one has trained them."""

import hashlib
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from cyclegan_jax.config import Config
from cyclegan_jax.errors import ConfigError, WorkdirError
from cyclegan_jax.state import TrainState, abstract_train_state
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.types import Params

# What makes another network of the same parameters.
_MEANINGS = {
  'generator': ('name', 'norm', 'padding', 'upsample'),
  'discriminator': ('name', 'norm', 'last_layers'),
}
_SECTIONS = {'gen': 'generator', 'disc': 'discriminator'}


class Networks(NamedTuple):
  """Trained networks of a checkpoint."""

  path: pathlib.Path  # of the checkpoint
  gen: dict[str, Params]  # by direction; those that its translator takes
  disc: dict[str, Params]  # by domain
  sha256: str  # of all parameters

  def __str__(self) -> str:
    lacking = [
      f'generator {way}' for way in ('ab', 'ba') if way not in self.gen
    ]
    lacking += [f'discriminator {d}' for d in 'ab' if d not in self.disc]
    fresh = f', but a fresh {" and ".join(lacking)}' if lacking else ''
    return f'the networks of {self.path}{fresh}'


def read_networks(config: Config, *, sha256: str = '') -> Networks:
  """Reads the networks of config.init_from, as far as they were trained.

  Of generators the running average is taken where there is one, as by the
  translator of that checkpoint.

  Args:
    config: of the run that begins with them.
    sha256: that they have to have; '' for any.

  Raises:
    ConfigError: they are not those of the config, or have another checksum.
    WorkdirError: there is no checkpoint that could be read.
  """
  path = pathlib.Path(config.init_from).expanduser()
  if path.is_file():
    raise ConfigError(
      f'config.init_from={config.init_from!r} is a file: give the folder of a '
      'run or of a checkpoint; `cyclegan import` makes one of .pth and '
      '.safetensors files'
    )
  try:
    found = checkpoint.load(path)
  except WorkdirError as error:
    raise WorkdirError(f'config.init_from: {error}') from error
  gen = {way: found.state.translators[way] for way in found.directions}
  disc = {}
  if config.init_discriminators:
    disc = {domain: found.state.disc[domain] for domain in found.discriminators}
  state = abstract_train_state(config)
  _check_fit('gen', gen, state.gen, found, config)
  _check_fit('disc', disc, state.disc, found, config)
  networks = Networks(found.path, gen, disc, _checksum({**gen, **disc}))
  if sha256 and networks.sha256 != sha256:
    raise ConfigError(
      f'config.init_from={config.init_from!r} holds other networks than this '
      f'run began with (config.init_sha256={sha256!r}, and {found.path} has '
      f'{networks.sha256!r}): bring those back, or give another --workdir'
    )
  return networks


def with_networks(state: TrainState, networks: Networks) -> TrainState:
  """A fresh state with trained networks in place of its own.

  Its optimizers and its step stay fresh; a running average begins anew.
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
  there: Mapping[str, Params],
  here: Mapping[str, Params],
  found: checkpoint.Checkpoint,
  config: Config,
) -> None:
  """Raises ConfigError where networks are not those of the config."""
  name = _SECTIONS[side]
  one, two = getattr(found.config, name), getattr(config, name)
  changed = [
    f'config.{name}.{option}={getattr(one, option)!r}, and not '
    f'{getattr(two, option)!r}'
    for option in _MEANINGS[name]
    if getattr(one, option) != getattr(two, option)
  ]
  changed += _first_difference(side, there, here)
  if there and changed:
    advice = f'give this run the config.{name} and the channels of that one'
    if side == 'disc':
      advice += ', or config.init_discriminators=False for fresh ones'
    raise ConfigError(
      f'config.init_from={config.init_from!r} does not fit this run: '
      f'{found.path} has {"; ".join(changed)}: {advice}'
    )


def _first_difference(
  side: str, there: Mapping[str, Params], here: Mapping[str, Params]
) -> list[str]:
  """The first parameter that one has not or in another shape, for a message."""
  for key, params in there.items():
    old, new = (_flat(tree) for tree in (params, here[key]))
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
  """Of names, shapes, types and numbers: the same wherever they lie."""
  hashed = hashlib.sha256()
  for name, leaf in sorted(_flat(networks).items()):
    array = np.asarray(leaf)
    hashed.update(f'{name} {array.shape} {array.dtype.str} '.encode())
    hashed.update(array.tobytes())
  return hashed.hexdigest()
