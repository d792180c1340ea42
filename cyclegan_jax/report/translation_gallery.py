"""Translated images as one page: input, output, and back again.

The page opens from a disk without a server and refers to nothing but the
pictures beside it. Their files are named by a hash of the entry's name, so
that nested names do not collide and no name has to be written as an address.
An entry is whole once its record, one small file, is there: so a run that was
stopped goes on where it was, and several processes may add to one folder.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from cyclegan_jax.images import to_float, to_rgb
from cyclegan_jax.report.html_page import write_page
from cyclegan_jax.storage.atomic import replacing

# Hidden, as a folder of outputs may become a folder of inputs.
PICTURES_FOLDER = '.gallery'
PAGE_FILE = 'index.html'
PREVIEW_SIDE = 1024
THUMBNAIL_SIDE = 256

_ROLES = ('source', 'translated', 'back')

Size = tuple[int, int]  # width, height


class _Entry(NamedTuple):
  name: str
  key: str
  sizes: tuple[Size, ...]  # of the images themselves, in the order of _ROLES
  kind: str  # 'image' or 'clip'


class TranslationGallery:
  """A page of translations, and the pictures that it shows.

  Pictures go to `folder/.gallery`, the page to `folder/index.html`. Only names
  are kept in memory, and only by `finish`.
  """

  def __init__(
    self, folder: Path, *, title: str, direction: str, total: int | None = None
  ):
    """Opens a gallery, new or with the entries that are there.

    Args:
      folder: made if it is missing.
      title: the page's heading, as plain text.
      direction: 'ab' or 'ba'; entries of the other one are not shown.
      total: how many entries there are to be, of all processes together, for
        the status line.

    Raises:
      ValueError: another direction.
      OSError: the folder can't be made.
    """
    if direction not in ('ab', 'ba'):
      raise ValueError(f"direction is 'ab' or 'ba', not {direction!r}")
    self._folder = folder
    self._pictures = folder / PICTURES_FOLDER
    self._title = title
    self._direction = direction
    self._total = total
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
    """Adds an entry, in place of the one of the same name.

    Args:
      name: to be shown and searched; any text, with '/' between folders. The
        page links to the file of this name beside it.
      source: [h, w, C], uint8 or floats in [-1, 1], like the other two; sizes
        and channels may differ. See `images.to_rgb` for how C are shown.
      translated: what became of it.
      back: and when that was translated back.
      sizes: (width, height) of what these are smaller pictures of; None for
        their own.
      kind: 'image', or 'clip' where these are its first frames.

    Raises:
      ValueError: an array of another shape or dtype.
      OSError: a file can't be written.
    """
    shown = [source, translated] if back is None else [source, translated, back]
    for image in shown:
      _check(image)
    key = _key(name)
    record = self._record_path(key)
    record.parent.mkdir(exist_ok=True)
    # Gone before a picture changes: an entry never mixes two translations.
    record.unlink(missing_ok=True)
    sizes = sizes or [(image.shape[1], image.shape[0]) for image in shown]
    written = {}
    for role, image, size in zip(_ROLES, shown, sizes, strict=False):
      for file, data in _encode(f'{key}_{role}', np.asarray(image), size):
        _replace(record.with_name(file), data)
        written[file] = len(data)
    for path in record.parent.glob(f'{key}_*'):
      if path.name not in written:
        path.unlink(missing_ok=True)
    entry = {
      'name': name,
      'direction': self._direction,
      'sizes': sizes,
      'kind': kind,
      'files': written,
    }
    _replace(record, json.dumps(entry).encode())

  def has(self, name: str) -> bool:
    """Whether an entry of this name and direction is there, and whole."""
    entry = self._read(self._record_path(_key(name)))
    return entry is not None and entry.name == name

  def finish(self) -> Path:
    """Writes the page of all entries that are there; may be called often.

    Returns:
      The page's path.

    Raises:
      OSError: it can't be written.
    """
    path = self._folder / PAGE_FILE
    # The last of several processes to get the lock sees what all have added.
    with _lock(self._pictures / 'lock'):
      records = self._pictures.glob('[0-9a-f][0-9a-f]/*.json')
      entries = [entry for each in records if (entry := self._read(each))]
      entries.sort(key=lambda entry: _natural_order(entry.name))
      self._write_page(path, entries)
    return path

  def _record_path(self, key: str) -> Path:
    # In 256 folders, as many disks are slow with 100,000 files in one.
    return self._pictures / key[:2] / f'{key}.json'

  def _read(self, path: Path) -> _Entry | None:
    """The entry of a record; None if it or a picture of it is not whole."""
    try:
      record = json.loads(path.read_bytes())
      name, sizes, files = record['name'], record['sizes'], record['files']
      if record['direction'] != self._direction or _key(name) != path.stem:
        return None
      entry = _Entry(
        name,
        path.stem,
        tuple((int(w), int(h)) for w, h in sizes),
        str(record.get('kind', 'image')),
      )
      for file, num_bytes in files.items():
        if path.with_name(file).stat().st_size != num_bytes:
          return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
      return None
    return entry

  def _write_page(self, path: Path, entries: list[_Entry]) -> None:
    a, b = self._direction[0], self._direction[1]
    total = self._total or 0
    has_back = any(len(each.sizes) > 2 for each in entries)
    write_page(
      path,
      'translations',
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
    )


def _check(image: np.ndarray | jax.Array) -> None:
  # JAX's floats include bfloat16, which is none of NumPy's.
  dtype = image.dtype
  known = dtype == np.uint8 or jax.numpy.issubdtype(dtype, np.floating)
  if image.ndim != 3 or 0 in image.shape or not known:
    raise ValueError(
      'an image is [h, w, C] of uint8 or floats, not '
      f'{list(image.shape)} of {dtype}'
    )


def _key(name: str) -> str:
  # Names of files that are no UTF-8 come with surrogates.
  return hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:32]


def _encode(
  stem: str, image: np.ndarray, size: Size
) -> Iterator[tuple[str, bytes]]:
  """The files of one image of a size: name, content.

  Small images are shown with their pixels enlarged, where JPEG's blocks would
  be seen: they are kept as they are, and are their own thumbnails.
  """
  picture = _to_picture(image)
  if max(size) <= THUMBNAIL_SIDE:
    yield f'{stem}.png', _to_bytes(picture, 'PNG')
    return
  preview = _shrink(picture, size, PREVIEW_SIDE)
  # Full colour resolution: translations differ in colour more than in light.
  full = {'quality': 92, 'subsampling': 0}
  yield f'{stem}.jpg', _to_bytes(preview, 'JPEG', **full)
  thumbnail = _shrink(preview, size, THUMBNAIL_SIDE)
  yield f'{stem}_thumb.jpg', _to_bytes(thumbnail, 'JPEG', quality=85)


def _to_picture(image: np.ndarray) -> Image.Image:
  """RGB for the eye, of a huge image smaller by a whole factor."""
  factor = max(1, max(image.shape[:2]) // (2 * PREVIEW_SIDE))
  # By strips of about a million pixels: a copy of it all may be too large.
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
  """The picture of an image of this size, within a square."""
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
  # Not synced: of an entry that a loss of power spoils its record tells.
  with replacing(path) as temporary:
    temporary.write_bytes(data)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
  """Waits for other processes' turns, as far as the disk has locks."""
  with path.open('ab') as file:
    with contextlib.suppress(OSError):
      fcntl.flock(file, fcntl.LOCK_EX)
    yield


def _natural_order(name: str) -> tuple[object, ...]:
  """A key that puts 'a2' before 'a10', and a folder's files together."""
  parts = []
  for part in name.split('/'):
    pieces = re.split('([0-9]+)', part.casefold())
    # Numbers, at odd places, by their length first: they may be of any.
    parts.append(
      tuple(
        (len(piece.lstrip('0')), piece.lstrip('0')) if i % 2 else (0, piece)
        for i, piece in enumerate(pieces)
      )
    )
  return (parts, name)


def _count(number: int, total: int) -> str:
  # More than the total were there before, or come from another process.
  if number < total:
    return f'{number:,} of {total:,} images'
  return f'{number:,} image{"" if number == 1 else "s"}'
