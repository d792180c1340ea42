"""Safetensors files of the parameters and the config of a generator."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping

import flax.traverse_util
import numpy as np

from cyclegan_jax.config import Direction, from_config_dict
from cyclegan_jax.errors import UserError, WeightsError
from cyclegan_jax.export.formats import RunFile
from cyclegan_jax.export.model import Model
from cyclegan_jax.interop.safetensors import (
  read_safetensors,
  write_safetensors,
)

_CONFIG = 'config'  # metadata that only our files have
_DIRECTIONS: dict[str, Direction] = {'ab': 'ab', 'ba': 'ba'}


def write(path: pathlib.Path, model: Model) -> RunFile:
  """Writes a file that `read_model` reads.

  Returns:
    A translator with the parameters that are read back from the file.
  """
  flat = flax.traverse_util.flatten_dict(model.params, sep='.')
  # Weights have neither masks nor a size.
  metadata = model.metadata('NHWC')
  for name in ('dropout', 'size', 'statistics'):
    del metadata[name]
  metadata[_CONFIG] = json.dumps(dataclasses.asdict(model.config))
  tensors = {name: np.asarray(param) for name, param in flat.items()}
  write_safetensors(path, tensors, metadata)
  return read_model(path, *read_safetensors(path)).translate


def is_ours(metadata: Mapping[str, str]) -> bool:
  """Whether a file was written by `write`."""
  return _CONFIG in metadata


def read_model(
  path: pathlib.Path,
  tensors: Mapping[str, np.ndarray],
  metadata: Mapping[str, str],
) -> Model:
  """The generator in a file that `write` wrote.

  Args:
    path: path of the file, for messages.
    tensors: its tensors by name.
    metadata: its texts by name.

  Raises:
    WeightsError: the tensors do not fit the metadata, or either is damaged.
  """
  try:
    model = Model(
      config=from_config_dict(json.loads(metadata[_CONFIG])),
      params={},
      direction=_DIRECTIONS[metadata['direction']],
      step=int(metadata['step']),
    )
    if model.step < 0:
      raise ValueError(f'step={model.step}')
  except (KeyError, ValueError, RecursionError, UserError) as error:
    raise WeightsError(
      f'{path} has damaged metadata ({error}): export it again'
    ) from error
  expected = model.param_shapes()
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
  params = flax.traverse_util.unflatten_dict(dict(tensors), sep='.')
  return dataclasses.replace(model, params=params)
