"""Translation of files, through `translate_files` and the command line."""

import functools
import pathlib
import signal
import struct
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image, features

from cyclegan_jax import (
  cli,
  images,
)
from cyclegan_jax.config import Config
from cyclegan_jax.data.resizing import resize_to
from cyclegan_jax.errors import (
  ConfigError,
  DataError,
  UserError,
  WorkdirError,
)
from cyclegan_jax.inference import make_translator
from cyclegan_jax.state import create_train_state
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.translate.files import translate_files
from cyclegan_jax.translate.options import Options
from cyclegan_jax.translate.output_record import RECORD_FILE

UNET = Config().replace(
  data={'size': 16, 'load_size': 16},
  generator={'filters': 2, 'isize': 16},
  discriminator={'filters': 2, 'layers': 1},
)
RESNET = UNET.replace(
  data={'channels_b': 1},
  generator={'name': 'resnet', 'blocks': 1, 'dropout': 0.0},
)


def save_run(folder, config, state=None):
  """A run with a checkpoint of untrained networks."""
  state = state or create_train_state(config, jax.random.key(0))
  with checkpoint.Saver(folder / 'checkpoints', config) as saver:
    saver.save(state)
  return folder


@pytest.fixture(scope='module', autouse=True)
def load_once():
  """Loads each checkpoint once, which takes longer than a translation."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(checkpoint, 'load', functools.cache(checkpoint.load))
    yield


@pytest.fixture(scope='module')
def unet(tmp_path_factory):
  return save_run(tmp_path_factory.mktemp('unet'), UNET)


@pytest.fixture(scope='module')
def resnet(tmp_path_factory):
  return save_run(tmp_path_factory.mktemp('resnet'), RESNET)


def noise(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def put(path, *shape, seed=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(noise(*(shape or (16, 16, 3)), seed=seed)).save(path)
  return path


def pixels(path):
  with Image.open(path) as image:
    return np.asarray(image)


def call(*words):
  """The exit status of `cyclegan translate`."""
  return cli.main(['translate', *map(str, words)])


def files_in(folder):
  return sorted(
    str(path.relative_to(folder))
    for path in pathlib.Path(folder).rglob('*')
    if path.is_file() and path.name != RECORD_FILE
  )


def translate(run, inputs, to, direction='ab', **options):
  """Messages about inputs that were not translated."""
  options = Options(direction=direction, **options)
  return translate_files(run, inputs, to, options).failed


# Names and sizes.


def test_names_and_folders_are_kept(unet, tmp_path):
  source, to = tmp_path / 'in', tmp_path / 'new' / 'out'
  put(source / 'one.jpg')
  put(source / 'deep' / 'er' / 'a.b.webp')
  put(source / 'ü two.png')
  (source / 'notes.txt').write_text('no image')
  alone = put(tmp_path / 'alone.bmp')
  assert translate(unet, [source, alone], to) == []
  assert files_in(to) == [
    'alone.png',
    'deep/er/a.b.png',
    'one.png',
    'ü two.png',
  ]


def test_networks_of_fixed_size_resize_images(unet, tmp_path):
  height, width = 13, 29
  source = put(tmp_path / 'in.png', height, width, 3)
  assert translate(unet, [source], tmp_path / 'out') == []
  loaded = checkpoint.load(unet)
  state, config = loaded.state, loaded.config
  translator = make_translator(config, state.gen, 'ab', key=jax.random.key(0))
  small = resize_to(images.to_float(pixels(source)), 16, 16, config.data)
  translated = np.asarray(translator(small[None]))[0]
  # Resized back before rounding to bytes.
  expected = resize_to(translated, height, width, config.data)
  np.testing.assert_array_equal(
    pixels(tmp_path / 'out' / 'in.png'), images.to_uint8(expected)
  )


@pytest.mark.parametrize(
  'height, width, pads, modes',
  [
    (13, 18, (3, 2), ('reflect', 'reflect')),
    # More padding than image.
    (1, 5, (3, 3), ('symmetric', 'reflect')),
  ],
)
def test_other_networks_pad_images(
  resnet, tmp_path, height, width, pads, modes
):
  source = put(tmp_path / 'in.png', height, width, 3)
  assert translate(resnet, [source], tmp_path / 'out') == []
  loaded = checkpoint.load(resnet)
  state, config = loaded.state, loaded.config
  translator = make_translator(config, state.gen, 'ab', key=jax.random.key(0))
  padded = pixels(source)
  padded = np.pad(padded, [(0, pads[0]), (0, 0), (0, 0)], mode=modes[0])
  padded = np.pad(padded, [(0, 0), (0, pads[1]), (0, 0)], mode=modes[1])
  expected = images.to_uint8(translator(images.to_float(padded[None])))[0]
  assert pixels(tmp_path / 'out' / 'in.png').shape == (height, width)
  np.testing.assert_array_equal(
    pixels(tmp_path / 'out' / 'in.png'), expected[:height, :width, 0]
  )


def test_directions_have_their_channels(resnet, tmp_path):
  source = put(tmp_path / 'in.png')
  for direction, shape in (('ab', (16, 16)), ('ba', (16, 16, 3))):
    assert translate(resnet, [source], tmp_path / direction, direction) == []
    assert pixels(tmp_path / direction / 'in.png').shape == shape


def test_a_translation_does_not_depend_on_other_images(unet, tmp_path):
  for i in range(3):
    put(tmp_path / 'in' / f'{i}.png', seed=i)
  one = tmp_path / 'in' / '1.png'
  assert translate(unet, [tmp_path / 'in'], tmp_path / 'all') == []
  assert translate(unet, [one], tmp_path / 'alone') == []
  together = pixels(tmp_path / 'all' / '1.png')
  np.testing.assert_array_equal(together, pixels(tmp_path / 'alone' / '1.png'))
  assert (together != pixels(tmp_path / 'all' / '0.png')).any()


def test_dropout_depends_on_the_seed(unet, tmp_path):
  source = put(tmp_path / 'in.png')
  for name, seed in (('first', 1), ('again', 1), ('other', 2)):
    assert translate(unet, [source], tmp_path / name, seed=seed) == []
  first, again, other = (
    pixels(tmp_path / name / 'in.png') for name in ('first', 'again', 'other')
  )
  np.testing.assert_array_equal(first, again)
  assert (first != other).any()


@pytest.mark.parametrize('name', ['', 'checkpoints', 'checkpoints/0'])
def test_a_run_or_a_checkpoint(unet, tmp_path, name):
  source = put(tmp_path / 'in.png')
  assert translate(unet / name, [source], tmp_path / 'out') == []
  assert files_in(tmp_path / 'out') == ['in.png']


# Reports.


def test_bad_images_are_reported_and_others_translated(unet, tmp_path, capsys):
  put(tmp_path / 'in' / 'a.png')
  put(tmp_path / 'in' / 'c.png')
  (tmp_path / 'in' / 'b.png').write_text('no image')
  (tmp_path / 'in' / 'circle.png').symlink_to('circle.png')
  missing = tmp_path / 'missing.png'
  assert call(unet, tmp_path / 'in', missing, '--to', tmp_path / 'out') == 1
  assert files_in(tmp_path / 'out') == ['a.png', 'c.png']
  lines = capsys.readouterr().err.splitlines()
  errors = [line for line in lines if line.startswith('error: ')]
  bad = tmp_path / 'in' / 'b.png', tmp_path / 'in' / 'circle.png', missing
  for error, path in zip(errors, bad, strict=True):
    assert str(path) in error


def test_counts_of_outputs(unet, tmp_path, capsys):
  source, to = put(tmp_path / 'in.png'), tmp_path / 'out'
  for expected in ('1 made', '0 made, 1'):
    assert call(unet, source, '--to', to) == 0
    captured = capsys.readouterr()
    assert 'error' not in captured.err
    assert captured.out.startswith(f'{to}: {expected}')


def test_skipped_files_are_reported(unet, tmp_path, capsys):
  put(tmp_path / 'in' / 'a.png')
  for name in ('b.txt', 'c.txt'):
    (tmp_path / 'in' / name).touch()
  pages = [Image.fromarray(noise(16, 16, 3, seed=i)) for i in range(5)]
  tiff = tmp_path / 'in' / 'd.tif'
  pages[0].save(tiff, save_all=True, append_images=pages[1:])
  assert call(unet, tmp_path / 'in', '--to', tmp_path / 'out') == 0
  lines = capsys.readouterr().err.splitlines()
  first, second = [line for line in lines if line.startswith('note: ')]
  assert '2 other files' in first
  assert f'{tiff} has 5 pages' in second


@pytest.mark.slow
def test_large_images_are_reduced_on_the_page(resnet, tmp_path, monkeypatch):
  monkeypatch.setattr('cyclegan_jax.translate.context._PREVIEW_SIDE', 16)
  put(tmp_path / 'in' / 'a.png', 70, 53, 3)
  put(tmp_path / 'in' / 'line.png', 1, 100, 3)
  options = Options(gallery=True)
  outcome = translate_files(
    resnet, [tmp_path / 'in'], tmp_path / 'out', options
  )
  assert outcome.failed == []
  assert '[53,70]' in outcome.page.read_text()
  for width, height in ((13, 17), (16, 1)):
    shown = [
      path
      for path in (tmp_path / 'out').rglob('*_*.png')
      if pixels(path).shape[:2] == (height, width)
    ]
    assert len(shown) == 3, (width, height)


@pytest.mark.process
def test_sigterm_leaves_no_incomplete_file(resnet, tmp_path):
  for i in range(200):
    put(tmp_path / 'in' / f'{i}.png', 256, 256, 3, seed=i)
  to = tmp_path / 'out'
  command = [sys.executable, '-m', 'cyclegan_jax', 'translate']
  command += map(str, [resnet, tmp_path / 'in', '--to', to])
  with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
    while process.poll() is None and len(files_in(to)) < 3:
      time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
  assert process.returncode == 128 + signal.SIGTERM
  made = files_in(to)
  assert 3 <= len(made) < 200
  assert all(pixels(to / name).shape == (256, 256) for name in made)


def test_an_image_with_too_many_pixels(unet, tmp_path):
  loaded = checkpoint.load(unet)
  state, config = loaded.state, loaded.config
  config = config.replace(data={'max_pixels': 100})
  run = save_run(tmp_path / 'run', config, state)
  source = put(tmp_path / 'in.png', 10, 11, 3)
  (failure,) = translate(run, [source], tmp_path / 'out')
  assert str(source) in failure
  assert 'config.data.max_pixels=100' in failure


# Inputs and files of others are not overwritten.


def test_inputs_are_not_overwritten(unet, tmp_path):
  png, jpg = put(tmp_path / 'a.png'), put(tmp_path / 'b.jpg')
  before = png.read_bytes()
  (failure,) = translate(unet, [png, jpg], tmp_path)
  assert failure.startswith(f'{png} is not translated: {png}')
  assert png.read_bytes() == before
  assert files_in(tmp_path) == ['a.png', 'b.jpg', 'b.png']
  assert jpg.exists()


def test_inputs_are_not_overwritten_by_outputs_of_others(unet, tmp_path):
  jpg, png = put(tmp_path / 'a.jpg'), put(tmp_path / 'a.png')
  link = tmp_path / 'link'
  link.symlink_to(tmp_path, target_is_directory=True)
  before = png.read_bytes()
  (failure,) = translate(unet, [jpg, png], link)
  assert failure.startswith(f'{png} is not translated: {link}/a.png')
  assert png.read_bytes() == before
  assert files_in(tmp_path) == ['a.jpg', 'a.jpg.png', 'a.png']


def test_outputs_do_not_become_inputs(unet, tmp_path):
  put(tmp_path / 'in' / 'a.png')
  to = tmp_path / 'in' / 'out'
  with pytest.raises(DataError, match=f'--to {to} .*{tmp_path}/in'):
    translate(unet, [tmp_path / 'in'], to)


@pytest.mark.slow
def test_pictures_of_a_page_do_not_become_inputs(resnet, tmp_path):
  put(tmp_path / 'in' / 'a.png')
  put(tmp_path / 'in' / 'gallery' / 'b.png')
  first, second = tmp_path / '1', tmp_path / '2'
  assert translate(resnet, [tmp_path / 'in'], first, gallery=True) == []
  assert len(list(first.rglob('*.png'))) > 2
  assert translate(resnet, [tmp_path / '1'], second, 'ba') == []
  assert files_in(second) == ['a.png', 'gallery/b.png']


def test_two_inputs_of_one_name(unet, tmp_path):
  for name in ('one/a.png', 'two/a.png', 'two/b.png'):
    put(tmp_path / name)
  to = tmp_path / 'out'
  (failure,) = translate(unet, [tmp_path / 'one', tmp_path / 'two'], to)
  assert failure.startswith(f'{tmp_path}/two/a.png is not translated')
  assert f'{tmp_path}/one/a.png' in failure
  assert files_in(to) == ['a.png', 'b.png']


def test_names_that_differ_in_their_endings(unet, tmp_path):
  for name in ('a.png', 'a.jpg', 'a.bmp', 'b.jpg'):
    put(tmp_path / 'in' / name)
  assert translate(unet, [tmp_path / 'in'], tmp_path / 'out') == []
  assert files_in(tmp_path / 'out') == [
    'a.bmp.png',
    'a.jpg.png',
    'a.png',
    'b.png',
  ]


def test_existing_translations_are_kept(unet, tmp_path):
  source, to = put(tmp_path / 'in.png'), tmp_path / 'out'
  assert translate(unet, [source], to) == []
  old = put(to / 'in.png', 3, 3, 3)
  assert translate(unet, [source], to) == []
  assert pixels(old).shape == (3, 3, 3)
  assert translate(unet, [source], to, overwrite=True) == []
  assert pixels(old).shape == (16, 16, 3)


def test_files_of_others_are_not_overwritten(unet, tmp_path):
  source, to = put(tmp_path / 'in.png'), tmp_path / 'out'
  old = put(to / 'in.png', 3, 3, 3)
  for overwrite in (False, True, True):
    (failure,) = translate(unet, [source], to, overwrite=overwrite)
    assert failure.startswith(f'{source} is not translated: {old}')
  assert pixels(old).shape == (3, 3, 3)
  (to / RECORD_FILE).unlink()
  (to / 'index.html').write_text('precious')
  with pytest.raises(ConfigError, match=f'{to}/index.html'):
    translate(unet, [source], to, gallery=True)
  assert (to / 'index.html').read_text() == 'precious'


def test_a_damaged_record(unet, tmp_path):
  source, to = put(tmp_path / 'in.png'), tmp_path / 'out'
  assert translate(unet, [source], to) == []
  (to / RECORD_FILE).write_text('{')
  with pytest.raises(ConfigError, match=f'{to}/{RECORD_FILE}'):
    translate(unet, [source], to, overwrite=True)


def test_translations_of_another_kind(unet, tmp_path):
  source, to = put(tmp_path / 'in.png'), tmp_path / 'out'
  assert translate(unet, [source], to) == []
  before = pixels(to / 'in.png')
  with pytest.raises(ConfigError, match='direction: ab -> ba; seed: 0 -> 1'):
    translate(unet, [source], to, 'ba', seed=1)
  np.testing.assert_array_equal(pixels(to / 'in.png'), before)
  assert translate(unet, [source], to, 'ba', overwrite=True) == []
  assert (pixels(to / 'in.png') != before).any()


def test_a_name_that_is_too_long_fails_alone(unet, tmp_path):
  longest = 'a' * 251
  put(tmp_path / 'in' / f'{longest}.png')
  put(tmp_path / 'in' / f'{longest}.bmp')  # becomes '.bmp.png'
  (failure,) = translate(unet, [tmp_path / 'in'], tmp_path / 'out')
  assert f'{longest}.bmp.png' in failure
  assert files_in(tmp_path / 'out') == [f'{longest}.png']


def test_an_empty_input(unet, tmp_path):
  source, empty = put(tmp_path / 'in.png'), tmp_path / 'empty'
  empty.mkdir()
  (failure,) = translate(unet, [empty, source], tmp_path / 'out')
  assert str(empty) in failure


# Patterns and shards.


def test_a_pattern(unet, tmp_path, monkeypatch):
  for name in ('in/a.png', 'in/deep/b.png', 'in/deep/c.jpg'):
    put(tmp_path / name)
  pattern = tmp_path / 'in' / '**' / '*.png'
  assert translate(unet, [pattern], tmp_path / 'out') == []
  assert files_in(tmp_path / 'out') == ['a.png', 'deep/b.png']
  monkeypatch.chdir(tmp_path / 'in')
  assert translate(unet, [pathlib.Path('*.png')], tmp_path / 'here') == []
  assert files_in(tmp_path / 'here') == ['a.png']
  with pytest.raises(DataError, match=r'\*\.bmp'):
    translate(unet, [tmp_path / '*.bmp'], tmp_path / 'x')


def test_a_file_whose_name_looks_like_a_pattern(unet, tmp_path):
  source = put(tmp_path / 'a[1].png')
  assert translate(unet, [source], tmp_path / 'out') == []
  assert files_in(tmp_path / 'out') == ['a[1].png']


def test_shards(unet, tmp_path):
  for i in range(5):
    put(tmp_path / 'in' / f'{i}.png')
  inputs = [tmp_path / 'in', tmp_path / 'missing.png']
  made, failed = [], []
  for shard in (1, 2, 3):
    to = tmp_path / f'out{shard}'
    failed += translate(unet, inputs, to, shard=(shard, 3))
    made += files_in(to)
  assert sorted(made) == [f'{i}.png' for i in range(5)]
  assert len(failed) == 1


# Options.


def test_samples_of_dropout(unet, resnet, tmp_path):
  source = put(tmp_path / 'in.png')
  assert translate(unet, [source], tmp_path / 'out', samples=3) == []
  names = ['in_1.png', 'in_2.png', 'in_3.png']
  assert files_in(tmp_path / 'out') == names
  drawn = {pixels(tmp_path / 'out' / name).tobytes() for name in names}
  assert len(drawn) == 3
  with pytest.raises(ConfigError, match='--samples=2'):
    translate(resnet, [source], tmp_path / 'out', samples=2)


@pytest.mark.parametrize(
  'size, expected',
  [((24, 8), (8, 24)), ((32, 0), (16, 32)), ((0, 32), (32, 64))],
)
def test_another_size(resnet, tmp_path, size, expected):
  source = put(tmp_path / 'in.png', 20, 40, 3)
  assert translate(resnet, [source], tmp_path / 'out', size=size) == []
  assert pixels(tmp_path / 'out' / 'in.png').shape == expected


def test_a_size_with_too_many_pixels(resnet, tmp_path):
  source = put(tmp_path / 'in.png', 20, 40, 3)
  (failure,) = translate(resnet, [source], tmp_path / 'out', size=(0, 9999))
  assert failure.startswith(f'{source} ')
  assert '--max-pixels' in failure


def test_batches_equal_single_images(resnet, tmp_path):
  for i in range(7):
    shape = (16, 16, 3) if i % 3 else (12, 20, 3)
    put(tmp_path / 'in' / f'{i}.png', *shape, seed=i)
  inputs = [tmp_path / 'in']
  assert translate(resnet, inputs, tmp_path / 'one') == []
  assert translate(resnet, inputs, tmp_path / 'four', batch_size=4) == []
  for i in range(7):
    one = pixels(tmp_path / 'one' / f'{i}.png').astype(int)
    four = pixels(tmp_path / 'four' / f'{i}.png').astype(int)
    assert abs(one - four).max() <= 1  # sums in another order


@pytest.mark.media
def test_formats(unet, tmp_path):
  source = put(tmp_path / 'in.jpg')
  for name, ending in (('tiff', 'tif'), ('jpeg', 'jpg'), ('webp', 'webp')):
    assert translate(unet, [source], tmp_path / name, file_format=name) == []
    path = tmp_path / name / f'in.{ending}'
    with Image.open(path) as image:
      assert image.format == name.upper()


def test_the_gallery(resnet, tmp_path):
  for name in ('in/a.png', 'in/deep/b.png'):
    put(tmp_path / name)
  options = Options(gallery=True)
  inputs, to = [tmp_path / 'in'], tmp_path / 'out'
  outcome = translate_files(resnet, inputs, to, options)
  assert outcome.failed == []
  assert outcome.page == to / 'index.html'
  page = outcome.page.read_text()
  assert '"deep/b.png"' in page
  assert 'horse → zebra and back' in page
  # A translation that the page lacks is repeated, others are kept.
  put(tmp_path / 'in' / 'c.png')
  (to / 'a.png').unlink()
  outcome = translate_files(resnet, inputs, to, options)
  assert (outcome.num_made, outcome.num_kept) == (2, 1)
  page = to / 'index.html'
  assert '"c.png"' in page.read_text()
  # A page of others is kept, also in a folder of translations.
  page.write_text('mine')
  with pytest.raises(ConfigError, match=str(page)):
    translate_files(resnet, inputs, to, options)
  assert page.read_text() == 'mine'
  assert translate_files(resnet, inputs, to).failed == []


@pytest.mark.media
def test_depth_and_metadata_are_kept(resnet, tmp_path):
  fine = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
  grey = tmp_path / 'in' / 'grey.png'
  grey.parent.mkdir()
  Image.fromarray(fine).save(grey)
  clear = noise(16, 16, 4)
  exif = Image.Exif()
  exif[0x010E] = 'a horse'
  Image.fromarray(clear).save(tmp_path / 'in' / 'clear.png', exif=exif)
  assert translate(resnet, [tmp_path / 'in'], tmp_path / 'out', 'ba') == []
  with Image.open(tmp_path / 'out' / 'clear.png') as image:
    assert image.mode == 'RGBA'
    assert image.getexif()[0x010E] == 'a horse'
    np.testing.assert_array_equal(np.asarray(image)[..., 3], clear[..., 3])
  data = (tmp_path / 'out' / 'grey.png').read_bytes()
  assert (data[24], data[25]) == (16, 2)  # bits a channel, RGB


@pytest.mark.media
def test_a_video(unet, tmp_path):
  av = pytest.importorskip('av')
  source = tmp_path / 'in.mp4'
  with av.open(str(source), 'w') as writer:
    stream = writer.add_stream('libx264', rate=10)
    stream.height, stream.width, stream.pix_fmt = 16, 32, 'yuv420p'
    for i in range(5):
      frame = av.VideoFrame.from_ndarray(noise(16, 32, 3, seed=i), 'rgb24')
      writer.mux(stream.encode(frame))
    writer.mux(stream.encode(None))
  assert translate(unet, [source], tmp_path / 'out') == []
  with av.open(str(tmp_path / 'out' / 'in.mp4')) as reader:
    frames = [frame.to_ndarray() for frame in reader.decode(video=0)]
  assert len(frames) == 5


# Clips.


def put_gif(path, frames=4):
  drawn = [Image.fromarray(noise(16, 24, 3, seed=i)) for i in range(frames)]
  drawn[0].save(
    path, save_all=True, append_images=drawn[1:], duration=[40, 60] * 2, loop=2
  )
  return path


def test_an_animated_gif(unet, tmp_path):
  source = put_gif(tmp_path / 'in.gif')
  assert translate(unet, [source], tmp_path / 'out') == []
  with Image.open(tmp_path / 'out' / 'in.gif') as image:
    assert (image.n_frames, image.size, image.info['loop']) == (4, (24, 16), 2)
    durations = []
    for frame in range(4):
      image.seek(frame)
      durations.append(image.info['duration'])
  assert durations == [40, 60, 40, 60]


def put_animation(path):
  drawn = [Image.fromarray(noise(16, 24, 4, seed=i)) for i in range(3)]
  path.parent.mkdir(exist_ok=True)
  drawn[0].save(
    path, save_all=True, append_images=drawn[1:], duration=50, lossless=True
  )
  return path


@pytest.mark.media
@pytest.mark.parametrize('name', ['in.webp', 'in.png'])
def test_an_animation_that_could_be_a_still(unet, tmp_path, name):
  source = put_animation(tmp_path / 'in' / name)
  put(tmp_path / 'in' / 'still.webp')
  inputs, to = [source.parent], tmp_path / 'out'
  assert translate(unet, inputs, to) == []
  assert files_in(to) == ['in.png', 'still.png']
  with Image.open(to / 'in.png') as image:
    assert image.n_frames == 3
    assert image.info['duration'] == 50
  (failure,) = translate(unet, inputs, tmp_path / 'jpg', file_format='jpeg')
  assert str(source) in failure
  assert '--format' in failure
  assert files_in(tmp_path / 'jpg') == ['still.jpg']


@pytest.mark.media
def test_clips_are_in_the_gallery(resnet, tmp_path):
  source = put_gif(tmp_path / 'in.gif')
  options = Options(gallery=True)
  outcome = translate_files(resnet, [source], tmp_path / 'out', options)
  assert (outcome.failed, outcome.num_made) == ([], 1)
  assert '"in.gif"' in outcome.page.read_text()
  again = translate_files(resnet, [source], tmp_path / 'out', options)
  assert (again.num_made, again.num_kept) == (0, 1)


@pytest.mark.parametrize('content', [b'', b'GIF89a', b'no picture'])
def test_a_broken_gif(unet, tmp_path, content):
  source = tmp_path / 'in.gif'
  source.write_bytes(content)
  (failure,) = translate(unet, [source], tmp_path / 'out')
  assert failure.startswith(f'{source} ')
  assert files_in(tmp_path / 'out') == []


# Errors before anything is translated.


def test_no_images(unet, tmp_path):
  source = tmp_path / 'in'
  source.mkdir()
  (source / 'notes.txt').write_text('no image')
  with pytest.raises(DataError, match=str(source)):
    translate(unet, [source], tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_no_run(tmp_path, capsys):
  source = put(tmp_path / 'in.png')
  run = tmp_path / 'missing'
  assert call(run, source, '--to', tmp_path / 'out') == 1
  assert capsys.readouterr().err.startswith(f'error: {run} ')
  assert not (tmp_path / 'out').exists()


def test_a_run_without_a_checkpoint(tmp_path):
  source = put(tmp_path / 'in.png')
  (tmp_path / 'checkpoints').mkdir()
  with pytest.raises(WorkdirError, match=str(tmp_path)):
    translate(tmp_path, [source], tmp_path / 'out')


def test_an_output_folder_that_is_a_file(unet, tmp_path):
  source = put(tmp_path / 'in.png')
  to = tmp_path / 'out'
  to.write_text('precious')
  with pytest.raises(UserError, match=f'{to} .*--to'):
    translate(unet, [source], to)
  assert to.read_text() == 'precious'


@pytest.mark.parametrize(
  'option, words',
  [
    ('--to', ()),
    ('--to', ('--to',)),
    ('--wat', ('--to', 'OUT', '--wat')),
    *(
      (option, ('--to', 'OUT', option, value))
      for option, value in (
        ('--seed', 'x'),
        ('--seed', '-1'),
        ('--shard', '3/2'),
        ('--size', 'x'),
        ('--samples', '0'),
        ('--direction', 'xy'),
      )
    ),
  ],
)
def test_invalid_options(option, words, capsys):
  assert call('RUN', 'IN', *words) == 2
  error = capsys.readouterr().err
  assert error.startswith('error: ')
  assert option in error
  assert error.count('\n') == 1


# Files that are unlike those of the training.


def test_what_happens_to_unlike_files_is_noted_once(resnet, tmp_path):
  for i in range(2):
    Image.new('L', (16, 16), 99).save(put(tmp_path / 'in' / f'{i}.png'))
    deep = np.full((16, 16), 999, np.uint16)
    Image.fromarray(deep).save(tmp_path / 'in' / f'deep{i}.png')
  put(tmp_path / 'in' / 'like.jpe.jpg')
  outcome = translate_files(resnet, [tmp_path / 'in'], tmp_path / 'out')
  assert not outcome.failed
  gray, of_16_bits = sorted(outcome.notes, key=lambda note: 'uint16' in note)
  assert '3 channels' in gray
  assert '65535' in of_16_bits


def test_bytes_for_a_network_of_signed_values_are_noted(tmp_path):
  values = {'dtype_a': 'int16', 'low_a': -1000.0, 'high_a': 3000.0}
  run = save_run(tmp_path / 'run', RESNET.replace(data=values))
  source = put(tmp_path / 'a.png')
  (note,) = translate_files(run, [source], tmp_path / 'out').notes
  assert 'uint8' in note
  assert 'int16' in note.replace('uint16', '')


def test_further_endings_are_translated(resnet, tmp_path, capfd):
  source = tmp_path / 'in'
  image = Image.fromarray(noise(16, 16, 3))
  source.mkdir()
  for name, kind in (('a.jfif', 'JPEG'), ('b.jpe', 'JPEG'), ('c.ppm', 'PPM')):
    image.save(source / name, kind)
  (source / 'x.txt').touch()
  assert call(resnet, source, '--to', tmp_path / 'out') == 0
  assert files_in(tmp_path / 'out') == ['a.png', 'b.png', 'c.png']
  assert '1 .txt' in capfd.readouterr().err


def test_the_first_frame_of_an_animated_avif_file(resnet, tmp_path):
  if not features.check('avif'):
    pytest.skip('Pillow was built without AVIF')
  frames = [Image.fromarray(noise(16, 16, 3, seed=i)) for i in range(3)]
  path = tmp_path / 'a.avif'
  frames[0].save(path, save_all=True, append_images=frames[1:])
  outcome = translate_files(resnet, [path], tmp_path / 'out')
  assert not outcome.failed
  assert files_in(tmp_path / 'out') == ['a.png']
  (note,) = outcome.notes
  assert '3 ' in note


@pytest.mark.parametrize('name', ['a.jpg', 'a.tif', 'a.png', 'a.webp'])
def test_no_warning_of_pillow_is_printed(
  resnet, tmp_path, name, recwarn, capfd
):
  exif = Image.Exif()
  exif[0x010E] = 'zebra' * 9
  image = Image.fromarray(noise(16, 16, 3))
  (tmp_path / 'in').mkdir()
  path = tmp_path / 'in' / name
  image.save(path, exif=exif)
  # The tag claims to lie beyond the end of the file.
  data = path.read_bytes()
  order = '<' if b'II*\0' in data else '>'
  start = struct.pack(order + 'HHI', 0x010E, 2, 46)
  at = data.index(start) + len(start)
  broken = data[:at] + struct.pack(order + 'I', 99_999) + data[at + 4 :]
  path.write_bytes(broken)
  assert call(resnet, tmp_path / 'in', '--to', tmp_path / 'out') == 0
  assert 'PIL' not in capfd.readouterr().err
  assert not recwarn.list
