"""Options of the translation of files."""

import dataclasses
import pathlib

from cyclegan_jax.config import Direction

ENDINGS = {'png': '.png', 'tiff': '.tif', 'jpeg': '.jpg', 'webp': '.webp'}


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of `translate_files`.

  Attributes:
    direction: 'ab' or 'ba'.
    seed: random seed of dropout.
    samples: number of translations of each file, with dropout masks of their
      own.
    size: (width, height) of the outputs, 0 for a side that follows from the
      other; None for each input's own size.
    batch_size: number of images of one size that are translated at once.
    shard: (i, n) for the i-th of n equal parts of the work, from 1.
    overwrite: whether to replace existing outputs.
    file_format: 'auto' keeps PNG, TIFF, DICOM and NIfTI and turns other formats
      into PNG; or a key of ENDINGS.
    gallery: whether to write a page of all translations and reconstructions.
    max_pixels: limit on the pixels of an input; 0 for the config's.
    scratch: folder of the scratch files of large images; None for that of the
      outputs, as the system's may be in memory.
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
