"""The animal of the drawings: its pose and how it is painted."""

from typing import NamedTuple

import numpy as np

from cyclegan_jax.data.synthetic.canvas import (
  Canvas,
  Frame,
  Limb,
  between,
  blend,
  cone_distances,
  disc,
  extent,
  point,
  toward,
)

Array = np.ndarray

_BROWNS = np.array([[0.36, 0.21, 0.13], [0.56, 0.31, 0.16], [0.74, 0.51, 0.28]])


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


def paint_animal(
  canvas: Canvas, rng: np.random.Generator, light: Array, domains: str
) -> None:
  """Paints the animal: shadow, far side, tail, near side, mane, face.

  The random numbers do not depend on the domains, so a horse and a zebra of
  one scene differ in nothing but their coat, which is the canvas's mask.

  Args:
    canvas: canvas with one version for each domain.
    rng: random numbers of the scene.
    light: [2], direction toward the light.
    domains: a letter for each version, 'a' for brown or 'b' for striped.
  """
  pose = _make_pose(rng)
  frame = _place_animal(canvas, rng, pose)
  facing = 1 if frame.x[0, -1] > frame.x[0, 0] else -1
  sun = light * point(facing, 1)
  hair = np.array([0.17, 0.12, 0.10]) * between(rng, 0.6, 1.5)
  wobble = (
    between(rng, 0.08, 0.2)
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
    colors = np.empty((len(domains), *distance.shape, 3))
    for color, domain in zip(colors, domains, strict=True):
      color[:] = tones['brown']
      if domain == 'b':
        black = _stripes(phase + wobble[rows, columns], pose.duty)[..., None]
        color[:] = tones['white'] + black * (tones['black'] - tones['white'])
    colors *= shade[..., None]
    alpha = canvas.cover(distance, frame)
    canvas.paint(alpha, colors, rows, columns, masked=True)
    for _, shin in legs:
      hoof = Limb(shin.end - point(0, 0.014), shin.end, 0.030, 0.038)
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
  """The animal's own coordinates: about as large as fits, facing either way."""
  limbs = [pose.trunk, pose.neck, pose.head, *pose.ears, *pose.tail, *pose.mane]
  limbs += [limb for leg in pose.legs for limb in leg]
  low, high = extent(limbs)
  scale = min(between(rng, 0.92, 1.12), 0.96 / (high - low).max())
  slack = 0.98 - scale * (high - low)
  corner = 0.01 + slack * point(rng.random(), between(rng, 0.5, 1))
  x = low[0] + (canvas.frame.x - corner[0]) / scale
  y = low[1] + (canvas.frame.y - corner[1]) / scale
  return Frame(x if rng.random() < 0.5 else x[:, ::-1], y, scale)


def _paint_face(canvas: Canvas, pose: Pose, hair: Array, frame: Frame) -> None:
  """Paints the inside of the near ear, the muzzle, the nostril and the eye."""
  head, ear = pose.head, pose.ears[1]
  along = (head.end - head.start) / np.linalg.norm(head.end - head.start)
  above = point(along[1], -along[0])
  inner = Limb(0.7 * ear.start + 0.3 * ear.end, ear.end, 0.017, 0.001)
  eye = head.start + 0.030 * along + 0.018 * above
  nostril = head.end + 0.024 * along + 0.018 * above
  white, black = np.array([0.97, 0.97, 0.95]), np.array([0.06, 0.05, 0.05])
  for shape, color in (
    (inner, 0.6 * hair + np.array([0.27, 0.17, 0.15])),
    (disc(head.end, 0.058), 1.2 * hair + 0.06),
    (disc(nostril, 0.009), black),
    (disc(eye, 0.026), white),
    (disc(eye + 0.005 * along, 0.019), black),
    (disc(eye + 0.004 * along + 0.009 * above, 0.007), white),
  ):
    canvas.fill([shape], color, frame)


def _draw_tones(rng: np.random.Generator) -> dict[str, Array]:
  """Draws the colors of both coats."""
  shift = np.array([between(rng, -0.03, 0.03) for _ in range(3)])
  return {
    'brown': blend(rng, _BROWNS) + shift,
    'white': np.array([0.95, 0.93, 0.88]) * between(rng, 0.93, 1.0),
    'black': np.array([0.10, 0.085, 0.08]) * between(rng, 0.7, 1.5),
  }


def _join(
  pose: Pose, limbs: list[Limb], x: Array, y: Array
) -> tuple[Array, Array, tuple[Array, Array]]:
  """Joins limbs to one body: distance, phase of stripes and slope, [H, W].

  The phase runs along each limb and is blended where limbs meet, so that
  stripes turn from upright on the trunk to level on the legs without a break.
  """
  distance = np.ones((1, 1))
  total = np.full((1, 1), 1e-12)
  phases, depths = np.zeros((1, 1)), np.zeros((1, 1))
  phase_at_end, previous = 0.0, limbs[0]
  for limb, own in zip(limbs, cone_distances(x, y, limbs), strict=True):
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
  """Phase of the trunk's stripes: upright, leaning over the rump."""
  return (x + pose.lean * y * (0.25 - x)) / pose.period


def _stripes(phase: Array, duty: float) -> Array:
  """Antialiased coverage by black stripes."""
  slope_y, slope_x = np.gradient(phase)
  change = np.sqrt(slope_x * slope_x + slope_y * slope_y)
  edge = np.abs(phase - np.floor(phase) - 0.5) - 0.5 * duty
  return np.clip(0.5 - edge / np.clip(change, 1e-4, 1), 0, 1)


def _make_pose(rng: np.random.Generator) -> Pose:
  """Draws a pose; one unit is about the width of the image."""
  girth, sag = between(rng, 0.93, 1.07), between(rng, -0.012, 0.012)
  trunk = Limb(
    point(-0.165, sag), point(0.16, -sag), 0.146 * girth, 0.138 * girth
  )
  withers = point(0.17, -0.05)
  poll = withers + 0.235 * toward(-between(rng, 0.85, 1.25))
  neck = Limb(withers, poll, 0.105, 0.070)
  nod = toward(between(rng, 0.35, 0.85))
  head = Limb(poll + 0.01 * nod, poll + 0.160 * nod, 0.076, 0.055)
  ears = []
  for tilt in (-1.5, -1.95):
    root = poll + 0.055 * toward(tilt)
    ears.append(Limb(root, root + 0.075 * toward(tilt), 0.034, 0.010))
  dock = trunk.start + point(-0.118, -0.085)
  swing = between(rng, 0, 0.07)
  bends = ((-0.035, 0.03), (-0.06, 0.085), (-0.07, 0.145), (-0.085, 0.205))
  joints = [dock] + [
    dock + point(dx - 8 * swing * dy * dy, dy) for dx, dy in bends
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
    period=between(rng, 0.078, 0.088),
    duty=between(rng, 0.44, 0.54),
    lean=between(rng, 0.3, 0.8),
  )


def _make_legs(rng: np.random.Generator) -> list[list[Limb]]:
  """Draws thigh and shin of each leg; in half of the poses one is lifted."""
  ground = between(rng, 0.33, 0.375)
  lifted = int(between(rng, 0, 8))
  legs = []
  for number, hip in enumerate((0.085, -0.085, 0.18, -0.195)):
    step = between(rng, -0.05, 0.05)
    lift = 0.06 if number == lifted else 0.0
    bend = (0.010 if hip > 0 else -0.018) + 0.6 * lift
    level = ground - lift - (0.022 if number < 2 else 0)
    knee = point(hip + 0.45 * step + bend, 0.5 * (0.05 + level) + 0.015)
    foot = point(hip + step - 0.3 * lift, level)
    thigh = Limb(point(hip, 0.05), knee, 0.064, 0.037)
    legs.append([thigh, Limb(knee, foot, 0.035, 0.029)])
  return legs


def _make_mane(rng: np.random.Generator, neck: Limb, nod: Array) -> list[Limb]:
  """Draws tufts from the withers to between the ears, and a forelock."""
  axis = (neck.end - neck.start) / np.linalg.norm(neck.end - neck.start)
  behind, brow = point(axis[1], -axis[0]), point(nod[1], -nod[0])
  length, sweep = between(rng, 0.035, 0.06), between(rng, -0.1, 0.5)
  tufts = []
  for along in np.linspace(0.2, 1.15, 7):
    radius = neck.start_radius + along * (neck.end_radius - neck.start_radius)
    root = neck.start + along * (neck.end - neck.start)
    root = root + 0.82 * radius * behind
    tip = root + length * (behind - sweep * axis)
    tufts.append(Limb(root, tip, 0.030, 0.012))
  top = neck.end + 0.076 * brow
  return [*tufts, Limb(top - 0.03 * nod, top + 0.045 * nod, 0.022, 0.008)]
