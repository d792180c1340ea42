"""What is done to the frames of animations and videos."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

# uint8 [B, h, w, C] to uint8 [B, h', w', C'], C and C' 1 or 3.
Convert: TypeAlias = Callable[[np.ndarray], np.ndarray]

# Is told how many frames are done, of how many if that is known.
OnFrame: TypeAlias = Callable[[int, int | None], None]


def ignore_frame(done: int, total: int | None) -> None:
  """Where nobody wants to be told."""
