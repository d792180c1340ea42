"""The page that translates in its visitor's browser, around ONNX files."""

import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

from cyclegan_jax.config import Config
from cyclegan_jax.errors import UserError
from cyclegan_jax.export.model import Model
from cyclegan_jax.export.onnxruntime_web import RUNTIMES, VERSION, served_name
from cyclegan_jax.media.value_range import values_of
from cyclegan_jax.report.html_page import (
  fill,
  json_for_script,
  read_part,
)
from cyclegan_jax.report.translate_page import (
  describe,
  studio_body,
  studio_script,
  studio_style,
)
from cyclegan_jax.translate.translator import default_whole_pixels

INDEX = 'index.html'
RUNTIME = 'onnxruntime'  # the folder of onnxruntime-web
_WORKER = ('pixels.js', 'png.js', 'worker.js')
# Of one that is resized for the network: its bytes, and a plane of floats.
_MOST_PIXELS = 2**26


def check_values(config: Config) -> None:
  """Raises UserError where images are not of 8 bits, grey or RGB."""
  for domain in ('a', 'b'):
    channels, values = config.channels(domain), values_of(config.data, domain)
    if channels not in (1, 3) or not values.is_plain:
      raise UserError(
        f'domain {domain} has {channels} channels of {values}, and browsers '
        'take images of 1 or 3 channels of uint8 from 0 to 255: export it as '
        'onnx, or use `cyclegan serve`'
      )


def network_name(direction: str) -> str:
  """Of the ONNX file of a direction."""
  return f'{direction}.onnx'


def write_page(folder: pathlib.Path, models: Sequence[Model]) -> None:
  """Writes all that stands around the networks and onnxruntime-web.

  Args:
    folder: that has them already.
    models: of one checkpoint, a direction each.
  """
  texts = {
    'page.css': studio_style(),
    'page.js': studio_script(_own('web.js')),
    'worker.js': ''.join(_own(each) for each in _WORKER),
    'icon.svg': read_part('icon.svg'),
  }
  # Browsers keep files of one address, and another version may follow.
  digest = hashlib.sha256(''.join(texts.values()).encode()).hexdigest()[:12]
  parts = {
    'style': f'page.css?{digest}',
    'script': f'page.js?{digest}',
    'studio': studio_body(
      model='<input type="hidden" id="model" value="0">', accept='image/*'
    ),
    'data': json_for_script(
      _page_data(folder, models) | {'worker': f'worker.js?{digest}'}
    ),
  }
  texts[INDEX] = fill(_own('web.html'), parts)
  for name, text in texts.items():
    (folder / name).write_text(text, encoding='utf-8')


def _own(name: str) -> str:
  return read_part(name, 'export')


def _page_data(folder: pathlib.Path, models: Sequence[Model]) -> dict[str, Any]:
  """What the page has to know."""

  def file(name: str) -> dict[str, Any]:
    return {'name': name, 'bytes': (folder / name).stat().st_size}

  model = models[0]
  config = model.config
  directions = [each.direction for each in models]
  return {
    'models': [
      {'about': describe(config, model.step), 'directions': directions}
    ],
    'dtype': model.dtype,
    # Of what the translator does not cut into tiles, half: what browsers give
    # to a page is less than what a machine has.
    'max_pixels': _MOST_PIXELS
    if model.side
    else min(_MOST_PIXELS, default_whole_pixels(config.generator) // 2),
    'treatment': {
      'side': model.side,
      'multiple': model.multiple,
      'interpolation': config.data.interpolation,
    },
    'networks': {
      each.direction: {
        **file(network_name(each.direction)),
        'channels': [each.channels_in, each.channels_out],
      }
      for each in models
    },
    'runtimes': {
      name: {
        'script': f'./{RUNTIME}/{served_name(runtime.script)}?{VERSION}',
        'wasm': file(f'{RUNTIME}/{served_name(runtime.wasm)}'),
      }
      for name, runtime in RUNTIMES.items()
    },
  }
