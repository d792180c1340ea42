"""Sample sheets and their PNG files."""

import io

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.images import to_uint8
from cyclegan_jax.report.sheet import draw_sheet, encode_png


def flat(value: float, *, size: int = 64, channels: int = 3, count: int = 1):
  return np.full((count, size, size, channels), value, np.float32)


def test_sheet_puts_images_in_rows_and_titles_in_columns():
  red = flat(-1.0, count=2)
  red[..., 0] = 1
  grey = flat(-1.0, channels=1, count=2)
  got = draw_sheet([{'real a': red, 'a → b': grey}])
  assert got.dtype == np.uint8
  height, width = got.shape[:2]
  assert width == 4 + 2 * (128 + 4)
  header = height - 2 * (128 + 4)
  assert 20 <= header <= 40
  for row in (0, 1):
    top = header + row * 132
    cell = got[top : top + 128, 4:132]
    np.testing.assert_array_equal(
      cell, np.broadcast_to([255, 0, 0], cell.shape)
    )
    assert (got[top : top + 128, 136:264] == 0).all()
    assert (got[top : top + 128, 132:136] == 255).all()  # the gap
  assert got[:header, :132].min() < 80  # ink of both titles
  assert got[:header, 132:].min() < 80


def test_sheet_enlarges_pixels_to_squares():
  image = np.linspace(-1, 1, 50 * 50, dtype=np.float32).reshape(1, 50, 50, 1)
  got = draw_sheet([{'x': image}])
  cell = got[-154:-4, 4:154]  # 50 px times 3
  np.testing.assert_array_equal(cell[::3, ::3, 0], to_uint8(image)[0, ..., 0])
  np.testing.assert_array_equal(cell[::3], cell[2::3])
  np.testing.assert_array_equal(cell[:, ::3], cell[:, 2::3])


def test_sheet_lays_blocks_left_and_right():
  left, right = {'real a': flat(-1.0)}, {'real b': flat(-1.0, count=2)}
  one, both = draw_sheet([left]), draw_sheet([left, right])
  assert both.shape[1] == 4 + 2 * (128 + 4) + 2 * 4
  np.testing.assert_array_equal(
    both[: one.shape[0], :136], one
  )  # the left block is what it is alone
  ink_rows = [(both[:, x] == 0).all(axis=-1).sum() for x in (60, 220)]
  assert ink_rows[1] - ink_rows[0] == 128  # one row on the left, two right


def test_sheet_centres_smaller_images_among_larger():
  got = draw_sheet([{'x': flat(-1.0, size=256), 'y': flat(-1.0, size=128)}])
  black = (got == 0).all(axis=-1)
  assert black[:, 264:].sum() == 128 * 128 + black[:-260, 264:].sum()
  assert black[-4 - 128, 264 + 128]
  assert not black[-4 - 20, 264 + 128]


def test_sheet_draws_the_arrow_that_the_font_lacks():
  picture = draw_sheet([{'→': flat(1.0)}])
  ink = 255 - picture[:-132].min(axis=-1).astype(int)
  across = ink.sum(axis=0) / 255
  columns = np.flatnonzero(across)
  across = across[columns[0] : columns[-1] + 1]
  half = len(across) // 2
  assert len(across) >= 8
  assert across[:half].max() < 2.5  # a line, not a missing glyph's box
  assert across[half:].max() > 1.4 * across[:half].max()  # and a head


def test_long_titles_stay_over_their_column():
  got = draw_sheet([{'back again to where it was': flat(1.0), 'b': flat(1.0)}])
  header = got[: got.shape[0] - 132]
  assert (header[:, 132:136] == 255).all()


@pytest.mark.parametrize('blocks', [[], [{}], [{'a': flat(0.0, count=0)}]])
def test_sheet_of_nothing(blocks):
  with pytest.raises(ValueError, match=r'^a sheet needs at least one image$'):
    draw_sheet(blocks)


@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_encode_png(channels):
  shape = 2, 3, channels
  image = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
  with Image.open(io.BytesIO(encode_png(image))) as saved:
    assert saved.format == 'PNG'
    np.testing.assert_array_equal(np.asarray(saved).reshape(shape), image)
