"""Fingerprints of image listings, and texts about changes."""

import json
import os
import shutil
import time

import pytest

from cyclegan_jax.config import DataConfig
from cyclegan_jax.data.fingerprint import changes, fingerprint, listing
from cyclegan_jax.data.image_list import Images
from cyclegan_jax.data.sources import open_images
from cyclegan_jax.data.synthetic import drawings

FILES = {
  'trainA/1.png': 10,
  'trainA/2.png': 20,
  'trainA/inner/3.png': 30,
  'trainB/x.png': 40,
  'testA/y.png': 50,
}


def write(root, files):
  for name, size in files.items():
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(bytes(size))
  return root


@pytest.fixture
def folder(tmp_path):
  return write(tmp_path / 'data', FILES)


def opened(folder, **options):
  return open_images(DataConfig(name='folder', path=str(folder), **options))


def test_counts_and_sizes_without_reading(folder):
  images = opened(folder)
  marks = fingerprint(images)
  assert {split: mark['count'] for split, mark in marks.items()} == {
    'train_a': 3,
    'train_b': 1,
    'test_a': 1,
    'test_b': 1,
  }
  assert listing(images)['train_a'] == {
    'version': '',
    'images': [['1.png', 10], ['2.png', 20], ['inner/3.png', 30]],
  }
  assert json.loads(json.dumps(marks)) == marks
  assert json.loads(json.dumps(listing(images))) == listing(images)
  assert len(marks['train_a']['sha256']) == 64
  # Training images replace missing test images.
  assert marks['test_b'] == marks['train_b']
  assert marks['test_a'] != marks['train_a']


def test_place_and_time_do_not_matter(folder, tmp_path):
  before = fingerprint(opened(folder))
  os.utime(folder / 'trainA/1.png', (1, 1))
  folder.rename(tmp_path / 'elsewhere')
  for slash in ('', '/', '/.'):
    assert fingerprint(opened(f'{tmp_path}/elsewhere{slash}')) == before
    separate = opened(
      f'{tmp_path}/elsewhere', train_a=f'{tmp_path}/elsewhere/trainA{slash}'
    )
    assert fingerprint(separate) == before


@pytest.mark.parametrize(
  'added, removed, texts',
  [
    (
      {'trainA/4.png': 1, 'trainA/0.png': 1, 'trainA/2.png': 21},
      ('trainA/1.png',),
      [
        'train_a: 2 images added (0.png, 4.png), 1 removed (1.png), 1 of '
        'another size (2.png)'
      ],
    ),
    ({}, ('trainA/1.png',), ['train_a: 1 image removed (1.png)']),
    (
      {'trainB/x.png': 1},
      (),
      [
        'train_b: 1 image of another size (x.png)',
        'test_b: 1 image of another size (x.png)',
      ],
    ),
    (
      {f'testA/new\n{i}.png': 1 for i in range(5)},
      (),
      [
        "test_a: 5 images added ('new\\n0.png', 'new\\n1.png', 'new\\n2.png' "
        'and 2 more)'
      ],
    ),
    ({'trainA/notes.txt': 1}, (), []),
  ],
)
def test_changes(added, removed, texts, folder):
  images = opened(folder)
  before, mark = json.loads(json.dumps(listing(images))), fingerprint(images)
  write(folder, added)
  for name in removed:
    (folder / name).unlink()
  images = opened(folder)
  assert changes(before, listing(images)) == texts
  differ = [k for k, new in fingerprint(images).items() if mark[k] != new]
  assert differ == [text.split(':')[0] for text in texts]


def test_names_of_any_bytes(folder):
  for name in (b'\xff.png', 'žebra🦓.png'.encode()):
    (folder / 'trainA' / os.fsdecode(name)).write_bytes(b'')
  images = opened(folder)
  after = json.loads(json.dumps(listing(images)))
  assert changes(listing(images), after) == []
  del after['train_a']['images'][:3]
  text, *_ = changes({}, after)
  assert text == "train_a: 2 images added (žebra🦓.png, '\\udcff.png')"
  assert text.encode()


def test_a_broken_link_has_no_size(folder):
  before = listing(opened(folder))
  (folder / 'trainA/4.png').symlink_to('nowhere')
  after = listing(opened(folder))
  assert after['train_a']['images'][-2] == ['4.png', None]
  assert changes(before, after) == ['train_a: 1 image added (4.png)']


def test_a_new_or_missing_split():
  images = {'version': '', 'images': [['x', 1]]}
  assert changes({}, {'test_a': images}) == ['test_a: 1 image added (x)']
  assert changes({'test_a': images}, {}) == ['test_a: 1 image removed (x)']


def test_another_order_is_a_change():
  old = {'train_a': {'version': '', 'images': [['x', 1], ['y', 1]]}}
  new = {'train_a': {'version': '', 'images': [['y', 1], ['x', 1]]}}
  assert changes(old, new) == ['train_a: another order']


def test_fingerprints_of_drawings(monkeypatch):
  config = DataConfig(num_train=3, num_test=2)
  images = open_images(config)
  before, mark = listing(images), fingerprint(images)
  assert fingerprint(open_images(config)) == mark
  assert (
    fingerprint(open_images(DataConfig(num_train=3, num_test=2, flip=False)))
    == mark
  )
  larger = open_images(DataConfig(num_train=3, num_test=2, load_size=72))
  assert fingerprint(larger)['train_a'] != mark['train_a']
  assert changes(before, listing(larger))[0] == (
    "train_a: 'drawings 1, 64 px' became 'drawings 1, 72 px'"
  )
  more = open_images(DataConfig(num_train=4, num_test=2))
  assert changes(before, listing(more)) == [
    'train_a: 1 image added (train_a/00003)',
    'train_b: 1 image added (train_b/00003)',
  ]
  monkeypatch.setattr(drawings, 'VERSION', 2)
  assert fingerprint(open_images(config))['test_b'] != mark['test_b']


@pytest.mark.slow
def test_a_hundred_thousand_files():
  count = 100_000
  images = {
    'train_a': Images(
      [f'/data/trainA/{i:06d}.png' for i in range(count)],
      lambda index: None,
      None,
      root='/data/trainA/',
      sizes=range(count),
    )
  }
  began = time.process_time()
  fingerprint(images)
  before = listing(images)
  assert changes(before, listing(images)) == []
  assert time.process_time() - began < 5  # seconds; one is usual


def test_files_are_not_read(folder):
  shutil.copytree(folder, folder.parent / 'copy')
  write(folder.parent / 'copy', {'trainB/x.png': 40})
  for name in FILES:
    (folder.parent / 'copy' / name).chmod(0o000)
  assert fingerprint(opened(folder.parent / 'copy')) == fingerprint(
    opened(folder)
  )
