"""Fingerprints of a run's images, by which changes are noticed.

They cover the names of files below the data folder, and their sizes. Only
directories are read, so 100,000 files take a second.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from cyclegan_jax.data.image_list import Images
from cyclegan_jax.errors import printable

_NUM_SHOWN = 3  # names in a message


def fingerprint(images: Mapping[str, Images]) -> dict[str, Any]:
  """Describes listings by a hash.

  Args:
    images: images by split, 'train_a' and so on.

  Returns:
    {split: {'count': number of images, 'sha256': hash of names and sizes}},
    JSON-serializable. It does not depend on the folder's location, and is the
    same for a zip archive of it.
  """
  return {
    split: {
      'count': len(each),
      # As ASCII, so that names of any bytes can be hashed.
      'sha256': hashlib.sha256(
        json.dumps(_list_images(each)).encode()
      ).hexdigest(),
    }
    for split, each in images.items()
  }


def listing(images: Mapping[str, Images]) -> dict[str, Any]:
  """Lists everything that the fingerprint covers, for `changes`.

  Returns:
    {split: {'version': str, 'images': [[name, bytes or None], ...]}},
    JSON-serializable.
  """
  return {split: _list_images(each) for split, each in images.items()}


def _list_images(images: Images) -> dict[str, Any]:
  sizes = [None] * len(images) if images.sizes is None else images.sizes
  files = [
    [name, size]
    for name, size in zip(images.relative_names(), sizes, strict=True)
  ]
  return {'version': images.version, 'images': files}


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """Describes the changes between two listings, one text per split.

  Returns:
    Texts such as 'train_a: 2 images added (x.png, y.png), 1 removed (z.png),
    1 of another size (w.png)'; [] without changes.
  """
  texts = []
  empty: dict[str, Any] = {'version': '', 'images': []}
  for split in dict.fromkeys([*old, *new]):
    before, after = old.get(split, empty), new.get(split, empty)
    parts = _describe_changes(dict(before['images']), dict(after['images']))
    if before['version'] != after['version']:
      parts.append(
        f'{before["version"] or None!r} became {after["version"] or None!r}'
      )
    elif not parts and before['images'] != after['images']:
      parts.append('another order')
    if parts:
      texts.append(f'{split}: {", ".join(parts)}')
  return texts


def _describe_changes(
  old: Mapping[str, int | None], new: Mapping[str, int | None]
) -> list[str]:
  changed = {
    'added': [name for name in new if name not in old],
    'removed': [name for name in old if name not in new],
    'of another size': [
      name for name in new if name in old and old[name] != new[name]
    ],
  }
  texts: list[str] = []
  for kind, names in changed.items():
    if names:
      noun = ''
      if not texts:
        noun = 'image ' if len(names) == 1 else 'images '
      texts.append(f'{len(names)} {noun}{kind} ({_first_names(names)})')
  return texts


def _first_names(names: Sequence[str]) -> str:
  shown = ', '.join(printable(name) for name in names[:_NUM_SHOWN])
  more = len(names) - _NUM_SHOWN
  return f'{shown} and {more} more' if more > 0 else shown
