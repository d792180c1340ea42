"""The compiled step does no work twice: XLA's count beside the least."""

import jax
import numpy as np
import pytest

from cyclegan_jax.config import Config
from cyclegan_jax.state import create_train_state
from cyclegan_jax.step import train_step

# A size whose maps in the blocks are odd, 15 x 15: for even ones the weight
# gradients on CPUs take fewer products than are counted here.
SIZE, FILTERS, BLOCKS = 60, 16, 3


def resnet_layers():
  """(multiply-adds, of which in the first layer) of a forward pass."""
  f, pixels = FILTERS, SIZE**2
  first = 49 * 3 * f * pixels
  down = 9 * (f * 2 * f / 4 + 2 * f * 4 * f / 16) * pixels
  blocks = BLOCKS * 2 * 9 * (4 * f) ** 2 / 16 * pixels
  # Transposed: a multiply-add for each input pixel and place in the kernel.
  up = 9 * (4 * f * 2 * f / 16 + 2 * f * f / 4) * pixels
  return first + down + blocks + up + 49 * f * 3 * pixels, first


def patchgan_layers():
  f, total, side, channels = FILTERS, 0, SIZE, 3
  for level in range(4):
    side = side // 2 if level < 3 else side - 1
    features = min(2**level, 8) * f
    total += 16 * channels * features * side**2
    channels = features
  first = 16 * 3 * f * (SIZE // 2) ** 2
  return total + 16 * channels * (side - 1) ** 2, first


@pytest.mark.slow
@pytest.mark.parametrize('identity', [0.0, 5.0])
def test_no_work_is_done_twice(identity):
  common = {'filters': FILTERS, 'norm': 'instance', 'affine': False}
  config = Config().replace(
    batch_size=1,
    data={'size': SIZE, 'load_size': SIZE},
    generator={
      **common,
      'name': 'resnet',
      'blocks': BLOCKS,
      'padding': 'reflect',
      'dropout': 0.0,
    },
    discriminator={**common, 'name': 'patchgan'},
    loss={
      'adversarial': 'lsgan',
      'identity_a': identity,
      'identity_b': identity,
    },
  )
  state = create_train_state(config, jax.random.key(0))
  image = np.zeros((1, SIZE, SIZE, 3), np.float32)
  compiled = train_step.lower(
    state, {'a': image, 'b': image}, config=config
  ).compile()

  (gen, gen_first), (disc, disc_first) = resnet_layers(), patchgan_layers()
  # A forward and two gradients: in the weights, and in the input, which the
  # first layer has for fakes alone. Discriminators: two fakes to the images,
  # then two pairs of real and fake to the weights.
  passes = 6 if identity else 4
  least = 3 * passes * gen - (passes - 2) * gen_first
  least += 2 * 2 * disc + 4 * (3 * disc - disc_first)
  ratio = compiled.cost_analysis()['flops'] / (2 * least)
  # Beside the convolutions there are norms, losses and optimizers.
  assert 0.95 < ratio <= 1.05
