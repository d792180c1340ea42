"""A new run that begins with what another one has learnt."""

from collections.abc import Mapping
from typing import NamedTuple

import flax.traverse_util
import jax.numpy as jnp

from cyclegan_jax import checkpoint
from cyclegan_jax.config import Config
from cyclegan_jax.errors import ConfigError
from cyclegan_jax.state import TrainState
from cyclegan_jax.types import Params


class Begun(NamedTuple):
  """A state at step 0, and what of it is not fresh."""

  state: TrainState
  source: str


def begin_from(config: Config, state: TrainState) -> Begun:
  """Puts the networks of `config.init_from` into a fresh state.

  Generators are those that the checkpoint translates with: their running
  average, where it has one. Optimizers, pools and keys stay fresh.

  Args:
    config: of the new run.
    state: its fresh one.

  Raises:
    ConfigError: the networks are others.
    WorkdirError: there is no checkpoint, or it is damaged.
  """
  found = checkpoint.find(config.init_from)
  gen = {
    way: _checked(config, 'generator', state.gen[way], params, f'gen.{way}')
    for way, params in found.state.translators.items()
    if way in found.directions  # an imported one may have one alone
  }
  disc: dict[str, Params] = {}
  if config.init_discriminators:
    disc = {
      domain: _checked(
        config, 'discriminator', state.disc[domain], params, f'disc.{domain}'
      )
      for domain, params in found.state.disc.items()
    }
  state = state.replace(gen=state.gen | gen, disc=state.disc | disc)
  if state.gen_ema is not None:
    state = state.replace(gen_ema=state.gen)
  what = 'generators and discriminators' if disc else 'generators'
  if len(gen) == 1:
    what = what.replace('generators', f'the generator {next(iter(gen))}', 1)
  step = int(found.state.step)
  return Begun(state, f'{what} of {found.path}, step {step:,}')


def _checked(
  config: Config, kind: str, fresh: Params, given: Params, name: str
) -> Params:
  """The given parameters as arrays, where their shapes are the fresh ones'."""
  expected, found = _shapes(fresh), _shapes(given)
  for path in [*expected, *found]:
    if expected.get(path) != found.get(path):
      raise ConfigError(
        f'config.init_from={config.init_from} has another {kind}: {name}.'
        f'{path} is {_told(found.get(path))} there and '
        f'{_told(expected.get(path))} here; set the options of config.{kind} '
        'and config.data.channels_... to those of its config.json'
        + (
          ', or config.init_discriminators=False'
          if kind == 'discriminator'
          else ''
        )
      )
  leaves = flax.traverse_util.flatten_dict(given)
  return flax.traverse_util.unflatten_dict(
    {path: jnp.array(leaf) for path, leaf in leaves.items()}
  )


def _shapes(params: Mapping[str, Params]) -> dict[str, tuple[int, ...]]:
  flat = flax.traverse_util.flatten_dict(params, sep='.')
  return {path: leaf.shape for path, leaf in flat.items()}


def _told(shape: tuple[int, ...] | None) -> str:
  return 'missing' if shape is None else str(list(shape))
