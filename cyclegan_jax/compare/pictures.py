"""The runs' translations of the same test images."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from cyclegan_jax.compare.runs import Run
from cyclegan_jax.config import (
  Config,
  DataConfig,
  Direction,
  source_options,
)
from cyclegan_jax.data.image_list import Images
from cyclegan_jax.data.loader import read_test_image
from cyclegan_jax.data.sources import (
  domain_folders,
  folder_options,
  open_images,
)
from cyclegan_jax.errors import DataError, UserError, printable
from cyclegan_jax.images import to_float, to_rgb
from cyclegan_jax.inference import make_translator
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.terminal import track
from cyclegan_jax.types import Params

# uint8 [h, w, 3], or a text about why there is none.
Picture = np.ndarray | str
_OpenImages = Callable[[DataConfig], dict[str, Images]]


@dataclasses.dataclass
class Pictures:
  """Test images of one domain, and each run's translations of them.

  Attributes:
    direction: 'ab' or 'ba'.
    names: of the test images.
    indices: of the test images in their set.
    inputs: the test images.
    size: height and width at which `inputs` were read.
    outputs: translations by run and image; one text for a run without any.
  """

  direction: Direction
  names: list[str]
  indices: list[int]
  inputs: list[Picture]
  size: int
  outputs: list[list[Picture] | str] = dataclasses.field(default_factory=list)


def make_pictures(
  runs: Sequence[Run], count: int, *, data: pathlib.Path | None = None
) -> list[Pictures]:
  """Translates test images with the newest checkpoint of each run.

  Each run reads them with its own size, channels and preprocessing. A text
  takes the place of what cannot be made, and is a problem of the run.

  Args:
    runs: the runs; their `checkpoint_step` and `problems` are updated.
    count: test images of each domain, spread evenly over all; 0 for none.
    data: a folder of images in place of the runs' own; see `compare_runs`.

  Raises:
    UserError: `data` has no images.
  """
  if not count:
    return []
  # Runs that read the same images in the same way open them once.
  open_cached = functools.cache(open_images)
  options, all_pictures = _select_images(runs, count, data, open_cached)
  shown = runs if all_pictures else []
  for run in track(shown, 'translating', len(shown)):
    try:
      found = checkpoint.load(run.folder)
      config = found.config.replace(data=options)
      images = open_cached(config.data)
    except UserError as error:
      run.add_problem(str(error))
      for pictures in all_pictures:
        pictures.outputs.append(str(error))
      continue
    run.checkpoint_step = int(found.state.step)
    for pictures in all_pictures:
      if pictures.direction not in found.directions:
        pictures.outputs.append(
          'it was imported without a generator for this direction'
        )
        continue
      inputs, outputs = _translate(
        config,
        found.state.translators,
        pictures.direction,
        images[f'test_{pictures.direction[0]}'],
        pictures.indices,
      )
      pictures.outputs.append(outputs)
      # Inputs are shown as the run with the largest images reads them.
      if config.data.size > pictures.size:
        pictures.size, pictures.inputs = config.data.size, inputs
  return all_pictures


def _select_images(
  runs: Sequence[Run],
  count: int,
  data: pathlib.Path | None,
  open_cached: _OpenImages,
) -> tuple[Mapping[str, Any], list[Pictures]]:
  """Selects test images of the first run that can read its own.

  Returns:
    The options of config.data that say where the images come from, and the
    images of each direction, without translations; none if no run can.
  """
  options: Mapping[str, Any] = {}
  domains = set('ab')
  if data is not None:
    options = _options_of_folder(data)
    domains = set(domain_folders(data)) or domains
  directions: tuple[Direction, ...] = ('ab', 'ba')
  failure: UserError | None = None
  for run in runs:
    if run.config is None:
      continue
    if data is None:
      names = (*source_options(), 'num_test')
      options = {name: getattr(run.config.data, name) for name in names}
    try:
      config = run.config.replace(data=options)
      images = open_cached(config.data)
      selected = []
      for direction in directions:
        if direction[0] in domains:
          test_images = images[f'test_{direction[0]}']
          readable = _readable_images(config, test_images, count)
          selected.append(
            Pictures(
              direction,
              [test_images.names[index] for index in readable],
              list(readable),
              [_show(image) for image in readable.values()],
              config.data.size,
            )
          )
      return options, selected
    except UserError as error:
      failure = error
      run.add_problem(str(error))
  if data is not None and failure:
    raise failure
  return options, []


def _options_of_folder(folder: pathlib.Path) -> dict[str, Any]:
  """Options of config.data for the test images in a folder or a .zip."""
  if not folder.exists():
    raise DataError(
      f'{printable(str(folder))} does not exist: give a folder of images with '
      '--data'
    )
  if not folder.is_dir():
    return folder_options(folder, {})
  folders = domain_folders(folder)
  # A missing domain gets the other's images; its direction is not shown.
  any_folder = next(iter(folders.values()), folder)
  return folder_options(
    folder, {domain: folders.get(domain, any_folder) for domain in 'ab'}
  )


def _readable_images(
  config: Config, test_images: Images, count: int
) -> dict[int, np.ndarray]:
  """Test images by index, spread evenly over all that can be read."""
  total = len(test_images)
  readable: dict[int, np.ndarray] = {}
  failure = None
  tried = set()
  for start in np.linspace(0, total - 1, min(count, total)):
    for offset in range(total):
      index = (int(start) + offset) % total
      if index in tried:
        continue
      tried.add(index)
      try:
        readable[index] = read_test_image(config.data, test_images, index)
        break
      except DataError as error:
        failure = error
  if failure and not readable:
    raise failure
  return dict(sorted(readable.items()))


def _translate(
  config: Config,
  gen: Mapping[str, Params],
  direction: Direction,
  test_images: Images,
  indices: Sequence[int],
) -> tuple[list[Picture], list[Picture]]:
  """The images as a run reads them, and its translations of them."""
  # The same dropout masks as `cyclegan translate` with its default seed.
  translator = make_translator(
    config, dict(gen), direction, key=jax.random.key(0)
  )
  inputs: list[Picture] = []
  outputs: list[Picture] = []
  for index in indices:
    try:
      image = read_test_image(config.data, test_images, index)
    except (DataError, IndexError) as error:
      inputs.append(str(error))
      outputs.append(str(error))
      continue
    inputs.append(_show(image))
    # One image at a time takes the least memory.
    translated = translator(to_float(image)[None])
    outputs.append(to_rgb(np.asarray(translated))[0])
  return inputs, outputs


def _show(image: np.ndarray) -> np.ndarray:
  """A stored image [h, w, C] as uint8 [h, w, 3]."""
  return to_rgb(to_float(image)[None])[0]
