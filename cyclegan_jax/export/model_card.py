"""The model card of a hub's folder."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cyclegan_jax.config import (
  Config,
  DataConfig,
  differences,
  option_at,
  option_paths,
  value_at,
)
from cyclegan_jax.export.model import Model
from cyclegan_jax.media.value_range import values_of
from cyclegan_jax.report.html_page import fill, read_page_part
from cyclegan_jax.storage.hub_folder import FILE_NAMES, HUB_PREFIX
from cyclegan_jax.version import __version__

CARD_FILE = 'README.md'
SHEET_FILE = 'samples.png'
_NO_SCORES = (
  'None: `cyclegan evaluate RUN`, and then this export again, adds them.'
)


def without_private_paths(config: Config) -> Config:
  """A copy without the paths of folders and files of this machine.

  Plugins keep their file's name, so that a message can ask for them.
  """
  for path in option_paths():
    value = value_at(config, path)
    if path == 'config.plugins':
      value = ','.join(
        re.split(r'[\\/]', text)[-1] for text in value.split(',')
      )
    elif not option_at(path).metadata['is_path'] or value.startswith(
      HUB_PREFIX
    ):
      continue
    elif re.search(r'[\\/~]', value):
      value = ''
    *_, section, name = path.split('.')
    changes: Any = {name: value}
    if section != 'config':
      changes = {section: changes}
    config = config.replace(**changes)
  return config


def model_card(
  models: Sequence[Model],
  *,
  counts: Mapping[str, int],
  scores: str,
  values: Mapping[tuple[str, str], float],
  has_sheet: bool,
) -> str:
  """The text of README.md.

  Args:
    models: the exported directions of one checkpoint.
    counts: numbers of images by split, such as 'train_a', where known.
    scores: Markdown; '' for none.
    values: the same by (direction, metric).
    has_sheet: whether the sample sheet is in the folder.
  """
  model, config = models[0], models[0].config
  ways = [_escape(config.data.way(each.direction, ' to ')) for each in models]
  sheet = ''
  if has_sheet:
    sheet = (
      f'![Test images, their translations, and the way back]({SHEET_FILE})\n'
    )
  base_model = ''
  if config.init_from.startswith(HUB_PREFIX):
    name = config.init_from.removeprefix(HUB_PREFIX).partition('@')[0]
    base_model = f'base_model: {name}\n'
  recipe = [
    f'{path}={value!r}'
    for path, (_, value) in differences(Config(), config).items()
  ]
  parts = {
    'base_model': base_model,
    'model_index': ''.join(
      f'{line}\n' for line in _model_index(models, values)
    ),
    'title': ' and '.join(ways),
    'version': __version__,
    'step': f'{model.step:,}',
    'sheet': sheet,
    'direction': model.direction,
    'example': '\n'.join(_example(model)),
    'files': '\n'.join(
      f'| `{FILE_NAMES[each.direction]}` | generator, {way}'
      f'{", running average" if each.is_average else ""} |'
      for each, way in zip(models, ways, strict=True)
    ),
    'data': '\n'.join(_data_table(config, counts)),
    'recipe': '\n'.join(recipe),
    'scores': scores or _NO_SCORES,
  }
  return fill(read_page_part('model_card.md', 'export'), parts)


def _example(model: Model) -> list[str]:
  """Lines of Python that translate an image file."""
  source, target = model.direction
  dtype, channels = (
    values_of(model.config.data, source).dtype,
    model.channels_in,
  )
  mode = {1: 'L', 3: 'RGB'}.get(channels)
  if dtype == 'uint8' and mode:
    library = 'PIL.Image'
    read = f"np.asarray(PIL.Image.open('input.png').convert({mode!r}))"
  else:
    library, read = 'tifffile', "tifffile.imread('input.tif')"
  axis = '[..., None]' if channels == 1 else ''
  # Floats in a call of a translator are the network's, not a file's.
  call = 'translate(image)'
  if dtype == 'float32':
    call = 'translate.translate_stored(image[None])[0]'
  return [
    'import cyclegan_jax',
    *(['import numpy as np'] if 'np.' in read else []),
    f'import {library}',
    '',
    'translate = cyclegan_jax.load_translator('
    f"'hf:OWNER/NAME', '{model.direction}')",
    f'image = {read}{axis}  # {_images(model.config, source)}',
    f'output = {call}  # {_images(model.config, target)}',
  ]


def _images(config: Config, domain: str) -> str:
  """What a user passes or gets, in a comment of Python."""
  dtype = values_of(config.data, domain).dtype
  channels = config.channels(domain)
  return f'{dtype} [h, w, {channels}], {config.data.name_of(domain)}'


def _model_index(
  models: Sequence[Model], values: Mapping[tuple[str, str], float]
) -> list[str]:
  """Lines of YAML with the scores, as huggingface_hub.ModelCard reads them."""
  data = models[0].config.data
  ways: dict[str, str] = {
    each.direction: data.way(each.direction, ' to ') for each in models
  }
  metrics = []
  for (direction, metric), value in values.items():
    if way := ways.get(direction):
      # A float has a dot in YAML 1.1.
      mantissa, *exponent = repr(value).split('e')
      number = mantissa if '.' in mantissa else f'{mantissa}.0'
      metrics += [
        f'    - type: {_quoted(metric)}',
        f'      value: {"e".join([number, *exponent])}',
        f'      name: {_quoted(f"{metric}, {way}")}',
      ]
  if not metrics:
    return []
  return [
    'model-index:',
    f'- name: {_quoted(" and ".join(ways.values()))}',
    '  results:',
    '  - task:',
    '      type: image-to-image',
    '    dataset:',
    f'      name: {_quoted(_source(data))}',
    f'      type: {_quoted(data.dataset or data.name)}',
    '    metrics:',
    *metrics,
  ]


def _quoted(text: str) -> str:
  """A string in YAML, of which JSON's are a part."""
  return json.dumps(text, ensure_ascii=False)


def _source(data: DataConfig) -> str:
  """Where the images are from."""
  return {
    'embedded': 'drawn by cyclegan_jax',
    'folder': 'folders of image files',
    'sequences': 'passed by a program',
    'tfds': 'TensorFlow Datasets: '
    + ', '.join(filter(None, [data.dataset, data.dataset_a, data.dataset_b])),
  }.get(data.name, data.name)


def _data_table(config: Config, counts: Mapping[str, int]) -> list[str]:
  data = config.data
  rows = {
    'source': _source(data),
    'size': f'{data.size} x {data.size} pixels, {data.preprocess}',
  }
  for domain in 'ab':
    texts = [f'{config.channels(domain)} channels, {values_of(data, domain)}']
    for split, use in (('train', 'training'), ('test', 'test')):
      if count := counts.get(f'{split}_{domain}'):
        texts.append(f'{count:,} {use} images')
    rows[data.name_of(domain)] = '; '.join(texts)
  lines = [
    f'| {_escape(name)} | {_escape(text)} |' for name, text in rows.items()
  ]
  return ['| | |', '|---|---|', *lines]


def _escape(text: str) -> str:
  """Plain text in Markdown."""
  return re.sub(r'([\\`*_\[\]|<>#&])', r'\\\1', text)
