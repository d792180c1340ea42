"""metrics.jsonl and TensorBoard's event files."""

import contextlib
import json
import math
import resource
import struct
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

from cyclegan_jax.errors import WorkdirError
from cyclegan_jax.report.metric_writer import (
  MetricWriter,
  check_metrics,
  read_metrics,
)

PNG = b'\x89PNG'


def shown_values(workdir: Path):
  """What TensorBoard shows: (step, value) of all files, after restarts."""
  from tensorboardX.proto.event_pb2 import Event

  shown = []
  for path in sorted((workdir / 'tensorboard').iterdir()):
    data = path.read_bytes()
    while len(data) >= 16:
      (size,) = struct.unpack('<Q', data[:8])
      if len(data) < 16 + size:
        break
      event = Event.FromString(data[12 : 12 + size])
      data = data[16 + size :]
      if event.HasField('session_log'):
        shown = [(step, value) for step, value in shown if step < event.step]
      shown += [(event.step, value) for value in event.summary.value]
  return shown


def shown_steps(workdir: Path):
  return [step for step, _ in shown_values(workdir)]


def recorded_steps(workdir: Path):
  return [record['step'] for record in read_metrics(workdir / 'metrics.jsonl')]


def write_steps(workdir: Path, steps, **options):
  with MetricWriter(workdir, **options) as writer:
    for step in steps:
      writer.scalars(step, {'loss/a': step / 10})


@contextlib.contextmanager
def full_disk(size):
  """Limits the size of files, which fails in the middle of a write."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_scalars_are_on_disk_at_once(tmp_path):
  path = tmp_path / 'run' / 'metrics.jsonl'
  with MetricWriter(tmp_path / 'run') as writer:
    writer.scalars(10, {'generator/cycle_a': jnp.float32(0.5), 'n': 3})
    expected = '{"step": 10, "generator/cycle_a": 0.5, "n": 3.0}\n'
    assert path.read_text() == expected
  assert read_metrics(path) == [{'step': 10, 'generator/cycle_a': 0.5, 'n': 3}]


def test_numbers_that_are_not_finite_are_valid_json(tmp_path):
  values = {'nan': math.nan, 'up': math.inf, 'down': -math.inf}
  with MetricWriter(tmp_path) as writer:
    writer.scalars(1, values)
  path = tmp_path / 'metrics.jsonl'
  json.loads(path.read_text(), parse_constant=pytest.fail)
  write_steps(tmp_path, [2], resume_step=1)
  record, _ = read_metrics(path)
  assert math.isnan(record['nan'])
  assert (record['up'], record['down']) == (math.inf, -math.inf)


def test_tensorboard_gets_scalars_and_images(tmp_path):
  with MetricWriter(tmp_path) as writer:
    for step in range(100):
      writer.scalars(step, {'loss/a': step / 4})
    writer.image(100, 'samples', PNG, shape=(4, 5))
  *scalars, (step, image) = shown_values(tmp_path)
  assert [(step, each.simple_value) for step, each in scalars] == [
    (step, step / 4) for step in range(100)
  ]
  assert (step, image.tag) == (100, 'samples')
  assert image.image.encoded_image_string == PNG
  assert (image.image.height, image.image.width) == (4, 5)


def test_sync_writes_the_events(tmp_path):
  with MetricWriter(tmp_path) as writer:
    writer.scalars(1, {'a': 1.0})
    writer.sync()
    assert shown_steps(tmp_path) == [1]


def test_resume_removes_later_records(tmp_path):
  write_steps(tmp_path, [10, 20, 30])
  write_steps(tmp_path, [30, 40], resume_step=20)
  assert recorded_steps(tmp_path) == [10, 20, 30, 40]
  assert shown_steps(tmp_path) == [10, 20, 30, 40]


def test_a_run_from_the_start_removes_all_records(tmp_path):
  write_steps(tmp_path, [5, 10])
  write_steps(tmp_path, [5])
  assert recorded_steps(tmp_path) == shown_steps(tmp_path) == [5]


def test_rewind_removes_later_records(tmp_path):
  with MetricWriter(tmp_path, resume_step=5) as writer:
    writer.scalars(10, {'a': 1.0})
    writer.rewind(6)
    for step in (10, 20, 30):
      writer.scalars(step, {'a': 1.0})
    writer.sync()
    writer.rewind(20)
    for step in (30, 40):
      writer.scalars(step, {'a': 2.0})
  assert recorded_steps(tmp_path) == [10, 20, 30, 40]
  assert read_metrics(tmp_path / 'metrics.jsonl')[2]['a'] == 2.0
  assert shown_steps(tmp_path) == [10, 20, 30, 40]


@pytest.mark.parametrize('num_bytes', [0, 7])
def test_what_the_disk_refuses_is_written_later(tmp_path, num_bytes):
  with MetricWriter(tmp_path) as writer:
    writer.scalars(1, {'a': 1.0})
    writer.image(1, 'samples', PNG * 5000, shape=(4, 5))
    writer.sync()
    size = (tmp_path / 'metrics.jsonl').stat().st_size
    with full_disk(size + num_bytes):
      for step in (2, 3):
        with pytest.raises(OSError, match='File too large'):
          writer.scalars(step, {'a': 1.0})
        writer.image(step, 'samples', PNG * 5000, shape=(4, 5))
        with pytest.raises(OSError, match='File too large'):
          writer.sync()
        assert recorded_steps(tmp_path) == [1]
      with pytest.raises(OSError, match='File too large'):
        writer.rewind(2)
    writer.scalars(4, {'a': 1.0})
  assert recorded_steps(tmp_path) == [1, 2, 4]
  assert shown_steps(tmp_path) == [1, 1, 2, 2, 4]


def test_a_full_disk_refuses_only_the_events(tmp_path):
  size = 30_000  # one image fits into a file
  with MetricWriter(tmp_path) as writer, full_disk(size):
    writer.image(1, 'samples', PNG * 5000, shape=(4, 5))
    writer.sync()
    for step in (2, 3, 4):
      writer.image(step, 'samples', PNG * 5000, shape=(4, 5))
      with pytest.raises(OSError, match='File too large'):
        writer.sync()
  assert shown_steps(tmp_path) == [1, 2, 3, 4]
  assert len(list((tmp_path / 'tensorboard').iterdir())) == 2


def test_what_the_disk_refuses_to_the_end_is_an_error(tmp_path):
  writer = MetricWriter(tmp_path)
  with full_disk(0):
    with pytest.raises(OSError, match='File too large'):
      writer.scalars(1, {'a': 1.0})
    with pytest.raises(OSError, match='File too large'):
      writer.close()


def test_a_kill_in_the_middle_of_a_line(tmp_path):
  write_steps(tmp_path, [10, 20])
  path = tmp_path / 'metrics.jsonl'
  with path.open('a') as file:
    file.write('{"step": 30, "loss')
  assert recorded_steps(tmp_path) == [10, 20]
  write_steps(tmp_path, [30], resume_step=25)
  assert recorded_steps(tmp_path) == [10, 20, 30]


def test_a_kill_before_the_end_of_a_line(tmp_path):
  # '1.5' may be the start of '1.57': only the newline tells.
  path = tmp_path / 'metrics.jsonl'
  path.write_text('{"step": 1, "a": 1.0}\n{"step": 2, "a": 1.5}')
  assert recorded_steps(tmp_path) == [1]
  MetricWriter(tmp_path, resume_step=2).close()
  assert path.read_text() == '{"step": 1, "a": 1.0}\n'


def test_a_kill_in_the_middle_of_an_event(tmp_path):
  write_steps(tmp_path, [10, 20])
  (path,) = (tmp_path / 'tensorboard').iterdir()
  path.write_bytes(path.read_bytes()[:-5])
  write_steps(tmp_path, [20, 30], resume_step=10)
  assert shown_steps(tmp_path) == [10, 20, 30]


def test_restarts_keep_their_event_files_apart(tmp_path):
  for step in range(3):
    write_steps(tmp_path, [step + 1], resume_step=step)
  write_steps(tmp_path, [], resume_step=3)  # writes nothing
  assert len(list((tmp_path / 'tensorboard').iterdir())) == 3
  assert shown_steps(tmp_path) == [1, 2, 3]


def test_no_file_has_no_records(tmp_path):
  assert read_metrics(tmp_path / 'metrics.jsonl') == []


@pytest.mark.parametrize(
  'line', ['oops', '[1]', '{"a": 1.0}', '{"step": 1, "a": [2]}', '']
)
def test_a_damaged_line(tmp_path, line):
  path = tmp_path / 'metrics.jsonl'
  path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
  with pytest.raises(WorkdirError, match=rf'^{path}, line 2 '):
    MetricWriter(tmp_path, resume_step=3)


def damage(path, number, text):
  lines = path.read_bytes().splitlines(keepends=True)
  lines[number - 1] = text
  path.write_bytes(b''.join(lines))


def test_a_damaged_line_is_found_before_the_file_is_opened(tmp_path):
  write_steps(tmp_path, [10, 20, 30])
  path = tmp_path / 'metrics.jsonl'
  check_metrics(tmp_path, resume_step=30)
  for text in (b'oops\n', b'\0' * 20 + b'\n'):
    damage(path, 2, text)
    before = path.read_bytes()
    with pytest.raises(WorkdirError, match=f'{path}, line 2 '):
      check_metrics(tmp_path, resume_step=30)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
  'tail',
  [b'\0' * 20, b'\0' * 20 + b'\n', b'\0\0"a": 1}\n{"step": 30, "a": 1}\n'],
)
def test_a_power_failure_leaves_nuls_in_place_of_records(
  tail, tmp_path, caplog
):
  write_steps(tmp_path, [10, 20])
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(path.read_bytes() + b'{"step": 22' + tail)
  check_metrics(tmp_path, resume_step=20)
  assert str(path) in caplog.text
  write_steps(tmp_path, [30], resume_step=20)
  assert recorded_steps(tmp_path) == [10, 20, 30]
  caplog.clear()
  check_metrics(tmp_path, resume_step=30)
  assert not caplog.records


def test_a_metrics_file_that_cannot_be_opened(tmp_path):
  check_metrics(tmp_path, resume_step=1)  # there is none
  (tmp_path / 'metrics.jsonl').mkdir()
  with pytest.raises(WorkdirError, match=str(tmp_path / 'metrics.jsonl')):
    check_metrics(tmp_path, resume_step=1)


def test_a_file_in_the_place_of_tensorboard(tmp_path):
  (tmp_path / 'tensorboard').touch()
  with pytest.raises(WorkdirError, match=str(tmp_path / 'tensorboard')):
    check_metrics(tmp_path, resume_step=0)


def test_a_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('in the way')
  with pytest.raises(OSError, match='file'):
    MetricWriter(tmp_path / 'file')


def test_a_metric_named_step(tmp_path):
  with (
    MetricWriter(tmp_path) as writer,
    pytest.raises(ValueError, match='step'),
  ):
    writer.scalars(1, {'step': 2.0})


@pytest.mark.process
def test_tensorboardx_is_imported_late_and_tensorflow_never(tmp_path):
  code = (
    'import sys, pathlib\n'
    'from cyclegan_jax.report.metric_writer import MetricWriter\n'
    'assert "tensorboardX" not in sys.modules\n'
    'with MetricWriter(pathlib.Path(sys.argv[1])) as writer:\n'
    '  writer.scalars(1, {"a": float("nan")})\n'
    'assert "tensorboardX" in sys.modules\n'
    'assert "tensorflow" not in sys.modules\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code, str(tmp_path)],
    capture_output=True,
    text=True,
    check=False,
  )
  assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
