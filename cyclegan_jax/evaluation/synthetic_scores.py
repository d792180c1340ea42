"""Scores on the embedded drawings, which come with the truth."""

from typing import NamedTuple

import jax
import numpy as np

from cyclegan_jax import images
from cyclegan_jax.config import Config, DataConfig, Direction
from cyclegan_jax.data.resizing import resize
from cyclegan_jax.data.synthetic.drawings import draw_with_truth
from cyclegan_jax.evaluation.table import (
  Figure,
  Row,
)
from cyclegan_jax.inference import make_translator
from cyclegan_jax.metrics.stripes import (
  CoatScore,
  format_scores,
  score_coat,
)
from cyclegan_jax.types import Params

_BATCH_SIZE = 32


class EmbeddedScore(NamedTuple):
  """Both directions' scores on the test drawings.

  Attributes:
    ab: from horses to zebras.
    ba: from zebras to horses.
    num_images: of each direction, by which they were scored.
  """

  ab: CoatScore
  ba: CoatScore
  num_images: tuple[int, int]

  def __str__(self) -> str:
    return format_scores(self.ab, self.ba)


def score_embedded(
  config: Config, gen: dict[str, Params]
) -> EmbeddedScore | None:
  """Scores translations of the embedded test drawings against the truth.

  Args:
    config: of a run on the embedded data.
    gen: the generators 'ab' and 'ba'.

  Returns:
    The scores over those of the config.data.num_test drawings of each side
    that show some coat and some background; None if a crop leaves none.
  """
  ab, ba = _score(config, gen, 'ab'), _score(config, gen, 'ba')
  if ab is None or ba is None:
    return None
  return EmbeddedScore(ab[0], ba[0], (ab[1], ba[1]))


def true_translation(
  config: DataConfig, direction: Direction, index: int
) -> np.ndarray:
  """A test drawing of the source domain in the other domain's coat.

  Args:
    config: of the embedded data.
    direction: of the translation.
    index: of the test drawing.

  Returns:
    uint8 [size, size, 3].
  """
  drawing = draw_with_truth(
    index, size=config.load_size, domain=direction[0], split='test'
  )
  return resize(drawing.counterpart, config, is_test=True)


def coat_rows(score: EmbeddedScore, direction: Direction) -> list[Row]:
  """The rows of one direction."""
  number = score.num_images[direction == 'ba']
  of = getattr(score, direction)
  # A copy moves no background, and neither does the truth.
  return [
    Row(
      direction,
      name,
      translated=Figure(made, (number,)),
      copy=Figure(copy, (number,)),
      real=Figure(truth, (number,)),
      sources=f'test_{direction[0]} translated',
    )
    for name, made, copy, truth in (
      ('stripes', of.stripes, of.copy_stripes, of.truth_stripes),
      ('background_l1', of.background_l1, 0.0, 0.0),
    )
  ]


def _score(
  config: Config, gen: dict[str, Params], direction: Direction
) -> tuple[CoatScore, int] | None:
  """The score, and the number of drawings that it comes from."""
  drawings = [
    draw_with_truth(
      index, size=config.data.load_size, domain=direction[0], split='test'
    )
    for index in range(config.data.num_test)
  ]
  source, truth, coat = (
    np.stack([resize(each, config.data, is_test=True) for each in column])
    for column in (
      [drawing.image for drawing in drawings],
      [drawing.counterpart for drawing in drawings],
      [np.uint8(255) * drawing.coat[..., None] for drawing in drawings],
    )
  )
  # A crop can leave hardly any coat, or nothing but coat: no truth to tell.
  share = (coat > 0).mean(axis=(1, 2, 3))
  kept = (share > 0.05) & (share < 0.95)
  if not kept.any():
    return None
  source, truth, coat = source[kept], truth[kept], coat[kept]
  real = images.to_float(source)
  translator = make_translator(config, gen, direction, key=jax.random.key(0))
  batches = np.split(real, range(_BATCH_SIZE, len(real), _BATCH_SIZE))
  translated = np.concatenate([translator(batch) for batch in batches])
  score = score_coat(
    real,
    translated,
    images.to_float(truth),
    coat[..., 0] > 0,
    direction=direction,
  )
  return score, len(real)
