"""A trained generator for images of any size, in their own values."""

import math
import pathlib
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np

from cyclegan_jax.config import (
  Config,
  Direction,
  GeneratorConfig,
  size_multiple,
)
from cyclegan_jax.data.resizing import resize_to
from cyclegan_jax.inference import make_translator
from cyclegan_jax.media.image_files import values_for
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.translate.tiling import (
  translate_array,
  translate_tiled,
)
from cyclegan_jax.translate.tiling.windows import (
  ReadWindow,
  WriteWindow,
  pad,
)
from cyclegan_jax.types import Params

# Of an image that is translated whole, with 64 filters: about 2 GB of
# activations. With fewer filters it may be larger.
_WHOLE_PIXELS = 2**21
_FILTERS = 64
_ATTENTION = 2**28
_SIZES_AN_OCTAVE = 8

OnProgress: TypeAlias = Callable[[int, int], None]


class Translator:
  """One direction of a checkpoint, as a function of images.

  Attributes:
    config: of the run that made it.
    direction: 'ab' or 'ba'.
    whole_pixels: images with more of them are translated by tiles.
  """

  def __init__(
    self,
    config: Config,
    generators: dict[str, Params],
    direction: Direction,
    *,
    seed: int = 0,
    sample: int = 0,
    whole_pixels: int = 0,
    scratch: pathlib.Path | None = None,
  ):
    """Takes trained parameters; `load_translator` finds them.

    Args:
      config: of the run that made them.
      generators: `state.translators`.
      direction: 'ab' or 'ba'.
      seed: of dropout, where the network has it: the same seed and sample
        give the same masks for each image.
      sample: which of the draws of that seed.
      whole_pixels: images with more are translated by tiles; 0 for what takes
        about 2 GB.
      scratch: folder for what tiles keep on disk; None for the system's.
    """
    self.config = config
    self.direction = direction
    self.whole_pixels = whole_pixels or default_whole_pixels(config.generator)
    if config.generator.name == 'keras_unet' and (
      config.generator.fixed_input_size
    ):
      self.whole_pixels = sys.maxsize  # it is resized, never cut
    self._params = generators[direction]
    key = jax.random.key(seed)
    self._key = jax.random.fold_in(key, sample) if sample else key
    self._scratch = scratch
    self._translate = make_translator(
      config, generators, direction, key=self._key
    )

  def __call__(self, images: np.ndarray) -> np.ndarray:
    """Translates images, each by itself.

    Args:
      images: [H, W, C] or [B, H, W, C] of any size: uint8 or uint16, or
        floats in [-1, 1] as the networks see them.

    Returns:
      The same with C' channels. Integers become what the target domain's
      files hold, of the same type where both domains have integers; floats
      stay in [-1, 1].

    Raises:
      ValueError: these are no such images.
    """
    images = np.asarray(images)
    channels = self.config.channels(self.direction[0])
    if images.ndim not in (3, 4) or images.shape[-1] != channels:
      raise ValueError(
        f'images must be [H, W, {channels}] or [B, H, W, {channels}], not '
        f'{list(images.shape)}'
      )
    if 0 in images.shape:
      raise ValueError(f'there are no pixels in {list(images.shape)}')
    if images.ndim == 3:
      return self(images[None])[0]
    if images.dtype.kind == 'f':
      return self._floats(images.astype(np.float32))
    return self.translate_stored(images)

  def translate_stored(
    self, images: np.ndarray, *, on_progress: OnProgress | None = None
  ) -> np.ndarray:
    """Translates images in the values of their files, floats too.

    Args:
      images: [B, H, W, C].
      on_progress: called with (tiles done, tiles in all) where an image is
        translated by tiles.

    Returns:
      [B, H, W, C'] in the values of the output's files.

    Raises:
      ImageError: they are floats, and the source domain has integers.
    """
    if math.prod(images.shape[1:3]) > self.whole_pixels:
      return np.stack(
        [self.translate_large(x, on_progress=on_progress) for x in images]
      )
    of_input, of_output = values_for(images, self.config.data, self.direction)
    return of_output.from_network(self._floats(of_input.to_network(images)))

  def _floats(self, images: np.ndarray) -> np.ndarray:
    """[B, H, W, C] to [B, H, W, C'], both float32 in [-1, 1]."""
    height, width = images.shape[1:3]
    gen = self.config.generator
    if gen.name == 'keras_unet' and gen.fixed_input_size:
      data = self.config.data
      small = [resize_to(each, gen.isize, gen.isize, data) for each in images]
      translated = self._chunked(np.stack(small))
      large = [resize_to(each, height, width, data) for each in translated]
      return np.clip(np.stack(large), -1, 1)
    if height * width > self.whole_pixels:
      return np.stack([self._tiled(each) for each in images])
    padded = pad(images, bucket(height, gen), bucket(width, gen))
    return self._chunked(padded)[:, :height, :width]

  def _chunked(self, images: np.ndarray) -> np.ndarray:
    """The network's output, as many images at a time as memory holds."""
    most = max(1, self.whole_pixels // math.prod(images.shape[1:3]))
    if len(images) <= most:
      return np.asarray(self._translate(images))
    chunks = np.split(images, range(most, len(images), most))
    return np.concatenate([np.asarray(self._translate(x)) for x in chunks])

  def translate_large(
    self, image: np.ndarray, *, on_progress: OnProgress | None = None
  ) -> np.ndarray:
    """Translates by tiles, so that floats of the whole image are never there.

    Args:
      image: [H, W, C] in the values of the files, floats too.
      on_progress: called with (tiles done, tiles in all).

    Returns:
      The same with C' channels, in the values of the output's files.
    """
    of_output = values_for(image, self.config.data, self.direction)[1]
    channels = self.config.channels(self.direction[1])
    output = np.empty((*image.shape[:2], channels), of_output.dtype)

    def write(y0: int, x0: int, window: np.ndarray) -> None:
      output[y0 : y0 + window.shape[0], x0 : x0 + window.shape[1]] = window

    def read(y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
      return image[y0:y1, x0:x1]

    self.translate_windows(
      read,
      write,
      (image.shape[0], image.shape[1]),
      image.dtype,
      on_progress=on_progress,
    )
    return output

  def translate_windows(
    self,
    read_window: ReadWindow,
    write_window: WriteWindow,
    shape: tuple[int, int],
    dtype: Any,
    *,
    on_progress: OnProgress | None = None,
  ) -> None:
    """Translates an image that need not be in memory, by tiles.

    Args:
      read_window: (y0, y1, x0, x1) to [y1 - y0, x1 - x0, C] in the values of
        the files, as for a call.
      write_window: takes (y0, x0, [h, w, C']) in the values of the output;
        together they cover it.
      shape: height and width.
      dtype: of what is read.
      on_progress: called with (tiles done, tiles in all).

    Raises:
      WorkdirError: the scratch folder can't be written.
    """
    of_input, of_output = values_for(
      np.empty(0, dtype), self.config.data, self.direction
    )
    translate_tiled(
      self.config,
      self._params,
      self.direction,
      lambda *window: of_input.to_network(read_window(*window)),
      lambda y0, x0, window: write_window(
        y0, x0, of_output.from_network(window)
      ),
      shape,
      key=self._key,
      scratch=self._scratch,
      on_progress=on_progress,
    )

  def _tiled(self, image: np.ndarray) -> np.ndarray:
    return translate_array(
      self.config,
      self._params,
      self.direction,
      image,
      key=self._key,
      scratch=self._scratch,
    )


def load_translator(
  path: str | pathlib.Path,
  direction: Direction = 'ab',
  *,
  seed: int = 0,
  sample: int = 0,
) -> Translator:
  """The translator of a checkpoint, with averaged weights where it has them.

  Args:
    path: a run's folder, or one of its checkpoints.
    direction: 'ab' or 'ba'.
    seed: of dropout, where the network has it.
    sample: which of the draws of that seed.

  Raises:
    WorkdirError: it is none of these, damaged, or has no such direction.
  """
  loaded = checkpoint.load(path, direction=direction)
  return Translator(
    loaded.config,
    loaded.state.translators,
    direction,
    seed=seed,
    sample=sample,
  )


def bucket(length: int, generator: GeneratorConfig) -> int:
  """The least side not below `length` of those that are compiled for.

  They are multiples of what the network takes, at most eight between a power
  of two and the next, so images of many sizes need few compilations.
  """
  octave = 1 << max(0, math.ceil(math.log2(length)) - 1)
  step = max(size_multiple(generator), octave // _SIZES_AN_OCTAVE)
  return -(-length // step) * step


def default_whole_pixels(generator: GeneratorConfig) -> int:
  """Pixels that are translated at once."""
  pixels = _WHOLE_PIXELS * _FILTERS // generator.filters
  if generator.name != 'vit_unet':
    return pixels
  # Attention has heads * tokens ** 2 floats, with a token in 16 x 16 pixels.
  return min(pixels, 256 * math.isqrt(_ATTENTION // generator.heads))
