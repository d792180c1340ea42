"""Paired images: found by name, drawn as a stream, used by the loss."""

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
from cyclegan_jax import parallel, step
from cyclegan_jax.config import Config
from cyclegan_jax.data.image_list import Images
from cyclegan_jax.data.loader import TrainBatches, image_at, num_paired
from cyclegan_jax.data.pairs import match_names, training_pairs
from cyclegan_jax.data.sources import open_images
from cyclegan_jax.errors import ConfigError, DataError
from cyclegan_jax.report.metric_writer import read_metrics
from cyclegan_jax.training.train import train

PAIRED = {'paired_weight': 3.0}


def images_in(root, *names):
  return Images(tuple(f'{root}{name}' for name in names), None, None, root=root)


def test_pairs_have_equal_names():
  a = images_in('/x/trainA/', 'one.png', 'sub/two.png', 'three.png')
  b = images_in('/x/trainB/', 'two.png', 'sub/two.jpg', 'four.png', 'one.tif')
  assert match_names(a, b) == {0: 3, 1: 1}
  assert match_names(b, a, domains='ba') == {1: 1, 3: 0}
  assert match_names(a, a) == {}
  a = images_in('/x/trainA/', '1_A.jpg', '2_A.jpg')
  b = images_in('/x/trainB/', '2_B.jpg', '3_B.jpg')
  assert match_names(a, b) == {1: 0}


def test_missing_pairs():
  config = Config().replace(loss=PAIRED)
  images = {
    'train_a': images_in('/x/trainA/', '1.png'),
    'train_b': images_in('/x/trainB/', '2.png'),
  }
  assert training_pairs(Config(), images) == []
  option = r'config\.loss\.paired_weight=3\.0'
  with pytest.raises(DataError, match=f'{option}.*/x/trainA/.*/x/trainB/'):
    training_pairs(config, images)
  with pytest.raises(ConfigError, match=option):
    training_pairs(config, open_images(config.data))


@pytest.mark.parametrize('share', [0.001, 1 / 3, 0.999, 1.0])
def test_pairs_are_evenly_spread(share):
  counts = [num_paired(position, share) for position in range(5000)]
  steps = np.diff(counts)
  assert set(steps) <= {0, 1}
  assert counts[-1] == pytest.approx(share * 4999, abs=1)
  assert num_paired(10**12, 0.5) == 5 * 10**11


# Batches with pairs.

NAMES = {'A': ['p0', 'a1', 'p1', 'a2', 'p2'], 'B': ['b1', 'p2', 'p0', 'p1']}


def noise(seed, *shape):
  return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(folder, *, shapes=None, broken=()):
  """Images of noise; those of a pair are equal."""
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
    generator={'isize': data.get('size', 16), 'filters': 2},
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


def test_pairs_are_a_stream_of_their_own(folder):
  config = config_of(folder, paired_share=0.25)
  found = names_of(config, 15)  # 60 examples
  assert [is_pair for is_pair, *_ in found] == [False, False, False, True] * 15
  pairs = [(a, b) for is_pair, a, b in found if is_pair]
  assert all(a == b for a, b in pairs)
  for start in range(0, 15, 3):  # each pair occurs once per epoch
    assert {a for a, _ in pairs[start : start + 3]} == {'p0', 'p1', 'p2'}
  # The other examples have the same order as without pairs.
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


@pytest.mark.parametrize('mode', ['resize_and_crop', 'scale_and_crop'])
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
  # The files of a pair are equal here, so crops of one place are equal.
  for batch in expected:
    is_pair = batch['is_pair']
    assert is_pair.tolist() == [False, True] * 2
    np.testing.assert_array_equal(batch['a'][is_pair], batch['b'][is_pair])


def test_batches_without_the_paired_loss(folder):
  config = config_of(folder, loss={}, paired_share=1.0)
  assert take(config, 1)[0].keys() == {'a', 'b'}


def test_the_next_pair_replaces_an_unreadable_one(tmp_path, caplog):
  write(tmp_path, broken=['Bp1'])
  found = names_of(config_of(tmp_path, paired_share=1.0), 6)
  assert all(is_pair and a == b for is_pair, a, b in found)
  assert {a for _, a, _ in found} == {'p0', 'p2'}
  (message,) = caplog.messages
  assert 'trainB/p1.png' in message
  write(tmp_path / 'all', broken=['Bp1', 'Ap0', 'Bp2'])
  with pytest.raises(DataError, match='pairs'):
    take(config_of(tmp_path / 'all', paired_share=1.0), 1)


def test_pairs_of_different_sizes_cannot_be_cropped(tmp_path, caplog):
  write(tmp_path, shapes={'Bp0': (20, 23)})
  config = config_of(tmp_path, preprocess='crop')
  found = names_of(config, 10)
  assert {a for is_pair, a, _ in found if is_pair} == {'p1', 'p2'}
  # Their images are still drawn as unpaired ones.
  assert 'p0' in {a for is_pair, a, _ in found if not is_pair}
  assert 'p0' in {b for is_pair, _, b in found if not is_pair}
  assert any('24 x 20' in x and '23 x 20' in x for x in caplog.messages)
  found = names_of(config_of(tmp_path), 10)
  assert 'p0' in {a for is_pair, a, _ in found if is_pair}


# The loss.


@pytest.fixture(scope='module')
def learning():
  """A config, a state and a batch in which every other example is a pair."""
  config = config_of('', size=8, load_size=8).replace(
    generator={'isize': 8, 'norm': 'instance', 'dropout': 0.0},
    discriminator={'norm': 'instance'},
  )
  rng = np.random.default_rng(0)
  batch = {d: jnp.float32(rng.uniform(-1, 1, (4, 8, 8, 3))) for d in 'ab'} | {
    'is_pair': jnp.array([True, False, True, False])
  }
  return config, cg.create_train_state(config, jax.random.key(0)), batch


@pytest.mark.slow
def test_the_paired_loss_is_added_in_both_directions(learning):
  config, state, batch = learning

  def loss_and_gradient(weight):
    loss = functools.partial(
      step.generator_loss,
      disc=state.disc,
      batch=batch,
      key=jax.random.key(1),
      config=config.replace(loss={'paired_weight': weight}),
    )
    return jax.jit(jax.value_and_grad(loss, has_aux=True))(state.gen)

  @functools.partial(jax.value_and_grad, has_aux=True)
  def by_hand(gen):
    terms = {}
    for direction, target in (('ab', 'b'), ('ba', 'a')):
      translate = cg.make_translator(config, gen, direction)
      error = translate(batch[direction[0]]) - batch[target]
      # The mean over all examples, of which the first of each two is a pair.
      terms[target] = jnp.abs(error[::2]).mean() / 2
    return terms['a'] + terms['b'], terms

  (total, (_, metrics)), gradient = loss_and_gradient(3.0)
  (plain, (_, other_metrics)), plain_gradient = loss_and_gradient(0.0)
  (paired, terms), paired_gradient = by_hand(state.gen)
  np.testing.assert_allclose(total - plain, 3 * paired, rtol=1e-4)
  for domain, term in terms.items():
    name = f'generator/paired_{domain}'
    np.testing.assert_allclose(metrics[name], term, rtol=1e-5)
    assert name not in other_metrics
  jax.tree.map(
    lambda x, y, z: np.testing.assert_allclose(x - y, 3 * z, atol=1e-4),
    gradient,
    plain_gradient,
    paired_gradient,
  )


@pytest.mark.slow
def test_the_loss_does_not_depend_on_parts_or_devices(learning):
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
def test_pairs_have_no_effect_without_the_loss(learning):
  config, state, batch = learning
  config = config.replace(loss={'paired_weight': 0.0})
  state_1, metrics_1 = cg.train_step(state, batch, config=config)
  plain = {domain: batch[domain] for domain in 'ab'}
  state_2, metrics_2 = cg.train_step(state, plain, config=config)
  jax.tree.map(np.testing.assert_array_equal, state_1.gen, state_2.gen)
  assert metrics_1.keys() == metrics_2.keys()


def test_batches_without_is_pair_are_refused(learning):
  config, state, batch = learning
  plain = {domain: batch[domain] for domain in 'ab'}
  for wrong in (plain, plain | {'is_pair': jnp.ones(4)}):
    with pytest.raises(ValueError, match='is_pair'):
      cg.train_step(state, wrong, config=config)


@pytest.mark.slow
def test_a_resumed_run_with_pairs_has_the_same_bits(tmp_path, load_preset):
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
  found = [each['generator/paired_b'] for each in records if each['step']]
  assert len(found) == 4
  assert all(0 < each < 2 for each in found)
  on_two = train(config.replace(num_devices=2), tmp_path / 'two').state
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-3),
    on_two.gen,
    straight.gen,
  )
