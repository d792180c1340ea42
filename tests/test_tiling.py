"""Translation by tiles: exact for ResNets, blended for other networks."""

import itertools
import os
import tracemalloc

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cyclegan_jax.config import Config
from cyclegan_jax.errors import WorkdirError
from cyclegan_jax.inference import make_translator
from cyclegan_jax.nets import make_generator
from cyclegan_jax.translate.tiling import _warn_once as warn_once
from cyclegan_jax.translate.tiling import (
  default_tile,
  stage_tile,
  translate_tiled,
  why_inexact,
)
from cyclegan_jax.translate.tiling.blended import (
  tile_starts,
  tile_weights,
  translate_blended,
)
from cyclegan_jax.translate.tiling.scratch_array import ScratchArray
from cyclegan_jax.translate.tiling.staged import Moments
from cyclegan_jax.translate.tiling.windows import (
  PaddedImage,
  array_reader,
  array_writer,
  pad,
  span,
)

KEY = jax.random.key(0)
RESNET = Config().replace(
  data={'size': 16, 'load_size': 16, 'channels_b': 2},
  generator={
    'name': 'resnet',
    'filters': 2,
    'blocks': 2,
    'dropout': 0.0,
    'norm': 'instance',
    'affine': False,
    'padding': 'reflect',
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


def variant(**options):
  return RESNET.replace(generator=options)


def draw(config, direction='ab'):
  """Random parameters, none of which is 0 as after `init`."""
  source, target = (config.channels(domain) for domain in direction)
  network = make_generator(config.generator, channels=target)
  x = jax.ShapeDtypeStruct((1, 16, 16, source), np.float32)
  keys = {'params': KEY, 'dropout': KEY}
  shapes = jax.eval_shape(network.init, keys, x)['params']
  rng = np.random.default_rng(0)

  def draw_one(leaf):
    fan = np.prod(leaf.shape[:-1])
    noise = rng.normal(size=leaf.shape) / np.sqrt(fan)
    return (noise + (0.3 if leaf.ndim == 1 else 0)).astype(leaf.dtype)

  return jax.tree.map(draw_one, shapes)


def image(height, width, channels=3):
  rng = np.random.default_rng(height * width)
  noise = rng.uniform(-1, 1, (height, width, channels))
  ramp = np.linspace(-1, 1, width)[:, None]
  return (0.7 * noise + 0.3 * ramp).astype(np.float32)


def whole(config, params, x, direction='ab', multiple=4):
  height, width = (-(-side // multiple) * multiple for side in x.shape[:2])
  translator = make_translator(config, {direction: params}, direction, key=KEY)
  out = np.asarray(translator(pad(x, height, width)[None]))[0]
  return out[: x.shape[0], : x.shape[1]]


def translate_array(config, params, x, direction='ab', *, tile):
  channels = config.channels(direction[1])
  output = np.full((*x.shape[:2], channels), np.nan, np.float32)
  translate_tiled(
    config,
    params,
    direction,
    array_reader(x),
    array_writer(output),
    x.shape[:2],
    key=KEY,
    tile=tile,
  )
  return output


# The ResNet: equal to the untiled output.


@pytest.mark.parametrize(
  'config, tiles',
  [
    (RESNET, (8, 16)),
    (variant(affine=True, padding='zero', blocks=1), (16,)),
    (variant(norm='none', upsample='resize', blocks=1), (16,)),
    pytest.param(
      variant(norm='batch', upsample='resize', padding='zero', blocks=1),
      (16,),
      marks=pytest.mark.slow,
    ),
  ],
)
def test_tiles_equal_the_untiled_output(config, tiles):
  params, x = draw(config), image(33, 50)
  expected = whole(config, params, x)
  assert expected.std() > 0.1
  for tile in tiles:
    got = translate_array(config, params, x, tile=tile)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.slow
def test_tiles_of_half_precision():
  """XLA rounds the untiled output less often, as it fuses in float32."""
  config = variant(dtype='bfloat16', blocks=1)
  params, x = draw(config), image(16, 30)
  got = translate_array(config, params, x, tile=16)
  assert abs(got - whole(config, params, x)).mean() < 0.01


@pytest.mark.parametrize(
  'direction, height, width', [('ab', 1, 1), ('ba', 1, 41)]
)
def test_thin_images_and_the_other_direction(direction, height, width):
  params = draw(RESNET, direction)
  x = image(height, width, RESNET.channels(direction[0]))
  np.testing.assert_allclose(
    translate_array(RESNET, params, x, direction, tile=16),
    whole(RESNET, params, x, direction),
    atol=2e-5,
  )


def test_tiles_with_different_statistics():
  """One half is flat, the other is not, so norms of tiles would differ."""
  params, x = draw(RESNET), image(33, 50)
  x[:, :32] = 0.9
  expected = whole(RESNET, params, x)
  got = translate_array(RESNET, params, x, tile=16)
  np.testing.assert_allclose(got, expected, atol=1e-4)
  naive = whole(RESNET, params, x[:20, 26:50])
  assert abs(naive - expected[:20, 26:50]).max() > 0.1


def run(config, x, tile, **options):
  """Windows read, windows written, progress."""
  read, written, progress = [], [], []

  def read_window(y0, y1, x0, x1):
    read.append((y0, y1, x0, x1))
    return x[y0:y1, x0:x1]

  translate_tiled(
    config,
    draw(config),
    'ab',
    read_window,
    lambda y0, x0, window: written.append((y0, x0, window.shape)),
    x.shape[:2],
    key=KEY,
    tile=tile,
    on_progress=lambda done, total: progress.append((done, total)),
    **options,
  )
  return read, written, progress


@pytest.mark.parametrize(
  'config, height, width', [(RESNET, 33, 50), (UNET, 3, 40)]
)
def test_windows_are_small_and_cover_each_pixel_once(config, height, width):
  read, written, progress = run(config, image(height, width), 16)
  for y0, y1, x0, x1 in read:
    assert 0 <= y0 < y1 <= height
    assert 0 <= x0 < x1 <= width
    assert max(y1 - y0, x1 - x0) <= 16 + 6
  counts = np.zeros((height, width), int)
  for y0, x0, (h, w, channels) in written:
    assert channels == 2
    counts[y0 : y0 + h, x0 : x0 + w] += 1
  assert (counts == 1).all()
  total = len(progress)
  assert progress == [(done, total) for done in range(1, total + 1)]


@pytest.mark.slow
def test_blocks_and_sizes_share_programs():
  cache_size = stage_tile.compute_tile._cache_size
  start = cache_size()
  run(variant(blocks=3), image(40, 40), 16)
  assert cache_size() == start + 9  # of 12 stages
  run(variant(blocks=3), image(70, 90), 16)
  assert cache_size() == start + 9


@pytest.mark.slow
def test_memory_does_not_grow_with_the_image():
  """NumPy's memory, which holds windows and what is written to files."""
  params = draw(RESNET)
  peaks = []
  for height, width in ((48, 48), (48, 48), (160, 160)):
    tracemalloc.start()
    translate_tiled(
      RESNET,
      params,
      'ab',
      lambda y0, y1, x0, x1: np.zeros((y1 - y0, x1 - x0, 3), np.float32),
      lambda y0, x0, window: None,
      (height, width),
      key=KEY,
      tile=16,
    )
    peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
  assert peaks[2] < peaks[1] + 20_000  # the image alone has 307,200 bytes


# Scratch files.


def open_files():
  return len(os.listdir('/proc/self/fd'))


@pytest.mark.parametrize('config', [RESNET, UNET])
def test_scratch_files_are_deleted(tmp_path, config):
  before = open_files()
  run(config, image(20, 20), 16, scratch=tmp_path)
  assert (open_files(), os.listdir(tmp_path)) == (before, [])

  def fail(y0, x0, window):
    raise RuntimeError('no')

  with pytest.raises(RuntimeError, match='no'):
    translate_tiled(
      config,
      draw(config),
      'ab',
      array_reader(image(20, 20)),
      fail,
      (20, 20),
      key=KEY,
      tile=16,
      scratch=tmp_path,
    )
  assert (open_files(), os.listdir(tmp_path)) == (before, [])


def test_a_missing_scratch_folder(tmp_path):
  with pytest.raises(WorkdirError, match=f'{tmp_path}/none'):
    run(RESNET, image(8, 8), 8, scratch=tmp_path / 'none')


def test_too_little_space_is_found_before_any_work(tmp_path):
  size = (4_000_000, 4_000_000)

  def read(*window):
    raise AssertionError(window)

  with pytest.raises(WorkdirError, match=f'{tmp_path} .* 183105469 MiB'):
    translate_tiled(
      RESNET, {}, 'ab', read, read, size, key=KEY, scratch=tmp_path
    )


@pytest.mark.parametrize('dtype', [np.float32, jnp.bfloat16])
def test_a_scratch_array_is_an_array(tmp_path, dtype):
  rng = np.random.default_rng(0)
  expected = np.zeros((13, 17, 3), dtype)
  with ScratchArray(expected.shape, dtype, tmp_path) as array:
    for y0, y1, x0, x1 in ((0, 13, 0, 17), (2, 5, 4, 9), (12, 13, 0, 17)):
      window = rng.normal(size=(y1 - y0, x1 - x0, 3)).astype(dtype)
      expected[y0:y1, x0:x1] = window
      array.write(y0, x0, window)
      np.testing.assert_array_equal(array.read(0, 13, 0, 17), expected)
    np.testing.assert_array_equal(array.read(1, 6, 3, 10), expected[1:6, 3:10])


# Borders.


@hypothesis.given(
  size=st.integers(1, 9),
  start=st.integers(-3, 8),
  length=st.integers(1, 20),
  halo=st.integers(1, 3),
)
def test_spans(size, start, length, halo):
  places = np.arange(start, start + length)
  reflected = span(start, length, size, 'reflect', halo)
  np.testing.assert_array_equal(
    reflected.inside, (places >= 0) & (places < size)
  )
  padded = {
    border: np.pad(np.arange(size), halo, mode=border)
    for border in ('reflect', 'edge')
    if border == 'edge' or size > halo
  }
  for border, expected in padded.items():
    got = span(start, length, size, border, halo).pixels
    near = (places >= -halo) & (places < size + halo)
    np.testing.assert_array_equal(got[near], expected[places[near] + halo])
    assert ((got >= 0) & (got < size)).all()


@hypothesis.given(size=st.integers(1, 9), more=st.integers(0, 30))
def test_a_padded_image_is_read_by_windows(size, more):
  x, padded = image(size, 8), size + more
  expected = np.asarray(pad(x[None], padded, 9))[0]
  mode = 'reflect' if more < size else 'symmetric'
  rows = np.pad(x, [(0, more), (0, 0), (0, 0)], mode=mode)
  np.testing.assert_array_equal(expected[:, :8], rows)
  source = PaddedImage(array_reader(x), x.shape[:2], (padded, 9), 3)
  first = padded // 2
  np.testing.assert_array_equal(
    source.read(first, padded, 3, 9), expected[first:, 3:]
  )
  assert pad(x, size, 8) is x


def test_moments_are_exact_at_a_large_mean():
  rng = np.random.default_rng(0)
  values = rng.normal(3000, 0.1, (64, 32, 4))
  moments = Moments(4)
  for part in (values[:10], values[10:11], values[11:]):
    means = part.mean(1)
    moments.add(32, means, np.square(part - means[:, None]).sum(1))
  mean, variance = moments.result(np.float64)
  np.testing.assert_allclose(mean, values.mean((0, 1)), rtol=1e-12)
  np.testing.assert_allclose(variance, values.var((0, 1)), rtol=1e-9)


# Other networks: blended.


@hypothesis.given(size=st.integers(16, 200), tile=st.sampled_from([4, 8, 16]))
def test_weights_add_up_to_one(size, tile):
  places = tile_starts(size, tile)
  assert places[0] == 0
  assert places[-1] == size - tile
  total = np.zeros(size)
  for index, start in enumerate(places):
    weights = tile_weights(places, index, tile)
    assert (weights >= 0).all()
    total[start : start + tile] += weights
  np.testing.assert_allclose(total, 1)
  assert all(b - a <= tile - tile // 4 for a, b in itertools.pairwise(places))


class ArraySource:
  """An array as a source of windows."""

  def __init__(self, array):
    self.array, self.shape = array, array.shape

  def read(self, y0, y1, x0, x1):
    return self.array[y0:y1, x0:x1]


def blend(translate, x, tile, tmp_path):
  out = np.full(x.shape, np.nan, np.float32)
  translate_blended(
    translate,
    ArraySource(x),
    x.shape[2],
    array_writer(out),
    tile=tile,
    scratch=tmp_path,
    on_progress=lambda done, total: None,
  )
  return out


def test_equal_tiles_leave_no_trace(tmp_path):
  x = image(100, 130)
  out = blend(lambda window: -window, x, (32, 48), tmp_path)
  np.testing.assert_allclose(out, -x, atol=1e-6)


def test_different_tiles_leave_no_seam(tmp_path):
  """Tiles are -1 or 1 at random, but neighboring pixels are close."""
  rng = np.random.default_rng(0)

  def translate(window):
    return np.full_like(window, rng.choice([-1, 1]))

  out = blend(translate, image(200, 230, 1), (64, 64), tmp_path)
  assert out.std() > 0.3
  jumps = [abs(np.diff(out, axis=axis)).max() for axis in (0, 1)]
  assert max(jumps) < 0.25  # where a seam would be 2


def test_a_unet_is_blended_with_a_warning(caplog):
  warn_once.cache_clear()
  params, x = draw(UNET), image(40, 90)
  got = translate_array(UNET, params, x, tile=32)
  assert got.shape == (40, 90, 2)
  assert abs(got).max() <= 1
  # Where no other tile reaches, it is the tile's translation.
  corner = whole(UNET, params, x[:32, :32])[:8, :8]
  np.testing.assert_allclose(got[:8, :8], corner, atol=1e-5)
  translate_array(UNET, params, x, tile=32)
  (message,) = caplog.messages
  assert 'keras_unet' in message


def test_a_single_tile_is_the_whole_image():
  params, x = draw(UNET), image(16, 32)
  np.testing.assert_allclose(
    translate_array(UNET, params, x, tile=32),
    whole(UNET, params, x, multiple=16),
    atol=1e-6,
  )


def test_exactness():
  assert why_inexact(RESNET.generator) is None
  config = variant(dropout=0.5, blocks=1)
  assert 'config.generator.dropout=0.5' in why_inexact(config.generator)
  got = translate_array(config, draw(config), image(20, 40), tile=16)
  assert np.isfinite(got).all()


def test_more_filters_have_smaller_tiles():
  tiles = [default_tile(variant(filters=f).generator) for f in (1, 16, 64, 256)]
  assert tiles == [2048, 512, 256, 128]
  assert default_tile(UNET.replace(generator={'filters': 64}).generator) == 1024
