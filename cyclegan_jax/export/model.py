"""The generator that is exported, with what its users must know."""

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cyclegan_jax import register
from cyclegan_jax.config import Config, Direction, size_multiple
from cyclegan_jax.inference import make_translator
from cyclegan_jax.nets import make_generator
from cyclegan_jax.nets.layers import Dropout
from cyclegan_jax.types import Array, Params
from cyclegan_jax.version import __version__


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
  """One direction of a checkpoint.

  Attributes:
    config: of the run.
    params: parameters of this direction's generator.
    direction: 'ab' or 'ba'.
    step: training step of the checkpoint.
    seed: random seed for dropout masks.
    dtype: of the parameters in the file: 'float32', or 'float16' in ONNX.
    is_average: whether the parameters are a running average.
  """

  config: Config
  params: Params
  direction: Direction
  step: int
  seed: int = 0
  dtype: str = 'float32'
  is_average: bool = False

  @property
  def channels_in(self) -> int:
    """Channels of the input images."""
    return self.config.channels(self.direction[0])

  @property
  def channels_out(self) -> int:
    """Channels of the output images."""
    return self.config.channels(self.direction[1])

  @property
  def multiple(self) -> int:
    """A divisor of every height and width that the network takes."""
    return size_multiple(self.config.generator)

  @property
  def side(self) -> int | None:
    """The only height and width that the file takes; None for any.

    The file holds the masks of dropout and the positions of a transformer's
    tokens, which are of one size. What a registered network does is unknown.
    """
    gen = self.config.generator
    if gen.name == 'keras_unet' and gen.fixed_input_size:
      return gen.isize
    is_own = gen.name not in register.BUILT_IN['generator']
    if self.has_dropout or gen.name == 'vit_unet' or is_own:
      return self.config.data.size
    return None

  @property
  def has_dropout(self) -> bool:
    """Whether the network drops activations, also when it translates."""
    return self.config.generator.dropout > 0

  @property
  def key(self) -> Array:
    """PRNG key for dropout, the same as a translator of this seed uses."""
    return jax.random.key(self.seed)

  def dropout_masks(self) -> dict[str, np.ndarray]:
    """The factors of each dropout layer for this seed, by the layer's path.

    [H, W, C], in a transformer [N, C].
    """
    masks: dict[str, np.ndarray] = {}

    def record_mask(
      next_call: Any, args: Any, kwargs: Any, context: Any
    ) -> Any:
      if not isinstance(context.module, Dropout):
        return next_call(*args, **kwargs)
      # One call only: a second one would draw another mask.
      mask = next_call(jnp.ones_like(args[0]))
      masks['/'.join(context.module.path)] = np.asarray(mask[0])
      return args[0] * mask

    if self.side and self.has_dropout:
      images = jnp.zeros((1, self.side, self.side, self.channels_in))
      # Not `translate`, whose trace may be cached, so that nothing is called.
      network = make_generator(
        self.config.generator, channels=self.config.channels(self.direction[1])
      )
      with nn.intercept_methods(record_mask):
        network.apply(
          {'params': self.params}, images, rngs={'dropout': self.key}
        )
    return masks

  @functools.cached_property
  def translator(self) -> Callable[[np.ndarray], Array]:
    """The translator that the file must match."""
    generators = {self.direction: self.params}
    return make_translator(
      self.config, generators, self.direction, key=self.key
    )

  def translate(self, images: np.ndarray) -> np.ndarray:
    """[B, H, W, C] to [B, H, W, C'] by the translator."""
    return np.asarray(self.translator(images))

  def trial_shapes(self) -> list[tuple[int, int, int]]:
    """Two (batch, height, width) to try a file with."""
    if self.side:
      return [(1, self.side, self.side), (3, self.side, self.side)]
    size, step = self.config.data.size, self.multiple
    return [(1, size, size), (2, 2 * step, 5 * step if step < 64 else step)]

  def metadata(self, layout: str) -> dict[str, str]:
    """Texts by name, for the file.

    Args:
      layout: axes of its images: 'NHWC' or 'NCHW'.
    """
    facts = {
      'producer': f'cyclegan_jax {__version__}',
      'direction': self.direction,
      'step': str(self.step),
      'layout': layout,
      'range': '-1 to 1, in and out; color channels are R, G, B',
      'values': 'of an image: low + (x + 1) / 2 * (high - low)',
      'size': f'{self.side} x {self.side}'
      if self.side
      else f'any height and width that are multiples of {self.multiple}',
      'statistics': f'of each image by itself ({self.config.generator.norm})',
      'dropout': f'masks of seed {self.seed}, part of the file'
      if self.has_dropout
      else 'none',
      'generator': json.dumps(dataclasses.asdict(self.config.generator)),
    }
    data = self.config.data
    for side, domain in zip(('input', 'output'), self.direction, strict=True):
      facts |= {
        f'{side}_channels': str(self.config.channels(domain)),
        f'{side}_dtype': getattr(data, f'dtype_{domain}'),
        f'{side}_low': repr(getattr(data, f'low_{domain}')),
        f'{side}_high': repr(getattr(data, f'high_{domain}')),
      }
    return facts
