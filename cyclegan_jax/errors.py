"""The one family of errors that a user can mend.

Each message is one line that says what is wrong, where, and what to do.
Command lines print it without a traceback; programs catch it by type.
"""


class UserError(Exception):
  """Something outside the code is wrong: the message says what to do."""


class ConfigError(UserError):
  """An option is unknown, of a wrong type or out of range."""


class DataError(UserError):
  """Images are missing, unreadable or of a shape that can't be used."""


class TrainingError(UserError):
  """Training itself went wrong: the loss is lost."""


class WorkdirError(UserError):
  """The run's folder can't be used as it is."""


class WeightsError(UserError):
  """A file of weights is damaged, refused, or of another network."""


def printable(name: str) -> str:
  """The name, quoted where it would break a line or an encoding."""
  return name if name.isprintable() else repr(name)


def one_line(error: BaseException) -> str:
  """An error's first line, or its system message, or its type."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  lines = str(error).strip().splitlines()
  return lines[0] if lines else type(error).__name__
