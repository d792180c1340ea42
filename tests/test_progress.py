"""The progress display, on a terminal and in a log."""

import contextlib
import io

import jax.numpy as jnp
import pytest
import rich.console

from cyclegan_jax.report.progress import Progress


class Clock:
  """A clock that the test sets."""

  def __init__(self):
    self.now = 1000.0

  def __call__(self) -> float:
    return self.now


def plain_console() -> rich.console.Console:
  return rich.console.Console(file=io.StringIO(), force_terminal=False)


def lines_of(console: rich.console.Console) -> list[str]:
  return console.file.getvalue().splitlines()


def run(steps, *, total, start=0, seconds=1.0, first=None, **options):
  """The lines of a run whose steps take `seconds`, the first one `first`."""
  console, clock = plain_console(), Clock()
  with Progress(
    total, start, console=console, clock=clock, **options
  ) as progress:
    for index, step in enumerate(steps):
      clock.now += first if index == 0 and first else seconds
      progress.update(step, {'generator': 3.2123, 'discriminator': 0.6})
  return lines_of(console)


def test_plain_lines():
  lines = run(range(1, 781), total=780, seconds=0.325, images_per_step=4)
  assert lines[0] == 'step 1/780    0%  generator 3.21  discriminator 0.6'
  assert lines[4] == (
    'step 125/780   16%  12.3 images/s  left 03:33  '
    'generator 3.21  discriminator 0.6'
  )
  assert lines[-1] == (
    'step 780/780  100%  12.3 images/s  generator 3.21  discriminator 0.6'
  )
  # 780 steps of 0.325 s: a line each ten seconds, the first and the last.
  assert len(lines) == 1 + int(780 * 0.325 / 10.075) + 1


def test_compilation_does_not_count():
  lines = run([1, 2], total=10, first=90.0, every_seconds=0)
  assert lines[0].startswith('step 1/10   10%  generator')
  assert '  1 steps/s  left 00:08  ' in lines[1]


def test_the_rate_is_of_the_last_half_minute():
  console, clock = plain_console(), Clock()
  with Progress(200, console=console, clock=clock, every_seconds=0) as progress:
    for step in range(1, 101):
      clock.now += 2.0 if step <= 60 else 1.0
      progress.update(step)
  lines = lines_of(console)
  assert lines[59].endswith('0.5 steps/s  left 04:40')
  assert lines[99].endswith('1 steps/s  left 01:40')


def test_steps_longer_than_the_window():
  lines = run([1, 2, 3], total=100, seconds=120.0)
  assert '  left 3:14:00  ' in lines[-1]


def test_resumed_run_counts_its_own_steps():
  lines = run([101, 102], total=200, start=100, every_seconds=0)
  assert '  1 steps/s  left 01:38  ' in lines[1]
  assert lines[1].startswith('step 102/200   51%')


def test_a_resumed_run_that_is_done_says_nothing():
  assert run([], total=200, start=200) == []


def test_interrupted_run_says_how_far_it_came():
  console, clock = plain_console(), Clock()

  def train():
    with Progress(100, console=console, clock=clock) as progress:
      for step in (1, 2, 3):
        progress.update(step)
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    train()
  assert lines_of(console) == ['step 1/100    1%', 'step 3/100    3%']


def test_the_end_is_shown_once():
  assert run([1, 1], total=1, seconds=100.0, first=1.0)[:1] == [
    'step 1/1  100%  generator 3.21  discriminator 0.6'
  ]
  assert len(run([1, 1], total=1, seconds=0.1)) == 1


def test_units_of_other_work():
  lines = run([1, 2], total=8, unit='image', every_seconds=0, seconds=0.25)
  assert lines[1].startswith('image 2/8   25%  4 images/s  left 00:02')


def test_metrics_are_converted_only_when_shown():
  class Counted:
    count = 0

    def __float__(self) -> float:
      Counted.count += 1
      return 1.0

  console, clock = plain_console(), Clock()
  with Progress(100, console=console, clock=clock) as progress:
    for step in range(1, 101):
      progress.update(step, {'loss': Counted()})
  assert Counted.count == 2


def test_metrics_that_are_arrays_or_not_finite():
  console = plain_console()
  with Progress(1, console=console, clock=Clock()) as progress:
    progress.update(1, {'a': jnp.float32(0.12345), 'b': float('nan')})
  assert lines_of(console) == ['step 1/1  100%  a 0.123  b nan']


def test_messages_of_a_plain_run_are_lines_of_any_length():
  console = plain_console()
  text = '[bold] checkpoint ' + 'x' * 200
  with Progress(1, console=console, clock=Clock()) as progress:
    progress.print(text)
  assert lines_of(console) == [text]


def terminal_console(width: int) -> rich.console.Console:
  return rich.console.Console(
    file=io.StringIO(),
    force_terminal=True,
    width=width,
    height=20,
    color_system=None,
    legacy_windows=False,
    _environ={'TERM': 'xterm'},
  )


@pytest.mark.parametrize('width', [40, 80, 160])
def test_bar_on_a_terminal(width):
  console, clock = terminal_console(width), Clock()
  with Progress(
    780, 100, images_per_step=4, console=console, clock=clock
  ) as progress:
    for step in (101, 102, 390):
      clock.now += 20.0
      progress.update(step, {'generator': 3.21})
    progress.print('[a] checkpoint of step 390')
  screen = console.file.getvalue()
  last = screen.split('\x1b[2K')[-1].splitlines()
  assert 'step 390/780' in last[0]
  assert all(len(line) <= width for line in last if '\x1b' not in line)
  if width >= 80:
    assert ' 50%  28.9 images/s  left 00:54  generator 3.21' in last[0]
  assert '[a] checkpoint of step 390\n' in screen
  assert screen.count('\x1b[?25l') == screen.count('\x1b[?25h') == 1  # cursor


def test_cursor_comes_back_when_a_metric_fails():
  class Bad:
    def __float__(self) -> float:
      raise RuntimeError('lost')

  console, clock = terminal_console(80), Clock()

  def train():
    with Progress(10, console=console, clock=clock) as progress:
      progress.update(1)
      progress.update(2, {'a': Bad()})

  with pytest.raises(RuntimeError, match=r'^lost$'):
    train()
  assert '\x1b[?25h' in console.file.getvalue()


def test_dumb_terminal_gets_plain_lines():
  console = rich.console.Console(
    file=io.StringIO(), force_terminal=True, _environ={'TERM': 'dumb'}
  )
  with Progress(1, console=console, clock=Clock()) as progress:
    progress.update(1)
  assert lines_of(console) == ['step 1/1  100%']


def test_a_log_on_a_full_disk_ends_nothing():
  with open('/dev/full', 'w') as full:
    progress = Progress(3, console=rich.console.Console(file=full))
    with progress:
      progress.print('a text')
      for step in (1, 2, 3):
        progress.update(step, {'loss': 0.5})
    with contextlib.suppress(OSError):
      full.close()
