"""Canvas for antialiased shapes given by signed distances.

The canvas is the unit square at any number of pixels: x points right, y points
down, and lengths are fractions of the image's side. Colors are RGB in [0, 1].
"""

import math
from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Limb(NamedTuple):
  """A cone with round ends from one point to another, or a disc."""

  start: Array
  end: Array
  start_radius: float
  end_radius: float


class Frame(NamedTuple):
  """Coordinates of the pixels: x [1, W] and y [H, 1], in units of scale."""

  x: Array
  y: Array
  scale: float


class Canvas:
  """Versions of one scene, and the mask in which they may differ.

  Attributes:
    size: side of the images in pixels.
    frame: coordinates of the pixels.
    images: [versions, size, size, 3].
    mask: [size, size] in [0, 1], coverage by what `paint` marked as masked
      and nothing painted over since.
  """

  def __init__(self, size: int, versions: int) -> None:
    centers = (np.arange(size) + 0.5) / size
    self.size = size
    self.frame = Frame(centers[None, :], centers[:, None], 1.0)
    self.images = np.zeros((versions, size, size, 3))
    self.mask = np.zeros((size, size))

  def cover(self, distance: Array, frame: Frame) -> Array:
    """Antialiased coverage of each pixel by a signed distance."""
    return np.clip(0.5 - distance * (frame.scale * self.size), 0, 1)

  def paint(
    self,
    alpha: Array,
    color: Array,
    rows: slice = slice(None),
    columns: slice = slice(None),
    *,
    masked: bool = False,
  ) -> None:
    """Blends a color, [3] or [(versions,) h, w, 3], over a window."""
    mask = self.mask[rows, columns]
    mask += alpha * (float(masked) - mask)
    under = self.images[:, rows, columns]
    under += alpha[..., None] * (color - under)

  def fill(
    self,
    limbs: list[Limb],
    color: Array,
    frame: Frame,
    *,
    opacity: float = 1.0,
    floor: float = np.inf,
  ) -> None:
    """Fills the union of limbs above a floor."""
    rows, columns = self.window(limbs, frame)
    x, y = frame.x[:, columns], frame.y[rows]
    distance = np.maximum(cone_distances(x, y, limbs).min(axis=0), y - floor)
    inside = self.cover(distance, frame)
    self.paint(opacity * inside, color, rows, columns)

  def window(self, limbs: list[Limb], frame: Frame) -> tuple[slice, slice]:
    """The rows and columns that limbs may cover."""
    low, high = extent(limbs)
    margin = 2 / (self.size * frame.scale)
    return (
      _inside(frame.y[:, 0], low[1] - margin, high[1] + margin),
      _inside(frame.x[0], low[0] - margin, high[0] + margin),
    )

  def noise(self, rng: np.random.Generator, columns: int, rows: int) -> Array:
    """Smooth noise in [-1, 1]; detail finer than the pixels fades out."""
    lattice = rng.random((rows + 1, columns + 1)) * 2 - 1
    fade = min(max((self.size / max(columns, rows) - 1) / 2, 0), 1)
    if fade == 0:
      return np.zeros((self.size, self.size))
    weights_y = _interpolation(self.frame.y[:, 0], rows)
    weights_x = _interpolation(self.frame.x[0], columns)
    return fade * (weights_y @ lattice @ weights_x.T)


def cone_distances(x: Array, y: Array, limbs: list[Limb]) -> Array:
  """Signed distances to each of K limbs, negative inside.

  Args:
    x: [1, W] coordinates of the pixels.
    y: [H, 1] coordinates of the pixels.
    limbs: K limbs in the same coordinates.

  Returns:
    [K, H, W].
  """
  ends = np.array([limb[:2] for limb in limbs])[..., None, None]
  radii = np.array([limb[2:] for limb in limbs])[..., None, None]
  start_x, start_y = ends[:, 0, 0], ends[:, 0, 1]
  step_x, step_y = ends[:, 1, 0] - start_x, ends[:, 1, 1] - start_y
  away_x, away_y = x - start_x, y - start_y
  square = np.maximum(step_x * step_x + step_y * step_y, 1e-12)
  along = away_x * (step_x / square) + away_y * (step_y / square)
  along = np.minimum(np.maximum(along, 0), 1)
  away_x, away_y = away_x - along * step_x, away_y - along * step_y
  distance = np.sqrt(away_x * away_x + away_y * away_y)
  return distance - radii[:, 0] - along * (radii[:, 1] - radii[:, 0])


def disc(center: Array, radius: float) -> Limb:
  """A disc around a point [2]."""
  return Limb(center, center, radius, radius)


def extent(limbs: list[Limb]) -> tuple[Array, Array]:
  """Bounding box of limbs: the lowest and the highest (x, y), [2] each."""
  ends = np.array([(limb.start, limb.end) for limb in limbs])
  radii = np.array([limb[2:] for limb in limbs])[..., None]
  return (ends - radii).min(axis=(0, 1)), (ends + radii).max(axis=(0, 1))


def point(x: float, y: float) -> Array:
  """The point or vector (x, y) as an array [2]."""
  return np.array([x, y])


def toward(angle: float) -> Array:
  """Unit vector [2] of an angle; y points down, so -pi / 2 is up."""
  return np.array([np.cos(angle), np.sin(angle)])


def between(rng: np.random.Generator, low: float, high: float) -> float:
  """A uniform number in [low, high), from NumPy's most stable stream."""
  return low + (high - low) * rng.random()


def blend(rng: np.random.Generator, palette: Array) -> Array:
  """A random color between two neighbors in a palette [n, ...]."""
  place = between(rng, 0, len(palette) - 1)
  low = int(place)
  return palette[low] + (place - low) * (palette[low + 1] - palette[low])


def _inside(positions: Array, low: float, high: float) -> slice:
  """Slice of evenly spaced positions, rising or falling, in [low, high]."""
  first, step = float(positions[0]), float(positions[1] - positions[0])
  ends = sorted(((low - first) / step, (high - first) / step))
  return slice(max(0, math.ceil(ends[0])), max(0, math.floor(ends[1]) + 1))


def _interpolation(positions: Array, cells: int) -> Array:
  """Weights [n, cells + 1] of lattice points at positions in [0, 1]."""
  away = np.abs(positions[:, None] * cells - np.arange(cells + 1))
  near = np.clip(1 - away, 0, 1)
  return near * near * (3 - 2 * near)
