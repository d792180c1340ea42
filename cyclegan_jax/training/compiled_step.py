"""The compiled program that the loop runs at every step."""

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


class Outcome(NamedTuple):
  """What a step comes to."""

  state: TrainState
  metrics: Metrics
  is_finite: Array  # bool scalar: every metric is a finite number
  is_stopped: Array  # bool scalar: a process was told to stop


class CompiledUpdate(NamedTuple):
  """One step on raw images, and what it takes."""

  place: Callable[[TrainState], TrainState]  # to where `run` takes it from
  run: Callable[..., Outcome]
  metric_names: tuple[str, ...]
  num_bytes: int | None  # of memory on each device, by XLA's count


def compile_update(config: Config, state: TrainState) -> CompiledUpdate:
  """Compiles crop, flip and `train_step` into one program.

  Compiled ahead, so that it is done once: called in the usual way, several
  devices would have it compiled again when the state comes back replicated.

  Args:
    config: resolved: with the number of devices.
    state: of the shapes to compile for.

  Returns:
    A function (state, batch as `TrainBatches` gives it, is_stopped=False)
    -> Outcome that takes over the state's memory. Each of several processes
    gives its share of the images, and whether it was told to stop.
  """
  num_devices = config.num_devices
  axis_name = parallel.AXIS if num_devices > 1 else None

  def update(state: TrainState, given: tuple[Batch, Array]) -> Outcome:
    raw, is_stopped = given
    key = augment_key(state.key, state.step)
    batch = augment(raw, key, config.data, axis_name=axis_name)
    state, metrics = train_step(
      state, batch, config=config, axis_name=axis_name
    )
    # Here, so that the loop fetches one bool a step instead of ten numbers.
    is_finite = jnp.isfinite(jnp.stack(list(metrics.values()))).all()
    is_stopped = parallel.any_over(is_stopped.any(), axis_name)
    return Outcome(state, metrics, is_finite, is_stopped)

  raw: RawBatch = {
    domain: np.zeros(
      (
        config.batch_size // processes.count(),
        *raw_size(config.data),
        config.channels(domain),
      ),
      raw_dtype(config.data, domain),
    )
    for domain in 'ab'
  }
  if config.loss.paired_weight:
    raw['is_pair'] = np.zeros(len(raw['a']), bool)

  def place(state: TrainState) -> TrainState:
    if num_devices == 1:
      return state
    return parallel.replicate(state, num_devices)

  program: Any
  if num_devices == 1:
    program = jax.jit(update, donate_argnums=0)
  else:
    program = parallel.data_parallel(update, num_devices=num_devices)

  def cut(raw: RawBatch, is_stopped: bool) -> Any:
    # A device has a flag of its own.
    given = raw, np.full(num_devices // processes.count(), is_stopped)
    if num_devices == 1:
      return given
    return parallel.shard_batch(given, num_devices)

  lowered = program.lower(place(state), cut(raw, is_stopped=False))
  tree = lowered.out_tree
  names = jax.tree.unflatten(tree, range(tree.num_leaves)).metrics
  compiled = lowered.compile(_compiler_options(config))

  def run(
    state: TrainState, raw: RawBatch, is_stopped: bool = False
  ) -> Outcome:
    outcome = compiled(state, cut(raw, is_stopped))
    # What is read of it is here, though the state may be in many processes.
    told = (
      parallel.first_replica(outcome[1:]) if num_devices > 1 else outcome[1:]
    )
    return Outcome(outcome.state, *told)

  memory = compiled.memory_analysis()
  if memory is None:
    return CompiledUpdate(place, run, tuple(names), None)
  # Outputs that take over an input's memory are counted twice.
  num_bytes = (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
  )
  return CompiledUpdate(place, run, tuple(names), num_bytes)


def is_finite(state: TrainState) -> bool:
  """Whether every number of a state is finite; it waits for all of them.

  A gradient that is not finite shows here, and in the loss of the next step.
  """
  return all(
    bool(np.isfinite(leaf).all())
    for leaf in jax.tree.leaves(state)
    if jnp.issubdtype(leaf.dtype, jnp.inexact)
  )


def _compiler_options(config: Config) -> dict[str, bool] | None:
  """CPUs and TPUs give the same bits anyway; GPUs have faster ways that don't.

  XLA then leaves out kernels that add in the order in which threads finish,
  and doesn't choose kernels by how fast they happen to be.
  """
  if not config.deterministic or jax.default_backend() != 'gpu':
    return None
  return {'xla_gpu_deterministic_ops': True}
