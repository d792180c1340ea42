"""Which file becomes which."""

import collections
import glob
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cyclegan_jax.config import Config
from cyclegan_jax.errors import DataError, printable
from cyclegan_jax.media import clips
from cyclegan_jax.media.decoding import EXTENSIONS
from cyclegan_jax.media.image_files import holds
from cyclegan_jax.media.listing import (
  list_images,
  natural,
)
from cyclegan_jax.media.value_range import values_of
from cyclegan_jax.translate.options import ENDINGS, Options

_CLIPS = clips.GIF_EXTENSIONS + clips.VIDEO_EXTENSIONS
_KEPT_ENDINGS = ('.png', '.tif', '.tiff')  # what holds any depth


class Job(NamedTuple):
  """A file to be made.

  Attributes:
    source: the input.
    target: the output.
    name: of the target below the folder of outputs.
    sample: which of the translations of the input, from 0.
  """

  source: pathlib.Path
  target: pathlib.Path
  name: str
  sample: int

  @property
  def is_clip(self) -> bool:
    """Whether the source is one by its name: WebP and PNG may be, too."""
    return self.source.suffix.lower() in _CLIPS


class Plan(NamedTuple):
  """What is to be done.

  Attributes:
    jobs: of this shard.
    failed: messages on what can't be one.
    notes: messages on what is left out.
    names: of all shards' outputs.
  """

  jobs: list[Job]
  failed: list[str]
  notes: list[str]
  names: list[str]


def make_plan(
  inputs: Sequence[pathlib.Path],
  to: pathlib.Path,
  config: Config,
  options: Options,
) -> Plan:
  """Finds the inputs, and gives each its output.

  Args:
    inputs: files, folders, and patterns with * ? [] and **.
    to: folder of the outputs.
    config: of the generator.
    options: see there.

  Raises:
    DataError: there is no input, or `to` lies in one.
  """
  pairs: dict[pathlib.Path, pathlib.Path] = {}
  failed, notes = list[str](), list[str]()
  for each in inputs:
    found, num_others = _find(each, to)
    if not found:
      failed.append(f'{printable(str(each))} holds no images')
    if num_others:
      files = 'file, which is' if num_others == 1 else 'files, which are'
      notes.append(
        f'{printable(str(each))} holds {num_others:,} other {files} left out'
      )
    pairs |= found
  if not pairs:
    names = ', '.join(printable(str(each)) for each in inputs)
    raise DataError(f'no images in {names}: give images, or folders of them')
  targets = _distinct(
    {
      source: _with_ending(path, config, options)
      for source, path in pairs.items()
    }
  )
  jobs = []
  taken: dict[pathlib.Path, pathlib.Path] = {}
  sources = {source.resolve() for source in pairs}
  for job in _samples(targets, to, options.samples):
    shown = printable(str(job.source)), printable(str(job.target))
    other = taken.setdefault(job.target, job.source)
    if job.target.resolve() in sources:
      failed.append(
        f'{shown[0]} is not translated: {shown[1]}, an input, would be '
        'overwritten: give another --to'
      )
    elif other != job.source:
      failed.append(
        f'{shown[0]} is not translated: {shown[1]} is made from '
        f'{printable(str(other))}: rename one, or give it another --to'
      )
    else:
      jobs.append(job)
  share, num_shares = options.shard
  is_first = share == 1
  return Plan(
    jobs[share - 1 :: num_shares],
    failed if is_first else [],
    notes if is_first else [],
    [job.name for job in jobs],
  )


def _find(
  given: pathlib.Path, to: pathlib.Path
) -> tuple[dict[pathlib.Path, pathlib.Path], int]:
  """Each file that is meant, with its place below `to`; a count of others."""
  if given.is_dir():
    if to.resolve().is_relative_to(given.resolve()):
      raise DataError(
        f'--to {printable(str(to))} lies in {printable(str(given))}, which is '
        'an input: outputs would be inputs next time; give a folder outside '
        'of it'
      )
    listing = list_images(str(given), extensions=EXTENSIONS + _CLIPS)
    found = {
      pathlib.Path(name): to / os.path.relpath(name, given)
      for name in listing.images
    }
    return found, listing.num_other_files
  if glob.has_magic(str(given)) and not given.exists():
    return dict(_matches(given, to)), 0
  return {given: to / given.name}, 0


def _matches(
  pattern: pathlib.Path, to: pathlib.Path
) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
  parts = pattern.parts
  fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
  base = pathlib.Path(*parts[:fixed])
  for name in sorted(glob.glob(str(pattern), recursive=True), key=natural):
    path = pathlib.Path(name)
    if path.is_file():
      yield path, to / path.relative_to(base)


def _with_ending(
  path: pathlib.Path, config: Config, options: Options
) -> pathlib.Path:
  suffix = path.suffix.lower()
  if suffix in _CLIPS:
    return clips.clip_target(path)
  if options.file_format != 'auto':
    return path.with_suffix(ENDINGS[options.file_format])
  if suffix not in _KEPT_ENDINGS:
    path = path.with_suffix('.png')
  domain = options.direction[1]
  dtype = values_of(config.data, domain).dtype
  if holds(path.suffix.lower(), dtype, config.channels(domain)):
    return path
  return path.with_suffix('.tif')


def _distinct(
  targets: dict[pathlib.Path, pathlib.Path],
) -> dict[pathlib.Path, pathlib.Path]:
  """Where a.jpg is beside a.png, both names are kept whole: a.jpg.png."""
  counts = collections.Counter(targets.values())
  return {
    source: target.with_name(source.name + target.suffix)
    if counts[target] > 1 and target.suffix != source.suffix
    else target
    for source, target in targets.items()
  }


def _samples(
  targets: dict[pathlib.Path, pathlib.Path], to: pathlib.Path, samples: int
) -> Iterator[Job]:
  for source, target in targets.items():
    for sample in range(samples):
      stem = f'{target.stem}_{sample + 1}' if samples > 1 else target.stem
      named = target.with_name(stem + target.suffix)
      yield Job(source, named, named.relative_to(to).as_posix(), sample)
