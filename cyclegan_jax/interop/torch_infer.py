"""Infers which of the authors' PyTorch networks some weights belong to."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cyclegan_jax.config import DiscriminatorConfig, GeneratorConfig
from cyclegan_jax.errors import WeightsError
from cyclegan_jax.interop.errors import shown
from cyclegan_jax.interop.torch_layers import PADDINGS, unet_prefix

Tensors = Mapping[str, np.ndarray]

_DROPOUT = 0.5  # wherever the authors have it


class Network(NamedTuple):
  """A generator, as far as its weights show it."""

  config: GeneratorConfig
  channels_in: int
  channels_out: int


def infer_generator(tensors: Tensors, *, source: str = 'the file') -> Network:
  """Infers the options and channels of a generator.

  The weights of a U-Net do not show whether it has dropout; the result has
  none.

  Args:
    tensors: arrays by the authors' names.
    source: name of the file, for messages.

  Raises:
    WeightsError: the weights fit none of the authors' generators.
    ConfigError: an inferred option is out of range.
  """
  if 'model.model.0.weight' in tensors:
    return _infer_unet(tensors, source)
  matches = [
    match
    for name in tensors
    if (match := re.match(r'model\.(\d{1,4})\.conv_block\.(\d)\.weight$', name))
  ]
  if 'model.1.weight' not in tensors or not matches:
    names = ', '.join(shown(name) for name in list(tensors)[:3])
    raise WeightsError(
      f"{source} has none of the authors' generators: its tensors are {names}, "
      f'{len(tensors)} in all. If it has one under other names, give --map.'
    )
  blocks = len({match[1] for match in matches})
  # Of convolutions, and of norms one place behind them.
  places = {int(match[2]) for match in matches}
  if 0 in places:
    raise WeightsError(
      f'{source} is of a ResnetGenerator that pads its blocks by zeros. '
      "Give one with padding_type='reflect', the authors' default."
    )
  stem = _kernel(tensors, 'model.1.weight', source)
  head = _kernel(tensors, f'model.{17 + blocks}.weight', source)
  config = GeneratorConfig(
    name='resnet',
    filters=stem.shape[0],
    blocks=blocks,
    dropout=0.0 if 5 in places else _DROPOUT,
    padding=PADDINGS['resnet'],
    init='normal',
    **_infer_norm(tensors, 'model.1.bias'),
  )
  return Network(config, stem.shape[1], head.shape[0])


def _infer_unet(tensors: Tensors, source: str) -> Network:
  depth = 1
  while f'{unet_prefix(depth)}.1.weight' in tensors:
    depth += 1
  first = _kernel(tensors, 'model.model.0.weight', source)
  last = _kernel(tensors, 'model.model.3.weight', source)
  config = GeneratorConfig(
    name='torch_unet',
    filters=first.shape[0],
    isize=2**depth,
    dropout=0.0,
    padding=PADDINGS['torch_unet'],
    init='normal',
    **_infer_norm(tensors, 'model.model.0.bias'),
  )
  return Network(config, first.shape[1], last.shape[1])


def infer_discriminator(
  tensors: Tensors, *, source: str = 'the file'
) -> DiscriminatorConfig:
  """Infers the options of a discriminator; see `infer_generator`."""
  if 'net.0.weight' in tensors:
    first = _kernel(tensors, 'net.0.weight', source)
    name, layers, bias = 'pixelgan', 3, 'net.2.bias'
  else:
    first = _kernel(tensors, 'model.0.weight', source)
    matches = [re.match(r'model\.(\d{1,4})\.weight$', name) for name in tensors]
    last = max(int(match[1]) for match in matches if match)
    name, layers, bias = 'patchgan', (last - 2) // 3, 'model.2.bias'
  return DiscriminatorConfig(
    name=name,
    filters=first.shape[0],
    layers=layers,
    init='normal',
    **_infer_norm(tensors, bias),
  )


def _kernel(tensors: Tensors, name: str, source: str) -> np.ndarray:
  if name not in tensors or tensors[name].ndim != 4:
    problem = 'is no kernel' if name in tensors else 'is missing'
    raise WeightsError(
      f"{source} does not fit the authors' code: {name} {problem}. Give "
      'weights of one of its networks alone, or --map for other names.'
    )
  return tensors[name]


def _infer_norm(tensors: Tensors, bias: str) -> dict[str, Any]:
  """Infers the norm; the authors have biases in front of instance norm.

  Args:
    tensors: arrays by the authors' names.
    bias: name of the bias that a convolution with a norm may have.
  """
  affine = any(
    name.endswith('.weight') and array.ndim == 1
    for name, array in tensors.items()
  )
  if bias in tensors:
    return {'norm': 'instance', 'affine': affine}
  has_statistics = any(name.endswith('.running_mean') for name in tensors)
  norm = 'batch' if affine or has_statistics else 'none'
  return {'norm': norm, 'affine': affine}
