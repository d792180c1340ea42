"""Runs what `cyclegan export --format stablehlo` wrote: by JAX alone."""

import json
import pathlib
import zipfile
import zlib

import jax
import jax.export
import numpy as np

from cyclegan_jax.errors import WeightsError

PROGRAM, METADATA = 'program.bin', 'metadata.json'


class Exported:
  """A translator from a file.

  Attributes:
    metadata: texts by name: direction, range, size and so on.
  """

  def __init__(self, program: jax.export.Exported, metadata: dict[str, str]):
    self.metadata = metadata
    self._call = jax.jit(program.call)

  def __call__(self, images: np.ndarray) -> np.ndarray:
    """Translates.

    Args:
      images: [B, H, W, C] float32 in [-1, 1], of the size that the metadata
        names.

    Returns:
      [B, H, W, C'] float32 in [-1, 1].

    Raises:
      ValueError: their shape is none that the file takes.
    """
    return np.asarray(self._call(np.asarray(images, np.float32)))


def load_exported(path: str | pathlib.Path) -> Exported:
  """The translator in a file of `cyclegan export --format stablehlo`.

  It needs neither Flax nor a checkpoint, and runs on CPUs, CUDA and TPUs.

  Raises:
    WeightsError: the file can't be read, is damaged or is something else.
  """
  try:
    with zipfile.ZipFile(path) as file:
      program = jax.export.deserialize(bytearray(file.read(PROGRAM)))
      metadata = json.loads(file.read(METADATA))
  except OSError as error:
    raise WeightsError(
      f"{path} can't be read ({error.strerror}): give a file that cyclegan "
      'export --format stablehlo wrote'
    ) from error
  except (zipfile.BadZipFile, zlib.error, KeyError, ValueError) as error:
    raise WeightsError(
      f'{path} is damaged, or was not written by cyclegan export --format '
      f'stablehlo ({error}): export it again'
    ) from error
  return Exported(program, metadata)
