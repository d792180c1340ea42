"""Some images of a that have a partner in b: drawn, cut and learnt from."""

import functools
import itertools
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import cyclegan_jax as cg
from cyclegan_jax import cli, parallel, step
from cyclegan_jax.config import Config, DataConfig
from cyclegan_jax.data.augment import augment, augment_key
from cyclegan_jax.data.loader import TrainBatches, image_at, num_paired
from cyclegan_jax.data.pairs import match_names, training_pairs
from cyclegan_jax.data.sources import Images, open_images
from cyclegan_jax.errors import ConfigError, DataError
from cyclegan_jax.losses import paired_l1_loss
from cyclegan_jax.report.metric_writer import read_metrics
from cyclegan_jax.training.train import train

ROOT = pathlib.Path(__file__).parent.parent
PAIRED = {'paired_weight': 3.0}


def listed(root, *names):
  return Images(tuple(f'{root}{name}' for name in names), None, None, root=root)


def test_names_that_make_pairs():
  a = listed('/x/trainA/', 'one.png', 'sub/two.png', 'three.png')
  b = listed('/x/trainB/', 'two.png', 'sub/two.jpg', 'four.png', 'one.tif')
  assert match_names(a, b) == {0: 3, 1: 1}
  assert match_names(b, a, domains='ba') == {1: 1, 3: 0}
  assert match_names(a, a) == {}
  a = listed('/x/trainA/', '1_A.jpg', '2_A.jpg')
  b = listed('/x/trainB/', '2_B.jpg', '3_B.jpg')
  assert match_names(a, b) == {1: 0}


def test_pairs_that_are_asked_for_and_are_not_there():
  config = Config().replace(loss=PAIRED)
  images = {
    'train_a': listed('/x/trainA/', '1.png'),
    'train_b': listed('/x/trainB/', '2.png'),
  }
  assert training_pairs(Config(), images) == []
  with pytest.raises(DataError, match=r'paired_weight=3\.0.*/x/trainA/'):
    training_pairs(config, images)
  with pytest.raises(ConfigError, match='paired_weight'):
    training_pairs(config, open_images(config.data))


@pytest.mark.parametrize('share', [0.001, 1 / 3, 1.0])
def test_pairs_are_evenly_spread(share):
  counts = [num_paired(position, share) for position in range(5000)]
  steps = np.diff(counts)
  assert set(steps) <= {0, 1}
  assert counts[-1] == pytest.approx(share * 4999, abs=1)
  assert num_paired(10**12, 0.5) == 5 * 10**11


# What a batch is made of.

NAMES = {'A': ['p0', 'a1', 'p1', 'a2', 'p2'], 'B': ['b1', 'p2', 'p0', 'p1']}


def noise(seed, *shape):
  return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(folder, *, shapes=None, broken=()):
  """Images of noise, where those of a pair are the same."""
  for letter, names in NAMES.items():
    for split, chosen in (('train', names), ('test', names[:2])):
      (folder / f'{split}{letter}').mkdir(parents=True)
      for name in chosen:
        shape = (shapes or {}).get(letter + name, (20, 24))
        seed = zlib.crc32(name.encode())
        path = folder / f'{split}{letter}' / f'{name}.png'
        Image.fromarray(noise(seed, *shape, 3)).save(path)
        if letter + name in broken and split == 'train':
          path.write_bytes(path.read_bytes()[:70])
  return folder


def config_of(folder, *, loss=PAIRED, batch_size=4, **data):
  defaults = {
    'name': 'folder',
    'path': str(folder),
    'size': 16,
    'load_size': 18,
    'num_workers': 0,
    'prefetch_batches': 1,
  }
  return Config().replace(
    batch_size=batch_size,
    generator={'isize': 16, 'filters': 2},
    discriminator={'filters': 2, 'layers': 1},
    data=defaults | data,
    loss=loss,
  )


def take(config, count, **options):
  images = open_images(config.data)
  with TrainBatches(config, images, **options) as batches:
    return list(itertools.islice(batches, count))


def names_of(config, count):
  """(is pair, name in a, name in b) of each example."""
  batches = TrainBatches(config, open_images(config.data))
  found = []
  with batches:
    for step_, batch in enumerate(itertools.islice(batches, count)):
      names = batches.names(step_)
      stems = ([pathlib.Path(n).stem for n in names[d]] for d in 'ab')
      found += zip(batch['is_pair'].tolist(), *stems, strict=True)
  return found


def assert_same(batches, expected):
  for batch, wanted in zip(batches, expected, strict=True):
    assert batch.keys() == wanted.keys()
    for name, each in batch.items():
      np.testing.assert_array_equal(each, wanted[name])


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return write(tmp_path_factory.mktemp('pairs'))


def test_pairs_and_others_are_streams_of_their_own(folder):
  config = config_of(folder, paired_share=0.25)
  found = names_of(config, 15)  # 60 examples
  assert [is_pair for is_pair, *_ in found] == [False, False, False, True] * 15
  pairs = [(a, b) for is_pair, a, b in found if is_pair]
  assert all(a == b for a, b in pairs)
  for start in range(0, 15, 3):  # each once an epoch of the pairs
    assert {a for a, _ in pairs[start : start + 3]} == {'p0', 'p1', 'p2'}
  # The others come in the order in which they come without pairs.
  others = [(a, b) for is_pair, a, b in found if not is_pair]
  images = open_images(config.data)
  expected = [
    tuple(
      pathlib.Path(
        images[f'train_{d}'].names[
          image_at(place, len(images[f'train_{d}']), config.seed, d)
        ]
      ).stem
      for d in 'ab'
    )
    for place in range(45)
  ]
  assert others == expected


@pytest.mark.parametrize('mode', ['resize_and_crop', 'crop', 'scale_and_crop'])
def test_a_batch_is_a_function_of_the_step(folder, mode):
  config = config_of(folder, preprocess=mode)
  expected = take(config, 6)
  assert_same(take(config, 3, start_step=3), expected[3:])
  threaded = {'num_workers': 8, 'prefetch_batches': 3}
  assert_same(take(config.replace(data=threaded), 6), expected)
  halves = [take(config, 6, share=(part, 2)) for part in range(2)]
  joined = [
    {name: np.concatenate([one[name], two[name]]) for name in one}
    for one, two in zip(*halves, strict=True)
  ]
  assert_same(joined, expected)
  # The files of a pair are equal here, so both have to be cut at one place.
  for batch in expected:
    is_pair = batch['is_pair']
    assert is_pair.tolist() == [False, True] * 2
    np.testing.assert_array_equal(batch['a'][is_pair], batch['b'][is_pair])


def test_without_the_weight_nothing_changes(folder):
  config = config_of(folder, loss={}, paired_share=1.0)
  assert take(config, 1)[0].keys() == {'a', 'b'}


def test_of_a_pair_that_can_not_be_read_the_next_takes_the_place(
  tmp_path, caplog
):
  write(tmp_path, broken=['Bp1'])
  found = names_of(config_of(tmp_path, paired_share=1.0), 6)
  assert all(is_pair and a == b for is_pair, a, b in found)
  assert {a for _, a, _ in found} == {'p0', 'p2'}
  told = [each for each in caplog.messages if 'skipped' in each]
  assert len(told) == 1
  assert 'trainB/p1.png' in told[0]
  write(tmp_path / 'all', broken=['Bp1', 'Ap0', 'Bp2'])
  with pytest.raises(DataError, match='none of the 3 pairs can be read'):
    take(config_of(tmp_path / 'all', paired_share=1.0), 1)


def test_a_pair_of_two_sizes_is_none_where_crops_are_cut(tmp_path, caplog):
  write(tmp_path, shapes={'Bp0': (20, 23)})
  config = config_of(tmp_path, preprocess='crop')
  found = names_of(config, 10)
  assert {a for is_pair, a, _ in found if is_pair} == {'p1', 'p2'}
  # Each by itself is as good as any other.
  assert 'p0' in {a for is_pair, a, _ in found if not is_pair}
  assert 'p0' in {b for is_pair, _, b in found if not is_pair}
  assert any(
    'it is 24 x 20, and ' in each and 'its pair, 23 x 20' in each
    for each in caplog.messages
  )
  found = names_of(config_of(tmp_path), 10)
  assert 'p0' in {a for is_pair, a, _ in found if is_pair}


def test_crops_and_flips_of_a_pair_are_one():
  config = DataConfig(size=8, load_size=11)
  raw = {'a': noise(0, 32, 11, 11, 3)}
  raw['b'] = raw['a'].copy()
  key = augment_key(jax.random.key(0), jnp.int32(3))
  apart = augment(raw, key, config)
  is_pair = np.arange(32) % 3 == 0
  made = augment(raw | {'is_pair': is_pair}, key, config)
  np.testing.assert_array_equal(made['is_pair'], is_pair)
  np.testing.assert_array_equal(made['a'], apart['a'])
  np.testing.assert_array_equal(made['b'][is_pair], made['a'][is_pair])
  np.testing.assert_array_equal(made['b'][~is_pair], apart['b'][~is_pair])
  differs = np.any(np.asarray(apart['a'] != apart['b']), axis=(1, 2, 3))
  assert differs[is_pair].any()


# What is learnt of it.


def test_paired_l1_by_hand():
  images = jnp.array([1.0, 5.0, -2.0, 0.0]).reshape(4, 1, 1, 1)
  targets = jnp.zeros((4, 1, 1, 1))
  is_pair = jnp.array([True, False, True, True])
  assert float(paired_l1_loss(images, targets, is_pair)) == 0.75
  nothing = jnp.zeros(4, bool)
  assert float(paired_l1_loss(images, targets, nothing)) == 0


@pytest.fixture(scope='module')
def learning():
  """A config, a state and a batch in which every other example is a pair."""
  config = config_of('').replace(generator={'norm': 'instance', 'dropout': 0.0})
  config = config.replace(discriminator={'norm': 'instance'})
  rng = np.random.default_rng(0)
  batch = {d: jnp.float32(rng.uniform(-1, 1, (4, 16, 16, 3))) for d in 'ab'} | {
    'is_pair': jnp.array([True, False, True, False])
  }
  return config, cg.create_train_state(config, jax.random.key(0)), batch


def test_the_loss_is_the_unpaired_one_and_both_terms(learning):
  config, state, batch = learning

  @jax.jit
  def by_hand(gen):
    return {
      to: jnp.abs(
        cg.make_translator(config, gen, way)(batch[way[0]])[::2]
        - batch[to][::2]
      ).mean()
      / 2  # half of the examples
      for way, to in (('ab', 'b'), ('ba', 'a'))
    }

  (paired, metrics), (unpaired, others) = (
    jax.jit(
      functools.partial(
        step.generator_loss,
        config=config.replace(loss={'paired_weight': weight}),
      )
    )(state.gen, state.disc, batch, jax.random.key(1))
    for weight in (3.0, 0.0)
  )
  terms = by_hand(state.gen)
  expected = 3 * (terms['a'] + terms['b'])
  np.testing.assert_allclose(paired - unpaired, expected, rtol=1e-4)
  for domain, term in terms.items():
    name = f'generator/paired_{domain}'
    np.testing.assert_allclose(metrics[1][name], term, rtol=1e-5)
    assert name not in others[1]


@pytest.mark.slow
def test_parts_and_devices_change_nothing(learning):
  config, state, batch = learning
  expected = cg.train_step(state, batch, config=config)[1]
  parts = cg.train_step(state, batch, config=config.replace(accumulate=2))[1]
  on_two = parallel.data_parallel(
    lambda state, batch: cg.train_step(
      state, batch, config=config, axis_name=parallel.AXIS
    ),
    num_devices=2,
  )
  copy = jax.tree.map(jnp.copy, state)
  devices = on_two(copy, parallel.shard_batch(batch, 2))[1]
  for name in ('generator/paired_a', 'generator/paired_b', 'generator/loss'):
    for other in (parts, devices):
      np.testing.assert_allclose(other[name], expected[name], rtol=1e-5)


@pytest.mark.slow
def test_without_the_weight_pairs_are_as_others(learning):
  config, state, batch = learning
  config = config.replace(loss={'paired_weight': 0.0})
  marked = cg.train_step(state, batch, config=config)
  images = {domain: batch[domain] for domain in 'ab'}
  unmarked = cg.train_step(state, images, config=config)
  jax.tree.map(np.testing.assert_array_equal, marked[0].gen, unmarked[0].gen)
  assert marked[1].keys() == unmarked[1].keys()


def test_a_batch_without_marks_is_refused(learning):
  config, state, batch = learning
  images = {domain: batch[domain] for domain in 'ab'}
  for wrong in (images, images | {'is_pair': jnp.ones(4)}):
    with pytest.raises(ValueError, match='is_pair'):
      cg.train_step(state, wrong, config=config)


@pytest.mark.slow
def test_a_run_with_pairs_resumes_to_the_same_bits(tmp_path, load_preset):
  write(tmp_path / 'images', broken=['Ap1'])
  config = load_preset('tiny').replace(
    steps=4,
    data={
      'name': 'folder',
      'path': str(tmp_path / 'images'),
      'paired_share': 0.75,
    },
    loss=PAIRED,
    log={'metrics_every_steps': 1},
  )
  straight = train(config, tmp_path / 'straight').state
  train(config.replace(steps=1), tmp_path / 'run')
  result = train(config, tmp_path / 'run')
  assert result.start_step == 1
  jax.tree.map(np.testing.assert_array_equal, result.state.gen, straight.gen)
  records = read_metrics(tmp_path / 'run' / 'metrics.jsonl')
  losses = [each['generator/paired_b'] for each in records if each['step']]
  assert len(losses) == 4
  assert all(0 < loss < 2 for loss in losses)


def test_a_run_without_pairs_does_not_begin(tmp_path, capsys):
  write(tmp_path / 'images')
  for path in (tmp_path / 'images' / 'trainB').iterdir():
    path.rename(path.with_name(f'other_{path.name}'))
  argv = [
    'train',
    f'--config={ROOT}/configs/tiny.py',
    '--config.data.name=folder',
    f'--config.data.path={tmp_path / "images"}',
    '--config.loss.paired_weight=1',
    f'--workdir={tmp_path / "run"}',
  ]
  assert cli.main(argv) == 1
  assert 'config.loss.paired_weight' in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()
