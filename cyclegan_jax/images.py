"""Images between their two forms, and sheets of them for the eye.

Raw images are uint8 in [0, 255], or floats in [-1, 1] where files hold more
than 8 bits; the networks see floats in [-1, 1].
"""

import io
from collections.abc import Mapping, Sequence
from typing import TypeVar

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

AnyArray = TypeVar('AnyArray', np.ndarray, jax.Array)

_INK = (32, 33, 36)
_ARROW = '→'  # Pillow's own font lacks it, so it is drawn


def to_float(images: AnyArray) -> AnyArray:
  """What the networks see of raw images; runs inside jit as well.

  Args:
    images: of any shape: uint8, or float32 that is in [-1, 1] already.

  Returns:
    float32 in [-1, 1] of the same shape: of NumPy where images are, else of
    JAX.
  """
  if images.dtype == np.float32:
    return images
  # Not x / 127.5 - 1: XLA multiplies by the reciprocal, which makes 255 a
  # little more than 1.
  return (images.astype('float32') * 2 - 255) / 255


def to_uint8(images: np.ndarray | jax.Array) -> np.ndarray:
  """The uint8 images nearest to floats: the inverse of `to_float`.

  Args:
    images: floats of any shape; those outside [-1, 1] are clipped, and NaN
      becomes 0.

  Returns:
    uint8 of the same shape, always of NumPy.
  """
  # Clipped first: large numbers would overflow in the cast or the product.
  clipped = np.clip(np.asarray(images), -1, 1).astype(np.float32)
  return np.rint(np.nan_to_num((clipped + 1) * 127.5)).astype(np.uint8)


def to_rgb(images: np.ndarray) -> np.ndarray:
  """Images of any number of channels as a person can look at them.

  Args:
    images: [N, H, W, C] floats in [-1, 1]; two channels are grey and alpha,
      four are colour and alpha (shown on white), of more than four the first
      three are shown.

  Returns:
    uint8 [N, H, W, 3].
  """
  pixels = to_uint8(images)
  channels = pixels.shape[-1]
  if channels in (2, 4):
    alpha = pixels[..., -1:] / 255.0
    shown = pixels[..., :-1] * alpha + 255 * (1 - alpha)
    pixels = np.rint(shown).astype(np.uint8)
  if pixels.shape[-1] < 3:
    return np.repeat(pixels[..., :1], 3, axis=-1)
  return pixels[..., :3]


def sheet(
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
