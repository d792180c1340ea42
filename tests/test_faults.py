"""Runs that are killed or spoilt end with the same bits, as in faults.py."""

import importlib
import os
import pathlib
import shutil
import sys

import pytest

EXPERIMENTS = pathlib.Path(__file__).parent.parent / 'experiments'
sys.path.append(str(EXPERIMENTS))
fault_kinds, faults = map(importlib.import_module, ('fault_kinds', 'faults'))

KILLS = 50  # a tenth of the table's
FEW = 10  # as many faults as come with ten kills: hardly more than one of each


@pytest.fixture(scope='module')
def lab():
  with faults.Lab(2, cache=os.environ['JAX_COMPILATION_CACHE_DIR']) as lab:
    yield lab


@pytest.fixture(scope='module')
def few_faults(request, lab):
  """The trials of all that is asked for: two runs at a time."""
  names = [
    item.callspec.params['name']
    for item in request.session.items
    if getattr(item, 'function', None) is test_a_fault_is_recovered_from
  ]
  return faults.inject(lab, names, FEW)


def kill(lab, names):
  if lab.shim is None:
    names = [name for name in names if 'operation' not in name]
    if not names:
      pytest.skip('needs Linux and a C compiler')
  results = faults.inject(lab, names, KILLS)
  trials = [trial for name in names for trial in results[name]]
  assert not [trial.problem for trial in trials if trial.problem]
  return trials


def test_killed_at_random_moments(lab):
  trials = kill(lab, ['SIGKILL at random moments'])
  assert len(trials) == 18


def test_killed_at_file_operations(lab):
  names = [
    'SIGKILL at each file operation of a save',
    'SIGKILL at any file operation',
  ]
  assert len(kill(lab, names)) == 32


@pytest.mark.parametrize(
  'name', [name for name in fault_kinds.FAULTS if 'SIGKILL at' not in name]
)
def test_a_fault_is_recovered_from(few_faults, name):
  trials = few_faults[name]
  if isinstance(trials, str):
    pytest.skip(trials)
  assert trials, 'the fault never hit'
  assert not [trial.problem for trial in trials if trial.problem]


@pytest.fixture
def try_once(lab, monkeypatch):
  if lab.shim is None:
    pytest.skip('needs Linux and a C compiler')
  monkeypatch.setattr(fault_kinds, 'MAX_TRIES', 1)


@pytest.mark.slow
@pytest.mark.usefixtures('try_once')
def test_a_kill_that_never_hits_is_not_counted(lab):
  def strike(lab, workdir, rng, at, **_):
    return lab.run(workdir, under=workdir, at=at, do='kill')

  assert len(fault_kinds.kill_chain(lab, strike, [10**9, 40], 0)) == 1


@pytest.mark.usefixtures('try_once')
def test_a_failing_operation_that_is_never_reached_is_not_counted(lab):
  assert fault_kinds.failing_save(lab, 'EIO', 10**9) == []


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


def test_another_state_is_found(lab, tmp_path):
  reference, workdir = lab.reference(), tmp_path / 'run'
  assert lab.run(workdir, '--config.seed=1').status == 0
  assert reference.compare_saved(workdir) == 'differs: the state of step 20'
