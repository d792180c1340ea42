"""Scores by metrics that a plugin registered."""

import numpy as np

from cyclegan_jax import register
from cyclegan_jax.errors import UserError, one_line
from cyclegan_jax.evaluation.results import Figure


class OwnMetric:
  """The mean of a registered metric, added batch by batch."""

  def __init__(self, name: str):
    """Starts without any images.

    Args:
      name: of the registered metric.
    """
    self._name = name
    self._function = register.find('metric', name)
    self._values: list[float] = []
    self._copies: list[float] = []

  def add(self, real: np.ndarray, fake: np.ndarray) -> None:
    """Adds images [B, H, W, C] and their translations [B, H, W, C'].

    Raises:
      UserError: the metric failed, or returned no score for each image.
    """
    self._values += self._score(real, fake)
    if real.shape == fake.shape:
      self._copies += self._score(real, real)

  def figure(self) -> Figure:
    """The mean over all translations."""
    return Figure(float(np.mean(self._values)), (len(self._values),))

  def copy(self) -> Figure | None:
    """The mean over the untranslated images; None if they do not fit."""
    if not self._copies:
      return None
    return Figure(float(np.mean(self._copies)), (len(self._copies),))

  def _score(self, real: np.ndarray, fake: np.ndarray) -> list[float]:
    try:
      scores = np.asarray(self._function(real, fake), np.float64)
    except Exception as error:  # of the user's code
      raise UserError(
        f'the metric {self._name!r} failed: {type(error).__name__}: '
        f'{one_line(error)}'
      ) from error
    if scores.shape != (len(real),):
      raise UserError(
        f'the metric {self._name!r} returned the shape {scores.shape}: return '
        f'a score for each image, ({len(real)},)'
      )
    return scores.tolist()
