"""Programs as torch.save writes them, opcode by opcode."""

from collections.abc import Iterable, Mapping

from cyclegan_jax.interop.pickle_types import STORAGES

_NAMES = {
  dtype: name for (home, name), dtype in STORAGES.items() if home == 'torch'
}
_EMPTY_ORDERED_DICT = b'ccollections\nOrderedDict\n)R'


def write_program(
  tensors: Mapping[str, tuple[tuple[int, ...], str]],
) -> bytes:
  """A program that builds an OrderedDict of tensors.

  Args:
    tensors: shape and dtype by name; the storage of the n-th, counted from
      zero, is 'n', and holds its elements row by row.

  Raises:
    ValueError: torch has no such dtype.
  """
  parts = [b'\x80\x02', _EMPTY_ORDERED_DICT, b'(']
  for place, (name, (shape, dtype)) in enumerate(tensors.items()):
    if dtype not in _NAMES:
      raise ValueError(f'{name} is of {dtype}, which is none of torch')
    strides: list[int] = []
    size = 1
    for each in reversed(shape):
      strides.insert(0, size)
      size *= each
    parts += [
      _text(name),
      b'ctorch._utils\n_rebuild_tensor_v2\n((',
      _text('storage'),
      f'ctorch\n{_NAMES[dtype]}\n'.encode(),
      _text(str(place)),
      _text('cpu'),
      _integer(size),
      b'tQ',
      _integer(0),
      _integers(shape),
      _integers(strides),
      b'\x89',  # it needs no gradient
      _EMPTY_ORDERED_DICT,  # and has no hooks
      b'tR',
    ]
  return b''.join([*parts, b'u.'])


def _text(value: str) -> bytes:
  data = value.encode()
  return b'X' + len(data).to_bytes(4, 'little') + data


def _integer(value: int) -> bytes:
  if value < 2**31:
    return b'J' + value.to_bytes(4, 'little')
  return b'\x8a\x09' + value.to_bytes(9, 'little')


def _integers(values: Iterable[int]) -> bytes:
  return b'(' + b''.join(_integer(each) for each in values) + b't'
