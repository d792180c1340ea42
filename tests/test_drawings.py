import os
import subprocess
import sys
import zlib

import numpy as np
import pytest

import cyclegan_jax
from cyclegan_jax.data.synthetic import drawings as synthetic

NUM_DRAWINGS = 16


def draw(index=0, *, size=64, domain='a', split='train', seed=0):
  return synthetic.draw(index, size=size, domain=domain, split=split, seed=seed)


@pytest.fixture(scope='module', params=['a', 'b'])
def domain(request):
  return request.param


@pytest.fixture(scope='module')
def drawings(domain):
  return [
    synthetic.draw_with_truth(index, size=64, domain=domain, split='test')
    for index in range(NUM_DRAWINGS)
  ]


@pytest.mark.parametrize('size', [8, 33])
def test_shape(size):
  image = draw(size=size, domain='b')
  assert image.shape == (size, size, 3)
  assert image.dtype == np.uint8
  assert image.std() > 20


@pytest.mark.process
def test_another_process_draws_the_same():
  here = [zlib.crc32(draw(index, domain='b')) for index in (0, 1, 2)]
  # Without the package's own file, which takes a second to import JAX.
  code = f"""
import sys, types, zlib
package = types.ModuleType('cyclegan_jax')
package.__path__ = {list(cyclegan_jax.__path__)}
sys.modules['cyclegan_jax'] = package
from cyclegan_jax.data.synthetic.drawings import draw
images = [draw(i, size=64, domain='b', split='train') for i in (2, 1, 0)]
print([zlib.crc32(image) for image in images[::-1]])
"""
  there = subprocess.run(
    [sys.executable, '-c', code],
    env={**os.environ, 'PYTHONHASHSEED': '7'},
    capture_output=True,
    text=True,
    check=True,
  )
  assert there.stdout.strip() == str(here)


def test_every_argument_makes_another_scene():
  images = [
    draw(index, size=32, domain=domain, split=split, seed=seed)
    for index in range(2)
    for domain in 'ab'
    for split in ('train', 'test')
    for seed in (0, 1, 2**32, 2**32 + 1)
  ]
  for i, image in enumerate(images):
    for other in images[:i]:
      difference = np.abs(image.astype(int) - other)
      assert difference.mean() > 5


def test_the_truth_belongs_to_the_image(domain, drawings):
  for index, drawing in enumerate(drawings[:8]):
    image = draw(index, domain=domain, split='test')
    np.testing.assert_array_equal(drawing.image, image)


def test_only_the_mask_differs_in_the_counterpart(drawings):
  for drawing in drawings:
    assert drawing.mask.shape == (64, 64)
    assert drawing.mask.dtype == bool
    same = (drawing.image == drawing.counterpart).all(axis=-1)
    assert same[~drawing.mask].all()
    assert same[drawing.mask].mean() < 0.1


def test_the_mask_is_large_and_inside_the_image(drawings):
  shares = [drawing.mask.mean() for drawing in drawings]
  assert 0.15 < min(shares) < max(shares) < 0.36
  assert max(shares) - min(shares) > 0.05
  for drawing in drawings:
    frame = np.ones_like(drawing.mask)
    frame[1:-1, 1:-1] = False
    assert (drawing.mask & frame).sum() < 8


def test_horses_are_brown_and_zebras_are_gray(domain, drawings):
  for drawing in drawings:
    horse, zebra = drawing.image, drawing.counterpart
    if domain == 'b':
      horse, zebra = zebra, horse
    red, green, blue = horse[drawing.mask].mean(axis=0)
    assert red > 1.2 * green > 1.2 * blue
    tint = zebra[drawing.mask].mean(axis=0)
    assert np.ptp(tint) < 0.25 * tint.mean()
    plain, striped = (
      image.mean(axis=-1)[drawing.mask].std() for image in (horse, zebra)
    )
    assert striped > 1.5 * plain


def test_animals_face_both_ways(drawings):
  # Muzzle and tail are outside the mask; the neck makes its front higher.
  tops = np.array([drawing.mask.argmax(axis=0) for drawing in drawings])
  columns = np.where(tops > 0, tops, 64)
  right = (columns.argmin(axis=1) > 32).mean()
  assert 0.25 < right < 0.75


def longest_run(mask):
  """Row, start and stop of the longest run inside a mask."""
  best = (0, 0, 0)
  for row, line in enumerate(mask):
    edges = np.flatnonzero(np.diff(np.concatenate([[0], line, [0]])))
    for start, stop in edges.reshape(-1, 2):
      if stop - start > best[2] - best[1]:
        best = (row, start, stop)
  return best


def test_stripes_are_wide_enough_to_learn(domain):
  counts = []
  for index in range(6):
    drawing = synthetic.draw_with_truth(
      index, size=128, domain=domain, split='test'
    )
    zebra = drawing.image if domain == 'b' else drawing.counterpart
    row, start, stop = longest_run(drawing.mask)
    line = zebra[row, start + 2 : stop - 2].mean(axis=-1)
    black = line < 0.5 * (line.min() + line.max())
    flips = np.flatnonzero(np.diff(black.astype(int)))
    period = 2 * np.diff(flips).mean()
    assert period / 2 > 4  # in pixels at 64
    counts.append((stop - start) / period)
  assert 6 < min(counts) < max(counts) < 10


def test_an_index_is_the_same_scene_at_any_size(domain):
  for index in range(2):
    small = draw(index, size=64, domain=domain).astype(float)
    large = draw(index, size=192, domain=domain).astype(float)
    shrunk = large.reshape(64, 3, 64, 3, 3).mean(axis=(1, 3))
    assert np.abs(small - shrunk).mean() < 3
    other = draw(index + 1, size=64, domain=domain)
    assert np.abs(other - shrunk).mean() > 15


@pytest.mark.parametrize(
  'change',
  [
    {'domain': 'c'},
    {'split': 'val'},
    {'index': -1},
    {'size': 7},
    {'size': 1025},
    {'seed': -1},
  ],
)
def test_invalid_arguments(change):
  ((name, value),) = change.items()
  with pytest.raises(ValueError, match=f'^{name}={value!r}'):
    draw(**change)
