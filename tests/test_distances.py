import math
import re

import fidelity
import numpy as np
import pytest

from cyclegan_jax.metrics.distances import (
  Statistics,
  StatisticsGatherer,
  frechet_distance,
  gather_statistics,
  kernel_distance,
)


def gaussian(mean, covariance, count=100):
  return Statistics(
    np.asarray(mean, np.float64), np.asarray(covariance, np.float64), count
  )


def draw(seed, count, dim, *, shift=0.0):
  rng = np.random.default_rng(seed)
  mixing = rng.normal(size=(dim, dim))
  return (rng.normal(size=(count, dim)) @ mixing + shift).astype(np.float32)


PLAIN = gaussian([0, 0], np.eye(2))
TURNED = [[2.5, 1.5], [1.5, 2.5]]  # eigenvalues 4 and 1, at 45 degrees


@pytest.mark.parametrize(
  'other, expected',
  [
    (PLAIN, 0.0),
    (gaussian([3, 4], np.eye(2)), 25.0),  # the shift alone
    (gaussian([0, 0], 9 * np.eye(2)), 8.0),  # 2 (3 - 1)^2
    (gaussian([1, 0], np.diag([4, 0.25])), 2.25),  # 1 + 1 + 1/4
    (gaussian([0, 0], TURNED), 1.0),  # (2 - 1)^2 + 0
    (gaussian([0, 0], np.zeros((2, 2))), 2.0),  # to a point
    (gaussian([0, 0], np.diag([1, 0])), 1.0),  # to a line
  ],
)
def test_frechet_distance_values(other, expected):
  for s, t in ((PLAIN, other), (other, PLAIN)):
    np.testing.assert_allclose(frechet_distance(s, t), expected, atol=1e-12)


def test_frechet_distance_of_covariances_that_do_not_commute():
  # By the formula for 2 x 2: tr (ST)^(1/2) = sqrt(tr ST + 2 sqrt(det ST)).
  s, t = np.diag([4.0, 1.0]), np.array(TURNED)
  cross = math.sqrt(np.trace(s @ t) + 2 * math.sqrt(np.linalg.det(s @ t)))
  expected = np.trace(s) + np.trace(t) - 2 * cross
  found = frechet_distance(gaussian([0, 0], s), gaussian([0, 0], t))
  np.testing.assert_allclose(found, expected, rtol=1e-12)
  assert found > 0.1


@pytest.mark.parametrize('counts', [(5, 7), (20, 300), (300, 300)])
def test_frechet_distance_of_few_vectors_in_many_dimensions(counts):
  x, y = draw(0, counts[0], 64), draw(1, counts[1], 64, shift=0.5)
  found = frechet_distance(gather_statistics(x), gather_statistics(y))
  # The nuclear norm says the same, with no square of a small number.
  rows = [
    (z.astype(np.float64) - z.mean(0, np.float64)) / np.sqrt(len(z) - 1)
    for z in (x, y)
  ]
  cross = np.linalg.svd(rows[0] @ rows[1].T, compute_uv=False).sum()
  shift = x.mean(0, np.float64) - y.mean(0, np.float64)
  traces = sum(np.square(each).sum() for each in rows)
  np.testing.assert_allclose(found, shift @ shift + traces - 2 * cross, 1e-9)


def test_frechet_distance_of_equal_singular_sets_is_nothing():
  x = draw(0, 10, 64)
  s = gather_statistics(x)
  assert 0 <= frechet_distance(s, s) < 1e-6 * np.trace(s.covariance)
  same = gather_statistics(np.ones((3, 4)))
  assert frechet_distance(same, same) == 0


def test_statistics_are_those_of_numpy():
  x = draw(0, 50, 6, shift=3)
  found = gather_statistics(x)
  assert found.count == 50
  assert found.covariance.dtype == np.float64
  exact = x.astype(np.float64)
  np.testing.assert_allclose(found.mean, exact.mean(0), rtol=1e-12)
  np.testing.assert_allclose(
    found.covariance, np.cov(exact, rowvar=False), rtol=1e-10
  )


def test_statistics_do_not_depend_on_batches():
  # A mean that is large beside the spread, where sums of squares would fail.
  x = 1e6 + np.random.default_rng(0).normal(size=(50, 6))
  gatherer = StatisticsGatherer()
  for batch in np.split(x, [1, 3, 3, 30]):
    gatherer.add(batch)
  found, whole = gatherer.statistics(), gather_statistics(x)
  assert found.count == 50
  np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-14)
  np.testing.assert_allclose(found.covariance, whole.covariance, atol=1e-8)


def test_statistics_that_were_given_out_stay():
  gatherer = StatisticsGatherer()
  gatherer.add(np.array([[0.0], [2.0]]))
  first = gatherer.statistics()
  gatherer.add(np.array([[7.0]]))
  assert (first.mean[0], first.covariance[0, 0], first.count) == (1, 2, 2)
  assert gatherer.statistics().mean == [3]


def test_kernel_distance_by_hand():
  x, y = np.array([[1.0], [2.0]]), np.array([[0.0], [1.0]])
  # k(x, y) = (x y + 1)^3. Of x with itself: 27, of y: 1; across 1, 8, 1, 27.
  found = kernel_distance(x, y, num_subsets=3)
  np.testing.assert_allclose(found.mean, 27 + 1 - 2 * 37 / 4)
  assert found.std == 0  # every subset is the whole set
  assert (found.subset_size, found.num_subsets) == (2, 3)


def test_kernel_distance_divides_by_the_dimension():
  x = np.array([[1.0, 1.0], [2.0, 0.0]])
  y = np.array([[0.0, 0.0], [0.0, 2.0]])
  # x.x' / 2 = 1, y.y' / 2 = 0; across 0, 1, 0, 0.
  found = kernel_distance(x, y).mean
  np.testing.assert_allclose(found, 8 + 1 - 2 * (1 + 8 + 1 + 1) / 4)


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
  monkeypatch.setattr('cyclegan_jax.metrics.distances._MAX_WHOLE', 50)
  parts = kernel_distance(x, y, subset_size=10, num_subsets=5)
  np.testing.assert_allclose(parts, whole, rtol=1e-10)


@pytest.mark.parametrize(
  'call, message',
  [
    (
      lambda: gather_statistics(np.zeros((1, 3))),
      'a covariance needs at least 2 vectors, not 1',
    ),
    (
      lambda: gather_statistics(np.zeros((0, 3))),
      'a covariance needs at least 2 vectors, not 0',
    ),
    (
      lambda: gather_statistics(np.zeros(3)),
      'features must be [N, D], not [3]',
    ),
    (
      lambda: gather_statistics(np.array([[1.0], [np.nan]])),
      'features must be finite: some are NaN or infinite',
    ),
    (
      lambda: frechet_distance(PLAIN, gaussian([0], [[1]])),
      'features of 2 and of 1 dimensions have no distance',
    ),
    (
      lambda: kernel_distance(np.zeros((4, 2)), np.zeros((4, 3))),
      'features of 2 and of 3 dimensions have no distance',
    ),
    (
      lambda: kernel_distance(np.zeros((4, 2)), np.zeros((1, 2))),
      'a kernel distance needs 2 vectors of each set, not 4 and 1',
    ),
    (
      lambda: kernel_distance(
        np.zeros((4, 2)), np.zeros((4, 2)), subset_size=1
      ),
      'subset_size=1 must be at least 2 and num_subsets=100 at least 1',
    ),
  ],
)
def test_what_has_no_distance(call, message):
  with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
    call()


def test_batches_of_another_dimension():
  gatherer = StatisticsGatherer()
  gatherer.add(np.zeros((2, 3)))
  message = 'features have 4 dimensions, those before 3'
  with pytest.raises(ValueError, match=f'^{message}$'):
    gatherer.add(np.zeros((2, 4)))


@pytest.mark.torch
@pytest.mark.parametrize('counts', [(90, 120), (300, 250)])
def test_distances_are_those_of_torch_fidelity(counts):
  torch = pytest.importorskip('torch')
  fid = fidelity.load_formulas('metric_fid')
  kid = fidelity.load_formulas('metric_kid')
  x, y = draw(0, counts[0], 48), draw(1, counts[1], 48, shift=0.3)
  tensors = [torch.from_numpy(each.astype(np.float64)) for each in (x, y)]
  theirs = fid.fid_statistics_to_metric(
    *(fid.fid_features_to_statistics(each) for each in tensors), verbose=False
  )
  ours = frechet_distance(gather_statistics(x), gather_statistics(y))
  np.testing.assert_allclose(
    ours, theirs['frechet_inception_distance'], rtol=1e-6
  )
  theirs = kid.kid_features_to_metric(
    *tensors, kid_subsets=20, kid_subset_size=50, rng_seed=7, verbose=False
  )
  ours = kernel_distance(x, y, subset_size=50, num_subsets=20, seed=7)
  np.testing.assert_allclose(
    [ours.mean, ours.std],
    [
      theirs['kernel_inception_distance_mean'],
      theirs['kernel_inception_distance_std'],
    ],
    rtol=1e-9,
  )
