"""A state_dict for the authors' PyTorch code."""

import pathlib

import numpy as np

from cyclegan_jax.config import Config
from cyclegan_jax.export.formats import RunFile
from cyclegan_jax.export.model import Model
from cyclegan_jax.inference import make_translator
from cyclegan_jax.interop.pth import read_pth, write_pth
from cyclegan_jax.interop.torch_names import params_from_torch, params_to_torch

# The names that the authors' code looks for in checkpoints/NAME.
FILE_NAMES = {'ab': 'latest_net_G_A.pth', 'ba': 'latest_net_G_B.pth'}


def write(path: pathlib.Path, model: Model) -> RunFile:
  """Writes a file that torch.load reads.

  Returns:
    A translator with the parameters that are read back from the file.
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


def options_for_authors_code(config: Config, direction: str) -> str:
  """The options with which the authors' code loads a generator.

  Args:
    config: of a run, with a generator that the authors' code has.
    direction: 'ab' or 'ba'.

  Returns:
    Options of their test.py, or a Python call where no options exist.
  """
  gen = config.generator
  source, target = (config.channels(domain) for domain in direction)
  dropout = '' if gen.dropout else ' --no_dropout'
  options = (
    f'--input_nc {source} --output_nc {target} --ngf {gen.filters} --norm '
    f'{gen.norm}{dropout}'
  )
  call = (
    f'({source}, {target}, ngf={gen.filters}, '
    f'norm_layer={gen.norm.title()}Norm2d, use_dropout={gen.dropout > 0}'
  )
  if gen.name == 'resnet':
    if gen.blocks in (6, 9):
      return f'--netG resnet_{gen.blocks}blocks {options}'
    return f'ResnetGenerator{call}, n_blocks={gen.blocks})'
  if gen.isize in (128, 256):
    return f'--netG unet_{gen.isize} {options}'
  depth = gen.isize.bit_length() - 1
  return f'UnetGenerator{call}, num_downs={depth})'


def differences_from_authors_code(config: Config) -> list[str]:
  """Notes for users of the authors' code, a line each."""
  gen, notes = config.generator, []
  if gen.norm == 'batch':
    notes.append(
      'its batch norm uses the statistics of the current images, so run it '
      'without --eval: the running statistics in the file are placeholders'
    )
  if gen.norm == 'instance' and gen.affine:
    notes.append(
      "its instance norm has scales and shifts: in the authors' "
      'get_norm_layer set affine=True'
    )
  if gen.dropout not in (0, 0.5):
    notes.append(f"its dropout is {gen.dropout}, and the authors' code has 0.5")
  return notes
