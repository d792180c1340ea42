"""Where images come from: drawn by code, your folders, or TFDS.

A source is a function from the config to the images of both domains and
splits, by index; `loader.py` makes batches of them.
"""

import functools
import pathlib
from collections.abc import Callable, Mapping

from cyclegan_jax import register
from cyclegan_jax.config import DataConfig, source_options
from cyclegan_jax.data.folder_source import open_folder, open_test_images
from cyclegan_jax.data.image_list import Images
from cyclegan_jax.data.own_source import images_of_sequences
from cyclegan_jax.data.ranges import with_values
from cyclegan_jax.data.synthetic import drawings
from cyclegan_jax.data.tfds_source import open_tfds
from cyclegan_jax.errors import ConfigError, DataError
from cyclegan_jax.media.decoding import ImageError

__all__ = [
  'SOURCES',
  'ImageError',
  'Images',
  'domain_folders',
  'folder_options',
  'open_embedded',
  'open_images',
  'open_test_images',
]


def open_images(config: DataConfig) -> dict[str, Images]:
  """Opens the images of a resolved config, as the networks see them.

  See `open_stored_images` for splits and errors.
  """
  return with_values(open_stored_images(config), config)


def open_stored_images(config: DataConfig) -> dict[str, Images]:
  """Opens 'train_a', 'train_b', 'test_a' and 'test_b', with stored values.

  Nothing is decoded yet. If a domain has no test images, its training images
  replace them, and a warning is logged.

  Raises:
    ConfigError: an option is missing or does not fit the source.
    DataError: a folder or a data set is missing, empty or of another kind.
    UserError: the source needs a package that is not installed.
  """
  if config.name in SOURCES:
    return SOURCES[config.name](config)
  open_source = register.find('source', config.name)
  return images_of_sequences(config, open_source(config))


def domain_folders(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """The folder of test images of each domain, 'a' and 'b', in a folder.

  A domain without one has its training images in their place; one without
  either is left out.
  """
  return {
    domain: inner
    for domain in 'ab'
    for split in ('train', 'test')
    if (inner := folder / f'{split}{domain.upper()}').is_dir()
  }


def folder_options(
  path: pathlib.Path, folders: Mapping[str, pathlib.Path]
) -> dict[str, str]:
  """Options of config.data that read a folder, or a .zip, for its test images.

  Args:
    path: of a folder or a .zip.
    folders: of test images by domain, where they are not found by their names.
  """
  options = dict.fromkeys(source_options(), '')
  options |= {'name': 'folder', 'path': str(path)}
  for domain, inner in folders.items():
    # Training images are not read, but have to be there.
    options |= {f'train_{domain}': str(inner), f'test_{domain}': str(inner)}
  return options


def open_embedded(config: DataConfig) -> dict[str, Images]:
  """Drawings of `drawings.draw`, load_size squared.

  Raises:
    ConfigError: other than three channels are asked for.
  """
  for option in ('channels_a', 'channels_b'):
    if getattr(config, option) != 3:
      raise ConfigError(
        f'config.data.{option}={getattr(config, option)} does not fit the '
        'embedded drawings, which have 3 channels'
      )
  size = config.size_before_crop
  if size > drawings.MAX_SIZE:
    raise ConfigError(
      f'config.data.load_size={size} is too large for the embedded drawings: '
      f'at most {drawings.MAX_SIZE}'
    )
  counts = {'train': config.num_train, 'test': config.num_test}
  return {
    f'{split}_{domain}': Images(
      names=tuple(f'{split}_{domain}/{i:05d}' for i in range(count)),
      read=functools.partial(
        drawings.draw, size=size, domain=domain, split=split
      ),
      shape_of=functools.partial(_square, size=size),
      version=f'drawings {drawings.VERSION}, {size} px',
    )
    for split, count in counts.items()
    for domain in drawings.DOMAINS
  }


def _square(index: int, *, size: int) -> tuple[int, int]:
  del index  # drawings are all of one size
  return size, size


def _open_sequences(config: DataConfig) -> dict[str, Images]:
  raise DataError(
    f'config.data.name={config.name!r}: a program passes the images, as '
    'train(config, workdir, sources=...)'
  )


SOURCES: dict[str, Callable[[DataConfig], dict[str, Images]]] = {
  'embedded': open_embedded,
  'folder': open_folder,
  'tfds': open_tfds,
  'sequences': _open_sequences,
}
