"""Data parallelism: the only place that knows of devices.

N devices give what one device gives at the same global batch: the state is
replicated, each device holds a slice of the batch, and whatever depends on
the whole batch goes through the functions below.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from cyclegan_jax.types import Array, Key

Tree = TypeVar('Tree')

AXIS = 'devices'


def data_parallel(
  step: Callable[..., Any], *, num_devices: int | None = None
) -> Callable[..., Any]:
  """Runs `step(state, batch)` on several devices, each on its slice.

  Args:
    step: a pure function (state, batch) -> (state, metrics) that reduces
      over the axis `parallel.AXIS`, such as `functools.partial(train_step,
      config=config, axis_name=parallel.AXIS)`.
    num_devices: how many to use; None for all. Of several processes all.

  Returns:
    A function of the unstacked state, whose memory it takes over, and of a
    batch from `shard_batch`; it returns the unstacked new state and metrics.
  """
  return jax.pmap(
    step,
    axis_name=AXIS,
    in_axes=(None, 0),
    out_axes=None,
    donate_argnums=0,
    devices=jax.devices()[:num_devices],
  )


def replicate(tree: Tree, num_devices: int) -> Tree:
  """Puts a state where `data_parallel` has it: whole, on every device.

  In each of several processes it has to be the same.
  """
  everywhere = _sharding(num_devices)
  if jax.process_count() == 1:
    return jax.device_put(tree, everywhere)

  def put(x: Array) -> Array:
    copies = [
      jax.device_put(x, each, may_alias=False) for each in jax.local_devices()
    ]
    return jax.make_array_from_single_device_arrays(x.shape, everywhere, copies)

  return jax.tree.map(put, tree)


def _sharding(num_devices: int, *axes: str) -> jax.sharding.NamedSharding:
  mesh = jax.sharding.Mesh(jax.devices()[:num_devices], AXIS)
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))


def unreplicate(tree: Tree) -> Tree:
  """A copy on the first device of what all devices have, as its own arrays.

  So another step may take over the memory of the tree, and what works on the
  copy is not compiled again for each number of devices.
  """
  device = jax.local_devices()[0]
  return jax.device_put(first_of(tree), device, may_alias=False)


def first_of(tree: Tree) -> Tree:
  """What the first device has of what all devices have, where it is."""
  return jax.tree.map(lambda x: x.addressable_data(0), tree)


def shard_batch(batch: Tree, num_devices: int) -> Tree:
  """Cuts [B, ...] into [num_devices, B / num_devices, ...].

  Each of several processes gives its share of the batch.
  """
  num_local = num_devices // jax.process_count()
  cut = jax.tree.map(lambda x: x.reshape((num_local, -1, *x.shape[1:])), batch)
  if num_local == num_devices:
    return cut
  sharding = _sharding(num_devices, AXIS)

  def put(x: Array) -> Array:
    slices = [
      jax.device_put(x[each : each + 1], device)
      for each, device in enumerate(jax.local_devices())
    ]
    shape = (num_devices, *x.shape[1:])
    return jax.make_array_from_single_device_arrays(shape, sharding, slices)

  return jax.tree.map(put, cut)


def mean_over(tree: Tree, axis_name: str | None) -> Tree:
  """The mean over devices of every array in the tree."""
  return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def any_over(x: Array, axis_name: str | None) -> Array:
  """Whether a bool holds on any device."""
  return x if axis_name is None else jax.lax.pmax(x, axis_name)


def gather(x: Array, axis_name: str | None) -> Array:
  """The global batch [N * B, ...] of a local one, on every device."""
  if axis_name is None:
    return x
  return jax.lax.all_gather(x, axis_name, tiled=True)


def local_slice(x: Array, size: int, axis_name: str | None) -> Array:
  """This device's [size, ...] of a global batch: the reverse of gather."""
  if axis_name is None:
    return x
  start = jax.lax.axis_index(axis_name) * size
  return jax.lax.dynamic_slice_in_dim(x, start, size)


def example_keys(key: Key, size: int, axis_name: str | None) -> Key:
  """A key for each local example, by its place in the global batch."""
  index = jnp.arange(size)
  if axis_name is not None:
    index += jax.lax.axis_index(axis_name) * size
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
