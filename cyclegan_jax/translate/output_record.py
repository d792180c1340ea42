"""Whose the files in a folder of outputs are, and of what they are made."""

import hashlib
import json
import os
import pathlib
from typing import Any

from cyclegan_jax.errors import ConfigError
from cyclegan_jax.report.translation_gallery import PAGE_FILE
from cyclegan_jax.storage.atomic import replace_text
from cyclegan_jax.storage.checksums import MANIFEST_FILE
from cyclegan_jax.translate.options import RECORD_FILE, Options


def claim(
  to: pathlib.Path,
  names: list[str],
  checkpoint: pathlib.Path,
  options: Options,
) -> set[str]:
  """Makes a folder the command's; tells what in it is not.

  A record in the folder says that the others are its outputs, and of what.

  Args:
    to: the folder.
    names: of the outputs below it.
    checkpoint: that they are made with.
    options: likewise.

  Returns:
    The names that are taken by files which are not this command's.

  Raises:
    ConfigError: its outputs are of something else, or none can tell.
    OSError: the record can't be written.
  """
  description = _describe(checkpoint, options)
  record = to / RECORD_FILE
  try:
    known = json.loads(record.read_text(encoding='utf-8'))
    old = {name: known[name] for name in description}
    foreign = set(map(str, known['foreign']))
  except FileNotFoundError:
    page = to / PAGE_FILE
    if options.gallery and page.exists():
      raise ConfigError(
        f'{page} is there and was not made by this command: give another --to'
      ) from None
    old = description
    # Not Path's: a name that is too long is told when it is written.
    foreign = {name for name in names if os.path.exists(to / name)}
  except (ValueError, TypeError, KeyError) as error:
    raise ConfigError(
      f'{record} is damaged, so what is beside it may not be ours: give '
      'another --to'
    ) from error
  differs = [
    f'{name}: {old[name]} -> {new}'
    for name, new in description.items()
    if old[name] != new
  ]
  if differs and not options.overwrite:
    raise ConfigError(
      f'{to} holds translations of another kind ({"; ".join(differs)}): give '
      'another --to, or --overwrite to make them anew'
    )
  # Theirs for as long as they are there, whatever is asked for later.
  foreign = {name for name in foreign if os.path.exists(to / name)}
  replace_text(record, json.dumps({**description, 'foreign': sorted(foreign)}))
  return foreign


def _describe(checkpoint: pathlib.Path, options: Options) -> dict[str, Any]:
  """What the outputs in a folder have in common."""
  manifest = (checkpoint / MANIFEST_FILE).read_bytes()
  return {
    'checkpoint': f'{checkpoint} {hashlib.sha256(manifest).hexdigest()[:16]}',
    'direction': options.direction,
    'seed': options.seed,
    'size': None if options.size is None else list(options.size),
  }
