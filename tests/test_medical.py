"""Folders of DICOM files, of NIfTI volumes and of TIFF stacks."""

import dataclasses
import gzip
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import jax
import nibabel
import nibabel.testing
import numpy as np
import pydicom
import pytest
import tifffile
from pydicom.data import get_testdata_file

from cyclegan_jax.config import Config, DataConfig, from_config_dict
from cyclegan_jax.data.file_images import images_of_files
from cyclegan_jax.data.folder_source import open_folder
from cyclegan_jax.data.image_list import Images
from cyclegan_jax.data.loader import Decoder
from cyclegan_jax.data.pairs import match_names
from cyclegan_jax.data.ranges import resolve_values, with_values
from cyclegan_jax.errors import ConfigError, DataError, ImageError
from cyclegan_jax.media import medical
from cyclegan_jax.media.listing import list_images
from cyclegan_jax.state import create_train_state
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.training.train import train
from cyclegan_jax.translate.files import Outcome, translate_files
from cyclegan_jax.translate.options import Options

pytestmark = pytest.mark.media

ROOT = pathlib.Path(__file__).parent.parent

# Left-right turned, anisotropic and shifted.
AFFINE = np.array(
  [[-0.8, 0, 0, 90], [0, 0.8, 0, -126], [0, 0, 2.5, -72], [0, 0, 0, 1.0]]
)


def dicom(name: str) -> str:
  path = get_testdata_file(name, download=False)
  assert path
  return str(path)


def volume(name: str) -> str:
  return str(pathlib.Path(nibabel.testing.data_path) / name)


def images_of(*paths: str | pathlib.Path, **options: object) -> Images:
  defaults: dict = {'channels': 1, 'max_pixels': 10**8}
  return images_of_files([str(path) for path in paths], **defaults | options)


def stored(images: Images, index: int) -> np.ndarray:
  assert images.stored
  return images.stored(index)


def write_ct(path: pathlib.Path, seed: int = 0, dtype: str = 'int16') -> None:
  """A volume of 20 x 24 x 5 in Hounsfield units, padded by -2000."""
  rng = np.random.default_rng(seed)
  data = rng.integers(-1000, 1500, (20, 24, 5)).astype(dtype)
  data[0, 0] = -2000
  image = nibabel.Nifti1Image(data, AFFINE)
  image.header.set_xyzt_units('mm', 'sec')
  image.to_filename(path)


def write_mr(path: pathlib.Path, seed: int = 0) -> None:
  rng = np.random.default_rng(seed)
  data = rng.uniform(0, 900, (20, 24, 5)).astype(np.float32)
  nibabel.Nifti1Image(data, AFFINE).to_filename(path)


@pytest.fixture(scope='module')
def runs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """A run on CT (a) and MR (b) volumes, as `run`, and its folders."""
  folder = tmp_path_factory.mktemp('ct_mr')
  for domain, write in (('A', write_ct), ('B', write_mr)):
    (folder / f'train{domain}').mkdir()
    for number in range(2):
      write(folder / f'train{domain}' / f'p{number}.nii.gz', seed=number)
  train(tiny(folder), folder / 'run')
  return folder


def tiny(folder: pathlib.Path, **data: object) -> Config:
  return Config().replace(
    batch_size=2,
    steps=2,
    num_devices=1,
    data={
      'name': 'folder',
      'path': str(folder),
      'size': 16,
      'load_size': 16,
      'channels_a': 1,
      'channels_b': 1,
      'window_a': 'ct_full',
      'num_workers': 0,
      'prefetch_batches': 1,
      **data,
    },
    generator={'name': 'resnet', 'filters': 2, 'blocks': 1},
    discriminator={'filters': 2, 'layers': 2},
    log={'num_samples': 2},
  )


def translate(
  runs: pathlib.Path, *inputs: pathlib.Path, to: pathlib.Path, **options: object
) -> Outcome:
  return translate_files(runs / 'run', inputs, to, Options(**options))  # type: ignore[arg-type]


# Reading


def test_ct_is_in_hounsfield_units() -> None:
  images = images_of(dicom('CT_small.dcm'))
  source = pydicom.dcmread(dicom('CT_small.dcm'))
  pixels = stored(images, 0)
  assert images.names == (dicom('CT_small.dcm'),)
  assert pixels.dtype == np.float32
  expected = source.pixel_array * source.RescaleSlope + source.RescaleIntercept
  assert source.RescaleIntercept == -1024
  # The padding is no measurement.
  is_padding = source.pixel_array == source.get('PixelPaddingValue')
  np.testing.assert_array_equal(pixels[~is_padding, 0], expected[~is_padding])
  assert images.header_of
  assert images.shape_of
  assert images.header_of(0).dtype == 'float32'
  assert images.shape_of(0) == expected.shape


@pytest.mark.parametrize(
  'name',
  [
    'MR_small_RLE.dcm',
    'MR_small_bigendian.dcm',
    'MR_small_implicit.dcm',
    'MR_small_jp2klossless.dcm',
  ],
)
def test_all_encodings_give_the_same_values(name: str) -> None:
  plain, other = images_of(dicom('MR_small.dcm')), images_of(dicom(name))
  np.testing.assert_array_equal(stored(plain, 0), stored(other, 0))


def test_frames_are_images() -> None:
  images = images_of(dicom('rtdose.dcm'), dicom('MR_small.dcm'))
  source = pydicom.dcmread(dicom('rtdose.dcm'))
  assert len(images) == 16
  assert images.names[3] == f'{dicom("rtdose.dcm")}[3]'
  assert images.names[15] == dicom('MR_small.dcm')
  np.testing.assert_allclose(
    stored(images, 3)[..., 0],
    source.pixel_array[3] * float(source.DoseGridScaling),
    rtol=1e-6,
  )


def test_bytes_and_colors_stay() -> None:
  images = images_of(dicom('examples_rgb_color.dcm'), channels=3)
  source = pydicom.dcmread(dicom('examples_rgb_color.dcm'))
  np.testing.assert_array_equal(images.read(0), source.pixel_array)
  palette = images_of(dicom('examples_palette.dcm'), channels=3).read(0)
  assert palette.dtype == np.uint8
  assert palette.shape == (350, 800, 3)


def test_monochrome1_is_inverted(tmp_path: pathlib.Path) -> None:
  data = pydicom.dcmread(dicom('CT_small.dcm'))
  data.PhotometricInterpretation = 'MONOCHROME1'
  data.RescaleIntercept = 0
  if 'PixelPaddingValue' in data:
    del data.PixelPaddingValue
  data.save_as(tmp_path / 'x.dcm')
  pixels = stored(images_of(tmp_path / 'x.dcm'), 0)
  np.testing.assert_array_equal(pixels[..., 0], -1 - data.pixel_array)


def test_padding_is_missing(tmp_path: pathlib.Path) -> None:
  data = pydicom.dcmread(dicom('CT_small.dcm'))
  padded = data.pixel_array.copy()
  padded[:5] = -2000
  data.PixelData = padded.tobytes()
  data.PixelPaddingValue = -2000
  data.save_as(tmp_path / 'x.dcm')
  pixels = stored(images_of(tmp_path / 'x.dcm'), 0)
  assert np.isnan(pixels[:5]).all()
  assert np.nanmin(pixels) > -2000


def test_scaling_of_enhanced_files(tmp_path: pathlib.Path) -> None:
  data = pydicom.dcmread(dicom('CT_small.dcm'))
  source = data.pixel_array
  del data.RescaleSlope, data.RescaleIntercept
  data.NumberOfFrames = 2
  data.PixelData = np.stack([source, source]).tobytes()
  frames = []
  for number in (1, 2):
    values = pydicom.Dataset()
    values.RescaleSlope, values.RescaleIntercept = number, -10 * number
    frame = pydicom.Dataset()
    frame.PixelValueTransformationSequence = [values]
    frames.append(frame)
  data.PerFrameFunctionalGroupsSequence = frames
  if 'PixelPaddingValue' in data:
    del data.PixelPaddingValue
  data.save_as(tmp_path / 'x.dcm')
  images = images_of(tmp_path / 'x.dcm')
  np.testing.assert_array_equal(stored(images, 1)[..., 0], source * 2.0 - 20)


def test_unsupported_transfer_syntax_is_named() -> None:
  images = images_of(dicom('SC_rgb_jls_lossy_line.dcm'), channels=3)
  with pytest.raises(ImageError, match='JPEG-LS Lossy.*1.2.840.10008.1.2.4.81'):
    images.read(0)


def test_syntax_of_videos_takes_no_package(tmp_path: pathlib.Path) -> None:
  data = pydicom.dcmread(dicom('MR_small_RLE.dcm'))
  data.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
  data.save_as(tmp_path / 'x.dcm')
  with pytest.raises(ImageError, match='MPEG2') as error:
    images_of(tmp_path / 'x.dcm').read(0)
  assert 'pip' not in str(error.value)


def test_damaged_rle_is_not_a_missing_package(tmp_path: pathlib.Path) -> None:
  data = pydicom.dcmread(dicom('MR_small_RLE.dcm'))
  (frame,) = pydicom.encaps.generate_frames(data.PixelData)
  for name, damaged in (('cut', frame[:200]), ('head', b'\xff' + frame[1:])):
    data.PixelData = pydicom.encaps.encapsulate([damaged])
    data.save_as(tmp_path / f'{name}.dcm')
    with pytest.raises(ImageError, match='damaged') as error:
      images_of(tmp_path / f'{name}.dcm').read(0)
    assert 'pip' not in str(error.value)


def test_truncated_and_foreign_files_are_errors(tmp_path: pathlib.Path) -> None:
  (tmp_path / 'a.dcm').write_bytes(b'nothing')
  (tmp_path / 'b.nii').write_bytes(b'nothing')
  (tmp_path / 'c.nii.gz').write_bytes(b'\x1f\x8bnothing')
  write_ct(tmp_path / 'd.nii')
  whole = (tmp_path / 'd.nii').read_bytes()
  (tmp_path / 'd.nii').write_bytes(whole[:-100])
  write_ct(tmp_path / 'e.nii.gz')
  packed = bytearray((tmp_path / 'e.nii.gz').read_bytes())
  packed[-6] ^= 255  # the checksum
  (tmp_path / 'e.nii.gz').write_bytes(packed)
  paths = sorted(tmp_path.iterdir())
  images = images_of(dicom('MR_truncated.dcm'), *paths)
  assert len(images) == 1 + 3 + 5 + 5  # the headers of volumes are whole
  for index in range(len(images)):
    with pytest.raises(ImageError) as error:
      stored(images, index)
    assert '\n' not in str(error.value)


def test_damaged_volume_counts_once(
  tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
  for domain in ('A', 'B'):
    (tmp_path / f'train{domain}').mkdir()
    for name in ('x', 'y', 'z'):
      write_mr(tmp_path / f'train{domain}' / f'{name}.nii.gz')
  for name in ('x', 'y'):
    damaged = tmp_path / 'trainA' / f'{name}.nii.gz'
    damaged.write_bytes(damaged.read_bytes()[:500])
  data = tiny(tmp_path, max_corrupt=2).data
  images = open_folder(data)
  data = resolve_values(data, images)
  decoder = Decoder(data, with_values(images, data))
  caplog.clear()
  for position in range(15):
    decoder.submit('a', position, 0)
  messages = sorted(caplog.messages)
  assert len(messages) == 2
  assert all(
    f'{name}.nii.gz' in m for name, m in zip('xy', messages, strict=True)
  )
  data = dataclasses.replace(data, max_corrupt=1)
  decoder = Decoder(data, with_values(images, data))
  with pytest.raises(DataError, match='max_corrupt'):
    [decoder.submit('a', position, 0) for position in range(15)]


def test_damaged_volume_is_unpacked_once(tmp_path: pathlib.Path) -> None:
  path = tmp_path / 'x.nii.gz'
  write_mr(path)
  whole = path.read_bytes()
  path.write_bytes(whole[:-500] + bytes(492) + whole[-8:])
  unpacked = medical._UnpackedVolumes()
  with path.open('rb') as file:
    with pytest.raises(EOFError) as first:
      unpacked.read(file, 'x', 1000_000)
    with pytest.raises(EOFError) as second:
      unpacked.read(file, 'x', 1000_000)
    assert str(first.value) == str(second.value)
    assert file.tell() == 0  # nothing was unpacked again


def test_size_is_limited() -> None:
  images = images_of(dicom('CT_small.dcm'), max_pixels=100)
  with pytest.raises(ImageError, match='max_pixels'):
    stored(images, 0)


@pytest.mark.parametrize('axis', [0, 1, 2])
@pytest.mark.parametrize(
  'name', ['anatomical.nii', 'functional.nii', 'example_nifti2.nii.gz']
)
def test_slices_are_images(name: str, axis: int) -> None:
  path = volume(name)
  data = nibabel.load(path).get_fdata()
  images = images_of(path, slice_axis=axis)
  assert len(images) == data.shape[axis] * int(np.prod(data.shape[3:]))
  assert images.names[2] == f'{path}[2]'
  last = data if data.ndim == 3 else data[..., -1]
  expected = last.take(-1, axis).T
  pixels = stored(images, len(images) - 1)
  np.testing.assert_array_equal(pixels[..., 0], expected.astype(np.float32))
  assert images.shape_of
  assert images.shape_of(0) == expected.shape


def test_harmless_details_are_not_logged(
  tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
  write_ct(tmp_path / 'x.nii')
  data = bytearray((tmp_path / 'x.nii').read_bytes())
  data[76:80] = bytes(4)  # a direction of the axes that is neither 1 nor -1
  (tmp_path / 'x.nii').write_bytes(data)
  stored(images_of(tmp_path / 'x.nii'), 1)
  assert not caplog.records


def test_volume_is_not_unpacked_for_its_header(tmp_path: pathlib.Path) -> None:
  # 2 TB of zeros by the header, in a file of no pixels.
  header = nibabel.Nifti1Header()
  header.set_data_shape((10_000, 10_000, 5000))
  header.set_data_dtype(np.float32)
  header['magic'], header['vox_offset'] = b'n+1', 352
  with gzip.open(tmp_path / 'x.nii.gz', 'wb') as file:
    file.write(header.binaryblock)
  images = images_of(tmp_path / 'x.nii.gz')
  assert len(images) == 5000
  with pytest.raises(ImageError, match='unpacks'):
    stored(images, 4999)


# Folders


def test_dicom_files_without_an_ending_are_found(
  tmp_path: pathlib.Path,
) -> None:
  for name in ('IM0001', '1.2.840.113619.2', 'DICOMDIR'):
    shutil.copy(dicom('CT_small.dcm'), tmp_path / name)
  shutil.copy(dicom('CT_small.dcm'), tmp_path / 'x.txt')
  (tmp_path / 'README').write_text('nothing')
  os.mkfifo(tmp_path / 'pipe')
  listing = list_images(str(tmp_path))
  names = [pathlib.Path(path).name for path in listing.images]
  assert names == ['1.2.840.113619.2', 'IM0001']
  assert sum(listing.other_files.values()) == 4


def test_folder_equals_its_archive(tmp_path: pathlib.Path) -> None:
  folder = tmp_path / 'data'
  for domain in ('A', 'B'):
    (folder / f'train{domain}').mkdir(parents=True)
  shutil.copy(dicom('CT_small.dcm'), folder / 'trainA' / 'IM1')
  shutil.copy(dicom('test-SR.dcm'), folder / 'trainA' / 'report.dcm')
  (folder / 'trainA' / 'README').write_text('nothing')
  write_ct(folder / 'trainA' / 'ct.nii.gz')
  write_mr(folder / 'trainB' / 'ct.nii')
  with zipfile.ZipFile(tmp_path / 'data.zip', 'w') as archive:
    for path in folder.rglob('*'):
      archive.write(path, path.relative_to(folder))
  both = [
    open_folder(
      DataConfig(name='folder', path=str(path), channels_a=1, channels_b=1)
    )
    for path in (folder, tmp_path / 'data.zip')
  ]
  unpacked, packed = (images['train_a'] for images in both)
  assert unpacked.relative_names() == packed.relative_names()
  assert 'ct.nii.gz[4]' in unpacked.relative_names()
  assert len(unpacked) == 6  # the report has no pixels
  for images in (unpacked, packed):
    assert images.other_files == {'.dcm': 1, '': 1}
  for index in range(6):
    np.testing.assert_array_equal(
      stored(unpacked, index), stored(packed, index)
    )
  pairs = match_names(unpacked, both[0]['train_b'])
  assert len(pairs) == 5  # slices of one number


def test_different_orientations_are_reported(
  tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
  write_ct(tmp_path / 'a.nii')
  write_mr(tmp_path / 'b.nii.gz')
  images_of(tmp_path / 'a.nii', tmp_path / 'b.nii.gz')
  assert not caplog.records
  source = nibabel.load(tmp_path / 'a.nii')
  nibabel.as_closest_canonical(source).to_filename(tmp_path / 'c.nii')
  images_of(*sorted(tmp_path.iterdir()), dicom('CT_small.dcm'))
  (record,) = caplog.records
  assert 'LAS' in record.getMessage()
  assert 'RAS' in record.getMessage()


WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
from cyclegan_jax.data.file_images import images_of_files
from cyclegan_jax.errors import ImageError, UserError
try:
  images_of_files(sys.argv[2:], channels=1, max_pixels=1000)
except UserError as error:
  print(type(error) is UserError, error)
"""


@pytest.mark.process
@pytest.mark.parametrize(
  ('package', 'name'), [('pydicom', 'x.dcm'), ('nibabel', 'x.nii.gz')]
)
def test_missing_package_names_the_extra(
  tmp_path: pathlib.Path, package: str, name: str
) -> None:
  (tmp_path / name).write_bytes(b'')
  done = subprocess.run(
    [sys.executable, '-c', WITHOUT, package, name],
    cwd=tmp_path,
    env={'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  (line,) = done.stdout.splitlines()
  assert line.startswith(f'True {name} ')
  assert package in line
  assert 'cyclegan_jax[medical]' in line


def test_windows_set_the_range() -> None:
  config = DataConfig(window_a='ct_lung')
  assert (config.low_a, config.high_a) == (-1350, 150)
  assert (config.low_b, config.high_b) == (0, 0)
  # A resolved config is read back.
  assert DataConfig(window_a='ct_lung', low_a=-1350, high_a=150) == config
  with pytest.raises(ConfigError, match=r'window_a.*low_a'):
    DataConfig(window_a='ct_bone', low_a=-1350, high_a=150)
  values = {'data': {'window_b': 'ct_soft'}}
  assert from_config_dict(values).data.high_b == 240


def test_clipped_values_are_reported_once(
  tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
  write_ct(tmp_path / 'ct.nii', dtype='float32')
  images = images_of(tmp_path / 'ct.nii')
  data = nibabel.load(tmp_path / 'ct.nii').get_fdata()
  config = DataConfig(
    name='folder', channels_a=1, channels_b=1, window_a='ct_full'
  )
  resolved = resolve_values(config, {'train_a': images, 'train_b': images})
  assert (resolved.dtype_a, resolved.low_a) == ('float32', -1024)
  assert (resolved.low_b, resolved.high_b) == (data.min(), data.max())
  (record,) = caplog.records
  share = 100 * ((data < -1024) | (data > 3071)).mean()
  assert 'low_a' in record.getMessage()
  assert f'{share:.2g}%' in record.getMessage()


def test_other_images_bring_their_codes_and_report_what_is_clipped(
  tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
  ct, mr = images_of(dicom('CT_small.dcm')), images_of(dicom('MR_small.dcm'))
  config = DataConfig(name='folder', channels_a=1, channels_b=1)
  saved = resolve_values(config, {'train_a': mr, 'train_b': mr})
  saved = dataclasses.replace(saved, low_a=0.0, high_a=500.0, modality_b='PT')
  changed = {'train_a': ct, 'train_b': mr}
  resolved = resolve_values(config, changed, saved=saved, other_domains='a')
  assert (resolved.modality_a, resolved.rescale_type_a) == ('CT', 'HU')
  assert (resolved.low_a, resolved.high_a) == (0, 500)
  assert resolved.modality_b == 'PT'  # which the same images do not say
  (record,) = caplog.records
  assert 'config.data.high_a' in record.getMessage()
  # A domain without a code has none, and the user's counts first.
  write_mr(tmp_path / 'mr.nii')
  changed = {'train_a': images_of(tmp_path / 'mr.nii'), 'train_b': mr}
  assert not resolve_values(
    config, changed, saved=resolved, other_domains='a'
  ).modality_a
  own = dataclasses.replace(config, modality_a='NM')
  assert (
    resolve_values(own, changed, saved=resolved, other_domains='a').modality_a
    == 'NM'
  )
  # The images of the run give no second warning.
  caplog.clear()
  resolve_values(config, {'train_a': ct, 'train_b': mr}, saved=resolved)
  assert not caplog.records


# Stacks of TIFF


def test_pages_of_another_size_are_reported(
  tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
  rng = np.random.default_rng(0)
  path = tmp_path / 's.tif'
  with tifffile.TiffWriter(path) as writer:
    for width in (24, 24, 12, 30, 24):
      writer.write(rng.integers(0, 255, (20, width), np.uint8))
    writer.write(np.zeros((5, 5), np.uint8), subfiletype=1)  # a thumbnail
  assert len(images_of(path, pages='all')) == 3
  (record,) = caplog.records
  assert '2 pages' in record.getMessage()
  assert str(path) in record.getMessage()
  first = images_of(path)
  assert first.header_of
  assert first.header_of(0).num_frames == 5
  save_run(tmp_path, path, path, pages='all')
  outcome = translate(tmp_path, path, to=tmp_path / 'out')
  (note,) = outcome.notes
  assert str(path) in note
  assert '2 pages' in note
  assert tifffile.imread(tmp_path / 'out' / 's.tif').shape == (3, 20, 24)


def test_pages_are_images_when_asked(tmp_path: pathlib.Path) -> None:
  rng = np.random.default_rng(0)
  pages = rng.integers(0, 65535, (4, 20, 24), np.uint16)
  colors = rng.integers(0, 255, (3, 20, 24, 3), np.uint8)
  with tifffile.TiffWriter(tmp_path / 'a.tif') as writer:
    for page in pages:
      writer.write(page)
    writer.write(pages[0, :5, :5], subfiletype=1)  # a thumbnail
  with tifffile.TiffWriter(tmp_path / 'b.tif') as writer:
    for page in colors:
      writer.write(page, photometric='rgb', compression='zlib')
  paths = sorted(tmp_path.iterdir())
  assert len(images_of(*paths)) == 2
  gray = images_of(paths[0], pages='all', channels=1)
  colored = images_of(paths[1], pages='all', channels=3)
  assert gray.names[3] == f'{paths[0]}[3]'
  assert len(gray) == 4
  for index in range(4):
    np.testing.assert_array_equal(stored(gray, index)[..., 0], pages[index])
  for index in range(3):
    np.testing.assert_array_equal(colored.read(index), colors[index])
  assert gray.header_of
  assert gray.header_of(2).num_frames == 1


# Translation


def test_ct_to_mr_and_back(runs: pathlib.Path, tmp_path: pathlib.Path) -> None:
  for direction, folder, low, high in (
    ('ab', 'trainA', 0, 900),
    ('ba', 'trainB', -1024, 3071),
  ):
    outcome = translate(
      runs,
      runs / folder,
      to=tmp_path / direction,
      direction=direction,
      batch_size=2,
      gallery=True,
    )
    assert not outcome.failed
    assert outcome.num_made == 2
    source = nibabel.load(runs / folder / 'p1.nii.gz')
    result = nibabel.load(tmp_path / direction / 'p1.nii.gz')
    np.testing.assert_array_equal(result.affine, source.affine)
    assert result.shape == source.shape
    assert result.header.get_xyzt_units() == source.header.get_xyzt_units()
    assert result.get_data_dtype() == np.float32
    values = result.get_fdata()
    assert low <= values.min() < values.max() <= high
    # Not flattened, and each slice is in its place.
    assert len({values[..., k].tobytes() for k in range(5)}) == 5


def test_volume_equals_its_slices(
  runs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  source = tmp_path / 'p.nii'
  write_ct(source)
  assert not translate(runs, source, to=tmp_path / 'nifti').failed
  outcome = translate(runs, source, to=tmp_path / 'tiff', file_format='tiff')
  assert not outcome.failed
  stack = tifffile.imread(tmp_path / 'tiff' / 'p.tif')
  result = nibabel.load(tmp_path / 'nifti' / 'p.nii').get_fdata()
  assert stack.dtype == np.float32
  np.testing.assert_array_equal(stack, result.T.astype(np.float32))


def test_target_type_is_the_domains(tmp_path: pathlib.Path) -> None:
  for domain, write in (('A', write_ct), ('B', write_mr)):
    (tmp_path / f'train{domain}').mkdir()
    write(tmp_path / f'train{domain}' / 'p.nii')
  config = tiny(tmp_path, window_a='ct_soft', dtype_a='int16', slice_axis=1)
  train(config, tmp_path / 'run')
  outcome = translate(
    tmp_path, tmp_path / 'trainB', to=tmp_path / 'out', direction='ba'
  )
  assert not outcome.failed
  result = nibabel.load(tmp_path / 'out' / 'p.nii')
  assert result.get_data_dtype() == np.int16
  assert result.shape == (20, 24, 5)
  assert -160 <= result.get_fdata().min() <= result.get_fdata().max() <= 240


@pytest.mark.parametrize('name', ['x.dcm', 'IM0001', '1.2.840.1'])
def test_dicom_to_dicom(
  runs: pathlib.Path, tmp_path: pathlib.Path, name: str
) -> None:
  folder = tmp_path / 'in'
  folder.mkdir()
  first = pydicom.dcmread(dicom('CT_small.dcm'))
  first.save_as(folder / name)
  second = pydicom.dcmread(dicom('CT_small.dcm'))
  second.SOPInstanceUID = pydicom.uid.generate_uid()
  second.file_meta.MediaStorageSOPInstanceUID = second.SOPInstanceUID
  second.save_as(folder / 'y.dcm')
  outcome = translate(runs, folder, to=tmp_path / 'out')
  assert not outcome.failed
  assert outcome.num_made == 2
  result = pydicom.dcmread(tmp_path / 'out' / name)
  other = pydicom.dcmread(tmp_path / 'out' / 'y.dcm')
  assert list(result.ImageType)[:2] == ['DERIVED', 'SECONDARY']
  assert result.DerivationDescription
  uids = {each.SOPInstanceUID for each in (first, second, result, other)}
  assert len(uids) == 4
  assert result.file_meta.MediaStorageSOPInstanceUID == result.SOPInstanceUID
  assert result.SeriesInstanceUID == other.SeriesInstanceUID
  assert result.SeriesInstanceUID != first.SeriesInstanceUID
  assert result.StudyInstanceUID == first.StudyInstanceUID
  assert result.FrameOfReferenceUID == first.FrameOfReferenceUID
  assert list(result.PixelSpacing) == list(first.PixelSpacing)
  (source,) = result.SourceImageSequence
  assert source.ReferencedSOPInstanceUID == first.SOPInstanceUID
  values = pydicom.pixels.apply_rescale(result.pixel_array, result)
  assert values.shape == first.pixel_array.shape
  assert 0 <= values.min() < values.max() <= 900.1
  # The stored values are those that a TIFF holds exactly.
  tiff = tmp_path / 'tiff'
  translate(runs, folder / name, to=tiff, file_format='tiff')
  (path,) = tiff.glob('*.tif')
  assert path.name == f'{name.removesuffix(".dcm")}.tif'
  exact = tifffile.imread(path)
  assert np.abs(values - exact).max() <= float(result.RescaleSlope)


@pytest.mark.parametrize(
  ('name', 'frames'),
  [
    ('rtdose_rle.dcm', 15),
    ('MR_small_bigendian.dcm', 1),
    ('MR_small_jp2klossless.dcm', 1),
    ('liver_1frame.dcm', 1),
  ],
)
def test_other_encodings_are_written_plainly(
  runs: pathlib.Path, tmp_path: pathlib.Path, name: str, frames: int
) -> None:
  outcome = translate(runs, pathlib.Path(dicom(name)), to=tmp_path)
  assert not outcome.failed
  result = pydicom.dcmread(tmp_path / name)
  shape = (frames, result.Rows, result.Columns)
  assert result.pixel_array.reshape(shape).dtype == np.uint16
  assert not result.file_meta.TransferSyntaxUID.is_compressed


def test_refusals_name_what_helps(
  runs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  source = runs / 'trainA' / 'p0.nii.gz'
  outcome = translate(runs, source, to=tmp_path / '1', file_format='png')
  assert '--format tiff' in outcome.failed[0]
  outcome = translate(runs, source, to=tmp_path / '2', size=(32, 0))
  assert '--size' in outcome.failed[0]
  report = pathlib.Path(dicom('test-SR.dcm'))
  outcome = translate(runs, report, to=tmp_path / '3')
  assert report.name in outcome.failed[0]


def test_damaged_files_are_named_and_the_rest_goes_on(
  runs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  folder = tmp_path / 'in'
  folder.mkdir()
  good = ['MR_small.dcm', 'SC_rgb_rle_2frame.dcm', 'rtdose.dcm']
  bad = [
    *('MR_truncated.dcm', 'SC_rgb_jls_lossy_line.dcm', 'no_meta.dcm'),
    *('badVR.dcm', 'JPEG-lossy.dcm'),
  ]
  for name in good + bad:
    shutil.copy(dicom(name), folder)
  for name in ('anatomical.nii', 'example4d.nii.gz'):
    shutil.copy(volume(name), folder)
    good.append(name)
  packed = (folder / 'example4d.nii.gz').read_bytes()
  (folder / 'example4d.nii.gz').write_bytes(packed[: len(packed) // 2])
  bad.append(good.pop())
  outcome = translate(runs, folder, to=tmp_path / 'out')
  assert outcome.num_made == len(good)
  assert len(outcome.failed) == len(bad)
  for name in bad:
    (message,) = (each for each in outcome.failed if name in each)
    assert '\n' not in message
  assert all((tmp_path / 'out' / name).exists() for name in good)


def test_samples_keep_the_whole_ending(tmp_path: pathlib.Path) -> None:
  from cyclegan_jax.translate.plan import make_plan

  write_mr(tmp_path / 'a.nii.gz')
  plan = make_plan(
    [tmp_path / 'a.nii.gz'], tmp_path / 'out', Config(), Options(samples=2)
  )
  assert plan.names == ['a_1.nii.gz', 'a_2.nii.gz']


def test_stack_to_stack(tmp_path: pathlib.Path) -> None:
  rng = np.random.default_rng(0)
  for domain in ('A', 'B'):
    (tmp_path / f'train{domain}').mkdir()
    pages = rng.integers(0, 255, (3, 20, 24), np.uint8)
    path = tmp_path / f'train{domain}' / 's.tif'
    tifffile.imwrite(path, pages, photometric='minisblack')
  train(
    tiny(tmp_path, pages='all', window_a='none', num_workers=1),
    tmp_path / 'run',
  )
  outcome = translate(tmp_path, tmp_path / 'trainA', to=tmp_path / 'out')
  assert not outcome.failed
  assert not outcome.notes
  stack = tifffile.imread(tmp_path / 'out' / 's.tif')
  assert stack.shape == (3, 20, 24)
  assert stack.dtype == np.uint8


# Pixels without data


def save_run(
  folder: pathlib.Path, a: pathlib.Path, b: pathlib.Path, **data: object
) -> DataConfig:
  """Saves untrained networks for two files as `run`; returns their options."""
  for domain, path in (('A', a), ('B', b)):
    (folder / f'train{domain}').mkdir()
    shutil.copy(path, folder / f'train{domain}')
  config = tiny(folder, **{'window_a': 'none', **data})
  resolved = resolve_values(config.data, open_folder(config.data))
  config = dataclasses.replace(config, data=resolved)
  with checkpoint.Saver(folder / 'run' / 'checkpoints', config) as saver:
    saver.save(create_train_state(config, jax.random.key(0)))
  return resolved


@pytest.mark.parametrize(
  ('dtype', 'nodata', 'size'),
  [
    ('float32', '-9999', None),
    ('float32', '-9999', (12, 0)),
    ('float32', '', None),
    ('int16', '-32768', None),
    ('uint16', '0', (12, 0)),
  ],
)
def test_pages_keep_pixels_without_data(
  tmp_path: pathlib.Path,
  dtype: str,
  nodata: str,
  size: tuple[int, int] | None,
) -> None:
  rng = np.random.default_rng(0)
  pages = rng.integers(1, 1000, (3, 20, 24)).astype(dtype)
  missing = np.zeros(pages.shape, bool)
  for number in range(3):
    missing[number, number * 6 : number * 6 + 6, :8] = True
  low, high = pages[~missing].min(), pages[~missing].max()
  mark = np.array(float(nodata or 'nan')).astype(dtype)
  pages[missing] = mark
  tags = [(42113, 's', 0, nodata, True)] if nodata else []
  path = tmp_path / 's.tif'
  # tifffile gives the tag to the first page only, GDAL to all.
  tifffile.imwrite(path, pages, photometric='minisblack', extratags=tags)
  resolved = save_run(tmp_path, path, path, pages='all')
  if dtype != 'uint16':
    assert (resolved.low_a, resolved.high_a) == (low, high)
  outcome = translate(tmp_path, path, to=tmp_path / 'out', size=size)
  assert not outcome.failed
  with tifffile.TiffFile(tmp_path / 'out' / 's.tif') as file:
    for page in file.pages:
      assert page.tags.valueof(42113, default='') == nodata
    made = np.stack([page.asarray() for page in file.pages])
  assert made.dtype == dtype
  if size:
    missing = missing[:, 1::2, 1::2]
  is_marked = np.isnan(made) if np.isnan(mark) else made == mark
  if dtype == 'uint16':  # in which 0 is a value, too
    assert is_marked[missing].all()
  else:
    np.testing.assert_array_equal(is_marked, missing)


@pytest.mark.parametrize('dtype', ['int16', 'uint16'])
def test_empty_pages_are_not_measured(
  tmp_path: pathlib.Path, dtype: str, caplog: pytest.LogCaptureFixture
) -> None:
  pages = np.full((2, 20, 24), 999, dtype)
  pages[0] = np.arange(100, 124)
  tags = [(42113, 's', 0, '999', True)]
  path = tmp_path / 's.tif'
  tifffile.imwrite(path, pages, photometric='minisblack', extratags=tags)
  images = images_of(path, pages='all')
  config = DataConfig(name='folder', channels_a=1, channels_b=1, pages='all')
  both = {'train_a': images, 'train_b': images}
  resolved = resolve_values(config, both)
  if dtype == 'int16':
    assert (resolved.low_a, resolved.high_a) == (100, 123)
  else:  # of its full range, of which a warning says what is used
    assert 'from 100 to 123' in caplog.text
  caplog.clear()
  limits = {'low_a': 100.0, 'high_a': 123.0, 'low_b': 100.0, 'high_b': 123.0}
  resolve_values(dataclasses.replace(config, **limits), both)
  assert not caplog.records


@pytest.mark.parametrize('dtype_b', ['', 'int16'])
def test_volume_keeps_nan(tmp_path: pathlib.Path, dtype_b: str) -> None:
  rng = np.random.default_rng(0)
  data = rng.uniform(-100, 900, (20, 24, 5)).astype(np.float32)
  data[:4, 3:9, 1:] = np.nan
  data[8, 8, 0] = np.inf
  missing = ~np.isfinite(data)
  nibabel.Nifti1Image(data, AFFINE).to_filename(tmp_path / 'a.nii.gz')
  write_ct(tmp_path / 'b.nii')
  resolved = save_run(
    tmp_path, tmp_path / 'a.nii.gz', tmp_path / 'b.nii', dtype_b=dtype_b
  )
  assert resolved.low_a == data[~missing].min()
  assert resolved.high_a == data[~missing].max()
  source = tmp_path / 'a.nii.gz'
  assert not translate(tmp_path, source, to=tmp_path / 'out').failed
  result = nibabel.load(tmp_path / 'out' / 'a.nii.gz')
  assert result.get_data_dtype() == np.float32
  np.testing.assert_array_equal(np.isnan(result.get_fdata()), missing)
  if not dtype_b:  # a TIFF stack of int16 has no mark for them
    translate(tmp_path, source, to=tmp_path / 'tiff', file_format='tiff')
    stack = tifffile.imread(tmp_path / 'tiff' / 'a.tif')
    np.testing.assert_array_equal(np.isnan(stack), missing.T)


@pytest.mark.parametrize('dtype_b', ['uint8', 'int16'])
def test_medical_files_become_floats_in_tiff(
  tmp_path: pathlib.Path, dtype_b: str
) -> None:
  source = tmp_path / 'ct.dcm'
  missing = write_padded(source, 'value')
  write_mr(tmp_path / 'b.nii')
  save_run(tmp_path, source, tmp_path / 'b.nii', dtype_b=dtype_b)
  outcome = translate(tmp_path, source, to=tmp_path / '1', file_format='tiff')
  assert not outcome.failed + outcome.notes
  made = tifffile.imread(tmp_path / '1' / 'ct.tif')
  assert made.dtype == np.float32
  np.testing.assert_array_equal(np.isnan(made), missing)
  if dtype_b == 'uint8':
    outcome = translate(tmp_path, source, to=tmp_path / '2', file_format='png')
    assert not outcome.failed
    (note,) = outcome.notes
    assert str(source) in note
    assert '--format tiff' in note


@pytest.mark.parametrize('pages', ['first', 'all'])
def test_pixels_without_data_that_no_value_marks_are_noted(
  tmp_path: pathlib.Path, pages: str
) -> None:
  rng = np.random.default_rng(0)
  stack = rng.uniform(0, 1, (2, 20, 24)).astype(np.float32)
  paths = [tmp_path / 'x.tif', tmp_path / 'y.tif']
  for path in paths:
    tifffile.imwrite(
      path, stack[: 1 + (pages == 'all')], photometric='minisblack'
    )
  save_run(tmp_path, *paths, pages=pages, dtype_b='int16')
  assert not translate(tmp_path, *paths, to=tmp_path / '1').notes
  stack[0, :5] = np.nan
  for path in paths:
    tifffile.imwrite(
      path, stack[: 1 + (pages == 'all')], photometric='minisblack'
    )
  outcome = translate(tmp_path, *paths, to=tmp_path / '2')
  assert outcome.num_made == 2
  (note,) = outcome.notes
  assert str(paths[0]) in note
  assert 'int16' in note


def test_clipped_inputs_are_noted(
  runs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  data = np.zeros((20, 24, 5), np.float32)
  for name, value in (('fine', 3071), ('some', 4000), ('most', 5000)):
    data[:, :4] = value
    if name == 'most':
      data[:, :12] = value
    nibabel.Nifti1Image(data, AFFINE).to_filename(tmp_path / f'{name}.nii')
  paths = [tmp_path / f'{name}.nii' for name in ('fine', 'some', 'most')]
  (note,) = translate(runs, *paths, to=tmp_path / 'out', batch_size=2).notes
  assert '-1024 to 3071' in note
  assert '2 inputs' in note
  assert f'50% of {paths[2]}' in note
  assert not translate(runs, paths[0], to=tmp_path / 'fine').notes


def write_padded(path: pathlib.Path, kind: str) -> np.ndarray:
  """Writes a padded CT slice; returns where it is padded."""
  data = pydicom.dcmread(dicom('CT_small.dcm'))
  pixels = data.pixel_array.copy()
  missing = np.zeros(pixels.shape, bool)
  missing[:30, 40:90] = True
  pixels[missing] = -2000
  data.PixelPaddingValue = -2000
  if kind == 'range':
    pixels[:10, 40:90] = -1500
    data.add_new('PixelPaddingRangeLimit', 'SS', -1400)
  elif kind == 'wrong sign':
    data.add_new('PixelPaddingValue', 'US', 63536)
  elif kind == 'bytes':
    pixels = np.where(missing, 0, (pixels // 16).clip(1, 255)).astype(np.uint8)
    data.PixelPaddingValue = 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.RescaleIntercept = 0
  elif kind == 'frames':
    pixels = np.stack([pixels, pixels])
    data.NumberOfFrames = 2
  data.PixelData = pixels.tobytes()
  data.save_as(path)
  return missing


@pytest.mark.parametrize(
  ('kind', 'target'),
  [
    ('value', {}),
    ('value', {'dtype_b': 'int16'}),
    ('value', {'dtype_b': 'int16', 'low_b': -32768.0, 'high_b': 99.0}),
    ('value', {'dtype_b': 'uint8'}),
    ('value', {'dtype_b': 'uint16'}),
    ('range', {}),
    ('wrong sign', {}),
    ('bytes', {}),
    ('frames', {}),
  ],
)
def test_dicom_keeps_padding(
  tmp_path: pathlib.Path, kind: str, target: dict[str, object]
) -> None:
  source = tmp_path / 'ct.dcm'
  missing = write_padded(source, kind)
  write_mr(tmp_path / 'b.nii')
  resolved = save_run(tmp_path, source, tmp_path / 'b.nii', **target)
  if kind != 'bytes':
    pixels = pydicom.dcmread(dicom('CT_small.dcm')).pixel_array[~missing]
    assert resolved.low_a == pixels.min() - 1024
  assert not translate(tmp_path, source, to=tmp_path / 'out').failed
  result = pydicom.dcmread(tmp_path / 'out' / 'ct.dcm')
  assert 'PixelPaddingRangeLimit' not in result
  pixels = np.broadcast_to(missing, result.pixel_array.shape)
  np.testing.assert_array_equal(
    result.pixel_array == result.PixelPaddingValue, pixels
  )
  values = pydicom.pixels.apply_rescale(result.pixel_array, result)
  known = values[~pixels]
  assert round(resolved.low_b) - 0.01 <= known.min() < known.max()
  assert known.max() <= round(resolved.high_b)
  # As it is read again.
  images = images_of(tmp_path / 'out' / 'ct.dcm')
  if not target:
    np.testing.assert_array_equal(np.isnan(stored(images, 0))[..., 0], missing)


def test_padding_is_not_marked_where_there_is_none(
  runs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  assert not translate(
    runs, pathlib.Path(dicom('MR_small.dcm')), to=tmp_path
  ).failed
  assert 'PixelPaddingValue' not in pydicom.dcmread(tmp_path / 'MR_small.dcm')


# Modality and units


def test_codes_are_those_that_all_files_share(tmp_path: pathlib.Path) -> None:
  ct, mr = dicom('CT_small.dcm'), dicom('MR_small.dcm')
  assert images_of(ct, ct).modality == 'CT'
  assert images_of(ct).rescale_type == 'HU'  # which DICOM takes for granted
  assert images_of(mr, dicom('test-SR.dcm')).modality == 'MR'
  assert images_of(mr).rescale_type == 'US'
  both = images_of(ct, mr)
  assert (both.modality, both.rescale_type) == ('', '')
  data = pydicom.dcmread(ct)
  data.Modality, data.RescaleType = 'c\u00e9', 'OD'
  data.SpecificCharacterSet = 'ISO_IR 192'
  data.save_as(tmp_path / 'x.dcm')
  odd = images_of(tmp_path / 'x.dcm', volume('anatomical.nii'))
  assert (odd.modality, odd.rescale_type) == ('', 'OD')


@pytest.mark.parametrize('option', ['modality_a', 'rescale_type_b'])
def test_codes_are_checked(option: str) -> None:
  with pytest.raises(ConfigError, match=option):
    DataConfig(**{option: 'mr'})
  assert DataConfig(window_a='ct_soft').modality_a == 'CT'
  assert DataConfig(window_a='ct_soft', modality_a='PT').modality_a == 'PT'


def test_modality_is_the_targets(tmp_path: pathlib.Path) -> None:
  ct, mr = (pathlib.Path(dicom(f'{name}_small.dcm')) for name in ('CT', 'MR'))
  resolved = save_run(tmp_path, ct, mr, name_b='MR T1')
  assert (resolved.modality_a, resolved.modality_b) == ('CT', 'MR')
  for direction, source in (('ab', ct), ('ba', mr)):
    to = tmp_path / direction
    assert not translate(tmp_path, source, to=to, direction=direction).failed
  to_mr = pydicom.dcmread(tmp_path / 'ab' / ct.name)
  assert (to_mr.Modality, to_mr.RescaleType) == ('MR', 'US')
  assert to_mr.SOPClassUID == pydicom.uid.MRImageStorage
  assert to_mr.file_meta.MediaStorageSOPClassUID == to_mr.SOPClassUID
  assert to_mr.SeriesDescription.endswith('(translated to MR T1)')
  to_ct = pydicom.dcmread(tmp_path / 'ba' / mr.name)
  assert (to_ct.Modality, to_ct.RescaleType) == ('CT', 'HU')
  assert to_ct.SOPClassUID == pydicom.uid.CTImageStorage
  (reference,) = to_ct.SourceImageSequence
  assert reference.ReferencedSOPClassUID == pydicom.uid.MRImageStorage


def test_one_frame_is_a_single_image(tmp_path: pathlib.Path) -> None:
  ct, mr = pathlib.Path(dicom('CT_small.dcm')), dicom('MR_small.dcm')
  save_run(tmp_path, ct, pathlib.Path(mr))
  data = pydicom.dcmread(ct)
  data.NumberOfFrames = 1
  data.save_as(tmp_path / 'one.dcm')
  data.SharedFunctionalGroupsSequence = [pydicom.Dataset()]
  data.save_as(tmp_path / 'enhanced.dcm')
  names = ('one.dcm', 'enhanced.dcm')
  sources = [tmp_path / name for name in names]
  assert not translate(tmp_path, *sources, to=tmp_path / 'out').failed
  one, enhanced = (pydicom.dcmread(tmp_path / 'out' / name) for name in names)
  assert one.SOPClassUID == pydicom.uid.MRImageStorage
  assert 'NumberOfFrames' not in one
  assert one.pixel_array.shape == data.pixel_array.shape
  # Its groups, which hold the units of values, are of frames.
  assert enhanced.SOPClassUID != pydicom.uid.MRImageStorage
  assert enhanced.NumberOfFrames == 1


def test_modality_that_is_not_known(
  runs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  names = ('CT_small.dcm', 'rtdose_rle.dcm')
  sources = [pathlib.Path(dicom(name)) for name in names]
  assert not translate(runs, *sources, to=tmp_path / 'b').failed
  one, frames = (pydicom.dcmread(tmp_path / 'b' / name) for name in names)
  for result in (one, frames):
    assert (result.Modality, result.RescaleType) == ('OT', 'US')
    assert result.ConversionType == 'SYN'
    assert 'translated to b' in result.SeriesDescription
  uid = pydicom.uid
  assert one.SOPClassUID == uid.SecondaryCaptureImageStorage
  assert (
    frames.SOPClassUID
    == uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage
  )
  # A window is one of Hounsfield units.
  outcome = translate(runs, sources[0], to=tmp_path / 'a', direction='ba')
  assert not outcome.failed
  result = pydicom.dcmread(tmp_path / 'a' / names[0])
  assert (result.Modality, result.RescaleType) == ('CT', 'HU')
  assert result.SOPClassUID == uid.CTImageStorage
