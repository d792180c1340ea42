"""UVCGAN's generator: counts, the transformer by hand, sizes and tiles."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cyclegan_jax as cg
from cyclegan_jax.config import Config, GeneratorConfig, size_multiple
from cyclegan_jax.errors import ConfigError
from cyclegan_jax.nets import make_generator
from cyclegan_jax.nets.vit import PixelwiseViT, TransformerBlock
from cyclegan_jax.translate.tiling import (
  default_tile,
  translate_tiled,
  why_inexact,
)
from cyclegan_jax.translate.tiling.windows import array_reader, array_writer
from cyclegan_jax.translate.translator import (
  Translator,
  default_whole_pixels,
)

TINY = GeneratorConfig(
  name='vit_unet', filters=2, blocks=2, heads=4, norm='instance', dropout=0.0
)


def values(*shape, seed=0):
  drawn = np.random.default_rng(seed).normal(size=shape)
  return jnp.asarray(drawn, jnp.float32)


def draw(network, x):
  """Parameters that are all of some size, zeros at first too."""
  shapes = jax.eval_shape(network.init, keys(), x)['params']
  rng = np.random.default_rng(3)
  return jax.tree.map(
    lambda leaf: jnp.asarray(
      rng.normal(size=leaf.shape) / math.sqrt(math.prod(leaf.shape[:-1])),
      leaf.dtype,
    ),
    shapes,
  )


def keys(seed=0):
  key = jax.random.key(seed)
  return {'params': key, 'dropout': key}


def test_the_paper_s_count():
  config = GeneratorConfig(
    name='vit_unet',
    filters=48,
    blocks=12,
    heads=6,
    norm='instance',
    affine=False,
    upsample='resize',
  )
  x = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
  out, variables = jax.eval_shape(
    make_generator(config).init_with_output, keys(), x
  )
  assert out.shape == (1, 256, 256, 3)

  def conv(size, inputs, outputs):
    return size**2 * inputs * outputs + outputs

  filters = [48, 96, 192, 384]
  expected = conv(3, 3, 48) + conv(1, 48, 3)
  for outer, inner in zip([48, *filters], filters, strict=False):
    down = conv(3, outer, inner) + conv(3, inner, inner) + conv(2, inner, inner)
    up = conv(3, inner, inner)
    up += conv(3, 2 * inner, inner) + conv(3, inner, outer)
    expected += down + up
  f = 384
  # Places, and a layer in from both and one out.
  expected += conv(1, 2, f) + conv(1, 2 * f, f) + conv(1, f, f)
  # Two norms, queries, keys, values and their layer out, two wide, a weight.
  block = 2 * 2 * f + 4 * conv(1, f, f) + conv(1, f, 4 * f) + conv(1, 4 * f, f)
  expected += 12 * (block + 1)
  count = sum(leaf.size for leaf in jax.tree.leaves(variables))
  assert count == expected == 31_360_239


def test_a_block_is_the_identity_at_first():
  x = values(2, 6, 16)
  block = TransformerBlock(TINY)
  got, variables = jax.jit(block.init_with_output)(keys(), x)
  np.testing.assert_array_equal(got, x)
  # But learns: the gradient in its weight is not zero.
  gradient = jax.jit(
    jax.grad(lambda params: jnp.sum(block.apply({'params': params}, x) ** 2))
  )(variables['params'])
  assert abs(float(gradient['weight'][0])) > 1e-3


def test_a_block_by_numpy():
  x = values(2, 6, 16)
  block = TransformerBlock(TINY)
  params = draw(block, x)
  got = block.apply({'params': params}, x)
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  x = np.asarray(x, np.float64)

  def norm(x, of):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-5)
    return x * of['scale'] + of['bias']

  y = norm(x, p['attention_norm'])
  y = y @ p['attention_in']['kernel'] + p['attention_in']['bias']
  queries, others, of_others = y.reshape(2, 6, 3, 4, 4).transpose(2, 0, 3, 1, 4)
  scores = np.einsum('bhnd,bhmd->bhnm', queries, others) / math.sqrt(4)
  shares = np.exp(scores) / np.sum(np.exp(scores), -1, keepdims=True)
  y = np.einsum('bhnm,bhmd->bnhd', shares, of_others).reshape(2, 6, 16)
  y = y @ p['attention_out']['kernel'] + p['attention_out']['bias']
  y = x + p['weight'] * y
  z = norm(y, p['wide_norm']) @ p['wide']['kernel'] + p['wide']['bias']
  z = 0.5 * z * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))
  z = z @ p['narrow']['kernel'] + p['narrow']['bias']
  np.testing.assert_allclose(got, y + p['weight'] * z, atol=1e-4)


def test_each_pixel_sees_all():
  x = values(1, 2, 4, 8)
  vit = PixelwiseViT(TINY)
  params = draw(vit, x)
  gradient = jax.jit(
    jax.grad(lambda x: jnp.sum(vit.apply({'params': params}, x)[0, 0, 0]))
  )(x)
  assert np.all(np.linalg.norm(gradient[0], axis=-1) > 1e-6)


def test_places_alone_tell_pixels_apart():
  x = values(1, 2, 4, 8)
  vit = PixelwiseViT(TINY)
  params = draw(vit, x)

  @jax.jit
  def turned(params):
    """Whether the output of the turned map is the turned output."""
    out = vit.apply({'params': params}, x)
    other = vit.apply({'params': params}, x[:, ::-1, ::-1])
    return jnp.allclose(other, out[:, ::-1, ::-1], atol=1e-4)

  assert not turned(params)
  nowhere = jax.tree.map(jnp.zeros_like, params['places'])
  assert turned(params | {'places': nowhere})


def test_heads_that_do_not_divide():
  with pytest.raises(ConfigError, match=r'config\.generator\.heads=6'):
    Config().replace(
      generator={'name': 'vit_unet', 'filters': 2, 'heads': 6},
    )


@pytest.fixture(scope='module')
def config():
  return Config().replace(
    batch_size=2,
    data={'size': 16, 'load_size': 16},
    generator=TINY.__dict__,
    discriminator={'filters': 2, 'layers': 2},
  )


@pytest.fixture(scope='module')
def state(config):
  return cg.create_train_state(config, jax.random.key(0))


def test_a_gradient_reaches_all_of_it():
  """In bfloat16, with weights that have left zero."""
  config = GeneratorConfig(**{**TINY.__dict__, 'dtype': 'bfloat16'})
  vit, x = PixelwiseViT(config), values(1, 2, 4, 16).astype(jnp.bfloat16)
  params = draw(vit, x)

  @jax.jit
  @jax.grad
  def gradient(params):
    y = vit.apply({'params': params}, x)
    assert y.dtype == jnp.bfloat16
    return jnp.sum(y.astype(jnp.float32) ** 2)

  for path, leaf in jax.tree.leaves_with_path(gradient(params)):
    assert leaf.dtype == jnp.float32
    assert np.all(np.isfinite(leaf)), path
    assert np.any(leaf != 0), path


@pytest.mark.slow
def test_images_of_any_size(config, state):
  translate = Translator(config, state.gen, 'ab')
  image = np.random.default_rng(0).integers(0, 256, (21, 40, 3), np.uint8)
  assert translate(image).shape == (21, 40, 3)


@pytest.mark.slow
def test_tiles_are_blended(config, state):
  def translate(image):
    output = np.full(image.shape, np.nan, np.float32)
    translate_tiled(
      config,
      state.gen['ab'],
      'ab',
      array_reader(image),
      array_writer(output),
      image.shape[:2],
      key=jax.random.key(0),
      tile=32,
    )
    return output

  assert 'vit_unet' in why_inexact(config.generator)
  image = np.asarray(jnp.tanh(values(50, 70, 3)))
  assert np.all(np.abs(translate(image)) <= 1)
  # A single tile is the whole image.
  whole = translate(image[:32, :32])
  to_b = cg.make_translator(config, state.gen, 'ab')
  np.testing.assert_allclose(whole, to_b(image[None, :32, :32])[0], atol=1e-5)


def test_attention_is_kept_within_memory():
  config = GeneratorConfig(name='vit_unet', filters=8)
  assert size_multiple(config) == 16
  for side in (default_tile(config), math.isqrt(default_whole_pixels(config))):
    tokens = (side // 16) ** 2
    assert tokens >= 1024
    assert config.heads * tokens**2 * 4 <= 2**30
