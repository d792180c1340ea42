"""The training state: one immutable tree of arrays."""

import flax.struct
import jax
import jax.numpy as jnp

from cyclegan_jax.config import Config
from cyclegan_jax.nets import make_discriminator, make_generator
from cyclegan_jax.optimizers import make_optimizer
from cyclegan_jax.pool import ImagePool, init_pool
from cyclegan_jax.types import Array, Key, OptState, Params


class TrainState(flax.struct.PyTreeNode):
  """Everything that changes during training.

  Attributes:
    step: int32 scalar, number of steps taken.
    key: PRNG key of the run; a step uses fold_in(key, step).
    gen: generator parameters: 'ab' translates domain a to b, 'ba' b to a.
    disc: discriminator parameters: 'a' for images of domain a, 'b' for b.
    gen_opt: state of the joint optimizer of both generators.
    disc_opt: state of the joint optimizer of both discriminators.
    pools: past fakes of domains 'a' and 'b'.
    gen_ema: running average of `gen`, or None.
  """

  step: Array
  key: Key
  gen: dict[str, Params]
  disc: dict[str, Params]
  gen_opt: OptState
  disc_opt: OptState
  pools: dict[str, ImagePool]
  gen_ema: dict[str, Params] | None

  @property
  def translators(self) -> dict[str, Params]:
    """The generators to translate with: their running average, if any."""
    return self.gen if self.gen_ema is None else self.gen_ema


def abstract_train_state(config: Config) -> TrainState:
  """Shapes and dtypes of a run's state, without computing it."""
  return jax.eval_shape(
    lambda key: create_train_state(config, key), jax.random.key(0)
  )


def create_train_state(config: Config, key: Key) -> TrainState:
  """Creates the state at step 0; each network is initialized by its own key.

  Args:
    config: the networks, optimizers, pools and image sizes.
    key: a typed key, as from `jax.random.key(seed)`.
  """
  if isinstance(key, jax.core.Tracer):
    return _create(config, key)
  # It runs once, and optimizing it takes longer than it could save.
  is_cpu = jax.default_backend() == 'cpu'
  options = {'xla_backend_optimization_level': '0'} if is_cpu else None
  jitted = jax.jit(_create, static_argnums=0, compiler_options=options)
  return jitted(config, key)


def _create(config: Config, key: Key) -> TrainState:
  run_key, *net_keys = jax.random.split(key, 5)
  size = config.data.size
  shapes = {d: (size, size, config.channels(d)) for d in 'ab'}
  images = {d: jnp.zeros((1, *shapes[d])) for d in 'ab'}
  disc_net = make_discriminator(config.discriminator)
  gen, disc = {}, {}
  for direction, net_key in zip(('ab', 'ba'), net_keys[:2], strict=True):
    source, target = direction[0], direction[1]
    gen_net = make_generator(config.generator, channels=config.channels(target))
    keys = {'params': net_key, 'dropout': net_key}
    gen[direction] = gen_net.init(keys, images[source])['params']
  for domain, net_key in zip('ab', net_keys[2:], strict=True):
    disc[domain] = disc_net.init(net_key, images[domain])['params']
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    key=run_key,
    gen=gen,
    disc=disc,
    gen_opt=make_optimizer(config, side='gen').init(gen),
    disc_opt=make_optimizer(config, side='disc').init(disc),
    pools={d: init_pool(config.pool_size, shapes[d]) for d in 'ab'},
    # A copy: one buffer under two names could not be donated.
    gen_ema=jax.tree.map(jnp.copy, gen) if config.ema_decay else None,
  )
