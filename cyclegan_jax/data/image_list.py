"""Images of one domain and split, decoded on demand."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from cyclegan_jax.config import DataConfig
from cyclegan_jax.errors import ConfigError
from cyclegan_jax.media.decoding import CHANNELS
from cyclegan_jax.media.metadata import Header


@dataclasses.dataclass(frozen=True)
class Images:
  """Images of one domain and split, decoded on demand.

  Attributes:
    names: path or id of each image, for messages and names of outputs.
    read: index -> [h, w, C], from any thread: uint8, or float32 in [-1, 1]
      where files hold more than 8 bits; raises ImageError.
    shape_of: index -> (height, width) of what `read` returns, from the header
      alone, raising ImageError; None where that is not cheap.
    root: common start of all names, '/' included.
    sizes: bytes of each listed file, None for a link to nowhere; None where
      sizes are not known.
    version: distinguishes these images from others of the same names.
    changed: index -> path of the file if it changed since it was listed, else
      ''; None where files cannot change unnoticed.
    stored: index -> [h, w, C] of the type that the file has: uint8, uint16,
      int16 or float32; None where all have 8 bits.
    measured: index -> the same without the pixels that have no data, of any
      shape; None where all have data.
    header_of: index -> type, channels and frames of the file, from the header
      alone, raising ImageError; None likewise.
    other_files: number of files beside the images, by ending.
    modality: of DICOM files, such as 'CT', if all are of one; else ''.
    rescale_type: of DICOM files, such as 'HU', likewise.
  """

  names: Sequence[str]
  read: Callable[[int], np.ndarray]
  shape_of: Callable[[int], tuple[int, int]] | None
  root: str = ''
  sizes: Sequence[int | None] | None = None
  version: str = ''
  changed: Callable[[int], str] | None = None
  stored: Callable[[int], np.ndarray] | None = None
  measured: Callable[[int], np.ndarray] | None = None
  header_of: Callable[[int], Header] | None = None
  other_files: Mapping[str, int] = dataclasses.field(default_factory=dict)
  modality: str = ''
  rescale_type: str = ''

  def __len__(self) -> int:
    return len(self.names)

  def relative_names(self) -> list[str]:
    """Names below the root, with '/' as separator."""
    skipped = len(self.root)
    return [name[skipped:].replace(os.sep, '/') for name in self.names]


def check_channels(config: DataConfig) -> None:
  """Raises ConfigError where a file cannot have the channels asked for."""
  for option in ('channels_a', 'channels_b'):
    count = getattr(config, option)
    if count not in CHANNELS:
      known = ', '.join(f'{n} ({name})' for n, name in CHANNELS.items())
      raise ConfigError(
        f'config.data.{option}={count} cannot be had from files: choose from '
        f'{known}'
      )
