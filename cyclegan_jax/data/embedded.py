"""A miniature horse <-> zebra, drawn by code: no file, no download.

Domain a holds brown horses, domain b striped zebras, on grass under a sky.
Everything is signed distances in a unit square, so that an index is the same
scene at any size. Unlike photographs the drawings come with the truth: the
same scene in the other coat, and the mask of the coat.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

Array = np.ndarray

MIN_SIZE = 8
MAX_SIZE = 1024
DOMAINS = ('a', 'b')
SPLITS = ('train', 'test')

# Zenith and horizon of the sky, between two of which a scene's sky lies.
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
_BROWNS = np.array([[0.36, 0.21, 0.13], [0.56, 0.31, 0.16], [0.74, 0.51, 0.28]])
_FLOWERS = np.array(
  [[0.98, 0.85, 0.30], [0.97, 0.95, 0.92], [0.90, 0.45, 0.50]]
)


class Limb(NamedTuple):
  """A round cone from one point to another; a disc where they are one."""

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
  """Versions of an image, and how much of the coat still shows in them."""

  def __init__(self, size: int, versions: int) -> None:
    centers = (np.arange(size) + 0.5) / size
    self.size = size
    self.frame = Frame(centers[None, :], centers[:, None], 1.0)
    self.images = np.zeros((versions, size, size, 3))
    self.coat = np.zeros((size, size))

  def cover(self, distance: Array, frame: Frame) -> Array:
    """Antialiased share of each pixel that is inside, by signed distance."""
    return np.clip(0.5 - distance * (frame.scale * self.size), 0, 1)

  def paint(
    self,
    alpha: Array,
    color: Array,
    rows: slice = slice(None),
    columns: slice = slice(None),
    *,
    coat: bool = False,
  ) -> None:
    """Lays a colour, [3] or [(versions,) h, w, 3], over a window."""
    shown = self.coat[rows, columns]
    shown += alpha * (float(coat) - shown)
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
    """Fills the union of limbs down to a floor, touching only its window."""
    rows, columns = self.window(limbs, frame)
    x, y = frame.x[:, columns], frame.y[rows]
    distance = np.maximum(_cones(x, y, limbs).min(axis=0), y - floor)
    inside = self.cover(distance, frame)
    self.paint(opacity * inside, color, rows, columns)

  def window(self, limbs: list[Limb], frame: Frame) -> tuple[slice, slice]:
    """The rows and columns that limbs may touch."""
    low, high = _extent(limbs)
    margin = 2 / (self.size * frame.scale)
    return (
      _inside(frame.y[:, 0], low[1] - margin, high[1] + margin),
      _inside(frame.x[0], low[0] - margin, high[0] + margin),
    )

  def noise(self, rng: np.random.Generator, columns: int, rows: int) -> Array:
    """Smooth noise in [-1, 1]; detail too fine for the pixels fades out."""
    lattice = rng.random((rows + 1, columns + 1)) * 2 - 1
    fade = min(max((self.size / max(columns, rows) - 1) / 2, 0), 1)
    if fade == 0:
      return np.zeros((self.size, self.size))
    weights_y = _interpolation(self.frame.y[:, 0], rows)
    weights_x = _interpolation(self.frame.x[0], columns)
    return fade * (weights_y @ lattice @ weights_x.T)


def _cones(x: Array, y: Array, limbs: list[Limb]) -> Array:
  """Signed distances to each of K limbs, [K, H, W]."""
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


def _disc(center: Array, radius: float) -> Limb:
  return Limb(center, center, radius, radius)


def _extent(limbs: list[Limb]) -> tuple[Array, Array]:
  """The lowest and the highest x and y of limbs."""
  ends = np.array([(limb.start, limb.end) for limb in limbs])
  radii = np.array([limb[2:] for limb in limbs])[..., None]
  return (ends - radii).min(axis=(0, 1)), (ends + radii).max(axis=(0, 1))


def _inside(positions: Array, low: float, high: float) -> slice:
  """Where evenly spaced positions, rising or falling, lie in [low, high]."""
  first, step = float(positions[0]), float(positions[1] - positions[0])
  ends = sorted(((low - first) / step, (high - first) / step))
  return slice(max(0, math.ceil(ends[0])), max(0, math.floor(ends[1]) + 1))


def _interpolation(positions: Array, cells: int) -> Array:
  """Weights [n, cells + 1] of a lattice's points at positions in [0, 1]."""
  away = np.abs(positions[:, None] * cells - np.arange(cells + 1))
  near = np.clip(1 - away, 0, 1)
  return near * near * (3 - 2 * near)


def _at(x: float, y: float) -> Array:
  return np.array([x, y])


def _toward(angle: float) -> Array:
  """The unit vector of an angle; y points down, so -pi / 2 is up."""
  return np.array([np.cos(angle), np.sin(angle)])


def _between(rng: np.random.Generator, low: float, high: float) -> float:
  """A number in [low, high), from the stream that NumPy changes the least."""
  return low + (high - low) * rng.random()


@dataclasses.dataclass(frozen=True)
class Drawing:
  """A drawing and its truth.

  Attributes:
    image: uint8 [size, size, 3], in the coat of the domain asked for.
    counterpart: uint8 [size, size, 3], the same scene in the other domain's
      coat; equal to image, byte for byte, where coat is False.
    coat: bool [size, size], every pixel that shows any of the coat.
  """

  image: Array
  counterpart: Array
  coat: Array


def draw(
  index: int, *, size: int, domain: str, split: str, seed: int = 0
) -> Array:
  """Draws one image.

  Every (index, domain, split, seed) is a scene of its own, so a's and b's
  images of one index are no pair. Equal arguments give equal bytes in every
  process; another size gives the same scene.

  Args:
    index: which drawing, from 0.
    size: height and width in pixels, 8 to 1024.
    domain: 'a', a brown horse, or 'b', a zebra.
    split: 'train' or 'test'.
    seed: of the whole set, from 0.

  Returns:
    uint8 [size, size, 3].

  Raises:
    ValueError: an argument is out of range.
  """
  images, _ = _draw_scene(index, size, domain, split, seed, coats=domain)
  return images[0]


def draw_with_truth(
  index: int, *, size: int, domain: str, split: str, seed: int = 0
) -> Drawing:
  """Draws the image of `draw`, its translation and the mask of the coat.

  Raises:
    ValueError: an argument is out of range.
  """
  coats = domain + ('b' if domain == 'a' else 'a')
  images, coat = _draw_scene(index, size, domain, split, seed, coats=coats)
  return Drawing(image=images[0], counterpart=images[1], coat=coat)


def _draw_scene(
  index: int, size: int, domain: str, split: str, seed: int, *, coats: str
) -> tuple[Array, Array]:
  """Images [len(coats), size, size, 3] of one scene, and the coat's mask."""
  _check_arguments(index, size, domain, split, seed)
  # The seed comes last, as it may take more than one word of the entropy.
  which = (index, SPLITS.index(split), DOMAINS.index(domain), seed)
  rng = np.random.default_rng(which)
  canvas = Canvas(size, len(coats))
  side = -1 if rng.random() < 0.5 else 1
  light = np.array([side * _between(rng, 0.35, 0.8), -0.65])
  _paint_background(canvas, rng, light)
  _paint_animal(canvas, rng, light, coats)
  warmth = _between(rng, -0.06, 0.06)
  exposure = _between(rng, 0.88, 1.08) * np.array([1 + warmth, 1, 1 - warmth])
  pixels = np.rint(255 * np.clip(canvas.images * exposure, 0, 1))
  return pixels.astype(np.uint8), canvas.coat > 0


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
  """Sky, perhaps with clouds; hills; perhaps trees; grass with flowers."""
  frame = canvas.frame
  x, y, _ = frame
  horizon = _between(rng, 0.36, 0.6)
  zenith, haze = _blend(rng, _SKIES)
  height = np.clip(y / horizon, 0, 1)
  canvas.paint(np.ones((1, 1)), zenith + (haze - zenith) * height[..., None])
  for _ in range(int(_between(rng, 0, 4))):
    _paint_cloud(canvas, rng, horizon)
  grass = _blend(rng, _GRASS) * _between(rng, 0.85, 1.1)
  for layer in range(int(_between(rng, 1, 3))):
    rise = _between(rng, 0.03, 0.15) * (1 - 0.45 * layer)
    phase, waves = _between(rng, 0, 6.28), _between(rng, 3, 9)
    ridge = np.sin(waves * x + phase) + 0.4 * np.sin(2.3 * waves * x - phase)
    tone = 0.85 * grass
    tone = tone + (haze - tone) * (0.5 - 0.22 * layer)
    above = horizon - rise * (1 + 0.6 * ridge) - y
    canvas.paint(canvas.cover(above, frame), tone)
  for _ in range(max(0, int(_between(rng, -1, 4)))):
    _paint_tree(canvas, rng, horizon, light, grass)
  depth = np.clip((y - horizon) / (1 - horizon), 0, 1)
  texture = 0.09 * canvas.noise(rng, 7, 9) + 0.10 * canvas.noise(rng, 20, 20)
  texture = texture + 0.16 * canvas.noise(rng, 90, 40)
  shade = 1.06 - 0.16 * depth + texture * (0.35 + 0.65 * depth)
  above = horizon + 0.01 * np.sin(5 * x) - y
  canvas.paint(canvas.cover(above, frame), grass * shade[..., None])
  flower = _FLOWERS[int(_between(rng, 0, len(_FLOWERS)))]
  for _ in range(max(0, int(_between(rng, -6, 12)))):
    place = _at(rng.random(), _between(rng, horizon + 0.08, 1))
    radius = 0.006 + 0.010 * (place[1] - horizon)
    canvas.fill([_disc(place, radius)], flower, frame)


def _paint_cloud(
  canvas: Canvas, rng: np.random.Generator, horizon: float
) -> None:
  center = _at(rng.random(), _between(rng, 0.05, horizon - 0.12))
  size = _between(rng, 0.04, 0.08)
  puffs = []
  for shift in (-1.3, -0.4, 0.5, 1.4):
    radius = size * _between(rng, 0.6, 1.0) * (1 - 0.25 * abs(shift))
    puffs.append(_disc(center + _at(size * shift, 0), radius))
  white, opacity = np.array([1.0, 0.99, 0.97]), _between(rng, 0.6, 0.95)
  floor = center[1] + 0.25 * size
  canvas.fill(puffs, white, canvas.frame, opacity=opacity, floor=floor)


def _paint_tree(
  canvas: Canvas,
  rng: np.random.Generator,
  horizon: float,
  light: Array,
  grass: Array,
) -> None:
  size = _between(rng, 0.05, 0.09)
  foot = _at(rng.random(), horizon + _between(rng, 0.01, 0.03))
  crown = foot - _at(0, 2 * size)
  trunk = Limb(foot, crown, 0.16 * size, 0.12 * size)
  canvas.fill([trunk], np.array([0.36, 0.26, 0.20]), canvas.frame)
  leaves = grass * _between(rng, 0.5, 0.75)
  # The second, smaller round of discs is the crown's lit side.
  for radius, shift, color in ((1, 0, leaves), (0.7, 0.35, leaves * 1.25)):
    discs = [
      _disc(crown + size * (_at(*offset) + shift * light), 0.8 * size * radius)
      for offset in ((-0.6, 0.25), (0.6, 0.2), (0, -0.5))
    ]
    canvas.fill(discs, color, canvas.frame)


class Pose(NamedTuple):
  """The animal's shape, facing right, its trunk about the origin."""

  trunk: Limb
  neck: Limb
  head: Limb
  ears: list[Limb]  # far, near
  legs: list[list[Limb]]  # far front, far rear, near front, near rear
  tail: list[Limb]
  mane: list[Limb]
  period: float  # of the stripes
  duty: float  # share of black
  lean: float  # of the stripes, over the rump


def _paint_animal(
  canvas: Canvas, rng: np.random.Generator, light: Array, coats: str
) -> None:
  """The whole animal: shadow, far side, tail, near side, mane, face."""
  pose = _make_pose(rng)
  frame = _place_animal(canvas, rng, pose)
  facing = 1 if frame.x[0, -1] > frame.x[0, 0] else -1
  sun = light * _at(facing, 1)
  hair = np.array([0.17, 0.12, 0.10]) * _between(rng, 0.6, 1.5)
  wobble = (
    _between(rng, 0.08, 0.2)
    * canvas.noise(rng, 9, 9)
    * np.ones((canvas.size,) * 2)
  )
  tones = _draw_tones(rng)

  ground = max(leg[1].end[1] for leg in pose.legs) + 0.02
  away_x, away_y = (frame.x + 0.12 * sun[0]) / 0.38, (frame.y - ground) / 0.05
  dim = 0.45 * np.clip(1.2 * (1 - away_x**2 - away_y**2), 0, 1)
  canvas.paint(dim, np.array([0.07, 0.11, 0.06]))

  def paint_side(limbs: list[Limb], legs: list[list[Limb]], dim: float) -> None:
    limbs = limbs + [limb for leg in legs for limb in leg]
    rows, columns = canvas.window(limbs, frame)
    x, y = frame.x[:, columns], frame.y[rows]
    distance, phase, slope = _join(pose, limbs, x, y)
    shade = dim * (1 + 0.30 * (slope[0] * sun[0] + slope[1] * sun[1]))
    colors = np.empty((len(coats), *distance.shape, 3))
    for color, coat in zip(colors, coats, strict=True):
      color[:] = tones['brown']
      if coat == 'b':
        black = _stripes(phase + wobble[rows, columns], pose.duty)[..., None]
        color[:] = tones['white'] + black * (tones['black'] - tones['white'])
    colors *= shade[..., None]
    alpha = canvas.cover(distance, frame)
    canvas.paint(alpha, colors, rows, columns, coat=True)
    for _, shin in legs:
      hoof = Limb(shin.end - _at(0, 0.014), shin.end, 0.030, 0.038)
      floor = shin.end[1] + 0.029
      canvas.fill([hoof], hair * dim, frame, floor=floor)

  paint_side([pose.ears[0]], pose.legs[:2], 0.72)
  canvas.fill(pose.tail, hair, frame)
  near = [pose.trunk, pose.neck, pose.head, pose.ears[1]]
  paint_side(near, pose.legs[2:], 1.0)
  canvas.fill(pose.mane, hair, frame)
  sheen = [
    Limb(0.6 * tuft.start + 0.4 * tuft.end, tuft.end, 0.012, 0.004)
    for tuft in pose.mane
  ]
  canvas.fill(sheen, hair + 0.07, frame)
  _paint_face(canvas, pose, hair, frame)


def _place_animal(
  canvas: Canvas, rng: np.random.Generator, pose: Pose
) -> Frame:
  """The animal's own coordinates: as large as fits, facing either way."""
  limbs = [pose.trunk, pose.neck, pose.head, *pose.ears, *pose.tail, *pose.mane]
  limbs += [limb for leg in pose.legs for limb in leg]
  low, high = _extent(limbs)
  scale = min(_between(rng, 0.92, 1.12), 0.96 / (high - low).max())
  slack = 0.98 - scale * (high - low)
  corner = 0.01 + slack * _at(rng.random(), _between(rng, 0.5, 1))
  x = low[0] + (canvas.frame.x - corner[0]) / scale
  y = low[1] + (canvas.frame.y - corner[1]) / scale
  return Frame(x if rng.random() < 0.5 else x[:, ::-1], y, scale)


def _paint_face(canvas: Canvas, pose: Pose, hair: Array, frame: Frame) -> None:
  """Inside of the near ear, muzzle, nostril and eye."""
  head, ear = pose.head, pose.ears[1]
  along = (head.end - head.start) / np.linalg.norm(head.end - head.start)
  above = _at(along[1], -along[0])
  inner = Limb(0.7 * ear.start + 0.3 * ear.end, ear.end, 0.017, 0.001)
  eye = head.start + 0.030 * along + 0.018 * above
  nostril = head.end + 0.024 * along + 0.018 * above
  white, black = np.array([0.97, 0.97, 0.95]), np.array([0.06, 0.05, 0.05])
  for shape, color in (
    (inner, 0.6 * hair + np.array([0.27, 0.17, 0.15])),
    (_disc(head.end, 0.058), 1.2 * hair + 0.06),
    (_disc(nostril, 0.009), black),
    (_disc(eye, 0.026), white),
    (_disc(eye + 0.005 * along, 0.019), black),
    (_disc(eye + 0.004 * along + 0.009 * above, 0.007), white),
  ):
    canvas.fill([shape], color, frame)


def _draw_tones(rng: np.random.Generator) -> dict[str, Array]:
  """The coat's colours; both coats' are drawn, whichever is asked for."""
  shift = np.array([_between(rng, -0.03, 0.03) for _ in range(3)])
  return {
    'brown': _blend(rng, _BROWNS) + shift,
    'white': np.array([0.95, 0.93, 0.88]) * _between(rng, 0.93, 1.0),
    'black': np.array([0.10, 0.085, 0.08]) * _between(rng, 0.7, 1.5),
  }


def _join(
  pose: Pose, limbs: list[Limb], x: Array, y: Array
) -> tuple[Array, Array, tuple[Array, Array]]:
  """Limbs as one body: distance, stripes' phase and normal, all [H, W].

  The phase runs along each limb and blends where limbs meet, so that stripes
  turn from upright on the trunk to level on the legs without a break.
  """
  distance = np.ones((1, 1))
  total = np.full((1, 1), 1e-12)
  phases, depths = np.zeros((1, 1)), np.zeros((1, 1))
  phase_at_end, previous = 0.0, limbs[0]
  for limb, own in zip(limbs, _cones(x, y, limbs), strict=True):
    if limb is pose.trunk:
      phase = _trunk_phase(pose, x, y)
    else:
      joined = previous is pose.neck or limb.start is previous.end
      start = phase_at_end if joined else _trunk_phase(pose, *limb.start)
      step = limb.end - limb.start
      length = np.sqrt(step @ step)
      along = (x - limb.start[0]) * step[0] + (y - limb.start[1]) * step[1]
      phase = start + along / (length * pose.period)
      phase_at_end = start + length / pose.period
    weight = np.exp(np.minimum(own / -0.022, 30))
    total = total + weight
    phases = phases + weight * phase
    depths = depths + weight * (limb.start_radius + limb.end_radius)
    blend = np.maximum(1 - np.abs(distance - own) / 0.035, 0)
    distance = np.minimum(distance, own) - 0.25 * 0.035 * blend * blend
    previous = limb
  spacing = float(y[1, 0] - y[0, 0]), float(x[0, 1] - x[0, 0])
  slope_y, slope_x = np.gradient(distance, *spacing)
  rim = np.clip(1 + 2 * distance * total / depths, 0, 1)
  rim = rim * np.sqrt(rim)
  return distance, phases / total, (slope_x * rim, slope_y * rim)


def _trunk_phase(pose: Pose, x: Array, y: Array) -> Array:
  """Upright bands that lean over the rump."""
  return (x + pose.lean * y * (0.25 - x)) / pose.period


def _stripes(phase: Array, duty: float) -> Array:
  """Share of black in each pixel, antialiased."""
  slope_y, slope_x = np.gradient(phase)
  change = np.sqrt(slope_x * slope_x + slope_y * slope_y)
  edge = np.abs(phase - np.floor(phase) - 0.5) - 0.5 * duty
  return np.clip(0.5 - edge / np.clip(change, 1e-4, 1), 0, 1)


def _make_pose(rng: np.random.Generator) -> Pose:
  """A random animal; one unit is about the width of the image."""
  girth, sag = _between(rng, 0.93, 1.07), _between(rng, -0.012, 0.012)
  trunk = Limb(_at(-0.165, sag), _at(0.16, -sag), 0.146 * girth, 0.138 * girth)
  withers = _at(0.17, -0.05)
  poll = withers + 0.235 * _toward(-_between(rng, 0.85, 1.25))
  neck = Limb(withers, poll, 0.105, 0.070)
  nod = _toward(_between(rng, 0.35, 0.85))
  head = Limb(poll + 0.01 * nod, poll + 0.160 * nod, 0.076, 0.055)
  ears = []
  for tilt in (-1.5, -1.95):
    root = poll + 0.055 * _toward(tilt)
    ears.append(Limb(root, root + 0.075 * _toward(tilt), 0.034, 0.010))
  dock = trunk.start + _at(-0.118, -0.085)
  swing = _between(rng, 0, 0.07)
  bends = ((-0.035, 0.03), (-0.06, 0.085), (-0.07, 0.145), (-0.085, 0.205))
  joints = [dock] + [
    dock + _at(dx - 8 * swing * dy * dy, dy) for dx, dy in bends
  ]
  tail = [
    Limb(joints[i], joints[i + 1], radius, next_radius)
    for i, (radius, next_radius) in enumerate(
      ((0.022, 0.022), (0.022, 0.030), (0.030, 0.029), (0.029, 0.006))
    )
  ]
  return Pose(
    trunk=trunk,
    neck=neck,
    head=head,
    ears=ears,
    legs=_make_legs(rng),
    tail=tail,
    mane=_make_mane(rng, neck, nod),
    period=_between(rng, 0.078, 0.088),
    duty=_between(rng, 0.44, 0.54),
    lean=_between(rng, 0.3, 0.8),
  )


def _make_legs(rng: np.random.Generator) -> list[list[Limb]]:
  """Thigh and shin of each leg; in half of the poses one is off the ground."""
  ground = _between(rng, 0.33, 0.375)
  lifted = int(_between(rng, 0, 8))
  legs = []
  for number, hip in enumerate((0.085, -0.085, 0.18, -0.195)):
    step = _between(rng, -0.05, 0.05)
    lift = 0.06 if number == lifted else 0.0
    bend = (0.010 if hip > 0 else -0.018) + 0.6 * lift
    level = ground - lift - (0.022 if number < 2 else 0)
    knee = _at(hip + 0.45 * step + bend, 0.5 * (0.05 + level) + 0.015)
    foot = _at(hip + step - 0.3 * lift, level)
    thigh = Limb(_at(hip, 0.05), knee, 0.064, 0.037)
    legs.append([thigh, Limb(knee, foot, 0.035, 0.029)])
  return legs


def _make_mane(rng: np.random.Generator, neck: Limb, nod: Array) -> list[Limb]:
  """Tufts from the withers to between the ears, and a forelock."""
  axis = (neck.end - neck.start) / np.linalg.norm(neck.end - neck.start)
  behind, brow = _at(axis[1], -axis[0]), _at(nod[1], -nod[0])
  length, sweep = _between(rng, 0.035, 0.06), _between(rng, -0.1, 0.5)
  tufts = []
  for along in np.linspace(0.2, 1.15, 7):
    radius = neck.start_radius + along * (neck.end_radius - neck.start_radius)
    root = neck.start + along * (neck.end - neck.start)
    root = root + 0.82 * radius * behind
    tip = root + length * (behind - sweep * axis)
    tufts.append(Limb(root, tip, 0.030, 0.012))
  top = neck.end + 0.076 * brow
  return [*tufts, Limb(top - 0.03 * nod, top + 0.045 * nod, 0.022, 0.008)]


def _blend(rng: np.random.Generator, palette: Array) -> Array:
  """A colour between two neighbours of a palette."""
  place = _between(rng, 0, len(palette) - 1)
  low = int(place)
  return palette[low] + (place - low) * (palette[low + 1] - palette[low])
