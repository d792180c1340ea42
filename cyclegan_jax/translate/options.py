"""How files are translated."""

import dataclasses
import pathlib

from cyclegan_jax.config import Direction

RECORD_FILE = '.translated.json'  # in a folder of outputs
ENDINGS = {'png': '.png', 'tiff': '.tif', 'jpeg': '.jpg', 'webp': '.webp'}


@dataclasses.dataclass(frozen=True)
class Options:
  """How files are translated.

  Attributes:
    direction: 'ab' or 'ba'.
    seed: of dropout, where the network has it.
    samples: translations of each file, by as many masks of dropout.
    size: (width, height) of the outputs, 0 where it follows from the other;
      None for each input's own.
    batch_size: images of one size that are translated at once.
    shard: (i, n): the i-th of n equal shares of the work, from 1.
    overwrite: makes outputs anew that are there.
    file_format: 'auto' keeps PNG and TIFF and makes all else PNG; or a key of
      ENDINGS.
    gallery: makes a page of all translations, and of the way back.
    max_pixels: larger images are not decoded; 0 for the config's.
    scratch: folder for what large images keep on a disk meanwhile; None for
      that of the outputs, as the system's may be in memory.
  """

  direction: Direction = 'ab'
  seed: int = 0
  samples: int = 1
  size: tuple[int, int] | None = None
  batch_size: int = 1
  shard: tuple[int, int] = (1, 1)
  overwrite: bool = False
  file_format: str = 'auto'
  gallery: bool = False
  max_pixels: int = 0
  scratch: pathlib.Path | None = None
