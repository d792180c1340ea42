"""Files in, translated files out."""

import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
import rich.console
import rich.progress
from jax.typing import ArrayLike

from cyclegan_jax import checkpoint, images
from cyclegan_jax.config import Config, size_multiple
from cyclegan_jax.data.decoding import ImageError, decode
from cyclegan_jax.data.files import list_images, open_file
from cyclegan_jax.data.resizing import resize_to
from cyclegan_jax.errors import DataError
from cyclegan_jax.inference import make_translator
from cyclegan_jax.types import Array
from cyclegan_jax.workdir import explain_disk_errors


def translate_files(
  run: pathlib.Path,
  inputs: Sequence[pathlib.Path],
  to: pathlib.Path,
  *,
  direction: str,
  seed: int = 0,
) -> list[str]:
  """Translates images, and folders of them, one at a time.

  An output has its input's size, its place below the folder given, and the
  ending .png.

  Args:
    run: a run's folder, or one of its checkpoints.
    inputs: files and folders.
    to: folder of the outputs.
    direction: 'ab' or 'ba'.
    seed: of dropout, where the network has it.

  Returns:
    A message for each input that could not be translated.

  Raises:
    UserError: the checkpoint or the output folder can't be used, or there
      is no input.
  """
  state, config = checkpoint.load(run)
  translator = make_translator(
    config, state.translators, direction, key=jax.random.key(seed)
  )
  pairs = list(_pairs(inputs, to))
  if not pairs:
    names = ', '.join(str(each) for each in inputs)
    raise DataError(f'no images in {names}: give images, or folders of them')
  failed = []
  sources = {source.resolve() for source, _ in pairs}
  made_from: dict[pathlib.Path, pathlib.Path] = {}
  console = rich.console.Console(stderr=True)
  with explain_disk_errors(to, option='--to'):
    for source, target in rich.progress.track(
      pairs, 'translating', console=console
    ):
      if target.resolve() in sources:
        failed.append(
          f'{source} is not translated: {target}, an input, would be '
          'overwritten: give another --to'
        )
        continue
      other = made_from.setdefault(target, source)
      if other != source:
        failed.append(
          f'{source} is not translated: {target} is made from {other}: '
          'rename one, or give it another --to'
        )
        continue
      try:
        image = _read(source, config, direction)
      except ImageError as error:
        failed.append(str(error))
        continue
      target.parent.mkdir(parents=True, exist_ok=True)
      translated = _translate_one(image, config, translator)
      images.save_png(target, translated)
  return failed


def _pairs(
  inputs: Sequence[pathlib.Path], to: pathlib.Path
) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
  for each in inputs:
    if each.is_dir():
      for name in list_images(str(each)).images:
        inside = os.path.relpath(name, each)
        yield pathlib.Path(name), (to / inside).with_suffix('.png')
    else:
      yield each, (to / each.name).with_suffix('.png')


def _read(path: pathlib.Path, config: Config, direction: str) -> np.ndarray:
  try:
    with open_file(str(path)) as file:
      return decode(
        file,
        str(path),
        channels=config.channels(direction[0]),
        max_pixels=config.data.max_pixels,
      )
  except OSError as error:
    raise ImageError(str(path), error.strerror or str(error)) from error


def _translate_one(
  image: np.ndarray, config: Config, translator: Callable[[ArrayLike], Array]
) -> np.ndarray:
  """[h, w, C] to [h, w, C'], uint8, whatever size the network takes."""
  height, width = image.shape[:2]
  gen = config.generator
  takes_one_size = gen.name == 'seed_unet' and gen.fixed_input_size
  if takes_one_size:
    image = resize_to(image, gen.isize, gen.isize, config.data)
  else:
    multiple = size_multiple(gen)
    pads = [(0, -side % multiple) for side in (height, width)]
    # 'symmetric' pads by any amount; 'reflect' needs a larger image.
    image = np.pad(image, [*pads, (0, 0)], mode='symmetric')
  translated = images.to_uint8(translator(images.to_float(image[None])))[0]
  if takes_one_size:
    return resize_to(translated, height, width, config.data)
  return translated[:height, :width]
