"""The one family of errors that a user can mend.

Each message is one line that says what is wrong, where, and what to do.
Command lines print it without a traceback; programs catch it by type.
"""


class UserError(Exception):
  """Something outside the code is wrong: the message says what to do."""


class ConfigError(UserError):
  """An option is unknown, of a wrong type or out of range."""


class MissingPartError(ConfigError):
  """A part that a plugin registers is needed, and the plugin is not loaded."""


class DataError(UserError):
  """Images are missing, unreadable or of a shape that cannot be used."""


class ImageError(DataError):
  """One image cannot be read.

  Attributes:
    name: the image's path or id, as in `Images.names`.
    reason: what is wrong with it, in one line.
  """

  def __init__(self, name: str, reason: str) -> None:
    super().__init__(name, reason)
    self.name = name
    self.reason = reason

  def __str__(self) -> str:
    return f'{printable(self.name)} cannot be read: {self.reason}'


class TrainingError(UserError):
  """Training itself went wrong: the loss is lost."""


class WorkdirError(UserError):
  """The run's folder cannot be used as it is."""


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
