"""TensorBoard event files of a run.

Uses tensorboardX's record writer, and not its SummaryWriter: the thread of a
SummaryWriter dies when the disk is full, and then its queue blocks the run.
"""

import contextlib
import importlib
import pathlib
import socket
import time
from typing import Any

_SECONDS_BETWEEN_WRITES = 10.0


def import_tensorboardx() -> None:
  """Imports tensorboardX, which takes seconds where PyTorch is installed."""
  importlib.import_module('tensorboardX.record_writer')
  importlib.import_module('tensorboardX.proto.event_pb2')


class EventWriter:
  """Writes scalars and images for TensorBoard.

  Events are kept until `flush` has written them. When a write fails, the next
  one starts a new file, which makes TensorBoard discard the events of the
  failed write.
  """

  def __init__(self, folder: pathlib.Path, *, purge_step: int):
    """Creates the folder; the first write creates a file.

    Args:
      folder: folder of the event files.
      purge_step: TensorBoard discards events of this and later steps that
        older files hold.

    Raises:
      OSError: the folder cannot be created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    self._folder = folder
    self._purge_step = purge_step
    self._file: Any = None
    self._unwritten: list[Any] = []
    self._last_written: list[Any] = []  # of the newest step in the file
    self._written_at = time.monotonic()

  def add_scalars(self, step: int, values: dict[str, float]) -> None:
    """Adds numbers of one step.

    Args:
      step: number of completed steps.
      values: numbers by tag.

    Raises:
      OSError: the disk refuses events; they are kept for the next write.
    """
    self._add(step, [{'tag': k, 'simple_value': v} for k, v in values.items()])

  def add_image(
    self, step: int, tag: str, png: bytes, *, shape: tuple[int, int]
  ) -> None:
    """Adds an RGB image.

    Args:
      step: number of completed steps.
      tag: name of the image.
      png: content of a PNG file.
      shape: height and width in pixels.

    Raises:
      OSError: the disk refuses events; they are kept for the next write.
    """
    image = {
      'height': shape[0],
      'width': shape[1],
      'colorspace': 3,  # RGB
      'encoded_image_string': png,
    }
    self._add(step, [{'tag': tag, 'image': image}])

  def rewind(self, step: int) -> None:
    """Makes TensorBoard discard the events after a step."""
    self._unwritten.append(_start_event(step + 1))

  def flush(self) -> None:
    """Writes all events and syncs the file.

    Raises:
      OSError: the disk refuses events; they are kept for the next write.
    """
    if not self._unwritten:
      return
    is_new = self._file is None
    try:
      if is_new:
        self._open()
      for event in self._unwritten:
        self._file.write(event.SerializeToString())
      self._file.flush()
    except OSError:
      self._discard_file(is_new)
      raise
    last_step = self._unwritten[-1].step
    self._last_written = [
      event
      for event in self._last_written + self._unwritten
      if event.step == last_step
    ]
    self._unwritten.clear()
    self._written_at = time.monotonic()

  def close(self) -> None:
    """Writes all events and closes the file.

    Raises:
      OSError: the disk refuses events; they are lost.
    """
    self.flush()
    if self._file is not None:
      self._file.close()
      self._file = None

  def _add(self, step: int, values: list[dict[str, Any]]) -> None:
    self._unwritten.append(_event(step=step, summary={'value': values}))
    if time.monotonic() - self._written_at >= _SECONDS_BETWEEN_WRITES:
      self.flush()

  def _open(self) -> None:
    from tensorboardX.record_writer import RecordWriter

    # TensorBoard reads files in the order of their names.
    name = f'events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}'
    # Kept before the first write, so that a failure can discard it.
    self._file = RecordWriter(str(self._folder / name))
    self._file.write(_event(file_version='brain.Event:2').SerializeToString())
    self._file.write(_start_event(self._purge_step).SerializeToString())

  def _discard_file(self, is_new: bool) -> None:
    """Gives up a file that may end in a torn record."""
    if self._file is not None:
      with contextlib.suppress(OSError):
        self._file.close()
      if is_new:
        pathlib.Path(self._file.path).unlink(missing_ok=True)
    self._file = None
    if not is_new:
      # TensorBoard will discard this step and later ones of the old file.
      self._purge_step = self._unwritten[0].step
      self._unwritten[:0] = [
        event for event in self._last_written if event.step == self._purge_step
      ]
      self._last_written = []


def _event(**fields: Any) -> Any:
  from tensorboardX.proto.event_pb2 import Event

  return Event(wall_time=time.time(), **fields)


def _start_event(purge_step: int) -> Any:
  from tensorboardX.proto.event_pb2 import SessionLog

  return _event(step=purge_step, session_log={'status': SessionLog.START})
