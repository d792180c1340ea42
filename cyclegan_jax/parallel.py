"""Data parallelism: the only module with device axes.

N devices match a single device at the same global batch: the state is
replicated, each device holds a slice of the batch, and everything that
depends on the whole batch goes through the functions below. Their
`axis_name` is `AXIS` on several devices and None on one.
"""

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from cyclegan_jax.errors import UserError, one_line
from cyclegan_jax.types import Array, Key

Tree = TypeVar('Tree')

AXIS = 'devices'


def check_devices() -> None:
  """Checks that JAX has a device.

  Raises:
    UserError: it has none, since JAX_PLATFORMS or JAX_PLATFORM_NAME names
      a platform that this machine or this installation of JAX lacks.
  """
  try:
    jax.local_devices()
  except (RuntimeError, AssertionError) as error:
    name, wanted = 'JAX_PLATFORMS', jax.config.jax_platforms  # type: ignore[attr-defined]
    if not wanted:
      name = 'JAX_PLATFORM_NAME'
      wanted = os.environ.get(name)
    raise UserError(
      f'{name}={wanted!r}, but JAX finds no such device '
      f'({one_line(error)}): unset it, or install JAX for that platform'
    ) from error


def data_parallel(
  step: Callable[..., Any], *, num_devices: int | None = None
) -> Callable[..., Any]:
  """Runs `step(state, batch)` on several devices, each on its slice.

  Args:
    step: a pure function (state, batch) -> (state, metrics) that reduces
      over the axis `AXIS`, such as `functools.partial(train_step,
      config=config, axis_name=parallel.AXIS)`.
    num_devices: number of devices; None for all. Several processes have to
      use all of theirs.

  Returns:
    A function of the unstacked state, whose buffers are donated, and a batch
    from `shard_batch`. It returns the unstacked new state and metrics.
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
  """Copies a state to every device, as `data_parallel` returns it.

  Several processes have to pass equal states.
  """
  sharding = _sharding(num_devices)
  if jax.process_count() == 1:
    return jax.device_put(tree, sharding)

  def copy_to_all(x: Array) -> Array:
    copies = [
      jax.device_put(x, device, may_alias=False)
      for device in jax.local_devices()
    ]
    return jax.make_array_from_single_device_arrays(x.shape, sharding, copies)

  return jax.tree.map(copy_to_all, tree)


def _sharding(num_devices: int, *axes: str) -> jax.sharding.NamedSharding:
  mesh = jax.sharding.Mesh(jax.devices()[:num_devices], AXIS)
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))


def unreplicate(tree: Tree) -> Tree:
  """Copies a replicated tree to the first device.

  The copy has buffers of its own, so the next step may take over the tree's,
  and functions of the copy are not compiled again for each number of devices.
  """
  device = jax.local_devices()[0]
  return jax.device_put(first_replica(tree), device, may_alias=False)


def first_replica(tree: Tree) -> Tree:
  """The first local device's part of a replicated tree, without a copy."""
  return jax.tree.map(lambda x: x.addressable_data(0), tree)


def shard_batch(batch: Tree, num_devices: int) -> Tree:
  """Reshapes [B, ...] to [num_devices, B / num_devices, ...].

  Each of several processes passes its own part of the batch, as NumPy arrays.
  """
  num_local = num_devices // jax.process_count()
  shards = jax.tree.map(
    lambda x: x.reshape((num_local, -1, *x.shape[1:])), batch
  )
  if num_local == num_devices:
    return shards
  return jax.tree.map(
    functools.partial(
      jax.make_array_from_process_local_data, _sharding(num_devices, AXIS)
    ),
    shards,
  )


def mean_over(tree: Tree, axis_name: str | None) -> Tree:
  """Mean over devices of each array in the tree."""
  return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def any_over(x: Array, axis_name: str | None) -> Array:
  """Logical or over devices of a bool array."""
  return x if axis_name is None else jax.lax.pmax(x, axis_name)


def gather(x: Array, axis_name: str | None) -> Array:
  """Local batches [B, ...] to the global [N * B, ...], on every device."""
  if axis_name is None:
    return x
  return jax.lax.all_gather(x, axis_name, tiled=True)


def local_slice(x: Array, size: int, axis_name: str | None) -> Array:
  """This device's [size, ...] of a global batch: the inverse of `gather`."""
  if axis_name is None:
    return x
  start = jax.lax.axis_index(axis_name) * size
  return jax.lax.dynamic_slice_in_dim(x, start, size)


def example_keys(key: Key, size: int, axis_name: str | None) -> Key:
  """Keys [size] of the local examples, by their place in the global batch."""
  index = jnp.arange(size)
  if axis_name is not None:
    index += jax.lax.axis_index(axis_name) * size
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
