import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from cyclegan_jax import checkpoint, cli, images
from cyclegan_jax.config import Config
from cyclegan_jax.data.resizing import resize_to
from cyclegan_jax.errors import DataError, UserError, WorkdirError
from cyclegan_jax.inference import make_translator
from cyclegan_jax.state import create_train_state
from cyclegan_jax.translate import translate_files

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
  """A checkpoint of networks as they are drawn."""
  state = state or create_train_state(config, jax.random.key(0))
  with checkpoint.Saver(folder / 'checkpoints', config) as saver:
    saver.save(state)
  return folder


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


def files_in(folder):
  return sorted(
    str(path.relative_to(folder))
    for path in pathlib.Path(folder).rglob('*')
    if path.is_file()
  )


def translate(run, inputs, to, direction='ab', **options):
  return translate_files(run, inputs, to, direction=direction, **options)


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


@pytest.mark.parametrize('height, width', [(16, 16), (13, 29)])
def test_a_fixed_network_takes_any_size_by_resizing(
  unet, tmp_path, height, width
):
  source = put(tmp_path / 'in.png', height, width, 3)
  assert translate(unet, [source], tmp_path / 'out') == []
  state, config = checkpoint.load(unet)
  translator = make_translator(config, state.gen, 'ab', key=jax.random.key(0))
  resized = resize_to(pixels(source), 16, 16, config.data)
  expected = images.to_uint8(translator(images.to_float(resized[None])))[0]
  np.testing.assert_array_equal(
    pixels(tmp_path / 'out' / 'in.png'),
    resize_to(expected, height, width, config.data),
  )


@pytest.mark.parametrize(
  'height, width, pads',
  [
    (16, 20, [(0, 0), (0, 0)]),
    (13, 18, [(0, 3), (0, 2)]),
    (1, 5, [(0, 3), (0, 3)]),  # more padding than there is image
  ],
)
def test_a_free_network_takes_any_size_by_padding(
  resnet, tmp_path, height, width, pads
):
  source = put(tmp_path / 'in.png', height, width, 3)
  assert translate(resnet, [source], tmp_path / 'out') == []
  state, config = checkpoint.load(resnet)
  translator = make_translator(config, state.gen, 'ab', key=jax.random.key(0))
  padded = np.pad(pixels(source), [*pads, (0, 0)], mode='symmetric')
  expected = images.to_uint8(translator(images.to_float(padded[None])))[0]
  assert pixels(tmp_path / 'out' / 'in.png').shape == (height, width)
  np.testing.assert_array_equal(
    pixels(tmp_path / 'out' / 'in.png'), expected[:height, :width, 0]
  )


def test_both_directions_and_their_channels(resnet, tmp_path):
  source = put(tmp_path / 'in.png')
  assert translate(resnet, [source], tmp_path / 'ab', 'ab') == []
  assert translate(resnet, [source], tmp_path / 'ba', 'ba') == []
  assert pixels(tmp_path / 'ab' / 'in.png').shape == (16, 16)
  assert pixels(tmp_path / 'ba' / 'in.png').shape == (16, 16, 3)


def test_a_translation_is_the_same_alone_and_beside_others(unet, tmp_path):
  for i in range(3):
    put(tmp_path / 'in' / f'{i}.png', seed=i)
  one = tmp_path / 'in' / '1.png'
  assert translate(unet, [tmp_path / 'in'], tmp_path / 'all') == []
  assert translate(unet, [one], tmp_path / 'alone') == []
  together = pixels(tmp_path / 'all' / '1.png')
  np.testing.assert_array_equal(together, pixels(tmp_path / 'alone' / '1.png'))
  assert (together != pixels(tmp_path / 'all' / '0.png')).any()


def test_dropout_is_by_the_seed(unet, tmp_path):
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


# What goes wrong with one image is told, and the others are made.


def test_bad_images_are_named_and_the_rest_is_done(unet, tmp_path, capsys):
  put(tmp_path / 'in' / 'a.png')
  put(tmp_path / 'in' / 'c.png')
  (tmp_path / 'in' / 'b.png').write_text('no image')
  missing = tmp_path / 'missing.png'
  argv = ['translate', unet, tmp_path / 'in', missing, '--to', tmp_path / 'out']
  assert cli.main(list(map(str, argv))) == 1
  assert files_in(tmp_path / 'out') == ['a.png', 'c.png']
  told = capsys.readouterr().err.splitlines()
  assert [line for line in told if line.startswith('error')] == [
    f"error: {tmp_path}/in/b.png can't be read: not a JPEG, PNG, WebP, BMP or "
    'TIFF image',
    f"error: {missing} can't be read: No such file or directory",
  ]


def test_all_is_well(unet, tmp_path, capsys):
  source = put(tmp_path / 'in.png')
  argv = ['translate', unet, source, '--to', tmp_path / 'out']
  assert cli.main(list(map(str, argv))) == 0
  captured = capsys.readouterr()
  assert 'error' not in captured.err
  assert captured.out == ''


def test_an_image_over_the_pixel_cap(unet, tmp_path):
  state, config = checkpoint.load(unet)
  config = config.replace(data={'max_pixels': 100})
  run = save_run(tmp_path / 'run', config, state)
  source = put(tmp_path / 'in.png', 10, 11, 3)
  assert translate(run, [source], tmp_path / 'out') == [
    f"{source} can't be read: 11 x 10 = 110 pixels, more than "
    'config.data.max_pixels=100'
  ]


# Nothing is overwritten that was there to be read.


def test_inputs_are_not_overwritten(unet, tmp_path):
  png, jpg = put(tmp_path / 'a.png'), put(tmp_path / 'b.jpg')
  before = png.read_bytes()
  assert translate(unet, [tmp_path], tmp_path) == [
    f'{png} is not translated: {png}, an input, would be overwritten: give '
    'another --to'
  ]
  assert png.read_bytes() == before
  assert files_in(tmp_path) == ['a.png', 'b.jpg', 'b.png']
  assert jpg.exists()


def test_an_input_is_not_overwritten_by_another_one_s_output(unet, tmp_path):
  jpg, png = put(tmp_path / 'a.jpg'), put(tmp_path / 'a.png')
  link = tmp_path / 'link'
  link.symlink_to(tmp_path, target_is_directory=True)
  before = png.read_bytes()
  assert translate(unet, [jpg, png], link) == [
    f'{source} is not translated: {link}/a.png, an input, would be '
    'overwritten: give another --to'
    for source in (jpg, png)
  ]
  assert png.read_bytes() == before


def test_two_inputs_of_one_name(unet, tmp_path):
  for name in ('one/a.png', 'two/a.jpg', 'two/b.png'):
    put(tmp_path / name)
  to = tmp_path / 'out'
  assert translate(unet, [tmp_path / 'one', tmp_path / 'two'], to) == [
    f'{tmp_path}/two/a.jpg is not translated: {to}/a.png is made from '
    f'{tmp_path}/one/a.png: rename one, or give it another --to'
  ]
  assert files_in(to) == ['a.png', 'b.png']


def test_older_translations_are_replaced(unet, tmp_path):
  source = put(tmp_path / 'in.png')
  old = put(tmp_path / 'out' / 'in.png', 3, 3, 3)
  assert translate(unet, [source], tmp_path / 'out') == []
  assert pixels(old).shape == (16, 16, 3)


# What can't be begun.


def message_of(kind, *args):
  with pytest.raises(kind) as caught:
    translate(*args)
  assert '\n' not in str(caught.value)
  return str(caught.value)


def test_no_images(unet, tmp_path):
  (tmp_path / 'notes.txt').write_text('no image')
  assert message_of(DataError, unet, [tmp_path], tmp_path / 'out') == (
    f'no images in {tmp_path}: give images, or folders of them'
  )
  assert not (tmp_path / 'out').exists()


def test_no_run(tmp_path, capsys):
  source = put(tmp_path / 'in.png')
  run = tmp_path / 'missing'
  argv = ['translate', run, source, '--to', tmp_path / 'out']
  assert cli.main(list(map(str, argv))) == 1
  assert capsys.readouterr().err == (
    f'error: {run} is not a folder: give the folder of a run, or of one of '
    'its checkpoints\n'
  )
  assert not (tmp_path / 'out').exists()


def test_a_run_without_a_checkpoint(tmp_path):
  source = put(tmp_path / 'in.png')
  (tmp_path / 'checkpoints').mkdir()
  message = message_of(WorkdirError, tmp_path, [source], tmp_path / 'out')
  assert 'holds no checkpoint' in message


def test_an_output_folder_that_is_a_file(unet, tmp_path):
  source = put(tmp_path / 'in.png')
  to = tmp_path / 'out'
  to.write_text('precious')
  assert message_of(UserError, unet, [source], to) == (
    f'{to} can not be written (File exists): give another --to, or mend the '
    'disk and run the same command again'
  )
  assert to.read_text() == 'precious'


@pytest.mark.parametrize(
  'argv, expected',
  [
    (
      ['RUN'],
      'the following arguments are required: inputs, --to: see cyclegan '
      'translate --help',
    ),
    (
      ['RUN', 'IN', '--to'],
      'argument --to: expected one argument: see cyclegan translate --help',
    ),
    (
      ['RUN', 'IN', '--to', 'OUT', '--wat'],
      'unrecognized arguments: --wat: see cyclegan translate --help',
    ),
    (
      ['RUN', 'IN', '--to', 'OUT', '--seed', 'x'],
      "argument --seed: invalid int value: 'x': see cyclegan translate --help",
    ),
    (
      ['RUN', 'IN', '--to', 'OUT', '--seed', '-1'],
      'argument --seed: -1 is not from 0 to 2**63 - 1: see cyclegan translate '
      '--help',
    ),
  ],
)
def test_a_wrong_command_line(argv, expected, capsys):
  assert cli.main(['translate', *argv]) == 2
  assert capsys.readouterr().err == f'error: {expected}\n'


def test_an_unknown_direction(capsys):
  argv = ['translate', 'RUN', 'IN', '--to', 'OUT', '--direction', 'xy']
  assert cli.main(argv) == 2
  error = capsys.readouterr().err
  # Versions of Python differ in quotes.
  assert error.replace("'", '') == (
    'error: argument --direction: invalid choice: xy (choose from ab, ba): '
    'see cyclegan translate --help\n'
  )
