"""Images of two folders that show the same, by the names of their files."""

import os
from collections.abc import Mapping

from cyclegan_jax.config import Config
from cyclegan_jax.data.image_list import Images
from cyclegan_jax.errors import ConfigError, DataError, printable


def match_names(
  source: Images, target: Images, *, domains: str = 'ab'
) -> dict[int, int]:
  """The images of two folders whose names say that they are pairs.

  A pair has one path in both folders but for the ending: trainA/7.png and
  trainB/7.jpg; or 7_A.jpg and 7_B.jpg, as in the data sets of the paper where
  all files of the two folders are named so.

  Args:
    source: of one domain.
    target: of the other.
    domains: which they are, 'ab' or 'ba'.

  Returns:
    From an index of the source's to one of the target's, in the source's
    order; empty where images are no files of two folders.
  """
  if not (source.root and target.root) or source.root == target.root:
    return {}
  ours, theirs = (
    _stems(each, f'_{domain.upper()}')
    for each, domain in zip((source, target), domains, strict=True)
  )
  place = {stem: index for index, stem in enumerate(theirs)}
  return {
    index: place[stem] for index, stem in enumerate(ours) if stem in place
  }


def training_pairs(
  config: Config, images: Mapping[str, Images]
) -> list[tuple[int, int]]:
  """The pairs that config.loss.paired_weight asks for; none where it is 0.

  Args:
    config: of the run.
    images: 'train_a' and 'train_b'.

  Raises:
    ConfigError: the images are not from folders.
    DataError: no two are a pair.
  """
  if not config.loss.paired_weight:
    return []
  a, b = images['train_a'], images['train_b']
  if not (a.root and b.root):
    raise ConfigError(
      f'config.loss.paired_weight={config.loss.paired_weight} needs pairs, '
      'which only folders have: set config.data.name=folder, or the weight to '
      '0'
    )
  pairs = list(match_names(a, b).items())
  if not pairs:
    raise DataError(
      f'config.loss.paired_weight={config.loss.paired_weight} needs pairs, but '
      f'no image of {printable(a.root)} has the name of one of '
      f'{printable(b.root)} (but for the ending): name pairs alike, or set the '
      'weight to 0'
    )
  return pairs


def _stems(images: Images, ending: str) -> list[str]:
  skipped = len(images.root)
  stems = [
    os.path.splitext(name[skipped:].replace(os.sep, '/'))[0]
    for name in images.names
  ]
  if all(stem.endswith(ending) for stem in stems):
    return [stem.removesuffix(ending) for stem in stems]
  return stems
