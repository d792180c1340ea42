"""Safetensors: the parameters by their names here, and the whole config."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import numpy as np

from cyclegan_jax.config import Direction, from_config_dict
from cyclegan_jax.errors import UserError, WeightsError
from cyclegan_jax.export.model import Model
from cyclegan_jax.interop.safetensors import (
  read_safetensors,
  write_safetensors,
)

_CONFIG = 'config'  # the metadata by which our files are known
_WAYS: dict[str, Direction] = {'ab': 'ab', 'ba': 'ba'}


def write(path: pathlib.Path, model: Model) -> Any:
  """Writes a file that `read_model` reads.

  Returns:
    What translates by the parameters that are read back from it.
  """
  flat = flax.traverse_util.flatten_dict(model.params, sep='.')
  # Of a program: the weights have neither masks nor a size.
  metadata = model.metadata('NHWC')
  for name in ('dropout', 'size', 'statistics'):
    del metadata[name]
  metadata[_CONFIG] = json.dumps(dataclasses.asdict(model.config))
  tensors = {name: np.asarray(each) for name, each in flat.items()}
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
  """The generator in a file of `write`.

  Args:
    path: of the file, for messages.
    tensors: in it.
    metadata: in it.

  Raises:
    WeightsError: it holds something else than it says.
  """
  try:
    model = Model(
      config=from_config_dict(json.loads(metadata[_CONFIG])),
      params={},
      direction=_WAYS[metadata['direction']],
      step=int(metadata['step']),
    )
    if model.step < 0:
      raise ValueError(f'step={model.step}')
  except (KeyError, ValueError, RecursionError, UserError) as error:
    raise WeightsError(
      f'{path} does not say whose its weights are ({error}): export it again'
    ) from error
  expected = model.param_shapes()
  found = {name: each.shape for name, each in tensors.items()}
  wrong = sorted(
    name
    for name in {*expected, *found}
    if expected.get(name) != found.get(name)
  )
  if wrong:
    name = wrong[0]
    raise WeightsError(
      f'{path} does not fit its own config: {len(wrong)} tensors are wrong, '
      f'such as {name!r}, which is {found.get(name)} instead of '
      f'{expected.get(name)}: export it again'
    )
  for name, each in tensors.items():
    if each.dtype != np.float32 or not np.isfinite(each).all():
      raise WeightsError(
        f'{path} has numbers in {name!r} that are not all finite float32: '
        'export it again'
      )
  params = flax.traverse_util.unflatten_dict(dict(tensors), sep='.')
  return dataclasses.replace(model, params=params)
