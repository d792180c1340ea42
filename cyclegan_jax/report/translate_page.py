"""A page on which images are translated, whoever does that for it."""

from cyclegan_jax.config import Config
from cyclegan_jax.report.html_page import (
  fill,
  read_part,
)

_SHARED = ('page', 'slider', 'studio')


def studio_style() -> str:
  """The page's style sheet."""
  return ''.join(read_part(f'{each}.css') for each in _SHARED)


def studio_script(own: str) -> str:
  """The page's script.

  Args:
    own: its other half, which translates; pages/studio.js says what it has.
  """
  shared = ''.join(read_part(f'{each}.js') for each in _SHARED)
  return f"'use strict';\n{shared}{own}"


def studio_body(*, model: str, accept: str) -> str:
  """What stands in the page's <main>.

  Args:
    model: element with the id `model`, whose value is the place of the chosen
      one in the data's `models`; as HTML.
    accept: types of files to choose from.
  """
  parts = {'slider': read_part('slider.html'), 'model': model, 'accept': accept}
  return fill(read_part('studio.html'), parts)


def describe(config: Config, step: int) -> str:
  """What tells a checkpoint from others, in a line."""
  generator = config.generator
  return (
    f'{generator.name}, {generator.filters} filters, trained at '
    f'{config.data.size} px, step {step:,}'
  )
