"""What the translators make of fixed test images, and the sheet of it."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from cyclegan_jax.config import Config
from cyclegan_jax.images import to_float
from cyclegan_jax.inference import make_translator
from cyclegan_jax.report.sheet import draw_sheet
from cyclegan_jax.types import Array, Params

# Standard deviation, in the units of [-1, 1]: two of 255 levels, no eye sees
# it in a picture.
NOISE = 2 * 2 / 255


class Translations(NamedTuple):
  """Test images of one side, float32 [N, H, W, C] in [-1, 1]."""

  real: np.ndarray
  fake: np.ndarray  # forth; of the other side's channels
  back: np.ndarray  # of the fakes
  identity: np.ndarray | None = None  # what the way back makes of the real
  noisy_back: np.ndarray | None = None  # back of the fakes with NOISE


def translate_samples(
  config: Config, gen: dict[str, Params], reals: Mapping[str, np.ndarray]
) -> dict[str, Translations]:
  """Test images there and back again, on one device.

  Args:
    config: of the run; `diagnostics.enabled` asks for `noisy_back`.
    gen: the generators 'ab' and 'ba'.
    reals: {'a', 'b'}: uint8 [N, H, W, C] test images.

  Returns:
    By direction, 'ab' and 'ba'.
  """
  # Wherever training has put them, of one kind: compiled once for a run.
  gen = jax.device_put(gen, jax.local_devices()[0])
  key = jax.random.key(0)
  translators = {
    direction: make_translator(config, gen, direction, key=key)
    for direction in ('ab', 'ba')
  }
  return {
    direction: there_and_back(
      translators[direction],
      translators[direction[::-1]],
      to_float(reals[direction[0]]),
      has_identity=config.channels('a') == config.channels('b'),
      has_noise=config.diagnostics.enabled,
    )
    for direction in ('ab', 'ba')
  }


def there_and_back(
  forth: Callable[[ArrayLike], Array],
  back: Callable[[ArrayLike], Array],
  real: np.ndarray,
  *,
  has_identity: bool,
  has_noise: bool,
) -> Translations:
  """Translates images of one side to the other and back again.

  Args:
    forth: translates [N, H, W, C] in [-1, 1] to [N, H, W, C'].
    back: translates them back.
    real: [N, H, W, C] in [-1, 1].
    has_identity: whether `back` takes the real images too.
    has_noise: whether `back` takes the fakes with `NOISE` too; the same noise
      each time.
  """
  fake = np.asarray(forth(real))
  noisy_back = None
  if has_noise:
    noise = np.random.default_rng(0).normal(0, NOISE, fake.shape)
    # A picture on a disk has no values beyond white either.
    noisy = np.clip(fake + noise, -1, 1).astype(fake.dtype)
    noisy_back = np.asarray(back(noisy))
  return Translations(
    real=real,
    fake=fake,
    back=np.asarray(back(fake)),
    identity=np.asarray(back(real)) if has_identity else None,
    noisy_back=noisy_back,
  )


def draw_samples(samples: Mapping[str, Translations]) -> np.ndarray:
  """A sheet of real, translated, back again and, if there, identity.

  Args:
    samples: by direction, 'ab' and 'ba'.

  Returns:
    uint8 [h, w, 3]: on the left from a to b, on the right from b to a.
  """
  blocks = []
  for direction, made in samples.items():
    source, target = tuple(direction)
    block = {
      f'real {source}': made.real,
      f'{source} → {target}': made.fake,
      'back again': made.back,
    }
    if made.identity is not None:
      block['identity'] = made.identity
    blocks.append(block)
  return draw_sheet(blocks)
