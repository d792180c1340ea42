"""Metrics and images of a run: metrics.jsonl and TensorBoard files.

`metrics.jsonl` holds one JSON object per line, `{"step": 10, "name": 0.5}`.
JSON has no NaN: a number that is not finite is the string 'NaN', 'Infinity'
or '-Infinity', which `parse_record` and `float` convert back.
"""

import contextlib
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from cyclegan_jax.errors import WorkdirError, one_line
from cyclegan_jax.report.tensorboard import EventWriter
from cyclegan_jax.storage.checksums import sync_folder

METRICS_FILE = 'metrics.jsonl'
TENSORBOARD_FOLDER = 'tensorboard'


class MetricWriter:
  """Appends metrics and images to the files of a run.

  Opening removes the records after the checkpoint that the run resumes from,
  so no step is recorded twice. Records that the disk refuses are kept and
  written with the next one, so no step is missing either.
  """

  def __init__(self, workdir: Path, *, resume_step: int = 0):
    """Opens the files.

    Args:
      workdir: folder of the run; created if missing.
      resume_step: number of completed steps. Records of later steps are
        removed; 0 removes all.

    Raises:
      OSError: the files cannot be opened.
      WorkdirError: metrics.jsonl is damaged.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    self._path = workdir / METRICS_FILE
    self._events = EventWriter(
      workdir / TENSORBOARD_FOLDER,
      purge_step=resume_step + 1 if resume_step else 0,
    )
    # Unbuffered: a buffer would be written again when the file is closed.
    self._file = self._path.open('ab', buffering=0)
    self._size = self._file.seek(0, os.SEEK_END)  # of the complete records
    self._unwritten = b''
    try:
      self._remove_after(resume_step)
    except (OSError, WorkdirError):
      self._file.close()
      raise

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def scalars(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Records numbers of one step in both places.

    Args:
      step: number of completed steps.
      metrics: scalars by name, of any type that `float` accepts.

    Raises:
      OSError: the disk refuses the record; it is kept for the next write.
    """
    if 'step' in metrics:
      raise ValueError('step cannot be the name of a metric')
    numbers = {name: float(value) for name, value in metrics.items()}
    self._unwritten += _to_line(step, numbers)
    try:
      self._write()
    finally:
      self._events.add_scalars(int(step), numbers)

  def image(
    self, step: int, name: str, png: bytes, *, shape: tuple[int, int]
  ) -> None:
    """Adds an RGB image to TensorBoard.

    Args:
      step: number of completed steps.
      name: name of the image.
      png: content of a PNG file.
      shape: height and width in pixels.

    Raises:
      OSError: the disk refuses the image; it is kept for the next write.
    """
    self._events.add_image(int(step), name, png, shape=shape)

  def rewind(self, step: int) -> None:
    """Removes the records after a step.

    Raises:
      OSError: the disk refuses records; they are kept for the next write.
    """
    self._events.rewind(step)
    self._remove_after(step)

  def sync(self) -> None:
    """Makes all records survive a power loss.

    Raises:
      OSError: the disk refuses records; they are kept for the next write.
    """
    self._write()
    os.fsync(self._file.fileno())
    self._events.flush()
    sync_folder(self._path.parent)
    sync_folder(self._path.parent / TENSORBOARD_FOLDER)

  def close(self) -> None:
    """Closes the files.

    Raises:
      OSError: the disk refuses records, which are lost.
    """
    with contextlib.ExitStack() as stack:
      stack.callback(self._events.close)
      stack.callback(self._file.close)
      self._write()

  def _remove_after(self, step: int) -> None:
    records = self._path.read_bytes()[: self._size] + self._unwritten
    size = _size_until(step, records, self._path)
    self._unwritten = records[self._size : size]
    self._size = min(self._size, size)
    os.truncate(self._file.fileno(), self._size)
    self._write()

  def _write(self) -> None:
    if not self._unwritten:
      return
    # A failed write may have left a part of a record.
    os.truncate(self._file.fileno(), self._size)
    rest = self._unwritten
    while rest:
      rest = rest[self._file.write(rest) or 0 :]
    self._size += len(self._unwritten)
    self._unwritten = b''


def check_metrics(workdir: Path, *, resume_step: int) -> None:
  """Checks that a MetricWriter can continue the files of a run after a step.

  Raises:
    WorkdirError: a file cannot be opened, or a record up to the step is
      damaged.
  """
  path, events = workdir / METRICS_FILE, workdir / TENSORBOARD_FOLDER
  if events.exists() and not events.is_dir():
    raise WorkdirError(f'{events} is a file, but a folder is needed: move it')
  try:
    with path.open('r+b') as file:
      data = file.read()
  except FileNotFoundError:
    return
  except OSError as error:
    raise WorkdirError(
      f'{path} cannot be read and written ({one_line(error)}): change its '
      'permissions or restore it, or move it away to resume without its records'
    ) from error
  _size_until(resume_step, data, path)
  if b'\0' in data:
    logging.getLogger('cyclegan_jax').warning(
      '%s ends in NULs, which a power failure leaves in place of the last '
      'records: they are removed',
      path,
    )


def read_metrics(path: Path) -> list[dict[str, Any]]:
  """Reads the records of a metrics.jsonl, `{'step': int, name: float, ...}`.

  An incomplete last line, left by a killed run, is ignored. A missing file has
  no records.

  Raises:
    WorkdirError: another line is not a record.
  """
  try:
    data = path.read_bytes()
  except FileNotFoundError:
    return []
  return [record for _, record in _parse_lines(data, path)]


def parse_record(line: bytes) -> dict[str, Any]:
  """Parses a line of a metrics.jsonl, `{'step': int, name: float, ...}`.

  Raises:
    ValueError: the line is not a record.
  """
  try:
    record = json.loads(line)
    step = int(record.pop('step'))
    return {'step': step, **{name: float(x) for name, x in record.items()}}
  except (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    OverflowError,
    RecursionError,
  ) as error:
    raise ValueError('not a record') from error


def _size_until(step: int, data: bytes, path: Path) -> int:
  """Bytes of the complete records up to a step.

  Raises:
    WorkdirError: a line among them is not a record.
  """
  # A power failure may leave NULs in place of the last records. Those up to a
  # checkpoint were synced before it was saved.
  intact, _, rest = data.partition(b'\0')
  if not any(_is_until(step, line) for line in rest.split(b'\n')):
    data = intact
  size = 0
  for end, record in _parse_lines(data, path):
    if record['step'] > step:
      break
    size = end
  return size


def _is_until(step: int, line: bytes) -> bool:
  try:
    return bool(parse_record(line)['step'] <= step)
  except ValueError:
    return False


def _parse_lines(
  data: bytes, path: Path
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields each complete line's end in bytes, and its record."""
  end = 0
  *lines, _incomplete = data.split(b'\n')
  for number, line in enumerate(lines, start=1):
    end += len(line) + 1
    try:
      yield end, parse_record(line)
    except ValueError as error:
      raise WorkdirError(
        f'{path}, line {number} is not a record of metrics: delete this line '
        'or the file'
      ) from error


def _to_line(step: int, numbers: Mapping[str, float]) -> bytes:
  record = {'step': int(step)} | {k: json_number(v) for k, v in numbers.items()}
  return json.dumps(record, allow_nan=False).encode() + b'\n'


def json_number(value: float) -> float | str:
  """The number, or 'NaN', 'Infinity' or '-Infinity', which JSON lacks."""
  if math.isfinite(value):
    return value
  if math.isnan(value):
    return 'NaN'
  return 'Infinity' if value > 0 else '-Infinity'
