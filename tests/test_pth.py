"""Files of torch.save: good ones are read, and attacks are not carried out."""

import builtins
import io
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

from cyclegan_jax.errors import WeightsError
from cyclegan_jax.interop import torch_container, torch_pickle
from cyclegan_jax.interop.pth import read_pth, write_pth
from cyclegan_jax.interop.torch_pickle import dump_program

ARRAYS = {
  'a.weight': np.arange(12, dtype=np.float32).reshape(3, 4),
  'a.bias': np.array([1.5, -2], np.float64),
  'count': np.array(7),
}
PROGRAM = dump_program(
  {name: (array.shape, array.dtype.name) for name, array in ARRAYS.items()}
)
STORAGES = [array.tobytes() for array in ARRAYS.values()]
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
SYSTEM = {
  'protocol_version': 1001,
  'little_endian': True,
  'type_sizes': {'short': 2, 'int': 4, 'long': 4},
}


class Auditor:
  """Context that fails where something may have been executed in it."""

  def __init__(self):
    self.events, self.is_on, self.is_installed = [], False, False

  def note(self, event, arguments):
    is_harmless = event == 'object.__getattr__' or (
      event == 'open' and arguments[1] in (None, 'r', 'rb')
    )
    if self.is_on and not is_harmless:
      self.events.append((event, str(arguments)))

  def __enter__(self):
    if not self.is_installed:  # a hook cannot be removed
      sys.addaudithook(self.note)
    self.events, self.is_on, self.is_installed = [], True, True

  def __exit__(self, *_):
    self.is_on = False
    if self.events:
      raise AssertionError(f'executed: {self.events}')


AUDITOR = Auditor()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
  """Messages name the file by its relative path: 'g.pth'."""
  monkeypatch.chdir(tmp_path)
  read(zipped())  # imports whatever is imported late
  pathlib.Path('g.pth').unlink()
  return tmp_path


def zipped(program=PROGRAM, storages=STORAGES, root='g', **others):
  members = {'data.pkl': program, 'byteorder': b'little', 'version': b'3\n'}
  members |= {f'data/{i}': storage for i, storage in enumerate(storages)}
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w') as archive:
    for name, content in (members | others).items():
      archive.writestr(zipfile.ZipInfo(f'{root}/{name}'), content)
  return buffer.getvalue()


def legacy(
  program=PROGRAM, storages=STORAGES, keys='012', system=SYSTEM, counts=None
):
  counts = [12, 2, 1] if counts is None else counts
  parts = [MAGIC, pickle.dumps(1001, 2), pickle.dumps(system, 2), program]
  parts.append(pickle.dumps(list(keys), 2))
  for count, storage in zip(counts, storages, strict=True):
    parts += [struct.pack('<q', count), storage]
  return b''.join(parts)


KINDS = {'zip': zipped, 'legacy': legacy}


def read(data, **options):
  pathlib.Path('g.pth').write_bytes(data)
  return read_pth('g.pth', **options)


def refusal(data, **options):
  """The one-line message with which a file is not read."""
  pathlib.Path('g.pth').write_bytes(data)
  with AUDITOR, pytest.raises(WeightsError) as caught:
    read_pth('g.pth', **options)
  message = str(caught.value)
  assert message.startswith(('g.pth is damaged (', 'g.pth is refused, as it '))
  assert message.isprintable()
  assert len(message) < 400
  return message


def assert_same(got, expected):
  assert list(got) == list(expected)
  for name, array in expected.items():
    assert got[name].dtype == array.dtype
    assert got[name].shape == array.shape
    np.testing.assert_array_equal(got[name], array)


@pytest.mark.parametrize('kind', KINDS)
def test_a_good_file(kind):
  got = read(KINDS[kind]())
  assert_same(got, ARRAYS)
  for array in got.values():
    assert array.flags.writeable
    assert array.flags.owndata or array.base.flags.owndata


# Programs by hand.


def text(value):
  return b'X' + struct.pack('<I', len(value)) + value.encode()


def number(value):
  return b'\x8a\x08' + struct.pack('<q', value)


def numbers(*values):
  return b'(' + b''.join(map(number, values)) + b't'


def storage(key='0', kind='torch\nFloatStorage', size=12, more=b''):
  return (
    b'(' + text('storage') + b'c' + kind.encode() + b'\n' + text(key)
    + text('cpu') + number(size) + more + b'tQ'
  )  # fmt: skip


def tensor(offset=0, shape=(12,), strides=(1,), of=None):
  return (
    b'ctorch._utils\n_rebuild_tensor_v2\n(' + (of or storage())
    + number(offset) + numbers(*shape) + numbers(*strides) + b'\x89}tR'
  )  # fmt: skip


def alone(value):
  """A program for {'w': value}."""
  return b'\x80\x02}' + text('w') + value + b's.'


def test_dtypes():
  for name, dtype in {
    'Float': 'float32',
    'Double': 'float64',
    'Half': 'float16',
    'Long': 'int64',
    'Int': 'int32',
    'Short': 'int16',
    'Char': 'int8',
    'Byte': 'uint8',
    'Bool': 'bool',
  }.items():
    expected = np.array([1, 0, 1, 3, 0, 100]).astype(dtype)
    of = storage(kind=f'torch\n{name}Storage', size=6)
    program = alone(tensor(0, (6,), (1,), of))
    assert_same(read(zipped(program, [expected.tobytes()])), {'w': expected})


def test_bfloat16_becomes_float32():
  expected = np.array([1, -2.5, 3e38, np.inf], np.float32)
  expected.view(np.uint32)[:] &= 0xFFFF0000
  half = expected.view(np.uint16)[1::2].tobytes()
  of = storage(kind='torch\nBFloat16Storage', size=4)
  for shape, strides, want in (
    ((2, 2), (1, 2), expected.reshape(2, 2).T),
    ((), (), expected[0]),
  ):
    got = read(zipped(alone(tensor(0, shape, strides, of)), [half]))
    assert_same(got, {'w': np.asarray(want)})


@pytest.mark.parametrize(
  'view, expected',
  [
    ((0, (3, 4), (4, 1)), np.arange(12).reshape(3, 4)),
    ((0, (4, 3), (1, 4)), np.arange(12).reshape(3, 4).T),
    ((5, (2, 3), (3, 2)), [[5, 7, 9], [8, 10, 12]]),
    ((3, (), ()), 3),
    ((3, (2, 5), (0, 0)), np.full((2, 5), 3)),
    ((2, (1, 3), (10**15, 1)), [[2, 3, 4]]),
    ((0, (0, 3), (3, 1)), np.zeros((0, 3))),
    ((10**6, (0,), (1,)), np.zeros(0)),
  ],
)
def test_views(view, expected):
  values = np.arange(13, dtype=np.float32)
  program = alone(tensor(*view, of=storage(size=13)))
  got = read(zipped(program, [values.tobytes()]))
  assert_same(got, {'w': np.asarray(expected, np.float32)})


def test_names_are_joined_and_other_values_are_left_out():
  program = (
    b'\x80\x02}('
    + text('epoch') + b'K\x03'
    + text('lr') + b'G' + struct.pack('>d', 0.1)
    + text('none') + b'N'
    + text('model') + b'}' + text('w') + tensor() + b's'
    + text('both') + b'](' + tensor(1, (2,)) + tensor(2, (2,)) + b'\x86e'
    + b'K\x05' + b'ctorch._utils\n_rebuild_parameter\n'
    + tensor(3, (2,)) + b'\x88}\x87R'
    + text('bare') + storage()
    + b'u.'
  )  # fmt: skip
  got = read(zipped(program))
  assert {name: array.tolist()[:2] for name, array in got.items()} == {
    'model.w': [0, 1],
    'both.0.0': [1, 2],
    'both.0.1': [2, 3],
    '5': [3, 4],
  }
  assert list(read(zipped(b'\x80\x02' + tensor() + b'.'))) == ['']


def test_an_ordered_dict_of_python_2_and_a_view_of_an_old_storage():
  view = b'(' + text('v') + number(4) + number(3) + b't'
  of = storage(more=view)
  program = (
    b'\x80\x02ccollections\nOrderedDict\n](](U\x01w'
    + tensor(1, (2,), (1,), of)
    + b'ee\x85R}b.'
  )
  got = read(legacy(program, STORAGES[:1], '0', counts=[12]))
  assert_same(got, {'w': np.array([5, 6], np.float32)})
  beyond = program.replace(numbers(2), numbers(3))
  assert "'w' reaches beyond its storage" in refusal(
    legacy(beyond, STORAGES[:1], '0', counts=[12])
  )


# Attacks.


class Evil:
  """Calls a function wherever it is unpickled."""

  def __init__(self, function, *values):
    self.function, self.values = function, values

  def __reduce__(self):
    return self.function, self.values


def pickled(function, *values, protocol=2):
  return pickle.dumps({'w': Evil(function, *values)}, protocol)


def doubled(value, count, end):
  """A program that makes pairs of pairs of ... of a value."""
  pairs = b''.join(b'q%ch%c\x86' % (i, i) for i in range(count))
  return b'\x80\x02' + value + pairs + end


MARKER = 'executed'
MANY_BYTES = 'more than 2,147,483,648 bytes'
TOUCH = f'touch {MARKER}'
OPEN = f"open({MARKER!r}, 'w').close()"
ORDERED_DICT = b'ccollections\nOrderedDict\n'
REBUILD = b'ctorch._utils\n_rebuild_tensor_v2\n'
STATE = b'}' + text('offset') + b'K\x01s'  # of BUILD, which sets attributes
SLOTS = b'N}' + text('function') + b'K\x01s\x86'  # likewise
# Programs by what they try, with a part of the message.
ATTACKS = {
  # Calls.
  'os.system': (pickled(os.system, TOUCH), "'posix.system'"),
  'eval': (pickled(eval, OPEN), "'__builtin__.eval'"),
  'exec': (pickled(exec, OPEN), "'__builtin__.exec'"),
  'import': (pickled(builtins.__import__, 'antigravity'), "__import__'"),
  'getattr': (pickled(getattr, 'x', '__class__'), "'__builtin__.getattr'"),
  'open': (pickled(open, MARKER, 'w'), '.open'),
  # Python 2 called the module so.
  'subprocess': (pickled(subprocess.call, TOUCH, True), "'commands.call'"),
  'torch.load': (alone(b'ctorch\nload\n'), "'torch.load'"),
  'attribute': (alone(REBUILD[:-1] + b'.__globals__\n'), ".__globals__'"),
  'name split elsewhere': (alone(b'ctorch\n_utils._rebuild_tensor\n'), 'asks'),
  'control characters': (alone(b'cos\x1b[2J\nsystem\n'), r"'os\x1b[2J.system'"),
  'name not in ASCII': (alone(b'cos\xff\nsystem\n'), ''),
  'name with a backslash': (alone(b'cos\\z\nsystem\n'), ''),
  'name without an end': (alone(b'c' + b'o' * 10_000), ''),
  'storage type called': (alone(b'ctorch\nFloatStorage\n)R'), ''),
  'text called': (alone(text('os.system') + text(TOUCH) + b'\x85R'), ''),
  'call of a list': (alone(ORDERED_DICT + b']R'), ''),
  'many arguments': (alone(ORDERED_DICT + b'(' + b'N' * 99 + b'tR'), '99'),
  # Opcodes.
  'protocol 4': (pickled(os.system, TOUCH, protocol=4), 'pickle_protocol=4'),
  'protocol 0': (pickled(os.system, TOUCH, protocol=0), ' DICT,'),
  'STACK_GLOBAL': (
    alone(text('os') + text('system') + b'\x93' + text(TOUCH) + b'\x85R'),
    'STACK_GLOBAL',
  ),
  'INST': (alone(b'(' + text(TOUCH) + b'ios\nsystem\n'), ' INST,'),
  'OBJ': (alone(b'(' + ORDERED_DICT + b'o'), ' OBJ,'),
  'NEWOBJ': (alone(ORDERED_DICT + b')\x81'), 'NEWOBJ'),
  'EXT1': (alone(b'\x82\x01'), 'EXT1'),
  'EXT2': (alone(b'\x83\x01\x00'), 'EXT2'),
  'EXT4': (alone(b'\x84\x01\x00\x00\x00'), 'EXT4'),
  'PERSID': (alone(b'P0\n'), ' PERSID,'),
  'FRAME': (alone(b'\x95' + b'\xff' * 8), 'FRAME'),
  'DUP': (alone(b'N2'), ' DUP,'),
  'unknown opcode': (alone(b'\xff'), ''),
  # State, by which a program could change checked values and functions.
  'state of a tensor': (alone(tensor() + STATE + b'b'), 'AttributeError'),
  'slots of a tensor': (alone(tensor() + SLOTS + b'b'), 'AttributeError'),
  'state of a storage': (alone(storage() + STATE + b'b'), 'AttributeError'),
  'state of a function': (alone(REBUILD + STATE + b'b'), 'AttributeError'),
  'slots of a function': (alone(REBUILD + SLOTS + b'b'), 'AttributeError'),
  'state of a list': (alone(b']' + STATE + b'b'), 'AttributeError'),
  'append to a dict': (alone(ORDERED_DICT + b')RNa'), 'AttributeError'),
  # Sizes.
  'text of 4 GB': (alone(b'X\xff\xff\xff\xff'), ''),
  'bytes of 2**63': (alone(b'\x8e' + b'\xff' * 7 + b'\x7f'), ''),
  'integer of 255 bytes': (alone(b'\x8a\xff' + b'\x7f' * 255), '63 bits'),
  'LONG4': (alone(b'\x8b\xff\xff\xff\x7f'), ''),
  'memo index of 2**32': (alone(b'Nr\xff\xff\xff\xff'), '4,294,967,295'),
  'memo index of 255': (b'\x80\x02Nq\xff.', '255'),
  'stride of zero': (alone(tensor(0, (2**20, 2**16), (0, 0))), MANY_BYTES),
  'many strides of zero': (
    b'\x80\x02](' + tensor(0, (2**27,), (0,)) * 5 + b'e.',
    MANY_BYTES,
  ),
  'storage of 2**62': (alone(tensor(0, (1,), of=storage(size=2**62))), ''),
  'shape beyond 64 bits': (
    alone(tensor(0, (2**62, 2**62, 0), (1, 1, 1))),
    "'(4611686018427387904, 4611686018427387904, 0)'",
  ),
  'many dimensions': (alone(tensor(0, (1,) * 17, (1,) * 17)), '17 dimensions'),
  'few strides': (alone(tensor(0, (1, 1), (1,))), ''),
  'view beyond the storage': (alone(tensor(1, (12,), (1,))), "'w'"),
  'offset before the storage': (alone(tensor(-1, (2,), (1,))), 'negative'),
  'negative stride': (alone(tensor(11, (12,), (-1,))), 'negative'),
  'negative size': (alone(tensor(0, (-1,), (1,))), 'negative'),
  'negative storage': (alone(tensor(of=storage(size=-5))), "storage '0'"),
  'storage in two ways': (
    b'\x80\x02](' + tensor() + tensor(of=storage(size=13)) + b'e.',
    "storage '0' has two descriptions",
  ),
  'list in itself': (b'\x80\x02]q\x00h\x00a.', 'deeper'),
  'list twice in each next': (doubled(b')', 30, b'.'), '100,000 entries'),
  # The hash of pairs of pairs of ... takes forever.
  'key': (b'\x80\x02}' + doubled(b')', 100, b'Ns.')[2:], 'of type tuple'),
  'second key': (
    b'\x80\x02}(' + text('w') + b'N' + doubled(b')', 100, b'Nu.')[2:],
    'of type tuple',
  ),
  'noted key': (
    doubled(b')', 100, b'r\x90\x00\x00\x00}j\x90\x00\x00\x00Ns.'),
    'of type tuple',
  ),
  'key of an OrderedDict': (
    b'\x80\x02' + ORDERED_DICT + b']' + doubled(b')', 100, b'N\x86a\x85R.')[2:],
    'a tuple in place of a str',
  ),
  'storage key': (  # as its text would
    b'\x80\x02(' + text('storage') + b'ctorch\nFloatStorage\n'
    + doubled(b']', 100, b'')[2:] + text('cpu') + number(12) + b'tQ.',
    'a tuple in place of a str',
  ),
  'endless program': (b'\x80\x02' + b'N' * 21_000 + b'.', '20,000 steps'),
  'OrderedDict of many, again and again': (
    b'\x80\x02](' + b'U\x01kN\x86' * 1000
    + b'eq\x00' + (ORDERED_DICT + b'h\x00\x85R') * 100 + b'.',
    '20,000 steps',
  ),
  'long name': (
    b'\x80\x02' + (b'}' + text('k' * 100)) * 8 + tensor() + b's' * 8 + b'.',
    '512 characters',
  ),
  'one name twice': (
    b'\x80\x02}(' + text('a') + b'}' + text('b') + tensor() + b's'
    + text('a.b') + tensor() + b'u.',
    "'a.b'",
  ),
  # Types.
  'storage of no type': (
    alone(tensor(of=storage(kind='collections\nOrderedDict'))),
    '_Function',
  ),
  'storage of few parts': (alone(text('storage') + b'\x85Q'), ''),
  'other storage': (alone(storage().replace(b'storage', b'module!')), ''),
  'text for a storage': (alone(text('0') + b'Q'), 'str'),
  'tensor of a text': (alone(tensor(of=text('storage'))), 'str'),
  'true for a number': (
    alone(tensor().replace(numbers(12), b'\x88\x85')),
    'bool',
  ),
  'list for a shape': (alone(tensor().replace(numbers(12), b']')), 'list'),
  # Broken programs.
  'empty stack': (b'\x80\x02s.', ''),
  'beyond a mark': (b'\x80\x02}(s.', ''),
  'no mark': (b'\x80\x02}u.', ''),
  'half a pair': (b'\x80\x02}(' + text('w') + b'u.', ''),
  'no memo': (b'\x80\x02h\x07.', ''),
  'text not in UTF-8': (b'\x80\x02X\x01\x00\x00\x00\xff.', ''),
  'too much left': (b'\x80\x02NN.', ''),
  'mark left': (b'\x80\x02(N.', ''),
  'no tensors': (b'\x80\x02}.', 'holds no tensors'),
}  # fmt: skip


def contained(kind, program):
  """A file of the program, and of the one storage that it may name."""
  if kind == 'zip':
    return zipped(program)
  known = b'FloatStorage' in program
  return legacy(program, STORAGES[:known], '0' * known, counts=[12][:known])


@pytest.mark.parametrize('name', ATTACKS)
def test_attacks_are_refused(name, monkeypatch):
  monkeypatch.setattr(torch_pickle, 'MAX_OPCODES', 20_000)
  program, part = ATTACKS[name]
  for kind in KINDS:
    assert part in refusal(contained(kind, program))
    assert not pathlib.Path(MARKER).exists()
  # Nothing that a program did lasts.
  assert_same(read(zipped()), ARRAYS)


def test_attributes_do_not_hide_methods_of_a_dict():
  state = b'}' + text('items') + b'K\x01s'
  program = b'\x80\x02' + ORDERED_DICT + b')R' + state + b'b'
  program += text('w') + tensor() + b's.'
  assert list(read(zipped(program))) == ['w']


def test_the_auditor_sees_the_attacks():
  """The attacks work: Python's own unpickler carries them out."""
  program, _ = ATTACKS['os.system']
  with pytest.raises(AssertionError, match=r'os\.system'), AUDITOR:
    pickle.loads(program)
  assert pathlib.Path(MARKER).exists()


@pytest.mark.parametrize(
  'program',
  [b']' * 10**5 + b'a' * (10**5 - 1), b')' + b'\x85' * 10**5],
  ids=['lists', 'tuples'],
)
def test_deep_nesting_is_refused_in_time(program):
  began = time.process_time()
  assert 'deeper' in refusal(zipped(b'\x80\x02' + program + b'.'))
  assert time.process_time() - began < 10


def test_bombs_take_no_memory(monkeypatch):
  programs = [
    ATTACKS[name][0]
    for name in (
      'text of 4 GB',
      'bytes of 2**63',
      'memo index of 2**32',
      'stride of zero',
      'many strides of zero',
      'storage of 2**62',
    )
  ]
  files = [contained(kind, each) for each in programs for kind in KINDS]
  monkeypatch.setattr(torch_container, 'MAX_DIRECTORY_BYTES', 1000)
  for data in [*files, zipped(**{f'data/{i}': b'' for i in range(100)})]:
    tracemalloc.start()
    refusal(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6


def test_max_bytes():
  assert_same(read(zipped(), max_bytes=12 * 4 + 2 * 8 + 8), ARRAYS)
  assert 'more than 71 bytes' in refusal(zipped(), max_bytes=71)
  # A small part of a storage that is too large to be read.
  assert 'more than 40 bytes' in refusal(
    zipped(alone(tensor(0, (1,)))), max_bytes=40
  )


# Containers.


def renamed(data, old, new):
  assert data.count(old) == 2  # in its header and in the directory
  return data.replace(old, new)


def compressed():
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('g/data.pkl', PROGRAM)
    archive.writestr('g/data/0', bytes(1_000_000))
  return buffer.getvalue()


def entry_changed(place, value, member=b'g/data/0'):
  """A good file, with bytes of a directory entry's 46 replaced."""
  data = bytearray(zipped())
  at = data.rindex(member) - 46 + place
  data[at : at + len(value)] = value
  return bytes(data)


def end_changed(place, value):
  data = bytearray(zipped())
  at = len(data) - 22 + place
  data[at : at + len(value)] = value
  return bytes(data)


def word(value):
  return struct.pack('<I', value)


def with_wide_end(data, **changes):
  """A file with the 64-bit end that torch writes before the other one."""
  *_, size, start, _ = struct.unpack('<4s4H2LH', data[-22:])
  values = {'count': 6, 'size': size, 'start': start} | changes
  end = struct.pack(
    '<4sQ2H2L4Q',
    *(b'PK\x06\x06', 44, 45, 45, 0, 0, values['count'], values['count']),
    *(values['size'], values['start']),
  )
  locator = struct.pack('<4sLQL', b'PK\x06\x07', 0, len(data) - 22, 1)
  return data[:-22] + end + locator + data[-22:]


def with_name(new, root='gg'):
  return renamed(zipped(root=root), f'{root}/data/1'.encode(), new)


BYTES_0, *OTHERS = STORAGES
ZIPS = {
  'name twice': with_name(b'g/data/0', 'g'),
  'absolute name': with_name(b'/g/data/1'),
  'name that climbs': with_name(b'../data/1'),
  'drive': with_name(b'C:/data/1'),
  'backslash': with_name(b'gg\\data\\1'),
  'zero byte': with_name(b'gg/data/\0'),
  'two folders': with_name(b'hh/data/1'),
  'compressed bomb': compressed(),
  'compressed size of its own': entry_changed(24, word(2**31)),
  'absurd size': entry_changed(20, word(2**31) * 2),
  'encrypted': entry_changed(8, b'\x01\x00'),
  'strongly encrypted': entry_changed(8, b'\x40\x00'),
  'header of another size': entry_changed(20, word(44) * 2),
  'other checksum in the directory': entry_changed(16, word(1)),
  'header of another member': entry_changed(42, word(0)),
  'no header there': entry_changed(42, word(zipped().index(b'g/data/0') + 2)),
  'header beyond the end': entry_changed(42, word(2**31)),
  'more members than there are': end_changed(8, b'\x07\x00\x07\x00'),
  'fewer members than there are': end_changed(8, b'\x05\x00\x05\x00'),
  'directory elsewhere': end_changed(16, word(0)),
  'directory too long': end_changed(12, word(2**31)),
  'comment': end_changed(20, b'\x04\x00') + b'abcd',
  'comment with an end': end_changed(20, b'\x04\x00') + b'PK\x05\x06',
  'bytes behind the end': zipped() + b'abcd',
  'several disks': end_changed(4, b'\x01\x00'),
  'wide size': with_wide_end(zipped(), size=3),
  'absurd wide size': with_wide_end(zipped(), size=2**60),
  'wide start': with_wide_end(zipped(), start=3),
  'absurd wide start': with_wide_end(zipped(), start=2**63),
  'TorchScript': zipped(**{'constants.pkl': b'x'}),
  'big numbers first': zipped(byteorder=b'big'),
  'no program': renamed(zipped(), b'data.pkl', b'data.pkI'),
  'program that continues': zipped(PROGRAM + b'.'),
  'storage missing': zipped(storages=STORAGES[:2]),
  'storage too short': zipped(storages=[BYTES_0[:-1], *OTHERS]),
  'storage too long': zipped(storages=[BYTES_0 + b'x', *OTHERS]),
  'storage of other bits': zipped().replace(STORAGES[1], bytes(16)),
  'program of other bits': zipped().replace(b'a.weight', b'b.weight'),
  'cut short': zipped()[:-1],
  'end alone': b'PK\x03\x04' + zipped()[-22:],
  'four bytes': b'PK\x03\x04',
}


@pytest.mark.parametrize('name', ZIPS)
def test_zip_tricks(name):
  refusal(ZIPS[name])


def test_messages_name_the_member_or_storage():
  for name, part in (
    ('compressed bomb', "compressed member 'g/data.pkl'"),
    ('encrypted', "'g/data/0'"),
    ('header of another member', "'g/data/0'"),
    ('storage of other bits', "'g/data/1'"),
    ('storage missing', "storage '2' is missing"),
    ('storage too short', "storage '0' has 47 bytes instead of 48"),
  ):
    assert part in refusal(ZIPS[name])


def test_wide_ends_of_zip_files_are_read():
  assert_same(read(with_wide_end(zipped())), ARRAYS)


ENDLESS = alone(tensor(of=storage(size=2**62)))
LEGACY = {
  'another version': legacy().replace(b'M\xe9\x03', b'M\xea\x03'),
  'big numbers first': legacy(system=SYSTEM | {'little_endian': False}),
  'storage too many': legacy(
    keys='0129', storages=[*STORAGES, b''], counts=[12, 2, 1, 0]
  ),
  'storage twice': legacy(keys='010'),
  'storage missing': legacy(keys='01', storages=STORAGES[:2], counts=[12, 2]),
  'storage of another size': legacy(counts=[-1, 2, 1]),
  'storage cut short': legacy()[:-1],
  'storage without an end': legacy(ENDLESS, [b''], '0', counts=[2**62]),
  'bytes behind the end': legacy() + b'PK\x03\x04',
  'no list of storages': legacy().replace(
    pickle.dumps(['0', '1', '2'], 2), pickle.dumps({'0': 1}, 2)
  ),
  'program cut short': legacy()[: legacy().index(b'a.bias')],
}


@pytest.mark.parametrize('name', LEGACY)
def test_older_files(name):
  refusal(LEGACY[name])


def test_other_files():
  for data in (b'', b'\x80\x02}.', b'\x89PNG\r\n'):
    assert 'does not begin as files of torch.save do' in refusal(data)
  tar = bytes(257) + b'ustar' + bytes(300)
  assert 'before 0.1.10' in refusal(tar)


def test_paths_that_are_no_files(folder):
  os.mkfifo('pipe')
  for name in ('none.pth', '.', 'pipe'):
    with pytest.raises(WeightsError, match=rf'^{name} cannot be read \('):
      read_pth(name)


def test_a_flipped_bit_changes_nothing_or_is_refused():
  """One bit of every seventh byte; tests/fuzz flips all of them."""
  whole = zipped()
  num_read = 0
  for at in range(0, len(whole), 7):
    damaged = bytearray(whole)
    damaged[at] ^= 1 << at % 8
    pathlib.Path('g.pth').write_bytes(damaged)
    try:
      assert_same(read_pth('g.pth'), ARRAYS)
      num_read += 1
    except WeightsError:
      pass
  assert 5 < num_read < len(whole) / 14  # dates and rights of members


# Writing.


def test_written_files_are_read(folder):
  arrays = ARRAYS | {
    'half': np.ones((2, 1, 3), np.float16),
    'transposed': np.arange(6.0).reshape(2, 3).T,
    'big': np.arange(3, dtype='>f4'),
    'bool': np.array([True, False]),
    'empty': np.zeros((0, 4), np.int8),
    'scalar': np.float32(3),
    'größe': np.uint8([1]),
    'long' * 100: np.int16([1]),
  }
  write_pth('new.pth', arrays)
  got = read_pth('new.pth')
  assert_same(
    got, {k: np.asarray(v).astype(got[k].dtype) for k, v in arrays.items()}
  )
  assert [path.name for path in folder.iterdir()] == ['new.pth']
  first = pathlib.Path('new.pth').read_bytes()
  write_pth('new.pth', arrays)  # over it
  assert pathlib.Path('new.pth').read_bytes() == first


def test_dtypes_that_torch_does_not_have_are_not_written(folder):
  with pytest.raises(ValueError, match='w is of uint32'):
    write_pth('new.pth', {'w': np.zeros(2, np.uint32)})
  with pytest.raises(FileNotFoundError):
    write_pth('none/new.pth', ARRAYS)
  assert not list(folder.iterdir())


def test_sizes_of_more_than_31_bits_are_written():
  program = dump_program({'w': ((2**17, 2**16), 'uint8')})
  assert 'more than 2,147,483,648 bytes' in refusal(zipped(program, [b'']))


@pytest.mark.torch
@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_files_of_torch_itself(zipped):
  torch = pytest.importorskip('torch')
  x = torch.arange(24.0).reshape(2, 3, 4)
  tensors = {
    'plain': x,
    'permuted': x.permute(2, 0, 1),
    'part': x[1, 1:, ::2],
    'expanded': torch.ones(1).expand(5, 6),
    'empty': x[:0],
    'scalar': torch.tensor(3.0),
    'bool': torch.tensor(True),
    'half': x.half(),
    'bfloat16': x.bfloat16(),
    'parameter': torch.nn.Parameter(x),
    'int': x.int(),
  }
  layer = torch.nn.Linear(2, 3)
  optimizer = torch.optim.Adam(
    [{'params': [layer.weight]}, {'params': [layer.bias]}]
  )
  layer(torch.ones(1, 2)).sum().backward()
  optimizer.step()
  values = {'inner': tensors, 'epoch': 3, 'name': 'x', 'lr': [0.1, None]}
  values |= {'layer': layer.state_dict(), 'optimizer': optimizer.state_dict()}
  torch.save(values, 'g.pth', _use_new_zipfile_serialization=zipped)
  got = read_pth('g.pth')
  assert [name for name in got if name.startswith('inner')] == [
    f'inner.{name}' for name in tensors
  ]
  assert 'optimizer.state.0.exp_avg' in got
  for name, value in tensors.items():
    value = value.detach()
    if name == 'bfloat16':
      value = value.float()
    array = got[f'inner.{name}']
    assert array.dtype == value.numpy().dtype
    assert type(array) is np.ndarray
    np.testing.assert_array_equal(array, value.numpy())


@pytest.mark.torch
def test_torch_reads_written_files():
  torch = pytest.importorskip('torch')
  arrays = ARRAYS | {'größe': np.float16([[1]]), 'empty': np.zeros((0, 4))}
  write_pth('new.pth', arrays)
  loaded = torch.load('new.pth', weights_only=True)
  assert_same({k: v.numpy() for k, v in loaded.items()}, arrays)
  assert type(loaded).__name__ == 'OrderedDict'
