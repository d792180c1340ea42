"""Fréchet and kernel distance between two sets of feature vectors.

With features of the FID Inception-v3 they are FID (arXiv:1706.08500) and KID
(arXiv:1801.01401); with other features they have other names. Everything is
computed in float64.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

Array = np.ndarray

# Largest set whose kernel matrices are computed whole, 128 MiB each of three.
_MAX_WHOLE_KERNEL = 4096


class KernelDistance(NamedTuple):
  """Kernel distance over random subsets.

  Attributes:
    mean: mean of the squared distance; about 0 for equal distributions, and
      below 0 by chance, as the estimate is unbiased.
    std: standard deviation over the subsets, divided by their number.
  """

  mean: float
  std: float


def frechet_distance(x: Array, y: Array) -> float:
  """Squared Fréchet distance between Gaussians fitted to two sets.

  |mx - my|^2 + tr S + tr T - 2 tr (S T)^(1/2) with means mx and my and
  covariances S and T, divided by N - 1 and M - 1. Few vectors bias the result
  upward, so compare it at equal counts.

  Args:
    x: [N, D], N at least 2.
    y: [M, D], M at least 2.

  Returns:
    At least 0.

  Raises:
    ValueError: the sets have fewer than 2 vectors, different D, or values
      that are not finite.
  """
  x, y = _check_features(x, y)
  root_x, root_y = _covariance_root(x), _covariance_root(y)
  # S = A^T A and T = B^T B: the eigenvalues of S T are the squared singular
  # values of A B^T, which stays exact where a covariance is singular.
  cross = scipy.linalg.svdvals(root_x @ root_y.T).sum()
  traces = np.square(root_x).sum() + np.square(root_y).sum()
  shift = x.mean(axis=0) - y.mean(axis=0)
  return max(0.0, float(shift @ shift + traces - 2 * cross))


def kernel_distance(
  x: Array,
  y: Array,
  *,
  subset_size: int = 1000,
  num_subsets: int = 100,
  seed: int = 0,
) -> KernelDistance:
  """Squared maximum mean discrepancy with k(x, y) = (x.y / D + 1)^3.

  The unbiased estimate over random subsets of both sets, each drawn without
  replacement: the conventions of KID, and the draws of torch-fidelity.

  Args:
    x: [N, D], N at least 2.
    y: [M, D], M at least 2.
    subset_size: vectors in a subset, at most N and M.
    num_subsets: number of subsets.
    seed: random seed of the subsets.

  Raises:
    ValueError: the sets have fewer than 2 vectors, different D, or values
      that are not finite.
  """
  x, y = _check_features(x, y)
  size = min(subset_size, len(x), len(y))
  # The legacy generator, as torch-fidelity draws from it.
  random = np.random.RandomState(seed)
  subsets = [
    (
      random.choice(len(x), size, replace=False),
      random.choice(len(y), size, replace=False),
    )
    for _ in range(num_subsets)
  ]
  if max(len(x), len(y)) <= _MAX_WHOLE_KERNEL:
    values = _discrepancies(x, y, subsets)
  else:
    everything = [(slice(None), slice(None))]
    values = np.concatenate(
      [_discrepancies(x[i], y[j], everything) for i, j in subsets]
    )
  return KernelDistance(float(np.mean(values)), float(np.std(values)))


def _covariance_root(features: Array) -> Array:
  """A matrix A [at most D, D], or centered vectors, with A^T A = covariance."""
  centered = features - features.mean(axis=0)
  root = centered / np.sqrt(len(features) - 1)
  if len(root) > root.shape[1]:
    root = np.asarray(np.linalg.qr(root, mode='r'))
  return root


def _discrepancies(
  x: Array, y: Array, subsets: Sequence[tuple[Any, Any]]
) -> Array:
  """Unbiased discrepancy of each subset, without pairs of equal vectors.

  Each pair is in many subsets, so the kernel of all pairs is computed once,
  and summed over a subset as u K v with indicators u and v of its members.
  """
  u, v = np.zeros((len(x), len(subsets))), np.zeros((len(y), len(subsets)))
  for column, (i, j) in enumerate(subsets):
    u[i, column] = v[j, column] = 1
  xx, xy, yy = _kernel(x, x), _kernel(x, y), _kernel(y, y)
  within = (u * (xx @ u)).sum(0) + (v * (yy @ v)).sum(0)
  within -= np.diag(xx) @ u + np.diag(yy) @ v
  size = u.sum(0)
  return within / (size * (size - 1)) - 2 * (u * (xy @ v)).sum(0) / size**2


def _kernel(x: Array, y: Array) -> Array:
  value = x @ y.T / x.shape[1] + 1
  return value * value * value  # ten times as fast as a power


def _check_features(x: Array, y: Array) -> tuple[Array, Array]:
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
    raise ValueError(
      f'features must be [N, D] and [M, D], not {list(x.shape)} and '
      f'{list(y.shape)}'
    )
  if min(len(x), len(y)) < 2:
    raise ValueError(
      f'distances need at least 2 vectors, not {len(x)} and {len(y)}'
    )
  if not (np.isfinite(x).all() and np.isfinite(y).all()):
    raise ValueError('features have NaN or infinite values')
  return x, y
