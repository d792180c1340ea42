"""The CycleGAN training step: losses and updates of all four networks."""

import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from cyclegan_jax import losses, parallel, register
from cyclegan_jax.config import Config, DiscriminatorConfig, GeneratorConfig
from cyclegan_jax.diff_augment import diff_augment
from cyclegan_jax.inference import translate
from cyclegan_jax.nets import is_per_example, make_discriminator
from cyclegan_jax.optimizers import (
  cycle_factor,
  learning_rate_schedule,
  make_optimizer,
)
from cyclegan_jax.pool import query_pool
from cyclegan_jax.state import TrainState
from cyclegan_jax.types import Array, Batch, Key, Metrics, Params

# Folded into a key for DiffAugment; larger than any index used elsewhere.
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
  """The joint objective of both generators (arXiv:1703.10593, eq. 3).

  With paired examples, supervised terms are added (arXiv:1805.03189).

  Args:
    gen: parameters of the generators 'ab' and 'ba'.
    disc: parameters of the discriminators 'a' and 'b', held constant.
    batch: {'a': [B, H, W, Ca], 'b': [B, H, W, Cb]} in [-1, 1], and 'is_pair':
      bool [B] if config.loss.paired_weight is set.
    key: PRNG key for dropout and DiffAugment.
    config: the run's options.
    axis_name: the devices' axis under `parallel.data_parallel`.
    cycle_factor: factor of the cycle weights at this step.

  Returns:
    The scalar loss, the fakes {'a', 'b'}, and each term without its weight.
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

  def discriminate(domain: str, images: Array) -> Array:
    images = _augment(config, images, augment_keys[domain], axis_name)
    return _discriminate(config.discriminator, disc[domain], images, axis_name)

  joins = config.uses_identity and _takes_two(config.generator)
  fakes, same = {}, {}
  for source, target in ('ab', 'ba'):
    direction = source + target
    if joins:
      images = batch[source], batch[target]
      fakes[target], same[target] = _as_one(
        functools.partial(generate, direction), *images
      )
    else:
      fakes[target] = generate(direction, batch[source])
  cycled = {'a': generate('ba', fakes['b']), 'b': generate('ab', fakes['a'])}
  adversarial = losses.adversarial_loss(config.loss.adversarial).generator
  cycle_loss = functools.partial(
    losses.cycle_loss,
    blur=config.loss.cycle_blur,
    sigma=config.loss.cycle_blur_sigma,
  )
  metrics = {
    'generator/adversarial_ab': adversarial(discriminate('b', fakes['b'])),
    'generator/adversarial_ba': adversarial(discriminate('a', fakes['a'])),
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
    if not joins:
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
  for name, weight in config.loss.term_weights.items():
    own_term = register.find('loss_term', name)
    for source, target in ('ab', 'ba'):
      term = own_term(batch[source], fakes[target], cycled[source])
      metrics[f'generator/{name}_{source}{target}'] = term
      loss += weight * term
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
  """The joint objective of both discriminators.

  Args:
    disc: parameters of the discriminators 'a' and 'b'.
    batch: {'a': [B, H, W, Ca], 'b': [B, H, W, Cb]} real images in [-1, 1].
    fakes: translated images of the same shapes.
    key: PRNG key for DiffAugment and for the interpolation of WGAN-GP.
    config: the run's options.
    axis_name: the devices' axis under `parallel.data_parallel`.

  Returns:
    The scalar loss, and each discriminator's terms without their weights.
  """
  adversarial = losses.adversarial_loss(config.loss.adversarial).discriminator
  loss, metrics = jnp.zeros(()), {}
  for domain, domain_key in zip('ab', jax.random.split(key), strict=True):
    real_key, fake_key = jax.random.split(
      jax.random.fold_in(domain_key, _AUGMENT)
    )
    real = _augment(config, batch[domain], real_key, axis_name)
    fake = _augment(config, fakes[domain], fake_key, axis_name)

    def discriminate(images: Array, params: Params = disc[domain]) -> Array:
      return _discriminate(config.discriminator, params, images, axis_name)

    if _takes_two(config.discriminator):
      on_real, on_fake = _as_one(discriminate, real, fake)
    else:
      on_real, on_fake = discriminate(real), discriminate(fake)
    term = adversarial(on_real, on_fake)
    metrics[f'discriminator/{domain}'] = term
    loss += config.loss.discriminator * term
    if config.loss.adversarial == 'wgan_gp':
      keys = parallel.example_keys(domain_key, real.shape[0], axis_name)
      between = losses.interpolate(keys, real, fake)
      penalty = losses.gradient_penalty(discriminate, between)
      metrics[f'discriminator/gradient_penalty_{domain}'] = penalty
      loss += config.loss.gradient_penalty * penalty
    if config.loss.r1:
      penalty = losses.r1_penalty(discriminate, real)
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
  """Updates both generators jointly, then both discriminators.

  The generators are updated with the discriminators held constant. The
  discriminators are then updated on the batch and on the fakes from before
  the generators' update, exchanged with past fakes in the pools. Each forward
  pass is computed once. During the first config.warmup_steps the generators,
  their optimizer and their running average stay constant.

  Args:
    state: the state before the step; neither changed nor donated.
    batch: {'a': [B, H, W, Ca], 'b': [B, H, W, Cb]} float32 in [-1, 1], and
      with config.loss.paired_weight 'is_pair': bool [B], whether a and b of
      an example are a pair; under `parallel.data_parallel` this device's
      slice of the batch.
    config: static; an equal config does not retrace.
    axis_name: the devices' axis under `parallel.data_parallel`.

  Returns:
    The state after the step, and float32 scalars by name: `metric_names`.

  Raises:
    ValueError: an image's shape or dtype does not match the config.
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
    # Every device queries the pool with all fakes, then takes its own slice.
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


def metric_names(config: Config) -> list[str]:
  """The names of the metrics that `train_step` returns."""
  names = [
    'generator/adversarial_ab',
    'generator/adversarial_ba',
    'generator/cycle_a',
    'generator/cycle_b',
  ]
  if config.uses_identity:
    names += ['generator/identity_a', 'generator/identity_b']
  if config.loss.paired_weight:
    names += ['generator/paired_a', 'generator/paired_b']
  for name in config.loss.term_weights:
    names += [f'generator/{name}_ab', f'generator/{name}_ba']
  names += ['generator/loss', 'discriminator/a', 'discriminator/b']
  for name, is_used in (
    ('gradient_penalty', config.loss.adversarial == 'wgan_gp'),
    ('r1', config.loss.r1 > 0),
  ):
    if is_used:
      names += [f'discriminator/{name}_a', f'discriminator/{name}_b']
  return [*names, 'learning_rate']


def _gradient(
  loss: Callable[..., Any],
  params: Params,
  examples: Any,
  key: Key,
  num_parts: int,
) -> tuple[Params, Any]:
  """The gradient of a loss, accumulated over parts of the batch.

  Args:
    loss: (params, examples, key) -> (scalar, aux), where aux has scalars,
      which are averaged, and arrays [B, ...], which are concatenated.
    params: the parameters to differentiate by.
    examples: arrays [B, ...].
    key: PRNG key for the loss.
    num_parts: a divisor of B; more parts take less memory.

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


def _takes_two(config: GeneratorConfig | DiscriminatorConfig) -> bool:
  """Whether a network takes two batches in one call.

  On CPUs that takes longer: weight gradients of several examples are slow.
  """
  return is_per_example(config) and jax.default_backend() != 'cpu'


def _as_one(
  function: Callable[[Array], Array], first: Array, second: Array
) -> tuple[Array, Array]:
  """Applies a network to two batches in one call.

  One call halves what is compiled, and gives an accelerator more work at once.
  """
  results = function(jnp.concatenate([first, second]))
  return results[: len(first)], results[len(first) :]


def _augment(
  config: Config, images: Array, key: Key, axis_name: str | None
) -> Array:
  return diff_augment(images, key, config.diff_augment, axis_name=axis_name)


@functools.partial(jax.jit, static_argnums=(0, 3), inline=True)
def _discriminate(
  config: DiscriminatorConfig,
  params: Params,
  images: Array,
  axis_name: str | None,
) -> Array:
  """Logits [B, h, w, 1] in the dtype of the images."""
  network = make_discriminator(config, axis_name=axis_name)
  logits = cast(Array, network.apply({'params': params}, images))
  return logits.astype(images.dtype)


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
