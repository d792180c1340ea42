import numpy as np
import pytest
from scipy import ndimage

from cyclegan_jax.data.synthetic.drawings import draw_with_truth
from cyclegan_jax.metrics.stripes import score_stripes

NUM_DRAWINGS = 8
SIZE = 64


def load_pairs(domain, size=SIZE):
  drawings = [
    draw_with_truth(index, size=size, domain=domain, split='test')
    for index in range(NUM_DRAWINGS)
  ]
  source, counterpart = (
    np.stack([getattr(each, name) for each in drawings]) / np.float32(127.5) - 1
    for name in ('image', 'counterpart')
  )
  return source, counterpart, np.stack([each.mask for each in drawings])


@pytest.fixture(scope='module')
def horses():
  return load_pairs('a')


def score_horses(horses, translated):
  source, counterpart, mask = horses
  return score_stripes(source, translated, counterpart, mask, direction='ab')


def painted(horses, colors):
  """The horses' images with other colors inside the mask."""
  source, _, mask = horses
  return np.where(mask[..., None], colors, source)


def sine_stripes(phase, period=0.085):
  columns = np.arange(SIZE) / SIZE
  wave = 0.8 * np.sin(2 * np.pi * (columns / period + phase))
  return wave[None, None, :, None]


def test_a_copy_has_no_stripes_and_the_truth_has_all(horses):
  source, counterpart, _ = horses
  copy, truth = score_horses(horses, source), score_horses(horses, counterpart)
  assert copy.background_l1 == truth.background_l1 == 0
  assert copy.stripes == copy.copy_stripes < 0.15
  assert truth.stripes == truth.truth_stripes == 1
  assert truth.num_images == NUM_DRAWINGS


def test_the_other_direction():
  source, counterpart, mask = load_pairs('b')
  score = score_stripes(source, counterpart, counterpart, mask, direction='ba')
  assert score.background_l1 == 0
  assert score.stripes == score.truth_stripes < 0.15
  assert score.copy_stripes == 1


def test_phase_does_not_matter(horses):
  # The other half of the period is black and white swapped.
  scores = [
    score_horses(horses, painted(horses, sine_stripes(phase))).stripes
    for phase in np.arange(4) / 8
  ]
  assert min(scores) > 0.8
  assert max(scores) / min(scores) < 1.06
  score = score_horses(horses, painted(horses, -horses[1]))
  assert score.stripes == pytest.approx(1, abs=1e-6)


def test_half_the_contrast_is_half_the_score(horses):
  _, counterpart, mask = horses
  middle = counterpart[mask].mean()
  faint = painted(horses, middle + 0.5 * (counterpart - middle))
  assert score_horses(horses, faint).stripes == pytest.approx(0.5, abs=1e-3)


def test_noise_shading_and_tint_are_no_stripes(horses):
  source, _, _ = horses
  rng = np.random.default_rng(0)
  noise = rng.uniform(-0.1, 0.1, source.shape)
  shading = np.linspace(-0.4, 0.4, SIZE)[:, None, None]
  for change in (noise, shading, np.array([0.2, 0.0, -0.2])):
    score = score_horses(horses, painted(horses, source + change))
    assert score.stripes < 0.15


def test_blurred_stripes_are_no_stripes(horses):
  _, counterpart, _ = horses
  blurred = ndimage.gaussian_filter(counterpart, 0.06 * SIZE, axes=(1, 2))
  assert score_horses(horses, painted(horses, blurred)).stripes < 0.25


def test_background_is_measured_outside_the_mask(horses):
  source, counterpart, mask = horses
  moved = np.where(mask[..., None], counterpart, source + 0.1)
  score = score_horses(horses, moved)
  assert score.background_l1 == pytest.approx(0.05)
  assert score.stripes == pytest.approx(1)


def test_the_smallest_drawings_are_scored():
  source, counterpart, mask = load_pairs('a', 8)
  score = score_stripes(source, source, counterpart, mask, direction='ab')
  assert np.isfinite(score).all()


def test_a_wrong_direction(horses):
  source, counterpart, mask = horses
  with pytest.raises(ValueError, match="direction='ba'"):
    score_stripes(source, source, counterpart, mask, direction='ba')
