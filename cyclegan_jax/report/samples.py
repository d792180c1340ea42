"""Sample sheets: what the translators make of fixed test images."""

from collections.abc import Mapping

import jax
import numpy as np

from cyclegan_jax import images
from cyclegan_jax.config import Config
from cyclegan_jax.inference import make_translator
from cyclegan_jax.types import Params


def make_samples(
  config: Config, gen: dict[str, Params], reals: Mapping[str, np.ndarray]
) -> np.ndarray:
  """A sheet of real, translated, back again and, of equal channels, identity.

  Args:
    config: of the run.
    gen: the generators 'ab' and 'ba'.
    reals: {'a', 'b'}: uint8 [N, H, W, C] test images.

  Returns:
    uint8 [h, w, 3]: on the left from a to b, on the right from b to a.
  """
  key = jax.random.key(0)
  translators = {
    direction: make_translator(config, gen, direction, key=key)
    for direction in ('ab', 'ba')
  }
  blocks = []
  for source, target in (('a', 'b'), ('b', 'a')):
    forth, back = translators[source + target], translators[target + source]
    real = images.to_float(reals[source])
    fake = forth(real)
    block = {
      f'real {source}': real,
      f'{source} → {target}': np.asarray(fake),
      'back again': np.asarray(back(fake)),
    }
    if config.channels('a') == config.channels('b'):
      block['identity'] = np.asarray(back(real))
    blocks.append(block)
  return images.sheet(blocks)
