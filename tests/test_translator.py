"""`Translator` on images of any size and dtype."""

import functools
import re

import jax
import numpy as np
import pytest

import cyclegan_jax
from cyclegan_jax import inference
from cyclegan_jax.config import Config
from cyclegan_jax.errors import WorkdirError
from cyclegan_jax.state import create_train_state
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.translate.translator import (
  Translator,
  bucket,
  load_translator,
)

RESNET = Config().replace(
  data={'size': 16, 'load_size': 16, 'channels_b': 1},
  generator={
    'name': 'resnet',
    'filters': 2,
    'blocks': 1,
    'dropout': 0.0,
    'norm': 'instance',
  },
  discriminator={'filters': 2, 'layers': 1},
)
UNET = RESNET.replace(
  generator={
    'name': 'keras_unet',
    'isize': 16,
    'fixed_input_size': False,
    'dropout': 0.5,
  }
)
FIXED = UNET.replace(generator={'fixed_input_size': True})


@functools.cache
def generators(config):
  return create_train_state(config, jax.random.key(0)).translators


def translator(config=RESNET, direction='ab', **options):
  return Translator(config, generators(config), direction, **options)


def noise(*shape, dtype=np.uint8):
  rng = np.random.default_rng(0)
  return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@pytest.mark.parametrize(
  'config, height, width',
  [
    (RESNET, 1, 1),
    (RESNET, 40, 7),
    (UNET, 5, 33),
    (FIXED, 16, 16),
    (FIXED, 9, 5),
  ],
)
def test_any_size_and_dtype(config, height, width):
  translate = translator(config)
  for dtype in (np.uint8, np.uint16):
    image = noise(height, width, 3, dtype=dtype)
    translated = translate(image)
    assert translated.shape == (height, width, 1)
    assert translated.dtype == dtype
  floats = translate(np.zeros((height, width, 3), np.float32))
  assert floats.dtype == np.float32
  assert abs(floats).max() <= 1


def test_integers_are_scaled_by_their_full_range():
  translate = translator()
  image = noise(16, 16, 3)
  fine = translate(image.astype(np.uint16) * 257)
  np.testing.assert_allclose(fine / 257, translate(image), atol=0.51)


def test_the_other_direction():
  back = translator(direction='ba')
  assert back(noise(16, 16, 1)).shape == (16, 16, 3)


def test_images_of_a_batch_are_independent():
  translate = translator(UNET)
  images = noise(5, 16, 32, 3).astype(np.float32) / 127.5 - 1
  together = translate(images)
  for one, expected in zip(images, together, strict=True):
    np.testing.assert_allclose(translate(one), expected, atol=1e-5)
  # A limit on memory splits the batch.
  pieces = translator(UNET, whole_pixels=2 * 16 * 32)(images)
  np.testing.assert_allclose(pieces, together, atol=1e-5)


def test_without_padding_it_is_the_network():
  network = inference.make_translator(RESNET, generators(RESNET), 'ab')
  image = np.float32(noise(20, 28, 3)) / 127.5 - 1
  np.testing.assert_array_equal(
    translator()(image), np.asarray(network(image[None]))[0]
  )


def test_large_images_are_translated_by_tiles():
  image = np.float32(noise(80, 72, 3)) / 127.5 - 1
  whole = translator()(image)
  by_tiles = translator(whole_pixels=64 * 64)(image)
  np.testing.assert_allclose(by_tiles, whole, atol=1e-4)


def test_sizes_are_rounded_up_to_few():
  gen = RESNET.generator
  sizes = {bucket(length, gen) for length in range(257, 513)}
  assert sizes == {288, 320, 352, 384, 416, 448, 480, 512}
  for length in range(1, 5000):
    padded = bucket(length, gen)
    assert padded % 4 == 0
    assert length <= padded < length + max(4, length / 8 + 1)
    assert bucket(padded, gen) == padded
  assert {bucket(n, UNET.generator) for n in range(1, 65)} == {16, 32, 48, 64}


@pytest.mark.slow
def test_compilations_are_bounded():
  translate = translator()
  inference._translate_each.clear_cache()
  for length in range(33, 65, 3):
    translate(np.zeros((length, 16, 3), np.uint8))
  assert inference._translate_each._cache_size() == 8


def test_seeds_and_samples():
  image = noise(16, 16, 3)
  draws = [
    translator(UNET, seed=seed, sample=sample)(image).tobytes()
    for seed in (0, 1)
    for sample in (0, 1, 2)
  ]
  assert len(set(draws)) == 6
  again = translator(UNET, seed=1, sample=2)(image).tobytes()
  assert again == draws[-1]


@pytest.mark.parametrize(
  'shape', [(16, 16), (16, 16, 1), (1, 1, 16, 16, 3), (0, 4, 3)]
)
def test_invalid_shapes(shape):
  with pytest.raises(ValueError, match=re.escape(str(list(shape)))):
    translator()(np.zeros(shape, np.uint8))


def test_loading_from_a_checkpoint(tmp_path):
  config = RESNET.replace(ema_decay=0.9)
  state = create_train_state(config, jax.random.key(0))
  state = state.replace(gen=jax.tree.map(lambda x: x + 1, state.gen))
  with checkpoint.Saver(tmp_path / 'checkpoints', config) as saver:
    saver.save(state)
  translate = cyclegan_jax.load_translator(tmp_path, 'ab')
  image = noise(16, 16, 3)
  # The averaged weights are those before 1 was added.
  np.testing.assert_array_equal(translate(image), translator(config)(image))
  with pytest.raises(WorkdirError):
    load_translator(tmp_path, 'aa')
