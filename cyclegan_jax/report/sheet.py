"""Sample sheets: one picture of many images."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cyclegan_jax.images import to_rgb

_INK = (32, 33, 36)


_ARROW = '→'  # Pillow's own font lacks it, so it is drawn


def draw_sheet(
  blocks: Sequence[Mapping[str, np.ndarray]],
  *,
  min_cell: int = 128,
  gap: int = 4,
) -> np.ndarray:
  """One picture of many images: a row an image, a column a title.

  Args:
    blocks: groups of columns, from left to right: by title, images
      [N, H, W, C] in [-1, 1]; their N, H, W and C may differ.
    min_cell: the least height and width at which an image is shown, in
      pixels; smaller ones are enlarged by a whole factor, so that a pixel
      stays a square.
    gap: white pixels between images; three times as many between blocks.

  Returns:
    uint8 [h, w, 3].

  Raises:
    ValueError: there is no image.
  """
  shown = [
    [(title, _enlarge(to_rgb(images), min_cell)) for title, images in b.items()]
    for b in blocks
  ]
  columns = [images for block in shown for _, images in block]
  if not any(len(images) for images in columns):
    raise ValueError('a sheet needs at least one image')
  rows = max(len(images) for images in columns)
  height = max(images.shape[1] for images in columns)
  width = max(images.shape[2] for images in columns)
  titles = [title for block in shown for title, _ in block]
  font = _title_font(titles, width)
  header = round(font.size * 1.9)

  # Each column brings a gap to its right, each block but the last two more.
  total = gap + len(columns) * (width + gap) + 2 * gap * (len(shown) - 1)
  canvas = Image.new(
    'RGB', (total, header + rows * (height + gap)), color='white'
  )
  x = gap
  for block in shown:
    for title, images in block:
      _draw_title(canvas, (x + width / 2, header / 2), title, font)
      for row, image in enumerate(images):
        left = x + (width - image.shape[1]) // 2
        top = header + row * (height + gap) + (height - image.shape[0]) // 2
        canvas.paste(Image.fromarray(image), (left, top))
      x += width + gap
    x += 2 * gap
  return np.asarray(canvas)


def encode_png(image: np.ndarray) -> bytes:
  """A PNG file.

  Args:
    image: uint8 [h, w, C], C 1 to 4: grey, with alpha, RGB, with alpha.
  """
  image = image[..., 0] if image.shape[-1] == 1 else image
  file = io.BytesIO()
  # Of a sheet level 4 makes what 6 makes, in a third of the time.
  Image.fromarray(image).save(file, format='PNG', compress_level=4)
  return file.getvalue()


def _enlarge(images: np.ndarray, least: int) -> np.ndarray:
  factor = max(1, -(-least // min(images.shape[1:3])))
  return images.repeat(factor, axis=1).repeat(factor, axis=2)


def _title_font(titles: Sequence[str], width: int) -> ImageFont.FreeTypeFont:
  """The largest font in which every title fits over a column."""
  size = min(max(width // 9, 12), 28)
  while True:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow's wheels have it
    widest = max(_title_width(title, font) for title in titles)
    if widest <= width or size <= 9:
      return font
    size -= 1


def _title_width(title: str, font: ImageFont.FreeTypeFont) -> float:
  plain = title.replace(_ARROW, '')
  return font.getlength(plain) + title.count(_ARROW) * font.size


def _draw_title(
  canvas: Image.Image,
  middle: tuple[float, float],
  title: str,
  font: ImageFont.FreeTypeFont,
) -> None:
  draw = ImageDraw.Draw(canvas)
  x, y = middle[0] - _title_width(title, font) / 2, middle[1]
  for index, part in enumerate(title.split(_ARROW)):
    if index:
      arrow = _arrow_mask(int(font.size))
      canvas.paste(_INK, (round(x), round(y - font.size / 2)), arrow)
      x += font.size
    draw.text((x, y), part, fill=_INK, font=font, anchor='lm')
    x += font.getlength(part)


def _arrow_mask(size: int) -> Image.Image:
  """An arrow to the right, [size, size] grey levels, with smooth edges."""
  fine = 4 * size  # lines of Pillow are not smooth: drawn large, then shrunk
  mask = Image.new('L', (fine, fine))
  draw = ImageDraw.Draw(mask)
  left, right, middle = fine * 0.08, fine * 0.9, fine * 0.54
  tip, line = fine * 0.22, max(4, round(fine * 0.085))
  draw.line([(left, middle), (right, middle)], fill=255, width=line)
  for side in (-tip, tip):
    ends = [(right - tip, middle + side), (right, middle)]
    draw.line(ends, fill=255, width=line)
  return mask.resize((size, size), Image.Resampling.LANCZOS)
