"""Vision transformer on the pixels of a map (arXiv:2203.02557)."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from cyclegan_jax.config import GeneratorConfig
from cyclegan_jax.nets.layers import Dropout, Norm, kernel_init, param_dtype
from cyclegan_jax.types import Array


class PixelwiseViT(nn.Module):
  """Attention among all pixels of a map: [B, H, W, C] to [B, H, W, C].

  Attributes:
    config: options of the network.
    axis_name: device axis for dropout.
  """

  config: GeneratorConfig
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    c = self.config
    batch, height, width, features = x.shape
    dense = _dense(c)
    # Learned Fourier features (arXiv:2011.13775), for maps of any size.
    coordinates = pixel_coordinates(height, width)
    embedded = jnp.sin(dense(features, name='places')(coordinates))
    tokens = x.reshape(batch, height * width, features).astype(c.dtype)
    embedded = jnp.broadcast_to(embedded, tokens.shape)
    tokens = dense(features, name='input')(
      jnp.concatenate([embedded, tokens], axis=-1)
    )
    for block in range(c.blocks):
      name = f'block_{block}'
      tokens = TransformerBlock(c, self.axis_name, name=name)(tokens)
    return dense(features, name='output')(tokens).reshape(x.shape)


def pixel_coordinates(height: int, width: int) -> Array:
  """Row and column of each pixel, in [-1, 1]: [1, H * W, 2]."""
  rows, columns = jnp.linspace(-1, 1, height), jnp.linspace(-1, 1, width)
  grid = jnp.stack(jnp.meshgrid(rows, columns, indexing='ij'), axis=-1)
  return grid.reshape(1, height * width, 2)


class TransformerBlock(nn.Module):
  """Self-attention, then a two-layer network on each token.

  The hidden layer is four times as wide. Both parts are scaled by one learned
  weight, initialized to zero, and added to their input (ReZero,
  arXiv:2003.04887). Call with [B, N, C].
  """

  config: GeneratorConfig
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    c = self.config
    norm = functools.partial(Norm, 'layer', initializer=c.init, dtype=c.dtype)
    dense, features = _dense(c), x.shape[-1]
    weight = self.param(
      'weight', nn.initializers.zeros, (1,), param_dtype(c.dtype)
    ).astype(x.dtype)
    y = self._attend(norm(name='attention_norm')(x))
    x = x + weight * self._dropout('attention_dropout')(y)
    y = dense(4 * features, name='wide')(norm(name='wide_norm')(x))
    y = dense(features, name='narrow')(nn.gelu(y, approximate=False))
    return x + weight * self._dropout('narrow_dropout')(y)

  def _attend(self, x: Array) -> Array:
    c = self.config
    features = x.shape[-1]
    dense = _dense(c)
    size = features // c.heads
    projected = dense(3 * features, name='attention_in')(x)
    queries, keys, values = jnp.moveaxis(
      projected.reshape(*x.shape[:2], 3, c.heads, size), 2, 0
    )
    scores = jnp.einsum('bqhd,bkhd->bhqk', queries, keys)
    scores = scores.astype(param_dtype(c.dtype)) / math.sqrt(size)
    weights = nn.softmax(scores).astype(x.dtype)
    y = jnp.einsum('bhqk,bkhd->bqhd', weights, values).reshape(x.shape)
    return dense(features, name='attention_out')(y)

  def _dropout(self, name: str) -> Dropout:
    return Dropout(self.config.dropout, self.axis_name, name=name)


def _dense(config: GeneratorConfig) -> Any:
  return functools.partial(
    nn.Dense,
    dtype=config.dtype,
    param_dtype=param_dtype(config.dtype),
    kernel_init=kernel_init(config.init),
  )
