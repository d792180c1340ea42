"""Reads trained networks from .pth and .safetensors files."""

import dataclasses
import json
import logging
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from cyclegan_jax.config import Config, Direction, DiscriminatorConfig
from cyclegan_jax.errors import WeightsError, one_line
from cyclegan_jax.interop.pth import read_pth
from cyclegan_jax.interop.torch_infer import (
  Network,
  infer_discriminator,
  infer_generator,
)
from cyclegan_jax.interop.torch_names import params_from_torch, rename
from cyclegan_jax.storage.safetensors import read_safetensors
from cyclegan_jax.types import Params

Renames = Mapping[str, str | None]


class Generator(NamedTuple):
  """A generator from a file.

  Attributes:
    path: path of the file.
    network: options and channels.
    params: its parameters.
    config: config of its run, where the file contains it.
    direction: 'ab' or 'ba', where the file says it.
  """

  path: pathlib.Path
  network: Network
  params: Params
  config: Config | None = None
  direction: Direction | None = None


class Discriminator(NamedTuple):
  """A discriminator from a file."""

  path: pathlib.Path
  config: DiscriminatorConfig
  params: Params

  @property
  def channels(self) -> int:
    """Channels of the images that it classifies."""
    return self.params['conv_0']['kernel'].shape[2]


def read_renames(path: pathlib.Path) -> dict[str, str | None]:
  """Reads a JSON object of names, for `torch_names.rename`.

  Raises:
    WeightsError: the file cannot be read, or is no such object.
  """
  try:
    renames = json.loads(path.read_text(encoding='utf-8'))
    if not isinstance(renames, dict) or not all(
      name is None or isinstance(name, str) for name in renames.values()
    ):
      raise ValueError('it is not an object of texts')
  except (OSError, ValueError, RecursionError) as error:
    raise WeightsError(
      f'{path} cannot be read ({one_line(error)}). Give JSON such as '
      '{"encoder.": "model."}.'
    ) from error
  return renames


def read_tensors(
  path: pathlib.Path,
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """Returns the tensors and the metadata of a file of either format.

  Raises:
    WeightsError: the file cannot be read, is damaged or is refused.
  """
  if path.suffix == '.safetensors':
    return read_safetensors(path)
  return read_pth(path), {}


def generator_from_torch(
  path: pathlib.Path,
  tensors: Mapping[str, np.ndarray],
  renames: Renames,
  dropout: float | None,
) -> Generator:
  """Converts one of the authors' generators.

  Args:
    path: path of its file.
    tensors: arrays in the file.
    renames: see `torch_names.rename`.
    dropout: rate for a U-Net, whose weights do not show it.

  Raises:
    WeightsError: the tensors are of no such network.
  """
  tensors = rename(tensors, renames)
  network = infer_generator(tensors, source=str(path))
  config = network.config
  if dropout is not None:
    if config.name != 'torch_unet':
      raise WeightsError(
        f'{path} shows its dropout, {config.dropout}. Leave --dropout out.'
      )
    config = dataclasses.replace(config, dropout=dropout)
  params = params_from_torch(
    tensors,
    config,
    channels_in=network.channels_in,
    channels_out=network.channels_out,
    source=str(path),
  )
  if config.norm == 'batch':
    logging.getLogger('cyclegan_jax').warning(
      '%s: its running statistics are not used. Batch norm here uses the '
      "statistics of the current images, like the authors' test.py without "
      '--eval',
      path,
    )
  return Generator(path, network._replace(config=config), params)


def read_discriminator(path: pathlib.Path, renames: Renames) -> Discriminator:
  """Reads and converts one of the authors' discriminators.

  Raises:
    WeightsError: the file cannot be read or holds no such network.
  """
  tensors = rename(read_tensors(path)[0], renames)
  config = infer_discriminator(tensors, source=str(path))
  first = 'net.0.weight' if config.name == 'pixelgan' else 'model.0.weight'
  params = params_from_torch(
    tensors, config, channels_in=tensors[first].shape[1], source=str(path)
  )
  return Discriminator(path, config, params)
