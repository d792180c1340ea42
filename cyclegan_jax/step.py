"""The algorithm: one update of both generators and both discriminators."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from cyclegan_jax import losses, parallel
from cyclegan_jax.config import Config
from cyclegan_jax.diff_augment import diff_augment
from cyclegan_jax.inference import translate
from cyclegan_jax.nets import make_discriminator
from cyclegan_jax.optimizers import (
  cycle_factor,
  learning_rate_schedule,
  make_optimizer,
)
from cyclegan_jax.pool import query_pool
from cyclegan_jax.state import TrainState
from cyclegan_jax.types import Array, Batch, Key, Metrics, Params

# Of the keys of DiffAugment; no split and no example comes this far.
_AUGMENT = 2**32 - 1


def generator_loss(
  gen: dict[str, Params],
  disc: dict[str, Params],
  batch: Batch,
  key: Key,
  *,
  config: Config,
  axis_name: str | None = None,
  cycle_factor: Array | float = 1.0,
) -> tuple[Array, tuple[Batch, Metrics]]:
  """What both generators minimise together (arXiv:1703.10593, eq. 3).

  With some pairs it holds both supervised terms too (arXiv:1805.03189).

  Args:
    gen: parameters of the generators 'ab' and 'ba'.
    disc: parameters of the discriminators 'a' and 'b', held.
    batch: {'a': [B, H, W, Ca], 'b': [B, H, W, Cb]} in [-1, 1], and 'is_pair':
      bool [B] where config.loss.paired_weight asks for it.
    key: of this step's dropout and DiffAugment.
    config: of the run.
    axis_name: the devices' axis under `parallel.data_parallel`.
    cycle_factor: of the cycle's weights at this step.

  Returns:
    The scalar loss, the fakes {'a', 'b'} and each term before its weight.
  """
  keys = iter(jax.random.split(key, 6))
  a_key, b_key = jax.random.split(jax.random.fold_in(key, _AUGMENT))
  augment_keys = {'a': a_key, 'b': b_key}

  def generate(direction: str, images: Array) -> Array:
    def run(params: Params, images: Array, key: Key) -> Array:
      return translate(
        config, params, direction, images, key, axis_name=axis_name
      )

    if config.remat:
      run = jax.checkpoint(run)
    return run(gen[direction], images, next(keys))

  def judge(domain: str, images: Array) -> Array:
    images = _augment(config, images, augment_keys[domain], axis_name)
    return _judge(config, disc[domain], images, axis_name)

  fakes = {'b': generate('ab', batch['a']), 'a': generate('ba', batch['b'])}
  cycled = {'a': generate('ba', fakes['b']), 'b': generate('ab', fakes['a'])}
  adversarial = losses.ADVERSARIAL_LOSSES[config.loss.adversarial].generator
  cycle_loss = functools.partial(
    losses.cycle_loss,
    blur=config.loss.cycle_blur,
    sigma=config.loss.cycle_blur_sigma,
  )
  metrics = {
    'generator/adversarial_ab': adversarial(judge('b', fakes['b'])),
    'generator/adversarial_ba': adversarial(judge('a', fakes['a'])),
    'generator/cycle_a': cycle_loss(cycled['a'], batch['a']),
    'generator/cycle_b': cycle_loss(cycled['b'], batch['b']),
  }
  loss = (
    metrics['generator/adversarial_ab']
    + metrics['generator/adversarial_ba']
    + cycle_factor * config.loss.cycle_a * metrics['generator/cycle_a']
    + cycle_factor * config.loss.cycle_b * metrics['generator/cycle_b']
  )
  if config.uses_identity:
    same = {'a': generate('ba', batch['a']), 'b': generate('ab', batch['b'])}
    for domain, weight in (
      ('a', config.loss.identity_a),
      ('b', config.loss.identity_b),
    ):
      term = losses.l1_loss(same[domain], batch[domain])
      metrics[f'generator/identity_{domain}'] = term
      loss += weight * term
  if config.loss.paired_weight:
    for domain, fake in fakes.items():
      term = losses.paired_l1_loss(fake, batch[domain], batch['is_pair'])
      metrics[f'generator/paired_{domain}'] = term
      loss += config.loss.paired_weight * term
  return loss, (fakes, metrics | {'generator/loss': loss})


def discriminator_loss(
  disc: dict[str, Params],
  batch: Batch,
  fakes: Batch,
  key: Key,
  *,
  config: Config,
  axis_name: str | None = None,
) -> tuple[Array, Metrics]:
  """What both discriminators minimise together.

  Args:
    disc: parameters of the discriminators 'a' and 'b'.
    batch: {'a': [B, H, W, Ca], 'b': [B, H, W, Cb]} real images in [-1, 1].
    fakes: translated images of the same shapes.
    key: of DiffAugment and of the points at which WGAN-GP takes its gradient.
    config: of the run.
    axis_name: the devices' axis under `parallel.data_parallel`.

  Returns:
    The scalar loss, and each discriminator's before the weight.
  """
  adversarial = losses.ADVERSARIAL_LOSSES[config.loss.adversarial].discriminator
  loss, metrics = jnp.zeros(()), {}
  for domain, domain_key in zip('ab', jax.random.split(key), strict=True):
    real_key, fake_key = jax.random.split(
      jax.random.fold_in(domain_key, _AUGMENT)
    )
    real = _augment(config, batch[domain], real_key, axis_name)
    fake = _augment(config, fakes[domain], fake_key, axis_name)
    judge = functools.partial(_judge, config, disc[domain], axis_name=axis_name)
    term = adversarial(judge(real), judge(fake))
    metrics[f'discriminator/{domain}'] = term
    loss += config.loss.discriminator * term
    if config.loss.adversarial == 'wgan_gp':
      keys = parallel.example_keys(domain_key, real.shape[0], axis_name)
      between = losses.interpolate(keys, real, fake)
      penalty = losses.gradient_penalty(judge, between)
      metrics[f'discriminator/gradient_penalty_{domain}'] = penalty
      loss += config.loss.gradient_penalty * penalty
    if config.loss.r1:
      penalty = losses.r1_penalty(judge, real)
      metrics[f'discriminator/r1_{domain}'] = penalty
      loss += config.loss.r1 * penalty
  return loss, metrics


@functools.partial(jax.jit, static_argnames=('config', 'axis_name'))
def train_step(
  state: TrainState,
  batch: Batch,
  *,
  config: Config,
  axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
  """One joint update of the generators, then one of the discriminators.

  The generators learn with the discriminators held. The discriminators then
  learn from the batch and from fakes made before the generators' update,
  exchanged with past ones in the pools. Each forward is computed once. In the
  first config.warmup_steps the generators stay as they are, and so do their
  optimizer and their average.

  Args:
    state: before the step; it is not changed, and not donated.
    batch: {'a': [B, H, W, Ca], 'b': [B, H, W, Cb]} float32 in [-1, 1], and
      with config.loss.paired_weight 'is_pair': bool [B], whether an example's
      a and b show the same; under `parallel.data_parallel` this device's
      slice of it.
    config: static; an equal one does not retrace.
    axis_name: the devices' axis under `parallel.data_parallel`.

  Returns:
    The state after the step, and float32 scalars by name.

  Raises:
    ValueError: an image's shape is not what the config says.
  """
  _check_batch(batch, config)
  key = jax.random.fold_in(state.key, state.step)
  gen_key, pool_key, disc_key = jax.random.split(key, 3)

  def gen_loss(gen: Params, batch: Batch, key: Key) -> Any:
    return generator_loss(
      gen,
      state.disc,
      batch,
      key,
      config=config,
      axis_name=axis_name,
      cycle_factor=cycle_factor(config, state.step),
    )

  def disc_loss(disc: Params, images: tuple[Batch, Batch], key: Key) -> Any:
    return discriminator_loss(
      disc, *images, key, config=config, axis_name=axis_name
    )

  grads, (fakes, gen_metrics) = _gradient(
    gen_loss, state.gen, batch, gen_key, config.accumulate
  )
  gen, gen_opt = _update(
    config, 'gen', grads, state.gen_opt, state.gen, axis_name
  )

  pools, shown = {}, {}
  for domain, domain_key in zip('ab', jax.random.split(pool_key), strict=True):
    # Every device runs the same query on all fakes, then keeps its own part.
    all_fakes = parallel.gather(fakes[domain], axis_name)
    pools[domain], queried = query_pool(
      state.pools[domain], domain_key, all_fakes
    )
    size = batch[domain].shape[0]
    shown[domain] = parallel.local_slice(queried, size, axis_name)

  grads, disc_metrics = _gradient(
    disc_loss, state.disc, (batch, shown), disc_key, config.accumulate
  )
  disc, disc_opt = _update(
    config, 'disc', grads, state.disc_opt, state.disc, axis_name
  )

  ema = state.gen_ema
  if ema is not None:
    ema = optax.incremental_update(gen, ema, 1 - config.ema_decay)
  if config.warmup_steps:
    gen, gen_opt, ema = jax.tree.map(
      functools.partial(jnp.where, state.step < config.warmup_steps),
      (state.gen, state.gen_opt, state.gen_ema),
      (gen, gen_opt, ema),
    )
  metrics = parallel.mean_over(gen_metrics | disc_metrics, axis_name)
  metrics['learning_rate'] = learning_rate_schedule(config, side='gen')(
    state.step
  )
  state = state.replace(
    step=state.step + 1,
    gen=gen,
    disc=disc,
    gen_opt=gen_opt,
    disc_opt=disc_opt,
    pools=pools,
    gen_ema=ema,
  )
  return state, metrics


def _gradient(
  loss: Callable[..., Any],
  params: Params,
  examples: Any,
  key: Key,
  num_parts: int,
) -> tuple[Params, Any]:
  """The gradient of a mean over examples, by one part of them after another.

  Args:
    loss: a function (params, examples, key) -> (scalar, aux), where aux is of
      scalars, which are averaged, and of arrays of examples.
    params: of the networks that learn.
    examples: arrays [B, ...].
    key: for the loss.
    num_parts: divides B; with more of them it takes less memory.

  Returns:
    The gradient and aux.
  """
  gradient = jax.grad(loss, has_aux=True)
  if num_parts == 1:
    return gradient(params, examples, key)

  def add(total: Params, part: Any) -> tuple[Params, Any]:
    grads, aux = gradient(params, *part)
    return jax.tree.map(jnp.add, total, grads), aux

  parts = jax.tree.map(
    lambda x: x.reshape(num_parts, -1, *x.shape[1:]), examples
  )
  total, aux = jax.lax.scan(
    add,
    jax.tree.map(jnp.zeros_like, params),
    (parts, jax.random.split(key, num_parts)),
  )
  return jax.tree.map(lambda x: x / num_parts, total), jax.tree.map(
    lambda x: x.mean() if x.ndim == 1 else x.reshape(-1, *x.shape[2:]), aux
  )


def _augment(
  config: Config, images: Array, key: Key, axis_name: str | None
) -> Array:
  return diff_augment(images, key, config.diff_augment, axis_name=axis_name)


def _judge(
  config: Config, params: Params, images: Array, axis_name: str | None
) -> Array:
  """Logits [B, h, w, 1] in float32, whatever the network computes in."""
  network = make_discriminator(config.discriminator, axis_name=axis_name)
  logits = network.apply({'params': params}, images)
  return logits.astype(images.dtype)  # type: ignore[union-attr]


def _update(
  config: Config,
  side: str,
  grads: Params,
  opt_state: optax.OptState,
  params: Params,
  axis_name: str | None,
) -> tuple[Params, optax.OptState]:
  grads = parallel.mean_over(grads, axis_name)
  updates, opt_state = make_optimizer(config, side=side).update(
    grads, opt_state, params
  )
  return optax.apply_updates(params, updates), opt_state


def _check_batch(batch: Batch, config: Config) -> None:
  for domain in 'ab':
    expected = (config.data.size, config.data.size, config.channels(domain))
    if batch[domain].shape[1:] != expected:
      raise ValueError(
        f"batch['{domain}'] has images of {batch[domain].shape[1:]}, but "
        f'config.data says {expected}'
      )
    if not jnp.issubdtype(batch[domain].dtype, jnp.floating):
      raise ValueError(
        f"batch['{domain}'] is {batch[domain].dtype}: give float32 in [-1, 1]"
      )
  if config.loss.paired_weight:
    found = batch.get('is_pair')
    if found is None or (found.dtype, found.shape) != (
      jnp.bool_,
      batch['a'].shape[:1],
    ):
      raise ValueError(
        "config.loss.paired_weight needs batch['is_pair']: give bool "
        f'{list(batch["a"].shape[:1])}, true where a and b are a pair'
      )
