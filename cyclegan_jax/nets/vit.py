"""A vision transformer whose tokens are a map's pixels (arXiv:2203.02557)."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from cyclegan_jax.config import GeneratorConfig
from cyclegan_jax.nets.layers import Dropout, Norm, kernel_init, param_dtype
from cyclegan_jax.types import Array


class PixelwiseViT(nn.Module):
  """Each pixel attends to all: [B, H, W, C] to [B, H, W, C].

  Attributes:
    config: number of blocks and heads, dropout.
    axis_name: devices' axis for dropout.
  """

  config: GeneratorConfig
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    c = self.config
    batch, height, width, features = x.shape
    dense = _dense(c)
    # Learned Fourier features (arXiv:2011.13775): any size has its places.
    embedded = jnp.sin(dense(features, name='places')(places(height, width)))
    tokens = x.reshape(batch, height * width, features).astype(c.dtype)
    embedded = jnp.broadcast_to(embedded, tokens.shape)
    tokens = dense(features, name='input')(
      jnp.concatenate([embedded, tokens], axis=-1)
    )
    for block in range(c.blocks):
      name = f'block_{block}'
      tokens = TransformerBlock(c, self.axis_name, name=name)(tokens)
    return dense(features, name='output')(tokens).reshape(x.shape)


def places(height: int, width: int) -> Array:
  """Where pixels lie, row by row: [1, H * W, 2] in [-1, 1]."""
  down, right = jnp.linspace(-1, 1, height), jnp.linspace(-1, 1, width)
  both = jnp.stack(jnp.meshgrid(down, right, indexing='ij'), axis=-1)
  return both.reshape(1, height * width, 2)


class TransformerBlock(nn.Module):
  """Attention, then two layers by token, four times as wide between.

  Both are added to their input with one learned weight, zero at first
  (ReZero, arXiv:2003.04887). Call with [B, N, C].
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
    each = dense(3 * features, name='attention_in')(x).reshape(
      *x.shape[:2], 3, c.heads, features // c.heads
    )
    queries, keys, values = jnp.moveaxis(each, 2, 0)
    scores = jnp.einsum('bqhd,bkhd->bhqk', queries, keys)
    scores = scores.astype(param_dtype(c.dtype)) / math.sqrt(each.shape[-1])
    shares = nn.softmax(scores).astype(x.dtype)
    y = jnp.einsum('bhqk,bkhd->bqhd', shares, values).reshape(x.shape)
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
