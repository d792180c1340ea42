"""Images in folders: trainA, trainB, and testA and testB where there.

A zip archive may take the place of any folder: its images are the same, in
the same order, as if it were unpacked.
"""

import functools
import logging
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from cyclegan_jax.config import DataConfig
from cyclegan_jax.data.archive import Archive, is_archive, open_archive
from cyclegan_jax.data.file_images import images_of_files, images_of_members
from cyclegan_jax.data.image_list import Images
from cyclegan_jax.errors import (
  ConfigError,
  DataError,
  one_line,
  printable,
)
from cyclegan_jax.media.decoding import EXTENSIONS
from cyclegan_jax.media.listing import list_images
from cyclegan_jax.media.tiff_reader import MAX_CHANNELS

_NUM_LISTED = 8  # entries of a folder that a message shows


class _Folder(NamedTuple):
  """A folder on disk or in an archive."""

  path: str  # of the folder, or of the archive
  archive: Archive | None = None
  inner: str = ''  # 'horses/trainA/' in the archive


# Opens an archive, once for all the folders that are in it.
_Opener = Callable[[str], Archive]


def open_folder(config: DataConfig) -> dict[str, Images]:
  """The images of config.data.path, or of the four folders by their names.

  Raises:
    ConfigError: no folder is named, or the channels can't be had.
    DataError: a folder is missing, can't be listed or holds no images, or a
      zip archive holds what could do harm.
  """
  _check_channels(config)
  opener = functools.cache(open_archive)
  images = {}
  for domain in ('a', 'b'):
    folder = _train_folder(config, domain, opener)
    images[f'train_{domain}'] = _images_in(folder, config, domain)
  for domain in ('a', 'b'):
    test_folder = _test_folder(config, domain, opener)
    images[f'test_{domain}'] = (
      _images_in(test_folder, config, domain)
      if test_folder
      else images[f'train_{domain}']
    )
  return images


def _check_channels(config: DataConfig) -> None:
  """Raises ConfigError where files can't have the channels asked for."""
  for option in ('channels_a', 'channels_b'):
    count = getattr(config, option)
    if count > MAX_CHANNELS:
      raise ConfigError(
        f'config.data.{option}={count} is too large: at most {MAX_CHANNELS} '
        'channels are read from files'
      )


def _train_folder(config: DataConfig, domain: str, opener: _Opener) -> _Folder:
  """The folder of a domain's training images."""
  option = f'config.data.train_{domain}'
  given = getattr(config, f'train_{domain}')
  if given:
    return _existing(given, option, f"{domain}'s training images", opener)
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
  whole = _existing(
    config.path, 'config.data.path', 'trainA and trainB', opener
  )
  folder = _inside(whole, inner)
  if not folder:
    raise DataError(
      f'{printable(whole.path)} {_content_of(whole)} no folder {inner}: '
      'config.data.path is the folder that holds trainA and trainB, '
      f'{option} takes one of any name'
    )
  return folder


def _test_folder(
  config: DataConfig, domain: str, opener: _Opener
) -> _Folder | None:
  """The folder of a domain's test images; None where there is none."""
  option = f'config.data.test_{domain}'
  given = getattr(config, f'test_{domain}')
  content = f"{domain}'s test images"
  if given:
    return _existing(given, option, content, opener)
  if config.path:
    whole = _existing(config.path, 'config.data.path', content, opener)
    if folder := _inside(whole, f'test{domain.upper()}'):
      return folder
  logging.getLogger('cyclegan_jax').warning(
    'no folder of test images of %s: its training images take their place '
    '(%s names one)',
    domain,
    option,
  )
  return None


def _existing(
  given: str, option: str, content: str, opener: _Opener
) -> _Folder:
  path = os.path.expanduser(given)
  try:
    if stat.S_ISDIR(os.stat(path).st_mode):
      return _Folder(path)
    if is_archive(path):
      return _Folder(path, opener(path))
    trouble = 'is a file'
  except FileNotFoundError:
    trouble = 'does not exist'
  except (OSError, ValueError) as error:
    trouble = f"can't be opened ({one_line(error)})"
  raise DataError(
    f'{option}={given!r} {trouble}: give the folder, or the .zip, that holds '
    f'{content}'
  )


def _inside(folder: _Folder, name: str) -> _Folder | None:
  """The folder of a name in a folder; in an archive, also one level down."""
  if not folder.archive:
    path = os.path.join(folder.path, name)
    return _Folder(path) if os.path.isdir(path) else None
  inner = f'{_top(folder.archive, name)}{name}/'
  images = folder.archive.images
  if any(image.name.startswith(inner) for image in images):
    return folder._replace(inner=inner)
  return None


def _top(archive: Archive, name: str) -> str:
  """What precedes a folder's name: '', or the one folder that holds all."""
  firsts = {image.name.split('/')[0] for image in archive.images}
  return f'{firsts.pop()}/' if len(firsts) == 1 and name not in firsts else ''


def _content_of(folder: _Folder) -> str:
  """What a folder holds, for a message: 'holds notes.txt and testA, but'."""
  try:
    found = (
      {image.name.split('/')[0] for image in folder.archive.images}
      if folder.archive
      else os.listdir(folder.path)
    )
  except OSError as error:
    raise DataError(
      f"{printable(folder.path)} can't be listed: {one_line(error)}"
    ) from error
  names = sorted(name for name in found if name[0] != '.')
  if not names:
    return 'holds no images, and' if folder.archive else 'is empty, with'
  shown = ', '.join(printable(name) for name in names[:_NUM_LISTED])
  more = len(names) - _NUM_LISTED
  return f'holds {shown}{f" and {more} more" if more > 0 else ""}, but'


def _images_in(folder: _Folder, config: DataConfig, domain: str) -> Images:
  channels = getattr(config, f'channels_{domain}')
  if folder.archive:
    num_others = folder.archive.num_other_files
    images = images_of_members(
      folder.archive,
      folder.inner,
      channels=channels,
      max_pixels=config.max_pixels,
    )
  else:
    paths, num_others, stamps = list_images(folder.path)
    images = images_of_files(
      paths,
      channels=channels,
      max_pixels=config.max_pixels,
      root=os.path.join(folder.path, ''),
      stamps=stamps,
    )
  if not len(images):
    count = f'{num_others} other file{"s" if num_others != 1 else ""}'
    raise DataError(
      f'{printable(folder.path)} holds no images ({", ".join(EXTENSIONS)}) and '
      f'{count}'
    )
  return images
