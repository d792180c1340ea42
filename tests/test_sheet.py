"""Sample sheets."""

import io

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.config import DataConfig
from cyclegan_jax.images import to_uint8
from cyclegan_jax.report import samples, sheet


def draw(*blocks):
  return np.asarray(sheet.draw_sheet(blocks))


def flat(value: float, *, size: int = 64, channels: int = 3, count: int = 1):
  return np.full((count, size, size, channels), value, np.float32)


def test_images_are_in_rows_and_titles_over_columns():
  red = flat(-1.0, count=2)
  red[..., 0] = 1
  gray = flat(-1.0, channels=1, count=2)
  pixels = draw({'real a': red, 'a to b': gray})
  height, width = pixels.shape[:2]
  assert width == 4 + 2 * (128 + 4)
  header = height - 2 * (128 + 4)
  assert 20 <= header <= 40
  for row in (0, 1):
    top = header + row * 132
    assert (pixels[top : top + 128, 4:132] == [255, 0, 0]).all()
    assert (pixels[top : top + 128, 136:264] == 0).all()
    assert (pixels[top : top + 128, 132:136] == 255).all()  # the gap
  assert pixels[:header, :132].min() < 80  # ink of both titles
  assert pixels[:header, 132:].min() < 80


def test_long_and_foreign_titles_stay_over_their_columns():
  pixels = draw({'x' * 99: flat(1.0), 'y': flat(1.0)})
  header = pixels[: pixels.shape[0] - 132]
  assert (header[:, 132:136] == 255).all()  # the gap


@pytest.mark.parametrize(
  ('name', 'shown'), [('', 'a'), ('cat', 'cat'), ('Öl', 'a')]
)
def test_names_of_domains(name, shown):
  data = DataConfig(name='folder', name_a=name)
  image = flat(0.0)
  drawn = samples.draw_samples(
    {'ab': samples.Translations(image, image, image)}, data
  )
  titles = [f'real {shown}', f'{shown} to b', 'back again']
  np.testing.assert_array_equal(drawn, draw(dict.fromkeys(titles, image)))


def test_pixels_of_small_images_become_squares():
  image = np.linspace(-1, 1, 50 * 50, dtype=np.float32).reshape(1, 50, 50, 1)
  cell = draw({'x': image})[-154:-4, 4:154]  # 50 pixels times 3
  np.testing.assert_array_equal(cell[::3, ::3, 0], to_uint8(image)[0, ..., 0])
  np.testing.assert_array_equal(cell[::3], cell[2::3])
  np.testing.assert_array_equal(cell[:, ::3], cell[:, 2::3])


def test_blocks_are_side_by_side():
  left, right = {'real a': flat(-1.0)}, {'real b': flat(-1.0, count=2)}
  one, both = draw(left), draw(left, right)
  assert both.shape[1] == 4 + 2 * (128 + 4) + 2 * 4
  np.testing.assert_array_equal(both[: one.shape[0], :136], one)
  ink_rows = [(both[:, x] == 0).all(axis=-1).sum() for x in (60, 220)]
  assert ink_rows[1] - ink_rows[0] == 128  # one row on the left, two right


def test_smaller_images_are_centered():
  pixels = draw({'x': flat(-1.0, size=256), 'y': flat(-1.0, size=128)})
  is_black = (pixels == 0).all(axis=-1)
  assert is_black[-4 - 192 : -4 - 64, 264 + 64 : 264 + 192].all()
  assert not is_black[-4 - 63 :, 264:].any()


def test_long_titles_stay_over_their_column():
  pixels = draw({'back again to where it was': flat(1.0), 'b': flat(1.0)})
  header = pixels[: pixels.shape[0] - 132]
  assert (header[:, 132:136] == 255).all()


@pytest.mark.parametrize('blocks', [[], [{}], [{'a': flat(0.0, count=0)}]])
def test_a_sheet_without_images(blocks):
  with pytest.raises(ValueError, match='image'):
    draw(*blocks)


def test_png():
  image = sheet.draw_sheet([{'x': flat(0.5)}])
  with Image.open(io.BytesIO(sheet.encode_png(image))) as saved:
    assert saved.format == 'PNG'
    np.testing.assert_array_equal(np.asarray(saved), np.asarray(image))
