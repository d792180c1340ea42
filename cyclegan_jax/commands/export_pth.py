"""`cyclegan export-pth`."""

import pathlib

import numpy as np

from cyclegan_jax import checkpoint
from cyclegan_jax.commands.parser import Parser
from cyclegan_jax.config import Config
from cyclegan_jax.errors import WorkdirError
from cyclegan_jax.interop.pth import write_pth
from cyclegan_jax.interop.torch_names import params_to_torch
from cyclegan_jax.workdir import explain_disk_errors

# As the authors' code looks for them in checkpoints/NAME.
_NAMES = {'ab': 'latest_net_G_A.pth', 'ba': 'latest_net_G_B.pth'}


def run(argv: list[str], program: str) -> int:
  """Writes generators as the authors' PyTorch code loads them."""
  parser = Parser(
    program,
    description="Writes a checkpoint's generators for the authors' PyTorch "
    'code, pytorch-CycleGAN-and-pix2pix. Torch is not needed.',
  )
  add = parser.add_argument
  add('checkpoint', type=pathlib.Path, help="a run's folder, or a checkpoint's")
  add(
    '--to',
    type=pathlib.Path,
    required=True,
    help='folder for latest_net_G_A.pth and latest_net_G_B.pth; with '
    '--direction also a file, by its ending .pth',
  )
  add('--direction', choices=('ab', 'ba'), help='(default: both)')
  add('--debug', action='store_true', help='show tracebacks')
  given = parser.parse_args(argv)
  is_file = given.to.suffix == '.pth'
  if is_file and not given.direction:
    parser.error('argument --to: two generators need a folder, or --direction')
  found = checkpoint.find(given.checkpoint, direction=given.direction)
  ways = [given.direction] if given.direction else found.directions
  paths = {way: given.to if is_file else given.to / _NAMES[way] for way in ways}
  for path in paths.values():
    if path.exists():
      raise WorkdirError(f'{path} is there already: give another --to')
  params = found.state.translators
  tensors: dict[str, dict[str, np.ndarray]] = {
    way: params_to_torch(params[way], found.config.generator) for way in paths
  }
  with explain_disk_errors(given.to, option='--to'):
    for way, path in paths.items():
      path.parent.mkdir(parents=True, exist_ok=True)
      write_pth(path, tensors[way])
  average = '' if found.state.gen_ema is None else ', its running average'
  for way, path in paths.items():
    print(f'{path}: {way}{average}, for {describe_call(found.config, way)}')
  for note in notes(found.config):
    print(f'note: {note}')
  return 0


def describe_call(config: Config, direction: str) -> str:
  """What the authors' code has to be told to load a generator.

  Args:
    config: of a run, with a generator that the authors' code has.
    direction: 'ab' or 'ba'.

  Returns:
    Options of their test.py, or a call where these don't reach.
  """
  gen = config.generator
  source, target = (config.channels(each) for each in direction)
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


def notes(config: Config) -> list[str]:
  """What a user of the files has to know, a line each."""
  gen, found = config.generator, []
  if gen.norm == 'batch':
    found.append(
      'its batch norm takes the statistics of the images at hand, so use it '
      'without --eval: the running statistics in the files say nothing'
    )
  if gen.norm == 'instance' and gen.affine:
    found.append(
      "its instance norm has scales and shifts: in the authors' "
      'get_norm_layer set affine=True'
    )
  if gen.dropout not in (0, 0.5):
    found.append(f"its dropout is {gen.dropout}, and the authors' code has 0.5")
  return found
