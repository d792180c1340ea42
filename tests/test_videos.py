"""Videos: frames, timing, sound, subtitles, and damaged files."""

import fractions
import io
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.errors import DataError, UserError
from cyclegan_jax.media.clips import clip_target
from cyclegan_jax.media.videos import convert_video

av = pytest.importorskip('av')

RATE, NUM_FRAMES, SOUND_RATE = 24, 30, 44_100


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


def convert(source, target, function=invert, channels=3, **options):
  options = {'max_pixels': 10**7, **options}
  convert_video(source, target, function, channels=channels, **options)


def error_of(source, target, function=invert, **options):
  """The message of the error, after which nothing is left of the target."""
  before = set(target.parent.iterdir())
  with pytest.raises(DataError) as caught:
    convert(source, target, function, **options)
  assert set(target.parent.iterdir()) == before
  return str(caught.value)


def test_frames_timing_and_sound(tmp_path):
  source = put_video(tmp_path / 'in.mp4')
  target, calls = tmp_path / 'out.mp4', []
  convert(
    source, target, batch_size=4, on_frame=lambda *args: calls.append(args)
  )
  before, after = frames_of(source), frames_of(target)
  assert [time for time, _ in after] == [time for time, _ in before]
  for (_, old), (_, new) in zip(before, after, strict=True):
    assert abs(new.astype(int) - (255 - old)).mean() < 6  # of compression
  np.testing.assert_array_equal(sound_of(target), sound_of(source))
  assert calls[-1] == (NUM_FRAMES, NUM_FRAMES)
  assert len(list(tmp_path.iterdir())) == 2


def test_gray_frames_of_odd_sides(tmp_path):
  source = put_video(tmp_path / 'in.mkv', sound='')

  def one_channel(frames):
    assert frames.shape[1:] == (32, 48, 1)
    return frames[:, 1:, 1:]

  target = tmp_path / 'out.mkv'
  convert(source, target, one_channel, channels=1)
  frames = frames_of(target)
  assert len(frames) == NUM_FRAMES
  assert frames[0][1].shape == (31, 47, 3)


def test_the_container_of_the_output():
  names = {'a.mp4': 'a.mp4', 'a.WEBM': 'a.WEBM', 'a.avi': 'a.mkv'}
  for name, expected in names.items():
    assert clip_target(pathlib.Path(name)) == pathlib.Path(expected)


def test_an_old_container(tmp_path):
  source = put_video(tmp_path / 'in.avi', sound='mp2', codec='mpeg4')
  target = clip_target(tmp_path / 'out.avi')
  convert(source, target)
  assert len(frames_of(target)) == NUM_FRAMES


def test_an_older_package(tmp_path, monkeypatch):
  monkeypatch.setattr(av, '__version__', '17.0.0')
  with pytest.raises(UserError, match=r'cyclegan_jax\[video\]'):
    convert(tmp_path / 'in.mp4', tmp_path / 'out.mp4')


@pytest.mark.process
def test_without_the_package(tmp_path):
  code = (
    'import sys, pathlib\n'
    "sys.modules['av'] = None\n"
    'from cyclegan_jax.media.videos import convert_video\n'
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
  assert "pip install 'cyclegan_jax[video]'" in done.stdout


@pytest.mark.parametrize('content', [b'', b'no video' * 99])
def test_no_video(content, tmp_path):
  source = tmp_path / 'in.mp4'
  source.write_bytes(content)
  assert str(source) in error_of(source, tmp_path / 'out.mp4')


def test_sound_alone(tmp_path):
  source = tmp_path / 'in.mp4'
  with av.open(str(source), 'w') as writer:
    tone = writer.add_stream('aac', rate=SOUND_RATE, layout='mono')
    frame = av.AudioFrame.from_ndarray(
      np.zeros((1, 1024), np.float32), format='fltp', layout='mono'
    )
    frame.sample_rate = SOUND_RATE
    writer.mux(tone.encode(frame))
    writer.mux(tone.encode(None))
  assert 'it has no frames' in error_of(source, tmp_path / 'out.mp4')


def test_frames_of_too_many_pixels(tmp_path):
  source = put_video(tmp_path / 'in.mp4')
  message = error_of(source, tmp_path / 'out.mp4', max_pixels=100)
  assert '48 x 32 = 1536 pixels' in message
  assert 'config.data.max_pixels=100' in message


@pytest.mark.parametrize(
  'num_good, error',
  [(0, ValueError('a bug')), (5, OSError('a disk')), (5, KeyboardInterrupt())],
)
def test_errors_of_the_network_pass_through(num_good, error, tmp_path):
  source = put_video(tmp_path / 'in.mp4')
  calls = []

  def fail(frames):
    calls.append(frames)
    if len(calls) > num_good:
      raise error
    return frames

  with pytest.raises(type(error)) as caught:
    convert(source, tmp_path / 'out.mp4', fail)
  assert caught.value is error
  assert [path.name for path in tmp_path.iterdir()] == ['in.mp4']


def put_noise(path, codec, options=None):
  """A video that takes many bytes, with the index before them where it can."""
  rng = np.random.default_rng(0)
  with av.open(str(path), 'w', options=options or {}) as writer:
    video = writer.add_stream(codec, rate=RATE)
    video.height, video.width, video.pix_fmt = 48, 64, 'yuv420p'
    for _ in range(NUM_FRAMES):
      pixels = rng.integers(0, 255, (48, 64, 3), np.uint8)
      frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
      writer.mux(video.encode(frame))
    writer.mux(video.encode(None))
  return path


@pytest.mark.parametrize(
  'name, codec, options, share',
  [
    ('in.mp4', 'libx264', {'movflags': 'faststart'}, 0.4),
    ('in.mov', 'libx264', {'movflags': 'faststart'}, 0.95),
    ('in.mkv', 'libx264', {}, 0.7),
    pytest.param('in.webm', 'libvpx-vp9', {}, 0.95, marks=pytest.mark.media),
    ('in.avi', 'mpeg4', {}, 0.4),
  ],
)
def test_a_truncated_file(name, codec, options, share, tmp_path):
  source = put_noise(tmp_path / name, codec, options)
  whole = source.read_bytes()
  calls = []

  def remember(frames):
    calls.append(frames)
    return frames

  convert(source, clip_target(tmp_path / f'whole_{name}'), remember)
  assert len(calls) == NUM_FRAMES
  cut = int(len(whole) * share)
  source.write_bytes(whole[:cut])
  message = error_of(source, tmp_path / 'out.mkv', remember)
  num_missing = int(re.search(r'truncated: (\d+) of its bytes', message)[1])
  # AVI and QuickTime files may end in something other than frames.
  assert 0 <= len(whole) - cut - num_missing < 2000
  assert len(calls) == NUM_FRAMES  # none of the truncated file


def test_bytes_after_a_video(tmp_path):
  source = put_video(tmp_path / 'in.mp4')
  target = tmp_path / 'out.mp4'
  for junk in (b'\0' * 99, b'\0\0\1\0free'):
    with source.open('ab') as file:
      file.write(junk)
    convert(source, target)
    assert len(frames_of(target)) == NUM_FRAMES


def test_damaged_frames(tmp_path):
  source = put_noise(tmp_path / 'in.mkv', 'ffv1')
  content = bytearray(source.read_bytes())
  middle = len(content) // 2
  content[middle : middle + 3000] = b'\xaa' * 3000
  source.write_bytes(content)
  assert str(source) in error_of(source, tmp_path / 'out.mkv')


@pytest.mark.parametrize('name', ['in.mp4', 'in.mkv'])
def test_no_frames(name, tmp_path):
  source = tmp_path / name
  with av.open(str(source), 'w') as writer:
    video = writer.add_stream('libx264', rate=RATE)
    video.width, video.height, video.pix_fmt = 16, 16, 'yuv420p'
    writer.start_encoding()
  assert str(source) in error_of(source, tmp_path / 'out.mkv')


@pytest.mark.parametrize(
  'size, ending',
  [((1, 1), 'mp4'), ((1, 7), 'webm'), ((7, 1), 'mp4'), ((17, 16), 'webm')],
)
def test_small_and_odd_sizes(size, ending, tmp_path):
  source, target = tmp_path / 'in.mkv', tmp_path / f'out.{ending}'
  with av.open(str(source), 'w') as writer:
    video = writer.add_stream('libx264', rate=RATE, options={'crf': '1'})
    (video.height, video.width), video.pix_fmt = size, 'yuv444p'
    for value in (50, 100, 150):
      pixels = np.full((*size, 3), value, np.uint8)
      frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
      writer.mux(video.encode(frame))
    writer.mux(video.encode(None))
  convert(source, target, batch_size=2)
  made = [pixels for _, pixels in frames_of(target)]
  assert [pixels.shape for pixels in made] == [(*size, 3)] * 3
  for pixels, value in zip(made, (205, 155, 105), strict=True):
    assert abs(pixels.astype(int) - value).max() < 6


def test_frames_of_several_sizes(tmp_path):
  source, target = tmp_path / 'in.mkv', tmp_path / 'out.mp4'
  with av.open(str(source), 'w') as writer:
    video = writer.add_stream('mjpeg', rate=10)
    video.width, video.height, video.pix_fmt = 64, 48, 'yuvj420p'
    for index, size in enumerate([(64, 48), (32, 80), (20, 10), (64, 48)]):
      buffer = io.BytesIO()
      Image.new('RGB', size, (60 * index, 0, 200)).save(buffer, 'JPEG')
      packet = av.Packet(buffer.getvalue())
      packet.stream, packet.time_base = video, fractions.Fraction(1, 1000)
      packet.pts = packet.dts = index * 100
      packet.is_keyframe = True
      writer.mux(packet)
  seen = []

  def remember(frames):
    seen.append(frames.shape)
    return frames

  convert(source, target, remember, batch_size=3)
  assert seen == [(3, 48, 64, 3), (1, 48, 64, 3)]  # as a player shows them
  for index, (time, pixels) in enumerate(frames_of(target)):
    assert time == pytest.approx(index / 10, abs=1e-3)
    middle = pixels[24, 32].astype(int)
    assert abs(middle - (60 * index, 0, 200)).max() < 12


def test_two_sounds_and_subtitles(tmp_path):
  source = tmp_path / 'in.mkv'
  (tmp_path / 'in.srt').write_text(
    '1\n00:00:00,100 --> 00:00:00,500\nhello\n\n'
    '2\n00:00:00,600 --> 00:00:00,900\nworld\n'
  )
  with (
    av.open(str(source), 'w') as writer,
    av.open(str(tmp_path / 'in.srt')) as texts,
  ):
    video = writer.add_stream('libx264', rate=RATE)
    video.height, video.width, video.pix_fmt = 16, 16, 'yuv420p'
    sounds = []
    for language in ('eng', 'fra'):
      sound = writer.add_stream('pcm_s16le', rate=SOUND_RATE, layout='mono')
      sound.metadata['language'] = language
      sounds.append(sound)
    text = writer.add_stream_from_template(texts.streams[0])
    for index in range(RATE):
      pixels = np.full((16, 16, 3), index, np.uint8)
      frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
      writer.mux(video.encode(frame))
    for level, sound in enumerate(sounds):
      wave = np.full((1, SOUND_RATE), 1000 * (level + 1), np.int16)
      frame = av.AudioFrame.from_ndarray(wave, format='s16', layout='mono')
      frame.sample_rate, frame.pts = SOUND_RATE, 0
      writer.mux(sound.encode(frame))
    for packet in texts.demux():
      if packet.dts is not None:
        packet.stream = text
        writer.mux(packet)
    for stream in (video, *sounds):
      writer.mux(stream.encode(None))
  target = tmp_path / 'out.mkv'
  convert(source, target)
  with av.open(str(target)) as reader:
    kinds = [stream.type for stream in reader.streams]
    assert kinds == ['video', 'audio', 'audio', 'subtitle']
    languages = [each.metadata['language'] for each in reader.streams.audio]
    assert languages == ['eng', 'fra']
    found = [
      (bytes(packet), float(packet.pts * packet.time_base))
      for packet in reader.demux(subtitles=0)
      if packet.dts is not None
    ]
    assert found == [(b'hello', 0.1), (b'world', 0.6)]
  for level in (0, 1):
    with av.open(str(target)) as reader:
      frames = [each.to_ndarray() for each in reader.decode(audio=level)]
    wave = np.concatenate(frames, axis=-1)
    assert wave.size == SOUND_RATE
    assert (wave == 1000 * (level + 1)).all()
  # MP4 files have no room for these subtitles.
  convert(source, tmp_path / 'out.mov')
  with av.open(str(tmp_path / 'out.mov')) as reader:
    assert [stream.type for stream in reader.streams] == [
      'video',
      'audio',
      'audio',
    ]


def test_a_container_that_cannot_hold_the_sound(tmp_path):
  source, target = put_video(tmp_path / 'in.mp4'), tmp_path / 'out.webm'
  message = error_of(source, target)
  assert str(target) in message
  assert 'aac' in message


@pytest.mark.process
def test_a_full_disk(tmp_path):
  source = put_noise(tmp_path / 'in.mkv', 'libx264')
  code = (
    'import resource, pathlib\n'
    'resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n'
    'from cyclegan_jax.media.videos import convert_video\n'
    'try:\n'
    f'  convert_video(pathlib.Path({str(source)!r}), '
    f'pathlib.Path({str(tmp_path / "out.mkv")!r}), lambda x: x, channels=3, '
    'max_pixels=10**6)\n'
    'except OSError as error:\n'
    '  print(type(error).__name__, error.strerror, error.filename)\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout == f'OSError File too large {tmp_path / "out.mkv"}\n'
  assert [path.name for path in tmp_path.iterdir()] == ['in.mkv']


def test_a_truncated_file_without_a_length(tmp_path):
  source = put_noise(tmp_path / 'in.mpg', 'mpeg2video')
  whole = source.read_bytes()
  convert(source, tmp_path / 'whole.mkv')
  assert len(frames_of(tmp_path / 'whole.mkv')) == NUM_FRAMES
  source.write_bytes(whole[: len(whole) * 7 // 10])
  assert 'damaged or truncated' in error_of(source, tmp_path / 'out.mkv')
