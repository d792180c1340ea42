import contextlib
import io
import logging

import jax
import numpy as np
import pytest
import rich.console
import tifffile
from PIL import Image

from cyclegan_jax.config import Config
from cyclegan_jax.data.folder_source import images_of_files
from cyclegan_jax.data.sources import (
  Images,
  open_images,
  open_stored_images,
)
from cyclegan_jax.errors import ConfigError, DataError
from cyclegan_jax.state import create_train_state
from cyclegan_jax.training import preflight

NUM_DEVICES = jax.local_device_count()


def images_of(num_a, num_b=1):
  return {
    f'train_{domain}': Images(tuple(map(str, range(num))), lambda _: None, None)
    for domain, num in (('a', num_a), ('b', num_b))
  }


def message_of(kind, function, *args):
  with pytest.raises(kind) as caught:
    function(*args)
  assert '\n' not in str(caught.value)
  return str(caught.value)


# What is filled in.


@pytest.mark.parametrize(
  'num_a, num_b, changes, expected',
  [
    # Epochs are of the larger side, and the last batch of one may be part of
    # the next.
    (10, 7, {'epochs': 3}, {'steps_per_epoch': 3, 'steps': 9, 'epochs': 3}),
    (7, 10, {'epochs': 3}, {'steps_per_epoch': 3, 'steps': 9, 'epochs': 3}),
    (8, 8, {'epochs': 1}, {'steps_per_epoch': 2, 'steps': 2, 'epochs': 1}),
    (1, 1, {'epochs': 5}, {'steps_per_epoch': 1, 'steps': 5, 'epochs': 5}),
    # Steps take the place of epochs.
    (8, 8, {'steps': 5}, {'steps_per_epoch': 2, 'steps': 5, 'epochs': 3}),
    (8, 8, {'steps': 6}, {'steps_per_epoch': 2, 'steps': 6, 'epochs': 3}),
    (
      8,
      8,
      {'epochs': 2, 'steps_per_epoch': 50},
      {'steps_per_epoch': 50, 'steps': 100, 'epochs': 2},
    ),
  ],
)
def test_counts_are_filled_in(num_a, num_b, changes, expected):
  config = Config(num_devices=1, batch_size=4).replace(**changes)
  resolved = preflight.resolve(config, images_of(num_a, num_b))
  assert {name: getattr(resolved, name) for name in expected} == expected


@pytest.mark.parametrize(
  'steps, changes, samples, checkpoints',
  [
    (160, {}, 10, 16),
    (5, {}, 1, 1),
    (160, {'log': {'samples_every_steps': 7}}, 7, 16),
    (160, {'checkpoint': {'every_steps': 3}}, 10, 3),
  ],
)
def test_how_often_things_are_written(steps, changes, samples, checkpoints):
  config = Config(num_devices=1).replace(steps=steps, **changes)
  resolved = preflight.resolve(config, images_of(4))
  assert resolved.log.samples_every_steps == samples
  assert resolved.checkpoint.every_steps == checkpoints


def test_a_resolved_config_stays_as_it_is():
  config = Config(num_devices=1).replace(epochs=7)
  resolved = preflight.resolve(config, images_of(10))
  assert preflight.resolve(resolved, images_of(10)) == resolved
  assert preflight.resolve(config, images_of(10), saved=resolved) == resolved


def test_an_epoch_keeps_its_length_when_a_run_goes_on():
  config = Config(num_devices=1).replace(epochs=2)
  saved = preflight.resolve(config, images_of(40))
  resolved = preflight.resolve(config, images_of(44), saved=saved)
  assert resolved.steps_per_epoch == saved.steps_per_epoch == 10
  other = {'saved': saved, 'other_domains': 'ab'}
  resolved = preflight.resolve(config, images_of(44), **other)
  assert (resolved.steps_per_epoch, resolved.steps) == (11, 22)
  asked = config.replace(steps_per_epoch=4)
  resolved = preflight.resolve(asked, images_of(44), **other)
  assert (resolved.steps_per_epoch, resolved.steps) == (4, 8)


@pytest.mark.parametrize(
  'data, expected',
  [
    ({}, 64),
    ({'name': 'folder'}, 71),
    ({'name': 'folder', 'size': 128}, 143),
    ({'name': 'folder', 'size': 256}, 286),
    ({'size': 128}, 128),
    ({'name': 'folder', 'load_size': 64}, 64),
  ],
)
def test_the_size_before_the_crop_follows(data, expected):
  generator = {'fixed_input_size': False}
  config = Config(num_devices=1).replace(data=data, generator=generator)
  resolved = preflight.resolve(config, images_of(4))
  assert resolved.data.load_size == expected


@pytest.mark.parametrize(
  'changes, expected',
  [
    ({'epochs': 40}, 20),
    ({'epochs': 200}, 100),
    ({'steps': 30}, 15),
    ({'epochs': 1}, 0),
    ({'epochs': 4, 'schedule': {'name': 'linear', 'decay_epochs': 3}}, 3),
  ],
)
def test_the_decay_follows_the_length_of_the_run(changes, expected):
  config = Config(num_devices=1).replace(schedule={'name': 'linear'})
  resolved = preflight.resolve(config.replace(**changes), images_of(4))
  assert resolved.schedule.decay_epochs == expected
  # A run that recorded another default is resumed with it.
  saved = resolved.replace(
    schedule={'decay_epochs': 100}, data={'load_size': 70}
  )
  resumed = preflight.resolve(config, images_of(4), saved=saved)
  assert resumed.schedule.decay_epochs == 100
  assert resumed.data.load_size == 70


# Options that have no effect.


@pytest.mark.parametrize(
  'changes, path, remedy',
  [
    ({'steps': 8}, 'config.epochs', 'config.steps=0'),
    ({'epochs': 3}, 'config.epochs', ''),
    ({}, 'config.schedule.step_epochs', 'config.schedule.name=step'),
    ({'schedule': {'name': 'step'}}, 'config.schedule.step_epochs', ''),
    ({}, 'config.generator.heads', 'config.generator.name=vit_unet'),
    ({}, 'config.generator.isize', ''),
    ({}, 'config.optimizer.weight_decay', ''),  # 0
    (
      {'optimizer': {'weight_decay': 0.1}},
      'config.optimizer.weight_decay',
      'config.optimizer.name=adamw',
    ),
    ({'data': {'name': 'folder'}}, 'config.data.num_train', 'embedded'),
    ({}, 'config.loss.gradient_penalty', 'config.loss.adversarial=wgan_gp'),
    ({}, 'config.loss.cycle_blur_sigma', 'config.loss.cycle_blur'),
    ({'loss': {'cycle_blur': 0.1}}, 'config.loss.cycle_blur_sigma', ''),
  ],
)
def test_a_given_option_without_an_effect(changes, path, remedy, caplog):
  config = Config().replace(**changes)
  preflight.check_effects(config, [], is_new=True)
  assert not caplog.records
  preflight.check_effects(config, [path], is_new=True)
  assert len(caplog.records) == bool(remedy)
  assert not remedy or f'{path}=' in caplog.text
  assert remedy in caplog.text


@pytest.mark.parametrize(
  'data, explicit, remedy',
  [
    ({'path': 'mine'}, [], 'config.data.name=folder'),
    ({'dataset': 'mnist'}, [], 'config.data.name=tfds'),
    (
      {'name': 'tfds', 'train_a': 'x'},
      ['config.data.train_a'],
      'config.data.name=folder',
    ),
    (
      {'name': 'folder', 'dataset': 'mnist'},
      ['config.data.dataset'],
      'config.data.name=tfds',
    ),
  ],
)
def test_images_that_would_not_be_read(data, explicit, remedy, caplog):
  config = Config().replace(data=data)
  with pytest.raises(ConfigError, match=remedy):
    preflight.check_effects(config, explicit, is_new=True)
  # A run that has trained like that can be resumed.
  preflight.check_effects(config, explicit, is_new=False)
  assert remedy in caplog.text


@pytest.mark.parametrize(
  'name', ['default', 'folder', 'keras', 'paper', 'tiny', 'tpu']
)
def test_no_recipe_is_warned_of(name, load_preset, caplog):
  config = load_preset(name)
  preflight.check_effects(config, [], is_new=True)
  # Nor is one with another source than its own.
  folder = config.replace(data={'name': 'folder', 'path': 'mine'})
  explicit = ['config.data.name', 'config.data.path']
  preflight.check_effects(folder, explicit, is_new=True)
  assert not caplog.records


def test_warnings_are_held_back(caplog):
  logger = logging.getLogger('cyclegan_jax')
  with contextlib.suppress(KeyError), preflight.held_warnings():
    logger.warning('one')
    assert not caplog.records
    raise KeyError
  assert [record.message for record in caplog.records] == ['one']
  logger.warning('two')
  assert 'two' in caplog.text


# Devices.


def test_all_devices_are_used_by_default():
  config = Config(batch_size=NUM_DEVICES)
  assert preflight.resolve(config, images_of(1)).num_devices == NUM_DEVICES
  config = Config(batch_size=NUM_DEVICES, num_devices=1)
  assert preflight.resolve(config, images_of(1)).num_devices == 1


def test_more_devices_than_there_are():
  config = Config(num_devices=NUM_DEVICES + 1)
  message = message_of(ConfigError, preflight.resolve, config, images_of(1))
  assert 'config.num_devices=' in message


@pytest.mark.skipif(NUM_DEVICES < 2, reason='one device divides every batch')
def test_a_batch_that_devices_do_not_divide():
  config = Config(batch_size=3, num_devices=2)
  message = message_of(ConfigError, preflight.resolve, config, images_of(1))
  assert 'config.batch_size=' in message


def test_parts_that_do_not_divide_a_batch():
  config = Config(batch_size=4, num_devices=1, accumulate=3)
  message = message_of(ConfigError, preflight.resolve, config, images_of(1))
  assert 'config.accumulate=' in message


# Images.


@pytest.fixture
def crop_config():
  return Config().replace(
    generator={'isize': 16},
    data={'size': 16, 'load_size': 16, 'preprocess': 'crop'},
  )


def write_images(folder, shapes):
  paths = []
  for i, shape in enumerate(shapes):
    paths.append(str(folder / f'{i}.png'))
    Image.fromarray(np.zeros((*shape, 3), np.uint8)).save(paths[-1])
  return images_of_files(paths, channels=3, max_pixels=10_000)


@pytest.mark.parametrize('num_workers', [0, 4])
def test_an_image_smaller_than_the_crop(tmp_path, crop_config, num_workers):
  images = {
    'train_a': write_images(tmp_path, [(16, 16)]),
    'train_b': write_images(tmp_path, [(16, 16), (40, 15)]),
  }
  config = crop_config.replace(data={'num_workers': num_workers})
  message = message_of(DataError, preflight.check_images, config, images)
  assert f'{tmp_path}/1.png is 15 x 40' in message
  assert 'config.data.size=16' in message
  # The other ways make any image large enough.
  for name in ('resize_and_crop', 'scale_and_crop', 'resize_and_center_crop'):
    config = crop_config.replace(data={'preprocess': name})
    preflight.check_images(config, images)


def test_headers_alone_are_read(tmp_path, crop_config, capsys):
  images = write_images(tmp_path, [(16, 16)])
  (tmp_path / '0.png').write_bytes((tmp_path / '0.png').read_bytes()[:40])
  with pytest.raises(DataError):
    images.read(0)
  preflight.check_images(crop_config, {'train_a': images, 'train_b': images})
  assert capsys.readouterr().out == ''


def test_headers_that_can_not_be_read_are_left_to_the_loader(
  tmp_path, crop_config
):
  images = write_images(tmp_path, [(16, 16), (16, 16)])
  (tmp_path / '0.png').write_text('no image')
  preflight.check_images(crop_config, {'train_a': images, 'train_b': images})


def test_images_without_cheap_headers_are_not_read(crop_config):
  preflight.check_images(crop_config, images_of(3))


def test_at_most_twenty_thousand_headers_are_read(crop_config):
  seen = []

  def shape_of(index):
    seen.append(index)
    return 16, 16

  images = Images(range(50_000), lambda _: None, shape_of)
  few = Images(('x',), lambda _: None, lambda _: (16, 16))
  preflight.check_images(crop_config, {'train_a': images, 'train_b': few})
  assert 10_000 < len(seen) <= 20_000
  assert max(seen) > 49_000, 'they are spread over all'


# Memory.


def test_sizes():
  tree = {'a': np.zeros((2, 3), np.float32), 'b': np.zeros(5, np.int8)}
  assert preflight.num_parameters(tree) == 11
  assert preflight.num_bytes(tree) == 29
  assert preflight.gib(3 * 2**29) == '1.5 GiB'
  assert preflight.gib(3 * 2**19) == '1.5 MiB'


def test_memory_that_is_not_known_is_not_checked():
  preflight.check_memory(Config(), None)
  if jax.local_devices()[0].memory_stats() is None:  # of a CPU
    preflight.check_memory(Config(), 2**60)


# What is told.


@pytest.fixture(scope='module')
def described():
  config = Config().replace(
    num_devices=1,
    batch_size=2,
    data={
      'num_train': 1200,
      'num_test': 3,
      'size': 16,
      'load_size': 20,
    },
    generator={'filters': 2, 'isize': 16},
    discriminator={'filters': 2, 'layers': 1},
  )
  images = open_images(config.data)
  config = preflight.resolve(config, images)
  state = create_train_state(config, jax.random.key(0))
  return config, images, state


def test_facts(described):
  config, images, state = described
  facts = preflight.describe(config, images, state)
  assert facts['training images'] == '1,200 of horse, 1,200 of zebra'
  assert facts['test images'] == '3 of horse, 3 of zebra'
  assert f'{preflight.num_parameters(state.gen):,}' in facts['generators']
  assert facts['steps'] == '5,400 of 2 pairs, 600 per epoch'
  assert facts['cache'] == 'up to 2.7 MiB of decoded images'


@pytest.mark.parametrize(
  'data, expected',
  [
    # 2 * 10^5 images of 200 x 200 x 3 bytes.
    ({'size': 16, 'load_size': 200, 'cache_gib': 99.0}, '22.4 GiB'),
    ({'size': 16, 'load_size': 200, 'cache_gib': 5.0}, '5.0 GiB'),
    # Native sizes, which are not known.
    ({'preprocess': 'crop', 'cache_gib': 99.0}, '99.0 GiB'),
  ],
)
def test_memory_of_the_cache(described, data, expected):
  config, images, state = described
  config = config.replace(data=data)
  images = images | images_of(100_000, 100_000)
  facts = preflight.describe(config, images, state)
  assert facts['cache'] == f'up to {expected} of decoded images'


def test_an_identity_loss_that_can_not_be(described):
  config, images, state = described
  config = config.replace(data={'channels_b': 1}, loss={'identity_a': 5.0})
  rows = preflight.describe(config, images, state)
  assert rows['identity loss'] == 'off: a has 3 channels and b 1'


def test_discriminators_that_do_not_go_together(described):
  config, images, state = described
  none = {'norm': 'none', 'spectral_norm': True}
  for changes, name in (
    ({'discriminator': {'spectral_norm': True}}, 'spectral norm'),
    ({'discriminator': none}, ''),
    ({'loss': {'adversarial': 'wgan_gp'}}, 'gradient penalty'),
    (
      {
        'loss': {'adversarial': 'wgan_gp'},
        'discriminator': {'norm': 'instance'},
      },
      '',
    ),
  ):
    rows = preflight.describe(config.replace(**changes), images, state)
    told = {'spectral norm', 'gradient penalty'} & {*rows}
    assert told == ({name} if name else set())


def printed(config, tmp_path, start_step):
  file = io.StringIO()
  preflight.print_facts(
    config,
    {'steps': '9', 'training images': '[bold]5 of a'},
    tmp_path,
    start_step,
    rich.console.Console(file=file, width=40),
  )
  return file.getvalue()


def test_facts_are_printed_in_whole_lines(tmp_path):
  path = tmp_path / ('long name ' * 10).strip()
  text = printed(Config(seed=123), path, 0)
  assert text.startswith('config.seed=123  (default 0)\n')
  assert 'config.batch_size' not in text
  assert text.endswith(
    f'\nsteps            9\ntraining images  [bold]5 of a\nfolder           '
    f'{path}\n'
  )


def test_the_step_of_a_resumed_run_is_printed(tmp_path):
  assert '12,345' in printed(Config(), tmp_path, 12_345)


# What is left out or converted.


def folder_config(folder, **data):
  return Config().replace(data={'name': 'folder', 'path': str(folder), **data})


def resolved(config):
  images = open_stored_images(config.data)
  return preflight.resolve(config.replace(num_devices=1), images), images


@pytest.fixture
def mixed(tmp_path):
  for name in ('trainA', 'trainB', 'testA', 'testB'):
    (tmp_path / name).mkdir()
    for i in range(2):
      pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
      Image.fromarray(pixels).save(tmp_path / name / f'{i}.png')
  return tmp_path


def test_what_is_left_out_of_folders_is_counted(mixed):
  config, images = resolved(folder_config(mixed))
  assert preflight.survey(config, images) == {}
  (mixed / 'trainA' / 'notes.TXT').touch()
  (mixed / 'trainA' / 'clip.mp4').touch()
  (mixed / 'testB' / 'x').touch()
  frames = [Image.new('L', (8, 8), 50 * i) for i in range(5)]
  frames[0].save(
    mixed / 'trainB' / 'x.gif', save_all=True, append_images=frames[1:]
  )
  pages = np.zeros((3, 8, 8), np.uint8)
  tifffile.imwrite(mixed / 'trainB' / 'x.tif', pages, photometric='minisblack')
  (mixed / 'trainB' / 'damaged.png').write_bytes(b'no image')
  config, images = resolved(folder_config(mixed))
  assert len(images['train_b']) == 5
  facts = preflight.survey(config, images)
  text = facts['left out']
  for part in ('1 .mp4', '1 .txt', 'train_a', 'test_b', '4 frames', '2 pages'):
    assert part in text


def test_files_that_are_converted_are_counted(mixed):
  Image.new('L', (8, 8), 200).save(mixed / 'trainA' / 'gray.jpg')
  deep = np.zeros((8, 8, 3), np.uint16)
  tifffile.imwrite(mixed / 'trainA' / 'z.tif', deep, photometric='rgb')
  config, images = resolved(folder_config(mixed, channels_b=1))
  text = preflight.survey(config, images)['converted']
  assert '1 gray' in text
  assert '1 of uint16' in text
  assert '2 colored' in text
  for domain in 'ab':
    assert f'config.data.channels_{domain}=' in text


@pytest.mark.parametrize(
  'dtype, low, high, is_narrow',
  [
    ('uint16', 24, 4095, True),
    ('uint16', 0, 9000, False),
    ('uint8', 3, 20, True),
    ('uint8', 0, 40, False),
    ('uint8', 7, 7, False),  # of one shade
    ('int16', -1000, 2000, False),  # whose range is measured
  ],
)
def test_values_in_a_small_part_of_their_range(
  dtype, low, high, is_narrow, tmp_path, caplog
):
  pixels = np.full((8, 8), low, dtype)
  pixels[0, 0] = high
  for name in ('trainA', 'trainB'):
    (tmp_path / name).mkdir()
    tifffile.imwrite(tmp_path / name / '0.tif', pixels)
  config = folder_config(tmp_path, channels_a=1, channels_b=1)
  config = config.replace(data={'low_b': float(low), 'high_b': high + 1.0})
  config, images = resolved(config)
  warnings = [each for each in caplog.messages if 'low_' in each]
  assert len(warnings) == is_narrow
  if not is_narrow:
    return
  assert f'config.data.low_a={low} ' in warnings[0]
  assert f'config.data.high_a={high},' in warnings[0]
  # A run that is resumed has been warned.
  caplog.clear()
  open_config = folder_config(tmp_path, channels_a=1, channels_b=1)
  preflight.resolve(
    open_config.replace(num_devices=1, data={'dtype_b': dtype}),
    images,
    saved=config,
  )
  assert not [each for each in caplog.messages if 'low_' in each]
