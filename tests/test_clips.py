import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.data.clips import clip_target, convert_gif, convert_video
from cyclegan_jax.data.decoding import ImageError

av = pytest.importorskip('av')

RATE, NUM_FRAMES, SOUND_RATE = 24, 30, 44_100
MANY = 10**7


def put_video(path, height=32, width=48, *, sound='aac', codec='libx264'):
  """A bar that moves to the right, with a tone."""
  with av.open(str(path), 'w') as writer:
    video = writer.add_stream(codec, rate=RATE)
    video.height, video.width, video.pix_fmt = height, width, 'yuv420p'
    tone = writer.add_stream(sound, rate=SOUND_RATE) if sound else None
    for index in range(NUM_FRAMES):
      pixels = np.full((height, width, 3), 30, np.uint8)
      pixels[:, index : index + 8] = 220
      frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
      writer.mux(video.encode(frame))
    writer.mux(video.encode(None))
    if tone:
      count = SOUND_RATE * NUM_FRAMES // RATE
      wave = np.sin(np.arange(count) / 16).astype(np.float32)
      for start in range(0, count, 1024):
        frame = av.AudioFrame.from_ndarray(
          wave[None, start : start + 1024], format='fltp', layout='mono'
        )
        frame.sample_rate, frame.pts = SOUND_RATE, start
        writer.mux(tone.encode(frame))
      writer.mux(tone.encode(None))
  return path


def frames_of(path):
  with av.open(str(path)) as reader:
    return [
      (float(frame.time), frame.to_ndarray(format='rgb24'))
      for frame in reader.decode(video=0)
    ]


def sound_of(path):
  with av.open(str(path)) as reader:
    frames = [frame.to_ndarray() for frame in reader.decode(audio=0)]
  return np.concatenate(frames, axis=-1)


def invert(frames):
  assert frames.ndim == 4
  assert frames.dtype == np.uint8
  return 255 - frames


def test_a_video_with_its_timing_and_its_sound(tmp_path):
  source = put_video(tmp_path / 'in.mp4')
  target, told = tmp_path / 'out.mp4', []
  convert_video(
    source,
    target,
    invert,
    channels=3,
    batch_size=4,
    max_pixels=MANY,
    on_frame=lambda done, total: told.append((done, total)),
  )
  before, after = frames_of(source), frames_of(target)
  assert [time for time, _ in after] == [time for time, _ in before]
  for (_, old), (_, new) in zip(before, after, strict=True):
    assert abs(new.astype(int) - (255 - old)).mean() < 6  # of compression
  np.testing.assert_array_equal(sound_of(target), sound_of(source))
  assert told[-1] == (NUM_FRAMES, NUM_FRAMES)
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    'in.mp4',
    'out.mp4',
  ]


def test_grey_frames_of_odd_sides(tmp_path):
  source = put_video(tmp_path / 'in.mkv', sound='')

  def one_channel(frames):
    assert frames.shape[1:] == (32, 48, 1)
    return frames[:, 1:, 1:]

  target = tmp_path / 'out.mkv'
  convert_video(source, target, one_channel, channels=1, max_pixels=MANY)
  frames = frames_of(target)
  assert len(frames) == NUM_FRAMES
  assert frames[0][1].shape == (31, 47, 3)


def test_the_container_of_the_output():
  names = {'a.mp4': 'a.mp4', 'a.WEBM': 'a.WEBM', 'a.avi': 'a.mkv'}
  for name, expected in names.items():
    assert clip_target(pathlib.Path(name)) == pathlib.Path(expected)


def test_an_old_container_is_read(tmp_path):
  source = put_video(tmp_path / 'in.avi', sound='mp2', codec='mpeg4')
  target = clip_target(tmp_path / 'out.avi')
  convert_video(source, target, invert, channels=3, max_pixels=MANY)
  assert len(frames_of(target)) == NUM_FRAMES


@pytest.mark.parametrize('kind', ['empty', 'text', 'half', 'sound', 'large'])
def test_what_is_no_video(tmp_path, kind):
  source, target = tmp_path / 'in.mp4', tmp_path / 'out.mp4'
  put_video(source)
  content = source.read_bytes()
  if kind == 'half':
    source.write_bytes(content[: len(content) // 2])
  elif kind == 'sound':
    with av.open(str(source), 'w') as writer:
      tone = writer.add_stream('aac', rate=SOUND_RATE, layout='mono')
      frame = av.AudioFrame.from_ndarray(
        np.zeros((1, 1024), np.float32), format='fltp', layout='mono'
      )
      frame.sample_rate = SOUND_RATE
      writer.mux(tone.encode(frame))
      writer.mux(tone.encode(None))
  elif kind != 'large':
    source.write_bytes(b'' if kind == 'empty' else b'no video' * 99)
  limit = 100 if kind == 'large' else MANY
  with pytest.raises(ImageError) as caught:
    convert_video(source, target, invert, channels=3, max_pixels=limit)
  reasons = {
    'empty': 'as a video: Invalid data found when processing input',
    'text': 'as a video: Invalid data found when processing input',
    'half': 'as a video: Invalid data found when processing input',
    'sound': 'it holds no pictures',
    'large': '48 x 32 = 1536 pixels, more than config.data.max_pixels=100',
  }
  assert str(caught.value) == f"{source} can't be read: {reasons[kind]}"
  assert [path.name for path in tmp_path.iterdir()] == ['in.mp4']


def test_nothing_is_left_of_a_translation_that_fails(tmp_path):
  source = put_video(tmp_path / 'in.mp4')

  def fail(frames):
    raise MemoryError

  with pytest.raises(MemoryError):
    convert_video(
      source, tmp_path / 'out.mp4', fail, channels=3, max_pixels=MANY
    )
  assert [path.name for path in tmp_path.iterdir()] == ['in.mp4']


def test_without_the_extra(tmp_path):
  code = (
    'import sys, pathlib\n'
    "sys.modules['av'] = None\n"
    'from cyclegan_jax.data.clips import convert_video\n'
    'from cyclegan_jax.errors import UserError\n'
    'try:\n'
    '  convert_video(pathlib.Path(), pathlib.Path(), None, channels=3, '
    'max_pixels=1)\n'
    'except UserError as error:\n'
    '  print(error)\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout == (
    "videos need the package av: pip install 'cyclegan_jax[video]'\n"
  )


def test_clear_parts_of_a_gif_stay_clear(tmp_path):
  frames = []
  for shift in range(3):
    pixels = np.zeros((12, 16, 4), np.uint8)
    pixels[2:8, shift : shift + 6] = (200, 40, 40, 255)
    frames.append(Image.fromarray(pixels))
  source, target = tmp_path / 'in.gif', tmp_path / 'out.gif'
  frames[0].save(
    source, save_all=True, append_images=frames[1:], duration=50, disposal=2
  )
  convert_gif(source, target, invert, channels=3, max_pixels=MANY)
  with Image.open(target) as image:
    assert image.n_frames == 3
    for shift in range(3):
      image.seek(shift)
      pixels = np.asarray(image.convert('RGBA'))
      opaque = pixels[..., 3] == 255
      assert opaque[2:8, shift : shift + 6].all()
      assert opaque.sum() == 36
      assert tuple(pixels[4, shift + 2]) == (55, 215, 215, 255)


def test_a_gif_of_too_many_pixels(tmp_path):
  source = tmp_path / 'in.gif'
  Image.new('L', (20, 10)).save(source)
  with pytest.raises(ImageError, match='20 x 10 = 200 pixels, more than'):
    convert_gif(
      source, tmp_path / 'out.gif', invert, channels=1, max_pixels=100
    )
