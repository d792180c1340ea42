"""The documentation site: sphinx-build -W -c docs . build/site.

Its pages are the repository's own, at their places, so that links lead to the
same here as where the repository is read. Two are written from the
code, where docs/options.md and docs/commands.md have a comment.
"""

import contextlib
import io
import pathlib

from cyclegan_jax import cli
from cyclegan_jax.config import option_at, option_paths

project = 'cyclegan_jax'
author = 'The developers of cyclegan_jax'
copyright = f'2026, {author}'
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
root_doc = 'README'
include_patterns = [
  '*.md',
  'docs/*.md',
  'experiments/*.md',
  'experiments/default.png',
]
myst_heading_anchors = 3
autodoc_member_order = 'bysource'
autodoc_typehints_format = 'short'
html_theme = 'furo'
html_title = project


def _options():
  lines, section = [], None
  for path in option_paths():
    *groups, name = path.split('.')
    if groups != section:
      section = groups
      lines += ['', f'## {".".join(groups)}', '']
      lines += ['| option | default | meaning |', '|---|---|---|']
    field = option_at(path)
    meaning = field.metadata['help'].replace('|', '\\|').replace('<', '&lt;')
    if choices := field.metadata['choices']:
      meaning += ': ' + ', '.join(f'`{each}`' for each in choices)
    bounds = [
      f'{word} {field.metadata[key]:,}'
      for word, key in (('at least', 'low'), ('at most', 'high'))
      if field.metadata[key] is not None
    ]
    if bounds:
      meaning += f' ({", ".join(bounds)})'
    lines.append(f'| `{name}` | `{field.default!r}` | {meaning} |')
  return '\n'.join(lines)


def _commands():
  parts = [f'```text\n{cli.USAGE}```']
  for name in cli.COMMANDS:
    if name != 'train':  # its help is the page of options
      parts.append(f'## cyclegan {name}\n\n```text\n{_help(name)}```')
  return '\n\n'.join(parts)


def _help(name):
  text = io.StringIO()
  with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
    cli.main([name, '--help'])
  return text.getvalue()


_CONTENTS = """

```{toctree}
:hidden:

中文 <README.zh-CN>
docs/troubleshooting
docs/extend
docs/commands
docs/options
docs/api
experiments/README
experiments/performance
ARCHITECTURE
CONTRIBUTING
CHANGELOG
```
"""


def _write_from_code(app, name, source):
  if name == root_doc:
    source[0] += _CONTENTS
  for mark, write in (('options', _options), ('commands', _commands)):
    source[0] = source[0].replace(f'<!-- {mark} -->', write())


def _write_index(app, error):
  if not error:
    page = '<meta http-equiv="refresh" content="0; url=README.html">\n'
    (pathlib.Path(app.outdir) / 'index.html').write_text(page)


def setup(app):
  """What Sphinx calls."""
  app.connect('source-read', _write_from_code)
  app.connect('build-finished', _write_index)
