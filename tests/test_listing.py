"""Listing of image files in folders."""

import os
import re
import tempfile

import numpy as np
import pytest

from cyclegan_jax.data.file_images import images_of_files
from cyclegan_jax.errors import DataError
from cyclegan_jax.media.decoding import ImageError
from cyclegan_jax.media.listing import (
  describe_others,
  list_images,
  natural,
)


def put(path):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(b'not read')


def test_order_is_natural_and_by_path(tmp_path):
  names = ['img10.png', 'img2.PNG', 'b/1.jpeg', 'b/c/01.tif', 'a/9.JPG']
  names += ['img2.png', 'img02.webp', 'ä 1.bmp', 'z.tiff']
  for name in reversed(names):
    put(tmp_path / name)
  found = list_images(str(tmp_path)).images
  assert [os.path.relpath(path, tmp_path) for path in found] == [
    'a/9.JPG',
    'b/1.jpeg',
    'b/c/01.tif',
    'img2.PNG',
    'img2.png',
    'img02.webp',
    'img10.png',
    'z.tiff',
    'ä 1.bmp',
  ]


def test_order_of_numbers():
  def by_parts(name):
    parts = re.split('([0-9]+)', name)
    return [int(x) if i % 2 else x for i, x in enumerate(parts)], name

  rng = np.random.default_rng(0)
  letters = list('0129a/.! \1é')
  names = [''.join(rng.choice(letters, rng.integers(9))) for _ in range(2000)]
  assert sorted(names, key=natural) == sorted(names, key=by_parts)
  # Too long for an int.
  assert sorted(['2' * 5000, '1' * 5001, '3'], key=natural) == [
    '3',
    '2' * 5000,
    '1' * 5001,
  ]


def test_hidden_and_other_files_are_skipped(tmp_path):
  put(tmp_path / 'a.png')
  put(tmp_path / '._a.png')
  put(tmp_path / '.cache' / 'b.png')
  put(tmp_path / 'notes.txt')
  put(tmp_path / 'png')
  (tmp_path / 'folder.png').mkdir()
  os.mkfifo(tmp_path / 'pipe.png')
  listing = list_images(str(tmp_path))
  assert listing.images == [str(tmp_path / 'a.png')]
  assert listing.other_files == {'.txt': 1, '': 1, '.png': 1}


def test_links_are_followed_once_and_loops_end(tmp_path):
  put(tmp_path / 'real' / 'a.png')
  put(tmp_path / 'outside' / 'b.png')
  root = tmp_path / 'real'
  (root / 'again').symlink_to(root)
  (root / 'inner').mkdir()
  (root / 'inner' / 'up').symlink_to('..')
  (root / 'circle').symlink_to('circle')
  (root / 'x').symlink_to(tmp_path / 'outside')
  (root / 'y').symlink_to(tmp_path / 'outside')
  (root / 'linked.png').symlink_to(root / 'a.png')
  found = list_images(str(root)).images
  assert [os.path.relpath(path, root) for path in found] == [
    'a.png',
    'linked.png',
    'x/b.png',
  ]


@pytest.mark.parametrize('target', ['gone.png', 'lost.png'])
def test_a_broken_link_is_an_image_error(target, tmp_path):
  (tmp_path / 'lost.png').symlink_to(target)
  found = list_images(str(tmp_path)).images
  images = images_of_files(found, channels=3, max_pixels=100)
  for function in (images.read, images.shape_of):
    with pytest.raises(ImageError, match=f'^{found[0]} ') as caught:
      function(0)
    assert caught.value.name == images.names[0]


def test_names_of_any_bytes(tmp_path):
  names = [
    b'two words.png',
    'žebra🦓.png'.encode(),
    b'new\nline.png',
    b'\xff.png',
  ]
  for name in names:
    (tmp_path / os.fsdecode(name)).write_bytes(b'')
  found = list_images(str(tmp_path)).images
  assert len(found) == 4
  images = images_of_files(found, channels=3, max_pixels=100)
  for index in range(4):
    with pytest.raises(ImageError) as caught:
      images.read(index)
    message = str(caught.value)
    assert message.isprintable()
    assert message.encode()  # no surrogates, which terminals refuse


def test_a_folder_without_permission():
  # Not in tmp_path, which only its owner may enter.
  with tempfile.TemporaryDirectory() as root:
    os.chmod(root, 0o755)
    closed = os.path.join(root, 'closed')
    os.mkdir(closed, 0o000)
    image = os.path.join(root, 'open', 'a.png')
    os.mkdir(os.path.dirname(image))
    open(image, 'wb').close()
    is_root = os.geteuid() == 0
    if is_root:
      os.seteuid(65534)
    try:
      with pytest.raises(DataError, match=f'^{closed}'):
        list_images(closed)
      listing = list_images(root)
    finally:
      if is_root:
        os.seteuid(0)
    assert listing.images == [image]
    (message,) = listing.unlisted
    assert message.startswith(f'{closed} ')


def test_others_are_described_by_ending():
  others = {'.txt': 2, '': 1, '.\udcff': 1}
  text = describe_others(others)
  assert text.startswith('4 other files')
  assert text.isprintable()
  assert '2 .txt' in text
  many = {f'.{i}': 1 for i in range(100)}
  assert len(describe_others(many)) < 100
