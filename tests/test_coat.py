import re

import numpy as np
import pytest
from scipy import ndimage

from cyclegan_jax.data.synthetic.drawings import draw_with_truth
from cyclegan_jax.metrics.stripes import (
  CoatScore,
  format_scores,
  score_coat,
)

NUM_DRAWINGS = 8


def load_pairs(domain, size):
  drawings = [
    draw_with_truth(index, size=size, domain=domain, split='test')
    for index in range(NUM_DRAWINGS)
  ]
  source, counterpart = (
    np.stack([getattr(each, name) for each in drawings]) / np.float32(127.5) - 1
    for name in ('image', 'counterpart')
  )
  return source, counterpart, np.stack([each.coat for each in drawings])


@pytest.fixture(scope='module', params=[64, 96])
def horses(request):
  return load_pairs('a', request.param)


@pytest.fixture(scope='module')
def zebras():
  return load_pairs('b', 64)


@pytest.fixture(scope='module')
def small_horses():
  return load_pairs('a', 32)


def score_horses(horses, translated):
  source, counterpart, coat = horses
  return score_coat(source, translated, counterpart, coat, direction='ab')


def painted(horses, coat_colors):
  """The horses' images with other colours on the coat."""
  source, _, coat = horses
  return np.where(coat[..., None], coat_colors, source)


def sine_stripes(size, phase, period=0.085):
  columns = np.arange(size) / size
  wave = 0.8 * np.sin(2 * np.pi * (columns / period + phase))
  return wave[None, None, :, None]


def test_a_copy_has_no_stripes_and_the_truth_has_all(horses):
  source, counterpart, _ = horses
  copy, truth = score_horses(horses, source), score_horses(horses, counterpart)
  assert copy.background_l1 == truth.background_l1 == 0
  assert copy.stripes == copy.copy_stripes < 0.15
  assert truth.stripes == truth.truth_stripes == 1


def test_the_other_direction(zebras):
  source, counterpart, coat = zebras
  score = score_coat(source, counterpart, counterpart, coat, direction='ba')
  assert score.background_l1 == 0
  assert score.stripes == score.truth_stripes < 0.15
  assert score.copy_stripes == 1


def test_every_plain_coat_is_plain(horses):
  source, counterpart, coat = horses
  for i in range(NUM_DRAWINGS):
    one = slice(i, i + 1)
    score = score_coat(
      source[one], source[one], counterpart[one], coat[one], direction='ab'
    )
    assert score.stripes < 0.15


def test_phase_does_not_matter(horses):
  size = horses[0].shape[1]
  # The other half of the period is black and white swapped.
  scores = [
    score_horses(horses, painted(horses, sine_stripes(size, phase))).stripes
    for phase in np.arange(4) / 8
  ]
  assert min(scores) > 0.8
  assert max(scores) / min(scores) < 1.06


def test_swapping_black_and_white_does_not_matter(horses):
  _, counterpart, _ = horses
  score = score_horses(horses, painted(horses, -counterpart))
  assert score.stripes == pytest.approx(1, abs=1e-6)


def test_half_the_contrast_is_half_the_score(horses):
  _, counterpart, coat = horses
  middle = counterpart[coat].mean()
  faint = painted(horses, middle + 0.5 * (counterpart - middle))
  assert score_horses(horses, faint).stripes == pytest.approx(0.5, abs=1e-3)


def test_noise_shading_and_tint_are_no_stripes(horses):
  source, _, _ = horses
  size = source.shape[1]
  rng = np.random.default_rng(0)
  noise = rng.uniform(-0.1, 0.1, source.shape)
  shading = np.linspace(-0.4, 0.4, size)[:, None, None]
  for change in (noise, shading, np.array([0.2, 0.0, -0.2])):
    score = score_horses(horses, painted(horses, source + change))
    assert score.stripes < 0.15


def test_a_grey_blur_of_stripes_is_no_stripes(horses):
  _, counterpart, _ = horses
  sigma = 0.06 * counterpart.shape[1]
  blurred = ndimage.gaussian_filter(counterpart, (0, sigma, sigma, 0))
  assert score_horses(horses, painted(horses, blurred)).stripes < 0.25


def test_background_is_measured_off_the_coat_alone(horses):
  source, counterpart, coat = horses
  moved = np.where(coat[..., None], counterpart, source + 0.1)
  score = score_horses(horses, moved)
  assert score.background_l1 == pytest.approx(0.05)
  assert score.stripes == pytest.approx(1)


def test_background_value_by_hand(small_horses):
  source, counterpart, coat = small_horses
  translated = source.copy()
  row, column = np.argwhere(~coat[0])[0]
  old = translated[0, row, column, 0]
  translated[0, row, column, 0] = old - 0.3 if old > 0 else old + 0.3
  score = score_coat(source, translated, counterpart, coat, direction='ab')
  expected = 0.15 / 3 / (~coat[0]).sum() / NUM_DRAWINGS
  assert score.background_l1 == pytest.approx(expected, rel=1e-4)


def test_the_smallest_drawings_are_scored():
  source, counterpart, coat = load_pairs('a', 8)
  score = score_coat(source, source, counterpart, coat, direction='ab')
  assert np.isfinite(score).all()


def test_text_of_a_run():
  text = format_scores(
    CoatScore(0.0123, 0.874, 0.061, 1.0), CoatScore(0.02, 0.14, 1.0, 0.057)
  )
  assert text.splitlines() == [
    'a -> b: stripes 0.87 (untranslated 0.06, perfect 1.00), '
    'background off by 1.2% (perfect 0.0%)',
    'b -> a: stripes 0.14 (untranslated 1.00, perfect 0.06), '
    'background off by 2.0% (perfect 0.0%)',
  ]


def score_with(horses, name, value):
  source, counterpart, coat = horses
  arguments = {
    'source': source,
    'translated': source,
    'counterpart': counterpart,
    'coat': coat,
    'direction': 'ab',
  }
  arguments[name] = value(arguments[name])
  score_coat(**arguments)


@pytest.mark.parametrize(
  'name, value, message',
  [
    (
      'direction',
      lambda _: 'a2b',
      "direction='a2b' is unknown: 'ab' or 'ba'",
    ),
    (
      'direction',
      lambda _: 'ba',
      "direction='ba' needs a source with more stripes than the counterpart: "
      'swap the images or the direction',
    ),
    (
      'translated',
      lambda x: x[:2],
      'translated is [2, 32, 32, 3]: all three must be one [N, H, W, 3]',
    ),
    (
      'counterpart',
      lambda x: x.astype(np.uint8),
      'counterpart is of uint8: images must be floats in [-1, 1]',
    ),
    (
      'coat',
      lambda x: x.astype(np.float32),
      'coat is float32 [8, 32, 32]: it must be bool [8, 32, 32]',
    ),
    (
      'coat',
      lambda x: x & False,
      'every image needs some coat and some background',
    ),
  ],
)
def test_errors(small_horses, name, value, message):
  with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
    score_with(small_horses, name, value)
