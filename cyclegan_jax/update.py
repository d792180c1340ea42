"""The compiled program that the loop runs at every step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from cyclegan_jax import parallel
from cyclegan_jax.config import Config
from cyclegan_jax.data.augment import augment, augment_key
from cyclegan_jax.data.loader import RawBatch
from cyclegan_jax.data.resizing import raw_size
from cyclegan_jax.state import TrainState
from cyclegan_jax.step import train_step
from cyclegan_jax.types import Batch, Metrics


class CompiledUpdate(NamedTuple):
  """One step on raw images, and what it takes."""

  run: Callable[[TrainState, RawBatch], tuple[TrainState, Metrics]]
  num_bytes: int | None  # of memory on each device, by XLA's count


def compile_update(config: Config, state: TrainState) -> CompiledUpdate:
  """Compiles crop, flip and `train_step` into one program.

  Compiled ahead, so that it is done once: called in the usual way, several
  devices would have it compiled again when the state comes back replicated.

  Args:
    config: resolved: with the number of devices.
    state: of the shapes to compile for.

  Returns:
    A function (state, {'a', 'b'}: uint8 [B, H, W, C]) -> (state, metrics)
    that takes over the state's memory.
  """
  num_devices = config.num_devices
  axis_name = parallel.AXIS if num_devices > 1 else None

  def update(state: TrainState, raw: Batch) -> tuple[TrainState, Metrics]:
    key = augment_key(state.key, state.step)
    batch = augment(raw, key, config.data, axis_name=axis_name)
    return train_step(state, batch, config=config, axis_name=axis_name)

  raw = {
    domain: np.zeros(
      (config.batch_size, *raw_size(config.data), config.channels(domain)),
      np.uint8,
    )
    for domain in 'ab'
  }
  program: Any
  if num_devices == 1:
    program = jax.jit(update, donate_argnums=0)
  else:
    program = parallel.data_parallel(update, num_devices=num_devices)

  def shard(raw: RawBatch) -> RawBatch:
    if num_devices == 1:
      return raw
    return parallel.shard_batch(raw, num_devices)

  compiled = program.lower(state, shard(raw)).compile()

  def run(state: TrainState, raw: RawBatch) -> tuple[TrainState, Metrics]:
    return compiled(state, shard(raw))

  memory = compiled.memory_analysis()
  if memory is None:
    return CompiledUpdate(run, None)
  # Outputs that take over an input's memory are counted twice.
  num_bytes = (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
  )
  return CompiledUpdate(run, num_bytes)
