"""What all pages have in common: their frame, their looks and their scripts.

A page is one file: the styles and scripts in pages/ are copied into it, so
that it opens from a disk without a server and can be sent.
"""

import datetime
import html
import importlib.resources
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cyclegan_jax.report.metric_history import Curve
from cyclegan_jax.storage.atomic import replace_bytes


def write_page(
  path: Path,
  name: str,
  parts: Mapping[str, str],
  data: Any,
  *,
  title: str,
  status: str,
  done: float | None = None,
  shared: Sequence[str] = (),
  head: str = '',
) -> None:
  """Writes a page whole, or not at all.

  Args:
    path: of the HTML file.
    name: of pages/NAME.html, what stands below the heading, with {{part}}
      where a part belongs; and of its .css and .js.
    parts: by name, as HTML. `written`, the time, is there for all.
    data: for the page's script, of what JSON has; without NaN.
    title: the heading, as plain text, like the status.
    status: the line below.
    done: a bar's share in [0, 1]; None for no bar.
    shared: parts of several pages, whose .html the page has as {{part}}.
    head: elements for the page's head, as HTML.

  Raises:
    OSError: it can't be written.
  """
  now = datetime.datetime.now().astimezone()
  stems = ['page', *shared, name]
  known = {
    **parts,
    **{each: read_part(f'{each}.html') for each in shared},
    'written': now.strftime('%Y-%m-%d %H:%M:%S %z'),
  }
  frame = {
    'head': head,
    'title': html.escape(title),
    'status': html.escape(status),
    'done_hidden': ' hidden' if done is None else '',
    'done_percent': f'{100 * (done or 0):.2f}',
    'style': ''.join(read_part(f'{each}.css') for each in stems),
    'body': fill(read_part(f'{name}.html'), known),
    'data': json_for_script(data),
    'script': ''.join(read_part(f'{each}.js') for each in stems),
  }
  text = fill(read_part('page.html'), frame)
  # A name that no encoding knows, from an old disk, shows as '?'.
  replace_bytes(path, text.encode('utf-8', 'replace'))


def chart_data(
  curves: Iterable[tuple[str, Mapping[str, Any], Curve]],
) -> dict[str, Any]:
  """Curves for pages/charts.js: lists of steps once, numbers of five digits.

  Args:
    curves: each with its chart's name and what tells it from the others there.
  """
  steps: list[list[int]] = []
  places: dict[tuple[int, ...], int] = {}
  charts: dict[str, list[dict[str, Any]]] = {}
  for name, which, curve in curves:
    at = places.setdefault(tuple(curve.steps), len(steps))
    if at == len(steps):
      steps.append(curve.steps)
    entry = {
      **which,
      'x': at,
      'y': _compact(curve.means),
      'last': _compact([curve.last])[0],
    }
    if curve.lows != curve.means or curve.highs != curve.means:
      entry |= {'low': _compact(curve.lows), 'high': _compact(curve.highs)}
    if curve.not_finite:
      entry['odd'] = curve.not_finite
    charts.setdefault(name, []).append(entry)
  return {
    'steps': steps,
    'charts': [{'name': name, 'curves': each} for name, each in charts.items()],
  }


def _compact(values: Iterable[float | None]) -> list[float | None]:
  """Five digits of each; None, a gap in the curve, for what is no number."""
  return [
    None if each is None or not math.isfinite(each) else float(f'{each:.5g}')
    for each in values
  ]


def read_part(name: str, package: str = 'report') -> str:
  """The text of a file in pages/, here or of another of our packages."""
  folder = importlib.resources.files(f'cyclegan_jax.{package}') / 'pages'
  return folder.joinpath(name).read_text(encoding='utf-8')


def fill(template: str, parts: Mapping[str, str]) -> str:
  """Puts parts where the template has {{part}}."""
  # One pass, so that braces in the parts stay as they are.
  return re.sub(r'\{\{(\w+)\}\}', lambda match: parts[match[1]], template)


def json_for_script(data: Any) -> str:
  """JSON that no text in it can end the script element it stands in."""
  text = json.dumps(data, separators=(',', ':'), allow_nan=False)
  return text.replace('<', '\\u003c')  # non-ASCII is escaped by dumps itself
