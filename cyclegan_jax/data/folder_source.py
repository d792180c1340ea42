"""Images in folders: trainA, trainB, and testA and testB where they exist.

A zip archive may take the place of any folder: its images are the same, in
the same order, as if it were unpacked.
"""

import dataclasses
import functools
import logging
import os
import stat
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cyclegan_jax.config import DataConfig
from cyclegan_jax.data.archive import Archive, is_archive
from cyclegan_jax.data.file_images import images_of_files, images_of_members
from cyclegan_jax.data.image_list import Images
from cyclegan_jax.errors import (
  ConfigError,
  DataError,
  one_line,
  printable,
)
from cyclegan_jax.media.decoding import EXTENSIONS
from cyclegan_jax.media.listing import describe_others, ending_of, list_images
from cyclegan_jax.media.tiff_reader import MAX_CHANNELS

_NUM_LISTED = 8  # entries of a folder that a message shows


class _Folder(NamedTuple):
  """A folder on disk or in an archive.

  Attributes:
    path: of the folder, or of the archive.
    archive: None for a folder on disk.
    inner: the folder in the archive, such as 'horses/trainA/'; '' for all.
  """

  path: str
  archive: Archive | None = None
  inner: str = ''


# Opens an archive once for all the folders in it.
_OpenArchive = Callable[[str], Archive]


def open_folder(config: DataConfig) -> dict[str, Images]:
  """Opens config.data.path, or the four folders by their own options.

  Returns:
    Images of 'train_a', 'train_b', 'test_a' and 'test_b'.

  Raises:
    ConfigError: no folder is given, or files never have so many channels.
    DataError: a folder is missing, unreadable or has no images, or a zip
      archive is damaged or refused.
  """
  _check_channels(config)
  open_archive = functools.cache(Archive)
  images = {}
  for domain in ('a', 'b'):
    folder = _find(config, 'train', domain, open_archive)
    if folder is None:
      raise _missing_folder(config, domain, open_archive)
    images[f'train_{domain}'] = _images_in(folder, config, domain)
  for domain in ('a', 'b'):
    folder = _find(config, 'test', domain, open_archive)
    if folder is None:
      logging.getLogger('cyclegan_jax').warning(
        'no folder of test images of %s: its training images take their '
        'place (config.data.test_%s names one)',
        domain,
        domain,
      )
      images[f'test_{domain}'] = images[f'train_{domain}']
    else:
      images[f'test_{domain}'] = _images_in(folder, config, domain)
  return images


def open_test_images(config: DataConfig, *, option: str) -> dict[str, Images]:
  """Opens the test images of the domains that config.data.path has.

  Args:
    config: data options.
    option: the option that gave the path, for messages.

  Returns:
    Images of 'test_a' and 'test_b', without those of a domain that has neither
    test images nor training images in their place.

  Raises:
    DataError: a folder is missing, unreadable or has no images, or a zip
      archive is damaged or refused.
  """
  parent = _existing(config.path, option, functools.cache(Archive))
  images = {}
  for domain in ('a', 'b'):
    for split in ('test', 'train'):
      if folder := _subfolder(parent, f'{split}{domain.upper()}'):
        images[f'test_{domain}'] = _images_in(folder, config, domain)
        break
  return images


def _check_channels(config: DataConfig) -> None:
  """Raises ConfigError where files never have so many channels."""
  for option in ('channels_a', 'channels_b'):
    count = getattr(config, option)
    if count > MAX_CHANNELS:
      raise ConfigError(
        f'config.data.{option}={count} is too large: at most {MAX_CHANNELS} '
        'channels are read from files'
      )


def _find(
  config: DataConfig, split: str, domain: str, open_archive: _OpenArchive
) -> _Folder | None:
  """Finds the folder of a split; None where no option leads to one."""
  name = f'{split}_{domain}'
  if path := getattr(config, name):
    return _existing(path, f'config.data.{name}', open_archive)
  if not config.path:
    return None
  parent = _existing(config.path, 'config.data.path', open_archive)
  return _subfolder(parent, f'{split}{domain.upper()}')


def _existing(path: str, option: str, open_archive: _OpenArchive) -> _Folder:
  try:
    if stat.S_ISDIR(os.stat(path).st_mode):
      return _Folder(path)
    if is_archive(path):
      return _Folder(path, open_archive(path))
    reason = 'is a file'
  except FileNotFoundError:
    reason = 'does not exist'
  except (OSError, ValueError) as error:
    reason = f'cannot be opened ({one_line(error)})'
  content = 'trainA and trainB' if option == 'config.data.path' else 'images'
  raise DataError(
    f'{option}={path!r} {reason}: give a folder, or a .zip, with {content}'
  )


def _subfolder(parent: _Folder, name: str) -> _Folder | None:
  """The folder of that name; in an archive, also one level down."""
  if not parent.archive:
    path = os.path.join(parent.path, name)
    return _Folder(path) if os.path.isdir(path) else None
  tops = {image.filename.split('/')[0] for image in parent.archive.images}
  is_wrapped = len(tops) == 1 and name not in tops
  inner = f'{tops.pop()}/{name}/' if is_wrapped else f'{name}/'
  if any(image.filename.startswith(inner) for image in parent.archive.images):
    return parent._replace(inner=inner)
  return None


def _missing_folder(
  config: DataConfig, domain: str, open_archive: _OpenArchive
) -> ConfigError | DataError:
  """The error where no option leads to a domain's training images."""
  option, inner = f'config.data.train_{domain}', f'train{domain.upper()}'
  if config.path:
    parent = _existing(config.path, 'config.data.path', open_archive)
    return DataError(
      f'config.data.path={config.path!r} has no folder {inner}, only '
      f'{_entries(parent)}: give the folder that holds trainA and trainB, or '
      f'a folder of any name as {option}'
    )
  if config.train_a or config.train_b:
    return ConfigError(
      f"{option} is not set: give the folder of {domain}'s training images, "
      f'or config.data.path with a folder {inner} in it'
    )
  return ConfigError(
    'config.data.path is not set: give the folder that holds trainA and '
    'trainB, or two folders as config.data.train_a and config.data.train_b'
  )


def _entries(folder: _Folder) -> str:
  """Lists what a folder holds, for a message; of an archive, the images."""
  try:
    names = (
      {image.filename.split('/')[0] for image in folder.archive.images}
      if folder.archive
      else os.listdir(folder.path)
    )
  except OSError as error:
    raise DataError(
      f'{printable(folder.path)} cannot be listed: {one_line(error)}'
    ) from error
  visible = sorted(name for name in names if name[0] != '.')
  shown = ', '.join(printable(name) for name in visible[:_NUM_LISTED])
  num_more = len(visible) - _NUM_LISTED
  more = f' and {num_more} more' if num_more > 0 else ''
  return f'{shown}{more}' if shown else 'nothing'


def _images_in(folder: _Folder, config: DataConfig, domain: str) -> Images:
  options: dict[str, Any] = {
    'channels': getattr(config, f'channels_{domain}'),
    'max_pixels': config.max_pixels,
    'pages': config.pages,
    'slice_axis': config.slice_axis,
  }
  if folder.archive:
    other_files: Mapping[str, int] = Counter(
      ending_of(name)
      for name in folder.archive.other_files
      if name.startswith(folder.inner)
    )
    images = images_of_members(folder.archive, folder.inner, **options)
  else:
    paths, other_files, stamps, unlisted = list_images(folder.path)
    for message in unlisted:
      logging.getLogger('cyclegan_jax').warning('%s', message)
    images = images_of_files(
      paths, root=os.path.join(folder.path, ''), stamps=stamps, **options
    )
  other_files = Counter(other_files) + Counter(images.other_files)
  if not len(images):
    raise DataError(
      f'{printable(folder.path)} holds no images ({", ".join(EXTENSIONS)})'
      + (f' and {describe_others(other_files)}' if other_files else '')
    )
  return dataclasses.replace(images, other_files=other_files)
