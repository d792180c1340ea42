"""Reads and writes safetensors files: arrays and texts by name."""

import pathlib
from collections.abc import Mapping

import numpy as np

from cyclegan_jax.errors import (
  UserError,
  WeightsError,
  one_line,
  printable,
)


def read_safetensors(
  path: pathlib.Path,
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """Returns the tensors and the metadata of a file.

  Raises:
    UserError: the package safetensors is not installed.
    WeightsError: the file cannot be read, or is damaged.
  """
  try:
    import safetensors
  except ImportError as error:
    raise UserError(
      f'{path} needs safetensors, which cannot be imported ({error}). Run pip '
      "install 'cyclegan_jax[export]'."
    ) from error
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
      return tensors, file.metadata() or {}
  except (OSError, TypeError, ValueError, safetensors.SafetensorError) as error:
    raise WeightsError(
      f'{printable(str(path))} cannot be read as safetensors '
      f'({one_line(error)}). Get it from its source again.'
    ) from error


def write_safetensors(
  path: pathlib.Path,
  tensors: Mapping[str, np.ndarray],
  metadata: Mapping[str, str],
) -> None:
  """Writes a file.

  Raises:
    OSError: the file cannot be written.
  """
  from safetensors.numpy import save

  arrays = {name: np.ascontiguousarray(x) for name, x in tensors.items()}
  path.write_bytes(save(arrays, metadata=dict(metadata)))
