import json

import numpy as np
import pytest

from cyclegan_jax.errors import DataError
from cyclegan_jax.metrics.label_maps import (
  Palette,
  confusion_matrix,
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


def score(translated, target, palette=PALETTE):
  return label_scores(confusion_matrix(translated, target, palette), palette)


def test_scores_by_hand():
  target = picture(RED, RED, RED, GREEN, GREEN, BLACK)
  translated = picture(RED, RED, GREEN, GREEN, BLUE, RED)
  scores = score(translated, target)
  assert scores.pixel_accuracy == 3 / 5  # void is not scored
  assert scores.class_accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)
  # Red: 2 of 3, as what is painted on void is no mistake. Green: 1 of 3.
  # Blue is painted where none is.
  assert scores.mean_iou == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)


def test_scores_are_of_all_images_together():
  target = np.concatenate([picture(RED, RED), picture(GREEN, RED)])
  translated = np.concatenate([picture(RED, RED), picture(RED, RED)])
  scores = score(translated, target)
  assert scores == (3 / 4, 1 / 2, (3 / 4 + 0) / 2)


def test_void_painted_on_a_class_is_wrong():
  scores = score(picture(BLACK, RED), picture(RED, RED))
  assert scores == (1 / 2, 1 / 2, 1 / 2)


def test_the_nearest_color_counts():
  target = picture(RED, GREEN, BLUE)
  painted = picture([180, 40, 30], [90, 140, 60], [70, 70, 101])
  assert score(painted, target) == (1, 1, 1)


def test_nearest_is_euclidean_and_exact():
  palette = Palette(('a', 'b'), np.array([[0] * 3, [255] * 3], np.uint8))
  # 127 is nearer to 0, by one level of one channel.
  target = picture([0] * 3, [255] * 3)
  painted = picture([127, 127, 128], [127, 128, 128])
  assert score(painted, target, palette).pixel_accuracy == 1


def test_a_target_of_void_has_no_score():
  scores = score(picture(RED), picture(BLACK))
  assert np.isnan(scores).all()


def test_cityscapes():
  palette = read_palette('cityscapes')
  assert palette.colors.shape == (29, 3)
  assert (~palette.is_void).sum() == 19
  assert palette.names[0] == 'road'
  assert palette.colors[13].tolist() == [0, 0, 142]  # car
  images = palette.colors[None, None]
  assert score(images, images, palette) == (1, 1, 1)


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
  palette = read_palette(str(path))
  assert palette.names == ('sky', 'sea', 'void')
  assert palette.colors.tolist() == [[70, 130, 180], [0, 0, 255], [0, 0, 0]]
  assert palette.colors.dtype == np.uint8
  assert palette.is_void.tolist() == [False, False, True]


@pytest.mark.parametrize('text', ['[[1, 2, 3], [4, 5, 6]]', '1 2 3\n4 5 6\n'])
def test_names_may_be_left_out(tmp_path, text):
  path = tmp_path / 'palette.txt'
  path.write_text(text, encoding='utf-8')
  assert read_palette(str(path)).names == ('color 1', 'color 2')
  assert read_palette(str(path)).colors.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
  'text, named',
  [
    ('{"a": [1, 2', 'JSON (line 1)'),
    ('{"a": [1, 2]}', 'a has the color [1, 2]'),
    ('{"a": "red"}', 'a has the color "red"'),
    ('[[1, 2, 256]]', 'color 1 has the color [1, 2, 256]'),
    ('[[1, 2, true]]', 'color 1 has the color [1, 2, true]'),
    ('1 2 3 a\n1 2 3 b\n', 'a and b'),
    ('road 1 2 3\n', 'line 1'),
    ('1 2 3 a\n0 0 0 void\n', 'two classes'),
    ('', 'two classes'),
    (b'\xff\xfe\x00', 'not text'),
    (None, 'No such file'),
  ],
)
def test_invalid_palettes(tmp_path, text, named):
  path = tmp_path / 'palette'
  if text is not None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
  with pytest.raises(DataError) as caught:
    read_palette(str(path))
  assert str(caught.value).startswith(f'palette {path}')
  assert named in str(caught.value)


def test_no_palette():
  assert read_palette('') is read_palette('none') is None


def test_a_palette_as_json_dumps_it(tmp_path):
  palette = read_palette('cityscapes')
  path = tmp_path / 'cityscapes.json'
  content = dict(zip(palette.names, palette.colors.tolist(), strict=True))
  path.write_text(json.dumps(content), encoding='utf-8')
  again = read_palette(str(path))
  assert again.names == palette.names
  np.testing.assert_array_equal(again.colors, palette.colors)
