"""The training step as one compiled program, called at every step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cyclegan_jax import parallel
from cyclegan_jax.config import Config
from cyclegan_jax.data.augment import augment, augment_key
from cyclegan_jax.data.loader import RawBatch
from cyclegan_jax.data.resizing import raw_size
from cyclegan_jax.media.value_range import raw_dtype
from cyclegan_jax.state import TrainState
from cyclegan_jax.step import train_step
from cyclegan_jax.training import processes
from cyclegan_jax.types import Array, Batch, Metrics


class StepOutput(NamedTuple):
  """Output of a compiled step.

  Attributes:
    state: the state after the step.
    metrics: float32 scalars by name.
    is_finite: bool scalar, whether every metric is finite.
    is_stopped: bool scalar, whether a process received a signal.
  """

  state: TrainState
  metrics: Metrics
  is_finite: Array
  is_stopped: Array


class CompiledStep(NamedTuple):
  """A compiled training step on raw images.

  Attributes:
    place: moves a state to the devices on which `run` takes it.
    run: (state, raw batch, is_stopped=False) -> StepOutput; donates the state.
    num_bytes: memory on each device by XLA's count, if it is known.
  """

  place: Callable[[TrainState], TrainState]
  run: Callable[..., StepOutput]
  num_bytes: int | None


def compile_step(config: Config, state: TrainState) -> CompiledStep:
  """Compiles crop, flip and `train_step` into one program.

  It is compiled ahead of time: jit would compile again on several devices,
  when the state comes back replicated.

  Args:
    config: resolved.
    state: a state of the shapes to compile for.

  Returns:
    The step. Each of several processes passes its share of the batch, and
    whether it received a signal.
  """
  num_devices = config.num_devices
  axis_name = parallel.AXIS if num_devices > 1 else None

  def step(state: TrainState, inputs: tuple[Batch, Array]) -> StepOutput:
    raw, is_stopped = inputs
    key = augment_key(state.key, state.step)
    batch = augment(raw, key, config.data, axis_name=axis_name)
    state, metrics = train_step(
      state, batch, config=config, axis_name=axis_name
    )
    # Reduced here, so that the loop fetches one bool per step.
    is_finite = jnp.isfinite(jnp.stack(list(metrics.values()))).all()
    is_stopped = parallel.any_over(is_stopped.any(), axis_name)
    return StepOutput(state, metrics, is_finite, is_stopped)

  def place(state: TrainState) -> TrainState:
    if num_devices == 1:
      return state
    return parallel.replicate(state, num_devices)

  def shard(raw: RawBatch, is_stopped: bool) -> Any:
    # One flag for each of this process's devices.
    inputs = raw, np.full(num_devices // processes.count(), is_stopped)
    if num_devices == 1:
      return inputs
    return parallel.shard_batch(inputs, num_devices)

  program: Any
  if num_devices == 1:
    program = jax.jit(step, donate_argnums=0)
  else:
    program = parallel.data_parallel(step, num_devices=num_devices)
  inputs = shard(_zero_batch(config), is_stopped=False)
  compiled = program.lower(place(state), inputs).compile(
    _compiler_options(config)
  )

  def run(
    state: TrainState, raw: RawBatch, is_stopped: bool = False
  ) -> StepOutput:
    output = compiled(state, shard(raw, is_stopped))
    if num_devices == 1:
      return output
    # All but the state is read on the host: take this process's copy.
    return StepOutput(output.state, *parallel.first_replica(output[1:]))

  return CompiledStep(place, run, _num_bytes(compiled))


def _zero_batch(config: Config) -> RawBatch:
  """A raw batch of this process's share, for its shapes and dtypes."""
  local_size = config.batch_size // processes.count()
  raw: RawBatch = {
    domain: np.zeros(
      (local_size, *raw_size(config.data), config.channels(domain)),
      raw_dtype(config.data, domain),
    )
    for domain in 'ab'
  }
  if config.loss.paired_weight:
    raw['is_pair'] = np.zeros(local_size, bool)
  return raw


def _num_bytes(compiled: Any) -> int | None:
  memory = compiled.memory_analysis()
  if memory is None:
    return None
  # Donated arguments are counted as inputs and as outputs.
  return int(
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
  )


def _compiler_options(config: Config) -> dict[str, bool] | None:
  """Options for reproducible bits on GPUs; other devices need none.

  XLA then excludes kernels that add in the order in which threads finish, and
  does not choose kernels by timing them.
  """
  if not config.deterministic or jax.default_backend() != 'gpu':
    return None
  return {'xla_gpu_deterministic_ops': True}


def is_state_finite(state: TrainState) -> bool:
  """Whether every number of a state is finite, reduced on the device.

  The metrics of a step do not show a non-finite gradient; those of the next
  step do.
  """
  # One placement for all numbers of devices, so that it is compiled once.
  state = jax.device_put(parallel.first_replica(state), jax.local_devices()[0])
  return bool(_all_finite(state))


@jax.jit
def _all_finite(state: TrainState) -> Array:
  numbers = [
    leaf
    for leaf in jax.tree.leaves(state)
    if jnp.issubdtype(leaf.dtype, jnp.inexact)
  ]
  return jnp.stack([jnp.isfinite(leaf).all() for leaf in numbers]).all()
