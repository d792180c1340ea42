"""A trained generator for images of any size, in the values of their files."""

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
from cyclegan_jax.translate.tiling import translate_tiled
from cyclegan_jax.translate.tiling.windows import (
  ReadWindow,
  WriteWindow,
  array_reader,
  array_writer,
  pad,
)
from cyclegan_jax.types import Params

# Limit for an image that is translated whole, with 64 filters: about 2 GB of
# activations. With fewer filters it is higher.
_WHOLE_PIXELS = 2**21
_FILTERS = 64
_ATTENTION = 2**28  # limit on the floats of a transformer's attention
_SIZES_PER_OCTAVE = 8

OnProgress: TypeAlias = Callable[[int, int], None]
_Convert: TypeAlias = Callable[[np.ndarray], np.ndarray]


def _no_progress(done: int, total: int) -> None:
  del done, total


class Translator:
  """One direction of a checkpoint, as a function of images.

  Attributes:
    config: config of the training run.
    direction: 'ab' or 'ba'.
    whole_pixels: images with more pixels are translated by tiles.
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
    """Takes trained parameters; `load_translator` reads them.

    Args:
      config: config of the training run.
      generators: `state.translators`.
      direction: 'ab' or 'ba'.
      seed: random seed of dropout. Equal seeds and samples give equal masks
        for every image.
      sample: number of the draw with that seed.
      whole_pixels: images with more pixels are translated by tiles; 0 for a
        limit that needs about 2 GB.
      scratch: folder of the tiles' scratch files; None for the system's.
    """
    self.config = config
    self.direction = direction
    self.whole_pixels = whole_pixels or default_whole_pixels(config.generator)
    if self._has_fixed_size:
      self.whole_pixels = sys.maxsize  # images are resized, never tiled
    self._params = generators[direction]
    key = jax.random.key(seed)
    self._key = jax.random.fold_in(key, sample) if sample else key
    self._scratch = scratch
    self._translate = make_translator(
      config, generators, direction, key=self._key
    )

  def __call__(self, images: np.ndarray) -> np.ndarray:
    """Translates images, each independently.

    Args:
      images: [H, W, C] or [B, H, W, C] of any size: uint8 or uint16, or
        floats in [-1, 1] as the networks see them.

    Returns:
      The same with C' channels. Integers become values of the target domain's
      files, of the same dtype if both domains have integers; floats stay in
      [-1, 1].

    Raises:
      ValueError: wrong shape.
    """
    images = np.asarray(images)
    channels = self.config.channels(self.direction[0])
    if images.ndim not in (3, 4) or images.shape[-1] != channels:
      raise ValueError(
        f'images must be [H, W, {channels}] or [B, H, W, {channels}], not '
        f'{list(images.shape)}'
      )
    if 0 in images.shape:
      raise ValueError(f'images of shape {list(images.shape)} have no pixels')
    if images.ndim == 3:
      return self(images[None])[0]
    if images.dtype.kind != 'f':
      return self.translate_stored(images)
    floats = images.astype(np.float32)
    return self._translate_values(floats, floats.dtype, _same, _same)

  def translate_stored(
    self, images: np.ndarray, *, on_progress: OnProgress = _no_progress
  ) -> np.ndarray:
    """Translates images in the values of their files, also floats.

    Args:
      images: [B, H, W, C].
      on_progress: called with the number of tiles done and their total, if
        the image is translated by tiles.

    Returns:
      [B, H, W, C'] in the values of the output's files.

    Raises:
      ImageError: the images are floats, and the source domain has integers.
    """
    source, target = values_for(images, self.config.data, self.direction)
    return self._translate_values(
      images,
      target.dtype,
      source.to_network,
      target.from_network,
      on_progress=on_progress,
    )

  def translate_windows(
    self,
    read_window: ReadWindow,
    write_window: WriteWindow,
    shape: tuple[int, int],
    dtype: Any,
    *,
    on_progress: OnProgress = _no_progress,
  ) -> None:
    """Translates an image that does not have to be in memory, by tiles.

    Args:
      read_window: (y0, y1, x0, x1) to [y1 - y0, x1 - x0, C] in the values of
        the image's file.
      write_window: takes (y0, x0, [h, w, C']) in the values of the output's
        file; the windows cover the output, each pixel once.
      shape: height and width.
      dtype: data type of the windows that are read.
      on_progress: called with the number of tiles done and their total.

    Raises:
      WorkdirError: the scratch folder cannot be written.
    """
    source, target = values_for(
      np.empty(0, dtype), self.config.data, self.direction
    )
    self._translate_tiled(
      read_window,
      write_window,
      shape,
      source.to_network,
      target.from_network,
      on_progress,
    )

  @property
  def _has_fixed_size(self) -> bool:
    generator = self.config.generator
    return generator.name == 'keras_unet' and generator.fixed_input_size

  def _translate_values(
    self,
    images: np.ndarray,
    dtype: Any,
    to_network: _Convert,
    from_network: _Convert,
    *,
    on_progress: OnProgress = _no_progress,
  ) -> np.ndarray:
    """[B, H, W, C] to [B, H, W, C'] of a dtype.

    Tiles are converted one by one, so that large images need no floats.
    """
    batch, height, width, _ = images.shape
    if height * width <= self.whole_pixels:
      return from_network(self._translate_whole(to_network(images)))
    channels = self.config.channels(self.direction[1])
    outputs = np.empty((batch, height, width, channels), dtype)
    for image, output in zip(images, outputs, strict=True):
      self._translate_tiled(
        array_reader(image),
        array_writer(output),
        (height, width),
        to_network,
        from_network,
        on_progress,
      )
    return outputs

  def _translate_whole(self, images: np.ndarray) -> np.ndarray:
    """[B, H, W, C] to [B, H, W, C'], both float32 in [-1, 1]."""
    height, width = images.shape[1:3]
    generator, data = self.config.generator, self.config.data
    if self._has_fixed_size:
      side = generator.isize
      small = [resize_to(image, side, side, data) for image in images]
      translated = self._translate_in_chunks(np.stack(small))
      large = [resize_to(image, height, width, data) for image in translated]
      return np.clip(np.stack(large), -1, 1)
    padded = pad(images, bucket(height, generator), bucket(width, generator))
    return self._translate_in_chunks(padded)[:, :height, :width]

  def _translate_in_chunks(self, images: np.ndarray) -> np.ndarray:
    """The network's output, for as many images at a time as memory allows."""
    size = max(1, self.whole_pixels // math.prod(images.shape[1:3]))
    chunks = np.split(images, range(size, len(images), size))
    return np.concatenate([self._translate(chunk) for chunk in chunks])

  def _translate_tiled(
    self,
    read_window: ReadWindow,
    write_window: WriteWindow,
    shape: tuple[int, int],
    to_network: _Convert,
    from_network: _Convert,
    on_progress: OnProgress,
  ) -> None:
    translate_tiled(
      self.config,
      self._params,
      self.direction,
      lambda *window: to_network(read_window(*window)),
      lambda y0, x0, window: write_window(y0, x0, from_network(window)),
      shape,
      key=self._key,
      scratch=self._scratch,
      on_progress=on_progress,
    )


def load_translator(
  path: str | pathlib.Path,
  direction: Direction = 'ab',
  *,
  seed: int = 0,
  sample: int = 0,
) -> Translator:
  """Loads a checkpoint's translator, with averaged weights if it has them.

  Args:
    path: folder of a run, of one of its checkpoints, or of `cyclegan export
      --format hub`; or 'hf:owner/name' for one on a hub.
    direction: 'ab' or 'ba'.
    seed: random seed of dropout.
    sample: number of the draw with that seed.

  Raises:
    WorkdirError: there is no checkpoint, it is damaged, or it lacks this
      direction.
    WeightsError: the files of a hub's folder are damaged.
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
  """The least side of at least `length` for which programs are compiled.

  Such sides are multiples of what the network takes, at most eight per
  octave. So images of many sizes need few compilations.
  """
  octave = 1 << max(0, math.ceil(math.log2(length)) - 1)
  step = max(size_multiple(generator), octave // _SIZES_PER_OCTAVE)
  return -(-length // step) * step


def default_whole_pixels(generator: GeneratorConfig) -> int:
  """Limit on the pixels that are translated at once."""
  pixels = _WHOLE_PIXELS * _FILTERS // generator.filters
  if generator.name != 'vit_unet':
    return pixels
  # Attention has heads * tokens ** 2 floats, with one token per 16 x 16 pixels.
  return min(pixels, 256 * math.isqrt(_ATTENTION // generator.heads))


def _same(array: np.ndarray) -> np.ndarray:
  return array
