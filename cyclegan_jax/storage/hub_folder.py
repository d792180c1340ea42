"""Folders of safetensors files, as model hubs hold them.

`ab.safetensors` and `ba.safetensors`, or one of them, hold a generator's
parameters by name. Their metadata hold the config of the run, so that no other
file is needed.
"""

import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from cyclegan_jax.config import Config, Direction, from_config_dict
from cyclegan_jax.errors import (
  UserError,
  WeightsError,
  WorkdirError,
  one_line,
  printable,
)
from cyclegan_jax.nets import make_generator
from cyclegan_jax.storage.safetensors import read_safetensors
from cyclegan_jax.types import Params

HUB_PREFIX = 'hf:'
CONFIG_KEY = 'config'  # in the metadata that only our files have
FILE_NAMES: dict[Direction, str] = {
  'ab': 'ab.safetensors',
  'ba': 'ba.safetensors',
}
_DIRECTIONS: dict[str, Direction] = {'ab': 'ab', 'ba': 'ba'}


class SavedGenerator(NamedTuple):
  """A generator in a file that `cyclegan export` wrote."""

  config: Config  # of its run
  direction: Direction
  step: int
  params: Params


def local_folder(path: str | pathlib.Path) -> pathlib.Path:
  """Returns the path, or the folder to which a hub's repository is downloaded.

  Args:
    path: a local path, or 'hf:owner/name' or 'hf:owner/name@revision' for a
      repository of the Hugging Face Hub, or of the hub that the environment
      variable HF_ENDPOINT names.

  Raises:
    UserError: the package huggingface_hub is not installed.
    WorkdirError: the repository cannot be downloaded.
  """
  text = pathlib.PurePath(path).as_posix()
  if not text.startswith(HUB_PREFIX):
    return pathlib.Path(path)
  match = re.fullmatch(r'hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?', text)
  if not match:
    raise WorkdirError(
      f'{printable(text)} is not a repository: give hf:owner/name, or '
      'hf:owner/name@revision'
    )
  try:
    import huggingface_hub
  except ImportError as error:
    raise UserError(
      f'{text} needs huggingface_hub, which cannot be imported '
      f"({one_line(error)}): pip install 'cyclegan_jax[hub]'"
    ) from error
  try:
    folder = huggingface_hub.snapshot_download(
      match[1],
      revision=match[2],
      allow_patterns=[*FILE_NAMES.values()],
      library_name='cyclegan_jax',
      # Read now, where the client reads it when it is imported.
      endpoint=os.environ.get('HF_ENDPOINT') or None,
    )
  except Exception as error:  # of the client, of HTTP and of the disk
    raise WorkdirError(
      f'{text} cannot be downloaded ({one_line(error)}): check the name, the '
      'connection and, for a private repository, `hf auth login`'
    ) from error
  if not is_hub_folder(pathlib.Path(folder)):
    raise WorkdirError(
      f'{text} holds none of {", ".join(FILE_NAMES.values())}: give a '
      'repository that `cyclegan export --format hub` made'
    )
  return pathlib.Path(folder)


def is_hub_folder(path: pathlib.Path) -> bool:
  """Whether a folder has a generator's safetensors file."""
  return any((path / name).is_file() for name in FILE_NAMES.values())


def read_hub_folder(
  path: pathlib.Path,
) -> tuple[SavedGenerator, dict[str, Params], tuple[Direction, ...]]:
  """Reads the generators of a folder onto the default device.

  Returns:
    The first generator; the parameters of both directions, which are zeros
    where the folder has no file; and the directions that it has.

  Raises:
    UserError: the package safetensors is not installed.
    WeightsError: a file is damaged, or they are of different runs.
  """
  found: dict[Direction, SavedGenerator] = {}
  for direction, name in FILE_NAMES.items():
    if (file := path / name).is_file():
      found[direction] = read_generator(file, *read_safetensors(file))
      if found[direction].direction != direction:
        raise WeightsError(
          f'{file} holds the generator for {found[direction].direction}: name '
          'the files as they were exported'
        )
  first, *others = found.values()
  for other in others:
    if (other.config, other.step) != (first.config, first.step):
      raise WeightsError(
        f'{path} holds generators of different checkpoints: export both of one'
      )
  params: dict[str, Params] = {}
  for direction in FILE_NAMES:
    if direction in found:
      params[direction] = jax.tree.map(jnp.asarray, found[direction].params)
    else:
      params[direction] = _unflatten(
        {
          name: jnp.zeros(shape, jnp.float32)
          for name, shape in _shapes(first.config, direction).items()
        }
      )
  return first, params, tuple(found)


def is_saved_generator(metadata: Mapping[str, str]) -> bool:
  """Whether a safetensors file is of `cyclegan export`."""
  return CONFIG_KEY in metadata


def read_generator(
  path: pathlib.Path,
  tensors: Mapping[str, np.ndarray],
  metadata: Mapping[str, str],
) -> SavedGenerator:
  """Checks and converts the content of a file.

  Args:
    path: path of the file, for messages.
    tensors: its tensors by name.
    metadata: its texts by name.

  Raises:
    WeightsError: the tensors do not fit the metadata, or either is damaged.
  """
  try:
    config = from_config_dict(json.loads(metadata[CONFIG_KEY]))
    direction = _DIRECTIONS[metadata['direction']]
    step = int(metadata['step'])
    if not 0 <= step < 2**31:
      raise ValueError(f'step={step}')
  except (KeyError, ValueError, RecursionError, UserError) as error:
    raise WeightsError(
      f'{path} has damaged metadata ({error}): export it again'
    ) from error
  expected = _shapes(config, direction)
  shapes = {name: tensor.shape for name, tensor in tensors.items()}
  wrong = sorted(
    name
    for name in {*expected, *shapes}
    if expected.get(name) != shapes.get(name)
  )
  if wrong:
    name = wrong[0]
    raise WeightsError(
      f'{path} does not fit its own config: {len(wrong)} tensors are wrong, '
      f'such as {name!r}, which is {shapes.get(name)} instead of '
      f'{expected.get(name)}: export it again'
    )
  for name, tensor in tensors.items():
    if tensor.dtype != np.float32 or not np.isfinite(tensor).all():
      raise WeightsError(
        f'{path} has values in {name!r} that are not finite float32: export '
        'it again'
      )
  return SavedGenerator(config, direction, step, _unflatten(dict(tensors)))


def _unflatten(tensors: dict[str, Any]) -> Params:
  return flax.traverse_util.unflatten_dict(tensors, sep='.')


def _shapes(config: Config, direction: Direction) -> dict[str, tuple[int, ...]]:
  """The shapes of a generator's parameters by name, joined by dots."""
  source, target = (config.channels(domain) for domain in direction)
  network = make_generator(config.generator, channels=target)
  side = config.data.size
  images = jax.ShapeDtypeStruct((1, side, side, source), jnp.float32)
  key = jax.random.key(0)
  params = jax.eval_shape(
    network.init, {'params': key, 'dropout': key}, images
  )['params']
  flat = flax.traverse_util.flatten_dict(params, sep='.')
  return {name: param.shape for name, param in flat.items()}
