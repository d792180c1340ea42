import json
import re

import numpy as np
import pytest

from cyclegan_jax.errors import DataError
from cyclegan_jax.metrics.label_maps import (
  Palette,
  label_scores,
  read_palette,
)

RED, GREEN, BLUE, BLACK = (
  [200, 0, 0],
  [0, 200, 0],
  [0, 0, 200],
  [0, 0, 0],
)
PALETTE = Palette(
  ('red', 'green', 'blue', 'void'),
  np.array([RED, GREEN, BLUE, BLACK], np.uint8),
)


def picture(*pixels):
  """One image with a row of pixels."""
  return np.array([[pixels]], np.uint8)


def test_scores_by_hand():
  target = picture(RED, RED, RED, GREEN, GREEN, BLACK)
  translated = picture(RED, RED, GREEN, GREEN, BLUE, RED)
  scores = label_scores(translated, target, PALETTE)
  assert scores.pixel_accuracy == 3 / 5  # void is not scored
  assert scores.class_accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)
  # Red: 2 of 3, as what is painted on void is no mistake. Green: 1 of 3.
  # Blue is painted where none is.
  assert scores.mean_iou == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)


def test_scores_are_of_all_images_together():
  target = np.concatenate([picture(RED, RED), picture(GREEN, RED)])
  translated = np.concatenate([picture(RED, RED), picture(RED, RED)])
  scores = label_scores(translated, target, PALETTE)
  assert scores == (3 / 4, 1 / 2, (3 / 4 + 0) / 2)


def test_void_painted_on_a_class_is_wrong():
  scores = label_scores(picture(BLACK, RED), picture(RED, RED), PALETTE)
  assert scores == (1 / 2, 1 / 2, 1 / 2)


def test_the_nearest_colour_counts():
  target = picture(RED, GREEN, BLUE)
  painted = picture([180, 40, 30], [90, 140, 60], [70, 70, 101])
  assert label_scores(painted, target, PALETTE) == (1, 1, 1)


def test_nearest_is_euclidean_and_exact():
  palette = Palette(('a', 'b'), np.array([[0] * 3, [255] * 3], np.uint8))
  # 127 is nearer to 0, by one level of one channel.
  target = picture([0] * 3, [255] * 3)
  painted = picture([127, 127, 128], [127, 128, 128])
  assert label_scores(painted, target, palette).pixel_accuracy == 1


def test_a_target_of_void_has_no_score():
  scores = label_scores(picture(RED), picture(BLACK), PALETTE)
  assert np.isnan(scores).all()


@pytest.mark.parametrize(
  'translated, message',
  [
    (
      np.zeros((1, 1, 2, 3), np.uint8),
      'translated is uint8 [1, 1, 2, 3]: both must be uint8 of one '
      '[N, H, W, 3]',
    ),
    (
      np.zeros((1, 1, 1, 3), np.float32),
      'translated is float32 [1, 1, 1, 3]: both must be uint8 of one '
      '[N, H, W, 3]',
    ),
  ],
)
def test_arrays_that_do_not_fit(translated, message):
  with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
    label_scores(translated, picture(RED), PALETTE)


def test_cityscapes():
  palette = read_palette('cityscapes')
  assert palette.colours.shape == (29, 3)
  assert (~palette.is_void).sum() == 19
  assert palette.names[0] == 'road'
  assert palette.colours[13].tolist() == [0, 0, 142]  # car
  images = palette.colours[None, None]
  assert label_scores(images, images, palette) == (1, 1, 1)


@pytest.mark.parametrize(
  'text',
  [
    '{"sky": [70, 130, 180], "sea": "#0000FF", "void": [0, 0, 0]}',
    '70 130 180 sky\n\n0,0,255 sea // deep\n// none:\n0 0 0 void\n',
  ],
  ids=['json', 'text'],
)
def test_palettes_are_read(tmp_path, text):
  path = tmp_path / 'palette'
  path.write_text(text, encoding='utf-8')
  palette = read_palette(path)
  assert palette.names == ('sky', 'sea', 'void')
  assert palette.colours.tolist() == [[70, 130, 180], [0, 0, 255], [0, 0, 0]]
  assert palette.colours.dtype == np.uint8
  assert palette.is_void.tolist() == [False, False, True]


@pytest.mark.parametrize('text', ['[[1, 2, 3], [4, 5, 6]]', '1 2 3\n4 5 6\n'])
def test_names_may_be_left_out(tmp_path, text):
  path = tmp_path / 'palette.txt'
  path.write_text(text, encoding='utf-8')
  assert read_palette(path).names == ('colour 1', 'colour 2')
  assert read_palette(path).colours.tolist() == [[1, 2, 3], [4, 5, 6]]


COLOUR = 'give three whole numbers from 0 to 255'


@pytest.mark.parametrize(
  'text, message',
  [
    ('{"a": [1, 2', 'palette {path} is no valid JSON (line 1)'),
    ('{"a": [1, 2]}', 'palette {path}: a has the colour [1, 2]: ' + COLOUR),
    ('{"a": "red"}', 'palette {path}: a has the colour "red": ' + COLOUR),
    (
      '[[1, 2, 256]]',
      'palette {path}: colour 1 has the colour [1, 2, 256]: ' + COLOUR,
    ),
    (
      '[[1, 2, true]]',
      'palette {path}: colour 1 has the colour [1, 2, true]: ' + COLOUR,
    ),
    (
      '1 2 3 a\n1 2 3 b\n',
      'palette {path}: a and b have one colour, [1, 2, 3]: give each its own',
    ),
    (
      'road 1 2 3\n',
      "palette {path}, line 1 is 'road 1 2 3': write `128 64 128 road`",
    ),
    (
      '1 2 3 a\n0 0 0 void\n',
      'palette {path} has fewer than two classes: give a colour for each',
    ),
    ('', 'palette {path} has fewer than two classes: give a colour for each'),
  ],
)
def test_palettes_that_are_none(tmp_path, text, message):
  path = tmp_path / 'palette'
  path.write_text(text, encoding='utf-8')
  with pytest.raises(DataError) as caught:
    read_palette(path)
  assert str(caught.value) == message.format(path=path)


def test_a_palette_that_is_not_there(tmp_path):
  path = tmp_path / 'palette.json'
  rest = "give a JSON or text file of colours, or 'cityscapes'"
  with pytest.raises(DataError) as caught:
    read_palette(path)
  assert str(caught.value) == (
    f"palette {path} can't be read (No such file or directory): {rest}"
  )
  path.write_bytes(b'\xff\xfe\x00')
  with pytest.raises(DataError) as caught:
    read_palette(path)
  assert str(caught.value) == (
    f"palette {path} can't be read (it is no text): {rest}"
  )


def test_a_palette_as_json_dumps_it(tmp_path):
  palette = read_palette('cityscapes')
  path = tmp_path / 'cityscapes.json'
  content = dict(zip(palette.names, palette.colours.tolist(), strict=True))
  path.write_text(json.dumps(content), encoding='utf-8')
  again = read_palette(str(path))
  assert again.names == palette.names
  np.testing.assert_array_equal(again.colours, palette.colours)
