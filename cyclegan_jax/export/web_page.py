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
from cyclegan_jax.report import translate_page
from cyclegan_jax.report.html_page import read_page_part
from cyclegan_jax.translate.translator import default_whole_pixels

INDEX_FILE = 'index.html'
RUNTIME_FOLDER = 'onnxruntime'
_WORKER_PARTS = ('pixels.js', 'png.js', 'worker.js')
# The limit where images are resized for the network: their bytes, and a plane
# of floats.
_MAX_PIXELS = 2**26
_CONTENT_POLICY = (
  '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
  "script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' "
  "blob:; connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action "
  "'none'\">\n"
)
_NOTICE = """\
<p class="card" id="from-disk" hidden>The page has to come from a web server,
because browsers do not let a file on a disk read the files beside it. In its
folder, run <code>python -m http.server</code> and open
<a href="http://localhost:8000">http://localhost:8000</a>.</p>
"""
_FOOTER = (
  'Images of 8 bits a channel that this browser can read. They are translated '
  'in the browser and are not sent anywhere.'
)


def check_browser_can_show(config: Config) -> None:
  """Raises UserError unless images have 8 bits and are gray or RGB."""
  for domain in ('a', 'b'):
    channels, values = config.channels(domain), values_of(config.data, domain)
    if channels not in (1, 3) or not values.is_plain:
      raise UserError(
        f'domain {domain} has {channels} channels of {values}, and browsers '
        'take images of 1 or 3 channels of uint8 from 0 to 255: export it as '
        'onnx, or use `cyclegan serve`'
      )


def network_file(direction: str) -> str:
  """Name of the ONNX file of a direction."""
  return f'{direction}.onnx'


def write_page(
  folder: pathlib.Path, models: Sequence[Model], *, title: str = ''
) -> None:
  """Writes the page, its style and its scripts.

  Args:
    folder: with the networks and onnxruntime-web.
    models: the exported directions of one checkpoint.
    title: heading of the page; '' for the default.
  """
  texts = {
    'page.css': translate_page.style_sheet(),
    'page.js': translate_page.script(read_page_part('web.js', 'export')),
    'worker.js': ''.join(
      read_page_part(part, 'export') for part in _WORKER_PARTS
    ),
    'icon.svg': read_page_part('icon.svg'),
  }
  # Browsers cache files by their address, which a new export may reuse.
  digest = hashlib.sha256(''.join(texts.values()).encode()).hexdigest()[:12]
  texts[INDEX_FILE] = translate_page.page(
    _page_data(folder, models) | {'worker': f'worker.js?{digest}'},
    style_url=f'page.css?{digest}',
    script_url=f'page.js?{digest}',
    model_choice='<input type="hidden" id="model" value="0">',
    accept='image/*',
    footer=_FOOTER,
    title=title,
    head=_CONTENT_POLICY,
    notice=_NOTICE,
  )
  for name, text in texts.items():
    (folder / name).write_text(text, encoding='utf-8')


def _page_data(folder: pathlib.Path, models: Sequence[Model]) -> dict[str, Any]:
  """The data of pages/web.js."""

  def file(name: str) -> dict[str, Any]:
    return {'name': name, 'bytes': (folder / name).stat().st_size}

  model = models[0]
  max_pixels = _MAX_PIXELS
  if not model.side:
    # Half of what the translator does not cut into tiles, because browsers
    # give a page less memory than the machine has.
    whole_pixels = default_whole_pixels(model.config.generator)
    max_pixels = min(_MAX_PIXELS, whole_pixels // 2)
  return {
    'models': [
      translate_page.describe_model(
        model.config, model.step, [each.direction for each in models]
      )
    ],
    'dtype': model.dtype,
    'max_pixels': max_pixels,
    'sizing': {
      'side': model.side,
      'multiple': model.multiple,
      'interpolation': model.config.data.interpolation,
    },
    'networks': {
      each.direction: {
        **file(network_file(each.direction)),
        'channels': [each.channels_in, each.channels_out],
      }
      for each in models
    },
    'runtimes': {
      name: {
        'script': f'./{RUNTIME_FOLDER}/{served_name(runtime.script)}?{VERSION}',
        'wasm': file(f'{RUNTIME_FOLDER}/{served_name(runtime.wasm)}'),
      }
      for name, runtime in RUNTIMES.items()
    },
  }
