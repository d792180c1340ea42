"""What all pages have in common: one file, filled in from a template."""

import datetime
import importlib.resources
import json
import math
import re
from collections.abc import Mapping
from typing import Any


def fill(template: str, parts: Mapping[str, str], data: Any) -> str:
  """A page that opens from a disk without a server.

  Args:
    template: file beside this one, with {{name}} where a part belongs.
    parts: by name, as HTML. `written`, the time, is there for all.
    data: for the page's script, of what JSON has; without NaN.

  Returns:
    The page's text. A name that no encoding knows, from an old disk, is left
    in it: written with errors='replace', it shows as '?'.
  """
  now = datetime.datetime.now().astimezone()
  known = {
    **parts,
    'written': now.strftime('%Y-%m-%d %H:%M:%S %z'),
    'data': _json_for_script(data),
  }
  folder = importlib.resources.files('cyclegan_jax.report')
  text = folder.joinpath(template).read_text(encoding='utf-8')
  # One pass, so that braces in the parts stay as they are.
  return re.sub(r'\{\{(\w+)\}\}', lambda match: known[match[1]], text)


def compact(value: float | None) -> float | None:
  """Five digits of a number; None, a gap in a curve, if it is not one."""
  if value is None or not math.isfinite(value):
    return None
  return float(f'{value:.5g}')


def _json_for_script(data: Any) -> str:
  """JSON that no text in it can end the script element it stands in."""
  text = json.dumps(data, separators=(',', ':'), allow_nan=False)
  return text.replace('<', '\\u003c')  # non-ASCII is escaped by dumps itself
