"""Progress display on a terminal and in a log."""

import contextlib
import io
import itertools

import jax.numpy as jnp
import pytest
import rich.console

from cyclegan_jax.report.progress import Progress

METRICS = {'gen': 3.2123, 'disc': 0.6012}


class Clock:
  """A clock that the test sets."""

  def __init__(self):
    self.now = 1000.0

  def __call__(self) -> float:
    return self.now


class Terminal(io.StringIO):
  def isatty(self) -> bool:
    return True


def make_console(file, *, width=80, **environ):
  return rich.console.Console(
    file=file,
    width=width,
    height=20,
    legacy_windows=False,
    _environ={'TERM': 'xterm', **environ},
  )


def run(steps, *, total, start=0, seconds=1.0, console=None, **options):
  """The output of a run whose steps take `seconds` each."""
  console = console or make_console(io.StringIO())
  seconds = itertools.repeat(seconds) if isinstance(seconds, float) else seconds
  clock = Clock()
  with Progress(
    total, start, console=console, clock=clock, **options
  ) as progress:
    for step, duration in zip(steps, seconds, strict=False):
      clock.now += duration
      progress.update(step, METRICS)
  return console.file.getvalue()


def test_lines_in_a_log():
  lines = run(
    range(1, 781), total=780, seconds=0.325, pairs_per_step=4
  ).splitlines()
  assert lines[0] == 'step 1/780  0%  --:--  gen 3.21  disc 0.601'
  assert lines[4] == (
    'step 125/780  16%  12.3 pairs/s  03:33  gen 3.21  disc 0.601'
  )
  assert lines[-1].startswith('step 780/780  100%  12.3 pairs/s  ')
  # 780 steps of 0.325 s: a line every ten seconds, the first and the last.
  assert len(lines) == 1 + int(780 * 0.325 / 10.075) + 1


def test_the_rate_excludes_the_compilation():
  output = run([1, 2], total=10, seconds=[90.0, 1.0], every_seconds=0)
  assert '  1 pairs/s  00:08  ' in output


def test_the_rate_is_that_of_the_last_minutes():
  seconds = [*[10.0] * 100, *[2.0] * 160]
  output = run(range(1, 261), total=300, seconds=seconds, every_seconds=0)
  assert '  0.1 pairs/s  33:20  ' in output.splitlines()[99]
  assert '  0.5 pairs/s  01:20  ' in output.splitlines()[259]


def test_a_resumed_run_counts_its_own_steps():
  output = run([101, 102], total=200, start=100, every_seconds=0)
  assert 'step 102/200  51%  1 pairs/s  01:38  ' in output


def test_a_finished_run_prints_nothing():
  assert run([], total=200, start=200) == ''


def test_an_interrupted_run_prints_its_last_step():
  console = make_console(io.StringIO())

  def train():
    with Progress(100, console=console, clock=Clock()) as progress:
      for step in (1, 2, 3):
        progress.update(step)
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    train()
  lines = console.file.getvalue().splitlines()
  assert [line.split('%')[0] for line in lines] == [
    'step 1/100  1',
    'step 3/100  3',
  ]


def test_metrics_are_converted_only_when_they_are_shown():
  class Counted:
    count = 0

    def __float__(self) -> float:
      Counted.count += 1
      return 1.0

  console = make_console(io.StringIO())
  with Progress(100, console=console, clock=Clock()) as progress:
    for step in range(1, 101):
      progress.update(step, {'loss': Counted()})
  assert Counted.count == 2


def test_arrays_and_values_that_are_not_finite():
  console = make_console(io.StringIO())
  with Progress(1, console=console, clock=Clock()) as progress:
    progress.update(1, {'a': jnp.float32(0.12345), 'b': float('nan')})
  assert console.file.getvalue().endswith('  a 0.123  b nan\n')


@pytest.mark.parametrize('total', [780, 123_456])
@pytest.mark.parametrize('width', [40, 80, 160])
def test_everything_fits_on_a_terminal(width, total):
  screen = run(
    [1, 2, total // 2],
    total=total,
    seconds=20.0,
    pairs_per_step=4,
    console=make_console(Terminal(), width=width, NO_COLOR='1'),
  )
  line = screen.split('\x1b[2K')[-1].splitlines()[0]
  assert len(line) <= width
  assert f' {total // 2}/{total} ' in f' {line}'
  assert '…' not in line
  assert ' pairs/s ' in line
  if width >= 80:
    assert '━━━━━' in line
    assert line.rstrip().endswith('gen 3.21  disc 0.601')
  # The cursor is hidden and shown again.
  assert screen.count('\x1b[?25l') == screen.count('\x1b[?25h') == 1


def test_messages_appear_above_the_bar_and_as_lines():
  text = '[bold] checkpoint ' + 'x' * 200
  for file in (Terminal(), io.StringIO()):
    with Progress(1, console=make_console(file), clock=Clock()) as progress:
      progress.print(text)
    assert text + '\n' in file.getvalue()


@pytest.mark.parametrize(
  'kind', ['pipe', 'forced color', 'dumb terminal', 'notebook']
)
def test_no_animation_without_a_real_terminal(kind, monkeypatch):
  environ = {}
  if kind == 'forced color':
    environ = {'FORCE_COLOR': '1'}
  elif kind == 'dumb terminal':
    environ = {'TERM': 'dumb'}
  elif kind == 'notebook':  # which runs commands in a pseudo-terminal
    monkeypatch.setenv('JPY_PARENT_PID', '1')
  is_terminal = kind in ('dumb terminal', 'notebook')
  file = Terminal() if is_terminal else io.StringIO()
  output = run([1, 2], total=2, console=make_console(file, **environ))
  assert '\x1b' not in output
  assert len(output.splitlines()) == 2


def test_the_cursor_comes_back_after_an_error():
  class Bad:
    def __float__(self) -> float:
      raise RuntimeError('bad metric')

  console = make_console(Terminal())

  def train():
    with Progress(10, console=console, clock=Clock()) as progress:
      progress.update(1)
      progress.update(10, {'a': Bad()})

  with pytest.raises(RuntimeError, match=r'^bad metric$'):
    train()
  assert '\x1b[?25h' in console.file.getvalue()


def test_a_log_on_a_full_disk_does_not_end_a_run():
  with open('/dev/full', 'w') as full:
    with Progress(3, console=rich.console.Console(file=full)) as progress:
      progress.print('a text')
      for step in (1, 2, 3):
        progress.update(step, {'loss': 0.5})
    with contextlib.suppress(OSError):
      full.close()
