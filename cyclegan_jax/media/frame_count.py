"""How many pictures an image file holds, by its headers."""

from typing import BinaryIO

from cyclegan_jax.media.decoding import (
  MODES,
  opened_image,
)
from cyclegan_jax.media.header_limits import (
  check_tags,
  read_directory,
)
from cyclegan_jax.media.tiff_reader import (
  is_tiff,
  read_layout,
)

_MOST_PAGES = 2**16  # that are counted
_WIDTH, _LENGTH = 256, 257
_NEW_KIND, _KIND = 254, 255  # of a page: an image, or what belongs to one
_REDUCED_OR_MASK = 1 | 4
_REDUCED = 2  # the older tag's
_WEBP_IS_ANIMATED = 0x02


def count_frames(
  file: BinaryIO, name: str, *, channels: int, max_pixels: int
) -> int:
  """Counts frames of an animation, or pages.

  Pages are those of a TIFF file that are of the first one's size, without
  thumbnails and masks; pages that are read as channels are one image.

  Args:
    file: open for reading, seekable, of an image that could be read.
    name: path or id, for the message.
    channels: that it is read with.
    max_pixels: that an image may have.

  Returns:
    At least 1. An APNG file's first picture counts, whether it is part of the
    animation or not.

  Raises:
    ImageError: it is no image.
  """
  if is_tiff(file):
    return _count_pages(file, channels, max_pixels)
  start = file.read(30)
  file.seek(0)
  if start[:4] == b'RIFF':
    # Others are not worth being opened, which makes a canvas.
    is_animated = start[12:16] == b'VP8X' and start[20] & _WEBP_IS_ANIMATED
    if not is_animated:
      return 1
  elif not start.startswith(b'\x89PNG'):
    return 1  # a JPEG file's further images are made from the first
  with opened_image(file, name, max_pixels) as image:
    return max(1, getattr(image, 'n_frames', 1))


def _count_pages(file: BinaryIO, channels: int, max_pixels: int) -> int:
  try:
    layout = read_layout(file, max_pixels=max_pixels)
    # As in `depth`: in 8 bits pages are channels beyond four only.
    can_be_channels = layout.dtype != 'uint8' or channels not in MODES
    if can_be_channels and len(layout.pages) == channels > 1:
      return 1
    size = _size(check_tags(file))
    offset = read_directory(file).next_offset
    count, seen = 1, set[int]()
    while offset and offset not in seen and len(seen) < _MOST_PAGES:
      seen.add(offset)
      page = read_directory(file, offset)
      tags = check_tags(file, offset)
      is_part = tags.get(_NEW_KIND, 0) & _REDUCED_OR_MASK
      is_part = is_part or tags.get(_KIND, 0) == _REDUCED
      count += _size(tags) == size and not is_part
      offset = page.next_offset
    return count
  except ValueError:  # of pages that claim too much, and are not read
    return 1


def _size(tags: dict[int, int]) -> tuple[int | None, int | None]:
  return tags.get(_WIDTH), tags.get(_LENGTH)
