"""DICOM files and NIfTI volumes, slice by slice and in their real units.

pydicom and nibabel (the extra `medical`) are imported where a file is read.
Values are float32 after the file's slope and intercept, such as Hounsfield
units, except for DICOM files of plain bytes.
"""

import collections
import gzip
import io
import logging
import math
import pathlib
import re
import threading
import warnings
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from cyclegan_jax.config import DICOM_CODE
from cyclegan_jax.errors import UserError
from cyclegan_jax.media.decoding import Decoded, explained, with_channels
from cyclegan_jax.media.header_limits import check_size
from cyclegan_jax.media.value_range import FULL, Values, with_missing
from cyclegan_jax.storage.atomic import replacing

_NIFTI = ('.nii', '.nii.gz')
_DICOM = ('.dcm',)
_DICOM_START = 128  # where the magic is
_GZIP = b'\x1f\x8b'
_NIFTI_HEADER_BYTES = 540  # of the second version, the longer one
_MAX_IMAGES = 2**20
_MAX_UNPACKED = 2**32  # bytes of a .nii.gz
_CACHED_BYTES = 2**29  # of unpacked volumes
_LARGEST = 65535.0  # stored value of the high end of a range
# Kinds of pixel data, whose padding has tags of its own.
_PIXEL_KINDS = ('', 'Float', 'DoubleFloat')
# They describe the stored values of the source.
_OF_VALUES = (
  *(f'{kind}PixelPaddingValue' for kind in _PIXEL_KINDS),
  *(f'{kind}PixelPaddingRangeLimit' for kind in _PIXEL_KINDS),
  'ModalityLUTSequence',
  *('SmallestImagePixelValue', 'LargestImagePixelValue', 'VOILUTSequence'),
  *('SmallestPixelValueInSeries', 'LargestPixelValueInSeries'),
  *('WindowCenter', 'WindowWidth', 'WindowCenterWidthExplanation'),
  *('RescaleSlope', 'RescaleIntercept', 'RescaleType', 'VOILUTFunction'),
  *('RedPaletteColorLookupTableDescriptor', 'RedPaletteColorLookupTableData'),
  *('GreenPaletteColorLookupTableDescriptor',),
  *('GreenPaletteColorLookupTableData', 'BluePaletteColorLookupTableData'),
  *('BluePaletteColorLookupTableDescriptor', 'PaletteColorLookupTableUID'),
  *('PixelData', 'FloatPixelData', 'DoubleFloatPixelData'),
  *('ExtendedOffsetTable', 'ExtendedOffsetTableLengths', 'ICCProfile'),
)


class Scan(NamedTuple):
  """Header of a DICOM or NIfTI file.

  Attributes:
    num_images: number of images in it; 0 for DICOM files without pixels.
    height: height of an image.
    width: width of an image.
    dtype: 'float32', or 'uint8' for plain bytes.
    colors: 1, or 3 for colors.
    orientation: where the axes of a NIfTI volume lead, such as 'RAS'.
    modality: of a DICOM file, such as 'CT'; '' if it names none.
    rescale_type: units of a DICOM file's values, such as 'HU'; 'US' if they
      are unspecified.
  """

  num_images: int
  height: int
  width: int
  dtype: str
  colors: int
  orientation: str = ''
  modality: str = ''
  rescale_type: str = ''


class Target(NamedTuple):
  """What DICOM translations say about their domain.

  Attributes:
    name: its name, in ASCII.
    modality: as in `Scan`; '' if it is unknown.
    rescale_type: likewise.
  """

  name: str
  modality: str = ''
  rescale_type: str = ''


def split_ending(name: str) -> tuple[str, str]:
  """Splits a file name; '.nii.gz' is one ending, and '.123' of a UID none."""
  path = pathlib.PurePath(name)
  if path.name.lower().endswith('.nii.gz'):
    return name[: -len('.nii.gz')], name[-len('.nii.gz') :]
  ending = '' if re.fullmatch('[.][0-9]+', path.suffix) else path.suffix
  return name[: len(name) - len(ending)], ending


def kind_by_name(name: str) -> str:
  """The kind of a listed image.

  Returns:
    'nifti', 'dicom' also for a name without an ending, or ''.
  """
  ending = split_ending(name)[1].lower()
  if ending in _NIFTI:
    return 'nifti'
  return 'dicom' if ending in ('', *_DICOM) else ''


def starts_as_dicom(file: BinaryIO) -> bool:
  """Whether the file has DICOM's magic; leaves the file at 0."""
  file.seek(0)
  start = file.read(_DICOM_START + 4)
  file.seek(0)
  return start[_DICOM_START:] == b'DICM'


def may_be_dicom(name: str) -> bool:
  """Whether the magic decides if a file of this name is an image."""
  return not split_ending(name)[1] and pathlib.PurePath(name).name != 'DICOMDIR'


def read_scan(
  file: BinaryIO, name: str, *, slice_axis: int, max_pixels: int
) -> Scan:
  """Reads the header.

  Args:
    file: open for reading, seekable.
    name: path or id, whose ending tells NIfTI from DICOM.
    slice_axis: axis of a NIfTI volume along which its images lie.
    max_pixels: limit on the pixels of an image.

  Raises:
    ImageError: the header is damaged or claims too much.
    UserError: pydicom or nibabel is not installed.
  """
  with explained(file, name):
    if kind_by_name(name) == 'nifti':
      scan = _nifti_scan(_nifti_header(file, name), name, slice_axis)
    else:
      scan = _dicom_scan(_dicom_header(file, name))
    check_size(scan.width, scan.height, max_pixels=max_pixels)
    if not 0 <= scan.num_images <= _MAX_IMAGES:
      raise ValueError(f'its header claims {scan.num_images} images')
    return scan


def read_slice(
  file: BinaryIO,
  name: str,
  index: int,
  *,
  channels: int,
  slice_axis: int,
  max_pixels: int,
) -> Decoded:
  """Reads one image of a file.

  Args:
    file: as for `read_scan`.
    name: likewise.
    index: number of the slice or of the frame. Volumes of more than three axes
      have the slices of all their volumes, one after another.
    channels: channels of the result.
    slice_axis: as for `read_scan`.
    max_pixels: likewise.

  Returns:
    Pixels of uint8 or float32; `missing` is padding, NaN and infinity, which
    are NaN in floats.

  Raises:
    ImageError: the file is damaged, or compressed by what cannot be decoded.
    UserError: pydicom or nibabel is not installed.
  """
  scan = read_scan(file, name, slice_axis=slice_axis, max_pixels=max_pixels)
  with explained(file, name):
    if not scan.num_images:
      raise ValueError('it has no pixels')
    is_padding: np.ndarray | None = None
    if kind_by_name(name) == 'nifti':
      pixels = _read_nifti(file, name, index, slice_axis)
    else:
      pixels, is_padding = _read_dicom(file, name, index)
    pixels = pixels.astype(scan.dtype, copy=False)
    missing = ~np.isfinite(pixels).all(axis=-1)
    if is_padding is not None:
      missing |= is_padding
    if scan.dtype == 'float32':
      pixels = with_missing(pixels, missing, math.nan)
    return Decoded(with_channels(pixels, channels), None, missing)


def write_scan(
  path: pathlib.Path,
  source: BinaryIO,
  name: str,
  slices: Iterable[tuple[np.ndarray, np.ndarray | None]],
  values: Values,
  *,
  slice_axis: int,
  max_pixels: int,
  identity: str,
  target: Target,
) -> None:
  """Writes translated images into a file like their source.

  Args:
    path: path of the file, which is written whole or not at all.
    source: the file that they were read from.
    name: path or id of the source, whose ending tells NIfTI from DICOM.
    slices: [h, w, 1 or 3] of all images in order, each with a bool [h, w] of
      the pixels that are without data, or None. They become NaN in a NIfTI
      volume, which then has floats, and padding in gray DICOM images.
    values: type and range of the values.
    slice_axis: as for `read_scan`.
    max_pixels: likewise.
    identity: text from which new UIDs of DICOM files follow.
    target: what DICOM files say about the domain of the images.

  Raises:
    ImageError: the source is damaged, or has what cannot be written again.
    OSError: the disk is full, and so on.
  """
  scan = read_scan(source, name, slice_axis=slice_axis, max_pixels=max_pixels)
  colors = 3 if kind_by_name(name) == 'dicom' and scan.colors == 3 else 1
  images = (
    (
      image if image.shape[-1] == colors else with_channels(image, colors),
      missing,
    )
    for image, missing in slices
  )
  if kind_by_name(name) == 'nifti':
    data = _encode_nifti(source, name, images, values.dtype, slice_axis)
    if path.name.lower().endswith('.gz'):
      data = gzip.compress(data, 6, mtime=0)
  else:
    slices = list(images)
    with explained(source, name):
      data = _encode_dicom(source, name, slices, values, identity, target)
  with replacing(path) as temporary:
    temporary.write_bytes(data)


# NIfTI


def _nibabel(name: str) -> Any:
  try:
    import nibabel
  except ImportError as error:
    raise _needs('nibabel', name) from error
  # It prints details of ordinary files, once for each slice; errors are raised.
  nibabel.imageglobals.logger.setLevel(logging.CRITICAL)
  return nibabel


def _needs(package: str, name: str) -> UserError:
  return UserError(
    f"{name} needs the package {package}: pip install 'cyclegan_jax[medical]'"
  )


def _nifti_header(file: BinaryIO, name: str) -> Any:
  nibabel = _nibabel(name)
  file.seek(0)
  start = file.read(len(_GZIP))
  file.seek(0)
  if start == _GZIP:
    with gzip.GzipFile(fileobj=file) as unpacked:
      start = unpacked.read(_NIFTI_HEADER_BYTES)
  else:
    start = file.read(_NIFTI_HEADER_BYTES)
  file.seek(0)
  is_second = start[4:7] == b'n+2'
  if not is_second and start[344:347] != b'n+1':
    raise ValueError('not a NIfTI volume in one file')
  kind = nibabel.Nifti2Header if is_second else nibabel.Nifti1Header
  size = 540 if is_second else 348
  return kind(start[:size], check=False)


def _nifti_scan(header: Any, name: str, axis: int) -> Scan:
  shape = _nifti_shape(header)
  if header.get_data_dtype().kind not in 'iuf':
    raise ValueError(
      f'its values are {header.get_data_dtype()}, and not real numbers'
    )
  width, height = (n for i, n in enumerate(shape[:3]) if i != axis)
  count = shape[axis] * math.prod(shape[3:])
  if min(shape, default=0) < 1:
    raise ValueError(f'it has the shape {shape}')
  axes = _nibabel(name).aff2axcodes(header.get_best_affine())
  orientation = ''.join(str(code) for code in axes)
  return Scan(count, height, width, 'float32', 1, orientation)


def _nifti_shape(header: Any) -> tuple[int, ...]:
  shape = tuple(int(n) for n in header.get_data_shape())
  return shape + (1,) * (3 - len(shape))


class _UnpackedVolumes:
  """The last .nii.gz files that were read, unpacked.

  Without it, every slice would unpack its volume, also a damaged one.
  """

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._volumes = collections.OrderedDict[tuple[str, bytes], bytes]()
    self._damages: dict[tuple[str, bytes], tuple[type[Exception], str]] = {}

  def read(self, file: BinaryIO, name: str, num_bytes: int) -> bytes:
    """Reads the first `num_bytes` of what a file unpacks to."""
    file.seek(-8, io.SEEK_END)
    key = name, file.read(8)  # checksum and size of what was packed
    file.seek(0)
    with self._lock:
      if key in self._damages:
        kind, text = self._damages[key]
        raise kind(text)
      if key not in self._volumes:
        try:
          with gzip.GzipFile(fileobj=file) as unpacked:
            data = unpacked.read(num_bytes)
            unpacked.read(1)  # at the end, the checksum is compared
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
          self._damages[key] = type(error), str(error)
          raise
        self._volumes[key] = data
      self._volumes.move_to_end(key)
      data = self._volumes[key]
      while (
        sum(map(len, self._volumes.values())) > _CACHED_BYTES
        and len(self._volumes) > 1
      ):
        self._volumes.popitem(last=False)
      return data


_UNPACKED = _UnpackedVolumes()


def _open_nifti(file: BinaryIO, name: str) -> Any:
  """The nibabel image of a file, whose values are read by slices."""
  nibabel = _nibabel(name)
  header = _nifti_header(file, name)
  num_bytes = int(header.get_data_offset()) + (
    math.prod(_nifti_shape(header)) * header.get_data_dtype().itemsize
  )
  is_packed = file.read(len(_GZIP)) == _GZIP
  if is_packed:
    if num_bytes > _MAX_UNPACKED:
      raise ValueError(
        f'it unpacks to {num_bytes:,} bytes, more than {_MAX_UNPACKED:,}: '
        'unpack it to .nii'
      )
    file = io.BytesIO(_UNPACKED.read(file, name, num_bytes))
  if file.seek(0, io.SEEK_END) < num_bytes:
    raise ValueError(f'it is truncated: its header claims {num_bytes:,} bytes')
  file.seek(0)
  is_second = isinstance(header, nibabel.Nifti2Header)
  kind = nibabel.Nifti2Image if is_second else nibabel.Nifti1Image
  return kind.from_stream(file)


def _place(shape: tuple[int, ...], index: int, axis: int) -> tuple[Any, ...]:
  """Indices of an image in a volume."""
  volume, number = divmod(index, shape[axis])
  rest = np.unravel_index(volume, shape[3:], order='F') if shape[3:] else ()
  place: list[Any] = [slice(None)] * 3
  place[axis] = number
  return (*place, *(int(n) for n in rest))


def _read_nifti(file: BinaryIO, name: str, index: int, axis: int) -> np.ndarray:
  image = _open_nifti(file, name)
  shape = _nifti_shape(image.header)
  place = _place(shape, index, axis)
  if len(image.shape) < 3:  # of one slice
    plane = np.asarray(image.dataobj).reshape(shape)[place]
  else:
    plane = np.asarray(image.dataobj[place])
  return plane.T[..., None]


def _encode_nifti(
  source: BinaryIO,
  name: str,
  images: Iterable[tuple[np.ndarray, np.ndarray | None]],
  dtype: str,
  axis: int,
) -> bytes:
  with explained(source, name):
    image = _open_nifti(source, name)
  shape = _nifti_shape(image.header)
  volume = np.empty(shape, dtype, order='F')
  for index, (pixels, missing) in enumerate(images):
    if missing is not None and missing.any():
      volume = volume.astype(np.float32, copy=False)  # integers have no NaN
      pixels = with_missing(pixels.astype(np.float32), missing, math.nan)
    volume[_place(shape, index, axis)] = pixels[..., 0].T
  with explained(source, name):
    header = image.header.copy()
    header.set_data_dtype(volume.dtype)
    header['cal_min'] = header['cal_max'] = 0  # a window for source values
    header['descrip'] = 'translated by cyclegan_jax'
    translated = type(image)(volume.reshape(image.shape), None, header)
    return bytes(translated.to_bytes())


# DICOM


def _pydicom(name: str) -> Any:
  try:
    import pydicom
    import pydicom.pixels
  except ImportError as error:
    raise _needs('pydicom', name) from error
  # It warns of details in ordinary files, and logs what it raises.
  warnings.filterwarnings('ignore', module='pydicom')
  logging.getLogger('pydicom').setLevel(logging.CRITICAL)
  return pydicom


def _dicom_header(file: BinaryIO, name: str) -> Any:
  pydicom = _pydicom(name)
  file.seek(0)
  if not starts_as_dicom(file):
    raise ValueError('not a DICOM file: it lacks the letters DICM at byte 128')
  header = pydicom.dcmread(file, stop_before_pixels=True)
  file.seek(0)
  return header


def _dicom_scan(header: Any) -> Scan:
  if 'Rows' not in header or 'Columns' not in header:
    return Scan(0, 0, 0, 'float32', 1)
  photometric = str(header.get('PhotometricInterpretation', ''))
  colors = 1 if photometric.startswith('MONOCHROME') else 3
  is_plain = (
    header.get('BitsAllocated') == 8
    and not header.get('PixelRepresentation')
    and _rescale_of(header, 0) == (1, 0)
    and 'ModalityLUTSequence' not in header
  ) or photometric == 'PALETTE COLOR'
  return Scan(
    int(header.get('NumberOfFrames') or 1),
    int(header.Rows),
    int(header.Columns),
    'uint8' if is_plain else 'float32',
    colors,
    modality=_code(header.get('Modality')),
    rescale_type=_rescale_type(header),
  )


def _code(value: Any) -> str:
  code = str(value or '').strip().upper()
  return code if DICOM_CODE.fullmatch(code) else ''


def _rescale_type(header: Any) -> str:
  items = [header, *_value_groups(header, 0)]
  types = [item.RescaleType for item in items if item.get('RescaleType')]
  if types:
    return _code(types[0])
  # DICOM requires the type of a CT image only if it is another.
  has_slope = any(item.get('RescaleSlope') is not None for item in items)
  is_ct = _code(header.get('Modality')) == 'CT'
  return 'HU' if is_ct and has_slope else 'US'


def _is_enhanced(header: Any) -> bool:
  """Whether attributes of frames are in groups, as of enhanced classes."""
  return (
    'SharedFunctionalGroupsSequence' in header
    or 'PerFrameFunctionalGroupsSequence' in header
  )


def _value_groups(header: Any, frame: int | None = None) -> list[Any]:
  """Where files of enhanced kinds have slope and intercept."""
  groups = list(header.get('SharedFunctionalGroupsSequence') or [])
  of_frames = list(header.get('PerFrameFunctionalGroupsSequence') or [])
  groups += of_frames if frame is None else of_frames[frame : frame + 1]
  return [
    item
    for group in groups
    for item in group.get('PixelValueTransformationSequence') or []
  ]


def _rescale_of(header: Any, frame: int) -> tuple[float, float]:
  """Slope and intercept of a frame."""
  for item in (header, *_value_groups(header, frame)):
    if item.get('RescaleSlope') is not None:
      return float(item.RescaleSlope), float(item.get('RescaleIntercept') or 0)
  # Of radiation doses, slope only.
  return float(header.get('DoseGridScaling') or 1), 0.0


def _read_dicom(
  file: BinaryIO, name: str, index: int
) -> tuple[np.ndarray, np.ndarray | None]:
  """Reads a frame, and where it is padding; None if that is not marked."""
  pydicom = _pydicom(name)
  header = _dicom_header(file, name)
  pixels = _stored_pixels(pydicom, file, header, index)
  photometric = str(header.get('PhotometricInterpretation', ''))
  if photometric == 'PALETTE COLOR':
    colors = pydicom.pixels.apply_color_lut(pixels, header)
    is_plain = colors.dtype == np.uint8
    return colors if is_plain else (colors >> 8).astype('uint8'), None
  if not photometric.startswith('MONOCHROME'):
    return pixels, None
  is_padding = _padding(pixels, header)
  slope, intercept = _rescale_of(header, index)
  has_units = 'ModalityLUTSequence' in header or (slope, intercept) != (1, 0)
  # Low values are white. Values in units, such as Hounsfield's, stay.
  if photometric == 'MONOCHROME1' and not has_units:
    pixels = _inverted(pixels, header)
  if 'ModalityLUTSequence' in header:
    pixels = pydicom.pixels.apply_modality_lut(pixels, header)
  if (slope, intercept) != (1, 0):
    pixels = pixels * slope + intercept
  return pixels[..., None], is_padding


def _padding(pixels: np.ndarray, header: Any) -> np.ndarray | None:
  """Where stored values are padding; None if the header marks none."""
  for kind in _PIXEL_KINDS:
    value = header.get(f'{kind}PixelPaddingValue')
    if not isinstance(value, int | float):
      continue
    limit = header.get(f'{kind}PixelPaddingRangeLimit')
    ends = np.array([value, value if limit is None else limit])
    if pixels.dtype.itemsize == 2:
      # Some writers store -2000 as 63536, or the other way round.
      ends = ends.astype(pixels.dtype)
    low, high = sorted(ends)
    return (low <= pixels) & (pixels <= high)
  return None


def _inverted(pixels: np.ndarray, header: Any) -> np.ndarray:
  if pixels.dtype.kind == 'f':
    return -pixels
  bits = int(header.get('BitsStored') or header.BitsAllocated)
  ends = -1 if header.get('PixelRepresentation') else 2**bits - 1
  return (ends - pixels.astype(np.int64)).astype(pixels.dtype)


def _stored_pixels(
  pydicom: Any, file: BinaryIO, header: Any, index: int
) -> np.ndarray:
  """Reads a frame; raises ValueError where nothing installed decodes it."""
  syntax = header.file_meta.get('TransferSyntaxUID')
  if syntax is None:
    raise ValueError('it names no transfer syntax')
  source = pydicom.dcmread(file) if syntax.is_deflated else file
  if not syntax.is_compressed or syntax.is_deflated:
    try:
      return pydicom.pixels.pixel_array(source, index=index)
    except ValueError as error:
      if 'reshape' not in str(error):
        raise
      raise ValueError(
        'it is truncated: it holds fewer pixels than its header claims'
      ) from error
  problem = f'its transfer syntax {syntax.name} ({syntax}) is not decoded'
  install = "pip install 'pylibjpeg[all]'"
  convert = 'convert it to Explicit VR Little Endian'
  try:
    decoder = pydicom.pixels.get_decoder(syntax)
  except NotImplementedError as error:  # such as of videos
    raise ValueError(f'{problem} by any package: {convert}') from error
  if not decoder.is_available:
    raise ValueError(f'{problem}: {install}, or {convert}')
  try:
    return pydicom.pixels.pixel_array(source, index=index)
  except RuntimeError as error:  # of each package that it tried, by line
    reason = 'its compressed pixels are damaged'
    # Not every package decodes all kinds of JPEG, but pydicom all of RLE.
    is_missing = any(
      'pylibjpeg' in each for each in decoder.missing_dependencies
    )
    if is_missing and syntax != pydicom.uid.RLELossless:
      reason += (
        f', or this kind of {syntax.name} ({syntax}) takes another package: '
        f'{install}, or {convert}'
      )
    raise ValueError(reason) from error


def _encode_dicom(
  source: BinaryIO,
  name: str,
  slices: Sequence[tuple[np.ndarray, np.ndarray | None]],
  values: Values,
  identity: str,
  target: Target,
) -> bytes:
  """Encodes images as one that derives from the source."""
  pydicom = _pydicom(name)
  source.seek(0)
  data = pydicom.dcmread(source)
  images = np.stack([image for image, _ in slices])
  no_pixels = np.zeros(images.shape[1:3], bool)
  missing = np.stack([no_pixels if m is None else m for _, m in slices])
  photometric, width = 'RGB', images.shape[-1]
  if width == 1:
    photometric, images = 'MONOCHROME2', images[..., 0]
  if 'NumberOfFrames' not in data:
    images, missing = images[0], missing[0]
  for keyword in _OF_VALUES:
    if keyword in data:
      del data[keyword]
  stored, slope, intercept = images, 1.0, 0.0
  if values.dtype == 'float32':
    # 0 is left for padding.
    slope = float(_decimal((values.high - values.low) / (_LARGEST - 1)))
    intercept = float(_decimal(values.low - slope))
    scaled = np.rint((images.astype(np.float64) - intercept) / slope)
    stored = np.clip(scaled, 1, _LARGEST).astype(np.uint16)
  padding: int | None = None
  if width == 1 and missing.any():
    stored, padding = _with_padding(stored, missing, values)
  bits = 8 * stored.dtype.itemsize
  data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
  pydicom.pixels.set_pixel_data(
    data, stored, photometric, bits, generate_instance_uid=False
  )
  if padding is not None:
    sign = 'SS' if stored.dtype.kind == 'i' else 'US'
    data.add_new('PixelPaddingValue', sign, padding)
  if width == 1:
    for item in _value_groups(data) or [data]:
      item.RescaleSlope = _decimal(slope)
      item.RescaleIntercept = _decimal(intercept)
      item.RescaleType = target.rescale_type or 'US'  # unspecified
    data.WindowCenter = _decimal((values.low + values.high) / 2)
    data.WindowWidth = _decimal(values.high - values.low)
  if data.get('DoseGridScaling'):
    data.DoseGridScaling = _decimal(1)
  _derive(pydicom, data, identity, images.tobytes(), target.name)
  _set_modality(pydicom, data, target.modality or 'OT')
  buffer = io.BytesIO()
  # Unlike save_as, it also turns the retired big-endian files around.
  pydicom.dcmwrite(buffer, data, enforce_file_format=True)
  return buffer.getvalue()


def _with_padding(
  stored: np.ndarray, missing: np.ndarray, values: Values
) -> tuple[np.ndarray, int]:
  """Marks pixels as padding, by a value that no other pixel has."""
  limits = np.iinfo(stored.dtype)
  padding = int(limits.min)
  if values.dtype not in ('float32', *FULL):
    padding = max(padding, math.floor(values.low) - 1)
  known = np.maximum(stored, padding + 1)
  return np.where(missing, stored.dtype.type(padding), known), padding


def _derive(
  pydicom: Any, data: Any, identity: str, content: bytes, target: str
) -> None:
  """Makes the attributes those of a derived image, with UIDs of its own."""
  source_uid = str(data.get('SOPInstanceUID', ''))
  source = pydicom.Dataset()
  source.ReferencedSOPClassUID = data.get('SOPClassUID', '')
  source.ReferencedSOPInstanceUID = source_uid
  if source_uid:
    data.SourceImageSequence = [source]
  kind = list(data.get('ImageType') or [])
  data.ImageType = ['DERIVED', 'SECONDARY', *kind[2:]]
  data.DerivationDescription = 'Translated by cyclegan_jax (CycleGAN)'
  series = str(data.get('SeriesInstanceUID', ''))
  # The files of a series stay one, whichever call translates them.
  data.SeriesInstanceUID = pydicom.uid.generate_uid(
    entropy_srcs=[identity, series]
  )
  data.SOPInstanceUID = pydicom.uid.generate_uid(
    entropy_srcs=[identity, source_uid, content.hex()]
  )
  data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
  suffix = f'(translated to {target})'
  description = str(data.get('SeriesDescription', ''))[: 63 - len(suffix)]
  data.SeriesDescription = f'{description} {suffix}'.strip()


def _set_modality(pydicom: Any, data: Any, modality: str) -> None:
  """Sets the modality, and a class of images that may have it."""
  if modality == data.get('Modality'):
    return
  data.Modality = modality
  uid = pydicom.uid
  of_modality = {
    'CT': uid.CTImageStorage,
    'MR': uid.MRImageStorage,
    'PT': uid.PositronEmissionTomographyImageStorage,
  }
  is_color = data.SamplesPerPixel == 3
  if data.get('NumberOfFrames') == 1 and not _is_enhanced(data):
    del data.NumberOfFrames  # which images of these classes do not have
  if 'NumberOfFrames' not in data:
    kind = uid.SecondaryCaptureImageStorage
    if not is_color:
      kind = of_modality.get(modality, kind)
  elif is_color:
    kind = uid.MultiFrameTrueColorSecondaryCaptureImageStorage
  elif data.BitsAllocated == 8:
    kind = uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage
  else:
    kind = uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage
  if kind not in of_modality.values():
    data.ConversionType = 'SYN'  # synthetic
  data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = kind


def _decimal(number: float) -> Any:
  """A number in the 16 characters that DICOM has for one."""
  from pydicom.valuerep import DSfloat

  return DSfloat(float(number), auto_format=True)
