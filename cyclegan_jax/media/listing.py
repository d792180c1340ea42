"""Lists the image files of a folder, in an order of its own."""

import os
import re
import stat
from collections import Counter, deque
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple

from cyclegan_jax.errors import (
  DataError,
  ImageError,
  one_line,
  printable,
)
from cyclegan_jax.media.decoding import EXTENSIONS
from cyclegan_jax.media.medical import may_be_dicom, starts_as_dicom

# A pipe that somebody put in a file's place would block without the first.
_FLAGS = (
  os.O_RDONLY
  | getattr(os, 'O_NONBLOCK', 0)
  | getattr(os, 'O_NOCTTY', 0)
  | getattr(os, 'O_BINARY', 0)  # Windows
)

_NUM_ENDINGS = 8  # that a message names


class Stamp(NamedTuple):
  """Size in bytes and time of change, which identify a listed file."""

  size: int
  mtime_ns: int


class Listing(NamedTuple):
  """Files of a folder.

  Attributes:
    images: paths in order.
    other_files: number of files that are no images, by ending in lower case.
    stamps: stamp of each image; None for a link that leads nowhere.
    unlisted: a message for each folder that cannot be listed.
  """

  images: list[str]
  other_files: Mapping[str, int]
  stamps: list[Stamp | None]
  unlisted: list[str]


def list_images(
  folder: str, *, extensions: tuple[str, ...] = EXTENSIONS
) -> Listing:
  """Lists the images in a folder and in all folders below it.

  Where '.dcm' is among the extensions, DICOM files without one are found by
  their content.

  The order is natural, by path: a2 before a10. Hidden files and folders are
  skipped. A folder that links lead to is listed once, so loops end. A link
  that leads nowhere is listed, so that it is missed when it is read.

  Raises:
    DataError: the folder cannot be listed.
  """
  stamps: dict[str, Stamp | None] = {}
  other_files = Counter[str]()
  unlisted = list[str]()
  seen = set()
  # Links to folders wait for all true folders, to leave those their names.
  waiting, linked = deque(['']), deque[str]()
  while waiting or linked:
    inner = waiting.popleft() if waiting else linked.popleft()
    path = os.path.join(folder, inner)
    try:
      status = os.stat(path)
      if (status.st_dev, status.st_ino) in seen:
        continue
      seen.add((status.st_dev, status.st_ino))
      with os.scandir(path) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
      message = f'{printable(path)} cannot be listed: {one_line(error)}'
      if not inner:
        raise DataError(message) from error
      unlisted.append(message)
      continue
    for entry in ordered:
      name = f'{inner}/{entry.name}' if inner else entry.name
      if entry.name.startswith('.'):
        continue
      if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
        (linked if entry.is_symlink() else waiting).append(name)
      elif _is_image(entry, extensions):
        stamps[name] = _stamp(entry)
      else:
        other_files[ending_of(name)] += 1
  names = sorted(stamps, key=natural)
  return Listing(
    [os.path.join(folder, name) for name in names],
    other_files,
    [stamps[name] for name in names],
    unlisted,
  )


def ending_of(name: str) -> str:
  """The ending of a file's name in lower case, such as '.txt'; '' for none."""
  return os.path.splitext(name)[1].lower()


def describe_others(other_files: Mapping[str, int]) -> str:
  """Describes files that are no images, such as '3 other files (2 .txt, 1 .c)'.

  Args:
    other_files: numbers by ending; not empty.
  """
  total = sum(other_files.values())
  counts = sorted(other_files.items(), key=lambda each: (-each[1], each[0]))
  shown = [
    f'{count:,} {printable(ending) or "without an ending"}'
    for ending, count in counts[:_NUM_ENDINGS]
  ]
  more = ['...'] * (len(counts) > _NUM_ENDINGS)
  plural = 's' if total != 1 else ''
  return f'{total:,} other file{plural} ({", ".join(shown + more)})'


def _is_image(entry: os.DirEntry[str], extensions: tuple[str, ...]) -> bool:
  """Whether it is named as an image, and a file or a link to nowhere."""
  if not entry.name.lower().endswith(extensions):
    return (
      '.dcm' in extensions
      and may_be_dicom(entry.name)
      and is_dicom_file(entry.path)
    )
  if entry.is_symlink():  # its own is_file raises where links go in circles
    return os.path.isfile(entry.path) or not os.path.exists(entry.path)
  return entry.is_file()


def is_dicom_file(path: str) -> bool:
  """Whether the path holds a file with DICOM's magic."""
  try:
    with open_file(path) as file:
      return starts_as_dicom(file)
  except (ImageError, OSError):
    return False


def _stamp(entry: os.DirEntry[str]) -> Stamp | None:
  try:
    status = entry.stat()
  except OSError:
    return None
  return Stamp(status.st_size, status.st_mtime_ns)


def has_changed(path: str, listed: Stamp | None) -> bool:
  """Whether the path holds another file than the listed one.

  A file that is gone has not changed: reading it fails.
  """
  try:
    status = os.stat(path)
  except (OSError, ValueError):
    return False
  return listed != (status.st_size, status.st_mtime_ns)


def natural(name: str) -> tuple[str, str]:
  """Sort key that orders numbers inside of names by value."""
  return re.sub('[0-9]+', _ranked, name), name


def _ranked(number: re.Match[str]) -> str:
  """A digit string that sorts before other characters, and by value."""
  digits = number[0].lstrip('0')
  return f'\0{chr(len(digits))}{digits}'


def open_file(path: str) -> BinaryIO:
  """Opens a regular file for reading, without ever waiting for it.

  Raises:
    ImageError: it does not exist, may not be read, or is no regular file.
  """
  try:
    number = os.open(path, _FLAGS)
  except (OSError, ValueError) as error:
    raise ImageError(path, one_line(error)) from error
  mode = os.fstat(number).st_mode
  if not stat.S_ISREG(mode):
    os.close(number)
    is_folder = stat.S_ISDIR(mode)
    raise ImageError(path, 'a folder' if is_folder else 'not a regular file')
  return os.fdopen(number, 'rb')
