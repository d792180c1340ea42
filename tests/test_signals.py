import contextlib
import os
import signal
import subprocess
import sys
import threading

import pytest

from cyclegan_jax import signals
from cyclegan_jax.signals import StopSignal

NUMBERS = (signal.SIGINT, signal.SIGTERM)


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


@pytest.mark.parametrize('first', NUMBERS)
@pytest.mark.parametrize('second', NUMBERS)
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
  assert done.stderr == (
    '\nstopping after this step; once more leaves at once\n'
  )
