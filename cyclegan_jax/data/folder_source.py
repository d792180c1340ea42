"""Images in folders: trainA, trainB, and testA and testB where there.

Folders are read to any depth, in an order that no file system changes.
"""

import functools
import logging
import os
import re
import stat
from collections import deque
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from cyclegan_jax.config import DataConfig
from cyclegan_jax.data.decoding import (
  EXTENSIONS,
  ImageError,
  Images,
  check_channels,
  decode,
  decoded_shape,
  one_line,
  printable,
)
from cyclegan_jax.errors import ConfigError, DataError

_NUM_LISTED = 8  # entries of a folder that a message shows


class Listing(NamedTuple):
  """What a folder holds: image paths in order, and a count of the rest."""

  images: list[str]
  num_other_files: int


def open_folder(config: DataConfig) -> dict[str, Images]:
  """The images of config.data.path, or of the four folders by their names.

  Raises:
    ConfigError: no folder is named, or the channels can't be had.
    DataError: a folder is missing, can't be listed or holds no images.
  """
  check_channels(config)
  images = {}
  for domain in ('a', 'b'):
    folder = _train_folder(config, domain)
    images[f'train_{domain}'] = _images_in(folder, config, domain)
  for domain in ('a', 'b'):
    test_folder = _test_folder(config, domain)
    images[f'test_{domain}'] = (
      _images_in(test_folder, config, domain)
      if test_folder
      else images[f'train_{domain}']
    )
  return images


def list_images(folder: str) -> Listing:
  """Lists the images in a folder and in all folders below it.

  The order is natural, by path: a2 before a10. Hidden files and folders are
  skipped. A folder that links lead to is listed once, so loops end. A link
  that leads nowhere is listed, so that it is missed when it is read.

  Raises:
    DataError: a folder can't be listed.
  """
  found: list[str] = []
  num_others = 0
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
      raise DataError(
        f"{printable(path)} can't be listed: {one_line(error)}"
      ) from error
    for entry in ordered:
      name = f'{inner}/{entry.name}' if inner else entry.name
      if entry.name.startswith('.'):
        continue
      if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
        (linked if entry.is_symlink() else waiting).append(name)
      elif _is_image(entry):
        found.append(name)
      else:
        num_others += 1
  found.sort(key=_natural)
  return Listing([os.path.join(folder, name) for name in found], num_others)


def _is_image(entry: os.DirEntry[str]) -> bool:
  """Whether it is a file (pipes would block) or a lost link, by its name."""
  if not entry.name.lower().endswith(EXTENSIONS):
    return False
  if entry.is_symlink():  # its own is_file raises where links go in circles
    return os.path.isfile(entry.path) or not os.path.exists(entry.path)
  return entry.is_file()


def _natural(name: str) -> tuple[list[str | int], str]:
  """A key by which numbers inside of names count as numbers."""
  parts = re.split('([0-9]+)', name)
  key = [int(part) if i % 2 else part for i, part in enumerate(parts)]
  return key, name


def _train_folder(config: DataConfig, domain: str) -> str:
  """The folder of a domain's training images."""
  option = f'config.data.train_{domain}'
  given = getattr(config, f'train_{domain}')
  if given:
    return _existing(given, option, f"{domain}'s training images")
  inner = f'train{domain.upper()}'
  if not config.path:
    if config.train_a or config.train_b:
      raise ConfigError(
        f"{option} is not set: give the folder of {domain}'s training images, "
        f'or config.data.path with a folder {inner} in it'
      )
    raise ConfigError(
      'config.data.path is not set: give the folder that holds trainA and '
      'trainB, or name the two by config.data.train_a and config.data.train_b'
    )
  path = _existing(config.path, 'config.data.path', 'trainA and trainB')
  folder = os.path.join(path, inner)
  if not os.path.isdir(folder):
    raise DataError(
      f'{printable(path)} {_content_of(path)} no folder {inner}: '
      'config.data.path is the folder that holds trainA and trainB, '
      f'{option} takes one of any name'
    )
  return folder


def _test_folder(config: DataConfig, domain: str) -> str | None:
  """The folder of a domain's test images; None where there is none."""
  option = f'config.data.test_{domain}'
  given = getattr(config, f'test_{domain}')
  if given:
    return _existing(given, option, f"{domain}'s test images")
  if config.path:
    inner = f'test{domain.upper()}'
    folder = os.path.join(os.path.expanduser(config.path), inner)
    if os.path.isdir(folder):
      return folder
  logging.getLogger('cyclegan_jax').warning(
    'no folder of test images of %s: its training images take their place '
    '(%s names one)',
    domain,
    option,
  )
  return None


def _existing(given: str, option: str, content: str) -> str:
  path = os.path.expanduser(given)
  try:
    if stat.S_ISDIR(os.stat(path).st_mode):
      return path
    trouble = 'is a file'
  except FileNotFoundError:
    trouble = 'does not exist'
  except (OSError, ValueError) as error:
    trouble = f"can't be opened ({one_line(error)})"
  raise DataError(
    f'{option}={given!r} {trouble}: give the folder that holds {content}'
  )


def _content_of(folder: str) -> str:
  """What a folder holds, for a message: 'holds notes.txt and testA, but'."""
  try:
    names = sorted(name for name in os.listdir(folder) if name[0] != '.')
  except OSError as error:
    raise DataError(
      f"{printable(folder)} can't be listed: {one_line(error)}"
    ) from error
  if not names:
    return 'is empty, with'
  shown = ', '.join(printable(name) for name in names[:_NUM_LISTED])
  more = len(names) - _NUM_LISTED
  return f'holds {shown}{f" and {more} more" if more > 0 else ""}, but'


def _images_in(folder: str, config: DataConfig, domain: str) -> Images:
  images, num_others = list_images(folder)
  if not images:
    count = f'{num_others} other file{"s" if num_others != 1 else ""}'
    raise DataError(
      f'{printable(folder)} holds no images ({", ".join(EXTENSIONS)}) and '
      f'{count}'
    )
  return images_of_files(
    images,
    channels=getattr(config, f'channels_{domain}'),
    max_pixels=config.max_pixels,
  )


def images_of_files(
  paths: Sequence[str], *, channels: int, max_pixels: int
) -> Images:
  """The images in some files, decoded on demand.

  Args:
    paths: of the files, which are also their names.
    channels: of every image: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
    max_pixels: an image with more is an ImageError when it is read.
  """
  paths = tuple(paths)
  return Images(
    names=paths,
    read=functools.partial(
      _read, paths, channels=channels, max_pixels=max_pixels
    ),
    shape_of=functools.partial(_shape_of, paths, max_pixels=max_pixels),
  )


def _read(
  paths: Sequence[str], index: int, *, channels: int, max_pixels: int
) -> np.ndarray:
  path = paths[index]
  with _opened(path) as file:
    return decode(file, path, channels=channels, max_pixels=max_pixels)


def _shape_of(
  paths: Sequence[str], index: int, *, max_pixels: int
) -> tuple[int, int]:
  path = paths[index]
  with _opened(path) as file:
    return decoded_shape(file, path, max_pixels=max_pixels)


def _opened(path: str) -> BinaryIO:
  try:
    return open(path, 'rb')
  except (OSError, ValueError) as error:
    raise ImageError(path, one_line(error)) from error
