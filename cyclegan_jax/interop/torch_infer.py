"""Which network of the authors' PyTorch code some weights are of."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cyclegan_jax.config import DiscriminatorConfig, GeneratorConfig
from cyclegan_jax.errors import WeightsError
from cyclegan_jax.interop.errors import shown
from cyclegan_jax.interop.torch_layers import PADDINGS, unet_home

Tensors = Mapping[str, np.ndarray]

_DROPOUT = 0.5  # wherever the authors have it


class Network(NamedTuple):
  """A generator as its weights show it."""

  config: GeneratorConfig
  channels_in: int
  channels_out: int


def infer_generator(tensors: Tensors, *, source: str = 'the file') -> Network:
  """Reads off which network the weights are of.

  A U-Net's weights don't show whether it has dropout: it is left out.

  Args:
    tensors: by the authors' names.
    source: of the tensors, for messages.

  Raises:
    WeightsError: they are of none of the authors' generators.
    ConfigError: they are, but of one out of the options' range.
  """
  if 'model.model.0.weight' in tensors:
    return _infer_unet(tensors, source)
  places = [
    re.match(r'model\.(\d{1,4})\.conv_block\.(\d)\.weight$', name)
    for name in tensors
  ]
  if 'model.1.weight' not in tensors or not any(places):
    names = ', '.join(shown(each) for each in list(tensors)[:3])
    raise WeightsError(
      f"{source} has none of the authors' generators: its tensors are {names}, "
      f'{len(tensors)} in all; if it is one under other names, give --map'
    )
  blocks = len({place[1] for place in places if place})
  convs = {int(place[2]) for place in places if place}
  # A norm's weight is one place behind its convolution's.
  if 0 in convs:
    raise WeightsError(
      f'{source} is of a ResnetGenerator that pads its blocks by zeros: '
      "give one with padding_type='reflect', the authors' default"
    )
  stem = _kernel(tensors, 'model.1.weight', source)
  head = _kernel(tensors, f'model.{17 + blocks}.weight', source)
  config = GeneratorConfig(
    name='resnet',
    filters=stem.shape[0],
    blocks=blocks,
    dropout=0.0 if 5 in convs else _DROPOUT,
    padding=PADDINGS['resnet'],
    init='normal',
    **_infer_norm(tensors, 'model.1.bias'),
  )
  return Network(config, stem.shape[1], head.shape[0])


def _infer_unet(tensors: Tensors, source: str) -> Network:
  depth = 1
  while f'{unet_home(depth)}.1.weight' in tensors:
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
  """As `infer_generator`, for a discriminator."""
  if 'net.0.weight' in tensors:
    first = _kernel(tensors, 'net.0.weight', source)
    name, layers, bias = 'pixelgan', 3, 'net.2.bias'
  else:
    first = _kernel(tensors, 'model.0.weight', source)
    places = [re.match(r'model\.(\d{1,4})\.weight$', name) for name in tensors]
    last = max(int(place[1]) for place in places if place)
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
    what = 'is no kernel' if name in tensors else 'is missing'
    raise WeightsError(
      f"{source} does not fit the authors' code: {name} {what}"
    )
  return tensors[name]


def _infer_norm(tensors: Tensors, bias: str) -> dict[str, Any]:
  """The authors give a convolution a bias where an instance norm follows."""
  affine = any(
    name.endswith('.weight') and each.ndim == 1
    for name, each in tensors.items()
  )
  if bias in tensors:
    return {'norm': 'instance', 'affine': affine}
  has_statistics = any(name.endswith('.running_mean') for name in tensors)
  norm = 'batch' if affine or has_statistics else 'none'
  return {'norm': norm, 'affine': affine}
