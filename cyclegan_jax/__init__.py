"""CycleGAN in JAX: unpaired image-to-image translation.

import jax
import cyclegan_jax as cg

config = cg.Config()
state = cg.create_train_state(config, jax.random.key(0))
state, metrics = cg.train_step(state, batch, config=config)
"""

from cyclegan_jax.config import Config
from cyclegan_jax.inference import make_translator
from cyclegan_jax.nets import make_discriminator, make_generator
from cyclegan_jax.state import TrainState, create_train_state
from cyclegan_jax.step import train_step

__all__ = [
  'Config',
  'TrainState',
  'create_train_state',
  'train_step',
  'make_translator',
  'make_generator',
  'make_discriminator',
]
