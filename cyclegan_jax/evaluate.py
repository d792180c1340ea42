"""Scores of a run's translators."""

from cyclegan_jax.config import Config
from cyclegan_jax.types import Params


def score(config: Config, gen: dict[str, Params]) -> str:
  """The score of the translations in words, '' where there is no truth."""
  return ''
