"""Animated files: frame by frame, as others show them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from cyclegan_jax.errors import DataError, UserError
from cyclegan_jax.media.clips import convert_animation
from cyclegan_jax.media.decoding import ImageError

MANY = 10**6
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
FORMATS = ('gif', 'png', 'webp')
DURATIONS = [40, 120, 70]
# Colours that no palette has to change.
RED, BLUE, CLEAR = (200, 40, 40, 255), (30, 60, 220, 255), (0, 0, 0, 0)


def frames_of(path):
  """RGBA arrays, durations, and how often it is played."""
  with Image.open(path) as image:
    shown, durations = [], []
    for index in range(image.n_frames):
      image.seek(index)
      shown.append(np.asarray(image.convert('RGBA')).astype(int))
      durations.append(image.info.get('duration', 0))
    return shown, durations, image.info.get('loop')


def squares(height=12, width=16, count=3, *, back=CLEAR):
  """A red square that moves to the right."""
  frames = []
  for shift in range(count):
    pixels = np.full((height, width, 4), back, np.uint8)
    pixels[2:8, shift : shift + 6] = RED
    frames.append(pixels)
  return frames


def save(path, frames, **options):
  images = [Image.fromarray(each) for each in frames]
  options = {'duration': DURATIONS, 'loop': 0, **options}
  if path.suffix == '.webp':
    options['lossless'] = True
  if path.suffix == '.gif':
    options['disposal'] = 2
  images[0].save(path, save_all=True, append_images=images[1:], **options)
  return path


def invert(frames):
  assert frames.ndim == 4
  assert frames.dtype == np.uint8
  return 255 - frames


def convert(source, target, function=invert, channels=3, **options):
  options = {'max_pixels': MANY, **options}
  convert_animation(source, target, function, channels=channels, **options)


@pytest.mark.parametrize('batch_size', [1, 2])
@pytest.mark.parametrize('target', FORMATS)
@pytest.mark.parametrize('source', FORMATS)
def test_frames_timing_and_alpha(source, target, batch_size, tmp_path):
  path = save(tmp_path / f'in.{source}', squares())
  made, told = tmp_path / f'out.{target}', []
  convert(
    path,
    made,
    batch_size=batch_size,
    on_frame=lambda *of: told.append(of),
  )
  shown, durations, loop = frames_of(made)
  assert durations == DURATIONS
  assert loop == 0
  for shift, before in enumerate(squares()):
    pixels = shown[shift]
    np.testing.assert_array_equal(pixels[..., 3], before[..., 3])
    if target == 'webp':  # whose colours of edges run
      inside = pixels[4:6, shift + 2 : shift + 4, :3]
      assert abs(inside - (55, 215, 215)).max() < 12
    else:
      inside = pixels[2:8, shift : shift + 6, :3]
      assert abs(inside - (55, 215, 215)).max() == 0
  total = None if source == 'gif' else 3
  assert told == [(1, total), (2, total), (3, total)]
  assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize('target', ['gif', 'png'])
def test_another_decoder_shows_the_same(target, tmp_path):
  av = pytest.importorskip('av')
  path = save(tmp_path / 'in.png', squares())
  made = tmp_path / f'out.{target}'
  convert(path, made)
  demuxer = {'gif': 'gif', 'png': 'apng'}[target]
  with av.open(str(made), format=demuxer) as reader:
    shown = [each.to_ndarray(format='rgba') for each in reader.decode(video=0)]
  for pixels, expected in zip(shown, frames_of(made)[0], strict=True):
    np.testing.assert_array_equal(pixels[..., 3], expected[..., 3])
    seen = expected[..., 3] > 0
    np.testing.assert_array_equal(pixels[seen], expected[seen])


@pytest.mark.parametrize(
  'source, target, plays, expected',
  [
    ('gif', 'gif', None, None),
    ('gif', 'gif', 0, 0),
    ('gif', 'gif', 4, 4),
    ('gif', 'png', 4, 5),  # four times more is five times
    ('gif', 'png', None, 1),
    ('png', 'png', 3, 3),
    ('png', 'gif', 3, 2),
    ('png', 'gif', 1, None),
    ('webp', 'webp', 7, 7),
    ('webp', 'png', 7, 7),
  ],
)
def test_how_often_it_is_played(source, target, plays, expected, tmp_path):
  options = {'loop': plays} if plays is not None else {}
  images = [Image.fromarray(each) for each in squares()]
  path, made = tmp_path / f'in.{source}', tmp_path / f'out.{target}'
  images[0].save(
    path, save_all=True, append_images=images[1:], duration=50, **options
  )
  convert(path, made)
  assert frames_of(made)[2] == expected


def test_times_that_are_no_whole_numbers(tmp_path):
  path = save(tmp_path / 'in.png', squares(), duration=1000 / 30)
  convert(path, tmp_path / 'out.png')
  data = (tmp_path / 'out.png').read_bytes()
  at = data.index(b'fcTL') + 4
  assert struct.unpack_from('>HH', data, at + 20) == (1, 30)
  for ending, expected in (('gif', 30), ('webp', 33)):
    convert(path, tmp_path / f'out.{ending}')
    assert frames_of(tmp_path / f'out.{ending}')[1][0] == expected


def test_half_transparent_parts(tmp_path):
  frames = squares(back=(10, 20, 30, 100))
  path = save(tmp_path / 'in.png', frames)
  seen = []

  def remember(batch):
    seen.append(batch)
    return batch

  for ending in ('png', 'webp'):
    convert(path, tmp_path / f'out.{ending}', remember)
    assert tuple(seen[-1][0, 0, 0]) == (10, 20, 30)
    alpha = frames_of(tmp_path / f'out.{ending}')[0][1][..., 3]
    np.testing.assert_array_equal(alpha, frames[1][..., 3])
  convert(path, tmp_path / 'out.gif', remember)
  assert tuple(seen[-1][0, 0, 0]) == (159, 163, 167)  # on white
  assert frames_of(tmp_path / 'out.gif')[0][0][0, 0, 3] == 0


def test_opaque_frames_get_no_alpha(tmp_path):
  opaque = [each[..., :3] for each in squares(back=BLUE)]
  path = save(tmp_path / 'in.png', opaque)
  for ending in ('png', 'webp'):
    convert(path, tmp_path / f'out.{ending}')
    with Image.open(tmp_path / f'out.{ending}') as image:
      assert image.mode == 'RGB'
      assert image.n_frames == 3


@pytest.mark.parametrize('target', FORMATS)
def test_grey_frames_of_another_size(target, tmp_path):
  path = save(tmp_path / 'in.webp', squares())

  def twice(frames):
    assert frames.shape[1:] == (12, 16, 1)
    return frames.repeat(2, axis=1).repeat(2, axis=2)

  convert(path, tmp_path / f'out.{target}', twice, channels=1)
  shown, _, _ = frames_of(tmp_path / f'out.{target}')
  assert [each.shape for each in shown] == [(24, 32, 4)] * 3
  assert shown[2][10, 10, 3] == 255
  assert shown[2][10, 0, 3] == 0
  grey = shown[2][10, 10]
  assert grey[0] == grey[1] == grey[2]
  assert abs(grey[0] - 88) < 3  # 0.299 * 200 + 0.701 * 40


@pytest.mark.parametrize('size', [(1, 1), (1, 7), (31, 47)])
@pytest.mark.parametrize('source', FORMATS)
def test_sizes(source, size, tmp_path):
  frames = [np.full((*size, 4), c, np.uint8) for c in (RED, BLUE, RED)]
  path = save(tmp_path / f'in.{source}', frames)
  for target in FORMATS:
    made = tmp_path / f'out.{target}'
    convert(path, made, batch_size=2)
    shown, _, _ = frames_of(made)
    assert [each.shape for each in shown] == [(*size, 4)] * 3
    assert abs(shown[1][0, 0] - (225, 195, 35, 255)).max() < 4


@pytest.mark.parametrize('source', FORMATS)
def test_a_single_frame(source, tmp_path):
  path = tmp_path / f'in.{source}'
  Image.new('RGB', (5, 4), RED[:3]).save(path)
  for target in FORMATS:
    convert(path, tmp_path / f'out.{target}')
    (shown,), _, _ = frames_of(tmp_path / f'out.{target}')
    assert abs(shown[0, 0] - (55, 215, 215, 255)).max() < 4


def test_a_picture_before_the_animation(tmp_path):
  poster = np.full((12, 16, 4), BLUE, np.uint8)
  path = save(tmp_path / 'in.png', [poster, *squares()], default_image=True)
  convert(path, tmp_path / 'out.png')
  shown, durations, _ = frames_of(tmp_path / 'out.png')
  with Image.open(tmp_path / 'out.png') as image:
    assert image.default_image
    assert image.n_frames == 4
  assert tuple(shown[0][0, 0]) == (225, 195, 35, 255)
  assert shown[1][0, 0, 3] == 0
  assert durations[1:] == DURATIONS
  for target in ('gif', 'webp'):  # which have no such thing
    convert(path, tmp_path / f'out.{target}')
    assert frames_of(tmp_path / f'out.{target}')[1] == DURATIONS


def test_grey_of_16_bits(tmp_path):
  grey = np.linspace(256, 65535, 192).reshape(12, 16).astype(np.uint16)
  dark = np.arange(192).reshape(12, 16).astype(np.uint16)
  images = [Image.fromarray(each) for each in (grey, dark)]
  images[0].save(
    tmp_path / 'in.png', save_all=True, append_images=images[1:], duration=40
  )
  convert(tmp_path / 'in.png', tmp_path / 'out.png', channels=1)
  shown, _, _ = frames_of(tmp_path / 'out.png')
  for got, before in zip(shown, (grey, dark), strict=True):
    np.testing.assert_array_equal(got[..., 0], 255 - np.rint(before / 257))


@pytest.mark.parametrize('target', ['png', 'webp'])
@pytest.mark.parametrize('source', ['png', 'webp'])
def test_profile_and_exif(source, target, tmp_path):
  exif = Image.Exif()
  exif[0x010F], exif[0x0112] = 'Maker', 6
  path = save(tmp_path / f'in.{source}', squares(), exif=exif, icc_profile=SRGB)
  made = tmp_path / f'out.{target}'
  convert(path, made)
  with Image.open(made) as image:
    assert image.size == (12, 16)  # it lay on its side
    assert image.info['icc_profile'] == SRGB
    assert image.getexif()[0x010F] == 'Maker'
    assert image.getexif().get(0x0112, 1) == 1
    pixels = np.asarray(image.convert('RGBA'))
  turned = np.rot90(squares()[0], -1)
  np.testing.assert_array_equal(pixels[..., 3], turned[..., 3])
  convert(path, made, lambda frames: frames[..., :1])
  with Image.open(made) as image:
    assert 'icc_profile' not in image.info  # it is of colours
    assert image.getexif()[0x010F] == 'Maker'


def test_frames_that_stand_out_of_a_gif(tmp_path):
  path = save(tmp_path / 'in.gif', squares(back=BLUE))
  data = bytearray(path.read_bytes())
  # Its own size is made smaller than that of its frames, after the first.
  assert struct.unpack_from('<HH', data, 6) == (16, 12)
  first = data.index(b',')
  assert struct.unpack_from('<HH', data, first + 5) == (16, 12)
  second = data.index(struct.pack('<BHHHH', 44, 0, 0, 16, 12), first + 1)
  struct.pack_into('<HH', data, second + 1, 5, 5)
  path.write_bytes(data)
  convert(path, tmp_path / 'out.gif', batch_size=3)
  shown, _, _ = frames_of(tmp_path / 'out.gif')
  assert [each.shape for each in shown] == [(12, 16, 4)] * 3
  with pytest.raises(ImageError) as caught:
    convert(path, tmp_path / 'other.gif', max_pixels=200)
  assert str(caught.value) == (
    f"{path} can't be read: frame 2: 21 x 17 = 357 pixels, more than "
    'config.data.max_pixels=200'
  )


@pytest.mark.parametrize('target', FORMATS)
def test_frames_are_written_as_they_come(target, tmp_path):
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 255, (30, 64, 64, 3), np.uint8)
  path = save(tmp_path / 'in.png', list(noise), duration=20)
  sizes = []

  def look(frames):
    assert len(frames) == 1
    (made,) = tmp_path.glob('.*.tmp')
    sizes.append(made.stat().st_size)
    return frames

  convert(path, tmp_path / f'out.{target}', look)
  assert sizes[10] > 0
  assert sizes[20] > 1.5 * sizes[10]


# What can't be.


@pytest.mark.parametrize('source', FORMATS)
def test_a_truncated_file(source, tmp_path):
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 255, (3, 12, 16, 3), np.uint8)
  path = save(tmp_path / f'in.{source}', list(noise))
  whole = path.read_bytes()
  needed = len(whole) - (20 if source == 'png' else 0)  # up to the end mark
  for cut in [*range(0, needed, 7), needed - 1]:
    path.write_bytes(whole[:cut])
    with pytest.raises(ImageError) as caught:
      convert(path, tmp_path / f'out.{source}', batch_size=2)
    assert str(caught.value).startswith(f"{path} can't be read: ")
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_where_a_file_is_truncated(tmp_path):
  path = save(tmp_path / 'in.gif', squares(back=BLUE))
  whole = path.read_bytes()
  third = [at for at in range(len(whole)) if whole[at : at + 2] == b'!\xf9'][2]
  for cut, reason in (
    (third, 'frame 3: the file is truncated'),
    (third + 5, 'frame 3: the file is truncated'),
    (10, 'it is damaged, or has no frames'),
    (0, 'the file is empty'),
  ):
    path.write_bytes(whole[:cut])
    with pytest.raises(ImageError) as caught:
      convert(path, tmp_path / 'out.gif')
    assert str(caught.value) == f"{path} can't be read: {reason}"


def test_fewer_frames_than_are_claimed(tmp_path):
  path = save(tmp_path / 'in.png', squares())
  data = path.read_bytes()
  at = data.index(b'acTL')
  chunk = b'acTL' + struct.pack('>II', 5, 0)
  crc = struct.pack('>I', zlib.crc32(chunk))
  path.write_bytes(data[:at] + chunk + crc + data[at + 16 :])
  with pytest.raises(ImageError) as caught:
    convert(path, tmp_path / 'out.png')
  assert str(caught.value) == (
    f"{path} can't be read: frame 4: the file is truncated"
  )


@pytest.mark.parametrize(
  'content, reason',
  [
    (b'GIF89a\4\0\4\0\0\0\0;', 'it is damaged, or has no frames'),
    (b'no image' * 9, 'not a GIF, PNG or WebP image'),
    (b'', 'the file is empty'),
  ],
)
def test_what_is_no_animation(content, reason, tmp_path):
  path = tmp_path / 'in.gif'
  path.write_bytes(content)
  with pytest.raises(ImageError) as caught:
    convert(path, tmp_path / 'out.gif')
  assert str(caught.value) == f"{path} can't be read: {reason}"
  assert [each.name for each in tmp_path.iterdir()] == ['in.gif']


@pytest.mark.parametrize('source', FORMATS)
def test_too_many_pixels(source, tmp_path):
  path = save(tmp_path / f'in.{source}', squares())
  with pytest.raises(ImageError) as caught:
    convert(path, tmp_path / 'out.gif', max_pixels=100)
  assert str(caught.value) == (
    f"{path} can't be read: 16 x 12 = 192 pixels, more than "
    'config.data.max_pixels=100'
  )


@pytest.mark.parametrize(
  'error',
  [
    ValueError('a bug'),
    IndexError('a bug'),
    EOFError('a bug'),
    OSError('a disk'),
    MemoryError(),
    UserError('a network that is not there'),
    KeyboardInterrupt(),
    SystemExit(3),
  ],
  ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize('source', FORMATS)
def test_what_the_network_raises_is_raised(source, error, tmp_path):
  path = save(tmp_path / f'in.{source}', squares())
  num_calls = 0

  def fail(frames):
    nonlocal num_calls
    num_calls += 1
    if num_calls == 2:
      raise error
    return frames

  with pytest.raises(type(error)) as caught:
    convert(path, tmp_path / f'out.{source}', fail)
  assert caught.value is error
  assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize('target', ['gif', 'webp'])
def test_frames_that_a_format_has_no_room_for(target, tmp_path):
  path = tmp_path / 'in.png'
  Image.new('RGB', (4, 1)).save(path)
  made = tmp_path / f'out.{target}'
  sides = {'gif': 70_000, 'webp': 17_000}
  with pytest.raises(DataError, match=r"out\.\w+ can't be written: ") as caught:
    convert(path, made, lambda frames: frames.repeat(sides[target] // 4, 2))
  if target == 'gif':
    assert str(caught.value) == (
      f"{made} can't be written: GIF has no sides of more than 65535"
    )
  assert [each.name for each in tmp_path.iterdir()] == ['in.png']


def test_a_file_that_was_there_stays_where_it_fails(tmp_path):
  path = tmp_path / 'in.gif'
  path.write_bytes(b'nothing')
  made = tmp_path / 'out.gif'
  made.write_bytes(b'before')
  with pytest.raises(ImageError):
    convert(path, made)
  assert made.read_bytes() == b'before'


def test_a_copy_in_memory_is_closed(tmp_path, recwarn):
  buffer = io.BytesIO()
  Image.new('RGB', (4, 4)).save(buffer, 'GIF')
  (tmp_path / 'in.gif').write_bytes(buffer.getvalue())
  convert(tmp_path / 'in.gif', tmp_path / 'out.gif')
  assert not recwarn.list
