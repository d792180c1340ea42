"""Modules of torch-fidelity without torchvision, which they do not use.

The package imports it at its top, and there is no build of it for every
machine. So single files are loaded, without the package's own `__init__`.
"""

import ast
import contextlib
import importlib
import importlib.util
import pathlib
import sys
import types
from collections.abc import Iterator

import pytest

_PACKAGE = 'torch_fidelity'


@contextlib.contextmanager
def package() -> Iterator[pathlib.Path]:
  """The package's folder; its files can be imported inside of the block."""
  pytest.importorskip('torch')
  spec = importlib.util.find_spec(_PACKAGE)
  if spec is None or not spec.submodule_search_locations:
    pytest.skip('torch-fidelity is not installed')
  folder = spec.submodule_search_locations[0]
  bare = types.ModuleType(_PACKAGE)
  bare.__path__ = [folder]
  sys.modules[_PACKAGE] = bare
  try:
    yield pathlib.Path(folder)
  finally:
    for name in list(sys.modules):
      if name.partition('.')[0] == _PACKAGE:
        del sys.modules[name]


def load_extractor_module() -> types.ModuleType:
  with package():
    return importlib.import_module(f'{_PACKAGE}.feature_extractor_inceptionv3')


def load_formulas(name: str) -> types.SimpleNamespace:
  """The functions of a file, less what it imports from `utils`.

  That module reads images through torchvision; the formulas don't need it.
  """
  with package() as folder:
    path = folder / f'{name}.py'
    tree = ast.parse(path.read_text(encoding='utf-8'))
    tree.body = [
      node
      for node in tree.body
      if getattr(node, 'module', None) != f'{_PACKAGE}.utils'
    ]
    found: dict[str, object] = {}
    exec(compile(tree, str(path), 'exec'), found)
    return types.SimpleNamespace(**found)
