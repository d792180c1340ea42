"""Images in files and in members of archives, decoded on demand."""

import functools
import io
from collections.abc import Sequence

import numpy as np

from cyclegan_jax.data.archive import Archive, Member, read_member
from cyclegan_jax.data.decoding import (
  Images,
  decode,
  decode_bytes,
  decoded_shape,
)
from cyclegan_jax.data.files import Stamp, has_changed, natural, open_file


def images_of_files(
  paths: Sequence[str],
  *,
  channels: int,
  max_pixels: int,
  root: str = '',
  stamps: Sequence[Stamp | None] | None = None,
) -> Images:
  """The images in some files, decoded on demand.

  Args:
    paths: of the files, which are also their names.
    channels: of every image: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
    max_pixels: an image with more is an ImageError when it is read.
    root: what all paths begin with, '/' included.
    stamps: of the files as they were listed, by which a change is noticed.
  """
  paths = tuple(paths)
  return Images(
    names=paths,
    read=functools.partial(
      _read, paths, channels=channels, max_pixels=max_pixels
    ),
    shape_of=functools.partial(_shape_of, paths, max_pixels=max_pixels),
    root=root,
    sizes=None if stamps is None else [each and each.size for each in stamps],
    changed=None
    if stamps is None
    else functools.partial(_changed, paths, stamps),
  )


def _read(
  paths: Sequence[str], index: int, *, channels: int, max_pixels: int
) -> np.ndarray:
  path = paths[index]
  with open_file(path) as file:
    return decode(file, path, channels=channels, max_pixels=max_pixels)


def _shape_of(
  paths: Sequence[str], index: int, *, max_pixels: int
) -> tuple[int, int]:
  path = paths[index]
  with open_file(path) as file:
    return decoded_shape(file, path, max_pixels=max_pixels)


def _changed(
  paths: Sequence[str], stamps: Sequence[Stamp | None], index: int
) -> str:
  return paths[index] if has_changed(paths[index], stamps[index]) else ''


def images_of_members(
  archive: Archive, inner: str, *, channels: int, max_pixels: int
) -> Images:
  """The images in a folder of an archive, in the order of `list_images`.

  Args:
    archive: from `open_archive`.
    inner: the folder, 'horses/trainA/', or '' for the whole archive.
    channels: as for `images_of_files`.
    max_pixels: likewise.
  """
  members = sorted(
    (each for each in archive.images if each.name.startswith(inner)),
    key=lambda member: natural(member.name[len(inner) :]),
  )
  return Images(
    names=tuple(f'{archive.path}/{each.name}' for each in members),
    read=functools.partial(
      _read_member,
      archive.path,
      members,
      channels=channels,
      max_pixels=max_pixels,
    ),
    shape_of=functools.partial(
      _shape_of_member, archive.path, members, max_pixels=max_pixels
    ),
    root=f'{archive.path}/{inner}',
    sizes=[each.size for each in members],
    changed=functools.partial(_changed_archive, archive),
  )


def _changed_archive(archive: Archive, index: int) -> str:
  del index  # nobody knows which of its members did
  return archive.path if has_changed(archive.path, archive.stamp) else ''


def _read_member(
  path: str,
  members: Sequence[Member],
  index: int,
  *,
  channels: int,
  max_pixels: int,
) -> np.ndarray:
  member = members[index]
  return decode_bytes(
    read_member(path, member),
    f'{path}/{member.name}',
    channels=channels,
    max_pixels=max_pixels,
  )


def _shape_of_member(
  path: str, members: Sequence[Member], index: int, *, max_pixels: int
) -> tuple[int, int]:
  member = members[index]
  file = io.BytesIO(read_member(path, member))
  return decoded_shape(file, f'{path}/{member.name}', max_pixels=max_pixels)
