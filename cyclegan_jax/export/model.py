"""What is exported: one generator, with what its users have to know."""

import dataclasses
import functools
import importlib.metadata
import json
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from cyclegan_jax.config import Config, Direction, size_multiple
from cyclegan_jax.inference import make_translator, translate
from cyclegan_jax.nets import make_generator
from cyclegan_jax.nets.layers import Dropout
from cyclegan_jax.types import Array, Params


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
  """One direction of a checkpoint.

  Attributes:
    config: of the run.
    params: of this direction's generator.
    direction: 'ab' or 'ba'.
    step: of the checkpoint.
    seed: of dropout, where the network has it.
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
    """Of the images that it takes."""
    return self.config.channels(self.direction[0])

  @property
  def channels_out(self) -> int:
    """Of the images that it makes."""
    return self.config.channels(self.direction[1])

  @property
  def multiple(self) -> int:
    """Divides every height and width that it takes."""
    return size_multiple(self.config.generator)

  @property
  def side(self) -> int | None:
    """The only height and width that it takes; None where others do.

    Dropout's masks are part of the file, so they have one size; a transformer's
    places of tokens are computed from it.
    """
    gen = self.config.generator
    if gen.name == 'keras_unet' and gen.fixed_input_size:
      return gen.isize
    if self.has_dropout or gen.name == 'vit_unet':
      return self.config.data.size
    return None

  @property
  def has_dropout(self) -> bool:
    """Whether the network drops activations in translation, as in training."""
    return self.config.generator.dropout > 0

  def dropout_masks(self) -> dict[str, np.ndarray]:
    """What each dropout multiplies by for this seed, by its path.

    [H, W, C], in a transformer [N, C].
    """
    masks: dict[str, np.ndarray] = {}

    def keep(next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
      if not isinstance(context.module, Dropout):
        return next_call(*args, **kwargs)
      # Once: each call would draw others.
      mask = next_call(jnp.ones_like(args[0]))
      masks['/'.join(context.module.path)] = np.asarray(mask[0])
      return args[0] * mask

    if self.side and self.has_dropout:
      images = jnp.zeros((1, self.side, self.side, self.channels_in))
      with nn.intercept_methods(keep):
        translate(self.config, self.params, self.direction, images, self.key)
    return masks

  @property
  def key(self) -> Array:
    """Of dropout, as a translator of this seed has it."""
    return jax.random.key(self.seed)

  def translate(self, images: np.ndarray) -> np.ndarray:
    """[B, H, W, C] to [B, H, W, C'] by the live translator."""
    return np.asarray(self.live(images))

  @functools.cached_property
  def live(self) -> Callable[[np.ndarray], Array]:
    """The live translator."""
    generators = {self.direction: self.params}
    return make_translator(
      self.config, generators, self.direction, key=self.key
    )

  def param_shapes(self) -> dict[str, tuple[int, ...]]:
    """The shapes of the network's parameters by name, joined by dots."""
    network = make_generator(self.config.generator, channels=self.channels_out)
    side = self.side or self.config.data.size
    images = jax.ShapeDtypeStruct(
      (1, side, side, self.channels_in), jnp.float32
    )
    keys = {'params': self.key, 'dropout': self.key}
    params = jax.eval_shape(network.init, keys, images)['params']
    flat = flax.traverse_util.flatten_dict(params, sep='.')
    return {name: each.shape for name, each in flat.items()}

  def trial_shapes(self) -> list[tuple[int, int, int]]:
    """Batches, heights and widths to try a file with: two, if it takes two."""
    if self.side:
      return [(1, self.side, self.side), (3, self.side, self.side)]
    size, step = self.config.data.size, self.multiple
    return [(1, size, size), (2, 2 * step, 5 * step if step < 64 else step)]

  def metadata(self, layout: str) -> dict[str, str]:
    """What the file says of itself; texts by name.

    Args:
      layout: of the axes of its images: 'NHWC' or 'NCHW'.
    """
    said = {
      'producer': f'cyclegan_jax {importlib.metadata.version("cyclegan_jax")}',
      'direction': self.direction,
      'step': str(self.step),
      'layout': layout,
      'range': '-1 to 1, in and out; channels of colours are R, G, B',
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
    for side, domain in zip(('input', 'output'), self.direction, strict=True):
      data = self.config.data
      low, high = (
        getattr(data, f'low_{domain}'),
        getattr(data, f'high_{domain}'),
      )
      said |= {
        f'{side}_channels': str(self.config.channels(domain)),
        f'{side}_dtype': getattr(data, f'dtype_{domain}'),
        f'{side}_low': repr(low),
        f'{side}_high': repr(high),
      }
    return said
