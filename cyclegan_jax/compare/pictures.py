"""The runs' translations of the same test images."""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import rich.console
import rich.progress

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
from cyclegan_jax.types import Params

# uint8 [h, w, 3], or a text about why there is none.
Picture = np.ndarray | str
_OpenImages = Callable[[DataConfig], dict[str, Images]]


class Pictures(NamedTuple):
  """Test images of one domain, and each run's translations of them.

  Attributes:
    direction: 'ab' or 'ba'.
    names: of the test images.
    inputs: the test images.
    outputs: translations by run and image; one text for a run without any.
  """

  direction: Direction
  names: Sequence[str]
  inputs: Sequence[Picture]
  outputs: Sequence[Sequence[Picture] | str]


class PicturesOfRuns(NamedTuple):
  """Pictures of several runs.

  Attributes:
    pictures: for each direction.
    steps: step of each run's checkpoint; None for a run without one.
    problems: sentences about what is wrong with each run.
  """

  pictures: list[Pictures]
  steps: list[int | None]
  problems: list[list[str]]


class _Selection(NamedTuple):
  """The test images that are shown.

  Attributes:
    options: options of config.data that say where they come from.
    size: height and width at which `inputs` are.
    names: by direction.
    indices: by direction.
    inputs: by direction.
  """

  options: Mapping[str, Any]
  size: int
  names: dict[Direction, list[str]]
  indices: dict[Direction, list[int]]
  inputs: dict[Direction, list[Picture]]


def make_pictures(
  runs: Sequence[tuple[pathlib.Path, Config | None]],
  count: int,
  *,
  data: pathlib.Path | None = None,
) -> PicturesOfRuns:
  """Translates test images with the newest checkpoint of each run.

  Each run reads them with its own size, channels and preprocessing. A text
  takes the place of what can't be made.

  Args:
    runs: folders of runs or checkpoints, with their configs.
    count: test images of each domain, spread evenly over all; 0 for none.
    data: a folder of images in place of the runs' own; see `compare_runs`.

  Raises:
    UserError: `data` has no images.
  """
  problems: list[list[str]] = [[] for _ in runs]
  steps: list[int | None] = [None] * len(runs)
  # Runs that read the same images in the same way open them once.
  open_cached = functools.cache(open_images)
  selection = None
  if count:
    selection = _select_images(runs, count, data, open_cached, problems)
  if selection is None:
    return PicturesOfRuns([], steps, problems)
  inputs = selection.inputs
  sizes = dict.fromkeys(inputs, selection.size)
  outputs: dict[Direction, list[list[Picture] | str]] = {
    direction: [] for direction in inputs
  }
  for index, (folder, _) in rich.progress.track(
    list(enumerate(runs)),
    'translating',
    console=rich.console.Console(stderr=True),
  ):
    try:
      found = checkpoint.load(folder)
      config = found.config.replace(data=selection.options)
      images = open_cached(config.data)
    except UserError as error:
      for column in outputs.values():
        column.append(str(error))
      problems[index].append(str(error))
      continue
    steps[index] = int(found.state.step)
    for direction, column in outputs.items():
      if direction not in found.directions:
        column.append('it was imported without a generator for this direction')
        continue
      run_inputs, translated = _translate(
        config,
        found.state.translators,
        direction,
        images[f'test_{direction[0]}'],
        selection.indices[direction],
      )
      column.append(translated)
      # Inputs are shown as the run with the largest images reads them.
      if config.data.size > sizes[direction]:
        sizes[direction] = config.data.size
        inputs[direction] = run_inputs
  pictures = [
    Pictures(direction, selection.names[direction], inputs[direction], columns)
    for direction, columns in outputs.items()
  ]
  return PicturesOfRuns(pictures, steps, problems)


def _select_images(
  runs: Sequence[tuple[pathlib.Path, Config | None]],
  count: int,
  data: pathlib.Path | None,
  open_cached: _OpenImages,
  problems: list[list[str]],
) -> _Selection | None:
  """Test images of the first run that can read its own; None without one."""
  domains = set('ab')
  if data is not None:
    options = _options_of_folder(data)
    domains = set(domain_folders(data)) or domains
  directions: tuple[Direction, ...] = ('ab', 'ba')
  failure: UserError | None = None
  for index, (_, config) in enumerate(runs):
    if config is None:
      continue
    if data is None:
      names = (*source_options(), 'num_test')
      options = {name: getattr(config.data, name) for name in names}
    try:
      config = config.replace(data=options)
      images = open_cached(config.data)
      selection = _Selection(options, config.data.size, {}, {}, {})
      for direction in directions:
        if direction[0] not in domains:
          continue
        test_images = images[f'test_{direction[0]}']
        readable = _readable_images(config, test_images, count)
        selection.indices[direction] = list(readable)
        selection.names[direction] = [test_images.names[i] for i in readable]
        selection.inputs[direction] = [_show(x) for x in readable.values()]
      return selection
    except UserError as error:
      failure = error
      problems[index].append(str(error))
  if data is not None and failure:
    raise failure
  return None


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
