"""Images in files and in members of zip archives, decoded on demand."""

import collections
import functools
import io
import logging
import zipfile
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from cyclegan_jax.data.archive import Archive
from cyclegan_jax.data.image_list import Images
from cyclegan_jax.errors import ImageError, printable
from cyclegan_jax.media.decoding import (
  Decoded,
  decode,
  decode_opaque,
  decoded_shape,
  explained,
  tiff_pages,
)
from cyclegan_jax.media.listing import (
  Stamp,
  ending_of,
  has_changed,
  natural,
  open_file,
)
from cyclegan_jax.media.medical import kind_by_name, read_scan, read_slice
from cyclegan_jax.media.metadata import Header, read_header
from cyclegan_jax.media.value_range import Values

_Opener = Callable[[int], BinaryIO]
_TIFF = ('.tif', '.tiff')


class _Place(NamedTuple):
  """Where an image is.

  Attributes:
    name: of the image.
    file: index of its file.
    page: number of the slice, frame or page; None for a whole file.
    is_medical: whether `media.medical` reads the file.
  """

  name: str
  file: int
  page: int | None = None
  is_medical: bool = False


class _Files:
  """Files with one or more images each."""

  def __init__(
    self,
    names: Sequence[str],
    opener: _Opener,
    *,
    channels: int,
    max_pixels: int,
    pages: str,
    slice_axis: int,
  ):
    """Reads the headers of files that may hold several images.

    Args:
      names: paths or ids.
      opener: opens the file of an index.
      channels: as for `images_of_files`.
      max_pixels: likewise.
      pages: likewise.
      slice_axis: likewise.

    Raises:
      UserError: it takes a package that is not installed.
    """
    self._names = names
    self._opener = opener
    self._channels = channels
    self._max_pixels = max_pixels
    self._all_pages = pages == 'all'
    self._scan_options = {'slice_axis': slice_axis, 'max_pixels': max_pixels}
    self.empty = collections.Counter[str]()  # files without pixels, by ending
    self.places: list[_Place] = []
    # Codes of DICOM files, for each that has pixels.
    self._modalities, self._rescale_types = set[str](), set[str]()
    self._other_pages: dict[str, int] = {}  # left out, by file
    examples: dict[str, str] = {}  # a volume of each orientation
    for index in range(len(names)):
      self.places += self._places_in(index, examples)
    if self._other_pages:
      logging.getLogger('cyclegan_jax').warning(
        'left out %d pages of %d TIFF files, such as %s: they are of another '
        'size than the first page of their file',
        *(sum(self._other_pages.values()), len(self._other_pages)),
        printable(next(iter(self._other_pages))),
      )
    examples.pop('', None)
    if len(examples) > 1:
      volumes = [
        f'{code} ({printable(each)})' for code, each in examples.items()
      ]
      logging.getLogger('cyclegan_jax').warning(
        'volumes lie in different orientations, so that slices along one axis '
        'are mirrored or of different planes: %s. Reorient them, for example '
        'by nibabel.as_closest_canonical',
        ', '.join(volumes),
      )

  def codes(self) -> dict[str, Any]:
    """The codes of `Images` that all DICOM files share, by name."""
    found = {
      'modality': self._modalities,
      'rescale_type': self._rescale_types,
    }
    return {
      name: next(iter(codes)) if len(codes) == 1 else ''
      for name, codes in found.items()
    }

  def readers(self) -> dict[str, Any]:
    """The functions of `Images` that read files, by name."""
    # Bound methods of one object, which all share the list of places.
    return {
      'read': self._read,
      'shape_of': self._shape_of,
      'stored': self._stored,
      'measured': self._measured,
      'header_of': self._header_of,
    }

  def _places_in(self, index: int, examples: dict[str, str]) -> list[_Place]:
    name = self._names[index]
    is_medical = bool(kind_by_name(name))
    is_stack = self._all_pages and name.lower().endswith(_TIFF)
    if not is_medical and not is_stack:
      return [_Place(name, index)]
    try:
      with self._opener(index) as file:
        if is_medical:
          scan = read_scan(file, name, **self._scan_options)
          if scan.num_images and kind_by_name(name) == 'dicom':
            self._modalities.add(scan.modality)
            self._rescale_types.add(scan.rescale_type)
          examples.setdefault(scan.orientation, name)
          numbers = list(range(scan.num_images))
        else:
          numbers, num_others = tiff_pages(
            file, name, max_pixels=self._max_pixels
          )
          if num_others:
            self._other_pages[name] = num_others
    except ImageError:
      return [_Place(name, index, 0, is_medical)]  # the decoder will count it
    if not numbers:
      self.empty[ending_of(name)] += 1
    if len(numbers) == 1:
      return [_Place(name, index, numbers[0], is_medical)]
    return [
      _Place(f'{name}[{number}]', index, number, is_medical)
      for number in numbers
    ]

  def _read(self, index: int) -> np.ndarray:
    place = self.places[index]
    with self._opener(place.file) as file:
      if not place.is_medical:
        return decode(file, place.name, **self._options(place))
      pixels = self._slice(place, file).pixels
      with explained(file, place.name):
        Values('uint8', 0, 255).of(str(pixels.dtype))  # floats have no range
      return pixels

  def _stored(self, index: int) -> np.ndarray:
    return self._decoded(index).pixels

  def _measured(self, index: int) -> np.ndarray:
    decoded = self._decoded(index)
    if decoded.missing is None:
      return decoded.pixels
    return decoded.pixels[~decoded.missing]

  def _decoded(self, index: int) -> Decoded:
    place = self.places[index]
    with self._opener(place.file) as file:
      if place.is_medical:
        return self._slice(place, file)
      return decode_opaque(file, place.name, **self._options(place))

  def _slice(self, place: _Place, file: BinaryIO) -> Decoded:
    return read_slice(
      file,
      self._names[place.file],
      place.page or 0,
      channels=self._channels,
      **self._scan_options,
    )

  def _options(self, place: _Place) -> dict[str, Any]:
    return {
      'channels': self._channels,
      'max_pixels': self._max_pixels,
      'page': place.page,
    }

  def _shape_of(self, index: int) -> tuple[int, int]:
    place = self.places[index]
    with self._opener(place.file) as file:
      if not place.is_medical:
        return decoded_shape(file, place.name, max_pixels=self._max_pixels)
      scan = read_scan(file, self._names[place.file], **self._scan_options)
      return scan.height, scan.width

  def _header_of(self, index: int) -> Header:
    place = self.places[index]
    with self._opener(place.file) as file:
      if place.is_medical:
        scan = read_scan(file, self._names[place.file], **self._scan_options)
        return Header(scan.dtype, scan.colors, 1, False)
      header = read_header(
        file, place.name, channels=self._channels, max_pixels=self._max_pixels
      )
      return header if place.page is None else header._replace(num_frames=1)


def images_of_files(
  paths: Sequence[str],
  *,
  channels: int,
  max_pixels: int,
  root: str = '',
  stamps: Sequence[Stamp | None] | None = None,
  pages: str = 'first',
  slice_axis: int = 2,
) -> Images:
  """Images in files, decoded on demand.

  A volume, or a DICOM file of several frames, is as many images as it has
  slices: 'a.nii.gz[0]' and so on.

  Args:
    paths: paths of the files, which are also the images' names.
    channels: channels of every image: 1 gray, 2 gray and alpha, 3 RGB, 4
      RGBA; or the number of bands that TIFF files have.
    max_pixels: an image with more raises ImageError when it is read.
    root: common start of all paths, '/' included.
    stamps: sizes and times of the files as they were listed, by which a
      change is noticed.
    pages: 'all' makes images of all pages of TIFF files, 'first' of the first.
    slice_axis: axis of NIfTI volumes along which their images lie.
  """
  paths = tuple(paths)
  files = _Files(
    paths,
    functools.partial(_open, paths),
    channels=channels,
    max_pixels=max_pixels,
    pages=pages,
    slice_axis=slice_axis,
  )
  if stamps is not None:
    stamps = [stamps[place.file] for place in files.places]
  return Images(
    names=tuple(place.name for place in files.places),
    **files.readers(),
    **files.codes(),
    root=root,
    sizes=None if stamps is None else [s.size if s else None for s in stamps],
    changed=None
    if stamps is None
    else functools.partial(
      _changed, [paths[place.file] for place in files.places], stamps
    ),
    other_files=files.empty,
  )


def _open(paths: Sequence[str], index: int) -> BinaryIO:
  return open_file(paths[index])


def _changed(
  paths: Sequence[str], stamps: Sequence[Stamp | None], index: int
) -> str:
  return paths[index] if has_changed(paths[index], stamps[index]) else ''


def images_of_members(
  archive: Archive,
  inner: str,
  *,
  channels: int,
  max_pixels: int,
  pages: str = 'first',
  slice_axis: int = 2,
) -> Images:
  """Images in a folder of a zip archive, in the order of `list_images`.

  Args:
    archive: an open archive.
    inner: folder in it, such as 'horses/trainA/', or '' for all of it.
    channels: as for `images_of_files`.
    max_pixels: likewise.
    pages: likewise.
    slice_axis: likewise.
  """
  entries = sorted(
    (image for image in archive.images if image.filename.startswith(inner)),
    key=lambda entry: natural(entry.filename[len(inner) :]),
  )
  files = _Files(
    tuple(f'{archive.path}/{entry.filename}' for entry in entries),
    functools.partial(_open_entry, archive, entries),
    channels=channels,
    max_pixels=max_pixels,
    pages=pages,
    slice_axis=slice_axis,
  )
  return Images(
    names=tuple(place.name for place in files.places),
    **files.readers(),
    **files.codes(),
    root=f'{archive.path}/{inner}',
    sizes=[entries[place.file].file_size for place in files.places],
    changed=functools.partial(_changed_archive, archive),
    other_files=files.empty,
  )


def _changed_archive(archive: Archive, index: int) -> str:
  del index  # which of the members changed is not known
  return archive.path if has_changed(archive.path, archive.stamp) else ''


def _open_entry(
  archive: Archive, entries: Sequence[zipfile.ZipInfo], index: int
) -> BinaryIO:
  return io.BytesIO(archive.read(entries[index]))
