"""Types of the functions that process frames of animations and videos."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

# uint8 [B, h, w, C] -> uint8 [B, h', w', C'], with C and C' either 1 or 3.
Convert: TypeAlias = Callable[[np.ndarray], np.ndarray]

# (frames done, frames in all or None if that is unknown) -> None.
OnFrame: TypeAlias = Callable[[int, int | None], None]


def ignore_progress(done: int, total: int | None) -> None:
  """An `OnFrame` that does nothing."""
