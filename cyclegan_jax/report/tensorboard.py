"""TensorBoard's event files, written and cut by whole records.

A record is its length, a checksum of the length, an event as a protocol
buffer and a checksum of that; the checksums are TFRecord's masked CRC-32C.
"""

import importlib
import pathlib
import socket
import struct
import time
from typing import Any


def load() -> None:
  """Imports what writes events, which takes seconds beside PyTorch."""
  importlib.import_module('tensorboardX.proto.event_pb2')


def new_event_path(folder: pathlib.Path) -> pathlib.Path:
  """A name that TensorBoard looks for, and that no other file has."""
  name = f'events.out.tfevents.{int(time.time())}.{socket.gethostname()}'
  return folder / f'{name}.{time.time_ns()}'


def start_record(purge_step: int) -> bytes:
  """The events a file begins with.

  Args:
    purge_step: a TensorBoard that is open forgets this step and later ones.
  """
  from tensorboardX.proto.event_pb2 import SessionLog

  start = SessionLog(status=SessionLog.START)
  version = _record(file_version='brain.Event:2')
  return version + _record(step=purge_step, session_log=start)


def scalars_record(step: int, metrics: dict[str, float]) -> bytes:
  """Numbers of one step as one event."""
  from tensorboardX.proto.summary_pb2 import Summary

  values = [Summary.Value(tag=k, simple_value=v) for k, v in metrics.items()]
  return _record(step=step, summary=Summary(value=values))


def image_record(
  step: int, name: str, png: bytes, *, shape: tuple[int, int]
) -> bytes:
  """A picture in colours, height and width its shape, as one event."""
  from tensorboardX.proto.summary_pb2 import Summary

  picture = Summary.Image(
    height=shape[0],
    width=shape[1],
    colorspace=3,  # RGB
    encoded_image_string=png,
  )
  value = Summary.Value(tag=name, image=picture)
  return _record(step=step, summary=Summary(value=[value]))


def size_up_to(data: bytes, step: int) -> int:
  """The bytes of the whole records before the first of a later step.

  Nothing that follows a torn or damaged record can be told apart, so it goes
  too. Where no number and no picture comes before, it is 0.
  """
  from tensorboardX.proto.event_pb2 import Event

  has_values, at = False, 0
  while at + 12 <= len(data):
    length, checksum = data[at : at + 8], data[at + 8 : at + 12]
    end = at + 16 + int.from_bytes(length, 'little')
    # The events' own checksums would take seconds a picture in Python.
    if checksum != _checksum(length) or end > len(data):
      break
    try:
      event = Event.FromString(data[at + 12 : end - 4])
    except Exception:  # protobuf's own, which moves between its versions
      break
    if event.HasField('summary'):
      if event.step > step:
        break
      has_values = True
    at = end
  return at if has_values else 0


def _record(**fields: Any) -> bytes:
  from tensorboardX.proto.event_pb2 import Event

  return _frame(Event(wall_time=time.time(), **fields).SerializeToString())


def _frame(event: bytes) -> bytes:
  length = struct.pack('<Q', len(event))
  return length + _checksum(length) + event + _checksum(event)


def _checksum(data: bytes) -> bytes:
  from tensorboardX.crc32c import crc32c

  crc = crc32c(data)
  masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
  return struct.pack('<I', masked)
