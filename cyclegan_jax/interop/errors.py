"""Reasons why a weights file is not read, and names from it in messages."""


class DamagedFileError(Exception):
  """The file is not as its writer left it; the text says where."""


class RefusedFileError(Exception):
  """The file is of another kind, or asks for more than tensors need."""


def shown(text: str) -> str:
  """Quotes and shortens a name from a file, for a message of one line."""
  return ascii(text if len(text) <= 80 else text[:77] + '...')
