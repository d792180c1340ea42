"""A state_dict for the authors' PyTorch code."""

import pathlib
from typing import Any

import numpy as np

from cyclegan_jax.export.model import Model
from cyclegan_jax.inference import make_translator
from cyclegan_jax.interop.pth import read_pth, write_pth
from cyclegan_jax.interop.torch_names import params_from_torch, params_to_torch


def write(path: pathlib.Path, model: Model) -> Any:
  """Writes a file that torch.load reads.

  Returns:
    What translates by the parameters that are read back from it.
  """
  gen = model.config.generator
  write_pth(path, params_to_torch(model.params, gen))
  params = params_from_torch(
    read_pth(path),
    gen,
    channels_in=model.channels_in,
    channels_out=model.channels_out,
  )
  translate = make_translator(
    model.config, {model.direction: params}, model.direction, key=model.key
  )
  return lambda images: np.asarray(translate(images))
