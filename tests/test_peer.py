"""One step of ours and of the PyTorch peer, from equal states."""

import copy
import functools

import jax
import numpy as np
import optax
import pytest

from cyclegan_jax.config import Config
from cyclegan_jax.state import create_train_state
from cyclegan_jax.step import train_step

torch = pytest.importorskip('torch')
from experiments.peers.torch_cyclegan import CycleGAN, Options  # noqa: E402
from experiments.peers.torch_networks import (  # noqa: E402
  from_torch,
  load_flax,
  to_flax,
  to_torch,
)

pytestmark = pytest.mark.torch

NUM_STEPS = 20
# Pools larger than all fakes, so that no random exchange differs.
KERAS = Config().replace(
  pool_size=100,
  data={'size': 16, 'load_size': 16},
  generator={'filters': 4, 'isize': 16, 'dropout': 0.0},
  discriminator={'filters': 4, 'layers': 1},
)
PAPER = KERAS.replace(
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


def moments(opt_state):
  """Adam's step count and both of its moments."""
  return (
    int(optax.tree.get(opt_state, 'count', filtering=is_adam)),
    optax.tree.get(opt_state, 'mu'),
    optax.tree.get(opt_state, 'nu'),
  )


def is_adam(path, _):
  return 'ScaleByAdamState' in str(path[-1])


def load_state(peer, state):
  """Copies networks, Adam's moments and pools of ours into the peer."""
  for side in ('gen', 'disc'):
    nets, optimizer = getattr(peer, side), getattr(peer, f'{side}_opt')
    count, *both = moments(getattr(state, f'{side}_opt'))
    for name, net in nets.items():
      load_flax(net, getattr(state, side)[name])
      holders = [copy.deepcopy(net) for _ in both]
      for holder, moment in zip(holders, both, strict=True):
        load_flax(holder, moment[name])
      for weight, first, second in zip(
        net.parameters(), *(each.parameters() for each in holders), strict=True
      ):
        optimizer.state[weight] = {
          'step': torch.tensor(float(count)),
          'exp_avg': first.detach(),
          'exp_avg_sq': second.detach(),
        }
  for domain, pool in state.pools.items():
    if int(pool.count):
      stored = np.asarray(pool.images)[: int(pool.count)]
      peer.pools[domain]._images = list(to_torch(stored))


def moments_of_peer(net, optimizer):
  """Adam's moments of a network, in our layout."""
  for name in ('exp_avg', 'exp_avg_sq'):
    holder = copy.deepcopy(net)
    with torch.no_grad():
      for weight, held in zip(
        net.parameters(), holder.parameters(), strict=True
      ):
        held.copy_(optimizer.state[weight][name])
    yield to_flax(holder)


def assert_close(ours, theirs, tolerance):
  """Checks arrays up to a share of the network's largest value.

  Not of each layer's: a bias before a norm has no gradient but rounding.
  """
  scale = max(np.max(np.abs(leaf)) for leaf in jax.tree.leaves(ours))
  for path, leaf in jax.tree.leaves_with_path(ours):
    other = functools.reduce(lambda tree, key: tree[key.key], path, theirs)
    assert np.max(np.abs(leaf - other)) <= tolerance * scale, path


@pytest.mark.parametrize(
  'config, options',
  [
    (KERAS, Options()),
    (PAPER, Options()),
    (PAPER, Options(paired=True, fused_adam=True)),
  ],
  ids=['keras', 'paper', 'paper tuned'],
)
def test_steps_from_equal_states_agree(config, options):
  """Left alone, both would part: rounding decides at the kinks of ReLUs."""
  torch.manual_seed(0)
  state = create_train_state(config, jax.random.key(0))
  peer = CycleGAN(config, options, state=state)
  rng = np.random.default_rng(0)
  shape = (config.batch_size, 16, 16, 3)
  for _ in range(NUM_STEPS):
    load_state(peer, state)
    batch = {
      domain: rng.uniform(-1, 1, shape).astype(np.float32) for domain in 'ab'
    }
    before = state
    state, metrics = train_step(state, batch, config=config)
    losses = peer.step(to_torch(batch['a']), to_torch(batch['b']))
    assert set(metrics) - {'learning_rate'} == set(losses)
    for name, loss in losses.items():
      np.testing.assert_allclose(
        float(loss), float(metrics[name]), rtol=1e-4, err_msg=name
      )
    for side in ('gen', 'disc'):
      _, *both = moments(getattr(state, f'{side}_opt'))
      optimizer = getattr(peer, f'{side}_opt')
      for name, net in getattr(peer, side).items():
        theirs = moments_of_peer(net, optimizer)
        for ours, other in zip(both, theirs, strict=True):
          assert_close(ours[name], other, 1e-2)
        # Where a gradient is rounding alone, Adam makes a whole step of it:
        # biases before norms may differ, and single weights.
        steps, other_steps = (
          jax.tree.map(np.subtract, after, getattr(before, side)[name])
          for after in (getattr(state, side)[name], to_flax(net))
        )
        difference, size = (
          np.mean(
            np.concatenate([np.ravel(np.abs(x)) for x in arrays if x.ndim > 1])
          )
          for arrays in (
            jax.tree.leaves(jax.tree.map(np.subtract, steps, other_steps)),
            jax.tree.leaves(steps),
          )
        )
        assert difference < 0.01 * size
    for domain, pool in state.pools.items():
      stored = torch.stack(peer.pools[domain]._images)
      np.testing.assert_allclose(
        pool.images[: int(pool.count)], from_torch(stored), atol=1e-5
      )


def test_the_pool_fills_and_then_exchanges():
  from experiments.peers.torch_cyclegan import Pool

  pool = Pool(2)
  first = torch.arange(2.0).reshape(2, 1, 1, 1)
  assert pool.query(first).flatten().tolist() == [0, 1]
  seen = [pool.query(torch.full((1, 1, 1, 1), 2.0)) for _ in range(50)]
  assert {float(each) for each in seen} == {0, 1, 2}
