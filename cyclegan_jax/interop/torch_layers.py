"""Names of layers here and in the authors' PyTorch code.

Their layers are numbered by position in an nn.Sequential, which also counts
layers without weights: padding, activations, dropout.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from cyclegan_jax.config import DiscriminatorConfig, GeneratorConfig


class Layer(NamedTuple):
  """A layer under both of its names."""

  path: tuple[str, ...]  # in the parameters: ('up_1', 'ConvTranspose_0')
  torch_name: str  # 'model.10.conv_block.1'
  is_norm: bool


def list_layers(
  config: GeneratorConfig | DiscriminatorConfig,
) -> list[Layer]:
  """Lists the layers of a network that have weights or statistics.

  Args:
    config: options for which `missing_in_torch` returns ''.
  """
  return _LAYERS[config.name](config)


def missing_in_torch(config: GeneratorConfig | DiscriminatorConfig) -> str:
  """Names the first option that the authors' code does not have, or ''."""
  path = config._path
  if config.name not in _LAYERS:
    return f'{path}.name={config.name!r}'
  if config.norm == 'none':
    return f"{path}.norm='none'"
  if config.norm == 'batch' and not config.affine:
    return f"{path}.affine=False with norm='batch'"
  if isinstance(config, DiscriminatorConfig):
    return f'{path}.spectral_norm=True' if config.spectral_norm else ''
  if config.upsample != 'transpose':
    return f'{path}.upsample={config.upsample!r}'
  if config.padding != PADDINGS[config.name]:
    return f'{path}.padding={config.padding!r} with name={config.name!r}'
  if config.name == 'torch_unet' and config.isize < 32:
    return f'{path}.isize={config.isize}'
  return ''


PADDINGS = {'resnet': 'reflect', 'torch_unet': 'zero'}


def _conv(name: str, torch_name: str) -> Layer:
  return Layer((name,), torch_name, False)


def _up(name: str, torch_name: str) -> Layer:
  return Layer((name, 'ConvTranspose_0'), torch_name, False)


def _norm(name: str, torch_name: str) -> Layer:
  return Layer((name,), torch_name, True)


def _resnet(config: GeneratorConfig) -> list[Layer]:
  layers = [_conv('stem', 'model.1'), _norm('stem_norm', 'model.2')]
  for level in (1, 2):
    place = 1 + 3 * level
    layers += [
      _conv(f'down_{level}', f'model.{place}'),
      _norm(f'down_norm_{level}', f'model.{place + 1}'),
    ]
  # Padding, convolution, norm, ReLU, maybe dropout, and once more.
  second = 6 if config.dropout else 5
  for block in range(config.blocks):
    for half, place in enumerate((1, second)):
      prefix = f'model.{10 + block}.conv_block'
      layers += [
        _conv(f'block_{block}_conv_{half}', f'{prefix}.{place}'),
        _norm(f'block_{block}_norm_{half}', f'{prefix}.{place + 1}'),
      ]
  place = 10 + config.blocks
  for level in (1, 0):
    layers += [
      _up(f'up_{level}', f'model.{place}'),
      _norm(f'up_norm_{level}', f'model.{place + 1}'),
    ]
    place += 3
  return [*layers, _conv('head', f'model.{place + 1}')]


def unet_prefix(level: int) -> str:
  """Returns the prefix of a level of the authors' U-Net; 0 is the outermost."""
  return 'model.model' + '.1.model' * min(level, 1) + '.3.model' * (level - 1)


def _torch_unet(config: GeneratorConfig) -> list[Layer]:
  depth = int(math.log2(config.isize))
  layers = []
  for level in range(depth):
    prefix, is_last = unet_prefix(level), level == depth - 1
    # ReLU, convolution, norm, the level below, ReLU, convolution, norm: the
    # outermost has neither the first ReLU nor norms, the innermost no level
    # below and one norm.
    down, up = (0, 3) if level == 0 else (1, 3 if is_last else 5)
    layers += [
      _conv(f'down_{level}', f'{prefix}.{down}'),
      _up(f'up_{level}', f'{prefix}.{up}'),
    ]
    if level:
      layers.append(_norm(f'up_norm_{level}', f'{prefix}.{up + 1}'))
    if level and not is_last:
      layers.append(_norm(f'down_norm_{level}', f'{prefix}.2'))
  return layers


def _patchgan(config: DiscriminatorConfig) -> list[Layer]:
  layers = [_conv('conv_0', 'model.0')]
  for level in range(1, config.layers + 1):
    place = 3 * level - 1
    layers += [
      _conv(f'conv_{level}', f'model.{place}'),
      _norm(f'norm_{level}', f'model.{place + 1}'),
    ]
  return [*layers, _conv('logits', f'model.{3 * config.layers + 2}')]


def _pixelgan(config: DiscriminatorConfig) -> list[Layer]:
  del config  # always the same
  return [
    _conv('conv_0', 'net.0'),
    _conv('conv_1', 'net.2'),
    _norm('norm_1', 'net.3'),
    _conv('logits', 'net.5'),
  ]


_LAYERS: dict[str, Callable[..., list[Layer]]] = {
  'resnet': _resnet,
  'torch_unet': _torch_unet,
  'patchgan': _patchgan,
  'pixelgan': _pixelgan,
}
