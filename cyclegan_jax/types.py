"""Types of the arguments and results of the algorithm."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

Array = jax.Array
Key = jax.Array  # a typed key of jax.random.key
Params = Any  # a nested dict of arrays
OptState = optax.OptState
# {'a': [B, H, W, Ca], 'b': [B, H, W, Cb]}; with pairs also 'is_pair': bool [B]
Batch = dict[str, Array]
Metrics = dict[str, Array]  # float32 scalars by name


def is_key(x: Any) -> bool:
  """Whether an array, or its abstract shape, is of typed PRNG keys."""
  return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
