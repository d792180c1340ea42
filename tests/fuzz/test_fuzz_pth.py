"""Random .pth files are read or refused, and never run.

  CYCLEGAN_FUZZ_SECONDS=1800 pytest -n 0 -s -m fuzz tests/fuzz/test_fuzz_pth.py

The input of a failure stays in pytest's temporary folder.
"""

import random
import resource
import struct
import time

import numpy as np
import pytest
from test_fuzz_readers import MAX_SECONDS, SECONDS, SEED, mutate
from test_pth import (
  ARRAYS,
  ATTACKS,
  AUDITOR,
  LEGACY,
  MAGIC,
  PROGRAM,
  STORAGES,
  ZIPS,
  assert_same,
  contained,
  legacy,
  number,
  numbers,
  storage,
  tensor,
  text,
  zipped,
)

from cyclegan_jax.errors import WeightsError
from cyclegan_jax.interop.pth import read_pth

pytestmark = pytest.mark.fuzz

MAX_BYTES = 2**20
MAX_GROWTH = 2**19  # of the process, in KiB


@pytest.fixture
def read_or_refuse(tmp_path):
  """Returns a function from bytes to arrays, or to None where it is refused."""
  path = tmp_path / 'g.pth'
  path.write_bytes(zipped())
  read_pth(path)  # imports whatever is imported late

  def read(data):
    path.write_bytes(data)
    began, message = time.process_time(), ''
    try:
      with AUDITOR:
        arrays = read_pth(path, max_bytes=MAX_BYTES)
    except WeightsError as error:
      arrays, message = None, str(error)
    assert message.isprintable()
    assert time.process_time() - began < MAX_SECONDS
    if arrays is not None:
      assert sum(array.nbytes for array in arrays.values()) <= MAX_BYTES
    return arrays

  return read


def run(read, make, check, name):
  """Reads random files until the time is over and prints the counts."""
  rng = random.Random(SEED)
  counts = {'read': 0, 'refused': 0}
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  end = time.monotonic() + SECONDS
  while time.monotonic() < end:
    data = make(rng)
    arrays = read(data)
    counts['refused' if arrays is None else 'read'] += 1
    if arrays is not None:
      check(data, arrays)
  growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
  print(f'\n{name}: {counts}, {growth} KiB more memory')
  assert growth < MAX_GROWTH
  assert all(counts.values())


def check_numbers(_, arrays):
  """Checks that all numbers are such as the file holds, none from elsewhere."""
  for array in arrays.values():
    if array.dtype == bool:
      continue
    bits = np.ravel(array).view(f'u{array.itemsize}')
    held = [
      np.frombuffer(data, bits.dtype)
      for data in STORAGES
      if len(data) % array.itemsize == 0
    ]
    if array.dtype == np.float32:  # or bfloat16
      held += [
        np.frombuffer(data, 'u2').astype('u4') << 16 for data in STORAGES
      ]
    assert np.isin(bits, np.concatenate(held)).all()


FILES = [zipped()] * len(ZIPS) + list(ZIPS.values())
OLDER = [legacy()] * len(LEGACY) + list(LEGACY.values())


def test_damaged_files(read_or_refuse):
  def make(rng):
    return mutate(rng, rng.choice([FILES, OLDER]))

  def check(data, arrays):
    if data.startswith(b'PK'):
      assert_same(arrays, ARRAYS)
    else:  # the older files have no checksums
      assert data.startswith(MAGIC)

  run(read_or_refuse, make, check, 'damaged files')


def test_damaged_programs(read_or_refuse):
  programs = [program for program, _ in ATTACKS.values() if len(program) < 2000]
  programs += [PROGRAM] * len(programs)

  def make(rng):
    program = mutate(rng, programs)
    if b'DoubleS' in program and rng.random() < 0.5:
      return legacy(program)
    return contained(rng.choice(['zip', 'legacy']), program)

  run(read_or_refuse, make, check_numbers, 'damaged programs')


NAMES = [
  b'ccollections\nOrderedDict\n',
  b'ctorch._utils\n_rebuild_tensor\n',
  b'ctorch._utils\n_rebuild_tensor_v2\n',
  b'ctorch._utils\n_rebuild_parameter\n',
  b'ctorch\nHalfStorage\n',
  b'ctorch.storage\nUntypedStorage\n',
]
WEIGHTS = (1, 3, 3, 3, 3, 1, 1, 0.1, 0.1, 0.1)  # of sizes and strides
DTYPES = ['Float', 'Long', 'Half', 'BFloat16', 'Byte', 'Bool', 'Double', 'Char']
# Operations with the number of values that they take from the stack.
OPERATIONS = {
  b'R': 2, b'b': 2, b'Q': 1, b'a': 2, b's': 3, b'\x85': 1, b'\x86': 2,
  b'\x87': 3,
}  # fmt: skip


def random_storage(rng):
  key = rng.choice('0012')
  kind, size = {'0': ('Float', 12), '1': ('Double', 2), '2': ('Long', 1)}[key]
  if rng.random() < 0.2:
    kind = rng.choice(DTYPES)
    size = rng.choice([12, 24, 48, 6, 2, 16, 1, 8, 0, 3, 2**40, -1])
  view = b''
  if rng.random() < 0.1:
    view = numbers(rng.randint(0, 3), rng.randint(-1, 9)).replace(
      b'(', b'(' + text('v'), 1
    )
  return storage(key, f'torch\n{kind}Storage', size, view)


def random_tensor(rng):
  if rng.random() < 0.5:
    return tensor(rng.randint(0, 3), (rng.randint(0, 9),), (1,))
  axes = rng.choice([0, 1, 1, 1, 2, 2, 2, 3, 3, 4] * 3 + [17])
  sizes = [0, 1, 2, 3, 4, 5, 12, 2**31, 2**62, -1]
  shape = rng.choices(sizes, WEIGHTS, k=axes)
  strides = rng.choices(sizes, WEIGHTS, k=axes)
  if rng.random() < 0.05:
    strides = strides[1:]
  offset = rng.choice([0, 0, 1, 2, 3, 5] * 3 + [11, 12, -1, 2**62])
  of = rng.choice([storage(), random_storage(rng)])
  return tensor(offset, shape, strides, of)


def random_value(rng, num_puts):
  match rng.randrange(12):
    case 0:
      return random_storage(rng)
    case 1 | 2 | 3:
      return random_tensor(rng)
    case 4:
      return rng.choice(NAMES)
    case 5:
      return rng.choice([b']', b'}', b')', b'N', b'\x88'])
    case 6:
      return number(rng.choice([0, 1, 2, -1, 7, 2**62]))
    case 7:
      return b'U\x01' + rng.choice([b'w', b'v', b'\xff'])
    case 8 if num_puts:
      return b'h%c' % rng.randrange(num_puts)
    case 9:
      return b'G' + struct.pack('>d', rng.random())
    case 10 if rng.random() < 0.1:  # a call or a reference of any values
      values = [random_value(rng, num_puts) for _ in range(rng.choice([1, 5]))]
      arguments = b'(' + b''.join(values) + b't'
      call = rng.choice(NAMES) + arguments + b'R'
      return rng.choice([call, arguments + b'Q', arguments])
    case _:
      return text(rng.choice(['w', 'v', 'storage', 'cpu', '0', 'offset']))


def random_program(rng):
  """A program whose stack is nearly always large enough for its operations."""
  parts, heights, num_puts = [b'\x80\x02('], [0], 0
  for _ in range(rng.randint(1, 40)):
    height = heights[-1]
    operations = [op for op, size in OPERATIONS.items() if size <= height]
    match rng.choices(range(6), (40, 20, 8, 8, 10, 5))[0]:
      case 0:
        parts.append(random_value(rng, num_puts))
        heights[-1] += 1
      case 1:  # a whole entry of a dict, or a list
        value = random_value(rng, num_puts)
        key = text(rng.choice('uvw'))
        parts.append(
          rng.choice([b'}' + key + value + b's', b']' + value + b'a'])
        )
        heights[-1] += 1
      case 2:
        parts.append(b'(')
        heights.append(0)
      case 3 if len(heights) > 1:
        heights.pop()
        operation = (
          rng.choice([b't', b't', b'e', b'u']) if heights[-1] else b't'
        )
        parts.append(operation)
        heights[-1] += operation == b't'
      case 4 if height and num_puts < 256:
        parts.append(b'q%c' % num_puts)
        num_puts += 1
      case 5 if operations:
        operation = rng.choice(operations)
        parts.append(operation)
        heights[-1] += 1 - OPERATIONS[operation]
  if rng.random() < 0.02:
    parts.insert(rng.randint(1, len(parts)), rng.randbytes(1))
  return b''.join([*parts, b't' * len(heights), b'.'])


def test_random_programs(read_or_refuse):
  def make(rng):
    return zipped(random_program(rng))

  run(read_or_refuse, make, check_numbers, 'random programs')
