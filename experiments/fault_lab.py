"""Where faults.py spoils runs: real processes that start fast, and checks.

A run is `python main.py ...`: from the start, or, where hundreds are needed,
forked from a process that has imported everything and done nothing else. Both
have a process id of their own and really die. `fault_shim.c` is preloaded
into both where there is a C compiler.
"""

import collections
import contextlib
import ctypes
import dataclasses
import gc
import hashlib
import json
import os
import pathlib
import queue
import re
import runpy
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
STEPS = 20
TIMEOUT_SECONDS = 300
# Two layers in each network, as Python traces them anew in every process;
# still each part of a state is there: pools, EMA, both optimizers.
OPTIONS = (
  '--config=configs/tiny.py',
  '--config.ema_decay=0.9',
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
DIFFERS = 'differs'
ALL_STEPS = (
  '--config.checkpoint.every_steps=1',
  '--config.checkpoint.keep=1000',
)


class Zygote:
  """A process that runs are forked from, one at a time."""

  def __init__(self, env):
    self._process = subprocess.Popen(
      [sys.executable, __file__],
      cwd=ROOT,
      env=env,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      bufsize=0,
      start_new_session=True,  # Ctrl-C is for the harness
    )
    self._left = b''

  def fork(self, order):
    """Starts a run; returns its process id, good until `release`."""
    self._process.stdin.write(json.dumps(order).encode() + b'\n')
    return int(self._line(TIMEOUT_SECONDS))

  def wait(self, timeout):
    """The exit status as in subprocess, or None if it still runs."""
    line = self._line(timeout)
    return line and int(line)

  def release(self):
    self._process.stdin.write(b'\n')

  def close(self):
    os.killpg(self._process.pid, signal.SIGKILL)  # with a run, if one is left
    self._process.wait()
    self._process.stdin.close()
    self._process.stdout.close()

  def _line(self, timeout):
    deadline = time.monotonic() + timeout
    while b'\n' not in self._left:
      left = max(0, deadline - time.monotonic())
      if not select.select([self._process.stdout], [], [], left)[0]:
        return None
      data = os.read(self._process.stdout.fileno(), 4096)
      if not data:
        raise RuntimeError('the process that runs are forked from has died')
      self._left += data
    line, self._left = self._left.split(b'\n', 1)
    return line


def serve():
  """The zygote's side: forks a run for each line of standard input."""
  # These cost seconds, half of them PyTorch's, which is of no use here.
  sys.modules['torch'] = None
  import orbax.checkpoint  # noqa: F401
  import tensorboardX.proto.event_pb2
  import tensorboardX.summary  # noqa: F401

  import cyclegan_jax.cli  # noqa: F401

  del sys.modules['torch']
  gc.freeze()  # its passes would copy all that a fork shares
  orders, replies = sys.stdin.buffer, os.dup(1)
  while line := orders.readline():
    order = json.loads(line)
    pid = os.fork()
    if pid == 0:
      os.close(replies)
      for number, path in enumerate((os.devnull, *order['outputs'])):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
      os.environ.update(order['env'])
      if 'LD_PRELOAD' in os.environ:
        ctypes.CDLL(None).fault_reset()
      sys.argv = ['main.py', *order['argv']]
      runpy.run_path('main.py', run_name='__main__')
      return
    os.write(replies, b'%d\n' % pid)
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    killed = ended.si_code != os.CLD_EXITED
    os.write(
      replies, b'%d\n' % (-ended.si_status if killed else ended.si_status)
    )
    orders.readline()  # from now on another process may get this number
    os.waitpid(pid, 0)


class Run:
  """A started process; `status` is None as long as it runs."""

  def __init__(self, pid, outputs, wait, release, faults=None):
    self.pid, self.status = pid, None
    self._faults = faults
    self.began, self.seconds = time.monotonic(), None
    self._outputs, self._wait, self._release = outputs, wait, release

  @property
  def stdout(self):
    return self._outputs[0].read_text(errors='replace')

  @property
  def stderr(self):
    return self._outputs[1].read_text(errors='replace')

  def send(self, number):
    if self.status is None:
      os.kill(self.pid, number)

  def poll(self, timeout=0.0):
    """Waits for the end; returns the exit status, None if it still runs."""
    if self.status is None:
      self.status = self._wait(timeout)
      if self.status is not None:
        self.seconds = time.monotonic() - self.began
        self._release()
    return self.status

  def wait(self, timeout=TIMEOUT_SECONDS):
    """Waits for the end, which a hung process is brought to."""
    if self.poll(timeout) is None:
      self.send(signal.SIGKILL)
      self.poll(10)
      self.status = 'hung'
    return self.status

  def wait_until(self, condition, timeout=TIMEOUT_SECONDS):
    """Waits for a condition; False if the process ended before."""
    while self.seconds is None or condition():
      if condition():
        return True
      if self.poll(0.01) is None and time.monotonic() - self.began > timeout:
        return False
    return False

  def spoiled(self):
    """The operations that the shim spoilt, as lines `number name path`."""
    first, count = (int(self._faults.get(key, 0)) for key in ('at', 'count'))
    hits = []
    for line in self._faults['log'].read_text().splitlines():
      number, name, _ = line.split(' ', 2)
      is_meant = first <= int(number) and (
        not count or int(number) < first + count
      )
      # A full disk still lets go of what it has.
      is_free = self._faults['do'] == 'ENOSPC' and name in ('unlink', 'rmdir')
      if is_meant and not is_free:
        hits.append(line)
    return hits

  @property
  def told(self):
    """The end of stderr, for a report of what went wrong."""
    return f'exit status {self.status}: {self.stderr.strip()[-800:]}'

  def line(self, *patterns):
    """The first line of output with the first of these that any has.

    Without one, the last line of stderr.
    """
    lines = [*self.stderr.splitlines(), *self.stdout.splitlines()]
    for pattern in patterns:
      for line in lines:
        if re.search(pattern, line):
          return line.strip()
    return self.stderr.strip().rpartition('\n')[2]


class Lab:
  """A temporary folder with everything that faults are tried on."""

  def __init__(self, jobs, *, cache=None):
    """Starts nothing yet.

    Args:
      jobs: runs at the same time.
      cache: the folder of compiled programs; None for a new one.
    """
    self._stack = contextlib.ExitStack()
    folder = tempfile.TemporaryDirectory(
      prefix='cyclegan_jax_faults_', ignore_cleanup_errors=True
    )
    self.folder = pathlib.Path(self._stack.enter_context(folder))
    cache = cache or self.folder / 'compiled'
    self._env = {
      **os.environ,
      'JAX_PLATFORMS': 'cpu',
      'JAX_COMPILATION_CACHE_DIR': str(cache),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      'PYTHONPATH': str(ROOT),
      'COLUMNS': '1000',  # for lines that are not broken
      # As in tests/conftest.py: LLVM would take longer than all the steps.
      'XLA_FLAGS': '--xla_backend_optimization_level=0 '
      '--xla_llvm_disable_expensive_passes=true',
    }
    self.shim = self._compile_shim()
    if self.shim:
      self._env['LD_PRELOAD'] = str(self.shim)
    self.jobs, self._zygotes = jobs, queue.SimpleQueue()
    self._lock, self._count = threading.Lock(), 0
    self._made = {}

  def __enter__(self):
    for _ in range(self.jobs):
      zygote = Zygote(self._env)
      self._stack.callback(zygote.close)
      self._zygotes.put(zygote)
    return self

  def __exit__(self, *exc):
    self._stack.__exit__(*exc)

  def _compile_shim(self):
    compiler = shutil.which('cc')
    if compiler is None or sys.platform != 'linux':
      return None
    shim = self.folder / 'fault_shim.so'
    source = pathlib.Path(__file__).parent / 'fault_shim.c'
    subprocess.run(
      [compiler, '-O1', '-fPIC', '-shared', '-o', shim, source], check=True
    )
    return shim

  def path(self, name):
    """A name that nothing has yet."""
    with self._lock:
      self._count += 1
      return self.folder / f'{name}_{self._count}'

  def start(self, workdir, *options, real=False, env=(), **faults):
    """Starts a run.

    Args:
      workdir: its folder.
      options: after `OPTIONS`.
      real: start Python anew in place of a fork.
      env: more of the environment; the libraries see it in a real one only.
      faults: orders to the shim, as `at=3` for FAULT_AT=3.
    """
    outputs = [self.path('stdout'), self.path('stderr')]
    if faults:
      faults['log'] = self.path('operations')
    for path in (*outputs, faults.get('log')):
      if path is not None:
        path.touch()
    argv = [*OPTIONS, *options, f'--workdir={workdir}']
    orders = {f'FAULT_{key.upper()}': str(faults[key]) for key in faults}
    orders |= dict(env)
    if real:
      with outputs[0].open('wb') as out, outputs[1].open('wb') as error:
        process = subprocess.Popen(
          [sys.executable, 'main.py', *argv],
          cwd=ROOT,
          env=self._env | orders,
          stdin=subprocess.DEVNULL,
          stdout=out,
          stderr=error,
          start_new_session=True,
        )
      self._stack.callback(process.wait)
      self._stack.callback(process.kill)

      def wait(timeout):
        with contextlib.suppress(subprocess.TimeoutExpired):
          return process.wait(timeout)

      return Run(process.pid, outputs, wait, lambda: None, faults)
    zygote = self._zygotes.get()
    order = {'argv': argv, 'env': orders, 'outputs': list(map(str, outputs))}

    def release():
      zygote.release()
      self._zygotes.put(zygote)

    return Run(zygote.fork(order), outputs, zygote.wait, release, faults)

  def run(self, workdir, *options, **kwargs):
    """Runs to the end; as `start`."""
    run = self.start(workdir, *options, **kwargs)
    run.wait()
    return run

  def once(self, function, *args):
    """What a function (lab, *args) returns; called once, by any thread."""
    with self._lock:
      future = self._made.setdefault((function, args), [threading.Lock()])
    with future[0]:
      if len(future) == 1:
        future.append(function(self, *args))
    return future[1]

  def reference(self, *options):
    """The undisturbed run with these options."""
    return self.once(make_reference, options)


def make_reference(lab, options):
  """Two undisturbed runs, which have to be equal."""
  reference = Reference()
  # A signal may stop a run at any step. The second, to be its equal, no longer
  # compiles, and takes as long as the others will.
  for more in (ALL_STEPS, ()):
    workdir = lab.path('undisturbed')
    run = lab.run(workdir, *options, *more)
    if run.status != 0:
      raise RuntimeError(f'an undisturbed run failed: {run.stderr}')
    if more:
      reference.read(workdir)
  reference.seconds = run.seconds
  problem = reference.compare_end(workdir)
  if problem:
    raise RuntimeError(f'two undisturbed runs are not equal: {problem}')
  return reference


class Reference:
  """What an undisturbed run came to, and others have to come to.

  What is compared gives a text: '' where all is well; it starts with DIFFERS
  where a run is there, but not as it should be.
  """

  def read(self, workdir):
    self.metrics = metrics(workdir)
    self.scalars = scalars(workdir)
    self.states = {
      step: digest(load(workdir / 'checkpoints' / str(step)))
      for step in saved_steps(workdir)
    }

  def compare_saved(self, workdir):
    """Looks at the newest checkpoint."""
    step = saved_steps(workdir)[-1]
    try:
      state = load(workdir)
    except Exception as error:
      return f'can not be loaded: {error}'
    if int(state.step) != step:
      return f'{DIFFERS}: step {step} is not whole, {state.step} was loaded'
    if digest(state) != self.states.get(step):
      return f'{DIFFERS}: the state of step {step}'
    return ''

  def compare_end(self, workdir):
    """Looks at all that a finished run has."""
    steps = saved_steps(workdir)
    if not steps or steps[-1] != max(self.states):
      return f'not finished: the checkpoints are {steps}'
    if metrics(workdir) != self.metrics:
      return f'{DIFFERS}: metrics.jsonl'
    if scalars(workdir) != self.scalars:
      return f'{DIFFERS}: the events for TensorBoard'
    return self.compare_saved(workdir)


def saved_steps(workdir):
  """The steps of the checkpoints, those that are damaged included."""
  names = (path.name for path in (workdir / 'checkpoints').glob('*'))
  return sorted(int(name) for name in names if name.isdigit())


_LOADING = threading.Lock()


def load(path):
  """The state of a checkpoint, read in this process as any tool would."""
  from cyclegan_jax.storage import checkpoint

  with _LOADING:
    return checkpoint.load(path).state


def digest(state):
  """A checksum of every bit of a state, by the names of its leaves."""
  import jax
  import numpy as np

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
  """Counts each (step, name, value) that TensorBoard shows."""
  from tensorboardX.proto.event_pb2 import Event

  found = collections.Counter()
  for path in sorted((workdir / 'tensorboard').iterdir()):
    data, at = path.read_bytes(), 0
    while at + 12 <= len(data):
      (length,) = struct.unpack_from('<Q', data, at)
      if at + 16 + length > len(data):
        break
      event = Event.FromString(data[at + 12 : at + 12 + length])
      at += 16 + length
      if event.HasField('session_log'):  # a restart replaces later steps
        for key in [key for key in found if key[0] >= event.step]:
          del found[key]
      for value in event.summary.value:
        if value.HasField('simple_value'):
          found[event.step, value.tag, value.simple_value] += 1
  return found


@dataclasses.dataclass
class Trial:
  """One fault and what became of it."""

  problem: str = ''
  saw: str = ''  # the line that told the user
  is_compared: bool = True  # with the undisturbed run, to the last bit
  seconds: float | None = None  # that it took, where that matters

  @property
  def recovered(self):
    return not self.problem or self.problem.startswith(DIFFERS)


if __name__ == '__main__':
  serve()
