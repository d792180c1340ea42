"""Runs that can be killed, and how they compare with an undisturbed run.

A run is `python main.py`, forked from a process that has imported everything,
so that hundreds are affordable; it has a process id of its own and really
dies. `fault_shim.c` is preloaded into it where there is a C compiler.
"""

import collections
import contextlib
import ctypes
import functools
import hashlib
import multiprocessing
import multiprocessing.forkserver
import os
import pathlib
import runpy
import shutil
import signal
import struct
import subprocess
import sys
import time
from unittest import mock

import jax
import numpy as np
import pytest

from cyclegan_jax.storage import checkpoint

FOLDER = pathlib.Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
STEPS = 20
TIMEOUT_SECONDS = 300
# The smallest networks, as each process traces them anew. The state still has
# all of its parts: pools, averaged weights, both optimizers.
OPTIONS = (
  '--config=configs/tiny.py',
  '--config.generator.isize=4',
  '--config.generator.fixed_input_size=False',
  '--config.discriminator.name=pixelgan',
  '--config.data.size=8',
  '--config.data.load_size=10',
  f'--config.steps={STEPS}',
  '--config.log.metrics_every_steps=1',
  '--config.log.samples_every_steps=8',
  '--config.checkpoint.every_steps=2',
)
KEEP_ONE = '--config.checkpoint.keep=1'

_CONTEXT = multiprocessing.get_context('forkserver')
_CONTEXT.set_forkserver_preload(
  [
    '__main__',
    'fault_lab',
    'cyclegan_jax.commands.train',
    'tensorboardX.proto.event_pb2',
  ]
)


def _run_main(argv, outputs, faults, caches_programs):
  """Becomes the run; called in the forked process."""
  for number, path in enumerate(outputs, start=1):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
  os.chdir(ROOT)
  os.environ.update(faults)
  if 'LD_PRELOAD' in os.environ:
    ctypes.CDLL(None).fault_reset()
  jax.config.update('jax_enable_compilation_cache', caches_programs)
  sys.argv = ['main.py', *argv]
  runpy.run_path('main.py', run_name='__main__')


class Run:
  """A started run."""

  def __init__(self, process, outputs, log):
    self._process, self._outputs, self._log = process, outputs, log
    self.began = time.monotonic()

  @property
  def pid(self):
    return self._process.pid

  @property
  def status(self):
    """The exit status, -n after signal n; None as long as it runs."""
    return self._process.exitcode

  @property
  def stdout(self):
    return self._outputs[0].read_text(errors='replace')

  @property
  def stderr(self):
    return self._outputs[1].read_text(errors='replace')

  def send(self, number):
    # Its end may be known here only a moment later.
    with contextlib.suppress(ProcessLookupError):
      if self.status is None:
        os.kill(self.pid, number)

  def wait(self, timeout=TIMEOUT_SECONDS):
    """Waits for the end; after the timeout the run is killed and fails."""
    self._process.join(timeout)
    if self.status is None:
      self._process.kill()
      pytest.fail(f'the run hangs: {self.stderr[-800:]}')
    return self.status

  def sleep(self, seconds):
    """Waits for some seconds, or for the end of the run."""
    self._process.join(seconds)

  def wait_until(self, condition):
    """Waits for a condition, or for the end of the run."""
    while self.status is None and not condition():
      assert time.monotonic() - self.began < TIMEOUT_SECONDS
      time.sleep(0.005)

  @property
  def was_hit(self):
    """Whether the shim hit an operation."""
    return self._log.exists()


class Lab:
  """A folder with runs of one config, and the undisturbed run of it."""

  def __init__(self, folder):
    self._folder, self._count = folder, 0
    self.has_shim = sys.platform == 'linux' and bool(shutil.which('cc'))
    env = {
      'JAX_PLATFORMS': 'cpu',
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      'COLUMNS': '1000',  # no line is broken
      'PYTHONPATH': f'{ROOT}{os.pathsep}{FOLDER}',
    }
    if self.has_shim:
      shim = folder / 'fault_shim.so'
      command = ['cc', '-O1', '-fPIC', '-shared', '-o', shim]
      subprocess.run([*command, FOLDER / 'fault_shim.c'], check=True)
      env['LD_PRELOAD'] = str(shim)
    with mock.patch.dict(os.environ, env):
      multiprocessing.forkserver.ensure_running()

  def path(self, name):
    """A path that does not exist yet."""
    self._count += 1
    return self._folder / f'{name}_{self._count}'

  def start(self, workdir, *options, caches_programs=True, **faults):
    """Starts a run.

    Args:
      workdir: the run's folder.
      *options: after `OPTIONS`.
      caches_programs: whether compiled programs of other runs are used.
      **faults: orders for the shim: `at=3` is FAULT_AT=3.
    """
    if faults and not self.has_shim:
      pytest.skip('needs Linux and a C compiler')
    outputs, log = [self.path('stdout'), self.path('stderr')], self.path('hits')
    for path in outputs:
      path.touch()
    orders = {f'FAULT_{name.upper()}': str(faults[name]) for name in faults}
    argv = [*OPTIONS, *map(str, options), f'--workdir={workdir}']
    process = _CONTEXT.Process(
      target=_run_main,
      args=(argv, outputs, orders | {'FAULT_LOG': str(log)}, caches_programs),
    )
    process.start()
    return Run(process, outputs, log)

  def run(self, workdir, *options, **kwargs):
    """Runs to the end; see `start`."""
    run = self.start(workdir, *options, **kwargs)
    run.wait()
    return run

  @functools.cache  # noqa: B019 (there is one lab)
  def reference(self, *options):
    """The undisturbed run with some options."""
    return Reference(self, options)

  def finish(self, workdir, *options):
    """Runs to the end, which has to equal the undisturbed run's."""
    run = self.run(workdir, *options)
    assert run.status == 0, run.stderr
    self.reference(*options).check_finished(workdir)
    return run


class Reference:
  """What an undisturbed run left, and others have to leave."""

  def __init__(self, lab, options):
    # A signal may stop a run at any step, so each has a checkpoint here. The
    # second run loads compiled programs, and takes as long as others will.
    every = ('--config.checkpoint.every_steps=1', '--config.checkpoint.keep=99')
    for extra in (every, ()):
      workdir = lab.path('undisturbed')
      run = lab.run(workdir, *options, *extra)
      assert run.status == 0, run.stderr
      if extra:
        self._metrics = metrics(workdir)
        self._scalars = scalars(workdir)
        self._states = {
          step: digest(
            checkpoint.load(workdir / 'checkpoints' / str(step)).state
          )
          for step in saved_steps(workdir)
        }
    self.seconds = time.monotonic() - run.began
    self.check_finished(workdir)

  def check_saved(self, workdir):
    """Checks the newest checkpoint."""
    step = saved_steps(workdir)[-1]
    state = checkpoint.load(workdir).state
    assert int(state.step) == step, 'the newest checkpoint is damaged'
    assert digest(state) == self._states[step], f'another state of step {step}'

  def check_finished(self, workdir):
    """Checks all that a finished run left."""
    assert saved_steps(workdir)[-1] == max(self._states)
    assert metrics(workdir) == self._metrics
    assert scalars(workdir) == self._scalars
    self.check_saved(workdir)


def saved_steps(workdir):
  """The steps of the checkpoints, damaged ones included."""
  names = (path.name for path in (workdir / 'checkpoints').glob('*'))
  return sorted(int(name) for name in names if name.isdigit())


def digest(state):
  """A checksum of all bits of a state and of the names of its leaves."""
  total = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    total.update(f'{path} {array.dtype} {array.shape}'.encode())
    total.update(array.tobytes())
  return total.hexdigest()


def metrics(workdir):
  return (workdir / 'metrics.jsonl').read_text().splitlines()


def scalars(workdir):
  """Each (step, name, value) that TensorBoard shows, counted."""
  from tensorboardX.proto.event_pb2 import Event

  counts = collections.Counter()
  for path in sorted((workdir / 'tensorboard').iterdir()):
    data, at = path.read_bytes(), 0
    while at + 12 <= len(data):
      (length,) = struct.unpack_from('<Q', data, at)
      if at + 16 + length > len(data):
        break
      event = Event.FromString(data[at + 12 : at + 12 + length])
      at += 16 + length
      if event.HasField('session_log'):  # TensorBoard discards later steps
        for key in [key for key in counts if key[0] >= event.step]:
          del counts[key]
      for value in event.summary.value:
        if value.HasField('simple_value'):
          counts[event.step, value.tag, value.simple_value] += 1
  return counts


@contextlib.contextmanager
def mounted(folder, *args):
  """Mounts something at a folder; skips the test where that is forbidden."""
  folder.mkdir(exist_ok=True)
  command = ['mount', *args, str(folder)]
  done = subprocess.run(command, capture_output=True, text=True)
  if done.returncode:
    pytest.skip(f'may not mount: {done.stderr.strip()}')
  try:
    yield folder
  finally:
    subprocess.run(['umount', '-l', folder], check=True)


def is_killed(run):
  return run.status == -signal.SIGKILL
