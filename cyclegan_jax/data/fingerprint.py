"""What the images of a run are, so that a change of them is noticed.

By the names of their files, below the folder that was given, and by their
sizes: nothing is read but the listing, so 100,000 files take a second.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from cyclegan_jax.data.image_list import Images
from cyclegan_jax.errors import printable

_NUM_LISTED = 3  # names that a message shows


def fingerprint(images: Mapping[str, Images]) -> dict[str, Any]:
  """A short description by which two listings are known to be the same.

  Args:
    images: by split, 'train_a' and so on.

  Returns:
    {split: {'count': number of images, 'sha256': of names and sizes}}, for
    JSON. It is the same wherever the folder lies, and for a zip archive of it.
  """
  return {
    split: {
      'count': len(each),
      # Escaped to ASCII, so that names of any bytes have a hash.
      'sha256': hashlib.sha256(json.dumps(_listed(each)).encode()).hexdigest(),
    }
    for split, each in images.items()
  }


def listing(images: Mapping[str, Images]) -> dict[str, Any]:
  """All that goes into the fingerprint, for `changes`.

  Returns:
    {split: {'version': str, 'images': [[name, bytes or None], ...]}}, for
    JSON.
  """
  return {split: _listed(each) for split, each in images.items()}


def _listed(images: Images) -> dict[str, Any]:
  sizes = [None] * len(images) if images.sizes is None else images.sizes
  skipped = len(images.root)
  files = [
    [name[skipped:].replace(os.sep, '/'), size]
    for name, size in zip(images.names, sizes, strict=True)
  ]
  return {'version': images.version, 'images': files}


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """What changed between two listings, a line for each split.

  Returns:
    Texts such as 'train_a: 2 images added (x.png, y.png), 1 removed (z.png),
    1 of another size (w.png)'; none where nothing did.
  """
  texts = []
  for split in dict.fromkeys([*old, *new]):
    before, after = old.get(split, _NOTHING), new.get(split, _NOTHING)
    parts = _changes_of(dict(before['images']), dict(after['images']))
    if before['version'] != after['version']:
      parts.append(
        f'{before["version"] or None!r} became {after["version"] or None!r}'
      )
    elif not parts and before['images'] != after['images']:
      parts.append('another order')
    if parts:
      texts.append(f'{split}: {", ".join(parts)}')
  return texts


_NOTHING: dict[str, Any] = {'version': '', 'images': []}


def _changes_of(
  old: Mapping[str, int | None], new: Mapping[str, int | None]
) -> list[str]:
  changed = {
    'added': [name for name in new if name not in old],
    'removed': [name for name in old if name not in new],
    'of another size': [
      name for name in new if name in old and old[name] != new[name]
    ],
  }
  found = [(kind, names) for kind, names in changed.items() if names]
  texts: list[str] = []
  for kind, names in found:
    noun = ('image ' if len(names) == 1 else 'images ') if not texts else ''
    texts.append(f'{len(names)} {noun}{kind} ({_some(names)})')
  return texts


def _some(names: Sequence[str]) -> str:
  shown = ', '.join(printable(name) for name in names[:_NUM_LISTED])
  more = len(names) - _NUM_LISTED
  return f'{shown} and {more} more' if more > 0 else shown
