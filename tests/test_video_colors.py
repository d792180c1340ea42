"""A video's colors: matrix, range and primaries.

The stored values are computed here by the equations of the standards, not by
the package under test.
"""

import fractions

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.media.videos import convert_video

av = pytest.importorskip('av')

WIDTH, HEIGHT, BAR = 96, 64, 12
BARS = np.array(
  [
    *[(255, 255, 255), (255, 255, 0), (0, 255, 255), (0, 255, 0)],
    *[(255, 0, 255), (255, 0, 0), (0, 0, 255), (16, 16, 16)],
  ],
  np.uint8,
)
MIDDLES = np.arange(8) * BAR + BAR // 2
# FFmpeg's numbers, and the shares of red and blue in what is bright.
BT709, BT601_PAL, BT601, BT2020 = 1, 5, 6, 9
SHARES = {
  BT709: (0.2126, 0.0722),
  BT601_PAL: (0.299, 0.114),
  BT601: (0.299, 0.114),
  BT2020: (0.2627, 0.0593),
}
UNKNOWN, LIMITED, FULL = 2, 1, 2
CODECS = {'mp4': 'libx264', 'mkv': 'libx264', 'webm': 'libvpx-vp9'}


def stored(rgb, matrix, is_full):
  """[3, h, w] planes of RGB values."""
  red_share, blue_share = SHARES[matrix]
  red, green, blue = np.moveaxis(rgb / 255, -1, 0)
  bright = red_share * red + blue_share * blue
  bright += (1 - red_share - blue_share) * green
  planes = np.stack(
    [
      bright,
      (blue - bright) / 2 / (1 - blue_share),
      (red - bright) / 2 / (1 - red_share),
    ]
  )
  scales, offsets = ((255, 255, 255), (0, 128, 128))
  if not is_full:
    scales, offsets = ((219, 224, 224), (16, 128, 128))
  planes = planes * np.reshape(scales, (3, 1, 1))
  planes += np.reshape(offsets, (3, 1, 1))
  return np.clip(np.rint(planes), 0, 255).astype(np.uint8)


def shown(planes, matrix, is_full):
  """The inverse of `stored`."""
  red_share, blue_share = SHARES[matrix]
  bright, bluer, redder = planes.astype(float)
  if is_full:
    bright = bright / 255
    bluer, redder = (bluer - 128) / 255, (redder - 128) / 255
  else:
    bright = (bright - 16) / 219
    bluer, redder = (bluer - 128) / 224, (redder - 128) / 224
  red = bright + 2 * (1 - red_share) * redder
  blue = bright + 2 * (1 - blue_share) * bluer
  green = bright - red_share * red - blue_share * blue
  green /= 1 - red_share - blue_share
  return 255 * np.stack([red, green, blue], axis=-1)


def put_bars(path, matrix, color_range, *, tags, height=HEIGHT, ratio=None):
  """Bars by a matrix, under tags: matrix, range, primaries, transfer."""
  rgb = np.broadcast_to(BARS.repeat(BAR, axis=0), (height, WIDTH, 3))
  planes = stored(rgb, matrix, color_range == FULL)
  with av.open(str(path), 'w') as writer:
    video = writer.add_stream(
      CODECS[path.suffix[1:]], rate=24, options={'crf': '1'}
    )
    video.width, video.height, video.pix_fmt = WIDTH, height, 'yuv444p'
    context = video.codec_context
    context.colorspace, context.color_range = tags[:2]
    context.color_primaries, context.color_trc = tags[2:]
    if ratio:
      context.sample_aspect_ratio = ratio
    for _ in range(2):
      frame = av.VideoFrame(WIDTH, height, 'yuv444p')
      for plane, values in zip(frame.planes, planes, strict=True):
        lines = np.zeros((height, plane.line_size), np.uint8)
        lines[:, :WIDTH] = values
        plane.update(lines.tobytes())
      writer.mux(video.encode(frame))
    writer.mux(video.encode(None))
  return path


def read_bars(path):
  """(planes in the middle of each bar, tags) of the first frame."""
  with av.open(str(path)) as reader:
    frame = next(reader.decode(video=0))
    assert frame.format.name in ('yuv420p', 'yuvj420p')
    planes = []
    for plane in frame.planes:
      lines = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
      step = frame.width // plane.width
      planes.append(lines[None, plane.height // 2, MIDDLES // step])
    tags = (
      *(frame.colorspace, frame.color_range),
      *(frame.color_primaries, frame.color_trc),
    )
  return np.stack(planes), tags


def convert(source, target, **options):
  """Changes nothing; returns what the network saw of the first frame."""
  seen = []

  def remember(frames):
    seen.append(frames)
    return frames

  options = {'channels': 3, 'max_pixels': 10**6, **options}
  convert_video(source, target, remember, **options)
  return seen[0][0].astype(int)


@pytest.mark.parametrize(
  'matrix, primaries, transfer, color_range, ending',
  [
    (BT709, 1, 1, LIMITED, 'mp4'),
    (BT709, 1, 1, FULL, 'webm'),
    (BT601, 6, 6, FULL, 'mkv'),
    (BT601_PAL, 5, 6, LIMITED, 'webm'),
    (BT2020, 9, 16, FULL, 'mp4'),
    (BT2020, 9, 16, LIMITED, 'mkv'),
  ],
)
def test_colors_and_tags(
  matrix, primaries, transfer, color_range, ending, tmp_path
):
  tags = (matrix, color_range, primaries, transfer)
  source = put_bars(tmp_path / f'in.{ending}', matrix, color_range, tags=tags)
  target = tmp_path / f'out.{ending}'
  seen = convert(source, target)
  assert abs(seen[HEIGHT // 2, MIDDLES] - BARS).max() <= 3
  planes, found_tags = read_bars(target)
  assert found_tags == tags
  colors = shown(planes, matrix, color_range == FULL)[0]
  assert abs(colors - BARS).max() < 8


@pytest.mark.parametrize('height, matrix', [(64, BT601), (720, BT709)])
def test_unspecified_colors_are_as_players_take_them(height, matrix, tmp_path):
  source = put_bars(
    tmp_path / 'in.mp4',
    matrix,
    LIMITED,
    tags=(UNKNOWN, 0, UNKNOWN, UNKNOWN),
    height=height,
  )
  target = tmp_path / 'out.mp4'
  seen = convert(source, target)
  assert abs(seen[HEIGHT // 2, MIDDLES] - BARS).max() <= 3
  planes, tags = read_bars(target)
  assert tags == (matrix, LIMITED, UNKNOWN, UNKNOWN)
  assert abs(shown(planes, matrix, is_full=False)[0] - BARS).max() < 8


def test_a_video_of_rgb(tmp_path):
  source, target = tmp_path / 'in.mkv', tmp_path / 'out.mkv'
  rgb = np.ascontiguousarray(
    np.broadcast_to(BARS.repeat(BAR, axis=0), (HEIGHT, WIDTH, 3))
  )
  with av.open(str(source), 'w') as writer:
    video = writer.add_stream('ffv1', rate=24)
    video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, 'bgr0'
    frame = av.VideoFrame.from_ndarray(rgb, format='rgb24')
    writer.mux(video.encode(frame))
    writer.mux(video.encode(None))
  np.testing.assert_array_equal(convert(source, target), rgb)
  planes, tags = read_bars(target)
  assert tags[:2] == (BT601, LIMITED)
  assert abs(shown(planes, BT601, is_full=False)[0] - BARS).max() < 8


def test_gray_is_that_of_images(tmp_path):
  tags = (BT709, FULL, 1, 1)
  source = put_bars(tmp_path / 'in.mp4', BT709, FULL, tags=tags)
  target = tmp_path / 'out.mp4'
  seen = convert(source, target, channels=1)
  expected = np.asarray(Image.fromarray(BARS[None]).convert('L')).astype(int)
  assert seen.shape == (HEIGHT, WIDTH, 1)
  assert abs(seen[HEIGHT // 2, MIDDLES, 0] - expected[0]).max() <= 3
  planes, found_tags = read_bars(target)
  assert found_tags == tags
  colors = shown(planes, BT709, is_full=True)[0]
  assert abs(colors - expected[0][:, None]).max() < 8


def test_pixels_that_are_not_square(tmp_path):
  ratio = fractions.Fraction(4, 3)
  tags = (BT601, LIMITED, 6, 6)
  source = put_bars(tmp_path / 'in.mkv', BT601, LIMITED, tags=tags, ratio=ratio)
  convert(source, tmp_path / 'out.mkv')
  with av.open(str(tmp_path / 'out.mkv')) as reader:
    assert reader.streams.video[0].sample_aspect_ratio == ratio


@pytest.mark.skipif(
  not hasattr(av.VideoStream, 'set_display_rotation'), reason='an older PyAV'
)
def test_a_video_on_its_side(tmp_path):
  source, target = tmp_path / 'in.mp4', tmp_path / 'out.mp4'
  pixels = np.zeros((32, 48, 3), np.uint8)
  pixels[:16, :24] = 255  # at the upper left, as it is stored
  with av.open(str(source), 'w') as writer:
    video = writer.add_stream('libx264', rate=24)
    video.width, video.height, video.pix_fmt = 48, 32, 'yuv420p'
    video.set_display_rotation(90)  # against the clock
    frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
    writer.mux(video.encode(frame))
    writer.mux(video.encode(None))
  seen = convert(source, target)
  assert seen.shape == (48, 32, 3)
  assert seen[36, 8, 0] > 240  # at the lower left
  assert seen[12, 8, 0] < 16
  with av.open(str(target)) as reader:
    frame = next(reader.decode(video=0))
  assert frame.rotation == 0
  assert frame.to_ndarray(format='gray')[36, 8] > 240
