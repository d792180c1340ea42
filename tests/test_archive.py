"""Data sets in zip archives: limits, damage, and equality with folders."""

import concurrent.futures
import io
import os
import shutil
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.config import DataConfig
from cyclegan_jax.data import archive
from cyclegan_jax.data.archive import Archive
from cyclegan_jax.data.fingerprint import fingerprint
from cyclegan_jax.data.sources import ImageError, open_images
from cyclegan_jax.errors import DataError

SPLITS = ('train_a', 'train_b', 'test_a', 'test_b')
# Offsets of fields in an entry of the directory.
FLAGS, CRC, SIZE, OFFSET = 8, 16, 24, 42


def png(seed=0):
  pixels = np.random.default_rng(seed).integers(0, 256, (7, 5, 3), np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'PNG')
  return file.getvalue()


def write_zip(path, entries, **options):
  """Writes a zip archive of {name: content}."""
  with zipfile.ZipFile(path, 'w', **options) as file:
    for name, content in entries.items():
      file.writestr(name, content)
  return path


def patch(path, offset, form, value):
  """Overwrites a field of the directory's first entry."""
  data = bytearray(path.read_bytes())
  struct.pack_into('<' + form, data, data.index(b'PK\1\2') + offset, value)
  path.write_bytes(data)
  return path


def error_of(path):
  """The message of the error when the archive is opened."""
  with pytest.raises(DataError) as caught:
    Archive(str(path))
  message = str(caught.value)
  assert message.isprintable()
  assert message.startswith(str(path))
  return message


# What is refused.


@pytest.mark.parametrize(
  'name',
  [
    *('/etc/x.png', 'C:/x.png', 'd:x.png', '\\\\host\\x.png'),
    *('../x.png', 'trainA/../../x.png', 'trainA\\..\\x.png', '../notes.txt'),
  ],
)
def test_a_path_that_leads_out_of_the_archive(name, tmp_path):
  path = write_zip(tmp_path / 'x.zip', {'a.png': png(), name: b'target'})
  assert name.replace('\\', '/') in error_of(path)


def test_an_encrypted_entry(tmp_path):
  path = write_zip(tmp_path / 'x.zip', {'a.png': png()})
  assert 'a.png is encrypted' in error_of(patch(path, FLAGS, 'H', 0x1))


@pytest.mark.parametrize('method', [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_method_without_a_limit(method, tmp_path):
  path = write_zip(tmp_path / 'x.zip', {'a.png': png()}, compression=method)
  assert f'method {method}' in error_of(path)


def test_limits(tmp_path, monkeypatch):
  entries = {'a.bmp': bytes(10**6), 'b.bmp': bytes(10**6), 'notes.txt': b''}
  path = write_zip(
    tmp_path / 'x.zip', entries, compression=zipfile.ZIP_DEFLATED
  )
  size = path.stat().st_size
  for name, limit, shown in (
    ('MAX_ENTRIES', 3, ('3 files', '2')),
    ('MAX_IMAGE_BYTES', 10**6, ('a.bmp', '1,000,000', '999,999')),
    ('MAX_BYTES_OF_ANY_RATIO', 2 * 10**6, ('2,000,000', '100', f'{size:,}')),
  ):
    with monkeypatch.context() as patched:
      patched.setattr(archive, name, limit)
      assert len(Archive(str(path)).images) == 2
      patched.setattr(archive, name, limit - 1)
      message = error_of(path)
    for text in (*shown, 'unpack it and give the folder'):
      assert text in message


@pytest.mark.parametrize('content', [b'', b'<html>', b'PK\5\6' + b'\xff' * 18])
def test_no_archive(content, tmp_path):
  path = tmp_path / 'x.zip'
  path.write_bytes(content)
  error_of(path)


def test_a_pipe(tmp_path):
  os.mkfifo(tmp_path / 'x.zip')
  assert 'not a regular file' in error_of(tmp_path / 'x.zip')


# Damage.


@pytest.mark.parametrize(
  'field, value',
  [
    (SIZE, 600),
    (SIZE, 20),
    (OFFSET, 10**6),
    (CRC, 1),
  ],
)
@pytest.mark.parametrize('method', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_directory_that_is_wrong(method, field, value, tmp_path):
  path = write_zip(tmp_path / 'x.zip', {'a.png': png()}, compression=method)
  opened = Archive(str(path))
  assert opened.read(opened.images[0]) == png()
  opened = Archive(str(patch(path, field, 'I', value)))
  with pytest.raises(ImageError) as caught:
    opened.read(opened.images[0])
  assert caught.value.name == f'{path}/a.png'


def test_no_more_is_unpacked_than_the_directory_lists(tmp_path):
  path = write_zip(
    tmp_path / 'x.zip',
    {'a.bmp': bytes(10**7)},
    compression=zipfile.ZIP_DEFLATED,
  )
  opened = Archive(str(patch(path, SIZE, 'I', 1000)))
  tracemalloc.start()
  with pytest.raises(ImageError):
    opened.read(opened.images[0])
  assert tracemalloc.get_traced_memory()[1] < 10**6
  tracemalloc.stop()


def test_damage_anywhere_is_an_error_or_the_content(tmp_path):
  contents = {f'{i}.png': png(i) for i in range(3)}
  path = write_zip(
    tmp_path / 'x.zip', contents, compression=zipfile.ZIP_DEFLATED
  )
  whole = path.read_bytes()
  random = np.random.default_rng(0)
  num_refused = num_failed = 0
  for _ in range(150):
    damaged = bytearray(whole)
    damaged[random.integers(len(whole))] ^= 1 << random.integers(8)
    path.write_bytes(damaged)
    try:
      opened = Archive(str(path))
    except DataError:
      num_refused += 1
      continue
    for image in opened.images:
      try:
        data = opened.read(image)
      except ImageError:
        num_failed += 1
      else:
        assert data in contents.values()
  assert num_refused > 2
  assert num_failed > 25


# Equality with folders.

NAMES = (
  'trainA/a2.png',
  'trainA/a10.PNG',
  'trainA/b/1.png',
  'trainA/B2/ä 3.png',
  'trainB/x.png',
  'trainB/x1.png',
  'testA/1.png',
  'testB/01.png',
  'testB/1.png',
)
HIDDEN = ('trainA/.DS_Store', 'trainA/.hidden.png', 'trainB/.cache/x.png')
MACOS = ('__MACOSX/trainA/._a2.png', '__MACOSX/trainA/a2.png')


@pytest.fixture
def folder(tmp_path):
  """Two domains on disk, with names that are hard to sort."""
  root = tmp_path / 'unpacked'
  for seed, name in enumerate(NAMES):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(png(seed))
  for name in (*HIDDEN, 'notes.txt', 'trainB/notes.txt'):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(b'no image')
  return root


def pack(folder, path, top='', *, separator='/', method=zipfile.ZIP_DEFLATED):
  with zipfile.ZipFile(path, 'w', method) as file:
    for entry in sorted(folder.rglob('*'), reverse=True):
      name = f'{top}{entry.relative_to(folder)}'.replace('/', separator)
      if entry.is_file():
        file.writestr(name, entry.read_bytes())
    for name in MACOS:
      file.writestr(name, b'junk')
  return path


def open_folder(path, **options):
  return open_images(DataConfig(name='folder', path=str(path), **options))


def names_in(images):
  return [name.removeprefix(images.root) for name in images.names]


@pytest.mark.parametrize(
  'top, separator, method',
  [
    ('', '/', zipfile.ZIP_STORED),
    ('horse2zebra/', '/', zipfile.ZIP_DEFLATED),
    ('./', '/', zipfile.ZIP_DEFLATED),
    ('horse2zebra/', '\\', zipfile.ZIP_STORED),  # of old Windows programs
  ],
)
def test_a_zip_equals_its_folder(folder, top, separator, method, tmp_path):
  path = pack(
    folder, tmp_path / 'horses.ZIP', top, separator=separator, method=method
  )
  on_disk, in_zip = open_folder(folder), open_folder(path)
  assert tuple(in_zip) == SPLITS
  for split in SPLITS:
    assert names_in(in_zip[split]) == names_in(on_disk[split])
    assert in_zip[split].sizes == on_disk[split].sizes
    for index in range(len(on_disk[split])):
      np.testing.assert_array_equal(
        in_zip[split].read(index), on_disk[split].read(index)
      )
      assert in_zip[split].shape_of(index) == (7, 5)
  assert names_in(in_zip['train_a'])[-2:] == ['a10.PNG', 'b/1.png']
  assert fingerprint(in_zip) == fingerprint(on_disk)
  top = top.replace('./', '')
  assert in_zip['test_a'].names == (f'{path}/{top}testA/1.png',)
  assert sorted(os.listdir(tmp_path)) == ['horses.ZIP', 'unpacked']


def test_the_last_entry_of_a_name_counts(tmp_path):
  path = tmp_path / 'x.zip'
  with warnings.catch_warnings(), zipfile.ZipFile(path, 'w') as file:
    warnings.simplefilter('ignore')  # zipfile warns of duplicates
    for name in ('a/', 'a/', 'a/x.png', './', './a/x.png'):
      file.writestr(name, png(name == './a/x.png') if 'x' in name else b'')
  opened = Archive(str(path))
  (image,) = opened.images
  assert image.filename == 'a/x.png'
  assert opened.read(image) == png(1)
  assert not opened.other_files


def test_a_name_of_a_number_of_any_length(tmp_path):
  name = f'trainA/{"1" * 5000}.png'
  path = write_zip(tmp_path / 'x.zip', {name: png(), 'trainB/1.png': png()})
  assert open_folder(path)['train_a'].names == (f'{path}/{name}',)


def test_a_zip_for_each_domain(folder, tmp_path):
  for inner in ('trainA', 'trainB'):
    pack(folder / inner, tmp_path / f'{inner}.zip')
  on_disk = open_folder(folder)
  in_zip = open_folder(
    folder,
    train_a=str(tmp_path / 'trainA.zip'),
    train_b=str(tmp_path / 'trainB.zip'),
  )
  assert fingerprint(in_zip) == fingerprint(on_disk)


def test_a_zip_of_training_images_alone(folder, tmp_path):
  for inner in ('testA', 'testB'):
    shutil.rmtree(folder / inner)
  images = open_folder(pack(folder, tmp_path / 'x.zip'))
  assert images['test_b'] is images['train_b']


def test_a_folder_with_the_name_of_a_zip(folder):
  path = folder.rename(folder.parent / 'really.zip')
  assert len(open_folder(path)['train_a']) == 4


@pytest.mark.parametrize('method', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_reads_from_many_threads(method, tmp_path):
  contents = {f'{i}.png': png(i) * 200 for i in range(8)}
  opened = Archive(
    str(write_zip(tmp_path / 'x.zip', contents, compression=method))
  )
  entries = opened.images * 50
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    read = list(pool.map(opened.read, entries))
  assert read == [contents[entry.filename] for entry in entries]


def test_an_archive_that_changes(folder, tmp_path):
  path = pack(folder, tmp_path / 'x.zip')
  images = open_folder(path)['train_a']
  first = images.read(0)
  assert images.changed(0) == ''
  path.rename(tmp_path / 'y.zip')
  np.testing.assert_array_equal(images.read(0), first)
  shutil.copy(tmp_path / 'y.zip', path)
  np.testing.assert_array_equal(images.read(0), first)
  for name in NAMES:
    (folder / name).write_bytes(png(99) * 2)
  images = open_folder(path)['train_a']
  pack(folder, path)  # overwrites it in place
  with pytest.raises(ImageError) as caught:
    images.read(0)
  assert caught.value.name == f'{path}/trainA/B2/ä 3.png'
  assert images.changed(0) == str(path)


@pytest.mark.parametrize(
  'names, entries',
  [
    (('a/x.png', 'b/y.png', 'notes.txt'), 'a, b'),
    (('trainA/x.txt', 'trainB/x.png'), 'trainB'),
    (('notes.txt',), 'nothing'),
  ],
)
def test_an_archive_without_the_folders(names, entries, tmp_path):
  path = write_zip(tmp_path / 'x.zip', dict.fromkeys(names, b''))
  with pytest.raises(DataError) as caught:
    open_folder(path)
  for text in (str(path), 'trainA', entries, 'config.data.train_a'):
    assert text in str(caught.value)


def test_an_archive_without_images(folder, tmp_path):
  path = write_zip(tmp_path / 'x.zip', {'notes.txt': b'', '.a.png': b''})
  with pytest.raises(DataError, match=r'holds no images .* 1 other file'):
    open_folder(folder, train_a=str(path))
