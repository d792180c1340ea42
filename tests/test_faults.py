"""Runs that are killed end with the same bits: a tenth of faults.py's."""

import importlib
import os
import pathlib
import shutil

import pytest

EXPERIMENTS = pathlib.Path(__file__).parent.parent / 'experiments'
KILLS = 50


@pytest.fixture(scope='module')
def faults():
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(EXPERIMENTS)
    yield importlib.import_module('faults')


@pytest.fixture(scope='module')
def lab(faults):
  with faults.Lab(2, cache=os.environ['JAX_COMPILATION_CACHE_DIR']) as lab:
    yield lab


def kill(faults, lab, names):
  if lab.shim is None:
    names = [name for name in names if 'operation' not in name]
    if not names:
      pytest.skip('needs Linux and a C compiler')
  results = faults.inject(lab, names, KILLS)
  trials = [trial for name in names for trial in results[name]]
  assert not [trial.problem for trial in trials if trial.problem]
  return trials


def test_killed_at_random_moments(faults, lab):
  trials = kill(faults, lab, ['SIGKILL at random moments'])
  assert len(trials) == 18


def test_killed_at_file_operations(faults, lab):
  names = [
    'SIGKILL at each file operation of a save',
    'SIGKILL at any file operation',
  ]
  assert len(kill(faults, lab, names)) == 32


@pytest.mark.parametrize(
  'name, spoil, expected',
  [
    (
      'metrics.jsonl',
      lambda path: path.write_text(path.read_text() * 2),
      'differs: metrics.jsonl',
    ),
    (
      'tensorboard',
      lambda path: next(path.iterdir()).write_bytes(b''),
      'differs: the events for TensorBoard',
    ),
    (
      'checkpoints/20/record.json',
      lambda path: path.write_bytes(b'{}'),
      'differs: step 20 is not whole, 18 was loaded',
    ),
    (
      'checkpoints/18',
      lambda path: shutil.copytree(path, path.with_name('21')),
      'not finished: the checkpoints are [16, 18, 20, 21]',
    ),
    (
      'checkpoints/20',
      shutil.rmtree,
      'not finished: the checkpoints are [16, 18]',
    ),
  ],
)
def test_differences_are_found(name, spoil, expected, lab, tmp_path):
  reference = lab.reference()
  if not hasattr(lab, 'whole'):
    lab.whole = lab.path('whole')
    assert lab.run(lab.whole).status == 0
  workdir = tmp_path / 'run'
  shutil.copytree(lab.whole, workdir)
  assert not reference.compare_end(workdir)
  spoil(workdir / name)
  assert reference.compare_end(workdir) == expected


def test_another_state_is_found(faults, lab, tmp_path):
  reference, workdir = lab.reference(), tmp_path / 'run'
  assert lab.run(workdir, '--config.seed=1').status == 0
  assert reference.compare_saved(workdir) == 'differs: the state of step 20'
