"""TIFF writing: bands of any number and depth, whole or by windows.

tifffile writes the files, but for EXIF data. That is a TIFF file without
pixels, so the new file begins with it, where the offsets in it stay true.
"""

import contextlib
import io
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import tifffile

from cyclegan_jax.media.header_limits import read_directory
from cyclegan_jax.media.tiff_reader import Tag, quiet_tifffile
from cyclegan_jax.storage.atomic import replacing

# Offsets have 32 bits; the rest is left for tags.
_MAX_BYTES = 2**32 - 2**25
_STRIP_BYTES = 2**20
_EXIF, _GPS = 34665, 34853  # tags that lead on to more tags
_LONG = 4  # type of a tag
_RESOLUTION, _UNIT = (282, 283), 296
_UNITS = (1, 2, 3)  # none, inch, centimeter
# Tags of EXIF data that say how its own pixels lie, or that are written anew.
_OF_PIXELS = frozenset(
  (
    *(*range(254, 267), *range(273, 285), *range(288, 294), 296, 301),
    *(*range(317, 348), *range(512, 533), 34675),
  )
)


def encode_tiff(
  pixels: np.ndarray,
  *,
  has_alpha: bool = False,
  exif: bytes | None = None,
  icc: bytes | None = None,
  tags: Sequence[Tag] = (),
) -> bytes:
  """Encodes an image, compressed by Deflate; BigTIFF from 4 GiB.

  Args:
    pixels: uint8, uint16, int16 or float32 [h, w, C].
    has_alpha: whether the last channel is alpha.
    exif: EXIF data with or without its prefix; BigTIFF has none.
    icc: the color profile.
    tags: further tags, as `tiff_reader.read_tags` returns them.
  """
  height, width, channels = pixels.shape
  is_single = channels == 1
  file = io.BytesIO()
  _write(
    file,
    (height, width, channels),
    pixels.dtype,
    has_alpha=has_alpha,
    exif=exif,
    tags=tags,
    options={
      'data': np.ascontiguousarray(pixels[..., 0] if is_single else pixels),
      'compression': 'zlib',
      'iccprofile': icc,
    },
  )
  return file.getvalue()


def write_tiff_pages(
  path: pathlib.Path,
  images: Iterable[np.ndarray],
  count: int,
  *,
  exif: bytes | None = None,
  icc: bytes | None = None,
  tags: Sequence[Tag] = (),
) -> None:
  """Writes a stack page by page, whole or not at all.

  Args:
    path: of the file.
    images: [h, w, C] of one shape and type.
    count: number of images.
    exif: EXIF data, of which the resolution is kept.
    icc: the color profile.
    tags: further tags of every page, as `tiff_reader.read_tags` returns them.

  Raises:
    OSError: the disk is full, and so on.
  """
  _, _, resolution = _opening(exif)
  with replacing(path) as temporary, contextlib.ExitStack() as stack:
    stack.enter_context(quiet_tifffile())
    writer: Any = None
    for image in images:
      if writer is None:
        is_big = count * image.nbytes > _MAX_BYTES
        writer = stack.enter_context(
          tifffile.TiffWriter(temporary, bigtiff=is_big)
        )
      channels = image.shape[-1]
      writer.write(
        np.ascontiguousarray(image[..., 0] if channels == 1 else image),
        photometric='rgb' if channels == 3 else 'minisblack',
        planarconfig=None if channels == 1 else 'contig',
        extrasamples=['unspecified'] * (channels - (3 if channels == 3 else 1)),
        metadata=None,
        software=False,
        extratags=tags,
        compression='zlib',
        iccprofile=icc,
        maxworkers=1,
        **resolution,
      )


@contextlib.contextmanager
def write_tiff_windows(
  path: pathlib.Path,
  shape: tuple[int, int, int],
  dtype: str,
  *,
  exif: bytes | None = None,
  icc: bytes | None = None,
  tags: Sequence[Tag] = (),
) -> Iterator[Callable[[int, int, np.ndarray], None]]:
  """Writes an uncompressed file window by window, whole or not at all.

  Args:
    path: of the file.
    shape: (height, width, channels).
    dtype: 'uint8', 'uint16', 'int16' or 'float32'.
    exif: as for `encode_tiff`.
    icc: likewise.
    tags: likewise.

  Yields:
    A function of (y0, x0, [h, w, C]) that puts the window where its first
    pixel is (y0, x0). The file gets its name once the body ends.

  Raises:
    OSError: the disk is full, and so on.
  """
  height, width, channels = shape
  of_row = width * channels * np.dtype(dtype).itemsize
  with replacing(path) as temporary, temporary.open('w+b') as file:
    start, stored = _write(
      file,
      shape,
      np.dtype(dtype),
      exif=exif,
      tags=tags,
      options={
        'shape': shape[:2] if channels == 1 else shape,
        'dtype': dtype,
        'rowsperstrip': max(1, _STRIP_BYTES // of_row),
        'iccprofile': icc,
      },
    )
    file.flush()
    os.ftruncate(file.fileno(), start + height * of_row)

    def write(y0: int, x0: int, window: np.ndarray) -> None:
      window = np.ascontiguousarray(window, stored)
      for index, row in enumerate(window):
        pixel = (y0 + index) * width + x0
        offset = start + pixel * channels * stored.itemsize
        data = memoryview(row.tobytes())
        while data:
          count = os.pwrite(file.fileno(), data, offset)
          data, offset = data[count:], offset + count

    yield write
    os.fsync(file.fileno())


def _write(
  file: BinaryIO,
  shape: tuple[int, int, int],
  dtype: np.dtype,
  *,
  has_alpha: bool = False,
  exif: bytes | None,
  tags: Sequence[Tag],
  options: dict[str, Any],
) -> tuple[int, np.dtype]:
  """Writes an image.

  Returns:
    Where its pixels begin, if they lie in one piece, and their stored type.
  """
  channels = shape[2]
  is_rgb = channels - has_alpha == 3
  num_extra = channels - (3 if is_rgb else 1)
  is_big = math.prod(shape) * dtype.itemsize > _MAX_BYTES
  start, exif_tags, resolution = _opening(exif)
  if is_big:
    exif_tags = [tag for tag in exif_tags if isinstance(tag[0], int)]
  else:
    file.write(start)
    file.seek(0)
  order: Any = '>' if start[:2] == b'MM' else '<'
  kept = {tag[0] for tag in tags}
  with (
    quiet_tifffile(),
    tifffile.TiffWriter(
      file,
      bigtiff=is_big,
      byteorder=order,
      append=False if is_big else 'force',
    ) as writer,
  ):
    place = writer.write(
      photometric='rgb' if is_rgb else 'minisblack',
      planarconfig=None if channels == 1 else 'contig',
      extrasamples=['unspecified'] * (num_extra - has_alpha)
      + ['unassalpha'] * has_alpha,
      metadata=None,
      software=False,
      extratags=[
        *(tag for tag in exif_tags if tag[0] not in kept),
        *tags,
      ],
      returnoffset=True,
      maxworkers=1,
      **resolution,
      **options,
    )
  return place[0] if place else 0, dtype.newbyteorder(order)


def _opening(
  exif: bytes | None,
) -> tuple[bytes, list[Tag], dict[str, Any]]:
  """A TIFF file without a page that holds EXIF data, and its tags.

  Returns:
    The file; the tags of its page to be, of which those that lead on to
    others have names in place of numbers; and tifffile's options for the
    resolution.
  """
  data = (exif or b'').removeprefix(b'Exif\0\0')
  if data[:4] not in (b'II*\0', b'MM\0*'):
    return b'II*\0\0\0\0\0', [], {}
  read_directory(io.BytesIO(data))
  with quiet_tifffile(), tifffile.TiffFile(io.BytesIO(data)) as tiff:
    stored = tiff.pages.first.tags if tiff.pages else tifffile.TiffTags()
    tags: list[Any] = [
      # tifffile writes those that lead to more tags only by name.
      (tag.name, _LONG, 1, tag.valueoffset, True)
      if tag.code in (_EXIF, _GPS)
      else tag.astuple()
      for tag in stored
      if tag.code not in _OF_PIXELS
    ]
    values = tuple(stored.valueof(code) for code in _RESOLUTION)
    unit = stored.valueof(_UNIT)
  resolution = {} if None in values else {'resolution': values}
  if resolution and unit in _UNITS:
    resolution['resolutionunit'] = unit
  return data[:4] + bytes(4) + data[8:], tags, resolution
