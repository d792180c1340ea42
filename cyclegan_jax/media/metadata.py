"""What an image file holds beside pixels: EXIF data and a colour profile."""

import io
from typing import Any, BinaryIO, NamedTuple

from PIL import Image

from cyclegan_jax.media.decoding import (
  exif_of,
  opened_image,
)
from cyclegan_jax.media.header_limits import check_tags
from cyclegan_jax.media.tiff_reader import is_tiff

_ORIENTATION, _ICC = 0x0112, 34675
_EXIF, _GPS, _INTEROP = 0x8769, 0x8825, 0xA005  # that lead to more tags
_SIZE = (0xA002, 0xA003)  # width and height, in what _EXIF leads to
# Of a TIFF file's tags, those on where the image comes from: the camera, the
# author, the place on earth. The others say how its pixels lie.
_CARRIED = (
  *(271, 272, 282, 283, 296, 305, 306, 315, 316, 33432),
  *(33550, 33922, 34264, 34735, 34736, 34737),
  *(_EXIF, _GPS),
)


class Metadata(NamedTuple):
  """What comes with pixels.

  Attributes:
    exif: with its prefix, for upright pixels; None for none.
    icc: the colour profile; None for none.
    format: 'JPEG', 'PNG', 'WEBP', 'BMP' or 'TIFF'.
  """

  exif: bytes | None
  icc: bytes | None
  format: str


def read_metadata(file: BinaryIO, name: str, *, max_pixels: int) -> Metadata:
  """Reads what comes with the pixels; what is broken of it is left out.

  Args:
    file: open for reading, seekable.
    name: path or id, for the message.
    max_pixels: that its image may have.

  Raises:
    ImageError: it is no image.
  """
  if is_tiff(file):
    return _of_tiff(file)
  with opened_image(file, name, max_pixels) as image:
    icc = image.info.get('icc_profile')
    return Metadata(_exif(image), icc or None, str(image.format))


def _exif(image: Image.Image) -> bytes | None:
  try:
    raw = exif_of(image)
    if not raw:
      return None
    _check(io.BytesIO(raw))
    exif = Image.Exif()
    exif.load(raw)
    if exif.get(_ORIENTATION, 1) != 1:
      if exif[_ORIENTATION] >= 5:  # width and height change places
        inner = exif.get_ifd(_EXIF)
        exif[_EXIF] = {tag: inner[tag] for tag in inner if tag not in _SIZE}
      exif[_ORIENTATION] = 1
    return exif.tobytes()
  except Exception:  # damaged tags end in nearly any of them
    return None


def _of_tiff(file: BinaryIO) -> Metadata:
  try:
    _check(file)
    file.seek(0)
    exif = Image.Exif()
    exif.load_from_fp(file)
    carried: Any = Image.Exif()
    for tag in _CARRIED:
      if tag in exif:
        leads_on = tag in (_EXIF, _GPS)
        carried[tag] = dict(exif.get_ifd(tag)) if leads_on else exif[tag]
    icc = exif.get(_ICC)
    found = carried.tobytes() if len(carried) else None
    return Metadata(found, icc if isinstance(icc, bytes) else None, 'TIFF')
  except Exception:  # likewise; BigTIFF is of an order of its own
    return Metadata(None, None, 'TIFF')


def _check(file: BinaryIO) -> None:
  """Raises ValueError where tags, or those they lead to, claim too much."""
  tags = check_tags(file)
  for pointer in (_EXIF, _GPS):
    if pointer in tags:
      inner = check_tags(file, tags[pointer])
      if _INTEROP in inner:
        check_tags(file, inner[_INTEROP])
