"""The page on which users translate images.

It is served by `cyclegan serve`, and exported by `cyclegan export`. Each adds
a script of its own that translates an image.
"""

import html
from collections.abc import Iterable
from typing import Any

from cyclegan_jax.config import Config
from cyclegan_jax.report.html_page import (
  fill,
  json_for_script,
  read_page_part,
)

_PARTS = ('page', 'slider', 'translate_page')


def style_sheet() -> str:
  """The page's style sheet."""
  return ''.join(read_page_part(f'{part}.css') for part in _PARTS)


def script(translating: str) -> str:
  """The page's script.

  Args:
    translating: the part that translates; the comment at the beginning of
      pages/translate_page.js lists what it defines.
  """
  shared = ''.join(read_page_part(f'{part}.js') for part in _PARTS)
  return f"'use strict';\n{shared}{translating}"


def page(
  data: dict[str, Any],
  *,
  style_url: str,
  script_url: str,
  model_choice: str,
  accept: str,
  footer: str,
  title: str = '',
  head: str = '',
  notice: str = '',
) -> str:
  """The page itself.

  Args:
    data: JSON for the script: `models`, a list of `describe_model`, and what
      the added script needs.
    style_url: address of the style sheet.
    script_url: address of the script.
    model_choice: HTML of a form element with the id 'model', whose value is
      the index of the chosen model.
    accept: file types that may be chosen.
    footer: HTML of the footer.
    title: heading of the page, as plain text; '' for the default, with a line
      about the networks below it.
    head: HTML for the page's head.
    notice: HTML before all else.
  """
  parts = {
    'head': head,
    'title': html.escape(title or 'Translate images'),
    'about_hidden': ' hidden' if title else '',
    'style_url': style_url,
    'script_url': script_url,
    'notice': notice,
    'model_choice': model_choice,
    'accept': accept,
    'slider': read_page_part('slider.html'),
    'footer': footer,
    'data': json_for_script(data),
  }
  return fill(read_page_part('translate_page.html'), parts)


def describe_model(
  config: Config, step: int, directions: Iterable[str]
) -> dict[str, Any]:
  """What the page's script needs of a checkpoint.

  Args:
    config: config of the run.
    step: training step of the checkpoint.
    directions: directions that it translates.
  """
  names = {domain: config.data.name_of(domain) for domain in 'ab'}
  return {
    'about': _describe(config, step),
    'directions': list(directions),
    'names': {
      domain: name.upper() if name == domain else name
      for domain, name in names.items()
    },
  }


def _describe(config: Config, step: int) -> str:
  """A line that tells a checkpoint from others."""
  generator = config.generator
  return (
    f'{generator.name}, {generator.filters} filters, trained at '
    f'{config.data.size} px, step {step:,}'
  )
