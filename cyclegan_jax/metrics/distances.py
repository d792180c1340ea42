"""Distances between two sets of feature vectors: Fréchet and kernel.

With features of the FID Inception-v3 they are FID (arXiv:1706.08500) and KID
(arXiv:1801.01401); with any others they bear other names. All of it is NumPy
in float64: the matrices are small, and their square roots need the digits.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

Array = np.ndarray

# The largest set whose kernel is computed whole, 128 MiB each of three.
_MAX_WHOLE = 4096


class Statistics(NamedTuple):
  """What the Fréchet distance needs to know of a set.

  Attributes:
    mean: float64 [D].
    covariance: float64 [D, D], divided by count - 1.
    count: of vectors.
  """

  mean: Array
  covariance: Array
  count: int  # type: ignore[assignment]  # not the tuple's method


class KernelDistance(NamedTuple):
  """A mean over subsets, and how far these spread.

  Attributes:
    mean: of the squared distance; about 0 for equal distributions, and below
      0 by chance, as the estimate is unbiased.
    std: standard deviation over the subsets, divided by their number.
    subset_size: vectors in a subset: what was asked for or, if that was less,
      the size of the smaller set.
    num_subsets: of each set.
  """

  mean: float
  std: float
  subset_size: int
  num_subsets: int


class StatisticsGatherer:
  """Statistics of features that come in batches and need not be kept."""

  def __init__(self) -> None:
    self._count = 0
    self._mean: Array | None = None
    self._scatter: Array | None = None

  def add(self, features: Array) -> None:
    """Takes a batch in (Chan et al. 1979: exact however means differ).

    Args:
      features: [N, D], any N.

    Raises:
      ValueError: it is no [N, D], has another D, or a value is not finite.
    """
    x = _checked(features)
    if len(x) == 0:
      return
    mean = x.mean(axis=0)
    centred = x - mean
    scatter = centred.T @ centred
    if self._mean is None or self._scatter is None:
      self._count, self._mean, self._scatter = len(x), mean, scatter
      return
    if len(mean) != len(self._mean):
      raise ValueError(
        f'features have {len(mean)} dimensions, those before {len(self._mean)}'
      )
    count = self._count + len(x)
    shift = mean - self._mean
    weight = self._count * len(x) / count
    self._scatter += scatter + weight * np.outer(shift, shift)
    self._mean = self._mean + shift * (len(x) / count)
    self._count = count

  def statistics(self) -> Statistics:
    """The statistics of all batches so far.

    Raises:
      ValueError: there are fewer than two vectors.
    """
    if self._mean is None or self._scatter is None or self._count < 2:
      raise ValueError(
        f'a covariance needs at least 2 vectors, not {self._count}'
      )
    covariance = self._scatter / (self._count - 1)
    return Statistics(self._mean.copy(), covariance, self._count)


def gather_statistics(features: Array) -> Statistics:
  """Mean and covariance of a set.

  Args:
    features: [N, D], N at least 2.

  Returns:
    In float64.

  Raises:
    ValueError: there are fewer than two vectors, or a value is not finite.
  """
  gatherer = StatisticsGatherer()
  gatherer.add(features)
  return gatherer.statistics()


def frechet_distance(s: Statistics, t: Statistics) -> float:
  """Squared Fréchet distance between two Gaussians.

  |ms - mt|^2 + tr S + tr T - 2 tr (S T)^(1/2). With S = A^T A, the product
  S T has the eigenvalues of the symmetric A T A^T, whose roots are real. A
  covariance of fewer vectors than dimensions is singular: A then has as many
  rows as its rank, what rounding leaves beyond is dropped, and nothing is
  added to the diagonal. The result is defined, but biased upwards as ever
  with few vectors: compare at equal counts.

  Args:
    s: of one set.
    t: of the other.

  Returns:
    At least 0. Rounding leaves about 1e-7 of the traces for equal sets.

  Raises:
    ValueError: the dimensions differ.
  """
  if s.mean.shape != t.mean.shape:
    raise ValueError(
      f'features of {len(s.mean)} and of {len(t.mean)} dimensions have no '
      'distance'
    )
  # The root of lower rank makes the smaller matrix.
  if s.count > t.count:
    s, t = t, s
  root = _root(s.covariance)
  values = scipy.linalg.eigvalsh(root @ t.covariance @ root.T)
  cross = np.sqrt(np.clip(values, 0, None)).sum() if len(values) else 0.0
  shift = s.mean - t.mean
  traces = np.trace(s.covariance) + np.trace(t.covariance)
  return max(0.0, float(shift @ shift + traces - 2 * cross))


def kernel_distance(
  x: Array,
  y: Array,
  *,
  subset_size: int = 1000,
  num_subsets: int = 100,
  seed: int = 0,
) -> KernelDistance:
  """Squared maximum mean discrepancy under k(x, y) = (x.y / D + 1)^3.

  The unbiased estimate, over random subsets of both sets, each without
  replacement: the conventions of KID and, to the draw of the subsets from
  `seed`, of torch-fidelity.

  Args:
    x: [N, D].
    y: [M, D].
    subset_size: lowered to the smaller of N and M, which the result tells. A
      subset that is its whole set has no spread.
    num_subsets: to average over.
    seed: of the subsets.

  Returns:
    The mean and its spread.

  Raises:
    ValueError: the dimensions differ, a value is not finite, a set has fewer
      than 2 vectors, or a size makes no sense.
  """
  x, y = _checked(x), _checked(y)
  if x.shape[1] != y.shape[1]:
    raise ValueError(
      f'features of {x.shape[1]} and of {y.shape[1]} dimensions have no '
      'distance'
    )
  if min(len(x), len(y)) < 2:
    raise ValueError(
      f'a kernel distance needs 2 vectors of each set, not {len(x)} and '
      f'{len(y)}'
    )
  if subset_size < 2 or num_subsets < 1:
    raise ValueError(
      f'subset_size={subset_size} must be at least 2 and '
      f'num_subsets={num_subsets} at least 1'
    )
  size = min(subset_size, len(x), len(y))
  subsets = list(_draw_subsets(len(x), len(y), size, num_subsets, seed))
  if max(len(x), len(y)) <= _MAX_WHOLE:
    found = _discrepancies(x, y, subsets)
  else:
    whole = (slice(None), slice(None))
    found = np.concatenate(
      [_discrepancies(x[i], y[j], [whole]) for i, j in subsets]
    )
  return KernelDistance(
    float(np.mean(found)), float(np.std(found)), size, num_subsets
  )


def _draw_subsets(
  num_x: int, num_y: int, size: int, num_subsets: int, seed: int
) -> Iterator[tuple[Array, Array]]:
  # The old generator, as torch-fidelity draws from it.
  random = np.random.RandomState(seed)
  for _ in range(num_subsets):
    i = random.choice(num_x, size, replace=False)
    j = random.choice(num_y, size, replace=False)
    yield i, j


def _discrepancies(
  x: Array, y: Array, subsets: Sequence[tuple[Any, Any]]
) -> Array:
  """Unbiased, of each subset: no vector meets itself (section 4 of KID's).

  The kernel of all pairs is computed once, as each is in many subsets, and
  summed over a subset as u K v, u and v being 1 for its members and else 0.
  """
  u, v = np.zeros((len(x), len(subsets))), np.zeros((len(y), len(subsets)))
  for place, (i, j) in enumerate(subsets):
    u[i, place] = v[j, place] = 1
  xx, xy, yy = _kernel(x, x), _kernel(x, y), _kernel(y, y)
  own = (u * (xx @ u)).sum(0) + (v * (yy @ v)).sum(0)
  own -= np.diag(xx) @ u + np.diag(yy) @ v
  size = u.sum(0)
  return own / (size * (size - 1)) - 2 * (u * (xy @ v)).sum(0) / size**2


def _kernel(x: Array, y: Array) -> Array:
  value = x @ y.T / x.shape[1] + 1
  return value * value * value  # ten times as fast as a power


def _root(covariance: Array) -> Array:
  """A matrix A [rank, D] with A^T A the covariance.

  Cholesky's with pivots, which stops at the rank: for a hundred vectors in
  thousands of dimensions in no time, unlike eigenvectors.
  """
  upper, pivots, rank, _ = scipy.linalg.lapack.dpstrf(covariance)
  root = np.zeros((rank, len(covariance)))
  root[:, pivots - 1] = np.triu(upper)[:rank]
  return root


def _checked(features: Array) -> Array:
  x = np.asarray(features, np.float64)
  if x.ndim != 2 or x.shape[1] == 0:
    raise ValueError(f'features must be [N, D], not {list(x.shape)}')
  if not np.isfinite(x).all():
    raise ValueError('features must be finite: some are NaN or infinite')
  return x
