"""CycleGAN in JAX: unpaired image-to-image translation.

import jax
import cyclegan_jax as cg

config = cg.Config()
state = cg.create_train_state(config, jax.random.key(0))
state, metrics = cg.train_step(state, batch, config=config)
"""

import importlib
from typing import TYPE_CHECKING, Any

from cyclegan_jax.version import __version__ as __version__

if TYPE_CHECKING:
  from cyclegan_jax.config import Config as Config
  from cyclegan_jax.export.stablehlo_runtime import Exported as Exported
  from cyclegan_jax.export.stablehlo_runtime import (
    load_exported as load_exported,
  )
  from cyclegan_jax.inference import make_translator as make_translator
  from cyclegan_jax.nets import make_discriminator as make_discriminator
  from cyclegan_jax.nets import make_generator as make_generator
  from cyclegan_jax.state import TrainState as TrainState
  from cyclegan_jax.state import create_train_state as create_train_state
  from cyclegan_jax.step import train_step as train_step
  from cyclegan_jax.training.train import train as train
  from cyclegan_jax.translate.translator import Translator as Translator
  from cyclegan_jax.translate.translator import (
    load_translator as load_translator,
  )

_HOMES = {
  'Config': 'config',
  'TrainState': 'state',
  'create_train_state': 'state',
  'train_step': 'step',
  'make_translator': 'inference',
  'Translator': 'translate.translator',
  'load_translator': 'translate.translator',
  'Exported': 'export.stablehlo_runtime',
  'load_exported': 'export.stablehlo_runtime',
  'make_generator': 'nets',
  'make_discriminator': 'nets',
  'register': '',
  'train': 'training.train',
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
  """Imports what is asked for, and JAX with it, when it is asked for.

  So that a command can take note of signals before the seconds that takes.
  """
  if name not in _HOMES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  home = _HOMES[name]
  if not home:
    return importlib.import_module(f'{__name__}.{name}')
  return getattr(importlib.import_module(f'{__name__}.{home}'), name)


def __dir__() -> list[str]:
  return sorted({*globals(), *_HOMES})
