"""Translated images on one page: input, translation, and translation back.

The page opens from a disk without a server and refers only to the pictures
beside it. Their files are named by a hash of the entry's name, so that nested
names do not collide and every name is a valid address. An entry exists once
its record, one small file, exists. So an interrupted command can be resumed,
and several processes may add to one folder.
"""

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import filelock
import jax
import numpy as np
from PIL import Image

from cyclegan_jax.images import to_float, to_rgb
from cyclegan_jax.report.html_page import write_page
from cyclegan_jax.storage.atomic import replacing

# Hidden, because a folder of outputs may become a folder of inputs.
PICTURES_FOLDER = '.gallery'
PAGE_FILE = 'index.html'
PREVIEW_SIDE = 1024
THUMBNAIL_SIDE = 256

_ROLES = ('source', 'translated', 'back')

Size = tuple[int, int]  # width, height


class _Entry(NamedTuple):
  name: str
  key: str
  sizes: tuple[Size, ...]  # of the full images, in the order of _ROLES
  kind: str  # 'image' or 'clip'


class TranslationGallery:
  """A page of translations, and the pictures that it shows.

  Pictures are in `folder/.gallery`, the page is `folder/index.html`. Memory
  does not grow with the number of entries, except for their names in `finish`.
  """

  def __init__(
    self,
    folder: Path,
    *,
    title: str,
    direction: str,
    total: int | None = None,
    names: tuple[str, str] | None = None,
  ):
    """Opens a new or an existing gallery.

    Args:
      folder: created if it is missing.
      title: the page's heading, as plain text.
      direction: 'ab' or 'ba'; entries of the other direction are not shown.
      total: expected number of entries, of all processes together, for the
        status line.
      names: names of the inputs and of the translations that are shown; None
        for the letters of the direction.

    Raises:
      ValueError: direction is something else.
      OSError: the folder cannot be created.
    """
    if direction not in ('ab', 'ba'):
      raise ValueError(f"direction is 'ab' or 'ba', not {direction!r}")
    self._folder = folder
    self._pictures = folder / PICTURES_FOLDER
    self._title = title
    self._direction = direction
    self._total = total
    self._names = names or (direction[0], direction[1])
    self._pictures.mkdir(parents=True, exist_ok=True)

  def add(
    self,
    name: str,
    source: np.ndarray | jax.Array,
    translated: np.ndarray | jax.Array,
    back: np.ndarray | jax.Array | None = None,
    *,
    sizes: Sequence[Size] | None = None,
    kind: str = 'image',
  ) -> None:
    """Adds an entry, or replaces the one of the same name.

    Args:
      name: the name that is shown and searched; any text, with '/' between
        folders. The page links to the file of this name beside it.
      source: [h, w, C], uint8 or floats in [-1, 1]. Sizes and channels of the
        three images may differ; `images.to_rgb` says how C are shown.
      translated: the translation of `source`.
      back: the translation of `translated` in the other direction.
      sizes: (width, height) of the full images, if these are reduced.
      kind: 'image', or 'clip' if these are a clip's first frames.

    Raises:
      ValueError: an array has another shape or dtype.
      OSError: a file cannot be written.
    """
    images = [source, translated] + ([] if back is None else [back])
    for image in images:
      _check_image(image)
    key = _key(name)
    record = self._record_path(key)
    record.parent.mkdir(exist_ok=True)
    # Removed before a picture changes, so that no entry mixes two translations.
    record.unlink(missing_ok=True)
    sizes = sizes or [(image.shape[1], image.shape[0]) for image in images]
    num_bytes = {}
    for role, image, size in zip(_ROLES, images, sizes, strict=False):
      for file, data in _picture_files(f'{key}_{role}', image, size):
        _replace(record.with_name(file), data)
        num_bytes[file] = len(data)
    for path in record.parent.glob(f'{key}_*'):
      if path.name not in num_bytes:
        path.unlink(missing_ok=True)
    entry = {
      'name': name,
      'direction': self._direction,
      'sizes': sizes,
      'kind': kind,
      'files': num_bytes,
    }
    _replace(record, json.dumps(entry).encode())

  def has(self, name: str) -> bool:
    """Whether a complete entry of this name and direction exists."""
    entry = self._read(self._record_path(_key(name)))
    return entry is not None and entry.name == name

  def finish(self) -> Path:
    """Writes the page of all entries; may be called repeatedly.

    Returns:
      The page's path.

    Raises:
      OSError: the page cannot be written.
    """
    path = self._folder / PAGE_FILE
    # The last of several processes to get the lock sees the entries of all.
    with _lock(self._pictures / 'lock'):
      records = self._pictures.glob('[0-9a-f][0-9a-f]/*.json')
      entries = [entry for record in records if (entry := self._read(record))]
      entries.sort(key=lambda entry: _natural_order(entry.name))
      self._write_page(path, entries)
    return path

  def _record_path(self, key: str) -> Path:
    # 256 folders, because many disks are slow with 100,000 files in one.
    return self._pictures / key[:2] / f'{key}.json'

  def _read(self, path: Path) -> _Entry | None:
    """The entry of a record; None if it or one of its pictures is damaged."""
    try:
      record = json.loads(path.read_bytes())
      name, sizes, files = record['name'], record['sizes'], record['files']
      if record['direction'] != self._direction or _key(name) != path.stem:
        return None
      entry = _Entry(
        name,
        path.stem,
        tuple((int(w), int(h)) for w, h in sizes),
        str(record['kind']),
      )
      for file, num_bytes in files.items():
        if path.with_name(file).stat().st_size != num_bytes:
          return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
      return None
    return entry

  def _write_page(self, path: Path, entries: list[_Entry]) -> None:
    a, b = self._names
    total = self._total or 0
    has_back = any(len(entry.sizes) > 2 for entry in entries)
    write_page(
      path,
      'translation_gallery',
      {'folder': PICTURES_FOLDER},
      {
        'roles': _ROLES,
        'labels': [f'Input ({a})', f'Translated ({b})', f'Back again ({a})'],
        'folder': PICTURES_FOLDER,
        'thumbnail': THUMBNAIL_SIDE,
        'entries': entries,
      },
      title=self._title,
      status=f'{_count(len(entries), total)} · {a} → {b}'
      + (' and back' if has_back else ''),
      done=len(entries) / total if len(entries) < total else None,
      shared=('slider',),
      command='translate',
    )


def _check_image(image: np.ndarray | jax.Array) -> None:
  # jax.numpy's floats include bfloat16.
  dtype = image.dtype
  is_known = dtype == np.uint8 or jax.numpy.issubdtype(dtype, np.floating)
  if image.ndim != 3 or 0 in image.shape or not is_known:
    raise ValueError(
      'an image is [h, w, C] of uint8 or floats, not '
      f'{list(image.shape)} of {dtype}'
    )


def _key(name: str) -> str:
  # Names of files that are not UTF-8 have surrogates.
  return hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:32]


def _picture_files(
  stem: str, image: np.ndarray | jax.Array, size: Size
) -> Iterator[tuple[str, bytes]]:
  """The names and contents of an image's files.

  Small images are shown enlarged, which would show JPEG's blocks. So they are
  stored without loss, and are their own thumbnails.
  """
  picture = _to_picture(np.asarray(image))
  if max(size) <= THUMBNAIL_SIDE:
    yield f'{stem}.png', _to_bytes(picture, 'PNG')
    return
  preview = _shrink(picture, size, PREVIEW_SIDE)
  # Without chroma subsampling, as translations mainly change colors.
  yield f'{stem}.jpg', _to_bytes(preview, 'JPEG', quality=92, subsampling=0)
  thumbnail = _shrink(preview, size, THUMBNAIL_SIDE)
  yield f'{stem}_thumb.jpg', _to_bytes(thumbnail, 'JPEG', quality=85)


def _to_picture(image: np.ndarray) -> Image.Image:
  """An image in RGB; a huge one reduced by a whole factor."""
  factor = max(1, max(image.shape[:2]) // (2 * PREVIEW_SIDE))
  # By strips of about a million pixels, as all floats may need too much memory.
  num_rows = max(1, 2**20 // (factor * image.shape[1])) * factor
  strips = [
    np.asarray(Image.fromarray(_rgb(image[y : y + num_rows])).reduce(factor))
    for y in range(0, image.shape[0], num_rows)
  ]
  return Image.fromarray(np.concatenate(strips))


def _rgb(image: np.ndarray) -> np.ndarray:
  floats = to_float(image) if image.dtype == np.uint8 else image
  return to_rgb(np.asarray(floats)[None])[0]


def _shrink(picture: Image.Image, size: Size, side: int) -> Image.Image:
  """Resizes the picture of an image of a size to fit into a square."""
  scale = min(1.0, side / max(size))
  width, height = (max(1, round(each * scale)) for each in size)
  if picture.size == (width, height):
    return picture
  return picture.resize((width, height), Image.Resampling.LANCZOS)


def _to_bytes(picture: Image.Image, kind: str, **options: int) -> bytes:
  file = io.BytesIO()
  picture.save(file, kind, **options)
  return file.getvalue()


def _replace(path: Path, data: bytes) -> None:
  # Not synced: the record reveals an entry that a loss of power damaged.
  with replacing(path) as temporary:
    temporary.write_bytes(data)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
  """Keeps other processes out, if the disk has locks."""
  lock = filelock.FileLock(path)
  with contextlib.suppress(OSError, NotImplementedError):
    lock.acquire()
  try:
    yield
  finally:
    lock.release()


def _natural_order(name: str) -> tuple[object, ...]:
  """A key that puts 'a2' before 'a10', and a folder's files together."""
  parts = []
  for part in name.split('/'):
    pieces = re.split('([0-9]+)', part.casefold())
    # At odd indices are numbers of any length, ordered by length first.
    parts.append(
      tuple(
        (len(piece.lstrip('0')), piece.lstrip('0')) if i % 2 else (0, piece)
        for i, piece in enumerate(pieces)
      )
    )
  return (parts, name)


def _count(number: int, total: int) -> str:
  # Earlier calls or other processes may have added more than the total.
  if number < total:
    return f'{number:,} of {total:,} images'
  return f'{number:,} image{"" if number == 1 else "s"}'
