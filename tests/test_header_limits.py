"""Hostile headers: refused before a decoder allocates what they ask for."""

import io
import struct
import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from cyclegan_jax.data.file_images import images_of_files
from cyclegan_jax.media import decoding
from cyclegan_jax.media.decoding import (
  ImageError,
  decode,
  decoded_shape,
)
from cyclegan_jax.media.header_limits import (
  MAX_SIDE,
  read_directory,
)
from cyclegan_jax.media.metadata import read_metadata

MAX_PIXELS = 100_000_000
BYTE, SHORT, LONG = 7, 3, 4


def chunk(kind, data):
  check = struct.pack('>I', zlib.crc32(kind + data))
  return struct.pack('>I', len(data)) + kind + data + check


def png(width, height, *extra):
  header = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
  rows = zlib.compress(bytes((width + 1) * height) if height < 9 else b'')
  chunks = (chunk(b'IHDR', header), *extra, chunk(b'IDAT', rows))
  return b'\x89PNG\r\n\x1a\n' + b''.join(chunks) + chunk(b'IEND', b'')


def bmp(width, height):
  header = struct.pack('<IiiHHIIiiII', 40, width, height, 1, 24, *[0] * 6)
  return b'BM' + struct.pack('<IHHI', 54, 0, 0, 54) + header


def riff(kind, data):
  body = b'WEBP' + kind + struct.pack('<I', len(data)) + data
  return b'RIFF' + struct.pack('<I', len(body)) + body


def webp_canvas(width, height, *, animated=False):
  sides = (width - 1).to_bytes(3, 'little') + (height - 1).to_bytes(3, 'little')
  head = riff(b'VP8X', bytes([2 * animated, 0, 0, 0]) + sides)
  frame = b'ANMF' + struct.pack('<I', 16) + bytes(16)
  return head + (b'ANIM' + struct.pack('<I', 6) + bytes(6) + frame) * animated


def webp_lossless(width, height):
  bits = (width - 1) | (height - 1) << 14
  return riff(b'VP8L', b'\x2f' + struct.pack('<I', bits) + bytes(64))


def webp_lossy(width, height):
  start = b'\x10\0\0\x9d\x01\x2a' + struct.pack('<HH', width, height)
  return riff(b'VP8 ', start + bytes(64))


def tiff(*entries, tail=b'', order='<'):
  """Of (tag, type, count, value or offset); the tail starts at `at`."""
  start = b'II*\0' if order == '<' else b'MM\0*'
  body = b''.join(struct.pack(order + 'HHII', *each) for each in entries)
  head = start + struct.pack(order + 'IH', 8, len(entries))
  return head + body + bytes(4) + tail


def overlapping_tags(num, size):
  """`num` tags that all are the same `size` bytes: num * size in memory."""
  at = 14 + 12 * num
  entries = [(1000 + i, BYTE, size, at) for i in range(num)]
  return tiff(*entries, tail=bytes(size))


def tiff_image(width, height, *extra):
  basic = [(258, SHORT, 1, 8), (259, SHORT, 1, 1), (262, SHORT, 1, 1)]
  entries = [(256, LONG, 1, width), (257, LONG, 1, height), *basic, *extra]
  return tiff(*sorted(entries), tail=bytes(64))


def segment(marker, data):
  return b'\xff' + bytes([marker]) + struct.pack('>H', len(data) + 2) + data


def jpeg(*segments, width=8, height=8):
  file = io.BytesIO()
  Image.new('L', (8, 8)).save(file, 'JPEG')
  data = file.getvalue()
  size = data.index(b'\xff\xc0') + 5
  sides = struct.pack('>HH', height, width)
  data = data[:size] + sides + data[size + 4 :]
  return data[:2] + b''.join(segments) + data[2:]


def jpeg_exif(exif):
  parts = [exif[i : i + 60_000] for i in range(0, len(exif), 60_000)]
  return jpeg(*(segment(0xE1, b'Exif\0\0' + part) for part in parts))


LIMIT = 'config.data.max_pixels=100000000'
TAGS = overlapping_tags(20_000, 2**20)  # 1.3 MB of file, 20 GB of memory
FEW_TAGS = overlapping_tags(2_000, 40_000)

HOSTILE = {
  'png sides': (png(2**31 - 1, 2**31 - 1), '2147483647 x 2147483647'),
  'png line': (png(MAX_SIDE + 1, 1), 'more than 65535'),
  'bmp sides': (bmp(2**31 - 1, 2**30), LIMIT),
  'bmp line': (bmp(1, 70_000), 'more than 65535'),
  'webp canvas': (webp_canvas(2**24, 255), LIMIT),
  'webp animation': (webp_canvas(60_000, 60_000, animated=True), LIMIT),
  'webp line': (webp_canvas(2**24, 1), 'more than 65535'),
  'webp lossless': (webp_lossless(2**14, 2**14), LIMIT),
  'webp lossy': (webp_lossy(16_383, 16_000), LIMIT),
  'tiff sides': (
    tiff_image(2**32 - 1, 2**32 - 1, (273, LONG, 1, 8)),
    '4294967295 x 4294967295',
  ),
  'tiff tags': (TAGS, f'20971520000 bytes of a file of {len(TAGS)}'),
  'tiff tags of the other byte order': (
    tiff((1000, BYTE, 2**31, 8), order='>'),
    '2147483648 bytes of a file of 26',
  ),
  'tiff numbers': (
    tiff((258, SHORT, 2**24, 26), tail=bytes(2**25)),
    'tag 258 claims 16777216 numbers',
  ),
  'tiff tiles': (
    tiff_image(
      8, 8, (322, LONG, 1, 2**16), (323, LONG, 1, 2**14), (324, LONG, 1, 99)
    ),
    'tiles are 65536 x 16384',
  ),
  'tiff directory': (
    b'II+\0\x08\0\0\0' + struct.pack('<QQ', 16, 2**60),
    'claims 1152921504606846976 tags',
  ),
  'tiff directory of the other byte order': (
    b'MM\0+\0\x08\0\0' + struct.pack('>QQ', 16, 2**60),
    'claims 1152921504606846976 tags',
  ),
  'jpeg sides': (jpeg(width=65_535, height=65_535), LIMIT),
  'jpeg scans': (jpeg() + b'\xff\xda' * 600, '601 scans'),
}

# The pixels are sound, and used without the metadata; shapes by name.
ODD_METADATA = {
  'png text': (
    png(2, 1, chunk(b'zTXt', b'x\0\0' + zlib.compress(bytes(2**26)))),
    (1, 2),
  ),
  'png orientation': (
    png(
      2,
      1,
      chunk(
        b'iTXt',
        b'XML:com.adobe.xmp\0\1\0\0\0' + zlib.compress(bytes(2**26)),
      ),
    ),
    (1, 2),
  ),
  'png profile': (
    png(2, 1, chunk(b'iCCP', b'x\0\0' + zlib.compress(bytes(2**26)))),
    (1, 2),
  ),
  'png checksum': (png(2, 1, b'\0\0\0\2eXIfMM\0\0\0\0'), (1, 2)),
  'png pixels per meter': (png(2, 1, chunk(b'pHYs', b'\0')), (1, 2)),
  'png transparency': (png(2, 1, chunk(b'tRNS', b'\0')), (1, 2)),
  'jpeg exif': (jpeg_exif(TAGS), (8, 8)),
  'jpeg garbage': (jpeg(segment(0xE1, b'Exif\0\0garbage')), (8, 8)),
  'jpeg pictures': (
    jpeg(segment(0xE2, b'MPF\0' + FEW_TAGS[:65_000])),
    (8, 8),
  ),
  'jpeg profile': (jpeg(segment(0xE2, b'ICC_PROFILE\0')), (8, 8)),
  'jpeg start': (jpeg(segment(0xE0, b'JFIF')), (8, 8)),
  'jpeg adobe': (jpeg(segment(0xEE, b'Adobe\0')), (8, 8)),
}


# So little more than the process has that one of the claims would end it.
IN_LITTLE_MEMORY = """
import pathlib, resource, sys
from cyclegan_jax.media.decoding import ImageError, decode, decoded_shape
with open('/proc/self/statm') as file:
  used = int(file.read().split()[0]) * resource.getpagesize()
limit = used + 400 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
  bytearray(401 * 2**20)
except MemoryError:
  print('limited')
for path in sys.argv[1:]:
  with open(path, 'rb') as file:
    for read in (
      lambda: decode(file, 'x', channels=3, max_pixels=100_000_000),
      lambda: decoded_shape(file, 'x', max_pixels=100_000_000),
    ):
      try:
        value = read()
        print(getattr(value, 'shape', value))
      except ImageError as error:
        print(error.reason)
"""


@pytest.mark.process
def test_hostile_headers_take_no_memory(tmp_path):
  files = HOSTILE | ODD_METADATA
  for name, (data, _) in files.items():
    (tmp_path / name).write_bytes(data)
  done = subprocess.run(
    [sys.executable, '-c', IN_LITTLE_MEMORY]
    + [str(tmp_path / name) for name in files],
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.returncode == 0, done.stderr
  limited, *reasons = done.stdout.splitlines()
  assert limited == 'limited'
  expected = [reason for _, reason in HOSTILE.values() for _ in range(2)]
  for _, shape in ODD_METADATA.values():
    expected += [str((*shape, 3)), str(shape)]
  for reason, part in zip(reasons, expected, strict=True):
    assert part in reason


@pytest.mark.parametrize('data, reason', HOSTILE.values(), ids=HOSTILE)
def test_reason_of_a_hostile_header(data, reason):
  with pytest.raises(ImageError) as caught:
    decode(io.BytesIO(data), 'x', channels=1, max_pixels=MAX_PIXELS)
  assert reason in caught.value.reason


@pytest.mark.parametrize('data, shape', ODD_METADATA.values(), ids=ODD_METADATA)
def test_odd_metadata_leave_the_pixels(data, shape):
  options = {'max_pixels': MAX_PIXELS}
  image = decode(io.BytesIO(data), 'x', channels=1, **options)
  assert image.shape == (*shape, 1)
  assert decoded_shape(io.BytesIO(data), 'x', **options) == shape
  metadata = read_metadata(io.BytesIO(data), 'x', **options)
  assert metadata.exif is None
  assert metadata.icc is None


def test_the_orientation_is_read_beside_a_broken_tag():
  tags = tiff((0x0112, SHORT, 1, 6), (1000, BYTE, 19_660_800, 0))
  for data in (jpeg_exif(tags), png(8, 4, chunk(b'eXIf', tags))):
    file = io.BytesIO(data)
    shape = decoded_shape(file, 'x', max_pixels=MAX_PIXELS)
    image = decode(file, 'x', channels=1, max_pixels=MAX_PIXELS)
    assert image.shape[:2] == shape
    assert shape in ((8, 8), (8, 4))


def test_damaged_metadata_are_reported_once(monkeypatch, caplog):
  monkeypatch.setattr(decoding, '_reported', threading.Lock())
  for name in ('first.jpg', 'second.jpg'):
    data = io.BytesIO(jpeg_exif(TAGS))
    decode(data, name, channels=1, max_pixels=MAX_PIXELS)
  (record,) = caplog.records
  assert 'first.jpg' in record.getMessage()
  assert 'EXIF' in record.getMessage()


def test_sound_metadata_stay():
  exif = Image.Exif()
  exif[0x010E] = 'a zebra'
  profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
  for kind in ('JPEG', 'PNG', 'WEBP'):
    file = io.BytesIO()
    image = Image.new('RGB', (4, 4))
    image.save(file, kind, exif=exif, icc_profile=profile)
    metadata = read_metadata(file, 'x', max_pixels=MAX_PIXELS)
    assert b'a zebra' in metadata.exif
    assert metadata.icc == profile


def test_hostile_exif_leaves_the_pixels_as_they_are():
  data = png(3, 2, chunk(b'eXIf', TAGS))
  options = {'max_pixels': MAX_PIXELS}
  assert decode(io.BytesIO(data), 'x', channels=1, **options).shape == (2, 3, 1)
  assert decoded_shape(io.BytesIO(data), 'x', **options) == (2, 3)


def test_a_file_larger_than_any_image(tmp_path):
  path = tmp_path / 'x.png'
  with path.open('wb') as file:
    file.write(png(3, 2))
    file.truncate(2**40)  # sparse
  images = images_of_files([str(path)], channels=3, max_pixels=1000)
  for read in (images.read, images.shape_of):
    with pytest.raises(ImageError) as caught:
      read(0)
    assert 'config.data.max_pixels=1000' in caught.value.reason


def test_the_longest_side_is_decoded():
  data = io.BytesIO(png(MAX_SIDE, 1))
  image = decode(data, 'x', channels=1, max_pixels=MAX_PIXELS)
  assert image.shape == (1, MAX_SIDE, 1)


@pytest.mark.parametrize('order', '<>')
def test_single_numbers_of_a_directory(order):
  short = 7 if order == '<' else 7 << 16  # left in its four bytes
  data = tiff(
    (1, SHORT, 1, short),
    (2, LONG, 1, 70_000),
    (3, BYTE, 4, 5),
    (4, 99, 2**31, 6),  # of an unknown type, which nobody reads
    order=order,
  )
  assert read_directory(io.BytesIO(data)).numbers == {1: 7, 2: 70_000}


def test_a_directory_that_is_cut_short():
  data = tiff((1, SHORT, 1, 7))
  for cut in range(len(data)):
    expected = {1: 7} if cut >= 22 else {}
    assert read_directory(io.BytesIO(data[:cut])).numbers == expected


@pytest.mark.parametrize(
  'kind, options',
  [
    ('JPEG', {'progressive': True, 'comment': b'\xff' * 300}),
    ('PNG', {'icc_profile': bytes(200_000)}),
    ('WEBP', {'quality': 50}),
    ('WEBP', {'icc_profile': bytes(100)}),
    ('TIFF', {'compression': 'jpeg', 'tiffinfo': {270: 'x' * 10_000}}),
    ('TIFF', {'big_tiff': True}),
    ('BMP', {}),
  ],
)
def test_files_of_honest_makers_pass(kind, options):
  pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, kind, **options)
  # No pixel more than it has, so that a size read wrongly would not pass.
  options = {'max_pixels': 37 * 53}
  assert decode(file, 'x', channels=3, **options).shape == (37, 53, 3)
  assert decoded_shape(file, 'x', **options) == (37, 53)
