"""Imports run downwards, and heavy or optional packages have one home."""

import ast
import configparser
import importlib.metadata
import pathlib
import re
import subprocess
import sys

import cyclegan_jax

PACKAGE = pathlib.Path(cyclegan_jax.__file__).parent
ROOT = PACKAGE.parent
SETUP = ROOT / 'setup.cfg'

# Extras that a module may import at its top, as only its command imports it.
OPTIONAL = {
  'export': {'onnx', 'onnxruntime'},
  'media': {'av'},
  'serve': {'starlette', 'uvicorn'},
}


def parse_all():
  """(path below the package, syntax tree) of each module."""
  for path in sorted(PACKAGE.rglob('*.py')):
    yield path.relative_to(PACKAGE), ast.parse(path.read_text(encoding='utf-8'))


def normalize(project):
  return project.lower().replace('_', '-')


def top_level_imports(tree):
  """Names of the packages that a module imports when it is imported."""
  nodes = [*tree.body]
  while nodes:
    node = nodes.pop()
    if isinstance(node, ast.Import):
      yield from (alias.name.split('.')[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield node.module.split('.')[0]
    elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      nodes += ast.iter_child_nodes(node)


def test_contracts_of_import_linter():
  # In a process of its own, since import-linter disables all other loggers.
  program = (
    'import sys, importlinter.cli\n'
    'sys.exit(importlinter.cli.lint_imports("setup.cfg", no_cache=True))'
  )
  done = subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True, cwd=ROOT
  )
  assert done.returncode == 0, done.stdout


def test_pmap_is_in_parallel_alone():
  users = {
    path.as_posix()
    for path, tree in parse_all()
    for node in ast.walk(tree)
    if 'pmap' in (getattr(node, 'attr', ''), getattr(node, 'id', ''))
    or 'pmap'
    in [
      alias.name
      for alias in getattr(node, 'names', ())
      if isinstance(alias, ast.alias)
    ]
  }
  assert users == {'parallel.py'}


def test_modules_import_without_the_extras():
  setup = configparser.ConfigParser()
  setup.read(SETUP, encoding='utf-8')
  core = {
    normalize(re.match(r'[\w-]+', line)[0])
    for line in setup['options']['install_requires'].split('\n')[1:]
  }
  names = {
    name
    for name, projects in importlib.metadata.packages_distributions().items()
    if core & set(map(normalize, projects))
  }
  names |= {'cyclegan_jax', *sys.stdlib_module_names}
  strangers = {
    (path.as_posix(), name)
    for path, tree in parse_all()
    for name in top_level_imports(tree)
    if name not in names | OPTIONAL.get(path.parts[0], set())
  }
  assert not strangers


def test_the_api_page_has_every_public_name():
  page = (ROOT / 'docs' / 'api.md').read_text(encoding='utf-8')
  missing = [
    name
    for name in cyclegan_jax.__all__
    if f'`{name}`' not in page or f'.{name}' not in page
  ]
  assert not missing
