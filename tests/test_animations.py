"""Animated files: frame by frame, as other programs show them."""

import fractions
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from cyclegan_jax.errors import DataError
from cyclegan_jax.media import animations
from cyclegan_jax.media.animations import convert_animation

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
FORMATS = ('gif', 'png', 'webp')
DURATIONS = [40, 120, 70]
RED, BLUE, CLEAR = (200, 40, 40, 255), (30, 60, 220, 255), (0, 0, 0, 0)
BLACK = (0, 0, 0, 255)


def read(path):
  """RGBA arrays, durations, and the loop count as Pillow has it."""
  with Image.open(path) as image:
    shown, durations = [], []
    for index in range(image.n_frames):
      image.seek(index)
      shown.append(np.asarray(image.convert('RGBA')).astype(int))
      durations.append(image.info.get('duration', 0))
    return shown, durations, image.info.get('loop')


def squares(back=CLEAR):
  """Frames of 12 x 16 pixels: a red square that moves to the right."""
  frames = []
  for shift in range(3):
    pixels = np.full((12, 16, 4), back, np.uint8)
    pixels[2:8, shift : shift + 6] = RED
    frames.append(pixels)
  return frames


def save(path, frames, **options):
  images = [Image.fromarray(frame) for frame in frames]
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


def unchanged(frames):
  return frames


def convert(source, target, function=invert, channels=3, **options):
  options = {'max_pixels': 10**6, **options}
  convert_animation(source, target, function, channels=channels, **options)


def error_of(source, target, function=invert, **options):
  """The message of the error, after which nothing is left of the target."""
  before = set(target.parent.iterdir())
  with pytest.raises(DataError) as caught:
    convert(source, target, function, **options)
  assert set(target.parent.iterdir()) == before
  return str(caught.value)


@pytest.mark.parametrize(
  'source, target, batch_size',
  [
    ('gif', 'gif', 2),
    ('png', 'png', 3),
    ('webp', 'webp', 1),
    ('gif', 'png', 1),
    ('png', 'webp', 2),
    ('webp', 'gif', 3),
  ],
)
def test_frames_timing_and_alpha(source, target, batch_size, tmp_path):
  path = save(tmp_path / f'in.{source}', squares())
  made, calls = tmp_path / f'out.{target}', []
  convert(
    path, made, batch_size=batch_size, on_frame=lambda *args: calls.append(args)
  )
  shown, durations, loop = read(made)
  assert durations == DURATIONS
  assert loop == 0
  for shift, before in enumerate(squares()):
    np.testing.assert_array_equal(shown[shift][..., 3], before[..., 3])
    # The colors of edges run in WebP files.
    inside = shown[shift][4:6, shift + 2 : shift + 4, :3]
    tolerance = 12 if target == 'webp' else 0
    assert abs(inside - (55, 215, 215)).max() <= tolerance
  assert calls == [(1, 3), (2, 3), (3, 3)]
  assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
  'source, target, loop, expected',
  [
    ('gif', 'gif', 4, 4),
    ('gif', 'png', 4, 5),  # four times more is five times
    ('gif', 'png', None, 1),
    ('png', 'gif', 3, 2),
    ('png', 'gif', 1, None),
    ('webp', 'webp', 7, 7),
  ],
)
def test_repeats(source, target, loop, expected, tmp_path):
  path, made = tmp_path / f'in.{source}', tmp_path / f'out.{target}'
  images = [Image.fromarray(frame) for frame in squares()]
  options = {} if loop is None else {'loop': loop}
  images[0].save(path, save_all=True, append_images=images[1:], **options)
  convert(path, made)
  assert read(made)[2] == expected


def test_fractions_of_milliseconds(tmp_path):
  path = save(tmp_path / 'in.png', squares(), duration=1000 / 30)
  convert(path, tmp_path / 'out.png')
  data = (tmp_path / 'out.png').read_bytes()
  delay = fractions.Fraction(
    *struct.unpack_from('>HH', data, data.index(b'fcTL') + 24)
  )
  assert abs(delay - fractions.Fraction(1, 30)) < 0.001
  for ending, total in (('gif', 90), ('webp', 100)):
    convert(path, tmp_path / f'out.{ending}')
    assert sum(read(tmp_path / f'out.{ending}')[1]) == total


def test_equal_frames_keep_the_time(tmp_path):
  first, second, _ = squares()
  frames = [first, first, second, second]
  path = save(tmp_path / 'in.webp', frames, duration=[40, 40, 60, 60])
  for ending in FORMATS:
    convert(path, tmp_path / f'out.{ending}')
    assert read(tmp_path / f'out.{ending}')[1] == [80, 120]


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
    alpha = read(tmp_path / f'out.{ending}')[0][1][..., 3]
    np.testing.assert_array_equal(alpha, frames[1][..., 3])
  convert(path, tmp_path / 'out.gif', remember)
  assert tuple(seen[-1][0, 0, 0]) == (159, 163, 167)  # on white
  assert read(tmp_path / 'out.gif')[0][0][0, 0, 3] == 0


def test_opaque_frames_get_no_alpha(tmp_path):
  opaque = [frame[..., :3] for frame in squares(back=BLUE)]
  path = save(tmp_path / 'in.png', opaque)
  for ending in ('png', 'webp'):
    convert(path, tmp_path / f'out.{ending}')
    with Image.open(tmp_path / f'out.{ending}') as image:
      assert image.mode == 'RGB'
      assert image.n_frames == 3


def halves(*colors):
  """A frame of 4 x 6 pixels with a color for each of two halves."""
  return np.repeat(np.array(colors, np.uint8), 2, axis=0)[:, None].repeat(6, 1)


@pytest.mark.parametrize(
  'frames',
  [
    [halves(RED, BLUE), halves(BLUE, CLEAR), halves(RED, CLEAR)],
    [halves(BLACK, CLEAR), halves(CLEAR, BLACK), halves(BLACK, BLACK)],
    [halves(CLEAR, CLEAR), halves(BLACK, RED), halves(CLEAR, CLEAR)],
  ],
  ids=['opaque first', 'black', 'clear'],
)
@pytest.mark.parametrize('target', FORMATS)
def test_clear_parts_that_come_and_go(target, frames, tmp_path):
  path, made = save(tmp_path / 'in.png', frames), tmp_path / f'out.{target}'
  convert(path, made, unchanged)
  shown = [read(made)[0]]
  if target != 'webp':
    av = pytest.importorskip('av')
    demuxer = {'gif': 'gif', 'png': 'apng'}[target]
    with av.open(str(made), format=demuxer) as reader:
      shown.append([each.to_ndarray(format='rgba') for each in reader.decode()])
  for decoded in shown:
    for pixels, expected in zip(decoded, frames, strict=True):
      np.testing.assert_array_equal(pixels[..., 3], expected[..., 3])
      if target != 'webp':  # whose colors run
        difference = abs(pixels.astype(int) - expected)[expected[..., 3] > 0]
        assert difference.max(initial=0) <= 1


@pytest.mark.parametrize('target', ['gif', 'png'])
def test_gray_frames_of_another_size(target, tmp_path):
  path = save(tmp_path / 'in.webp', squares())

  def double(frames):
    assert frames.shape[1:] == (12, 16, 1)
    return frames.repeat(2, axis=1).repeat(2, axis=2)

  convert(path, tmp_path / f'out.{target}', double, channels=1)
  shown, _, _ = read(tmp_path / f'out.{target}')
  assert [pixels.shape for pixels in shown] == [(24, 32, 4)] * 3
  assert shown[2][10, 10, 3] == 255
  assert shown[2][10, 0, 3] == 0
  gray = shown[2][10, 10]
  assert gray[0] == gray[1] == gray[2]
  assert abs(gray[0] - 88) < 3  # 0.299 * 200 + 0.701 * 40


@pytest.mark.parametrize(
  'source, target, size, count',
  [
    ('gif', 'webp', (1, 1), 2),
    ('png', 'gif', (1, 7), 3),
    ('webp', 'png', (31, 47), 2),
    ('gif', 'gif', (31, 1), 1),
    ('png', 'webp', (4, 5), 1),
  ],
)
def test_sizes(source, target, size, count, tmp_path):
  frames = [np.full((*size, 4), color, np.uint8) for color in (RED, BLUE, RED)]
  path, made = tmp_path / f'in.{source}', tmp_path / f'out.{target}'
  convert(save(path, frames[:count], duration=40), made, batch_size=2)
  shown, _, _ = read(made)
  assert [pixels.shape for pixels in shown] == [(*size, 4)] * count
  assert abs(shown[0][0, 0] - (55, 215, 215, 255)).max() < 4


def test_a_poster_before_the_animation(tmp_path):
  poster = np.full((12, 16, 4), BLUE, np.uint8)
  path = save(tmp_path / 'in.png', [poster, *squares()], default_image=True)
  convert(path, tmp_path / 'out.png')
  shown, durations, _ = read(tmp_path / 'out.png')
  with Image.open(tmp_path / 'out.png') as image:
    assert image.default_image
    assert image.n_frames == 4
  assert tuple(shown[0][0, 0]) == (225, 195, 35, 255)
  assert shown[1][0, 0, 3] == 0
  assert durations[1:] == DURATIONS
  for target in ('gif', 'webp'):  # which have no such thing
    convert(path, tmp_path / f'out.{target}')
    shown, durations, _ = read(tmp_path / f'out.{target}')
    assert durations == DURATIONS
    assert shown[0][0, 0, 3] == 0


def test_gray_of_16_bits(tmp_path):
  gray = np.linspace(256, 65535, 192).reshape(12, 16).astype(np.uint16)
  dark = np.arange(192).reshape(12, 16).astype(np.uint16)
  images = [Image.fromarray(pixels) for pixels in (gray, dark)]
  images[0].save(
    tmp_path / 'in.png', save_all=True, append_images=images[1:], duration=40
  )
  convert(tmp_path / 'in.png', tmp_path / 'out.png', channels=1)
  shown, _, _ = read(tmp_path / 'out.png')
  for pixels, before in zip(shown, (gray, dark), strict=True):
    np.testing.assert_array_equal(pixels[..., 0], 255 - np.rint(before / 257))


@pytest.mark.parametrize('source, target', [('png', 'webp'), ('webp', 'png')])
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
    assert 'icc_profile' not in image.info  # it is of colors
    assert image.getexif()[0x010F] == 'Maker'


def test_frames_that_stand_out_of_a_gif(tmp_path):
  path = save(tmp_path / 'in.gif', squares(back=BLUE))
  data = bytearray(path.read_bytes())
  # The second frame is moved beyond the canvas.
  first = data.index(b',')
  second = data.index(struct.pack('<BHHHH', 44, 0, 0, 16, 12), first + 1)
  struct.pack_into('<HH', data, second + 1, 5, 5)
  path.write_bytes(data)
  convert(path, tmp_path / 'out.gif', batch_size=3)
  shown, _, _ = read(tmp_path / 'out.gif')
  assert [pixels.shape for pixels in shown] == [(12, 16, 4)] * 3
  message = error_of(path, tmp_path / 'other.gif', max_pixels=200)
  assert 'frame 2: 21 x 17 = 357 pixels' in message
  assert 'config.data.max_pixels=200' in message


# Errors.


@pytest.mark.parametrize('source', FORMATS)
def test_a_truncated_file(source, tmp_path):
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 255, (3, 12, 16, 3), np.uint8)
  path = save(tmp_path / f'in.{source}', list(noise))
  whole = path.read_bytes()
  needed = len(whole) - (20 if source == 'png' else 0)  # up to the end mark
  for cut in [*range(0, needed, 41), needed - 1]:
    path.write_bytes(whole[:cut])
    assert str(path) in error_of(path, tmp_path / 'out.png', batch_size=2)


def test_a_file_that_ends_between_frames(tmp_path):
  path = save(tmp_path / 'in.gif', squares(back=BLUE))
  whole = path.read_bytes()
  third = [i for i in range(len(whole)) if whole[i : i + 2] == b'!\xf9'][2]
  path.write_bytes(whole[:third])
  assert 'frame 3: the file is truncated' in error_of(path, tmp_path / 'o.gif')


def test_fewer_frames_than_claimed(tmp_path):
  path = save(tmp_path / 'in.png', squares())
  data = path.read_bytes()
  start = data.index(b'acTL')
  chunk = b'acTL' + struct.pack('>II', 5, 0)
  crc = struct.pack('>I', zlib.crc32(chunk))
  path.write_bytes(data[:start] + chunk + crc + data[start + 16 :])
  assert 'frame 4' in error_of(path, tmp_path / 'out.png')


@pytest.mark.parametrize(
  'content', [b'GIF89a\4\0\4\0\0\0\0;', b'no image' * 9, b'']
)
def test_no_animation(content, tmp_path):
  path, made = tmp_path / 'in.gif', tmp_path / 'out.gif'
  path.write_bytes(content)
  made.write_bytes(b'before')
  assert str(path) in error_of(path, made)
  assert made.read_bytes() == b'before'


@pytest.mark.parametrize('source', FORMATS)
def test_a_frame_of_too_many_pixels(source, tmp_path):
  path = save(tmp_path / f'in.{source}', squares())
  message = error_of(path, tmp_path / 'out.gif', max_pixels=100)
  assert '16 x 12 = 192 pixels' in message
  assert 'config.data.max_pixels=100' in message


@pytest.mark.parametrize('source', FORMATS)
def test_frames_of_too_many_pixels_together(source, tmp_path, monkeypatch):
  path = save(tmp_path / f'in.{source}', squares())
  monkeypatch.setattr(animations, 'MAX_ANIMATION_PIXELS', 3 * 192)
  convert(path, tmp_path / 'out.gif')
  calls = []

  def double(frames):
    calls.append(frames.shape)
    return frames.repeat(2, axis=1)

  message = error_of(path, tmp_path / 'double.gif', double)
  assert '3 frames of 16 x 24 are 1,152 pixels' in message
  assert len(calls) == 1
  monkeypatch.setattr(animations, 'MAX_ANIMATION_PIXELS', 3 * 192 - 1)
  message = error_of(path, tmp_path / 'double.gif', double)
  assert str(path) in message
  assert '3 frames of 16 x 12 are 576 pixels' in message
  assert '575' in message
  assert len(calls) == 1  # nothing was decoded


@pytest.mark.parametrize('error', [EOFError('a bug'), KeyboardInterrupt()])
def test_errors_of_the_network_pass_through(error, tmp_path):
  path = save(tmp_path / 'in.gif', squares())
  calls = []

  def fail(frames):
    calls.append(frames)
    if len(calls) == 2:
      raise error
    return frames

  with pytest.raises(type(error)) as caught:
    convert(path, tmp_path / 'out.gif', fail)
  assert caught.value is error
  assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize('target, side', [('gif', 70_000), ('webp', 17_000)])
def test_frames_that_a_format_cannot_hold(target, side, tmp_path):
  path = tmp_path / 'in.png'
  Image.new('RGB', (4, 1)).save(path)
  made = tmp_path / f'out.{target}'
  message = error_of(path, made, lambda frames: frames.repeat(side // 4, 2))
  assert str(made) in message


def test_a_full_disk(tmp_path, monkeypatch):
  def fail(*args, **options):
    raise OSError(28, 'No space left on device')

  path = save(tmp_path / 'in.gif', squares())
  monkeypatch.setattr(Image.Image, 'save', fail)
  with pytest.raises(OSError, match='No space left'):
    convert(path, tmp_path / 'out.gif')
