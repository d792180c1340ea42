"""Scores of translated drawings: stripes on the animal, background unchanged.

The drawings of `data.synthetic` come with the true translation and a mask of
the animal's coat. So two absolute scores are possible: how much of a zebra's
stripes the coat has, and how much the background changed.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from cyclegan_jax.config import Direction

Array = np.ndarray

# Widths of the band-pass filter's two Gaussians, and of the mask's rim that is
# not scored, as fractions of the image. The period of the drawings' stripes is
# 0.07 to 0.1.
_FINE = 0.010
_COARSE = 0.045
_RIM = 0.015

_LUMINANCE = np.array([0.299, 0.587, 0.114])


class StripesScore(NamedTuple):
  """Means over a set of translated drawings.

  Attributes:
    background_l1: mean |translated - source| outside the mask, as a fraction
      of the images' range: 0 for an unchanged background.
    stripes: strength of the translations' stripes relative to the striped
      drawing of each pair: 1 for a zebra, near 0 for a horse.
    copy_stripes: the same of the source, an untranslated copy.
    truth_stripes: the same of the counterpart, a perfect translation.
    num_images: number of drawings.
  """

  background_l1: float
  stripes: float
  copy_stripes: float
  truth_stripes: float
  num_images: int

  def __str__(self) -> str:
    return (
      f'stripes {self.stripes:.2f} (untranslated {self.copy_stripes:.2f}, '
      f'perfect {self.truth_stripes:.2f}), background off by '
      f'{100 * self.background_l1:.1f}% (perfect 0.0%)'
    )


def score_stripes(
  source: Array,
  translated: Array,
  counterpart: Array,
  mask: Array,
  *,
  direction: Direction,
) -> StripesScore:
  """Scores translations of drawings.

  The strength of stripes is the root mean square of luminance (Rec. 601)
  inside the mask, without its rim, after a band-pass filter: the difference of
  two Gaussians with widths of 0.010 and 0.045 of the image. This is about the
  stripes' scale, so color, shading and pixel noise hardly count. Both
  Gaussians average inside the mask only, so the background does not leak in.
  The strength does not depend on where the stripes lie, which a translator
  cannot know, nor does it tell stripes from spots of their size. It is linear
  in contrast. Each image's strength is divided by that of the striped drawing
  of its pair, the counterpart for 'ab' and the source for 'ba'.

  Args:
    source: float [N, H, W, 3] in [-1, 1], the drawings.
    translated: float [N, H, W, 3] in [-1, 1].
    counterpart: float [N, H, W, 3] in [-1, 1], the true translations.
    mask: bool [N, H, W], pixels that show any of the coat. Each image needs
      some inside and some outside.
    direction: 'ab', horse to zebra, or 'ba'.

  Returns:
    Means over the images.

  Raises:
    ValueError: the striped drawings do not have more stripes than the plain
      ones.
  """
  # The range of [-1, 1] is 2: halved, a difference is a fraction of it.
  images = [
    array.astype(np.float64) / 2 for array in (source, translated, counterpart)
  ]
  background = ~mask
  change = np.abs(images[1] - images[0]).mean(axis=-1)
  background_l1 = (change * background).sum((1, 2)) / background.sum((1, 2))
  inner = np.stack([_without_rim(each) for each in mask])
  strengths = [_stripe_strength(each, inner) for each in images]
  striped, plain = strengths[::-2] if direction == 'ab' else strengths[::2]
  # Of the whole set: at 8 pixels a single pair can miss its own stripes.
  if not striped.mean() > plain.mean():
    raise ValueError(
      f'direction={direction!r} does not fit: the drawings that should be '
      'plain have more stripes'
    )
  striped = np.maximum(striped, 1e-6)
  copied, stripes, truth = (
    float(np.mean(strength / striped)) for strength in strengths
  )
  return StripesScore(
    background_l1=float(background_l1.mean()),
    stripes=stripes,
    copy_stripes=copied,
    truth_stripes=truth,
    num_images=len(mask),
  )


def _stripe_strength(images: Array, mask: Array) -> Array:
  """Root mean square [N] of the band-passed luminance inside the mask."""
  luminance = images @ _LUMINANCE
  fine, coarse = (
    _masked_blur(luminance, mask, width * images.shape[1])
    for width in (_FINE, _COARSE)
  )
  band = np.where(mask, fine - coarse, 0.0)
  return np.sqrt(np.square(band).sum((1, 2)) / mask.sum((1, 2)))


def _masked_blur(luminance: Array, mask: Array, sigma: float) -> Array:
  """Gaussian means [N, H, W] over the pixels inside the mask."""
  axes = (1, 2)
  weights = ndimage.gaussian_filter(mask.astype(np.float64), sigma, axes=axes)
  total = ndimage.gaussian_filter(
    np.where(mask, luminance, 0.0), sigma, axes=axes
  )
  return total / np.maximum(weights, 1e-9)


def _without_rim(mask: Array) -> Array:
  """Erodes a mask by its antialiased rim, unless nothing would be left."""
  pixels = max(1, round(_RIM * mask.shape[0]))
  inner = ndimage.binary_erosion(mask, iterations=pixels)
  return inner if inner.any() else mask
