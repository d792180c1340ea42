"""Pairs of images in two folders, found by their file names."""

import re
from collections.abc import Mapping

from cyclegan_jax.config import Config
from cyclegan_jax.data.image_list import Images
from cyclegan_jax.errors import ConfigError, DataError, printable
from cyclegan_jax.media.medical import split_ending


def match_names(
  source: Images, target: Images, *, domains: str = 'ab'
) -> dict[int, int]:
  """Finds the images of two folders that have the same name.

  The images of a pair have the same path below their folders, except for the
  extension: trainA/7.png and trainB/7.jpg. If all names of a folder end in _A
  and _B, as in the paper's data sets, 7_A.jpg and 7_B.jpg are a pair.

  Args:
    source: images of one domain.
    target: images of the other domain.
    domains: the two domains, 'ab' or 'ba'.

  Returns:
    Indices in the source to indices in the target, in the source's order;
    empty unless the images are files of two folders.
  """
  if not (source.root and target.root) or source.root == target.root:
    return {}
  source_stems, target_stems = (
    _stems(images, f'_{domain.upper()}')
    for images, domain in zip((source, target), domains, strict=True)
  )
  places = {stem: index for index, stem in enumerate(target_stems)}
  return {
    index: places[stem]
    for index, stem in enumerate(source_stems)
    if stem in places
  }


def training_pairs(
  config: Config, images: Mapping[str, Images]
) -> list[tuple[int, int]]:
  """Finds the pairs for the paired loss.

  Args:
    config: config of the run.
    images: 'train_a' and 'train_b'.

  Returns:
    Indices of a and b; [] if config.loss.paired_weight is 0.

  Raises:
    ConfigError: the images are not from folders.
    DataError: there are no pairs.
  """
  if not config.loss.paired_weight:
    return []
  a, b = images['train_a'], images['train_b']
  if not (a.root and b.root):
    raise ConfigError(
      f'config.loss.paired_weight={config.loss.paired_weight} needs pairs, '
      'which only folders have. Set config.data.name=folder, or the weight to '
      '0'
    )
  pairs = list(match_names(a, b).items())
  if not pairs:
    raise DataError(
      f'config.loss.paired_weight={config.loss.paired_weight} needs pairs, but '
      f'no image of {printable(a.root)} has the name of one of '
      f'{printable(b.root)} (except for the extension). Give pairs equal '
      'names, or set the weight to 0'
    )
  return pairs


def _stems(images: Images, ending: str) -> list[str]:
  """Paths below the folder without extension, and without a common ending."""
  stems = [_stem(name) for name in images.relative_names()]
  if all(stem.endswith(ending) for stem in stems):
    return [stem.removesuffix(ending) for stem in stems]
  return stems


def _stem(name: str) -> str:
  """A name without its extension; slices 'a.nii.gz[3]' keep their number."""
  number = re.search(r'\[[0-9]+\]$', name)
  if not number:
    return split_ending(name)[0]
  return split_ending(name[: number.start()])[0] + number[0]
