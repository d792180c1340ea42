"""Files in, translated files out: images, animated GIFs and videos."""

import collections
import dataclasses
import errno
import functools
import glob
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import rich.console
import rich.progress

from cyclegan_jax import checkpoint, images
from cyclegan_jax.config import Config, Direction
from cyclegan_jax.data import clips
from cyclegan_jax.data.decoding import EXTENSIONS, ImageError, printable
from cyclegan_jax.data.files import list_images, natural
from cyclegan_jax.data.large_tiff import TiffReader, TiffWriter
from cyclegan_jax.data.photo import (
  Photo,
  holds,
  read_icc,
  read_photo,
  values_for,
  write_photo,
)
from cyclegan_jax.data.resizing import resize_to
from cyclegan_jax.data.values import values_of
from cyclegan_jax.errors import (
  ConfigError,
  DataError,
  UserError,
  WorkdirError,
)
from cyclegan_jax.manifest import MANIFEST_FILE
from cyclegan_jax.report.translations import PAGE_FILE, TranslationGallery
from cyclegan_jax.translator import Translator
from cyclegan_jax.workdir import explain_disk_errors, replace_text

RECORD_FILE = '.translated.json'
ENDINGS = {'png': '.png', 'tiff': '.tif', 'jpeg': '.jpg', 'webp': '.webp'}

_CLIPS = clips.GIF_EXTENSIONS + clips.VIDEO_EXTENSIONS
_TIFF_ENDINGS = ('.tif', '.tiff')
_KEPT_ENDINGS = ('.png', *_TIFF_ENDINGS)  # what holds any depth
# Above it a TIFF file is read and written by windows, where that can be.
_IN_MEMORY_PIXELS = 2**25
# What is wrong with one path, not with the disk.
_OF_ONE_FILE = (
  *(errno.EACCES, errno.EEXIST, errno.EISDIR, errno.ELOOP),
  *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.EPERM),
)
_NUM_THREADS = 2  # that read and write while the network works


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


class Outcome(NamedTuple):
  """What came of the inputs."""

  num_made: int  # outputs
  num_kept: int  # outputs that were there
  failed: list[str]  # a message for each input that was not translated
  page: pathlib.Path | None  # of the gallery


class _Job(NamedTuple):
  source: pathlib.Path
  target: pathlib.Path
  name: str  # of the target below the folder of outputs
  sample: int


class _Plan(NamedTuple):
  jobs: list[_Job]  # of this shard
  failed: list[str]  # what can't be one
  num_stills: int  # of all shards
  names: list[str]  # of all shards' outputs


def translate_files(
  run: pathlib.Path,
  inputs: Sequence[pathlib.Path],
  to: pathlib.Path,
  options: Options = Options(),
) -> Outcome:
  """Translates files, folders of them, and what patterns match.

  An output has its input's size, depth and name, and its place below the
  folder that was given. It is written whole or not at all, and one that is
  there is kept, so that the same call goes on after a stop.

  Args:
    run: a run's folder, or one of its checkpoints.
    inputs: files, folders, and patterns with * ? [] and **.
    to: folder of the outputs.
    options: see there.

  Raises:
    UserError: the checkpoint, the options or the output folder can't be used,
      or there is no input.
  """
  found = checkpoint.find(run, direction=options.direction)
  config = found.config
  if options.samples > 1 and not config.generator.dropout:
    raise ConfigError(
      f'--samples={options.samples}, but this generator has no dropout: it '
      'gives the same each time'
    )
  jobs, failed, num_stills, names = _plan(inputs, to, config, options)
  work = _Work(config, found.state.translators, to, options, num_stills)
  with explain_disk_errors(to, option='--to'):
    to.mkdir(parents=True, exist_ok=True)
    description = _description(found.path, options)
    foreign = _claim(to, names, description, options)
    failed += [
      f'{printable(str(job.source))} is not translated: '
      f'{printable(str(job.target))} is there and was not made by this '
      'command: give another --to'
      for job in jobs
      if job.name in foreign
    ]
    jobs = [job for job in jobs if job.name not in foreign]
    done = [job for job in jobs if not options.overwrite and work.is_done(job)]
    kept = set(done)
    left = [job for job in jobs if job not in kept]
    with rich.progress.Progress(
      *rich.progress.Progress.get_default_columns(),
      rich.progress.MofNCompleteColumn(),
      console=rich.console.Console(stderr=True),
    ) as progress:
      failed += work.run(left, progress)
    page = work.gallery.finish() if work.gallery else None
  return Outcome(work.num_made, len(done), failed, page)


def _description(path: pathlib.Path, options: Options) -> dict[str, Any]:
  """What the outputs in a folder have in common."""
  manifest = (path / MANIFEST_FILE).read_bytes()
  return {
    'checkpoint': f'{path} {hashlib.sha256(manifest).hexdigest()[:16]}',
    'direction': options.direction,
    'seed': options.seed,
    'size': None if options.size is None else list(options.size),
  }


def _claim(
  to: pathlib.Path,
  names: list[str],
  description: dict[str, Any],
  options: Options,
) -> set[str]:
  """The names that are taken by files which are not this command's.

  A record in the folder tells that the others are its outputs, and of what.

  Raises:
    ConfigError: they are of something else.
  """
  record = to / RECORD_FILE
  try:
    known = json.loads(record.read_text(encoding='utf-8'))
    old = {name: known[name] for name in description}
    foreign = set(map(str, known['foreign']))
  except FileNotFoundError:
    page = to / PAGE_FILE
    if options.gallery and page.exists():
      raise ConfigError(
        f'{page} is there and was not made by this command: give another --to'
      ) from None
    old = description
    foreign = {name for name in names if (to / name).exists()}
  except (ValueError, TypeError, KeyError) as error:
    raise ConfigError(
      f'{record} is damaged, so what is beside it may not be ours: give '
      'another --to'
    ) from error
  differs = [
    f'{name}: {old[name]} -> {new}'
    for name, new in description.items()
    if old[name] != new
  ]
  if differs and not options.overwrite:
    raise ConfigError(
      f'{to} holds translations of another kind ({"; ".join(differs)}): give '
      'another --to, or --overwrite to make them anew'
    )
  # Theirs for as long as they are there, whatever is asked for later.
  foreign = {name for name in foreign if (to / name).exists()}
  replace_text(record, json.dumps({**description, 'foreign': sorted(foreign)}))
  return foreign


def _plan(
  inputs: Sequence[pathlib.Path],
  to: pathlib.Path,
  config: Config,
  options: Options,
) -> _Plan:
  pairs: dict[pathlib.Path, pathlib.Path] = {}
  jobs, failed, taken = list[_Job](), list[str](), dict[pathlib.Path, Any]()
  for each in inputs:
    found = dict(_find(each, to))
    if not found:
      failed.append(f'{printable(str(each))} holds no images')
    pairs |= found
  if not pairs:
    names = ', '.join(printable(str(each)) for each in inputs)
    raise DataError(f'no images in {names}: give images, or folders of them')
  targets = {
    source: _with_ending(path, config, options)
    for source, path in pairs.items()
  }
  counts = collections.Counter(targets.values())
  sources = {source.resolve() for source in pairs}
  for source, target in targets.items():
    if counts[target] > 1 and target.suffix != source.suffix:
      # a.jpg beside a.png: both names are kept whole.
      target = target.with_name(source.name + target.suffix)
    other = taken.setdefault(target, source)
    for sample in range(options.samples):
      if options.samples > 1:
        stem = f'{target.stem}_{sample + 1}'
        named = target.with_name(stem + target.suffix)
      else:
        named = target
      if named.resolve() in sources:
        failed.append(
          f'{printable(str(source))} is not translated: '
          f'{printable(str(named))}, an input, would be overwritten: give '
          'another --to'
        )
      elif other != source:
        failed.append(
          f'{printable(str(source))} is not translated: '
          f'{printable(str(named))} is made from {printable(str(other))}: '
          'rename one, or give it another --to'
        )
      else:
        name = named.relative_to(to).as_posix()
        jobs.append(_Job(source, named, name, sample))
  share, num_shares = options.shard
  num_stills = sum(job.source.suffix.lower() not in _CLIPS for job in jobs)
  return _Plan(
    jobs[share - 1 :: num_shares],
    failed if share == 1 else [],
    num_stills,
    [job.name for job in jobs],
  )


def _find(
  given: pathlib.Path, to: pathlib.Path
) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
  """Each file that is meant, and its place below `to`."""
  if given.is_dir():
    if to.resolve().is_relative_to(given.resolve()):
      raise DataError(
        f'--to {printable(str(to))} lies in {printable(str(given))}, which is '
        'an input: outputs would be inputs next time; give a folder outside '
        'of it'
      )
    found = list_images(str(given), extensions=EXTENSIONS + _CLIPS)
    for name in found.images:
      yield pathlib.Path(name), to / os.path.relpath(name, given)
  elif glob.has_magic(str(given)) and not given.exists():
    parts = given.parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    base = pathlib.Path(*parts[:fixed])
    for name in sorted(glob.glob(str(given), recursive=True), key=natural):
      path = pathlib.Path(name)
      if path.is_file():
        yield path, to / path.relative_to(base)
  else:
    yield given, to / given.name


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


# What waits for a batch, by what has to be equal in it.
_Groups: TypeAlias = 'dict[tuple, list[tuple[_Job, Photo]]]'


class _Work:
  """The networks, and what they are applied to."""

  def __init__(
    self,
    config: Config,
    generators: dict,
    to: pathlib.Path,
    options: Options,
    num_stills: int,
  ):
    self._config = config
    self._options = options
    # Scratch files go where the outputs do: /tmp may be in memory.
    make = functools.partial(
      Translator, config, generators, seed=options.seed, scratch=to
    )
    direction = options.direction
    self._translators = [
      make(direction, sample=sample) for sample in range(options.samples)
    ]
    back: Direction = 'ba' if direction == 'ab' else 'ab'
    self._back = make(back) if options.gallery else None
    self.gallery = (
      TranslationGallery(
        to,
        title=to.resolve().name,
        direction=direction,
        total=num_stills,
      )
      if options.gallery
      else None
    )
    self.num_made = 0
    self._max_pixels = options.max_pixels or config.data.max_pixels

  def is_done(self, job: _Job) -> bool:
    """Whether the job's output is there, and shown where it has to be."""
    return job.target.is_file() and (
      self.gallery is None
      or job.source.suffix.lower() in _CLIPS
      or self.gallery.has(job.name)
    )

  def run(
    self, jobs: Sequence[_Job], progress: rich.progress.Progress
  ) -> list[str]:
    """Translates; returns a message for each that could not be."""
    self._progress = progress
    failed = []
    bar = progress.add_task('translating', total=len(jobs))
    stills = [j for j in jobs if j.source.suffix.lower() not in _CLIPS]
    for failure in self._stills(stills):
      failed += [failure] if failure else []
      progress.advance(bar)
    for job in jobs:
      if job.source.suffix.lower() in _CLIPS:
        try:
          self._clip(job, progress)
          self.num_made += 1
        except WorkdirError:
          raise
        except UserError as error:  # of the file, or a package is missing
          failed.append(str(error))
        progress.advance(bar)
    return failed

  def _stills(self, jobs: Sequence[_Job]) -> Iterator[str]:
    """Yields for each job what went wrong, or ''."""
    large = {job for job in jobs if self._is_large(job)}
    for job in large:
      yield self._large(job)
    jobs = [job for job in jobs if job not in large]
    size = self._options.batch_size
    groups: _Groups = collections.defaultdict(list)
    writes = collections.deque[Future[str]]()
    with ThreadPoolExecutor(_NUM_THREADS, 'files') as pool:

      def translate(group: list[tuple[_Job, Photo]]) -> None:
        for made in self._translate(group):
          writes.append(pool.submit(self._write, *made))

      for job, read in _ahead(pool, self._read, jobs, size + _NUM_THREADS):
        try:
          photo = read()
        except UserError as error:
          yield str(error)
          continue
        group = groups[photo.pixels.shape, photo.pixels.dtype.str, job.sample]
        group.append((job, photo))
        if len(group) == size:
          translate(group)
          group.clear()
        elif sum(map(len, groups.values())) > 4 * size:
          _each_alone(groups, translate)
        while len(writes) > 2 * size:
          yield self._counted(writes.popleft())
      _each_alone(groups, translate)
      for each in writes:
        yield self._counted(each)

  def _counted(self, write: Future[str]) -> str:
    failure = write.result()
    self.num_made += not failure
    return failure

  def _is_large(self, job: _Job) -> bool:
    """Whether it is better not to have the whole image in memory."""
    if job.source.suffix.lower() not in _TIFF_ENDINGS or self._options.size:
      return False
    if job.target.suffix.lower() not in _TIFF_ENDINGS or self.gallery:
      return False
    try:
      with self._open_large(job) as image:
        height, width, _ = image.shape
        most = max(self._translators[0].whole_pixels, _IN_MEMORY_PIXELS)
        return height * width > most
    except (DataError, ValueError):  # which is told when it is read whole
      return False

  def _open_large(self, job: _Job) -> TiffReader:
    channels = self._config.channels(self._options.direction[0])
    return TiffReader(
      job.source, channels=channels, max_pixels=self._max_pixels
    )

  def _large(self, job: _Job) -> str:
    """Translates window by window; what went wrong, or ''."""
    translator = self._translators[job.sample]
    bar = self._progress.add_task(printable(job.source.name))
    job.target.parent.mkdir(parents=True, exist_ok=True)
    try:
      with self._open_large(job) as image:
        height, width, _ = image.shape
        _, of_output = values_for(
          np.empty(0, image.dtype),
          self._config.data,
          self._options.direction,
          name=str(job.source),
        )
        channels = self._config.channels(self._options.direction[1])
        shape = (height, width, channels)
        icc = read_icc(str(job.source), channels, self._max_pixels)
        with TiffWriter(job.target, shape, of_output.dtype, icc) as output:
          translator.translate_windows(
            image.read,
            output.write,
            (height, width),
            image.dtype,
            on_progress=lambda done, total: self._progress.update(
              bar, completed=done, total=total
            ),
          )
          output.finish()
    except WorkdirError:
      raise
    except UserError as error:
      return str(error)
    finally:
      self._progress.remove_task(bar)
    self.num_made += 1
    return ''

  def _read(self, job: _Job) -> Photo:
    domain = self._options.direction[0]
    photo = read_photo(
      str(job.source),
      channels=self._config.channels(domain),
      max_pixels=self._max_pixels,
    )
    values_for(
      photo.pixels,
      self._config.data,
      self._options.direction,
      name=str(job.source),
    )
    return self._resized(photo, job)

  def _new_size(self, shape: tuple[int, ...], job: _Job) -> tuple[int, int]:
    """(height, width) by --size."""
    assert self._options.size is not None
    height, width = shape
    new_width, new_height = self._options.size
    new_width = new_width or max(1, round(width * new_height / height))
    new_height = new_height or max(1, round(height * new_width / width))
    if new_width * new_height > self._max_pixels:
      raise DataError(
        f'{printable(str(job.source))} is not translated: {new_width} x '
        f'{new_height} are more than {self._max_pixels} pixels: lower --size, '
        'or raise --max-pixels'
      )
    return new_height, new_width

  def _resized(self, photo: Photo, job: _Job) -> Photo:
    if self._options.size is None:
      return photo
    new_height, new_width = self._new_size(photo.pixels.shape[:2], job)

    def resize(pixels: np.ndarray) -> np.ndarray:
      return resize_to(pixels, new_height, new_width, self._config.data)

    alpha = photo.alpha
    if alpha is not None:
      alpha = resize(alpha[..., None])[..., 0]
    return photo._replace(pixels=resize(photo.pixels), alpha=alpha)

  def _translate(
    self, group: list[tuple[_Job, Photo]]
  ) -> Iterator[tuple[_Job, Photo, np.ndarray]]:
    first = group[0][1].pixels
    of_input, of_output = values_for(
      first, self._config.data, self._options.direction
    )
    stacked = np.stack([photo.pixels for _, photo in group])
    translator = self._translators[group[0][0].sample]
    source = of_input.to_network(stacked)
    translated = np.asarray(translator(source))
    pixels = of_output.from_network(translated)
    if self.gallery and self._back:
      back = np.asarray(self._back(translated))
      for (job, _), *shown in zip(group, source, translated, back, strict=True):
        self.gallery.add(job.name, *shown)
    for (job, photo), each in zip(group, pixels, strict=True):
      yield job, photo, each

  def _write(self, job: _Job, photo: Photo, pixels: np.ndarray) -> str:
    try:
      job.target.parent.mkdir(parents=True, exist_ok=True)
      write_photo(str(job.target), pixels, like=photo)
    except UserError as error:
      return str(error)
    except OSError as error:
      if error.errno not in _OF_ONE_FILE:
        raise
      name = printable(str(job.target))
      return f"{name} can't be written: {error.strerror}"
    return ''

  def _clip(self, job: _Job, progress: rich.progress.Progress) -> None:
    channels = self._config.channels(self._options.direction[0])
    if {channels, self._config.channels(self._options.direction[1])} - {1, 3}:
      raise ImageError(
        str(job.source), 'clips are grey or RGB, as this generator is not'
      )
    job.target.parent.mkdir(parents=True, exist_ok=True)
    common: dict[str, Any] = {
      'channels': channels,
      'batch_size': self._options.batch_size,
      'max_pixels': self._max_pixels,
    }
    convert = functools.partial(self._convert, job)
    if job.source.suffix.lower() in clips.GIF_EXTENSIONS:
      clips.convert_gif(job.source, job.target, convert, **common)
      return
    bar = progress.add_task(printable(job.source.name), total=None)
    try:
      clips.convert_video(
        job.source,
        job.target,
        convert,
        on_frame=lambda done, total: progress.update(
          bar, completed=done, total=total
        ),
        **common,
      )
    finally:
      progress.remove_task(bar)

  def _convert(self, job: _Job, frames: np.ndarray) -> np.ndarray:
    if self._options.size is not None:
      height, width = self._new_size(frames.shape[1:3], job)
      frames = np.stack(
        [resize_to(each, height, width, self._config.data) for each in frames]
      )
    translator = self._translators[job.sample]
    return images.to_uint8(translator(images.to_float(frames)))


def _each_alone(
  groups: _Groups, translate: Callable[[list[tuple[_Job, Photo]]], None]
) -> None:
  """Translates what waits, one by one: each number would be compiled."""
  for group in groups.values():
    for each in group:
      translate([each])
  groups.clear()


def _ahead(
  pool: ThreadPoolExecutor,
  read: Callable[[_Job], Photo],
  jobs: Sequence[_Job],
  depth: int,
) -> Iterator[tuple[_Job, Callable[[], Photo]]]:
  """Each job with a function that waits for its photo, `depth` read ahead."""
  futures = collections.deque[Future[Photo]]()
  for index, job in enumerate(jobs):
    while len(futures) < depth and index + len(futures) < len(jobs):
      futures.append(pool.submit(read, jobs[index + len(futures)]))
    yield job, futures.popleft().result
