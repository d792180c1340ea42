"""The numbers and pictures of a run: metrics.jsonl and TensorBoard files.

`metrics.jsonl` holds one JSON object a line, `{"step": 10, "name": 0.5}`.
JSON has no NaN: a number that is not finite is the string 'NaN', 'Infinity'
or '-Infinity', which `read_metrics` and `float` turn back.
"""

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from cyclegan_jax.errors import WorkdirError
from cyclegan_jax.report import tensorboard
from cyclegan_jax.report.append_file import Journal
from cyclegan_jax.storage.atomic import replace_bytes

METRICS_FILE = 'metrics.jsonl'
TENSORBOARD_FOLDER = 'tensorboard'


class MetricWriter:
  """Appends a run's metrics and pictures to its folder.

  Opening takes back what an interrupted run wrote after the checkpoint that
  it goes on from, so that no step is recorded twice. Where the disk refuses a
  record it waits for the next one, so that none is left out either.
  """

  def __init__(self, workdir: Path, *, resume_step: int = 0):
    """Opens the files.

    Args:
      workdir: the run's folder; made where it is missing.
      resume_step: the number of steps done. Records of later steps are
        dropped; 0 drops all of them.

    Raises:
      OSError: from the disk.
      WorkdirError: metrics.jsonl is damaged.
    """
    self._workdir = workdir
    self._open(resume_step)

  def _open(self, resume_step: int) -> None:
    folder = self._workdir / TENSORBOARD_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = self._workdir / METRICS_FILE
    _drop_records_after(path, resume_step)
    for old in folder.glob('events.out.tfevents.*'):
      _cut_events(old, resume_step)
    self._jsonl = Journal(path)
    try:
      self._events = Journal(tensorboard.new_event_path(folder))
    except OSError:
      self._jsonl.close()
      raise
    self._journals = (self._jsonl, self._events)
    self._events.append(
      tensorboard.start_record(resume_step + 1 if resume_step else 0)
    )

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def scalars(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Records numbers of one step; they are on disk when this returns.

    Args:
      step: the number of steps done.
      metrics: by name, what `float` takes: numbers, arrays of shape [].

    Raises:
      OSError: the disk refuses them for now.
    """
    if 'step' in metrics:
      raise ValueError("a metric can't be named step")
    numbers = {name: float(value) for name, value in metrics.items()}
    try:
      self._jsonl.append(_line(step, numbers))
    finally:
      self._events.append(tensorboard.scalars_record(int(step), numbers))

  def image(
    self, step: int, name: str, png: bytes, *, shape: tuple[int, int]
  ) -> None:
    """Shows a picture in colours in TensorBoard.

    Args:
      step: the number of steps done.
      name: of the picture.
      png: the picture as a file.
      shape: its height and width.

    Raises:
      OSError: the disk refuses it for now.
    """
    self._events.append(
      tensorboard.image_record(int(step), name, png, shape=shape)
    )

  def rewind(self, step: int) -> None:
    """Takes back the records of all steps after this one.

    Raises:
      OSError: from the disk.
    """
    data = self._jsonl.read()
    self._jsonl.cut(len(b''.join(_lines_up_to(data, step))))
    self._events.cut(tensorboard.size_up_to(self._events.read(), step))
    self._events.append(tensorboard.start_record(step + 1))

  def sync(self) -> None:
    """Makes all records survive a loss of power.

    Raises:
      OSError: the disk refuses some for now.
    """
    for journal in self._journals:
      journal.sync()

  def close(self) -> None:
    """Closes the files.

    Raises:
      OSError: the disk refuses some records, which are lost.
    """
    with contextlib.ExitStack() as stack:
      for journal in self._journals:
        stack.callback(journal.close)


def read_metrics(path: Path) -> list[dict[str, Any]]:
  """The records of a metrics.jsonl, `{'step': int, name: float, ...}`.

  A last line that was being written when its run was killed is left out, and
  a file that does not exist has no records.

  Raises:
    WorkdirError: another line is not a record.
  """
  try:
    data = path.read_bytes()
  except FileNotFoundError:
    return []
  records = []
  *lines, _torn = data.split(b'\n')  # a whole line ends in a newline
  for number, line in enumerate(lines, start=1):
    try:
      record = json.loads(line)
      step = int(record.pop('step'))
      values = {name: float(value) for name, value in record.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
      raise WorkdirError(
        f'{path}, line {number}: not a record of metrics: '
        'delete this line, or the whole file'
      ) from error
    records.append({'step': step, **values})
  return records


def _drop_records_after(path: Path, step: int) -> None:
  if not path.exists():
    return
  read_metrics(path)  # says where it is damaged
  kept = _lines_up_to(path.read_bytes(), step) if step else []
  replace_bytes(path, b''.join(kept))


def _lines_up_to(data: bytes, step: int) -> list[bytes]:
  """The whole lines before the first of a later step."""
  lines = data.splitlines(keepends=True)
  is_kept = [
    line.endswith(b'\n') and json.loads(line)['step'] <= step for line in lines
  ]
  return lines[: [*is_kept, False].index(False)]


def _cut_events(path: Path, step: int) -> None:
  data = path.read_bytes()
  size = tensorboard.size_up_to(data, step) if step else 0
  if not size:
    path.unlink()
  elif size < len(data):
    # Whole, as an open TensorBoard may be reading the old one.
    replace_bytes(path, data[:size])


def _line(step: int, numbers: Mapping[str, float]) -> bytes:
  record = {'step': int(step)} | {k: _to_json(v) for k, v in numbers.items()}
  return json.dumps(record, allow_nan=False).encode() + b'\n'


def _to_json(value: float) -> float | str:
  if math.isfinite(value):
    return value
  if math.isnan(value):
    return 'NaN'
  return 'Infinity' if value > 0 else '-Infinity'
