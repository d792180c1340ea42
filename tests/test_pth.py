"""Files of torch.save: good ones are read, and attacks are not carried out."""

import ast
import builtins
import io
import json
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclegan_jax.errors import WeightsError
from cyclegan_jax.interop import pickle_machine, pth
from cyclegan_jax.interop.pickle_writer import write_program
from cyclegan_jax.interop.pth import read_pth, write_pth

ROOT = pathlib.Path(pth.__file__).parent.parent.parent
DAMAGED = 'g.pth is damaged ({}): get it from its source again'
REFUSED = (
  'g.pth is refused, as it {}: if you trust its source, load it there and '
  'save the state_dict() alone'
)
ARRAYS = {
  'a.weight': np.arange(12, dtype=np.float32).reshape(3, 4),
  'a.bias': np.array([1.5, -2], np.float64),
  'count': np.array(7),
}
PROGRAM = write_program(
  {name: (each.shape, each.dtype.name) for name, each in ARRAYS.items()}
)
STORAGES = [each.tobytes() for each in ARRAYS.values()]
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
SYSTEM = {
  'protocol_version': 1001,
  'little_endian': True,
  'type_sizes': {'short': 2, 'int': 4, 'long': 4},
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
  """Messages name the file as it was given: 'g.pth'."""
  monkeypatch.chdir(tmp_path)
  return tmp_path


def zipped(program=PROGRAM, storages=STORAGES, root='g', **others):
  members = {'data.pkl': program, 'byteorder': b'little', 'version': b'3\n'}
  members |= {f'data/{i}': each for i, each in enumerate(storages)}
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
  for count, each in zip(counts, storages, strict=True):
    parts += [struct.pack('<q', count), each]
  return b''.join(parts)


KINDS = {'zip': zipped, 'legacy': legacy}


def read(data, **options):
  pathlib.Path('g.pth').write_bytes(data)
  return read_pth('g.pth', **options)


def message_of(data, **options):
  with pytest.raises(WeightsError) as caught:
    read(data, **options)
  message = str(caught.value)
  assert len(message.splitlines()) == 1
  assert message.isprintable()
  assert len(message) < 400
  return message


def assert_same(got, expected):
  assert list(got) == list(expected)
  for name, each in expected.items():
    assert got[name].dtype == each.dtype
    assert got[name].shape == each.shape
    np.testing.assert_array_equal(got[name], each)


@pytest.mark.parametrize('kind', KINDS)
def test_a_good_file(kind):
  got = read(KINDS[kind]())
  assert_same(got, ARRAYS)
  for each in got.values():
    assert each.flags.writeable
    assert each.flags.owndata or each.base.flags.owndata


# Programs by hand.


def text(value):
  return b'X' + struct.pack('<I', len(value)) + value.encode()


def number(value):
  return b'\x8a\x08' + struct.pack('<q', value)


def numbers(*values):
  return b'(' + b''.join(number(each) for each in values) + b't'


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


DTYPES = {
  'Float': np.arange(6, dtype=np.float32),
  'Double': np.arange(6, dtype=np.float64),
  'Half': np.arange(6, dtype=np.float16),
  'Long': -np.arange(6, dtype=np.int64),
  'Int': -np.arange(6, dtype=np.int32),
  'Short': -np.arange(6, dtype=np.int16),
  'Char': -np.arange(6, dtype=np.int8),
  'Byte': np.arange(6, dtype=np.uint8),
  'Bool': np.array([True, False, True, True, False, False]),
}


@pytest.mark.parametrize('name', DTYPES)
def test_dtypes(name):
  expected = DTYPES[name]
  of = storage(kind=f'torch\n{name}Storage', size=6)
  program = alone(tensor(0, (6,), (1,), of))
  assert_same(read(zipped(program, [expected.tobytes()])), {'w': expected})


def test_bfloat16_becomes_float32():
  expected = np.array([1, -2.5, 3e38, np.inf], np.float32)
  expected.view(np.uint32)[:] &= 0xFFFF0000
  half = expected.view(np.uint16)[1::2].tobytes()
  of = storage(kind='torch\nBFloat16Storage', size=4)
  for shape, strides, want in (
    ((4,), (1,), expected),
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
  numbers = np.arange(13, dtype=np.float32)
  program = alone(tensor(*view, of=storage(size=13)))
  got = read(zipped(program, [numbers.tobytes()]))
  assert_same(got, {'w': np.asarray(expected, np.float32)})


def test_nested_names_and_what_is_no_tensor():
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
  assert {name: each.tolist()[:2] for name, each in got.items()} == {
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
  assert message_of(legacy(beyond, STORAGES[:1], '0', counts=[12])) == (
    DAMAGED.format("'w' reaches beyond its storage")
  )


# Attacks.


class Evil:
  """Runs a command wherever it is unpickled."""

  def __init__(self, function, *values):
    self.function, self.values = function, values

  def __reduce__(self):
    return self.function, self.values


def pickled(function, *values, protocol=2):
  return pickle.dumps({'w': Evil(function, *values)}, protocol)


def asks_for(name):
  return REFUSED.format(f"asks for '{name}', which no weights need")


def opcode(code):
  return REFUSED.format(
    f'uses opcode 0x{code}, which torch.save does not write'
  )


MARKER = 'executed'
TOUCH = f'touch {MARKER}'
OPEN = f"open({MARKER!r}, 'w').close()"
ATTACKS = {
  'os.system': (pickled(os.system, TOUCH), asks_for('posix.system')),
  'eval': (pickled(eval, OPEN), asks_for('__builtin__.eval')),
  'exec': (pickled(exec, OPEN), asks_for('__builtin__.exec')),
  'import': (
    pickled(builtins.__import__, 'antigravity'),
    asks_for('__builtin__.__import__'),
  ),
  'getattr': (
    pickled(getattr, 'text', '__class__'),
    asks_for('__builtin__.getattr'),
  ),
  'open': (pickled(open, MARKER, 'w'), asks_for(f'{open.__module__}.open')),
  'subprocess': (
    pickled(subprocess.call, TOUCH, True),
    asks_for('commands.call'),  # as Python 2 called the module
  ),
  'the name of a name': (
    alone(b'ctorch._utils\n_rebuild_tensor_v2.__globals__\n'),
    asks_for('torch._utils._rebuild_tensor_v2.__globals__'),
  ),
  'a name cut elsewhere': (
    alone(b'ctorch\n_utils._rebuild_tensor_v2\n'),
    asks_for('torch._utils._rebuild_tensor_v2'),
  ),
  'torch.load': (alone(b'ctorch\nload\n'), asks_for('torch.load')),
  'a name of control characters': (
    alone(b'cos\x1b[2J\nsystem\n'),
    asks_for(r'os\x1b[2J.system'),
  ),
  'a name without an end': (
    alone(b'c' + b'o' * 10_000),
    DAMAGED.format('its program has a name without an end'),
  ),
  'protocol 4 and STACK_GLOBAL': (
    pickled(os.system, TOUCH, protocol=4),
    REFUSED.format(
      'was saved with pickle_protocol=4, and 2 is what is read'
    ),
  ),
  'STACK_GLOBAL in protocol 2': (
    alone(text('os') + text('system') + b'\x93' + text(TOUCH) + b'\x85R'),
    opcode('93'),
  ),
  'protocol 0': (pickled(os.system, TOUCH, protocol=0), opcode('64')),
  'INST': (
    alone(b'(' + text(TOUCH) + b'ios\nsystem\n'),
    opcode('69'),
  ),
  'OBJ': (alone(b'(cos\nsystem\n' + text(TOUCH) + b'o'), asks_for('os.system')),
  'OBJ of what is known': (
    alone(b'(ccollections\nOrderedDict\no'),
    opcode('6f'),
  ),
  'NEWOBJ': (alone(b'ccollections\nOrderedDict\n)\x81'), opcode('81')),
  'EXT1': (alone(b'\x82\x01'), opcode('82')),
  'EXT2': (alone(b'\x83\x01\x00'), opcode('83')),
  'EXT4': (alone(b'\x84\x01\x00\x00\x00'), opcode('84')),
  'PERSID': (alone(b'P0\n'), opcode('50')),
  'FRAME': (alone(b'\x95' + b'\xff' * 8), opcode('95')),
  'BUILD of a tensor': (
    alone(tensor() + b'}b'),
    DAMAGED.format('its program has a Tensor where a dict belongs'),
  ),
  'BUILD of a symbol': (
    alone(b'ccollections\nOrderedDict\n}' + text('x') + b'K\x01sb'),
    DAMAGED.format('its program has a Symbol where a dict belongs'),
  ),
  'REDUCE of a storage type': (
    alone(b'ctorch\nFloatStorage\n)R'),
    REFUSED.format('calls torch.FloatStorage'),
  ),
  'REDUCE of a text': (
    alone(text('os.system') + text(TOUCH) + b'\x85R'),
    DAMAGED.format('its program has a str where a Symbol belongs'),
  ),
  # Too much.
  'a text of 4 GB': (
    alone(b'X\xff\xff\xff\xff'),
    REFUSED.format('has a text of 4,294,967,295 bytes, more than 1,048,576'),
  ),
  'a number of 255 bytes': (
    alone(b'\x8a\xff' + b'\x7f' * 255),
    REFUSED.format('has a number of 255 bytes'),
  ),
  'LONG4': (alone(b'\x8b\xff\xff\xff\x7f'), opcode('8b')),
  'a stride of zero': (
    alone(tensor(0, (2**20, 2**16), (0, 0))),
    REFUSED.format('has tensors of more than 2,147,483,648 bytes'),
  ),
  'many strides of zero': (
    b'\x80\x02](' + tensor(0, (2**27,), (0,)) * 5 + b'e.',
    REFUSED.format('has tensors of more than 2,147,483,648 bytes'),
  ),
  'a shape beyond 64 bits': (
    alone(tensor(0, (2**62, 2**62, 0), (1, 1, 1))),
    REFUSED.format(
      "has a tensor 'w' of shape (4611686018427387904, 4611686018427387904, 0)"
    ),
  ),
  'many dimensions': (
    alone(tensor(0, (1,) * 17, (1,) * 17)),
    DAMAGED.format('a tensor has 17 dimensions and 17 strides'),
  ),
  'few strides': (
    alone(tensor(0, (1, 1), (1,))),
    DAMAGED.format('a tensor has 2 dimensions and 1 strides'),
  ),
  'a view beyond the storage': (
    alone(tensor(1, (12,), (1,))),
    DAMAGED.format("'w' reaches beyond its storage"),
  ),
  'an offset before the storage': (
    alone(tensor(-1, (2,), (1,))),
    DAMAGED.format("'w' reaches beyond its storage"),
  ),
  'a negative stride': (
    alone(tensor(11, (12,), (-1,))),
    DAMAGED.format('a tensor has a negative size or stride'),
  ),
  'a negative size': (
    alone(tensor(0, (-1,), (1,))),
    DAMAGED.format('a tensor has a negative size or stride'),
  ),
  'a storage of negative size': (
    alone(tensor(of=storage(size=-5))),
    DAMAGED.format("storage '0' has a part outside of it"),
  ),
  'one storage in two ways': (
    b'\x80\x02](' + tensor() + tensor(of=storage(size=13)) + b'e.',
    DAMAGED.format("storage '0' is described in two ways"),
  ),
  'a storage that is no type': (
    alone(tensor(of=storage(kind='collections\nOrderedDict'))),
    DAMAGED.format('a storage has a type that is none'),
  ),
  'true for a number': (
    alone(tensor(0, (12,), (1,)).replace(numbers(12), b'\x88\x85')),
    DAMAGED.format('its program has a bool where a int belongs'),
  ),
  'deep nesting': (
    b'\x80\x02' + b']' * 1000 + b'a' * 999 + b'.',
    REFUSED.format('has more than 100,000 entries, or deeper than 32'),
  ),
  'a list in itself': (
    b'\x80\x02]q\x00h\x00a.',
    REFUSED.format('has more than 100,000 entries, or deeper than 32'),
  ),
  'a list twice in each next': (
    b'\x80\x02)' + b''.join(b'q%ch%c\x86' % (i, i) for i in range(30)) + b'.',
    REFUSED.format('has more than 100,000 entries, or deeper than 32'),
  ),
  'a key that takes for ever to hash': (
    b'\x80\x02})'
    + b''.join(b'q%ch%c\x86' % (i, i) for i in range(100))
    + b'Ns.',
    DAMAGED.format('its program has a tuple where a str belongs'),
  ),
  'an endless program': (
    b'\x80\x02' + b'N' * 21_000 + b'.',
    REFUSED.format('has a program of more than 20,000 steps'),
  ),
  'an OrderedDict of many, again and again': (
    b'\x80\x02](' + b'U\x01kN\x86' * 1000
    + b'eq\x00'
    + b'ccollections\nOrderedDict\nh\x00\x85R' * 100
    + b'.',
    REFUSED.format('has a program of more than 20,000 steps'),
  ),
  'much memo': (
    b'\x80\x02N' + b'r\xff\xff\xff\xff' * 21_000 + b'.',
    REFUSED.format('has a program of more than 20,000 steps'),
  ),
  'a long name': (
    b'\x80\x02' + (b'}' + text('k' * 100)) * 8 + tensor() + b's' * 8 + b'.',
    REFUSED.format('has a name of more than 512 characters'),
  ),
  'one name twice': (
    b'\x80\x02}(' + text('a') + b'}' + text('b') + tensor() + b's'
    + text('a.b') + tensor() + b'u.',
    REFUSED.format("has two tensors of the name 'a.b'"),
  ),
  # Broken.
  'an empty stack': (
    b'\x80\x02s.',
    DAMAGED.format('its program takes from an empty stack'),
  ),
  'beyond a mark': (
    b'\x80\x02}(s.',
    DAMAGED.format('its program takes from an empty stack'),
  ),
  'no mark': (b'\x80\x02}u.', DAMAGED.format('its program misses a mark')),
  'no value': (
    b'\x80\x02}(Nu.',
    DAMAGED.format('its program has a key without a value'),
  ),
  'no memo': (
    b'\x80\x02h\x07.',
    DAMAGED.format('its program recalls what it never noted'),
  ),
  'no UTF-8': (
    b'\x80\x02X\x01\x00\x00\x00\xff.',
    DAMAGED.format('a text of its program is not UTF-8'),
  ),
  'too much left': (
    b'\x80\x02NN.',
    DAMAGED.format('its program ends half-way'),
  ),
  'no tensors': (b'\x80\x02}.', REFUSED.format('holds no tensors')),
}  # fmt: skip


def contained(kind, program):
  """A file of the program, and of the one storage that it may name."""
  if kind == 'zip':
    return zipped(program)
  known = b'FloatStorage' in program
  return legacy(program, STORAGES[:known], '0' * known, counts=[12][:known])


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', ATTACKS)
def test_attacks_are_refused(name, kind, monkeypatch):
  monkeypatch.setattr(pickle_machine, 'MAX_OPCODES', 20_000)
  program, expected = ATTACKS[name]
  assert message_of(contained(kind, program)) == expected
  assert not pathlib.Path(MARKER).exists()


# A hook that can't be taken away: it notes whatever could be an execution.
AUDITED = """
import json, pathlib, sys
sys.path.insert(0, sys.argv[1])
from cyclegan_jax.errors import WeightsError
from cyclegan_jax.interop.pth import read_pth

names = json.loads(sys.argv[2])
read_pth(names[0])  # whatever is imported late is there by now
watched, events = False, []

def hook(event, args):
  if watched and event not in ('open', 'object.__getattr__'):
    events.append([event, str(args)])
  if watched and event == 'open' and args[1] not in (None, 'r', 'rb'):
    events.append([event, str(args)])

sys.addaudithook(hook)
refused = 0
for name in names:
  watched = True
  try:
    read_pth(name)
  except WeightsError:
    refused += 1
  watched = False
print(json.dumps([refused, events]))

watched = True
import pickle
try:
  pickle.loads(pathlib.Path(sys.argv[3]).read_bytes())
finally:
  watched = False
  assert any(event == 'os.system' for event, _ in events), 'the hook is at work'
"""


def test_nothing_is_executed(folder):
  names = ['good.pth']
  pathlib.Path('good.pth').write_bytes(zipped())
  for place, (program, _) in enumerate(ATTACKS.values()):
    for kind in KINDS:
      name = f'{place}.{kind}.pth'
      pathlib.Path(name).write_bytes(contained(kind, program))
      names.append(name)
  pathlib.Path('attack').write_bytes(ATTACKS['os.system'][0])
  done = subprocess.run(
    [sys.executable, '-c', AUDITED, ROOT, json.dumps(names), 'attack'],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  refused, events = json.loads(done.stdout)
  assert refused == 2 * len(ATTACKS)
  assert events == []
  # The attack itself is no dud: Python's own reader has carried it out.
  assert pathlib.Path(MARKER).exists()


def test_nesting_as_deep_as_a_program_can_make_it():
  program = b'\x80\x02' + b']' * 400_000 + b'a' * 399_999 + b'.'
  assert message_of(zipped(program)) == ATTACKS['deep nesting'][1]


def test_bombs_take_no_memory():
  for name in (
    'a text of 4 GB',
    'a stride of zero',
    'many strides of zero',
    'a list twice in each next',
  ):
    data = zipped(ATTACKS[name][0])
    tracemalloc.start()
    message_of(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6, name


def test_max_bytes():
  assert_same(read(zipped(), max_bytes=12 * 4 + 2 * 8 + 8), ARRAYS)
  assert message_of(zipped(), max_bytes=71) == REFUSED.format(
    'has tensors of more than 71 bytes'
  )
  # A small part of a storage that is too large to be read.
  assert message_of(zipped(alone(tensor(0, (1,)))), max_bytes=40) == (
    REFUSED.format('has tensors of more than 40 bytes')
  )


# Containers.


def renamed(data, old, new):
  assert data.count(old) == 2  # its header's and the directory's
  return data.replace(old, new)


def compressed():
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('g/data.pkl', PROGRAM)
    archive.writestr('g/data/0', bytes(10_000_000))
  return buffer.getvalue()


def entry_changed(place, value, member=b'g/data/0'):
  """A good file, with 4 bytes of a directory entry's 46 replaced."""
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


ZIPS = {
  'a name twice': (
    lambda: renamed(zipped(), b'g/data/1', b'g/data/0'),
    REFUSED.format("has two members of the name 'g/data/0'"),
  ),
  'an absolute name': (
    lambda: renamed(zipped(root='gg'), b'gg/data/1', b'/g/data/1'),
    REFUSED.format("has a member of the name '/g/data/1'"),
  ),
  'a name that climbs': (
    lambda: renamed(zipped(root='gg'), b'gg/data/1', b'../data/1'),
    REFUSED.format("has a member of the name '../data/1'"),
  ),
  'a drive': (
    lambda: renamed(zipped(root='gg'), b'gg/data/1', b'C:/data/1'),
    REFUSED.format("has a member of the name 'C:/data/1'"),
  ),
  'a backslash': (
    lambda: renamed(zipped(), b'g/data/1', b'g\\data\\1'),
    REFUSED.format(r"has a member of the name 'g\\data\\1'"),
  ),
  'a zero byte': (
    lambda: renamed(zipped(), b'g/data/1', b'g/data/\0'),
    REFUSED.format(r"has a member of the name 'g/data/\x00'"),
  ),
  'two folders': (
    lambda: renamed(zipped(), b'g/data/1', b'h/data/1'),
    REFUSED.format('has 2 folders where torch has one'),
  ),
  'a compressed bomb': (
    compressed,
    REFUSED.format("has a compressed member 'g/data.pkl'"),
  ),
  'a compressed size of its own': (
    lambda: entry_changed(24, word(2**31)),
    REFUSED.format("has a compressed member 'g/data/0'"),
  ),
  'encrypted': (
    lambda: entry_changed(8, b'\x01\x00'),
    REFUSED.format("has an encrypted member 'g/data/0'"),
  ),
  'a header that says otherwise': (
    lambda: entry_changed(20, word(44) * 2),
    REFUSED.format("lists 'g/data/0' as something else"),
  ),
  'another checksum in the directory': (
    lambda: entry_changed(16, word(1)),
    REFUSED.format("lists 'g/data/0' as something else"),
  ),
  'a header of another': (
    lambda: entry_changed(42, word(0)),
    REFUSED.format("has members that overlap, at 'g/data/0'"),
  ),
  'no header there': (
    lambda: entry_changed(42, word(zipped().index(b'g/data/0') + 2)),
    REFUSED.format("has no header where it lists 'g/data/0'"),
  ),
  'a header beyond the end': (
    lambda: entry_changed(42, word(2**31)),
    DAMAGED.format('it is cut short'),
  ),
  'more members than there are': (
    lambda: end_changed(8, b'\x07\x00\x07\x00'),
    DAMAGED.format('its directory is cut short'),
  ),
  'fewer members than there are': (
    lambda: end_changed(8, b'\x05\x00\x05\x00'),
    DAMAGED.format('its directory has another length than its end says'),
  ),
  'a directory elsewhere': (
    lambda: end_changed(16, word(0)),
    REFUSED.format('has a directory that is not before its end'),
  ),
  'a comment': (
    lambda: end_changed(20, b'\x04\x00') + b'PK\x05\x06',
    DAMAGED.format('its end is not the end of a zip file'),
  ),
  'parts': (
    lambda: end_changed(4, b'\x01\x00'),
    REFUSED.format('is one of several parts'),
  ),
  'a program': (
    lambda: zipped(**{'constants.pkl': b'x'}),
    REFUSED.format('is a program of TorchScript'),
  ),
  'big numbers first': (
    lambda: zipped(byteorder=b'big'),
    REFUSED.format('comes from a machine of another byte order'),
  ),
  'no program': (
    lambda: renamed(zipped(), b'data.pkl', b'data.pkI'),
    DAMAGED.format('it has no data.pkl'),
  ),
  'a program that goes on': (
    lambda: zipped(PROGRAM + b'.'),
    DAMAGED.format('its program goes on behind its end'),
  ),
  'a storage missing': (
    lambda: zipped(storages=STORAGES[:2]),
    DAMAGED.format("storage '2' is missing"),
  ),
  'a storage too short': (
    lambda: zipped(storages=[STORAGES[0][:-1], *STORAGES[1:]]),
    DAMAGED.format("storage '0' has 47 bytes instead of 48"),
  ),
  'a storage too long': (
    lambda: zipped(storages=[STORAGES[0] + b'x', *STORAGES[1:]]),
    DAMAGED.format("storage '0' has 49 bytes instead of 48"),
  ),
  'a storage of other bits': (
    lambda: zipped().replace(STORAGES[1], bytes(16)),
    DAMAGED.format("'g/data/1' has another checksum"),
  ),
  'a program of other bits': (
    lambda: zipped().replace(b'a.weight', b'b.weight'),
    DAMAGED.format("'g/data.pkl' has another checksum"),
  ),
  'cut short': (
    lambda: zipped()[:-1],
    DAMAGED.format('its end is not the end of a zip file'),
  ),
  'the end alone': (
    lambda: b'PK\x03\x04' + zipped()[-22:],
    REFUSED.format('has a directory that is not before its end'),
  ),
  'four bytes': (lambda: b'PK\x03\x04', DAMAGED.format('it is cut short')),
}


@pytest.mark.parametrize('name', ZIPS)
def test_zip_tricks(name):
  make, expected = ZIPS[name]
  assert message_of(make()) == expected


def with_wide_end(data, count=6, **changes):
  """A file with the 64-bit end that torch writes before the other one."""
  *_, size, start, _ = struct.unpack('<4s4H2LH', data[-22:])
  values = {'count': count, 'size': size, 'start': start} | changes
  end = struct.pack(
    '<4sQ2H2L4Q',
    *(b'PK\x06\x06', 44, 45, 45, 0, 0, values['count'], values['count']),
    *(values['size'], values['start']),
  )
  place = changes.get('place', len(data) - 22)
  locator = struct.pack('<4sLQL', b'PK\x06\x07', 0, place, 1)
  return data[:-22] + end + locator + data[-22:]


def test_two_ends_have_to_agree():
  assert_same(read(with_wide_end(zipped())), ARRAYS)
  for changes in ({'count': 5}, {'size': 3}, {'start': 3}):
    assert message_of(with_wide_end(zipped(), **changes)) == REFUSED.format(
      'has two ends that contradict each other'
    )
  assert message_of(with_wide_end(zipped(), place=0)) == REFUSED.format(
    'has a second end that is somewhere else'
  )
  # The 32-bit fields may say that they are too small.
  small = end_changed(8, b'\xff' * 12)
  wide = with_wide_end(zipped())
  assert_same(read(wide[:-22] + small[-22:]), ARRAYS)


LEGACY = {
  'another version': (
    lambda: legacy().replace(pickle.dumps(1001, 2), pickle.dumps(1002, 2)),
    DAMAGED.format('its version is not 1001'),
  ),
  'big numbers first': (
    lambda: legacy(system=SYSTEM | {'little_endian': False}),
    REFUSED.format('comes from a machine of another byte order'),
  ),
  'a storage too many': (
    lambda: legacy(
      keys='0129', storages=[*STORAGES, b''], counts=[12, 2, 1, 0]
    ),
    DAMAGED.format("storage '9' is listed without need"),
  ),
  'a storage twice': (
    lambda: legacy(keys='010'),
    DAMAGED.format("storage '0' is listed without need"),
  ),
  'a storage missing': (
    lambda: legacy(keys='01', storages=STORAGES[:2], counts=[12, 2]),
    DAMAGED.format("storage '2' is missing"),
  ),
  'a storage of another size': (
    lambda: legacy(counts=[-1, 2, 1]),
    DAMAGED.format("storage '0' has -1 numbers instead of 12"),
  ),
  'a storage cut short': (
    lambda: legacy()[:-1],
    DAMAGED.format("storage '2' is cut short"),
  ),
  'a storage of a size without end': (
    lambda: legacy(
      alone(tensor(of=storage(size=2**62))), [b''], '0', counts=[2**62]
    ),
    DAMAGED.format("storage '0' is cut short"),
  ),
  'more behind it': (
    lambda: legacy() + b'PK\x03\x04',
    DAMAGED.format('it goes on behind its last storage'),
  ),
  'no list of storages': (
    lambda: legacy().replace(
      pickle.dumps(['0', '1', '2'], 2), pickle.dumps({'0': 1}, 2)
    ),
    DAMAGED.format('it does not list its storages'),
  ),
  'a program cut short': (
    lambda: legacy()[: legacy().index(b'a.bias')],
    DAMAGED.format('it ends in the middle of its program'),
  ),
}


@pytest.mark.parametrize('name', LEGACY)
def test_older_files(name):
  make, expected = LEGACY[name]
  assert message_of(make()) == expected


@pytest.mark.parametrize(
  'data, expected',
  [
    (b'', 'does not begin as files of torch.save do'),
    (b'\x80\x02}.', 'does not begin as files of torch.save do'),
    (b'\x89PNG\r\n', 'does not begin as files of torch.save do'),
    (
      bytes(257) + b'ustar' + bytes(300),
      'is of the kind that torch wrote before 0.1.10',
    ),
  ],
)
def test_other_files(data, expected):
  assert message_of(data) == REFUSED.format(expected)


def test_what_is_no_file(folder):
  advice = ': give a file that torch.save wrote'
  for name, reason in (
    ('none.pth', 'No such file or directory'),
    ('.', 'a folder'),
    ('pipe', 'not a regular file'),
  ):
    if name == 'pipe':
      os.mkfifo(name)
    with pytest.raises(WeightsError) as caught:
      read_pth(name)
    assert str(caught.value) == f'{name} can not be read ({reason}){advice}'


# Fuzzing.


@st.composite
def mutations(draw, data):
  """The bytes with a few of them changed, cut out, or doubled."""
  data = bytearray(data)
  for _ in range(draw(st.integers(1, 4))):
    at = draw(st.integers(0, max(0, len(data) - 1)))
    what = draw(st.sampled_from(['byte', 'cut', 'end', 'double', 'insert']))
    length = draw(st.integers(1, 40))
    if what == 'byte' and data:
      data[at] = draw(st.integers(0, 255))
    elif what == 'cut':
      del data[at : at + length]
    elif what == 'end':
      del data[at:]
    elif what == 'double':
      data[at:at] = data[at : at + length]
    else:
      data[at:at] = draw(st.binary(max_size=8))
  return bytes(data)


def read_or_refuse(data):
  """None, or what was read: all that may come of any file."""
  pathlib.Path('g.pth').write_bytes(data)
  try:
    got = read_pth('g.pth', max_bytes=2**20)
  except WeightsError:
    return None
  assert sum(each.nbytes for each in got.values()) <= 2**20
  return got


def assert_of_the_file(got):
  """Whether all numbers are such as the file holds, and none of memory's."""
  for each in got.values():
    held = [
      np.frombuffer(storage, each.dtype)
      for storage in STORAGES
      if len(storage) % each.itemsize == 0
    ]
    assert np.isin(each, np.concatenate(held)).all()


def flips(data):
  """The bytes with one of three bits of each byte turned, and its place."""
  for at in range(len(data)):
    for bit in (0, 5, 7):
      damaged = bytearray(data)
      damaged[at] ^= 1 << bit
      yield at, bytes(damaged)


def assert_some_of_each(outcomes):
  """Whether files were read, and more of them refused."""
  num_read = sum(each is not None for each in outcomes)
  assert 20 < num_read < len(outcomes) / 2


def test_each_flipped_bit_of_a_zip_changes_nothing_or_is_refused():
  outcomes = [read_or_refuse(data) for _, data in flips(zipped())]
  assert_some_of_each(outcomes)  # of the times and rights of members
  for got in outcomes:
    if got is not None:
      assert_same(got, ARRAYS)


def test_each_flipped_bit_of_a_legacy_file():
  """Its numbers have no checksum: one of them changes, and nothing else."""
  whole = legacy()
  places = [
    range(whole.rindex(each), whole.rindex(each) + len(each))
    for each in STORAGES
  ]
  outcomes = []
  for at, data in flips(whole):
    got = read_or_refuse(data)
    (number,) = [n for n, place in enumerate(places) if at in place] or [None]
    if number is None:
      outcomes.append(got)
      assert_of_the_file(got or {})
      assert got is None or at >= len(MAGIC)
      continue
    assert {k: (x.shape, x.dtype) for k, x in got.items()} == {
      k: (x.shape, x.dtype) for k, x in ARRAYS.items()
    }
    equal = [np.array_equal(got[name], x) for name, x in ARRAYS.items()]
    # In floating point 0 and -0 are equal.
    assert equal in ([n != number for n in range(3)], [True] * 3)
    assert [
      got[name].tobytes() == x.tobytes() for name, x in ARRAYS.items()
    ] == [n != number for n in range(3)]
  assert_some_of_each(outcomes)


@pytest.mark.parametrize('kind', KINDS)
def test_each_flipped_bit_of_a_program(kind):
  outcomes = [read_or_refuse(KINDS[kind](each)) for _, each in flips(PROGRAM)]
  assert_some_of_each(outcomes)
  for got in outcomes:
    assert_of_the_file(got or {})


@given(mutations(zipped()))
def test_fuzzed_zip_is_equal_or_refused(data):
  got = read_or_refuse(data)
  if got is not None:
    assert_same(got, ARRAYS)


@given(mutations(legacy()))
def test_fuzzed_legacy_is_read_or_refused(data):
  got = read_or_refuse(data)
  assert got is None or data.startswith(MAGIC)


@given(mutations(PROGRAM), st.sampled_from(list(KINDS)))
def test_fuzzed_programs_are_read_or_refused(program, kind):
  assert_of_the_file(read_or_refuse(KINDS[kind](program)) or {})


# What a program of weights is made of, whole and in any order; and any opcode.
VALUES = st.sampled_from(
  [tensor(), tensor(1, (3, 2), (4, 2)), storage(), b'K\x07', b']', b'N', b'}']
)
ENTRIES = st.builds(
  lambda name, value: text(name) + value + b's', st.sampled_from('uvw'), VALUES
)
PARTS = st.one_of(
  VALUES,
  st.sampled_from([text('w'), number(3), numbers(2, 3), b'q\x00', b'h\x00']),
  st.sampled_from([bytes([each]) for each in b'(tuesaRQb\x85\x86\x87']),
  st.binary(min_size=1, max_size=1),
)


@st.composite
def programs(draw):
  """A dict of a few entries, with up to two parts where they don't belong."""
  parts = [b'}', *draw(st.lists(ENTRIES, min_size=1, max_size=5))]
  for part in draw(st.lists(PARTS, max_size=2)):
    parts.insert(draw(st.integers(0, len(parts))), part)
  return b'\x80\x02' + b''.join(parts) + b'.'


def test_programs_at_random():
  outcomes = []

  @hypothesis.settings(max_examples=300)
  @given(programs())
  def check(program):
    outcomes.append(read_or_refuse(zipped(program)))
    assert_of_the_file(outcomes[-1] or {})

  check()
  assert_some_of_each(outcomes)


# Writing.


def test_what_is_written_is_read(folder):
  arrays = ARRAYS | {
    'half': np.ones((2, 1, 3), np.float16),
    'transposed': np.arange(6.0).reshape(2, 3).T,
    'big': np.arange(3, dtype='>f4'),
    'bool': np.array([True, False]),
    'empty': np.zeros((0, 4), np.int8),
    'scalar': np.float32(3),
    'größe': np.uint8([1]),
  }
  write_pth('new.pth', arrays)
  got = read_pth('new.pth')
  assert_same(
    got, {k: np.asarray(v).astype(got[k].dtype) for k, v in arrays.items()}
  )
  assert [each.name for each in folder.iterdir()] == ['new.pth']
  first = pathlib.Path('new.pth').read_bytes()
  write_pth('new.pth', arrays)  # over it
  assert pathlib.Path('new.pth').read_bytes() == first


def test_what_torch_does_not_have_is_not_written(folder):
  with pytest.raises(ValueError) as caught:  # noqa: PT011
    write_pth('new.pth', {'w': np.zeros(2, np.uint32)})
  assert str(caught.value) == 'w is of uint32, which is none of torch'
  with pytest.raises(FileNotFoundError):
    write_pth('none/new.pth', ARRAYS)
  assert not list(folder.iterdir())


def test_a_number_of_more_than_31_bits_is_written():
  program = write_program({'w': ((2**17, 2**16), 'uint8')})
  assert message_of(zipped(program, [b''])) == REFUSED.format(
    'has tensors of more than 2,147,483,648 bytes'
  )


def test_the_package_imports_no_torch_to_do_it():
  for path in (ROOT / 'cyclegan_jax' / 'interop').glob('*.py'):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Import):
        assert {each.name for each in node.names}.isdisjoint(
          {'torch', 'pickle', 'importlib'}
        )
      if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        assert node.func.id not in ('eval', 'exec', '__import__', 'getattr')


@pytest.mark.torch
@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_what_torch_itself_saves(zipped):
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
  values = {'inner': tensors, 'epoch': 3, 'name': 'x', 'lr': [0.1, None]}
  torch.save(values, 'g.pth', _use_new_zipfile_serialization=zipped)
  got = read_pth('g.pth')
  assert list(got) == [f'inner.{name}' for name in tensors]
  for name, each in tensors.items():
    each = each.detach()
    if name == 'bfloat16':
      each = each.float()
    array = got[f'inner.{name}']
    assert array.dtype == each.numpy().dtype
    assert type(array) is np.ndarray
    np.testing.assert_array_equal(array, each.numpy())


@pytest.mark.torch
def test_torch_reads_what_is_written():
  torch = pytest.importorskip('torch')
  write_pth('new.pth', ARRAYS)
  loaded = torch.load('new.pth', weights_only=True)
  assert_same({k: v.numpy() for k, v in loaded.items()}, ARRAYS)
