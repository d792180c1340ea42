"""Scores of translations of the synthetic drawings, whose truth is known."""

from typing import NamedTuple

import jax
import numpy as np

from cyclegan_jax import images as pixels
from cyclegan_jax.config import Config, DataConfig, Direction
from cyclegan_jax.data.resizing import resize
from cyclegan_jax.data.synthetic.drawings import Drawing, draw_with_truth
from cyclegan_jax.evaluation.results import Figure, Row
from cyclegan_jax.inference import make_translator
from cyclegan_jax.metrics.stripes import StripesScore, score_stripes
from cyclegan_jax.types import Params

_BATCH_SIZE = 32


class DrawingScores(NamedTuple):
  """Both directions' scores on the test drawings.

  Attributes:
    ab: scores from horses to zebras.
    ba: scores from zebras to horses.
    data: config of the drawings, for their names.
  """

  ab: StripesScore
  ba: StripesScore
  data: DataConfig

  def __str__(self) -> str:
    ab, ba = (self.data.way(each, ' -> ') for each in ('ab', 'ba'))
    return f'{ab}: {self.ab}\n{ba}: {self.ba}'

  def rows(self, direction: Direction) -> list[Row]:
    """The rows of one direction."""
    score: StripesScore = getattr(self, direction)
    return [
      Row(
        direction,
        metric,
        translated=Figure(translated, (score.num_images,)),
        copy=Figure(copy, (score.num_images,)),
        real=Figure(truth, (score.num_images,)),
        sources=f'test_{direction[0]} translated',
      )
      for metric, translated, copy, truth in (
        (
          'stripes',
          score.stripes,
          score.copy_stripes,
          score.truth_stripes,
        ),
        # Neither a copy nor the truth changes the background.
        ('background_l1', score.background_l1, 0.0, 0.0),
      )
    ]


def score_drawings(
  config: Config, gen: dict[str, Params]
) -> DrawingScores | None:
  """Scores translations of the test drawings against the truth.

  Args:
    config: config of a run on the drawings.
    gen: parameters of the generators 'ab' and 'ba'.

  Returns:
    The scores over the test drawings that show some of the animal's coat and
    some background; None if crops leave no such drawing.
  """
  ab = _score_direction(config, gen, 'ab')
  ba = _score_direction(config, gen, 'ba')
  return (
    None if ab is None or ba is None else DrawingScores(ab, ba, config.data)
  )


def true_translation(
  config: DataConfig, direction: Direction, index: int
) -> np.ndarray:
  """The counterpart of a test drawing, as the networks see images.

  Args:
    config: config of the drawings.
    direction: direction of the translation.
    index: index of the test drawing.

  Returns:
    uint8 [size, size, 3].
  """
  drawing = _draw_test(config, direction, index)
  return resize(drawing.counterpart, config, is_test=True)


def _draw_test(config: DataConfig, direction: Direction, index: int) -> Drawing:
  return draw_with_truth(
    index, size=config.size_before_crop, domain=direction[0], split='test'
  )


def _score_direction(
  config: Config, gen: dict[str, Params], direction: Direction
) -> StripesScore | None:
  data = config.data
  drawings = [
    _draw_test(data, direction, index) for index in range(data.num_test)
  ]
  source, truth, mask = (
    np.stack([resize(image, data, is_test=True) for image in column])
    for column in (
      [drawing.image for drawing in drawings],
      [drawing.counterpart for drawing in drawings],
      [np.uint8(255) * drawing.mask[..., None] for drawing in drawings],
    )
  )
  # A crop can leave hardly any of the coat, or nothing else.
  share = (mask > 0).mean(axis=(1, 2, 3))
  scored = (share > 0.05) & (share < 0.95)
  if not scored.any():
    return None
  source, truth, mask = source[scored], truth[scored], mask[scored]
  real = pixels.to_float(source)
  translator = make_translator(config, gen, direction, key=jax.random.key(0))
  batches = np.split(real, range(_BATCH_SIZE, len(real), _BATCH_SIZE))
  translated = np.concatenate([translator(batch) for batch in batches])
  return score_stripes(
    real,
    translated,
    pixels.to_float(truth),
    mask[..., 0] > 0,
    direction=direction,
  )
