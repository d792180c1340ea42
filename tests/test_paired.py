import numpy as np
import pytest

from cyclegan_jax.metrics import paired


def flat(value, size=12):
  return np.full((1, size, size, 3), value, np.float32)


def noisy_pair(seed, shape):
  rng = np.random.default_rng(seed)
  images = rng.uniform(-1, 1, shape)
  targets = np.clip(images + rng.normal(0, 0.3, shape), -1, 1)
  return images, targets


@pytest.mark.parametrize(
  'x, y, expected',
  [(-1.0, 1.0, 1.0), (0.5, 0.5, 0.0), (0.0, 0.5, 0.25), (0.5, 0.0, 0.25)],
)
def test_l1_values(x, y, expected):
  np.testing.assert_allclose(paired.l1(flat(x), flat(y)), [expected])


@pytest.mark.parametrize(
  'x, y, expected',
  [
    (-1.0, 1.0, 0.0),  # the error is the range
    (0.0, 0.2, 20.0),  # a tenth of the range
    (0.0, 0.02, 40.0),
    (0.3, 0.3, np.inf),
  ],
)
def test_psnr_values(x, y, expected):
  result = paired.psnr(flat(x), flat(y))
  np.testing.assert_allclose(result, [expected], rtol=1e-5, atol=1e-6)


def test_ssim_of_flat_images_is_the_luminance_term():
  # (2 * 0.5 * 0.25 + C1) / (0.5^2 + 0.25^2 + C1), C1 = (0.01 * 2)^2
  expected = (0.25 + 0.0004) / (0.3125 + 0.0004)
  result = paired.ssim(flat(0.5), flat(0.25))
  np.testing.assert_allclose(result, [expected], rtol=1e-9)


def test_ssim_of_equal_and_of_inverted_images():
  images = np.abs(noisy_pair(0, (2, 16, 14, 3))[0])
  np.testing.assert_allclose(paired.ssim(images, images), [1, 1])
  assert np.all(paired.ssim(images, 1 - images) < -0.8)


def slow_ssim(x, y, window=11, sigma=1.5, data_range=2.0):
  """One channel of one image, by loops over places and window."""
  weights = np.empty((window, window))
  for i in range(window):
    for j in range(window):
      away = (i - window // 2) ** 2 + (j - window // 2) ** 2
      weights[i, j] = np.exp(-away / (2 * sigma**2))
  weights /= weights.sum()
  c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
  values = []
  for top in range(x.shape[0] - window + 1):
    for left in range(x.shape[1] - window + 1):
      u = x[top : top + window, left : left + window]
      v = y[top : top + window, left : left + window]
      mean_u, mean_v = (weights * u).sum(), (weights * v).sum()
      var_u = (weights * (u - mean_u) ** 2).sum()
      var_v = (weights * (v - mean_v) ** 2).sum()
      both = (weights * (u - mean_u) * (v - mean_v)).sum()
      values.append(
        (2 * mean_u * mean_v + c1)
        * (2 * both + c2)
        / ((mean_u**2 + mean_v**2 + c1) * (var_u + var_v + c2))
      )
  return np.mean(values)


@pytest.mark.parametrize('shape', [(2, 11, 11, 1), (2, 17, 14, 3)])
def test_ssim_equals_direct_loops(shape):
  images, targets = noisy_pair(1, shape)
  expected = [
    np.mean([slow_ssim(x[..., c], y[..., c]) for c in range(shape[-1])])
    for x, y in zip(images, targets, strict=True)
  ]
  result = paired.ssim(images, targets)
  assert result.shape == (2,)
  assert 0.1 < result.min() < result.max() < 0.99
  np.testing.assert_allclose(result, expected, rtol=1e-9)


@pytest.mark.parametrize('metric', [paired.l1, paired.psnr, paired.ssim])
def test_images_are_scored_one_by_one(metric):
  images, targets = noisy_pair(2, (3, 12, 12, 3))
  alone = [metric(images[i : i + 1], targets[i : i + 1])[0] for i in range(3)]
  np.testing.assert_allclose(metric(images, targets), alone)
  assert len(set(alone)) == 3


@pytest.mark.parametrize('metric', [paired.l1, paired.psnr, paired.ssim])
def test_float32_is_scored_in_float64(metric):
  images, targets = noisy_pair(3, (1, 12, 12, 3))
  result = metric(images.astype(np.float32), targets.astype(np.float32))
  assert result.dtype == np.float64
  np.testing.assert_allclose(result, metric(images, targets), rtol=1e-5)


@pytest.mark.parametrize(
  'metric, x, y',
  [
    (paired.l1, flat(0.0), flat(0.0, size=13)),
    (paired.psnr, flat(0.0), flat(0.0).astype(np.uint8)),
    (paired.ssim, flat(0.0, size=10), flat(0.0, size=10)),
  ],
)
def test_invalid_images(metric, x, y):
  with pytest.raises(ValueError, match='images'):
    metric(x, y)
