"""How commands read their arguments."""

import argparse
from typing import NoReturn

from cyclegan_jax.errors import ConfigError


class Parser(argparse.ArgumentParser):
  """An ArgumentParser whose errors are one line."""

  def error(self, message: str) -> NoReturn:
    """Raises ConfigError."""
    raise ConfigError(f'{message}: see {self.prog} --help')
