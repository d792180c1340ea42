"""The PyTorch peer does what we do: step by step, loss by loss."""

import jax
import numpy as np
import pytest

from cyclegan_jax.config import Config
from cyclegan_jax.state import create_train_state
from cyclegan_jax.step import train_step

torch = pytest.importorskip('torch')
from experiments.peers.torch_cyclegan import CycleGAN, Options  # noqa: E402
from experiments.peers.torch_networks import to_torch  # noqa: E402

pytestmark = pytest.mark.torch

NUM_STEPS = 20
SEED = Config().replace(
  data={'size': 16, 'load_size': 16},
  generator={'filters': 4, 'isize': 16, 'dropout': 0.0},
  discriminator={'filters': 4, 'layers': 1},
  # Low: of so few units one at the kink of a ReLU is seen in the losses, where
  # rounding decides it and Adam makes a step of it.
  optimizer={'learning_rate': 2e-5},
)
PAPER = SEED.replace(
  batch_size=1,
  generator={
    'name': 'resnet',
    'blocks': 2,
    'norm': 'instance',
    'affine': False,
    'padding': 'reflect',
  },
  discriminator={'name': 'patchgan', 'norm': 'instance', 'affine': False},
  loss={
    'adversarial': 'lsgan',
    'identity_a': 5.0,
    'identity_b': 5.0,
    'discriminator': 0.5,
  },
)


@pytest.mark.parametrize(
  'config, options',
  [
    (SEED, Options()),
    (PAPER, Options()),
    (PAPER, Options(paired=True, fused_adam=True)),
  ],
  ids=['seed', 'paper', 'paper tuned'],
)
def test_losses_of_both_sides_agree(config, options):
  torch.manual_seed(0)
  state = create_train_state(config, jax.random.key(0))
  peer = CycleGAN(config, options, state=state)
  rng = np.random.default_rng(0)
  shape = (config.batch_size, 16, 16, 3)
  for _ in range(NUM_STEPS):
    batch = {
      domain: rng.uniform(-1, 1, shape).astype(np.float32) for domain in 'ab'
    }
    state, metrics = train_step(state, batch, config=config)
    theirs = peer.step(to_torch(batch['a']), to_torch(batch['b']))
    assert set(metrics) - {'learning_rate'} == set(theirs)
    for name, loss in theirs.items():
      np.testing.assert_allclose(
        float(loss), float(metrics[name]), rtol=1e-3, err_msg=name
      )


def test_the_pool_fills_and_then_exchanges():
  from experiments.peers.torch_cyclegan import Pool

  pool = Pool(2)
  first = torch.arange(2.0).reshape(2, 1, 1, 1)
  assert pool.query(first).flatten().tolist() == [0, 1]
  seen = [pool.query(torch.full((1, 1, 1, 1), 2.0)) for _ in range(50)]
  assert {float(each) for each in seen} == {0, 1, 2}
