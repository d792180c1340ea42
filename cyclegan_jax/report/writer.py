"""The numbers and pictures of a run: metrics.jsonl and TensorBoard files.

`metrics.jsonl` holds one JSON object a line, `{"step": 10, "name": 0.5}`.
JSON has no NaN: a number that is not finite is the string 'NaN', 'Infinity'
or '-Infinity', which `read_metrics` and `float` turn back.
"""

import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from cyclegan_jax.errors import WorkdirError
from cyclegan_jax.workdir import replace_text

METRICS_FILE = 'metrics.jsonl'
TENSORBOARD_FOLDER = 'tensorboard'


class MetricWriter:
  """Appends a run's metrics and pictures to its folder.

  Opening takes back what an interrupted run wrote after the checkpoint that
  it goes on from, so that no step is recorded twice.
  """

  def __init__(self, workdir: Path, *, resume_step: int = 0):
    """Opens the files.

    Args:
      workdir: the run's folder; made where it is missing.
      resume_step: the number of steps done. Records of later steps are
        dropped; 0 drops all of them.

    Raises:
      WorkdirError: the folder can't be written, or its metrics.jsonl is
        damaged.
    """
    # It costs seconds where PyTorch is installed, which it imports too.
    import tensorboardX

    # It would warn of every NaN; a run ends at the first one it would save.
    logging.getLogger('tensorboardX.x2num').setLevel(logging.ERROR)
    path = workdir / METRICS_FILE
    try:
      workdir.mkdir(parents=True, exist_ok=True)
      _drop_records_after(path, resume_step)
      self._jsonl = path.open('a', encoding='utf-8')
    except OSError as error:
      raise WorkdirError(
        f"{workdir} can't be written ({error.strerror}): "
        'choose another folder for the run'
      ) from error
    self._tensorboard = tensorboardX.SummaryWriter(
      str(workdir / TENSORBOARD_FOLDER),
      purge_step=resume_step + 1 if resume_step else 0,
      flush_secs=10,
      # Named by the second otherwise: a quick restart would overwrite it.
      filename_suffix=f'.{time.time_ns()}',
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
    """
    record: dict[str, float | str] = {'step': int(step)}
    for name, value in metrics.items():
      if name == 'step':
        raise ValueError("a metric can't be named step")
      number = float(value)
      record[name] = _to_json(number)
      self._tensorboard.add_scalar(name, number, int(step))
    self._jsonl.write(json.dumps(record, allow_nan=False) + '\n')
    self._jsonl.flush()

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    """Shows a picture, uint8 [h, w, 3], in TensorBoard."""
    self._tensorboard.add_image(name, image, int(step), dataformats='HWC')

  def close(self) -> None:
    """Writes out everything and ends TensorBoard's thread."""
    self._jsonl.close()
    self._tensorboard.close()


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
  records = [
    {name: _to_json(value) for name, value in record.items()}
    for record in read_metrics(path)
    if step > 0 and record['step'] <= step
  ]
  lines = [json.dumps(record, allow_nan=False) + '\n' for record in records]
  replace_text(path, ''.join(lines))


def _to_json(value: float) -> float | str:
  if math.isfinite(value):
    return value
  if math.isnan(value):
    return 'NaN'
  return 'Infinity' if value > 0 else '-Infinity'
