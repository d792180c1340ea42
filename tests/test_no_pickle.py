"""Nothing is unpickled but tensors: a pickle is a program that runs.

tests/test_pth.py attacks the one module that may unpickle.
"""

import ast
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import cyclegan_jax
from cyclegan_jax.interop import torch_pickle

PACKAGE = pathlib.Path(cyclegan_jax.__file__).parent
ROOT = pathlib.Path(__file__).parent.parent  # which may lack the package
UNPICKLER = PACKAGE / 'interop' / 'torch_pickle.py'

# marshal is no pickle, but no safer.
BANNED = {
  '_pickle',
  'cloudpickle',
  'dill',
  'joblib',
  'jsonpickle',
  'marshal',
  'pickle',
  'shelve',
}


def unpicklers(tree):
  """Yields whatever in the code could unpickle, as 'line: name'."""
  for node in ast.walk(tree):
    names = []
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      names = [node.module, *(f'{node.module}.{a.name}' for a in node.names)]
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
      names = [node.value]  # import_module('pickle')
    elif isinstance(node, ast.Attribute):
      names = [node.attr]  # pandas.read_pickle
    yield from (
      f'{node.lineno}: {name}'
      for name in names
      if name.split('.')[0] in BANNED or name == 'read_pickle'
    )
    if isinstance(node, ast.keyword) and node.arg == 'allow_pickle':
      is_off = isinstance(node.value, ast.Constant) and not node.value.value
      if not is_off:
        yield f'{node.lineno}: allow_pickle'


def test_one_module_can_unpickle():
  uses = {
    path: list(unpicklers(ast.parse(path.read_text(encoding='utf-8'))))
    for path in PACKAGE.rglob('*.py')
  }
  assert [path for path, names in uses.items() if names] == [UNPICKLER]


def test_that_module_resolves_names_itself():
  tree = ast.parse(UNPICKLER.read_text(encoding='utf-8'))
  nodes = list(ast.walk(tree))
  used = {
    node.attr
    for node in nodes
    if isinstance(node, ast.Attribute)
    and isinstance(node.value, ast.Name)
    and node.value.id == 'pickle'
  }
  assert used == {'Unpickler', 'UnpicklingError', 'dumps'}
  assert vars(torch_pickle._TensorUnpickler).keys() >= {
    'find_class',
    'persistent_load',
  }


@pytest.mark.parametrize(
  'code',
  [
    'import pickle',
    'import cloudpickle as innocent',
    'from dill import loads',
    'def f():\n  import shelve',
    'import marshal',
    "importlib.import_module('pickle')",
    "np.load('x.npy', allow_pickle=True)",
    "np.load('x.npy', allow_pickle=flag)",
    'import pandas\npandas.read_pickle(path)',
    'np.lib.format.pickle.loads(data)',
  ],
)
def test_the_check_itself(code):
  assert list(unpicklers(ast.parse(code)))


@pytest.mark.parametrize(
  'code', ["np.load('x.npy', allow_pickle=False)", 'import json']
)
def test_the_check_lets_pass(code):
  assert not list(unpicklers(ast.parse(code)))


# The hook is installed before anything else is imported and cannot be removed.
# At the end a pickle that names a global shows that it works.
AUDITED = """
import json, sys
found = []

def hook(event, args):
  if event == 'pickle.find_class':
    found.append('.'.join(map(str, args)))
    raise RuntimeError(f'unpickled {found[-1]}')

sys.addaudithook(hook)
from cyclegan_jax import cli

statuses = [cli.main(words) for words in json.loads(sys.argv[1])]
in_the_run = list(found)

import pickle, subprocess

data = pickle.dumps(subprocess.Popen)
raised = []
for unpickle in (pickle.loads, pickle._loads):  # in C, and in Python
  try:
    unpickle(data)
  except RuntimeError as error:
    raised.append(str(error))
print(json.dumps([statuses, in_the_run, raised]))
"""


def audited(*commands):
  """Runs commands in a process and returns the globals that it unpickled."""
  done = subprocess.run(
    [sys.executable, '-c', AUDITED, json.dumps(commands)],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  statuses, found, raised = json.loads(done.stdout.splitlines()[-1])
  assert raised == ['unpickled subprocess.Popen'] * 2, 'the hook is at work'
  assert statuses == [0] * len(commands), done.stderr
  return found


def write_images(folder, count):
  folder.mkdir(parents=True)
  for seed in range(count):
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 20, 3), np.uint8)
    Image.fromarray(pixels).save(folder / f'{seed}.png')


@pytest.mark.process
def test_a_run_its_resume_its_scores_and_its_use_unpickle_nothing(tmp_path):
  write_images(tmp_path / 'photos', 3)
  train = [
    'train',
    '--config=configs/tiny.py',
    f'--workdir={tmp_path}/run',
    '--config.generator.isize=4',
    '--config.generator.fixed_input_size=False',
    '--config.discriminator.name=pixelgan',
  ]
  # The second process reads what the first has left: all of it, from disk.
  assert audited([*train, '--config.steps=4']) == []
  use = ['translate', f'{tmp_path}/run', f'{tmp_path}/photos']
  judge = ['evaluate', f'{tmp_path}/run', '--to', f'{tmp_path}/scores.json']
  # The features' network too, where there is one.
  assert audited(train, [*use, '--to', f'{tmp_path}/out'], judge) == []
  steps = json.loads(
    (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()[-1]
  )
  assert steps['step'] == 8
  assert 'stripes' in (tmp_path / 'run' / 'index.html').read_text()  # scored
  assert len(list((tmp_path / 'out').glob('*.png'))) == 3
  scores = json.loads((tmp_path / 'scores.json').read_text())
  assert scores['directions']['ab']['l1']['translated']['images'] == [3]
