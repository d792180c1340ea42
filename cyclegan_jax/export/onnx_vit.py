"""The transformer of `nets/vit.py`, node by node, at one size."""

import math
from collections.abc import Mapping

import numpy as np

from cyclegan_jax.export.onnx_graph import Graph
from cyclegan_jax.nets.vit import pixel_coordinates
from cyclegan_jax.types import Params

Masks = Mapping[str, np.ndarray]


def pixelwise_vit(
  graph: Graph,
  x: str,
  params: Params,
  *,
  side: int,
  heads: int,
  masks: Masks,
) -> str:
  """`nets.vit.PixelwiseViT` on [B, C, side, side].

  Args:
    graph: of the model's dtype.
    x: name of the input.
    params: of the transformer.
    side: height and width: the pixels' positions become constants.
    heads: attention heads.
    masks: dropout masks [N, C] by 'block_<n>/<name>'.

  Returns:
    The name of the output, of the shape of x.
  """
  kernel = np.asarray(params['input']['kernel'])
  features = kernel.shape[1]
  layer = {name: np.asarray(x) for name, x in params['places'].items()}
  positions = np.asarray(pixel_coordinates(side, side))
  embedded = np.sin(positions @ layer['kernel'] + layer['bias'])
  # The layer on [embedded, tokens] is the sum of two, one of them constant.
  constant = embedded @ kernel[:features] + np.asarray(params['input']['bias'])
  tokens = graph.transpose(graph.reshape(x, [0, features, -1]), [0, 2, 1])
  tokens = graph.node('MatMul', tokens, graph.weights(kernel[features:]))
  tokens = graph.node('Add', tokens, graph.weights(constant))
  for block in range(sum(name.startswith('block_') for name in params)):
    name = f'block_{block}'
    block_masks = {
      key.removeprefix(f'{name}/'): mask
      for key, mask in masks.items()
      if key.startswith(f'{name}/')
    }
    tokens = _block(graph, tokens, params[name], heads, block_masks)
  tokens = graph.dense(tokens, params['output'])
  tokens = graph.transpose(tokens, [0, 2, 1])
  return graph.reshape(tokens, [0, features, side, side])


def _block(
  graph: Graph, x: str, params: Params, heads: int, masks: Masks
) -> str:
  weight = graph.weights(params['weight'])

  def add(x: str, y: str, dropout: str) -> str:
    if dropout in masks:
      y = graph.node('Mul', y, graph.weights(masks[dropout][None]))
    return graph.node('Add', x, graph.node('Mul', weight, y))

  y = graph.layer_norm(x, params['attention_norm'])
  x = add(x, _attend(graph, y, params, heads), 'attention_dropout')
  y = graph.layer_norm(x, params['wide_norm'])
  y = graph.gelu(graph.dense(y, params['wide']))
  return add(x, graph.dense(y, params['narrow']), 'narrow_dropout')


def _attend(graph: Graph, x: str, params: Params, heads: int) -> str:
  layer = {name: np.asarray(x) for name, x in params['attention_in'].items()}
  features = layer['kernel'].shape[0]

  def project(third: int, axes: list[int]) -> str:
    columns = slice(third * features, (third + 1) * features)
    part = {name: weights[..., columns] for name, weights in layer.items()}
    y = graph.reshape(graph.dense(x, part), [0, 0, heads, features // heads])
    return graph.transpose(y, axes)

  queries = project(0, [0, 2, 1, 3])
  keys = project(1, [0, 2, 3, 1])
  values = project(2, [0, 2, 1, 3])
  scores = graph.node('MatMul', queries, keys)
  shares = graph.softmax(scores, 1 / math.sqrt(features // heads))
  y = graph.transpose(graph.node('MatMul', shares, values), [0, 2, 1, 3])
  return graph.dense(
    graph.reshape(y, [0, 0, features]), params['attention_out']
  )
