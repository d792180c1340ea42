"""Export formats by name."""

import importlib
import pathlib
from collections.abc import Callable

import numpy as np

from cyclegan_jax.errors import UserError
from cyclegan_jax.export.model import Model

# Runs an exported file: float32 [B, H, W, C] to [B, H, W, C'].
RunFile = Callable[[np.ndarray], np.ndarray]
WriteFile = Callable[[pathlib.Path, Model], RunFile]

# The packages that each format needs. Its files end in its name, and the
# function `write` in export/<name>_file.py writes them.
FORMATS: dict[str, tuple[str, ...]] = {
  'onnx': ('onnx', 'onnxruntime'),
  'pth': (),
  'safetensors': ('safetensors',),
  'stablehlo': ('flatbuffers',),
}


def load_format(name: str) -> WriteFile:
  """The function that writes files of a format.

  Raises:
    UserError: the format needs a package that is not installed.
  """
  for package in FORMATS[name]:
    try:
      importlib.import_module(package)
    except ImportError as error:
      raise UserError(
        f'{name} needs {package}, which cannot be imported ({error}): pip '
        "install 'cyclegan_jax[export]'"
      ) from error
  module = importlib.import_module(f'cyclegan_jax.export.{name}_file')
  write: WriteFile = module.write
  return write


def greatest_difference(model: Model, run: RunFile) -> float:
  """The greatest difference between an exported file and the translator.

  Args:
    model: the exported generator.
    run: runs the file.

  Returns:
    The maximum over random images in [-1, 1] of the shapes that
    `Model.trial_shapes` gives; infinity for NaN.
  """
  generator = np.random.default_rng(0)
  greatest = 0.0
  for batch, height, width in model.trial_shapes():
    shape = (batch, height, width, model.channels_in)
    images = generator.uniform(-1, 1, shape).astype(np.float32)
    difference = np.abs(run(images) - model.translate(images)).max()
    if not np.isfinite(difference):
      return np.inf
    greatest = max(greatest, float(difference))
  return greatest
