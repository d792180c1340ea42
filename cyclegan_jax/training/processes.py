"""Several processes of one run, such as one on each machine of a cluster.

Each has devices of its own, and reads its share of every batch. The first
alone writes the run's folder, and tells the others what they must know of it.
One that dies takes the others with it: JAX ends them.
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

Tree = TypeVar('Tree')

_OLDEST = (0, 10)  # whose pmap takes arrays that lie in several processes


@contextlib.contextmanager
def joined(config: DistributedConfig) -> Iterator[None]:
  """Finds the other processes, if there are to be some; leaves together.

  Raises:
    ConfigError: they can't be found, or JAX is too old for several.
  """
  if not config.initialize or jax.distributed.is_initialized():
    yield
    return
  if jax.__version_info__ < _OLDEST:
    raise ConfigError(
      'config.distributed.initialize: several processes need JAX 0.10 or '
      f'newer, and this is {jax.__version__}: upgrade jax'
    )
  # It would take SIGTERM from us; the loop has the processes agree by itself.
  jax.config.update('jax_enable_preemption_service', False)
  try:
    jax.distributed.initialize(
      config.coordinator_address or None,
      config.num_processes or None,
      config.process_id if config.process_id >= 0 else None,
    )
  except (ValueError, RuntimeError) as error:
    raise ConfigError(
      f'the other processes can not be found ({error}): where the cluster does '
      'not tell JAX of them, set config.distributed.coordinator_address, '
      'num_processes and process_id'
    ) from error
  yield
  # Where all went well: it waits until the others have come here too.
  jax.distributed.shutdown()


def count() -> int:
  """How many processes the run has."""
  return jax.process_count()


def index() -> int:
  """Which of them this is."""
  return jax.process_index()


def is_first() -> bool:
  """Whether this process writes the run's folder."""
  return index() == 0


def from_first(make: Callable[[], Any]) -> Any:
  """What a function gives in the first process, which alone calls it.

  Args:
    make: gives what JSON takes.
  """
  if count() == 1:
    return make()
  text = json.dumps(make()).encode() if is_first() else b''
  size = multihost_utils.broadcast_one_to_all(np.int32(len(text)))
  padded = np.frombuffer(text.ljust(int(size)), np.uint8)
  return json.loads(multihost_utils.broadcast_one_to_all(padded).tobytes())


def tree_from_first(make: Callable[[], Tree], like: Tree) -> Tree:
  """Arrays from the first process, which alone makes them.

  Args:
    make: gives the arrays.
    like: their tree, with shapes and types.
  """
  if count() == 1:
    return make()

  def is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)

  def as_data(x: Any) -> Any:
    return jax.random.key_data(x) if is_key(x) else x

  if is_first():
    data = jax.tree.map(as_data, make())
  else:
    shapes = jax.eval_shape(lambda tree: jax.tree.map(as_data, tree), like)
    data = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  data = multihost_utils.broadcast_one_to_all(data)
  return jax.tree.map(
    lambda x, kind: jax.random.wrap_key_data(x) if is_key(kind) else x,
    data,
    like,
  )
