"""What several runs make of the same test images."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import rich.console
import rich.progress

from cyclegan_jax import images
from cyclegan_jax.compare.tables import Pictures
from cyclegan_jax.config import Config, DataConfig, source_options
from cyclegan_jax.data.image_list import Images
from cyclegan_jax.data.loader import read_test_image
from cyclegan_jax.data.sources import open_images
from cyclegan_jax.errors import DataError, UserError, printable
from cyclegan_jax.inference import make_translator
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.types import Params

# Which test images there are; how they are read may differ between runs.
_SOURCE_OPTIONS = (*source_options(), 'num_test')

# A picture, or why there is none.
_Made = np.ndarray | str


class MadePictures(NamedTuple):
  """Pictures of runs.

  Attributes:
    pictures: by direction.
    steps: of the checkpoint of each run; None where it has none.
    notes: what was wrong with each run, a sentence each.
  """

  pictures: list[Pictures]
  steps: list[int | None]
  notes: list[list[str]]


class _Choice(NamedTuple):
  """Which images are shown.

  Attributes:
    options: of config.data, that say where they come from.
    size: at which their run sees them.
    indices: of the test images, by direction.
    names: of them, likewise.
    inputs: of them, likewise.
  """

  options: Mapping[str, Any]
  size: int
  indices: dict[str, list[int]]
  names: dict[str, list[str]]
  inputs: dict[str, list[_Made]]


class _Opener:
  """Opens images once for all runs that read them in one way."""

  def __init__(self) -> None:
    self._opened: dict[DataConfig, dict[str, Images]] = {}

  def __call__(
    self, config: Config, options: Mapping[str, Any]
  ) -> tuple[Config, dict[str, Images]]:
    """The config with the options in its data, and the images of that.

    Raises:
      UserError: they can't be opened.
    """
    config = config.replace(data=options)
    if config.data not in self._opened:
      self._opened[config.data] = open_images(config.data)
    return config, self._opened[config.data]


def make_pictures(
  runs: Sequence[tuple[pathlib.Path, Config | None]],
  count: int,
  *,
  data: pathlib.Path | None = None,
) -> MadePictures:
  """Translates test images by the newest checkpoint of each run.

  Each run reads them at its own size, channels and preprocessing. What can't
  be done is said in its place.

  Args:
    runs: their folders, or their checkpoints', with their configs.
    count: test images of each side, spread over all there are; 0 for none.
    data: a folder of images in place of the runs' own, as `compare_runs`
      takes it.

  Raises:
    UserError: there are no images in `data`.
  """
  notes: list[list[str]] = [[] for _ in runs]
  steps: list[int | None] = [None for _ in runs]
  opener = _Opener()
  choice = _choose(runs, count, data, opener, notes) if count else None
  if choice is None:
    return MadePictures([], steps, notes)
  columns: dict[str, list[list[_Made] | str]] = {d: [] for d in choice.indices}
  inputs, largest = choice.inputs, dict.fromkeys(columns, choice.size)
  for place, (folder, _) in rich.progress.track(
    list(enumerate(runs)),
    'translating',
    console=rich.console.Console(stderr=True),
  ):
    try:
      found = checkpoint.load(folder)
      config, opened = opener(found.config, choice.options)
    except UserError as error:
      for column in columns.values():
        column.append(str(error))
      notes[place].append(str(error))
      continue
    steps[place] = int(found.state.step)
    for direction, column in columns.items():
      if direction not in found.directions:
        column.append('it was imported without a generator for this direction')
        continue
      shown, made = _translate_each(
        config,
        found.state.translators,
        direction,
        opened[f'test_{direction[0]}'],
        choice.indices[direction],
      )
      column.append(made)
      # As the run sees it that sees most of it.
      if config.data.size > largest[direction]:
        largest[direction] = config.data.size
        inputs[direction] = shown
  pictures = [
    Pictures(direction, choice.names[direction], inputs[direction], column)
    for direction, column in columns.items()
  ]
  return MadePictures(pictures, steps, notes)


def _choose(
  runs: Sequence[tuple[pathlib.Path, Config | None]],
  count: int,
  data: pathlib.Path | None,
  opener: _Opener,
  notes: list[list[str]],
) -> _Choice | None:
  """Images of the first run whose data are there; None if none's are."""
  given = None if data is None else _options_of_folder(data)
  failure: UserError | None = None
  for place, (_, config) in enumerate(runs):
    if config is None:
      continue
    options = given or {
      name: getattr(config.data, name) for name in _SOURCE_OPTIONS
    }
    try:
      config, opened = opener(config, options)
      choice = _Choice(options, config.data.size, {}, {}, {})
      for direction in _directions(data):
        of_source = opened[f'test_{direction[0]}']
        found = _readable(config, of_source, count)
        choice.indices[direction] = list(found)
        choice.names[direction] = [of_source.names[i] for i in found]
        choice.inputs[direction] = [_show(each) for each in found.values()]
      return choice
    except UserError as error:
      failure = error
      notes[place].append(str(error))
  if given and failure:
    raise failure
  return None


def _options_of_folder(folder: pathlib.Path) -> dict[str, Any]:
  """Of config.data, for the images in a folder or a .zip."""
  if not folder.exists():
    raise DataError(
      f'{printable(str(folder))} does not exist: give a folder of images with '
      '--data'
    )
  options = dict.fromkeys(source_options(), '')
  sides = _sides(folder)
  if not folder.is_dir():
    options['path'] = str(folder)
  for domain in 'ab':
    # One side stands in for the other, whose direction is not shown.
    source = sides.get(domain) or next(iter(sides.values()), folder)
    if folder.is_dir():
      options[f'train_{domain}'] = options[f'test_{domain}'] = str(source)
  return {**options, 'name': 'folder'}


def _sides(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """The folders of a and b in a folder: testA before trainA."""
  found = {}
  for domain in 'ab':
    for split in ('train', 'test'):
      if (inner := folder / f'{split}{domain.upper()}').is_dir():
        found[domain] = inner
  return found


def _directions(data: pathlib.Path | None) -> list[str]:
  sides = {} if data is None else _sides(data)
  return [each for each in ('ab', 'ba') if not sides or each[0] in sides]


def _readable(
  config: Config, of_source: Images, count: int
) -> dict[int, np.ndarray]:
  """Test images by their index, spread over all that can be read."""
  total = len(of_source)
  found: dict[int, np.ndarray] = {}
  failure = None
  tried = set()
  for start in np.linspace(0, total - 1, min(count, total)):
    for attempt in range(total):
      index = (int(start) + attempt) % total
      if index in tried:
        continue
      tried.add(index)
      try:
        found[index] = read_test_image(config.data, of_source, index)
        break
      except DataError as error:
        failure = error
  if failure and not found:
    raise failure
  return dict(sorted(found.items()))


def _translate_each(
  config: Config,
  gen: Mapping[str, Params],
  direction: str,
  of_source: Images,
  indices: Sequence[int],
) -> tuple[list[_Made], list[_Made]]:
  """The images as the run sees them, and its translations of them."""
  # The same masks of dropout as `translate` has.
  translator = make_translator(
    config, dict(gen), direction, key=jax.random.key(0)
  )
  shown: list[_Made] = []
  made: list[_Made] = []
  for index in indices:
    try:
      image = read_test_image(config.data, of_source, index)
    except (DataError, IndexError) as error:
      shown.append(str(error))
      made.append(str(error))
      continue
    shown.append(_show(image))
    # One at a time, as it takes the least memory; all are of one size.
    fake = translator(images.to_float(image)[None])
    made.append(images.to_rgb(np.asarray(fake))[0])
  return shown, made


def _show(image: np.ndarray) -> np.ndarray:
  """A raw image [h, w, C] as uint8 [h, w, 3]."""
  return images.to_rgb(images.to_float(image)[None])[0]
