"""Safetensors files of the parameters and the config of a generator."""

import dataclasses
import json
import pathlib

import flax.traverse_util
import numpy as np

from cyclegan_jax.export.formats import RunFile
from cyclegan_jax.export.model import Model
from cyclegan_jax.storage.hub_folder import CONFIG_KEY, read_generator
from cyclegan_jax.storage.safetensors import (
  read_safetensors,
  write_safetensors,
)


def write(path: pathlib.Path, model: Model) -> RunFile:
  """Writes a file that `storage.hub_folder.read_generator` reads.

  Returns:
    A translator with the parameters that are read back from the file.
  """
  flat = flax.traverse_util.flatten_dict(model.params, sep='.')
  # Weights have neither masks nor a size.
  metadata = model.metadata('NHWC')
  for name in ('dropout', 'size', 'statistics'):
    del metadata[name]
  metadata[CONFIG_KEY] = json.dumps(dataclasses.asdict(model.config))
  tensors = {name: np.asarray(param) for name, param in flat.items()}
  write_safetensors(path, tensors, metadata)
  saved = read_generator(path, *read_safetensors(path))
  return Model(
    saved.config, saved.params, saved.direction, step=saved.step
  ).translate
