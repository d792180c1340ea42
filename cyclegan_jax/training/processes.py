"""Several processes that train one run, such as one per machine.

Each process has its own devices and reads its share of every batch. Only the
first writes the run's folder, and it sends the others what they need from it.
If one process dies, JAX ends the others.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from cyclegan_jax.config import DistributedConfig
from cyclegan_jax.errors import ConfigError
from cyclegan_jax.types import is_key

Tree = TypeVar('Tree')

_OLDEST_JAX = (0, 10)  # the first whose pmap takes arrays of all processes


@contextlib.contextmanager
def joined(config: DistributedConfig) -> Iterator[None]:
  """Connects to the other processes, and disconnects at the end.

  Raises:
    ConfigError: they cannot be reached, or JAX is too old.
  """
  if not config.initialize or jax.distributed.is_initialized():
    yield
    return
  if jax.__version_info__ < _OLDEST_JAX:
    raise ConfigError(
      'config.distributed.initialize: several processes need JAX 0.10 or '
      f'newer, and this is {jax.__version__}: upgrade jax'
    )
  # It would handle SIGTERM; here the loop makes the processes agree.
  jax.config.update('jax_enable_preemption_service', False)
  try:
    jax.distributed.initialize(
      config.coordinator_address or None,
      config.num_processes or None,
      config.process_id if config.process_id >= 0 else None,
    )
  except (ValueError, RuntimeError) as error:
    raise ConfigError(
      f'the other processes cannot be reached ({error}): if JAX cannot find '
      'them through the cluster, set config.distributed.coordinator_address, '
      'num_processes and process_id'
    ) from error
  yield
  # Only without an error: it waits for the other processes.
  jax.distributed.shutdown()


def count() -> int:
  """Number of processes of the run."""
  return jax.process_count()


def index() -> int:
  """Index of this process, from 0."""
  return jax.process_index()


def is_first() -> bool:
  """Whether this process writes the run's folder."""
  return index() == 0


def from_first(make: Callable[[], Any]) -> Any:
  """Calls a function in the first process, and returns its result in all.

  Args:
    make: returns a value that JSON can represent.
  """
  if count() == 1:
    return make()
  text = json.dumps(make()).encode() if is_first() else b''
  size = multihost_utils.broadcast_one_to_all(np.int32(len(text)))
  padded = np.frombuffer(text.ljust(int(size)), np.uint8)
  return json.loads(multihost_utils.broadcast_one_to_all(padded).tobytes())


def tree_from_first(make: Callable[[], Tree], like: Tree) -> Tree:
  """Computes arrays in the first process, and returns them in all.

  Args:
    make: returns a tree of arrays.
    like: the same tree, with shapes and dtypes.
  """
  if count() == 1:
    return make()

  def as_data(x: Any) -> Any:
    return jax.random.key_data(x) if is_key(x) else x

  if is_first():
    data = jax.tree.map(as_data, make())
  else:
    shapes = jax.eval_shape(lambda tree: jax.tree.map(as_data, tree), like)
    data = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  data = multihost_utils.broadcast_one_to_all(data)
  return jax.tree.map(
    lambda x, kind: (
      jax.random.wrap_key_data(x) if is_key(kind) else jnp.asarray(x)
    ),
    data,
    like,
  )
