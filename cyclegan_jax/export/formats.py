"""Export formats by name."""

import importlib
import pathlib
from collections.abc import Callable

import numpy as np

from cyclegan_jax.errors import UserError
from cyclegan_jax.export.model import Model

# What runs a written file: float32 [B, H, W, C] to [B, H, W, C'].
Run = Callable[[np.ndarray], np.ndarray]


Write = Callable[[pathlib.Path, Model], Run]


# Each is a module with `write`, imported when it is asked for.
FORMATS = {
  'onnx': '.onnx',
  'pth': '.pth',
  'safetensors': '.safetensors',
  'stablehlo': '.stablehlo',
}


_PACKAGES = {
  'onnx': ('onnx', 'onnxruntime'),
  'safetensors': ('safetensors',),
  'stablehlo': ('flatbuffers',),
}


def load_format(name: str) -> Write:
  """The function that writes files of a format.

  Raises:
    UserError: it needs a package that is not installed.
  """
  for package in _PACKAGES.get(name, ()):
    try:
      importlib.import_module(package)
    except ImportError as error:
      raise UserError(
        f"{name} needs {package}, which can't be imported ({error}): pip "
        "install 'cyclegan_jax[export]'"
      ) from error
  module = importlib.import_module(f'cyclegan_jax.export.{name}_file')
  write: Write = module.write
  return write


def greatest_difference(model: Model, run: Run) -> float:
  """How far a written file is from the live translator, at most.

  Of random images in [-1, 1], of the two sizes and batches that `Model.sides`
  gives. NaN counts as infinite.
  """
  generator = np.random.default_rng(0)
  worst = 0.0
  for batch, height, width in model.trial_shapes():
    shape = (batch, height, width, model.channels_in)
    images = generator.uniform(-1, 1, shape).astype(np.float32)
    apart = np.abs(run(images) - model.translate(images)).max()
    worst = max(worst, float(apart) if np.isfinite(apart) else np.inf)
  return worst
