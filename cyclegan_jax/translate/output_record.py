"""Record of a folder of outputs: how they were made, and files of others."""

import hashlib
import json
import os
import pathlib
from typing import Any

from cyclegan_jax.errors import ConfigError
from cyclegan_jax.report.html_page import is_page_of
from cyclegan_jax.report.translation_gallery import PAGE_FILE
from cyclegan_jax.storage.atomic import replace_text
from cyclegan_jax.storage.checksums import MANIFEST_FILE
from cyclegan_jax.translate.options import Options

RECORD_FILE = '.translated.json'


def claim(
  to: pathlib.Path,
  names: list[str],
  checkpoint: pathlib.Path,
  options: Options,
) -> set[str]:
  """Writes the record of a folder of outputs, and finds files of others.

  The record describes how the outputs are made, and lists existing files with
  names of outputs that the command did not write.

  Args:
    to: the folder.
    names: names of the outputs below it.
    checkpoint: folder of the checkpoint.
    options: options of the translation.

  Returns:
    The names of outputs that are taken by files of others.

  Raises:
    ConfigError: the folder's outputs were made otherwise, or its record is
      damaged.
    OSError: the record cannot be written.
  """
  page = to / PAGE_FILE
  if options.gallery and page.exists() and not is_page_of(page, 'translate'):
    raise ConfigError(
      f'{page} exists and was not written by this command. Use another --to'
    )
  description = describe(checkpoint, options)
  record = to / RECORD_FILE
  try:
    content = json.loads(record.read_text(encoding='utf-8'))
    old = {name: content[name] for name in description}
    foreign = set(map(str, content['foreign']))
  except FileNotFoundError:
    old = description
    # Unlike Path.exists, it does not raise for a name that is too long.
    foreign = {name for name in names if os.path.exists(to / name)}
  except (ValueError, TypeError, KeyError) as error:
    raise ConfigError(
      f'{record} is damaged, so the files beside it may be of others. Use '
      'another --to'
    ) from error
  differs = [
    f'{name}: {old[name]} -> {new}'
    for name, new in description.items()
    if old[name] != new
  ]
  if differs and not options.overwrite:
    raise ConfigError(
      f'{to} holds translations of another kind ({"; ".join(differs)}). Use '
      'another --to, or --overwrite to replace them'
    )
  # They stay in the record as long as they exist, whatever later calls make.
  foreign = {name for name in foreign if os.path.exists(to / name)}
  replace_text(record, json.dumps({**description, 'foreign': sorted(foreign)}))
  return foreign


def _checksum(checkpoint: pathlib.Path) -> str:
  """Checksum of a checkpoint's manifest, or of the files of a hub's folder."""
  files = [checkpoint / MANIFEST_FILE]
  if not files[0].exists():
    files = sorted(checkpoint.glob('*.safetensors'))
  digest = hashlib.sha256()
  for path in files:
    digest.update(path.read_bytes())
  return digest.hexdigest()[:16]


def describe(checkpoint: pathlib.Path, options: Options) -> dict[str, Any]:
  """Properties that all outputs in a folder share."""
  return {
    'checkpoint': f'{checkpoint} {_checksum(checkpoint)}',
    'direction': options.direction,
    'seed': options.seed,
    'size': None if options.size is None else list(options.size),
  }
