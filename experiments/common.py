"""What the benchmarks share: configs, our step, turns, the machine's name."""

import datetime
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from cyclegan_jax.config import Config
from cyclegan_jax.step import train_step


def make_config(recipe: str, size: int, batch: int, dtype: str) -> Config:
  """The networks and losses of a recipe, so that both sides can be compared.

  Without dropout, and with a low learning rate: rounding grows from step to
  step by ReLUs' kinks and by Adam, which makes a whole step of any gradient.
  """
  config = Config().replace(
    batch_size=batch,
    data={'size': size, 'load_size': size},
    generator={'isize': size},
    optimizer={'learning_rate': 1e-5},
  )
  if recipe == 'default':  # the Keras note's networks with few filters
    return config.replace(generator={'dropout': 0.0})
  if recipe == 'unet':  # the Keras note's at full size
    return config.replace(
      generator={'filters': 64, 'dropout': 0.0, 'dtype': dtype},
      discriminator={'filters': 64, 'dtype': dtype},
      # At batch 1 its batch norms see few values, down to one: gradients that
      # should be 0 are rounding, of which Adam makes whole steps.
      optimizer={'learning_rate': 2e-6},
    )
  return config.replace(
    generator={
      'name': 'resnet',
      'filters': 64,
      'blocks': 9,
      'norm': 'instance',
      'affine': False,
      'padding': 'reflect',
      'dropout': 0.0,
      'dtype': dtype,
    },
    discriminator={
      'name': 'patchgan',
      'filters': 64,
      'norm': 'instance',
      'affine': False,
      'dtype': dtype,
    },
    loss={
      'adversarial': 'lsgan',
      'identity_a': 5.0,
      'identity_b': 5.0,
      'discriminator': 0.5,
    },
  )


class Ours:
  """A compiled step that takes over the state's memory, as in the loop."""

  def __init__(self, config: Config, state, compiler_options=None):
    self.state = jax.tree.map(jnp.copy, state)
    step = jax.jit(
      lambda state, batch: train_step(state, batch, config=config),
      donate_argnums=0,
    )
    example = self.images({d: draw(config, 0, d) for d in 'ab'})
    began = time.perf_counter()
    self.program = step.lower(self.state, example).compile(compiler_options)
    self.compile_seconds = time.perf_counter() - began

  @staticmethod
  def images(batch):
    return jax.tree.map(jnp.asarray, batch)

  def __call__(self, batch):
    self.state, metrics = self.program(self.state, batch)
    return metrics

  @staticmethod
  def wait(metrics):
    jax.block_until_ready(metrics)


def draw(config: Config, seed: int, domain: str) -> np.ndarray:
  """A batch of noise in [-1, 1], of one domain."""
  size = config.data.size
  rng = np.random.default_rng([seed, ord(domain)])
  shape = (config.batch_size, size, size, config.channels(domain))
  return rng.uniform(-1, 1, shape).astype(np.float32)


def measure(
  config: Config, sides: dict[str, Callable], rounds: int, steps: int
) -> dict[str, list[float]]:
  """Seconds a step, of each turn."""
  batch = {domain: draw(config, 99, domain) for domain in 'ab'}
  batches = {name: side.images(batch) for name, side in sides.items()}
  seconds: dict[str, list[float]] = {name: [] for name in sides}
  for turn in range(rounds + 1):
    for name, side in sides.items():
      start = time.perf_counter()
      for _ in range(steps):
        metrics = side(batches[name])
      side.wait(metrics)
      if turn:  # the first one warms up
        seconds[name].append((time.perf_counter() - start) / steps)
  return seconds


def machine() -> str:
  """The device, the libraries' versions and the date, in one line."""
  path = pathlib.Path('/proc/cpuinfo')
  text = path.read_text() if path.exists() else ''
  found = re.search(r'model name\s*: (.*)', text)
  name = found[1] if found else platform.processor()
  if jax.default_backend() != 'cpu':
    name = f'{jax.devices()[0].device_kind} beside {name}'
  names = [name for name in ('jax', 'torch') if importlib.util.find_spec(name)]
  versions = [f'{name} {importlib.metadata.version(name)}' for name in names]
  return (
    f'{name}, {os.cpu_count()} cores; {", ".join(versions)}; '
    f'{datetime.date.today()}'
  )


def quartiles(values: list[float], digits: int = 2) -> str:
  """Median (first to third quartile)."""
  low, middle, high = statistics.quantiles(values, n=4)
  return f'{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})'
