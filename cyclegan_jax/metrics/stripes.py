"""Scores of translated drawings: did the coat change, and only the coat?

The drawings of `data.embedded` come with the truth, so that a run on them can
end with numbers that mean something by themselves: how much of a zebra's
stripes the coat now has, and how far the background moved.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from cyclegan_jax.config import Direction

Array = np.ndarray

# Widths of the band's two Gaussians and of the rim that is left out, as
# shares of the image. The drawings' stripes have a period of 0.07 to 0.1.
_FINE = 0.010
_COARSE = 0.045
_RIM = 0.015

_LUMINANCE = np.array([0.299, 0.587, 0.114])


class CoatScore(NamedTuple):
  """Means over a set of translated drawings.

  Attributes:
    background_l1: mean |translated - source| off the coat, as a share of the
      images' range: 0 is untouched (a copy, and the truth), 1 is black turned
      white.
    stripes: stripes on the translated coat over those of the striped drawing
      of the pair; 1 is a zebra, near 0 a horse.
    copy_stripes: the same of the source, a copy of which is no translation.
    truth_stripes: the same of the counterpart, the perfect translation.
  """

  background_l1: float
  stripes: float
  copy_stripes: float
  truth_stripes: float


def score_coat(
  source: Array,
  translated: Array,
  counterpart: Array,
  coat: Array,
  *,
  direction: Direction,
) -> CoatScore:
  """Scores translations of drawings of `data.embedded`.

  The strength of stripes is the root mean square, over the coat without its
  rim, of luminance (Rec. 601) in the band between two Gaussians, with widths
  of 0.010 and 0.045 of the image's: about the stripes' own scale, so neither
  a coat's colour, nor its shading, nor a pixel's noise counts for much. Both
  Gaussians average over the coat alone, so the background does not leak in.
  A square mean does not depend on where the stripes lie, which a translator
  can't know; nor does it tell stripes from spots of their scale. It is linear
  in contrast: stripes of half the contrast score 0.5. Each image is divided
  by the striped one of its own pair, the counterpart for 'ab' and the source
  for 'ba'.

  Args:
    source: float [N, H, W, 3] in [-1, 1], what was translated.
    translated: float [N, H, W, 3] in [-1, 1].
    counterpart: float [N, H, W, 3] in [-1, 1], the source's drawing in the
      other coat.
    coat: bool [N, H, W], the pixels that show any of the coat.
    direction: 'ab', horse to zebra, or 'ba'.

  Returns:
    Means over the images.

  Raises:
    ValueError: shapes or types do not fit, an image has no coat or no
      background, or the striped drawing is not where direction has it.
  """
  if direction not in ('ab', 'ba'):
    raise ValueError(f"direction={direction!r} is unknown: 'ab' or 'ba'")
  source, translated, counterpart, coat = (
    np.asarray(each) for each in (source, translated, counterpart, coat)
  )
  _check_arrays(source, translated, counterpart, coat)
  # The range of [-1, 1] is 2: in halves a difference is a share of it.
  images = [
    each.astype(np.float64) / 2 for each in (source, translated, counterpart)
  ]
  background = ~coat
  moved = np.abs(images[1] - images[0]).mean(axis=-1)
  share = (moved * background).sum((1, 2)) / background.sum((1, 2))
  inner = np.stack([_without_rim(each) for each in coat])
  strengths = [_stripe_strength(each, inner) for each in images]
  striped, plain = strengths[::-2] if direction == 'ab' else strengths[::2]
  # Of the whole set: at 8 pixels a single pair can miss its own stripes.
  if not striped.mean() > plain.mean():
    names = ('counterpart', 'source')
    more, less = names if direction == 'ab' else names[::-1]
    raise ValueError(
      f'direction={direction!r} needs a {more} with more stripes than the '
      f'{less}: swap the images or the direction'
    )
  striped = np.maximum(striped, 1e-6)
  copied, stripes, truth = (
    float(np.mean(each / striped)) for each in strengths
  )
  return CoatScore(
    background_l1=float(share.mean()),
    stripes=stripes,
    copy_stripes=copied,
    truth_stripes=truth,
  )


def format_scores(ab: CoatScore, ba: CoatScore) -> str:
  """Two lines for people: each direction between a copy and the truth."""
  return '\n'.join(
    f'{name}: stripes {score.stripes:.2f} (untranslated '
    f'{score.copy_stripes:.2f}, perfect {score.truth_stripes:.2f}), '
    f'background off by {100 * score.background_l1:.1f}% (perfect 0.0%)'
    for name, score in (('a -> b', ab), ('b -> a', ba))
  )


def _stripe_strength(images: Array, inner: Array) -> Array:
  """Root mean square of the band on the inner coat, [N]."""
  light = images @ _LUMINANCE
  fine, coarse = (
    _mean_on(light, inner, share * images.shape[1])
    for share in (_FINE, _COARSE)
  )
  band = np.where(inner, fine - coarse, 0.0)
  return np.sqrt(np.square(band).sum((1, 2)) / inner.sum((1, 2)))


def _mean_on(light: Array, mask: Array, sigma: float) -> Array:
  """Gaussian means over the mask's pixels alone, [N, H, W]."""
  widths = (0, sigma, sigma)
  weights = ndimage.gaussian_filter(mask.astype(np.float64), widths)
  total = ndimage.gaussian_filter(np.where(mask, light, 0.0), widths)
  return total / np.maximum(weights, 1e-9)


def _without_rim(coat: Array) -> Array:
  """The coat without its antialiased rim; all of it where nothing is left."""
  pixels = max(1, round(_RIM * coat.shape[0]))
  inner = ndimage.binary_erosion(coat, iterations=pixels)
  return inner if inner.any() else coat


def _check_arrays(
  source: Array, translated: Array, counterpart: Array, coat: Array
) -> None:
  for name, each in (
    ('source', source),
    ('translated', translated),
    ('counterpart', counterpart),
  ):
    if each.ndim != 4 or each.shape[-1] != 3 or each.shape != source.shape:
      raise ValueError(
        f'{name} is {list(each.shape)}: all three must be one [N, H, W, 3]'
      )
    if each.dtype.kind in 'iub':
      raise ValueError(
        f'{name} is of {each.dtype}: images must be floats in [-1, 1]'
      )
  if coat.dtype != np.bool_ or coat.shape != source.shape[:3]:
    raise ValueError(
      f'coat is {coat.dtype} {list(coat.shape)}: it must be bool '
      f'{list(source.shape[:3])}'
    )
  shares = coat.mean(axis=(1, 2))
  if len(shares) == 0 or shares.min() == 0 or shares.max() == 1:
    raise ValueError('every image needs some coat and some background')
