"""The algorithm of `train_step`, piece by piece."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cyclegan_jax as cg
from cyclegan_jax import losses, step
from cyclegan_jax.inference import translate
from cyclegan_jax.nets import is_per_example
from cyclegan_jax.optimizers import make_optimizer
from cyclegan_jax.pool import query_pool
from cyclegan_jax.state import abstract_train_state


@pytest.fixture(scope='module')
def config():
  return cg.Config().replace(
    batch_size=2,
    pool_size=3,
    ema_decay=0.75,
    data={'size': 8, 'load_size': 8},
    generator={'filters': 2, 'isize': 4, 'fixed_input_size': False},
    discriminator={'filters': 2, 'layers': 1},
    loss={'identity_a': 2.0, 'identity_b': 3.0, 'cycle_a': 7.0},
    optimizer={'learning_rate': 1e-3, 'disc_learning_rate_ratio': 2.0},
  )


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(0)
  return {
    domain: jnp.asarray(rng.uniform(-1, 1, (2, 8, 8, 3)), jnp.float32)
    for domain in 'ab'
  }


@pytest.fixture(scope='module')
def before(config):
  return cg.create_train_state(config, jax.random.key(0))


@pytest.fixture(scope='module')
def after(config, before, batch):
  return cg.train_step(before, batch, config=config)


def generator_loss(config, *arguments):
  """(loss, (fakes, metrics)), compiled: one by one, operations take longer."""
  return jax.jit(functools.partial(step.generator_loss, config=config))(
    *arguments
  )


def gradient(loss, config, *arguments):
  function = functools.partial(loss, config=config)
  return jax.jit(jax.grad(function, has_aux=True))(*arguments)


def max_difference(one, other):
  return max(
    jax.tree.leaves(
      jax.tree.map(lambda x, y: float(jnp.max(jnp.abs(x - y))), one, other)
    )
  )


def test_step_equals_its_parts_written_out(config, before, batch, after):
  """The order of work of the contract, with nothing shared but the losses."""
  key = jax.random.fold_in(before.key, before.step)
  gen_key, pool_key, disc_key = jax.random.split(key, 3)
  gen_grads, (fakes, _) = gradient(
    step.generator_loss, config, before.gen, before.disc, batch, gen_key
  )
  updates, _ = make_optimizer(config, side='gen').update(
    gen_grads, before.gen_opt, before.gen
  )
  gen = optax.apply_updates(before.gen, updates)
  shown = {}
  for domain, domain_key in zip('ab', jax.random.split(pool_key), strict=True):
    _, shown[domain] = query_pool(
      before.pools[domain], domain_key, fakes[domain]
    )
  disc_grads, _ = gradient(
    step.discriminator_loss, config, before.disc, batch, shown, disc_key
  )
  updates, _ = make_optimizer(config, side='disc').update(
    disc_grads, before.disc_opt, before.disc
  )
  disc = optax.apply_updates(before.disc, updates)
  state, _ = after
  assert int(state.step) == 1
  # Adam's first step is the sign of the gradient: rounding can turn it only
  # where the gradient is next to nothing.
  assert max_difference(state.gen, gen) < 1e-4
  assert max_difference(state.disc, disc) < 1e-4
  # The pool took the fakes that were made before the update.
  np.testing.assert_allclose(state.pools['b'].images[:2], fakes['b'], atol=1e-6)


def test_both_sides_move_by_their_own_rate(before, after):
  state, metrics = after
  assert max_difference(state.gen, before.gen) == pytest.approx(1e-3, rel=0.01)
  assert max_difference(state.disc, before.disc) == pytest.approx(
    2e-3, rel=0.01
  )
  assert float(metrics['learning_rate']) == pytest.approx(1e-3)


def test_generator_loss_is_the_weighted_sum_of_its_terms(after):
  _, metrics = after
  terms = {name.split('/')[-1]: float(x) for name, x in metrics.items()}
  expected = (
    terms['adversarial_ab']
    + terms['adversarial_ba']
    + 7 * terms['cycle_a']
    + 10 * terms['cycle_b']
    + 2 * terms['identity_a']
    + 3 * terms['identity_b']
  )
  assert float(metrics['generator/loss']) == pytest.approx(expected, rel=1e-5)


def test_generator_loss_by_hand(config, before, batch):
  """Each term recomputed with networks called here, dropout switched off."""
  config = config.replace(generator={'dropout': 0.0})
  _, (fakes, metrics) = generator_loss(
    config, before.gen, before.disc, batch, jax.random.key(1)
  )
  key = jax.random.key(2)
  apply = {
    direction: jax.jit(
      functools.partial(
        translate, config, before.gen[direction], direction, key=key
      )
    )
    for direction in ('ab', 'ba')
  }
  np.testing.assert_allclose(fakes['b'], apply['ab'](batch['a']), atol=1e-6)
  np.testing.assert_allclose(fakes['a'], apply['ba'](batch['b']), atol=1e-6)
  cycled = apply['ba'](apply['ab'](batch['a']))
  expected = jnp.mean(jnp.abs(cycled - batch['a']))
  np.testing.assert_allclose(metrics['generator/cycle_a'], expected, rtol=1e-5)
  # Cross-wired: the generator that makes b is given b.
  expected = jnp.mean(jnp.abs(apply['ab'](batch['b']) - batch['b']))
  np.testing.assert_allclose(
    metrics['generator/identity_b'], expected, rtol=1e-5
  )
  judge = cg.make_discriminator(config.discriminator)
  logits = judge.apply({'params': before.disc['b']}, fakes['b'])
  np.testing.assert_allclose(
    metrics['generator/adversarial_ab'],
    losses.ADVERSARIAL_LOSSES['vanilla'].generator(logits),
    rtol=1e-5,
  )


def test_generators_without_an_objective_stand_still(config, before, batch):
  idle = config.replace(
    loss={'cycle_a': 0.0, 'cycle_b': 0.0, 'identity_a': 0.0, 'identity_b': 0.0}
  )
  gen_grads, _ = gradient(
    step.generator_loss,
    idle,
    before.gen,
    jax.tree.map(jnp.zeros_like, before.disc),
    batch,
    jax.random.key(0),
  )
  assert (
    max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(gen_grads)) == 0
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  'adversarial, changes',
  [
    ('lsgan', {'remat': True, 'accumulate': 2}),
    ('wgan_gp', {'remat': True}),
    ('wgan_gp', {'accumulate': 2}),
  ],
)
def test_less_memory_gives_the_same_step(adversarial, changes, config, batch):
  # Without what differs by the batch, or by the key.
  config = config.replace(
    generator={'norm': 'instance', 'dropout': 0.0},
    discriminator={'norm': 'instance'},
    loss={'adversarial': adversarial, 'gradient_penalty': 0.0, 'r1': 0.5},
    optimizer={'name': 'sgd', 'b1': 0.0, 'learning_rate': 0.1},
    pool_size=0,
  )
  state = cg.create_train_state(config, jax.random.key(1))
  expected, metrics = cg.train_step(state, batch, config=config)
  after, same_metrics = cg.train_step(
    state, batch, config=config.replace(**changes)
  )
  for name in ('gen', 'disc', 'gen_ema'):
    one, other = getattr(expected, name), getattr(after, name)
    assert max_difference(one, other) < 1e-5
    assert max_difference(one, getattr(state, name)) > 1e-3
  if adversarial != 'wgan_gp':  # whose penalty's points are drawn by the key
    for name, value in metrics.items():
      assert float(same_metrics[name]) == pytest.approx(
        float(value), abs=1e-5
      ), name


@pytest.mark.slow
def test_two_batches_in_one_call_give_the_same_step(config, batch, monkeypatch):
  config = config.replace(
    generator={'norm': 'instance', 'dropout': 0.0},
    discriminator={'norm': 'instance'},
    loss={'identity_a': 1.0, 'identity_b': 2.0},
    optimizer={'name': 'sgd', 'b1': 0.0, 'learning_rate': 0.1},
  )
  state = cg.create_train_state(config, jax.random.key(1))
  expected, metrics = jax.jit(
    functools.partial(cg.train_step.__wrapped__, config=config)
  )(state, batch)
  calls = []

  def take_two(options):
    calls.append(is_per_example(options))
    return calls[-1]

  # As on accelerators.
  monkeypatch.setattr(step, '_takes_two', take_two)
  after, same_metrics = jax.jit(
    functools.partial(cg.train_step.__wrapped__, config=config)
  )(state, batch)
  assert calls == [True] * len(calls) != []
  for name in ('gen', 'disc'):
    one, other = getattr(expected, name), getattr(after, name)
    assert max_difference(one, other) < 1e-5
    assert max_difference(one, getattr(state, name)) > 1e-3
  for name, value in metrics.items():
    assert float(same_metrics[name]) == pytest.approx(float(value), abs=1e-5)


@pytest.mark.parametrize(
  'changes, expected',
  [
    ({'norm': 'instance', 'dropout': 0.0}, True),
    ({'norm': 'batch', 'dropout': 0.0}, False),
    ({'norm': 'instance', 'dropout': 0.5}, False),
  ],
)
def test_networks_that_treat_each_example_alone(changes, expected, config):
  options = dataclasses.replace(config.generator, **changes)
  assert is_per_example(options) == expected


@pytest.mark.slow
def test_accumulation_takes_less_memory(config):
  config = config.replace(
    batch_size=4,
    data={'size': 64, 'load_size': 64},
    generator={'filters': 8, 'isize': 64, 'norm': 'instance'},
  )
  state = cg.create_train_state(config, jax.random.key(0))
  images = jax.ShapeDtypeStruct((4, 64, 64, 3), jnp.float32)
  batch = {'a': images, 'b': images}

  def temporary_bytes(**changes):
    lowered = cg.train_step.lower(
      state, batch, config=config.replace(**changes)
    )
    return lowered.compile().memory_analysis().temp_size_in_bytes

  assert temporary_bytes(accumulate=4) < 0.5 * temporary_bytes()


def test_ema_follows_the_generators(before, after):
  state, _ = after
  expected = jax.tree.map(
    lambda old, new: 0.75 * old + 0.25 * new, before.gen, state.gen
  )
  assert max_difference(state.gen_ema, expected) < 1e-7
  assert state.translators is state.gen_ema


def test_step_keeps_the_old_state_and_is_repeatable(config, before, batch):
  one, _ = cg.train_step(before, batch, config=config)
  two, _ = cg.train_step(before, batch, config=config)
  assert max_difference(one.gen, two.gen) == 0
  assert int(before.step) == 0  # not donated, so still readable


def test_steps_have_dropout_masks_of_their_own(config, before, batch, after):
  _, first = after
  later = before.replace(step=before.step + 1)
  _, second = cg.train_step(later, batch, config=config)
  assert float(first['generator/cycle_a']) != float(second['generator/cycle_a'])


@pytest.mark.parametrize(
  'changes',
  [{'loss': {'adversarial': name}} for name in losses.ADVERSARIAL_LOSSES]
  + [
    {'loss': {'r1': 1.0, 'identity_a': 0.0, 'identity_b': 0.0}},
    {'loss': {'paired_weight': 1.0}},
  ],
  ids=str,
)
def test_every_objective_names_its_metrics(changes, config, before, batch):
  config = config.replace(**changes)
  if config.loss.paired_weight:
    batch = batch | {'is_pair': jnp.ones(2, bool)}
  _, metrics = jax.eval_shape(
    functools.partial(cg.train_step, config=config), before, batch
  )
  assert sorted(metrics) == sorted(step.metric_names(config))


def test_penalties_enter_the_discriminators_loss(config, before, batch):
  def loss(**options):
    changed = config.replace(loss=options)
    function = functools.partial(step.discriminator_loss, config=changed)
    fakes = {'a': batch['b'], 'b': batch['a']}
    value, metrics = jax.jit(function)(
      before.disc, batch, fakes, jax.random.key(0)
    )
    return float(value), {name: float(x) for name, x in metrics.items()}

  plain, _ = loss(adversarial='wgan_gp', gradient_penalty=0.0)
  total, metrics = loss(adversarial='wgan_gp', gradient_penalty=10.0)
  added = 10 * (
    metrics['discriminator/gradient_penalty_a']
    + metrics['discriminator/gradient_penalty_b']
  )
  assert total - plain == pytest.approx(added, rel=1e-4)
  plain, _ = loss(adversarial='lsgan')
  total, metrics = loss(adversarial='lsgan', r1=3.0)
  added = metrics['discriminator/r1_a'] + metrics['discriminator/r1_b']
  assert added > 0
  assert total - plain == pytest.approx(3 * added, rel=1e-4)
  half, metrics = loss(adversarial='lsgan', discriminator=0.5)
  assert half == pytest.approx(
    0.5 * (metrics['discriminator/a'] + metrics['discriminator/b'])
  )


def test_different_channels_switch_the_identity_loss_off(config):
  config = config.replace(data={'channels_b': 1})
  assert not config.uses_identity
  batch = {'a': jnp.zeros((2, 8, 8, 3)), 'b': jnp.zeros((2, 8, 8, 1))}
  state, metrics = jax.eval_shape(
    functools.partial(cg.train_step, config=config),
    abstract_train_state(config),
    batch,
  )
  assert 'generator/identity_a' not in metrics
  assert state.pools['b'].images.shape == (3, 8, 8, 1)


@pytest.mark.slow
def test_bfloat16_keeps_float32_state_and_losses(config, before, batch, after):
  config = config.replace(
    generator={'dtype': 'bfloat16'}, discriminator={'dtype': 'bfloat16'}
  )
  state, metrics = cg.train_step(before, batch, config=config)
  kinds = {x.dtype for x in jax.tree.leaves((state.gen, state.disc, metrics))}
  assert kinds == {jnp.dtype('float32')}
  _, exact = after
  for name, value in metrics.items():
    assert float(value) == pytest.approx(float(exact[name]), rel=0.1), name


@pytest.mark.parametrize(
  'domain, images, message',
  [
    (
      'a',
      jnp.zeros((2, 16, 16, 3)),
      r"batch\['a'\] has images of \(16, 16, 3\), but config.data says "
      r'\(8, 8, 3\)',
    ),
    (
      'b',
      jnp.zeros((2, 8, 8, 3), jnp.uint8),
      r"batch\['b'\] is uint8: give float32 in \[-1, 1\]",
    ),
  ],
)
def test_wrong_batches_are_refused(
  domain, images, message, config, before, batch
):
  with pytest.raises(ValueError, match=message):
    cg.train_step(before, batch | {domain: images}, config=config)


def test_translator_does_not_depend_on_the_neighbours(config, before, batch):
  to_b = cg.make_translator(config, before.gen, 'ab')
  together, alone = to_b(batch['a']), to_b(batch['a'][:1])
  np.testing.assert_allclose(together[:1], alone, atol=1e-6)
  other = cg.make_translator(config, before.gen, 'ab', key=jax.random.key(9))
  assert float(jnp.max(jnp.abs(other(batch['a']) - together))) > 1e-3


def test_translator_of_an_unknown_direction_is_refused(config, before):
  with pytest.raises(ValueError, match="direction='bb'"):
    cg.make_translator(config, before.gen, 'bb')


@pytest.mark.slow
def test_the_cycle_weight_follows_its_schedule(config, before, batch):
  """In the middle of a run it has fallen by half; no other weight has."""
  config = config.replace(steps=100, schedule={'cycle_end': 0.2})
  state = before.replace(step=jnp.asarray(50))
  _, metrics = cg.train_step(state, batch, config=config)
  terms = {name.split('/')[-1]: float(x) for name, x in metrics.items()}
  expected = terms['adversarial_ab'] + terms['adversarial_ba']
  expected += 2 * terms['identity_a'] + 3 * terms['identity_b']
  expected += 0.6 * (7 * terms['cycle_a'] + 10 * terms['cycle_b'])
  assert terms['loss'] == pytest.approx(expected, rel=1e-5)


def test_the_cycle_loss_can_be_blurred(config, before, batch):
  config = config.replace(
    generator={'dropout': 0.0},
    loss={'cycle_blur': 0.5, 'cycle_blur_sigma': 2.0},
  )
  key = jax.random.key(0)
  _, (fakes, metrics) = step.generator_loss(
    before.gen, before.disc, batch, key, config=config
  )
  to_a = translate(config, before.gen['ba'], 'ba', fakes['b'], key)
  expected = losses.cycle_loss(to_a, batch['a'], blur=0.5, sigma=2.0)
  np.testing.assert_allclose(metrics['generator/cycle_a'], expected, rtol=1e-4)
