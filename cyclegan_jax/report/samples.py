"""Sample images of a run: fixed test images and their translations."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from cyclegan_jax.config import Config, DataConfig
from cyclegan_jax.images import to_float
from cyclegan_jax.inference import make_translator
from cyclegan_jax.report.sheet import draw_sheet
from cyclegan_jax.types import Params

# Standard deviation of noise that is invisible: two of 255 levels, for images
# in [-1, 1].
NOISE = 2 * 2 / 255


class Translations(NamedTuple):
  """Images of one domain, float32 [N, H, W, C] in [-1, 1]."""

  real: np.ndarray
  fake: np.ndarray  # translations of `real`, with the other domain's channels
  back: np.ndarray  # translations of `fake`
  identity: np.ndarray | None = None  # `real` through the generator of `back`
  noisy_back: np.ndarray | None = None  # translations of `fake` plus noise


def translate_samples(
  config: Config, gen: dict[str, Params], reals: Mapping[str, np.ndarray]
) -> dict[str, Translations]:
  """Translates test images to the other domain and back, on one device.

  Args:
    config: config of the run; `diagnostics.enabled` adds `noisy_back`.
    gen: parameters of the generators 'ab' and 'ba'.
    reals: {'a', 'b'}: uint8 or float32 [N, H, W, C] test images.

  Returns:
    Translations by direction, 'ab' and 'ba'.
  """
  # Always on the same device, so that nothing is compiled again.
  gen = jax.device_put(gen, jax.local_devices()[0])
  translators = {
    direction: make_translator(config, gen, direction, key=jax.random.key(0))
    for direction in ('ab', 'ba')
  }
  has_identity = config.channels('a') == config.channels('b')
  samples = {}
  for direction, translate in translators.items():
    translate_back = translators[direction[::-1]]
    real = to_float(reals[direction[0]])
    fake = np.asarray(translate(real))
    noisy_back = None
    if config.diagnostics.enabled:
      noise = np.random.default_rng(0).normal(0, NOISE, fake.shape)
      noisy = np.clip(fake + noise, -1, 1).astype(fake.dtype)
      noisy_back = np.asarray(translate_back(noisy))
    samples[direction] = Translations(
      real=real,
      fake=fake,
      back=np.asarray(translate_back(fake)),
      identity=np.asarray(translate_back(real)) if has_identity else None,
      noisy_back=noisy_back,
    )
  return samples


def draw_samples(
  samples: Mapping[str, Translations], data: DataConfig
) -> Image.Image:
  """Draws a sheet of real images, translations, reconstructions, identities.

  Args:
    samples: translations by direction, 'ab' and 'ba'.
    data: config of the images, for their names.

  Returns:
    An RGB image with a to b on the left and b to a on the right.
  """
  blocks = []
  for direction, images in samples.items():
    # Pillow's font has no other characters than those of ASCII.
    source, target = (
      name if (name := data.name_of(domain)).isascii() else domain
      for domain in direction
    )
    block = {
      f'real {source}': images.real,
      f'{source} to {target}': images.fake,
      'back again': images.back,
    }
    if images.identity is not None:
      block['identity'] = images.identity
    blocks.append(block)
  return draw_sheet(blocks)
