import concurrent.futures
import io
import logging
import os
import pickle
import shutil
import stat
import struct
import unicodedata
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.config import DataConfig
from cyclegan_jax.data import archive
from cyclegan_jax.data.archive import open_archive, read_member
from cyclegan_jax.data.fingerprint import fingerprint
from cyclegan_jax.data.sources import ImageError, open_images
from cyclegan_jax.errors import DataError

SPLITS = ('train_a', 'train_b', 'test_a', 'test_b')
UNPACK = 'unpack it with a tool that you trust, and give the folder'


def png(seed=0):
  pixels = np.random.default_rng(seed).integers(0, 256, (7, 5, 3), np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'PNG')
  return file.getvalue()


def zipped(path, members, **options):
  """A zip of {name or ZipInfo: content}."""
  with zipfile.ZipFile(path, 'w', **options) as file:
    for name, data in dict(members).items():
      file.writestr(name, data)
  return path


def member(name, mode):
  info = zipfile.ZipInfo(name)
  info.external_attr = mode << 16
  return info


def patch(path, offset, form, value):
  """Overwrites a field of the first record of the directory."""
  data = bytearray(path.read_bytes())
  struct.pack_into('<' + form, data, data.index(b'PK\1\2') + offset, value)
  path.write_bytes(data)
  return path


FLAGS, METHOD, CRC, PACKED, SIZE, OFFSET = 8, 10, 16, 20, 24, 42


def message_of(path):
  with pytest.raises(DataError) as caught:
    open_archive(str(path))
  assert str(caught.value).isprintable()
  return str(caught.value)


# What is refused.


@pytest.mark.parametrize(
  'name, trouble',
  [
    ('/etc/x.png', 'has an absolute path'),
    ('C:/x.png', 'has an absolute path'),
    ('d:x.png', 'has an absolute path'),
    ('trainA\\x.png', 'has a backslash in its path'),
    ('\\\\host\\x.png', 'has a backslash in its path'),
    ('../x.png', "has '..' in its path"),
    ('trainA/../../x.png', "has '..' in its path"),
    ('trainA/..', "has '..' in its path"),
    ('../notes.txt', "has '..' in its path"),
    (member('x.png', stat.S_IFLNK | 0o777), 'is a link'),
    (member('dir', stat.S_IFLNK | 0o777), 'is a link'),
    (member('x.png', stat.S_IFIFO), 'is neither a file nor a folder'),
    (member('x.png', stat.S_IFCHR), 'is neither a file nor a folder'),
    (member('x.png', stat.S_IFBLK), 'is neither a file nor a folder'),
    (member('x.png', stat.S_IFSOCK), 'is neither a file nor a folder'),
  ],
)
def test_members_that_could_do_harm(name, trouble, tmp_path):
  path = zipped(tmp_path / 'x.zip', {'a.png': png(), name: b'target'})
  if isinstance(name, zipfile.ZipInfo):
    name = name.filename
  assert message_of(path) == (
    f'{path} is not read: its member {name} {trouble}: get it from its maker '
    f'anew, or {UNPACK}'
  )


def test_a_zero_byte_in_a_path(tmp_path):
  path = zipped(tmp_path / 'x.zip', {'a?.png': png()})
  path.write_bytes(path.read_bytes().replace(b'a?.png', b'a\0.png'))
  assert "its member 'a\\x00.png' has a zero byte in its path" in message_of(
    path
  )


def test_a_member_without_a_name(tmp_path):
  path = zipped(tmp_path / 'x.zip', {'a.png': png()})
  data = path.read_bytes()
  at = data.index(b'PK\1\2')
  data = data[:at] + data[at:].replace(b'a.png', b'')
  path.write_bytes(data)
  patch(path, 28, 'H', 0)  # the name's length
  end = bytearray(path.read_bytes())
  size = end.index(b'PK\5\6') + 12
  struct.pack_into('<I', end, size, struct.unpack_from('<I', end, size)[0] - 5)
  path.write_bytes(end)
  assert 'has no name' in message_of(path)


@pytest.mark.parametrize(
  'names, trouble',
  [
    (('a/x.png', 'a/x.png'), 'a/x.png is there twice'),
    (('a/x.png', './a/x.png'), './a/x.png is there twice'),
    (
      ('a/x.png', 'a/X.PNG'),
      'a/X.PNG differs from a/x.png by its spelling alone',
    ),
    (('a/x.png', 'A/y.png'), 'A/y.png differs from a by its spelling alone'),
    (('ß.png', 'SS.png'), 'SS.png differs from ß.png by its spelling alone'),
    (
      (
        unicodedata.normalize('NFC', 'é.png'),
        unicodedata.normalize('NFD', 'É.png'),
      ),
      'É.png differs from é.png by its spelling alone',
    ),
    (('a/x.png', 'a'), 'a is there twice'),
  ],
)
def test_names_that_some_file_system_takes_for_one(names, trouble, tmp_path):
  path = tmp_path / 'x.zip'
  with warnings.catch_warnings(), zipfile.ZipFile(path, 'w') as file:
    warnings.simplefilter('ignore')  # of zipfile's, at exact duplicates
    for name in names:
      file.writestr(name, png())
  normalize = unicodedata.normalize
  assert normalize('NFC', message_of(path)) == normalize(
    'NFC',
    f'{path} is not read: its member {trouble}: get it from its maker anew, or '
    f'{UNPACK}',
  )


def test_a_folder_may_be_listed_twice(tmp_path):
  path = tmp_path / 'x.zip'
  with warnings.catch_warnings(), zipfile.ZipFile(path, 'w') as file:
    warnings.simplefilter('ignore')
    for name in ('a/', 'a/', 'a/x.png', './', './a/y.png'):
      file.writestr(name, b'' if name.endswith('/') else png())
  found = open_archive(str(path))
  assert [each.name for each in found.images] == ['a/x.png', 'a/y.png']


@pytest.mark.parametrize('flag', [0x1, 0x41])
def test_an_encrypted_member(flag, tmp_path):
  path = patch(zipped(tmp_path / 'x.zip', {'a.png': png()}), FLAGS, 'H', flag)
  assert message_of(path) == (
    f'{path} is not read: its member a.png is encrypted: unpack it and give '
    'the folder'
  )


@pytest.mark.parametrize('method', [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_method_without_a_bound(method, tmp_path):
  path = zipped(tmp_path / 'x.zip', {'a.png': png()}, compression=method)
  assert f'a.png is packed by method {method}, not by deflate' in message_of(
    path
  )


@pytest.mark.parametrize(
  'field, value, trouble',
  [
    (SIZE, 2**30 + 1, 'claims 1073741825 bytes, more than 1073741824'),
    (SIZE, 600, 'claims 600 bytes, packed into {size}'),
    (PACKED, 10**6, 'lies beyond the end of the archive'),
    (OFFSET, 10**6, 'lies beyond the end of the archive'),
  ],
)
def test_a_directory_that_lies(field, value, trouble, tmp_path):
  path = zipped(tmp_path / 'x.zip', {'a.png': png()})
  told = message_of(patch(path, field, 'I', value))
  assert f'its member a.png {trouble.format(size=len(png()))}: get' in told


def test_a_ratio_that_deflate_can_not_have(tmp_path):
  path = zipped(
    tmp_path / 'x.zip',
    {'a.bmp': bytes(10**6)},
    compression=zipfile.ZIP_DEFLATED,
  )
  packed = open_archive(str(path)).images[0].packed_size
  assert packed < 1000, 'nor is a ratio that it has refused'
  patch(path, SIZE, 'I', packed * 1032 + 1)
  assert (
    f'a.bmp claims {packed * 1032 + 1} bytes, packed into {packed}'
    in message_of(path)
  )


def overlapping(path, num, size):
  """A zip of `num` members that all are the same few bytes of the file."""
  deflate = zlib.compressobj(wbits=-15)
  packed = deflate.compress(bytes(size)) + deflate.flush()
  sizes = zlib.crc32(bytes(size)), len(packed), size
  local = struct.pack('<4sHHHHHIIIHH', b'PK\3\4', 20, 0, 8, 0, 0, *sizes, 5, 0)
  body = local + b'x.bmp' + packed
  directory = b''.join(
    struct.pack(
      '<4sHHHHHHIIIHHHHHII',
      *(b'PK\1\2', 20, 20, 0, 8, 0, 0, *sizes, 10, 0, 0, 0, 0, 0, 0),
    )
    + b'%06d.bmp' % i
    for i in range(num)
  )
  end = struct.pack(
    '<4sHHHHIIH',
    *(b'PK\5\6', 0, 0, num, num, len(directory), len(body), 0),
  )
  path.write_bytes(body + directory + end)
  return path


def test_a_total_beyond_the_cap(tmp_path):
  path = overlapping(tmp_path / 'bomb.zip', 4300, 10**6)
  size = path.stat().st_size
  assert size < 300_000
  assert message_of(path) == (
    f'{path} has {size} bytes, and its images claim 4300000000: more than 100 '
    f'times as many are not read from an archive: {UNPACK}'
  )
  # Each of its members could be read: it's the sum that is too much.
  overlapping(path, 4000, 10**6)
  images = open_archive(str(path)).images
  assert read_member(str(path), images[17]) == bytes(10**6)


def test_more_members_than_the_cap(tmp_path, monkeypatch):
  path = zipped(tmp_path / 'x.zip', {f'{i}.txt': b'' for i in range(4)})
  monkeypatch.setattr(archive, 'MAX_MEMBERS', 4)
  assert open_archive(str(path)).num_other_files == 4
  monkeypatch.setattr(archive, 'MAX_MEMBERS', 3)
  assert message_of(path) == f'{path} lists more than 3 files: {UNPACK}'


def test_a_directory_that_takes_all_memory(tmp_path):
  path = tmp_path / 'x.zip'
  size = 2**40
  end = struct.pack(
    '<4sQHHIIQQQQ',
    *(b'PK\6\6', 44, 45, 45, 0, 0, 2**30, 2**30, size, 0),
  )
  end += struct.pack('<4sIQI', b'PK\6\7', 0, size, 1)
  end += struct.pack(
    '<4sHHHHIIH', b'PK\5\6', 0, 0, *[2**16 - 1] * 2, *[2**32 - 1] * 2, 0
  )
  with path.open('wb') as file:
    file.truncate(size)  # sparse
    file.seek(size)
    file.write(end)
  assert message_of(path) == f'{path} lists more than 500000 files: {UNPACK}'


@pytest.mark.parametrize(
  'data, reason',
  [
    (b'', 'File is not a zip file'),
    (b'<html>', 'File is not a zip file'),
    (b'PK\5\6' + b'\xff' * 18, 'File is not a zip file'),
  ],
)
def test_what_is_no_archive(data, reason, tmp_path):
  path = tmp_path / 'x.zip'
  path.write_bytes(data)
  assert message_of(path).startswith(f"{path} can't be read: ")


def test_a_pipe_for_an_archive(tmp_path):
  os.mkfifo(tmp_path / 'x.zip')
  assert message_of(tmp_path / 'x.zip') == (
    f"{tmp_path}/x.zip can't be read: not a regular file"
  )


def test_damage_anywhere_is_a_data_error_or_the_content(tmp_path):
  path = zipped(
    tmp_path / 'x.zip',
    {f'{i}.png': png(i) for i in range(3)},
    compression=zipfile.ZIP_DEFLATED,
  )
  contents = {f'{i}.png': png(i) for i in range(3)}
  whole = path.read_bytes()
  random = np.random.default_rng(0)
  refused = failed = 0
  for _ in range(300):
    damaged = bytearray(whole)
    damaged[random.integers(len(whole))] ^= 1 << random.integers(8)
    path.write_bytes(damaged)
    try:
      found = open_archive(str(path))
    except ImageError:
      raise
    except DataError:
      refused += 1
      continue
    for each in found.images:
      try:
        data = read_member(str(path), each)
      except ImageError:
        failed += 1
      else:
        assert data in contents.values()
  assert refused > 10
  assert failed > 50


# What is read.


@pytest.mark.parametrize('method', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
  'field, change', [(SIZE, -1), (SIZE, 1), (CRC, 1), (PACKED, -20)]
)
def test_a_member_of_another_size_than_listed(method, field, change, tmp_path):
  content = png() * 3
  path = zipped(tmp_path / 'x.zip', {'a.png': content}, compression=method)
  found = open_archive(str(path))
  assert read_member(str(path), found.images[0]) == content
  name = {SIZE: 'size', CRC: 'crc', PACKED: 'packed_size'}[field]
  lying = found.images[0]._replace(
    **{name: getattr(found.images[0], name) + change}
  )
  with pytest.raises(ImageError) as caught:
    read_member(str(path), lying)
  assert str(caught.value) == (
    f"{path}/a.png can't be read: its bytes are not those that the archive "
    'lists for it'
  )


def test_no_more_is_unpacked_than_listed(tmp_path):
  path = zipped(
    tmp_path / 'x.zip',
    {'a.bmp': bytes(10**8)},
    compression=zipfile.ZIP_DEFLATED,
  )
  found = open_archive(str(patch(path, SIZE, 'I', 1000))).images[0]
  assert len(archive._unpacked(path.read_bytes()[35:], found)) == 1001
  with pytest.raises(ImageError, match='its bytes are not those'):
    read_member(str(path), found)


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
EXTRA = (
  'notes.txt',
  '__MACOSX/trainA/._a2.png',
  '__MACOSX/trainA/a2.png',
  'trainA/.DS_Store',
  'trainA/.hidden.png',
  'trainB/.cache/x.png',
  'trainB/notes.txt',
)


@pytest.fixture
def folder(tmp_path):
  """Two domains on disk, with names that are hard to sort."""
  root = tmp_path / 'unpacked'
  for seed, name in enumerate(NAMES):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(png(seed))
  for name in EXTRA:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(b'no image')
  shutil.rmtree(root / '__MACOSX')
  return root


def packed(folder, path, top='', *, method=zipfile.ZIP_DEFLATED):
  with zipfile.ZipFile(path, 'w', method) as file:
    for each in sorted(folder.rglob('*'), reverse=True):
      file.write(each, f'{top}{each.relative_to(folder)}')
    for name in EXTRA[1:3]:
      file.writestr(name, b'junk')
  return path


def opened(path, **options):
  config = DataConfig(name='folder', path=str(path), **options)
  return open_images(config)


def relative(images):
  return [name.removeprefix(images.root) for name in images.names]


@pytest.mark.parametrize('top', ['', 'horse2zebra/', './'])
@pytest.mark.parametrize('method', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_its_unpacked_folder(folder, top, method, tmp_path):
  path = packed(folder, tmp_path / 'horses.ZIP', top, method=method)
  on_disk, in_zip = opened(folder), opened(path)
  assert tuple(in_zip) == SPLITS
  for split in SPLITS:
    assert relative(in_zip[split]) == relative(on_disk[split])
    assert in_zip[split].sizes == on_disk[split].sizes
    for index in range(len(on_disk[split])):
      np.testing.assert_array_equal(
        in_zip[split].read(index), on_disk[split].read(index)
      )
      assert in_zip[split].shape_of(index) == (7, 5)
  assert relative(in_zip['train_a'])[-2:] == ['a10.PNG', 'b/1.png']
  assert fingerprint(in_zip) == fingerprint(on_disk)
  top = top.replace('./', '')
  assert in_zip['test_a'].names == (f'{path}/{top}testA/1.png',)
  assert sorted(os.listdir(tmp_path)) == ['horses.ZIP', 'unpacked']


def test_a_member_named_by_a_number_of_any_length(tmp_path):
  name = f'trainA/{"1" * 5000}.png'
  path = zipped(tmp_path / 'x.zip', {name: png(), 'trainB/1.png': png()})
  assert opened(path)['train_a'].names == (f'{path}/{name}',)


def test_a_zip_for_each_domain(folder, tmp_path):
  for inner in ('trainA', 'trainB'):
    packed(folder / inner, tmp_path / f'{inner}.zip')
  on_disk = opened(folder)
  in_zip = opened(
    folder,
    train_a=str(tmp_path / 'trainA.zip'),
    train_b=str(tmp_path / 'trainB.zip'),
  )
  for split in SPLITS:
    assert relative(in_zip[split]) == relative(on_disk[split])
  assert fingerprint(in_zip) == fingerprint(on_disk)


def test_a_zip_of_training_images_alone(folder, tmp_path, caplog):
  for inner in ('testA', 'testB'):
    shutil.rmtree(folder / inner)
  path = packed(folder, tmp_path / 'x.zip')
  with caplog.at_level(logging.WARNING, 'cyclegan_jax'):
    images = opened(path)
  assert images['test_b'] is images['train_b']
  assert len(caplog.records) == 2


def test_a_folder_named_as_a_zip(folder):
  path = folder.rename(folder.parent / 'really.zip')
  assert len(opened(path)['train_a']) == 4


def test_reads_from_many_threads_and_leaves_no_file_open(folder, tmp_path):
  images = opened(packed(folder, tmp_path / 'x.zip'))['train_a']
  images = pickle.loads(pickle.dumps(images))
  expected = [images.read(i) for i in range(4)]
  before = len(os.listdir('/proc/self/fd'))
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    read = list(pool.map(images.read, [0, 1, 2, 3] * 50))
    assert len(os.listdir('/proc/self/fd')) <= before + 8
  for i, image in enumerate(read):
    np.testing.assert_array_equal(image, expected[i % 4])
  assert len(os.listdir('/proc/self/fd')) == before


def test_an_archive_that_changes_is_an_image_error_or_the_same(
  folder, tmp_path
):
  path = packed(folder, tmp_path / 'x.zip')
  images = opened(path)['train_a']
  first = images.read(0)
  path.rename(tmp_path / 'y.zip')
  with pytest.raises(ImageError, match='No such file or directory'):
    images.read(0)
  shutil.copy(tmp_path / 'y.zip', path)
  np.testing.assert_array_equal(images.read(0), first)
  for split in ('trainA', 'trainB'):
    for each in (folder / split).iterdir():
      if each.is_file():
        each.write_bytes(png(99))
  packed(folder, path)
  with pytest.raises(ImageError) as caught:
    images.read(0)
  assert caught.value.name == f'{path}/trainA/B2/ä 3.png'
  assert caught.value.reason == (
    'its bytes are not those that the archive lists for it'
  )


@pytest.mark.parametrize(
  'names, message',
  [
    (
      ('a/x.png', 'b/y.png', 'notes.txt'),
      '{} holds a, b, but no folder trainA: config.data.path is the folder '
      'that holds trainA and trainB, config.data.train_a takes one of any name',
    ),
    (
      ('trainA/x.txt', 'trainB/x.png'),
      '{} holds trainB, but no folder trainA: config.data.path is the folder '
      'that holds trainA and trainB, config.data.train_a takes one of any name',
    ),
    (
      ('notes.txt',),
      '{} holds no images, and no folder trainA: config.data.path is the '
      'folder that holds trainA and trainB, config.data.train_a takes one of '
      'any name',
    ),
  ],
)
def test_an_archive_without_the_folders(names, message, tmp_path):
  path = zipped(tmp_path / 'x.zip', dict.fromkeys(names, b''))
  with pytest.raises(DataError) as caught:
    opened(path)
  assert str(caught.value) == message.format(path)


def test_an_archive_without_images(folder, tmp_path):
  path = zipped(tmp_path / 'x.zip', {'notes.txt': b'', '.a.png': b''})
  with pytest.raises(DataError) as caught:
    opened(folder, train_a=str(path))
  assert str(caught.value) == (
    f'{path} holds no images (.bmp, .jpeg, .jpg, .png, .tif, .tiff, .webp) '
    'and 1 other file'
  )
