"""The generators of `nets/`, node by node."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cyclegan_jax.config import GeneratorConfig
from cyclegan_jax.errors import ConfigError
from cyclegan_jax.export.model import Model
from cyclegan_jax.export.onnx_graph import Graph
from cyclegan_jax.export.onnx_vit import Masks, pixelwise_vit
from cyclegan_jax.nets.resnet import stages
from cyclegan_jax.nets.vit_unet import NUM_LEVELS
from cyclegan_jax.types import Params


def add_generator(graph: Graph, x: str, model: Model) -> str:
  """Adds a generator to a graph.

  Args:
    graph: of the model's dtype.
    x: name of the images [B, C, H, W].
    model: the generator.

  Returns:
    The name of the translated images.
  """
  name = model.config.generator.name
  if name not in _NETWORKS:
    raise ConfigError(
      f'config.generator.name={name!r} has no ONNX graph, since a plugin '
      'registered it: export it with --format stablehlo or safetensors'
    )
  add_network = _NETWORKS[name]
  y = add_network(graph, x, model, model.dropout_masks())
  return graph.node('Tanh', y)


def _resnet(graph: Graph, x: str, model: Model, masks: Masks) -> str:
  params, config = model.params, model.config.generator
  block_input = x
  for stage in stages(config, model.channels_out):
    if stage.opens_block:
      block_input = x
    common: dict[str, Any] = {'size': stage.size, 'padding': stage.padding}
    layer = params[stage.name]
    if stage.is_up:
      x = graph.upsample(x, layer, method=config.upsample, **common)
    else:
      x = graph.conv(x, layer, stride=stage.stride, **common)
    if stage.norm:
      x = _norm(graph, x, params, config, stage.norm, stage.features)
    if stage.relu:
      x = graph.node('Relu', x)
    if stage.dropout:
      x = graph.dropout(x, masks.get(stage.dropout))
    if stage.closes_block:
      x = graph.node('Add', block_input, x)
  return x


def _keras_unet(graph: Graph, x: str, model: Model, masks: Masks) -> str:
  params, config = model.params, model.config.generator

  def level(x: str, size: int, out: int, inner: int) -> str:
    is_normed = config.norm != 'none' and size != config.isize
    x = _halve(graph, x, params[f'conv_{size}'], config)
    if size > 2:
      if is_normed:
        x = _norm(graph, x, params, config, f'norm_{size}', inner)
      deeper = min(2 * inner, 8 * config.filters)
      inner_output = level(_leaky(graph, x), size // 2, inner, deeper)
      x = graph.node('Concat', x, inner_output, axis=1)
    x = _double(graph, x, params[f'convt_{size}'], config)
    if is_normed:
      x = _norm(graph, x, params, config, f'normt_{size}', out)
    return graph.dropout(x, masks.get(f'dropout_{size}'))

  return level(x, config.isize, model.channels_out, config.filters)


def _torch_unet(graph: Graph, x: str, model: Model, masks: Masks) -> str:
  params, config = model.params, model.config.generator
  depth = int(math.log2(config.isize))
  filters = [config.filters * min(2**level, 8) for level in range(depth)]
  skips = []
  for level in range(depth):
    if level:
      x = _leaky(graph, x)
      skips.append(x)
    x = _halve(graph, x, params[f'down_{level}'], config)
    if level not in (0, depth - 1):
      x = _norm(graph, x, params, config, f'down_norm_{level}', filters[level])
  for level in reversed(range(depth)):
    x = _double(graph, x, params[f'up_{level}'], config)
    if level:
      below = filters[level - 1]
      x = _norm(graph, x, params, config, f'up_norm_{level}', below)
      x = graph.dropout(x, masks.get(f'dropout_{level}'))
      x = graph.node('Concat', skips.pop(), x, axis=1)
  return x


def _vit_unet(graph: Graph, x: str, model: Model, masks: Masks) -> str:
  params, config = model.params, model.config.generator
  assert model.side is not None, 'a transformer has one size'

  def conv(x: str, name: str, size: int = 3, stride: int = 1) -> str:
    padding = config.padding
    layer = params[name]
    return graph.conv(x, layer, size=size, stride=stride, padding=padding)

  def convolve_twice(x: str, name: str) -> str:
    for index in range(2):
      channels = np.shape(params[f'{name}_conv_{index}']['kernel'])[2]
      x = _norm(graph, x, params, config, f'{name}_norm_{index}', channels)
      x = _leaky(graph, conv(x, f'{name}_conv_{index}'))
    return x

  x = _leaky(graph, conv(x, 'stem'))
  skips = []
  for level in range(NUM_LEVELS):
    x = convolve_twice(x, f'down_{level}')
    skips.append(x)
    x = conv(x, f'halve_{level}', size=2, stride=2)
  x = pixelwise_vit(
    graph,
    x,
    params['vit'],
    side=model.side // model.multiple,
    heads=config.heads,
    masks={name.removeprefix('vit/'): mask for name, mask in masks.items()},
  )
  for level in reversed(range(NUM_LEVELS)):
    common = {'method': config.upsample, 'padding': config.padding}
    x = graph.upsample(x, params[f'double_{level}'], size=4, **common)
    x = graph.node('Concat', x, skips.pop(), axis=1)
    x = convolve_twice(x, f'up_{level}')
  return conv(x, 'head', size=1)


def _halve(graph: Graph, x: str, layer: Params, config: GeneratorConfig) -> str:
  return graph.conv(x, layer, size=4, stride=2, padding=config.padding)


def _double(
  graph: Graph, x: str, layer: Params, config: GeneratorConfig
) -> str:
  return graph.upsample(
    graph.node('Relu', x),
    layer,
    size=4,
    method=config.upsample,
    padding=config.padding,
  )


def _leaky(graph: Graph, x: str) -> str:
  return graph.node('LeakyRelu', x, alpha=0.2)


def _norm(
  graph: Graph,
  x: str,
  params: Params,
  config: GeneratorConfig,
  name: str,
  channels: int,
) -> str:
  if config.norm == 'none':
    return x
  return graph.norm(x, params.get(name, {}), channels=channels)


_NETWORKS: dict[str, Callable[[Graph, str, Model, Masks], str]] = {
  'resnet': _resnet,
  'keras_unet': _keras_unet,
  'torch_unet': _torch_unet,
  'vit_unet': _vit_unet,
}
