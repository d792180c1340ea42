import math

import fidelity
import numpy as np
import pytest

from cyclegan_jax.metrics import distances
from cyclegan_jax.metrics.distances import frechet_distance, kernel_distance


def points(mean, covariance):
  """Vectors of exactly this mean and covariance."""
  raw = np.random.default_rng(0).normal(size=(100, len(mean)))
  centered = raw - raw.mean(0)
  root = np.linalg.cholesky(np.cov(centered, rowvar=False))
  white = centered @ np.linalg.inv(root).T
  values, vectors = np.linalg.eigh(covariance)
  return white @ np.diag(np.sqrt(values.clip(0))) @ vectors.T + mean


def draw(seed, count, dim, *, shift=0.0):
  rng = np.random.default_rng(seed)
  mixing = rng.normal(size=(dim, dim))
  return (rng.normal(size=(count, dim)) @ mixing + shift).astype(np.float32)


PLAIN = points([0, 0], np.eye(2))
TURNED = [[2.5, 1.5], [1.5, 2.5]]  # eigenvalues 4 and 1, at 45 degrees


@pytest.mark.parametrize(
  'other, expected',
  [
    (PLAIN, 0.0),
    (points([3, 4], np.eye(2)), 25.0),  # the shift alone
    (points([0, 0], 9 * np.eye(2)), 8.0),  # 2 (3 - 1)^2
    (points([1, 0], np.diag([4, 0.25])), 2.25),  # 1 + 1 + 1/4
    (points([0, 0], TURNED), 1.0),  # (2 - 1)^2 + 0
    (np.zeros((3, 2)), 2.0),  # to a point
    (points([0, 0], np.diag([1, 0])), 1.0),  # to a line
  ],
)
def test_frechet_distance_values(other, expected):
  for x, y in ((PLAIN, other), (other, PLAIN)):
    np.testing.assert_allclose(frechet_distance(x, y), expected, atol=1e-9)


def test_frechet_distance_of_covariances_that_do_not_commute():
  # By the formula for 2 x 2: tr (ST)^(1/2) = sqrt(tr ST + 2 sqrt(det ST)).
  s, t = np.diag([4.0, 1.0]), np.array(TURNED)
  cross = math.sqrt(np.trace(s @ t) + 2 * math.sqrt(np.linalg.det(s @ t)))
  expected = np.trace(s) + np.trace(t) - 2 * cross
  assert expected > 0.1
  distance = frechet_distance(points([0, 0], s), points([0, 0], t))
  np.testing.assert_allclose(distance, expected, rtol=1e-9)


def test_few_vectors_in_many_dimensions():
  x, y = draw(0, 10, 64), draw(1, 90, 64, shift=0.5)
  assert frechet_distance(x, x) < 1e-9 * np.var(x, axis=0).sum()
  covariances = [np.cov(z.astype(np.float64), rowvar=False) for z in (x, y)]
  values = np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(0)
  shift = x.mean(0, np.float64) - y.mean(0, np.float64)
  expected = shift @ shift + sum(map(np.trace, covariances))
  expected -= 2 * np.sqrt(values).sum()
  np.testing.assert_allclose(frechet_distance(x, y), expected, rtol=1e-5)


def test_kernel_distance_by_hand():
  x, y = np.array([[1.0], [2.0]]), np.array([[0.0], [1.0]])
  # k(x, y) = (x y + 1)^3. Of x with itself: 27, of y: 1; across 1, 8, 1, 27.
  mean, std = kernel_distance(x, y, num_subsets=3)
  np.testing.assert_allclose(mean, 27 + 1 - 2 * 37 / 4)
  assert std == 0  # every subset is the whole set


def test_kernel_distance_divides_by_the_dimension():
  x = np.array([[1.0, 1.0], [2.0, 0.0]])
  y = np.array([[0.0, 0.0], [0.0, 2.0]])
  # x.x' / 2 = 1, y.y' / 2 = 0; across 0, 1, 0, 0.
  expected = 8 + 1 - 2 * (1 + 8 + 1 + 1) / 4
  np.testing.assert_allclose(kernel_distance(x, y).mean, expected)


def test_kernel_distance_is_unbiased_and_spreads():
  x, y, z = (
    np.random.default_rng(seed).normal(shift, size=(400, 8))
    for seed, shift in ((0, 0), (1, 0), (2, 1))
  )
  same = kernel_distance(x, y, subset_size=40)
  other = kernel_distance(x, z, subset_size=40)
  assert abs(same.mean) < 3 * same.std / np.sqrt(100 / 10)
  assert same.std > 0
  assert other.mean > 10 * abs(same.mean)
  assert same == kernel_distance(x, y, subset_size=40)
  assert same != kernel_distance(x, y, subset_size=40, seed=1)


def test_kernel_distance_of_sets_too_large_for_whole_kernels(monkeypatch):
  x, y = draw(0, 40, 8), draw(1, 60, 8)
  whole = kernel_distance(x, y, subset_size=10, num_subsets=5)
  monkeypatch.setattr(distances, '_MAX_WHOLE_KERNEL', 50)
  parts = kernel_distance(x, y, subset_size=10, num_subsets=5)
  np.testing.assert_allclose(parts, whole, rtol=1e-10)


@pytest.mark.parametrize('distance', [frechet_distance, kernel_distance])
@pytest.mark.parametrize(
  'features',
  [
    np.zeros((1, 2)),
    np.zeros(3),
    np.zeros((4, 3)),
    np.array([[1.0, 0.0], [np.nan, 0.0]]),
  ],
)
def test_invalid_features(distance, features):
  with pytest.raises(ValueError, match=r'features|vectors'):
    distance(np.zeros((4, 2)), features)


@pytest.mark.torch
@pytest.mark.parametrize('counts', [(30, 40), (300, 250)])
def test_distances_equal_those_of_torch_fidelity(counts):
  torch = pytest.importorskip('torch')
  fid = fidelity.load_formulas('metric_fid')
  kid = fidelity.load_formulas('metric_kid')
  x, y = draw(0, counts[0], 48), draw(1, counts[1], 48, shift=0.3)
  tensors = [torch.from_numpy(each.astype(np.float64)) for each in (x, y)]
  expected = fid.fid_statistics_to_metric(
    *(fid.fid_features_to_statistics(each) for each in tensors), verbose=False
  )['frechet_inception_distance']
  np.testing.assert_allclose(frechet_distance(x, y), expected, rtol=1e-6)
  expected = kid.kid_features_to_metric(
    *tensors, kid_subsets=20, kid_subset_size=25, rng_seed=7, verbose=False
  )
  np.testing.assert_allclose(
    kernel_distance(x, y, subset_size=25, num_subsets=20, seed=7),
    [expected[f'kernel_inception_distance_{name}'] for name in ('mean', 'std')],
    rtol=1e-9,
  )
