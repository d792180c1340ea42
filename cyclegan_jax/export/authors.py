"""What users of the authors' PyTorch code have to be told."""

from cyclegan_jax.config import Config

# As that code looks for them in checkpoints/NAME.
TORCH_NAMES = {'ab': 'latest_net_G_A.pth', 'ba': 'latest_net_G_B.pth'}


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
