"""Drawn horses and zebras: a small data set without files or downloads.

Domain a holds brown horses, domain b striped zebras, on grass under a sky.
Shapes are signed distances in a unit square, so an index is the same scene at
any size. Unlike photographs, drawings come with the true translation: the
same scene with the other coat, and a mask of the coat.
"""

import dataclasses

import numpy as np

from cyclegan_jax.data.synthetic.animal import paint_animal
from cyclegan_jax.data.synthetic.canvas import (
  Canvas,
  Limb,
  between,
  blend,
  disc,
  point,
)

Array = np.ndarray

# To be raised whenever the bytes of a drawing change.
VERSION = 1
MIN_SIZE = 8
MAX_SIZE = 1024
DOMAINS = ('a', 'b')
SPLITS = ('train', 'test')

# Colors at the zenith and at the horizon; a scene blends two neighbors.
_SKIES = np.array(
  [
    [[0.30, 0.55, 0.88], [0.78, 0.90, 0.98]],
    [[0.42, 0.68, 0.92], [0.96, 0.94, 0.86]],
    [[0.50, 0.58, 0.82], [0.99, 0.80, 0.68]],
    [[0.60, 0.68, 0.76], [0.87, 0.90, 0.91]],
    [[0.26, 0.62, 0.80], [0.80, 0.95, 0.92]],
  ]
)
_GRASS = np.array([[0.36, 0.58, 0.24], [0.52, 0.62, 0.26], [0.24, 0.50, 0.28]])
_FLOWERS = np.array(
  [[0.98, 0.85, 0.30], [0.97, 0.95, 0.92], [0.90, 0.45, 0.50]]
)


@dataclasses.dataclass(frozen=True)
class Drawing:
  """A drawing and its true translation.

  Attributes:
    image: uint8 [size, size, 3], drawing of the requested domain.
    counterpart: uint8 [size, size, 3], the same scene with the coat of the
      other domain; equal to `image`, byte for byte, outside the mask.
    mask: bool [size, size], pixels that show any of the coat.
  """

  image: Array
  counterpart: Array
  mask: Array


def draw(
  index: int, *, size: int, domain: str, split: str, seed: int = 0
) -> Array:
  """Draws one image.

  Every (index, domain, split, seed) is a scene of its own, so images of a and
  b with equal indices are not pairs. Equal arguments give equal bytes in every
  process; another size gives the same scene.

  Args:
    index: index of the drawing, from 0.
    size: height and width in pixels, 8 to 1024.
    domain: 'a' for a brown horse, 'b' for a zebra.
    split: 'train' or 'test'.
    seed: random seed of the data set, from 0.

  Returns:
    uint8 [size, size, 3].

  Raises:
    ValueError: an argument is out of range.
  """
  images, _ = _draw_scene(index, size, domain, split, seed, domains=domain)
  return images[0]


def draw_with_truth(
  index: int, *, size: int, domain: str, split: str, seed: int = 0
) -> Drawing:
  """Draws the image of `draw` with its true translation and mask.

  Raises:
    ValueError: an argument is out of range.
  """
  domains = domain + ('b' if domain == 'a' else 'a')
  images, mask = _draw_scene(index, size, domain, split, seed, domains=domains)
  return Drawing(image=images[0], counterpart=images[1], mask=mask)


def _draw_scene(
  index: int, size: int, domain: str, split: str, seed: int, *, domains: str
) -> tuple[Array, Array]:
  """Draws [len(domains), size, size, 3] versions of a scene, and its mask."""
  _check_arguments(index, size, domain, split, seed)
  # The seed comes last, as it may take more than one word of the entropy.
  scene = (index, SPLITS.index(split), DOMAINS.index(domain), seed)
  rng = np.random.default_rng(scene)
  canvas = Canvas(size, len(domains))
  side = -1 if rng.random() < 0.5 else 1
  light = np.array([side * between(rng, 0.35, 0.8), -0.65])
  _paint_background(canvas, rng, light)
  paint_animal(canvas, rng, light, domains)
  warmth = between(rng, -0.06, 0.06)
  exposure = between(rng, 0.88, 1.08) * np.array([1 + warmth, 1, 1 - warmth])
  pixels = np.rint(255 * np.clip(canvas.images * exposure, 0, 1))
  return pixels.astype(np.uint8), canvas.mask > 0


def _check_arguments(
  index: int, size: int, domain: str, split: str, seed: int
) -> None:
  for name, value, choices in (
    ('domain', domain, DOMAINS),
    ('split', split, SPLITS),
  ):
    if value not in choices:
      raise ValueError(f'{name}={value!r} is unknown: {" or ".join(choices)}')
  for name, number, low, high in (
    ('index', index, 0, 2**32 - 1),
    ('size', size, MIN_SIZE, MAX_SIZE),
    ('seed', seed, 0, 2**63 - 1),
  ):
    if not low <= number <= high:
      raise ValueError(f'{name}={number} is out of range: {low} to {high}')


def _paint_background(
  canvas: Canvas, rng: np.random.Generator, light: Array
) -> None:
  """Paints sky, clouds, hills, trees, grass and flowers."""
  frame = canvas.frame
  x, y, _ = frame
  horizon = between(rng, 0.36, 0.6)
  zenith, haze = blend(rng, _SKIES)
  height = np.clip(y / horizon, 0, 1)
  canvas.paint(np.ones((1, 1)), zenith + (haze - zenith) * height[..., None])
  for _ in range(int(between(rng, 0, 4))):
    _paint_cloud(canvas, rng, horizon)
  grass = blend(rng, _GRASS) * between(rng, 0.85, 1.1)
  for layer in range(int(between(rng, 1, 3))):
    rise = between(rng, 0.03, 0.15) * (1 - 0.45 * layer)
    phase, waves = between(rng, 0, 6.28), between(rng, 3, 9)
    ridge = np.sin(waves * x + phase) + 0.4 * np.sin(2.3 * waves * x - phase)
    tone = 0.85 * grass
    tone = tone + (haze - tone) * (0.5 - 0.22 * layer)
    above = horizon - rise * (1 + 0.6 * ridge) - y
    canvas.paint(canvas.cover(above, frame), tone)
  for _ in range(max(0, int(between(rng, -1, 4)))):
    _paint_tree(canvas, rng, horizon, light, grass)
  depth = np.clip((y - horizon) / (1 - horizon), 0, 1)
  texture = 0.09 * canvas.noise(rng, 7, 9) + 0.10 * canvas.noise(rng, 20, 20)
  texture = texture + 0.16 * canvas.noise(rng, 90, 40)
  shade = 1.06 - 0.16 * depth + texture * (0.35 + 0.65 * depth)
  above = horizon + 0.01 * np.sin(5 * x) - y
  canvas.paint(canvas.cover(above, frame), grass * shade[..., None])
  flower = _FLOWERS[int(between(rng, 0, len(_FLOWERS)))]
  for _ in range(max(0, int(between(rng, -6, 12)))):
    place = point(rng.random(), between(rng, horizon + 0.08, 1))
    radius = 0.006 + 0.010 * (place[1] - horizon)
    canvas.fill([disc(place, radius)], flower, frame)


def _paint_cloud(
  canvas: Canvas, rng: np.random.Generator, horizon: float
) -> None:
  center = point(rng.random(), between(rng, 0.05, horizon - 0.12))
  size = between(rng, 0.04, 0.08)
  puffs = []
  for shift in (-1.3, -0.4, 0.5, 1.4):
    radius = size * between(rng, 0.6, 1.0) * (1 - 0.25 * abs(shift))
    puffs.append(disc(center + point(size * shift, 0), radius))
  white, opacity = np.array([1.0, 0.99, 0.97]), between(rng, 0.6, 0.95)
  floor = center[1] + 0.25 * size
  canvas.fill(puffs, white, canvas.frame, opacity=opacity, floor=floor)


def _paint_tree(
  canvas: Canvas,
  rng: np.random.Generator,
  horizon: float,
  light: Array,
  grass: Array,
) -> None:
  size = between(rng, 0.05, 0.09)
  foot = point(rng.random(), horizon + between(rng, 0.01, 0.03))
  crown = foot - point(0, 2 * size)
  trunk = Limb(foot, crown, 0.16 * size, 0.12 * size)
  canvas.fill([trunk], np.array([0.36, 0.26, 0.20]), canvas.frame)
  leaves = grass * between(rng, 0.5, 0.75)
  # The second, smaller round of discs is the crown's lit side.
  for radius, shift, color in ((1, 0, leaves), (0.7, 0.35, leaves * 1.25)):
    discs = [
      disc(crown + size * (point(*offset) + shift * light), 0.8 * size * radius)
      for offset in ((-0.6, 0.25), (0.6, 0.2), (0, -0.5))
    ]
    canvas.fill(discs, color, canvas.frame)
