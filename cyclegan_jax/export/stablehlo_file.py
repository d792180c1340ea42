"""StableHLO programs, for JAX on any platform."""

import json
import pathlib
import zipfile

import jax
import jax.export
import jax.numpy as jnp

from cyclegan_jax.export.formats import RunFile
from cyclegan_jax.export.model import Model
from cyclegan_jax.export.stablehlo_runtime import (
  METADATA,
  PROGRAM,
  load_exported,
)

_PLATFORMS = ('cpu', 'cuda', 'tpu')


def write(path: pathlib.Path, model: Model) -> RunFile:
  """Writes a zip file of the program, with the weights in it, and metadata.

  Returns:
    The translator that `load_exported` reads back.
  """
  constraints: list[str] = []
  if model.side:
    shape = f'batch, {model.side}, {model.side}, {model.channels_in}'
  else:
    step = model.multiple
    shape = f'batch, {step}*h, {step}*w, {model.channels_in}'
    # A border of one pixel cannot be reflected.
    constraints = ['h >= 2', 'w >= 2'] if step == 4 else []
  symbols = jax.export.symbolic_shape(shape, constraints=constraints)
  images = jax.ShapeDtypeStruct(symbols, jnp.float32)
  translator = jax.jit(model.translator)
  program = jax.export.export(translator, platforms=_PLATFORMS)(images)
  metadata = model.metadata('NHWC') | {'platforms': ', '.join(_PLATFORMS)}
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr(PROGRAM, bytes(program.serialize()))
    file.writestr(METADATA, json.dumps(metadata, indent=2))
  return load_exported(path)
