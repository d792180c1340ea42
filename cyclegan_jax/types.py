"""Names for what the functions pass around."""

from typing import Any

import jax
import optax

Array = jax.Array
Key = jax.Array  # a typed key of jax.random.key
Params = Any  # a nested dict of arrays
OptState = optax.OptState
# {'a': [B, H, W, Ca], 'b': [B, H, W, Cb]}; with pairs also 'is_pair': bool [B]
Batch = dict[str, Array]
Metrics = dict[str, Array]  # float32 scalars by name
