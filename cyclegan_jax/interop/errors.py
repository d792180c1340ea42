"""Why a file of weights is not read."""


class DamagedError(Exception):
  """The file is not what its maker wrote; the text says where."""


class RefusedError(Exception):
  """The file is of a kind, or asks for things, that weights never need."""


def shown(text: str) -> str:
  """A name out of a file, fit for a message of one line."""
  return ascii(text if len(text) <= 80 else text[:77] + '...')
