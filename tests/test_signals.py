import contextlib
import os
import pathlib
import pty
import signal
import subprocess
import sys
import threading
import time

import pytest

from cyclegan_jax import signals
from cyclegan_jax.signals import StoppedError, StopSignal

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


pytestmark = pytest.mark.usefixtures('hangup')


@pytest.mark.parametrize('number', NUMBERS)
def test_an_ignored_signal_stays_ignored(number):
  before = {n: signal.getsignal(n) for n in NUMBERS}
  signal.signal(number, signal.SIG_IGN)
  try:
    signals.exit_on_signals()
    os.kill(os.getpid(), number)
    signals.raise_on_signals()
    os.kill(os.getpid(), number)
    with StopSignal() as stop:
      os.kill(os.getpid(), number)
    assert stop.received is None
    assert signal.getsignal(number) is signal.SIG_IGN
  finally:
    for n, handler in before.items():
      signal.signal(n, handler)


def test_a_terminal_that_is_closed():
  """The process continues, and what it prints is lost."""
  program = f"""
import fcntl
import os
import runpy
import sys
import termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
StopSignal = runpy.run_path({signals.__file__!r})['StopSignal']
with StopSignal() as stop:
  print('ready', flush=True)
  while stop.received is None:
    pass
  print('to nobody', flush=True)
  print('to nobody', file=sys.stderr, flush=True)
os._exit(128 + stop.received)
"""
  parent, child = pty.openpty()
  process = subprocess.Popen(
    [sys.executable, '-c', program],
    stdin=child,
    stdout=child,
    stderr=child,
    start_new_session=True,
  )
  os.close(child)
  assert os.read(parent, 5) == b'ready'
  os.close(parent)
  assert process.wait(60) == 128 + signal.SIGHUP


@pytest.mark.parametrize('number', NUMBERS)
def test_the_first_signal_is_noted(number):
  with StopSignal() as stop:
    assert stop.received is None
    os.kill(os.getpid(), number)
    assert stop.received == number


def test_handlers_are_put_back():
  before = [signal.getsignal(number) for number in NUMBERS]
  with contextlib.suppress(ValueError), StopSignal():
    assert signal.getsignal(signal.SIGINT) != before[0]
    assert signal.getsignal(signal.SIGTERM) != before[1]
    raise ValueError
  assert [signal.getsignal(number) for number in NUMBERS] == before


def test_nothing_is_installed_outside_the_main_thread():
  before = [signal.getsignal(number) for number in NUMBERS]
  seen = []

  def work():
    with StopSignal() as stop:
      seen.append([signal.getsignal(number) for number in NUMBERS])
      seen.append(stop.received)

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert seen == [before, None]


@pytest.mark.parametrize(
  'first, second',
  [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGTERM)],
)
def test_the_second_signal_ends_the_process_at_once(first, second):
  # By its path, without the package, which takes seconds to import.
  program = f"""
import os
import runpy
StopSignal = runpy.run_path({signals.__file__!r})['StopSignal']
with StopSignal():
  os.kill(os.getpid(), {int(first)})
  print('still here', flush=True)
  try:
    os.kill(os.getpid(), {int(second)})
    while True:
      pass
  finally:
    print('what could hang', flush=True)
"""
  done = subprocess.run(
    [sys.executable, '-c', program],
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.returncode == 128 + second
  assert done.stdout == 'still here\n'
  assert 'stopping after this step' in done.stderr


# Calls into a library, which no signal would end.


def test_a_call_gives_what_the_function_gives():
  with StopSignal() as stop:
    assert stop.call(lambda: 'result') == 'result'
    with pytest.raises(ZeroDivisionError):
      stop.call(lambda: 1 // 0)


def test_a_signal_leaves_a_call_behind():
  let_go = threading.Event()
  with StopSignal() as stop:
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    began = time.monotonic()
    with pytest.raises(StoppedError):
      stop.call(lambda: let_go.wait(60))
    assert time.monotonic() - began < 30
    assert stop.received == signal.SIGTERM
    with pytest.raises(StoppedError):
      stop.call(lambda: pytest.fail('it is too late to begin'))
  let_go.set()
  timer.join()


@pytest.mark.process
def test_a_program_whose_call_was_left_behind_ends_well():
  program = """
import os, signal, threading
import jax
from cyclegan_jax.signals import StoppedError, StopSignal

def long(x):
  for i in range(4000):
    x = jax.numpy.sin(x) * i + x.T
  return x

lowered = jax.jit(long).lower(jax.numpy.zeros((8, 8)))
with StopSignal() as stop:
  threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
  try:
    stop.call(lowered.compile)
  except StoppedError:
    print('stopped')
"""
  done = subprocess.run(
    [sys.executable, '-c', program],
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert (done.returncode, done.stdout) == (0, 'stopped\n'), done.stderr


@pytest.mark.process
@pytest.mark.parametrize(
  'number, command',
  [
    (signal.SIGHUP, 'main.py'),
    (signal.SIGINT, 'main.py'),
    (signal.SIGTERM, '-m cyclegan_jax train'),
  ],
)
def test_a_signal_while_jax_is_imported(number, command):
  root = pathlib.Path(__file__).parent.parent
  process = subprocess.Popen(
    [sys.executable, '-X', 'importtime', *command.split()],
    cwd=root,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  # Python names a module once it is imported: these in the midst of JAX.
  for line in process.stderr:
    if 'jax._src.' in line:
      break
  process.send_signal(number)
  out, error = process.communicate(timeout=60)
  assert process.returncode == 128 + number
  assert 'Traceback' not in error
  assert out == ''


def test_a_signal_when_nobody_reads_standard_error():
  number = signal.SIGTERM
  program = f"""
import os
import runpy
StopSignal = runpy.run_path({signals.__file__!r})['StopSignal']
with StopSignal() as stop:
  os.close(2)
  os.kill(os.getpid(), {int(number)})
  print(stop.received)
"""
  done = subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True, timeout=60
  )
  assert (done.returncode, done.stdout) == (0, f'{int(number)}\n')


def test_patience_lets_a_call_end():
  let_go = threading.Event()

  def signal_and_wait():
    os.kill(os.getpid(), signal.SIGTERM)
    let_go.wait(0.5)
    return 'result'

  with StopSignal() as stop:
    assert stop.call(signal_and_wait, patience=30) == 'result'
    assert stop.received == signal.SIGTERM
    assert stop.call(lambda: 'more', patience=30) == 'more'
    with pytest.raises(StoppedError):
      stop.call(lambda: let_go.wait(60), patience=0.2)
    let_go.set()
