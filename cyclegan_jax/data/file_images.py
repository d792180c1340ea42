"""Images in files and in members of zip archives, decoded on demand."""

import functools
import io
import zipfile
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

from cyclegan_jax.data.archive import Archive
from cyclegan_jax.data.image_list import Images
from cyclegan_jax.media.decoding import (
  decode,
  decode_opaque,
  decoded_shape,
)
from cyclegan_jax.media.listing import (
  Stamp,
  has_changed,
  natural,
  open_file,
)
from cyclegan_jax.media.metadata import read_header

_Opener = Callable[[int], BinaryIO]


def images_of_files(
  paths: Sequence[str],
  *,
  channels: int,
  max_pixels: int,
  root: str = '',
  stamps: Sequence[Stamp | None] | None = None,
) -> Images:
  """Images in files, decoded on demand.

  Args:
    paths: paths of the files, which are also the images' names.
    channels: channels of every image: 1 gray, 2 gray and alpha, 3 RGB, 4
      RGBA; or the number of bands that TIFF files have.
    max_pixels: an image with more raises ImageError when it is read.
    root: common start of all paths, '/' included.
    stamps: sizes and times of the files as they were listed, by which a
      change is noticed.
  """
  paths = tuple(paths)
  opener = functools.partial(_open, paths)
  return Images(
    names=paths,
    **_readers(paths, opener, channels=channels, max_pixels=max_pixels),
    root=root,
    sizes=None if stamps is None else [s.size if s else None for s in stamps],
    changed=None
    if stamps is None
    else functools.partial(_changed, paths, stamps),
  )


def _readers(
  names: Sequence[str], opener: _Opener, *, channels: int, max_pixels: int
) -> dict[str, Any]:
  """The functions of `Images` that read files, by name."""
  options = {'channels': channels, 'max_pixels': max_pixels}

  def reader(function: Callable[..., Any], **options: int) -> Any:
    return functools.partial(_call, function, names, opener, **options)

  return {
    'read': reader(decode, **options),
    'shape_of': reader(decoded_shape, max_pixels=max_pixels),
    'stored': reader(decode_opaque, **options),
    'header_of': reader(read_header, **options),
  }


def _call(
  function: Callable[..., Any],
  names: Sequence[str],
  opener: _Opener,
  index: int,
  **options: int,
) -> Any:
  with opener(index) as file:
    return function(file, names[index], **options)


def _open(paths: Sequence[str], index: int) -> BinaryIO:
  return open_file(paths[index])


def _changed(
  paths: Sequence[str], stamps: Sequence[Stamp | None], index: int
) -> str:
  return paths[index] if has_changed(paths[index], stamps[index]) else ''


def images_of_members(
  archive: Archive, inner: str, *, channels: int, max_pixels: int
) -> Images:
  """Images in a folder of a zip archive, in the order of `list_images`.

  Args:
    archive: an open archive.
    inner: folder in it, such as 'horses/trainA/', or '' for all of it.
    channels: as for `images_of_files`.
    max_pixels: likewise.
  """
  entries = sorted(
    (image for image in archive.images if image.filename.startswith(inner)),
    key=lambda entry: natural(entry.filename[len(inner) :]),
  )
  names = tuple(f'{archive.path}/{entry.filename}' for entry in entries)
  opener = functools.partial(_open_entry, archive, entries)
  return Images(
    names=names,
    **_readers(names, opener, channels=channels, max_pixels=max_pixels),
    root=f'{archive.path}/{inner}',
    sizes=[entry.file_size for entry in entries],
    changed=functools.partial(_changed_archive, archive),
  )


def _changed_archive(archive: Archive, index: int) -> str:
  del index  # which of the members changed is not known
  return archive.path if has_changed(archive.path, archive.stamp) else ''


def _open_entry(
  archive: Archive, entries: Sequence[zipfile.ZipInfo], index: int
) -> BinaryIO:
  return io.BytesIO(archive.read(entries[index]))
