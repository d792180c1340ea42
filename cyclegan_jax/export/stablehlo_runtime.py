"""Runs files of `cyclegan export --format stablehlo`, with JAX only."""

import json
import pathlib
import zipfile

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from cyclegan_jax.errors import UserError, WeightsError

PROGRAM, METADATA = 'program.bin', 'metadata.json'


class Exported:
  """A translator that was read from a file.

  Attributes:
    metadata: texts by name: direction, range, size and so on.
  """

  def __init__(self, program: jax.export.Exported, metadata: dict[str, str]):
    self.metadata = metadata
    self._call = jax.jit(program.call)

  def __call__(self, images: np.ndarray) -> np.ndarray:
    """Translates.

    Args:
      images: [B, H, W, C] floats in [-1, 1], of a size that `metadata` allows.

    Returns:
      [B, H, W, C'] float32 in [-1, 1].

    Raises:
      ValueError: the images are integers, or of a shape that the file does
        not take.
    """
    images = np.asarray(images)
    if not jnp.issubdtype(images.dtype, jnp.floating):
      raise ValueError(f'images are {images.dtype}: give float32 in [-1, 1]')
    return np.asarray(self._call(images.astype(np.float32)))


def load_exported(path: str | pathlib.Path) -> Exported:
  """Reads a file of `cyclegan export --format stablehlo`.

  This needs JAX and flatbuffers, but neither Flax nor a checkpoint. The
  translator runs on CPUs, CUDA and TPUs.

  Raises:
    UserError: flatbuffers is not installed.
    WeightsError: the file cannot be read, is damaged or is something else.
  """
  try:
    with zipfile.ZipFile(path) as file:
      program = jax.export.deserialize(bytearray(file.read(PROGRAM)))
      metadata = dict(json.loads(file.read(METADATA)))
  except ImportError as error:
    raise UserError(
      f'{path} needs flatbuffers, which cannot be imported ({error}): pip '
      "install 'cyclegan_jax[export]'"
    ) from error
  except OSError as error:
    raise WeightsError(
      f'{path} cannot be read ({error.strerror}): give a file that cyclegan '
      'export --format stablehlo wrote'
    ) from error
  except Exception as error:
    # flatbuffers and JAX raise errors of many types for damaged programs.
    raise WeightsError(
      f'{path} is damaged, or was not written by cyclegan export --format '
      f'stablehlo ({error}): export it again'
    ) from error
  return Exported(program, metadata)
