"""metrics.jsonl and TensorBoard's event files."""

import io
import json
import math
import resource
import struct
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.errors import WorkdirError
from cyclegan_jax.report.metric_writer import (
  MetricWriter,
  read_metrics,
)
from cyclegan_jax.report.sheet import encode_png


def read_events(workdir: Path):
  """The events of all of a run's TensorBoard files, in order."""
  from tensorboardX.proto.event_pb2 import Event

  events = []
  for path in sorted((workdir / 'tensorboard').iterdir()):
    data = path.read_bytes()
    while data:
      (size,) = struct.unpack('<Q', data[:8])
      events.append(Event.FromString(data[12 : 12 + size]))
      data = data[16 + size :]
  return events


def write_steps(workdir: Path, steps, **options):
  with MetricWriter(workdir, **options) as writer:
    for step in steps:
      writer.scalars(step, {'loss/a': step / 10})


def steps_on_record(workdir: Path):
  return [each['step'] for each in read_metrics(workdir / 'metrics.jsonl')]


def test_scalars_are_on_disk_at_once_and_read_back(tmp_path):
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

  def refuse(constant):
    raise AssertionError(constant)

  json.loads(path.read_text(), parse_constant=refuse)
  (record,) = read_metrics(path)
  assert math.isnan(record['nan'])
  assert (record['up'], record['down']) == (math.inf, -math.inf)
  write_steps(tmp_path, [2], resume_step=1)
  assert read_metrics(path)[0]['up'] == math.inf  # and after a resume


def test_tensorboard_gets_scalars_and_images(tmp_path):
  image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
  with MetricWriter(tmp_path) as writer:
    for step in range(100):
      writer.scalars(step, {'loss/a': step / 4})
    writer.image(100, 'samples', encode_png(image), shape=(4, 5))
  values = [
    (event.step, value)
    for event in read_events(tmp_path)
    for value in event.summary.value
  ]
  scalars = [(step, value.simple_value) for step, value in values[:-1]]
  assert scalars == [(step, step / 4) for step in range(100)]
  step, shown = values[-1]
  assert (step, shown.tag) == (100, 'samples')
  with Image.open(io.BytesIO(shown.image.encoded_image_string)) as decoded:
    np.testing.assert_array_equal(np.asarray(decoded), image)


def test_resume_drops_later_records(tmp_path):
  write_steps(tmp_path, [10, 20, 30])
  write_steps(tmp_path, [30, 40], resume_step=20)
  assert steps_on_record(tmp_path) == [10, 20, 30, 40]
  events = read_events(tmp_path)
  starts = [e.step for e in events if e.HasField('session_log')]
  assert starts == [0, 21]  # an open TensorBoard forgets step 21 and later
  # One that is opened later has nothing to forget.
  steps = [e.step for e in events if e.HasField('summary')]
  assert steps == [10, 20, 30, 40]


def test_rewind_takes_back_what_this_run_wrote(tmp_path):
  with MetricWriter(tmp_path) as writer:
    for step in (10, 20, 30):
      writer.scalars(step, {'a': 1.0})
    writer.rewind(20)
    for step in (30, 40):
      writer.scalars(step, {'a': 2.0})
  assert steps_on_record(tmp_path) == [10, 20, 30, 40]
  assert read_metrics(tmp_path / 'metrics.jsonl')[2]['a'] == 2.0
  events = read_events(tmp_path)
  steps = [e.step for e in events if e.HasField('summary')]
  assert steps == [10, 20, 30, 40]


def test_rewind_to_before_the_first_record(tmp_path):
  with MetricWriter(tmp_path, resume_step=300) as writer:
    writer.scalars(310, {'a': 1.0})
    writer.rewind(305)
    writer.scalars(306, {'a': 2.0})
  assert steps_on_record(tmp_path) == [306]
  events = read_events(tmp_path)
  steps = [e.step for e in events if e.HasField('summary')]
  assert steps == [306]


def test_rewind_on_a_full_disk(tmp_path):
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  with MetricWriter(tmp_path) as writer:
    writer.scalars(1, {'a': 1.0})
    size = (tmp_path / 'metrics.jsonl').stat().st_size
    try:
      resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
      for step in (2, 3):
        with pytest.raises(OSError, match='File too large'):
          writer.scalars(step, {'a': 1.0})
      with pytest.raises(OSError, match='File too large'):
        writer.rewind(2)  # what waits goes on waiting
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    writer.scalars(4, {'a': 1.0})
  assert steps_on_record(tmp_path) == [1, 2, 4]
  steps = [e.step for e in read_events(tmp_path) if e.HasField('summary')]
  assert steps == [1, 2, 4]


def test_a_torn_event_at_the_end_is_dropped(tmp_path):
  write_steps(tmp_path, [10, 20])
  (path,) = (tmp_path / 'tensorboard').iterdir()
  whole = path.read_bytes()
  for cut in (1, 4, 5, 20):
    path.write_bytes(whole[:-cut])
    MetricWriter(tmp_path, resume_step=20).close()
    steps = [e.step for e in read_events(tmp_path) if e.HasField('summary')]
    assert steps == [10]
    for each in (tmp_path / 'tensorboard').iterdir():
      each.unlink()
  path.write_bytes(whole)
  MetricWriter(tmp_path, resume_step=20).close()
  steps = [e.step for e in read_events(tmp_path) if e.HasField('summary')]
  assert steps == [10, 20]


def test_what_the_disk_refuses_is_written_when_it_can_be(tmp_path):
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  with MetricWriter(tmp_path) as writer:
    writer.scalars(1, {'a': 1.0})
    size = (tmp_path / 'metrics.jsonl').stat().st_size
    try:
      # A write that the disk takes half of, for real.
      resource.setrlimit(resource.RLIMIT_FSIZE, (size + 7, hard))
      for step in (2, 3):
        with pytest.raises(OSError, match='File too large'):
          writer.scalars(step, {'a': 1.0})
        assert steps_on_record(tmp_path) == [1]
        assert (tmp_path / 'metrics.jsonl').stat().st_size == size
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    writer.scalars(4, {'a': 1.0})
  assert steps_on_record(tmp_path) == [1, 2, 3, 4]
  steps = [e.step for e in read_events(tmp_path) if e.HasField('summary')]
  assert steps == [1, 2, 3, 4]


def test_what_the_disk_refuses_to_the_end_is_told(tmp_path):
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  writer = MetricWriter(tmp_path)
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    with pytest.raises(OSError, match='File too large'):
      writer.scalars(1, {'a': 1.0})
    with pytest.raises(OSError, match='File too large'):
      writer.close()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_run_from_the_start_drops_all(tmp_path):
  write_steps(tmp_path, [0, 10])
  write_steps(tmp_path, [0, 5])
  assert steps_on_record(tmp_path) == [0, 5]


def test_half_written_last_line(tmp_path):
  write_steps(tmp_path, [10, 20])
  path = tmp_path / 'metrics.jsonl'
  with path.open('a') as file:
    file.write('{"step": 30, "loss')
  assert steps_on_record(tmp_path) == [10, 20]
  write_steps(tmp_path, [30], resume_step=25)
  assert steps_on_record(tmp_path) == [10, 20, 30]
  assert [p.name for p in tmp_path.glob('*.tmp')] == []


def test_last_line_without_its_newline_is_not_whole(tmp_path):
  # '1.5' may be the start of '1.57': only the newline tells.
  path = tmp_path / 'metrics.jsonl'
  path.write_text('{"step": 1, "a": 1.0}\n{"step": 2, "a": 1.5}')
  assert read_metrics(path) == [{'step': 1, 'a': 1.0}]


def test_quick_restarts_keep_their_event_files(tmp_path):
  for step in range(3):
    write_steps(tmp_path, [step + 1], resume_step=step)
  assert len(list((tmp_path / 'tensorboard').iterdir())) == 3


def test_restarts_that_come_to_nothing_leave_no_files(tmp_path):
  write_steps(tmp_path, [1])
  for _ in range(5):
    write_steps(tmp_path, [], resume_step=1)
  assert len(list((tmp_path / 'tensorboard').iterdir())) == 2


def test_no_file_has_no_records(tmp_path):
  assert read_metrics(tmp_path / 'metrics.jsonl') == []


@pytest.mark.parametrize(
  'line', ['oops', '[1]', '{"a": 1.0}', '{"step": 1, "a": [2]}', '']
)
def test_damaged_line(tmp_path, line):
  path = tmp_path / 'metrics.jsonl'
  path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
  with pytest.raises(WorkdirError) as error:
    MetricWriter(tmp_path, resume_step=3)
  assert str(error.value) == (
    f'{path}, line 2: not a record of metrics: '
    'delete this line, or the whole file'
  )


def test_folder_that_cannot_be_written(tmp_path):
  workdir = tmp_path / 'file'
  workdir.write_text('in the way')
  with pytest.raises(NotADirectoryError):
    MetricWriter(workdir)


def test_a_metric_named_step(tmp_path):
  with (
    MetricWriter(tmp_path) as writer,
    pytest.raises(ValueError, match=r"^a metric can't be named step$"),
  ):
    writer.scalars(1, {'step': 2.0})


def test_nan_is_not_warned_of_and_tensorflow_not_imported(tmp_path):
  code = (
    'import sys, pathlib\n'
    'from cyclegan_jax.report.metric_writer import MetricWriter\n'
    'assert "tensorboardX" not in sys.modules\n'
    'with MetricWriter(pathlib.Path(sys.argv[1])) as writer:\n'
    '  writer.scalars(1, {"a": float("nan")})\n'
    'assert "tensorflow" not in sys.modules\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code, str(tmp_path)],
    capture_output=True,
    text=True,
    check=False,
  )
  assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
