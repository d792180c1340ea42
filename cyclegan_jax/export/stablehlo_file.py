"""StableHLO: a compiled program's source, for JAX on any platform."""

import json
import pathlib
import zipfile
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

from cyclegan_jax.export.model import Model
from cyclegan_jax.export.runtime import (
  METADATA,
  PROGRAM,
  load_exported,
)

PLATFORMS = ('cpu', 'cuda', 'tpu')


def write(path: pathlib.Path, model: Model) -> Any:
  """Writes a zip file of the program, with the weights in it, and metadata.

  Returns:
    `load_exported` of it.
  """
  constraints: list[str] = []
  if model.side:
    shape = f'batch, {model.side}, {model.side}, {model.channels_in}'
  else:
    step = model.multiple
    shape = f'batch, {step}*h, {step}*w, {model.channels_in}'
    # A border of one pixel can't be reflected.
    constraints = ['h >= 2', 'w >= 2'] if step == 4 else []
  symbols = jax.export.symbolic_shape(shape, constraints=constraints)
  images = jax.ShapeDtypeStruct(symbols, jnp.float32)

  program = jax.export.export(jax.jit(model.live), platforms=PLATFORMS)(images)
  metadata = model.metadata('NHWC') | {'platforms': ', '.join(PLATFORMS)}
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr(PROGRAM, bytes(program.serialize()))
    file.writestr(METADATA, json.dumps(metadata, indent=2))
  return load_exported(path)
