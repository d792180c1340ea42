"""Plan of a translation: the inputs and the output of each."""

import collections
import glob
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from cyclegan_jax.config import Config
from cyclegan_jax.errors import DataError, printable
from cyclegan_jax.media import clips
from cyclegan_jax.media.decoding import EXTENSIONS
from cyclegan_jax.media.image_files import holds
from cyclegan_jax.media.listing import (
  describe_others,
  is_dicom_file,
  list_images,
  natural,
)
from cyclegan_jax.media.medical import kind_by_name, split_ending
from cyclegan_jax.media.value_range import values_of
from cyclegan_jax.translate.options import ENDINGS, Options

_CLIPS = clips.GIF_EXTENSIONS + clips.VIDEO_EXTENSIONS
_KEPT_ENDINGS = ('.png', '.tif', '.tiff')  # formats of any depth


class Job(NamedTuple):
  """One output.

  Attributes:
    source: path of the input.
    target: path of the output.
    name: name of the output below the folder of outputs.
    sample: number of the translation of this input, from 0.
  """

  source: pathlib.Path
  target: pathlib.Path
  name: str
  sample: int

  @property
  def is_clip(self) -> bool:
    """Whether the source's name is a clip's; WebP and PNG may also be one."""
    return self.source.suffix.lower() in _CLIPS


class Plan(NamedTuple):
  """The jobs of a call.

  Attributes:
    jobs: outputs of this shard.
    failed: messages about inputs that cannot be translated.
    notes: messages about files that are skipped.
    names: names of the outputs of all shards.
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
  """Finds the inputs and names their outputs.

  Args:
    inputs: files, folders, and patterns with * ? [] and **.
    to: folder of the outputs.
    config: config of the run.
    options: options of the translation.

  Raises:
    DataError: there is no input, or `to` lies in one.
  """
  pairs: dict[pathlib.Path, pathlib.Path] = {}
  failed, notes = list[str](), list[str]()
  for path in inputs:
    files, other_files, unlisted = _find(path, to)
    failed += unlisted
    if not files:
      failed.append(f'{printable(str(path))} holds no images')
    if other_files:
      others = describe_others(other_files)
      notes.append(f'skipped {others} in {printable(str(path))}')
    pairs |= files
  if not pairs:
    names = ', '.join(printable(str(path)) for path in inputs)
    raise DataError(f'no images in {names}. Give images, or folders of them')
  targets = _distinct(
    {
      source: _with_ending(
        path, config, options, is_medical=bool(medical_kind(source))
      )
      for source, path in pairs.items()
    }
  )
  jobs = []
  taken: dict[pathlib.Path, pathlib.Path] = {}
  sources = {os.path.realpath(source) for source in pairs}
  for job in _make_jobs(targets, to, options.samples):
    source, target = printable(str(job.source)), printable(str(job.target))
    other = taken.setdefault(job.target, job.source)
    if os.path.realpath(job.target) in sources:
      failed.append(
        f'{source} is not translated: {target}, an input, would be '
        'overwritten. Use another --to'
      )
    elif other != job.source:
      failed.append(
        f'{source} is not translated: {target} is the output of '
        f'{printable(str(other))}. Rename one, or use another --to for it'
      )
    else:
      jobs.append(job)
  shard, num_shards = options.shard
  is_first = shard == 1
  return Plan(
    jobs[shard - 1 :: num_shards],
    failed if is_first else [],
    notes if is_first else [],
    [job.name for job in jobs],
  )


def _find(
  path: pathlib.Path, to: pathlib.Path
) -> tuple[dict[pathlib.Path, pathlib.Path], Mapping[str, int], list[str]]:
  """Files of an input with their places below `to`.

  Returns:
    The files; numbers of others by ending; and messages about folders that
    cannot be listed.
  """
  if path.is_dir():
    if to.resolve().is_relative_to(path.resolve()):
      raise DataError(
        f'--to {printable(str(to))} lies in {printable(str(path))}, an input: '
        'outputs would be inputs of the next call. Use a folder outside of it'
      )
    listing = list_images(str(path), extensions=EXTENSIONS + _CLIPS)
    files = {
      pathlib.Path(name): to / os.path.relpath(name, path)
      for name in listing.images
    }
    return files, listing.other_files, listing.unlisted
  if glob.has_magic(str(path)) and not path.exists():
    return dict(_match(path, to)), {}, []
  return {path: to / path.name}, {}, []


def _match(
  pattern: pathlib.Path, to: pathlib.Path
) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
  parts = pattern.parts
  num_fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
  base = pathlib.Path(*parts[:num_fixed])
  for name in sorted(glob.glob(str(pattern), recursive=True), key=natural):
    path = pathlib.Path(name)
    if path.is_file():
      yield path, to / path.relative_to(base)


def _with_ending(
  path: pathlib.Path, config: Config, options: Options, *, is_medical: bool
) -> pathlib.Path:
  """Replaces an ending by that of the output's format."""
  suffix = path.suffix.lower()
  if suffix in _CLIPS:
    return clips.clip_target(path)
  if options.file_format != 'auto':
    stem, _ = split_ending(path.name)
    return path.with_name(stem + ENDINGS[options.file_format])
  if is_medical:
    return path
  if suffix not in _KEPT_ENDINGS:
    path = path.with_suffix('.png')
  domain = options.direction[1]
  dtype = values_of(config.data, domain).dtype
  if holds(path.suffix.lower(), dtype, config.channels(domain)):
    return path
  return path.with_suffix('.tif')


def medical_kind(path: pathlib.Path) -> str:
  """'nifti', 'dicom' or '' for an input, which may have no ending."""
  kind = kind_by_name(path.name)
  if kind == 'dicom' and not split_ending(path.name)[1]:
    return kind if is_dicom_file(str(path)) else ''
  return kind


def _distinct(
  targets: dict[pathlib.Path, pathlib.Path],
) -> dict[pathlib.Path, pathlib.Path]:
  """Keeps the whole name of inputs that differ in the ending: a.jpg.png."""
  counts = collections.Counter(targets.values())
  return {
    source: target.with_name(source.name + split_ending(target.name)[1])
    if counts[target] > 1
    and split_ending(target.name)[1] != split_ending(source.name)[1]
    else target
    for source, target in targets.items()
  }


def _make_jobs(
  targets: dict[pathlib.Path, pathlib.Path], to: pathlib.Path, samples: int
) -> Iterator[Job]:
  for source, target in targets.items():
    for sample in range(samples):
      stem, ending = split_ending(target.name)
      stem = f'{stem}_{sample + 1}' if samples > 1 else stem
      path = target.with_name(stem + ending)
      yield Job(source, path, path.relative_to(to).as_posix(), sample)
