"""Pre-flight checks: options and images, before the first step."""

import collections
import contextlib
import dataclasses
import logging
import pathlib
from collections.abc import (
  Callable,
  Collection,
  Iterator,
  Mapping,
  Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import rich.console

from cyclegan_jax.config import (
  DEFAULT_CHECKPOINTS,
  DEFAULT_SHEETS,
  Config,
  differences,
  options_without_effect,
  source_options,
  value_at,
)
from cyclegan_jax.data.image_list import Images
from cyclegan_jax.data.pairs import training_pairs
from cyclegan_jax.data.ranges import resolve_values
from cyclegan_jax.data.resizing import raw_size, too_small
from cyclegan_jax.errors import (
  ConfigError,
  DataError,
  ImageError,
  UserError,
)
from cyclegan_jax.media.listing import describe_others
from cyclegan_jax.media.metadata import Header
from cyclegan_jax.media.value_range import (
  FULL,
  raw_dtype,
  values_of,
)
from cyclegan_jax.optimizers import decay_epochs
from cyclegan_jax.state import TrainState
from cyclegan_jax.terminal import track
from cyclegan_jax.training import processes

# Headers of more files than this would hold up the start of a run.
_MAX_HEADERS = 20_000
_MAX_SURVEYED = 2000


def resolve(
  config: Config,
  images: Mapping[str, Images],
  *,
  saved: Config | None = None,
  other_domains: Collection[str] = (),
  init_sha256: str = '',
) -> Config:
  """Fills in the options that depend on the data and on the machine.

  Args:
    config: as the user gave it.
    images: 'train_a' and 'train_b'.
    saved: the resolved config of the run to resume, if there is one; what
      the user left open is taken from it.
    other_domains: domains that the run is changed to other training images
      of, so that its epochs have another length.
    init_sha256: checksum of the networks that a new run starts from.

  Returns:
    A config whose counts and value ranges are all set.

  Raises:
    ConfigError: the batch cannot be divided over the devices, the images have
      another dtype than the config, or the generators would never be trained.
    DataError: the images' values have no range.
  """
  num_devices = config.num_devices or jax.device_count()
  if num_devices > jax.device_count():
    raise ConfigError(
      f'config.num_devices={num_devices}, but there are only '
      f'{jax.device_count()}: lower it, or 0 to use all'
    )
  if processes.count() > 1 and num_devices != jax.device_count():
    raise ConfigError(
      f'config.num_devices={num_devices}, but several processes use all their '
      f'{jax.device_count()} devices: set 0, or start fewer'
    )
  if config.batch_size % num_devices:
    raise ConfigError(
      f'config.batch_size={config.batch_size} cannot be divided over '
      f'{num_devices} devices: make it a multiple of {num_devices}, or set '
      'config.num_devices'
    )
  local_size = config.batch_size // num_devices
  if local_size % config.accumulate:
    raise ConfigError(
      f'config.accumulate={config.accumulate} does not divide the {local_size} '
      'pairs that a device has of config.batch_size='
      f'{config.batch_size}: change one of them'
    )
  data = resolve_values(
    config.data,
    images,
    saved=saved.data if saved else None,
    other_domains=other_domains,
  )
  if not data.load_size:
    same_size = saved is not None and saved.data.size == data.size
    load_size = saved.data.load_size if saved and same_size else 0
    data = dataclasses.replace(
      data, load_size=load_size or data.size_before_crop
    )
  larger = max(len(images['train_a']), len(images['train_b']))
  steps_per_epoch = config.steps_per_epoch or -(-larger // config.batch_size)
  has_same_epochs = (
    saved and saved.batch_size == config.batch_size and not other_domains
  )
  if saved and has_same_epochs and not config.steps_per_epoch:
    steps_per_epoch = saved.steps_per_epoch
  steps = config.steps or config.epochs * steps_per_epoch
  if config.warmup_steps >= steps:
    raise ConfigError(
      f'config.warmup_steps={config.warmup_steps} leaves the generators none '
      f'of the {steps} steps: lower it, or raise config.epochs'
    )
  epochs = -(-steps // steps_per_epoch)
  schedule = config.schedule
  if schedule.decay_epochs < 0 and (saved or schedule.name == 'linear'):
    decay = (saved.schedule if saved else schedule).decay_epochs
    if decay < 0 and schedule.name == 'linear':
      decay = decay_epochs(schedule, epochs)
    schedule = dataclasses.replace(schedule, decay_epochs=decay)
  return config.replace(
    data=data,
    schedule=schedule,
    init_sha256=init_sha256
    or config.init_sha256
    or (saved.init_sha256 if saved else ''),
    num_devices=num_devices,
    steps_per_epoch=steps_per_epoch,
    steps=steps,
    epochs=epochs,
    log={
      'samples_every_steps': config.log.samples_every_steps
      or max(1, steps // DEFAULT_SHEETS)
    },
    checkpoint={
      'every_steps': config.checkpoint.every_steps
      or max(1, steps // DEFAULT_CHECKPOINTS)
    },
  )


def check_effects(
  config: Config, explicit: Collection[str], *, is_new: bool
) -> None:
  """Warns of options that have no effect beside the others.

  Args:
    config: as the user gave it.
    explicit: paths of the options that the user set for this run; those of a
      recipe may be meant for other values of other options.
    is_new: whether the run is not a resumed one.

  Raises:
    ConfigError: a new run would not read the images that the user named.
  """
  paths = dict.fromkeys(explicit)
  sources = [f'config.data.{name}' for name in source_options()]
  if config.data.name == 'embedded':
    # No recipe names images and does not use them.
    paths |= dict.fromkeys(sources)
  for path, remedy in options_without_effect(config, paths).items():
    text = f'{path}={value_at(config, path)!r} has no effect'
    if path in sources and is_new:
      raise ConfigError(
        f'{text} with config.data.name={config.data.name!r}: set {remedy}'
      )
    logging.getLogger('cyclegan_jax').warning('%s: it needs %s', text, remedy)


@contextlib.contextmanager
def held_warnings() -> Iterator[None]:
  """Holds back the warnings of the package, and logs them at the end."""
  logger, records = logging.getLogger('cyclegan_jax'), []

  def hold(record: logging.LogRecord) -> bool:
    records.append(record)
    return False

  logger.addFilter(hold)
  try:
    yield
  finally:
    logger.removeFilter(hold)
    for record in records:
      logger.handle(record)


def check_images(config: Config, images: Mapping[str, Images]) -> None:
  """Checks sizes and pairs of the training images, by their headers.

  Headers that cannot be read are ignored here: the loader counts them.

  Raises:
    UserError: an image is smaller than the crop, or the config requires pairs
      and there are none.
  """
  training_pairs(config, images)
  if config.data.preprocess != 'crop':
    return
  for split in ('train_a', 'train_b'):
    split_images = images[split]
    shape_of = split_images.shape_of
    if shape_of is None:
      continue

    def check(
      index: int, split_images: Images = split_images, shape_of: Any = shape_of
    ) -> None:
      try:
        height, width = shape_of(index)
      except ImageError:
        return
      if min(height, width) < config.data.size:
        name = split_images.names[index]
        raise DataError(too_small(name, height, width, config.data))

    indices = _evenly(split_images, _MAX_HEADERS)
    for _ in _in_threads(check, indices, f'checking {split}', config):
      pass


def _evenly(images: Images, limit: int) -> range:
  """Indices of at most `limit` images."""
  return range(0, len(images), max(1, -(-len(images) // limit)))


def _in_threads(
  function: Callable[[int], Any], indices: range, title: str, config: Config
) -> Iterator[Any]:
  """Yields the function's results in order, with a progress bar."""
  threads = ThreadPoolExecutor(max(1, config.data.num_workers))
  try:
    yield from track(
      threads.map(function, indices),
      title,
      len(indices),
      quiet=not processes.is_first(),
    )
  finally:  # do not wait for a disk that hangs
    threads.shutdown(wait=False, cancel_futures=True)


def survey(config: Config, images: Mapping[str, Images]) -> dict[str, str]:
  """Describes what training leaves out of the files, or converts.

  Args:
    config: resolved.
    images: of both splits of both domains.

  Returns:
    Texts for `print_facts` by name; {} where there is nothing to say.
  """
  left_out, converted, roots = list[str](), list[str](), set[str]()
  for split, split_images in images.items():
    if split_images.root in roots:
      continue  # training images in place of test images
    roots.add(split_images.root)
    if split_images.other_files:
      left_out.append(f'{describe_others(split_images.other_files)} in {split}')
    header_of = split_images.header_of
    if header_of is None or not split.startswith('train'):
      continue

    def read(index: int, header_of: Any = header_of) -> Header | None:
      try:
        return header_of(index)
      except UserError:
        return None  # the decoder will report it

    indices = _evenly(split_images, _MAX_SURVEYED)
    found = _in_threads(read, indices, f'surveying {split}', config)
    headers = [header for header in found if header]
    where = split
    if len(indices) < len(split_images):
      where = f'{len(indices):,} of {len(split_images):,} files of {split}'
    left_out += [f'{text} in {where}' for text in _further_frames(headers)]
    converted += [
      f'{text} in {where}' for text in _conversions(headers, config, split[-1])
    ]
  facts = {'left out': left_out, 'converted': converted}
  return {name: '; '.join(texts) for name, texts in facts.items() if texts}


def _further_frames(headers: Sequence[Header]) -> Iterator[str]:
  for is_tiff, kind in ((True, 'pages'), (False, 'frames')):
    counts = [
      header.num_frames - 1
      for header in headers
      if header.is_tiff == is_tiff and header.num_frames > 1
    ]
    if counts:
      files = 'file' if len(counts) == 1 else 'files'
      yield f'{sum(counts):,} {kind} after the first of {len(counts):,} {files}'


def _conversions(
  headers: Sequence[Header], config: Config, domain: str
) -> Iterator[str]:
  channels = config.channels(domain)
  kinds = collections.Counter(
    (header.colors, header.dtype) for header in headers
  )
  num_gray = sum(count for (colors, _), count in kinds.items() if colors == 1)
  num_colored = len(headers) - num_gray
  option = f'config.data.channels_{domain}'
  if num_gray and channels == 3:
    yield f'{num_gray:,} gray to {channels} channels ({option}={channels})'
  if num_colored and channels == 1:
    yield f'{num_colored:,} colored to gray ({option}={channels})'
  trained = values_of(config.data, domain).dtype
  for dtype, full in FULL.items():
    count = sum(count for (_, each), count in kinds.items() if each == dtype)
    if count and dtype != trained:
      yield (
        f'{count:,} of {dtype}, by its full range 0 to {full:g}, to {trained}'
      )


def num_parameters(params: Any) -> int:
  """Number of scalars in a tree."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def num_bytes(tree: Any) -> int:
  """Bytes of a tree's arrays, which may be abstract."""
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def check_memory(config: Config, num_bytes: int | None) -> None:
  """Compares a step's memory with the device's, where both are known.

  Raises:
    ConfigError: a step takes more than the device has.
  """
  stats = jax.local_devices()[0].memory_stats() or {}
  limit = stats.get('bytes_limit')
  if num_bytes is not None and limit is not None and num_bytes > limit:
    raise ConfigError(
      f'a step takes {gib(num_bytes)}, but a device has {gib(limit)}: lower '
      f'config.batch_size={config.batch_size}, config.data.size='
      f'{config.data.size} or config.generator.filters='
      f'{config.generator.filters}'
    )


def gib(num_bytes: int) -> str:
  """Formats a size in memory."""
  if num_bytes < 2**30:
    return f'{num_bytes / 2**20:.1f} MiB'
  return f'{num_bytes / 2**30:.1f} GiB'


def describe(
  config: Config, images: Mapping[str, Images], state: TrainState
) -> dict[str, str]:
  """Facts about a run, for the table that is printed before the first step.

  Args:
    config: resolved.
    images: of both splits of both domains.
    state: the initial state.

  Returns:
    Texts by name; settings that have no effect are among them.
  """
  sizes = {split: f'{len(images[split]):,}' for split in images}
  a, b = (config.data.name_of(domain) for domain in 'ab')
  facts = {
    'training images': f'{sizes["train_a"]} of {a}, {sizes["train_b"]} of {b}',
    'test images': f'{sizes["test_a"]} of {a}, {sizes["test_b"]} of {b}',
    'generators': f'{config.generator.name}, '
    f'{num_parameters(state.gen):,} parameters in both',
    'discriminators': f'{config.discriminator.name}, '
    f'{num_parameters(state.disc):,} parameters in both',
    'devices': f'{config.num_devices} x {jax.local_devices()[0].device_kind}'
    + (f' in {processes.count()} processes' if processes.count() > 1 else ''),
    'steps': f'{config.steps:,} of {config.batch_size} pairs, '
    f'{config.steps_per_epoch:,} per epoch',
    'cache': f'up to {gib(_cache_bytes(config, images))} of decoded images',
  }
  values = {domain: values_of(config.data, domain) for domain in 'ab'}
  if not all(each.is_plain for each in values.values()):
    facts['values'] = ', '.join(
      f'{text} of {config.data.name_of(domain)}'
      for domain, text in values.items()
    )
  if pairs := training_pairs(config, images):
    share = f'{config.data.paired_share:.0%}'
    facts['pairs'] = f'{len(pairs):,}, which are {share} of the examples'
  if config.warmup_steps:
    facts['warm-up'] = (
      f'only the discriminators are trained for {config.warmup_steps:,} steps'
    )
  return facts | _ineffective_options(config)


def _cache_bytes(config: Config, images: Mapping[str, Images]) -> int:
  """Bytes of decoded training images, at most."""
  limit = int(config.data.cache_gib * 2**30)
  if config.data.preprocess in ('crop', 'scale_and_crop'):
    return limit  # sizes differ between images
  height, width = raw_size(config.data)
  bytes_per_pixel = sum(
    len(images[f'train_{domain}'])
    * config.channels(domain)
    * np.dtype(raw_dtype(config.data, domain)).itemsize
    for domain in 'ab'
  )
  return min(limit, height * width * bytes_per_pixel)


def _ineffective_options(config: Config) -> dict[str, str]:
  """Options that another option disables: texts by name."""
  facts = {}
  if max(config.loss.identity_a, config.loss.identity_b) and (
    not config.uses_identity
  ):
    facts['identity loss'] = (
      f'off: a has {config.data.channels_a} channels and b '
      f'{config.data.channels_b}'
    )
  discriminator = config.discriminator
  if discriminator.spectral_norm and discriminator.norm != 'none':
    facts['spectral norm'] = (
      f'has no effect before a {discriminator.norm} norm: set '
      "config.discriminator.norm='none'"
    )
  if config.loss.adversarial == 'wgan_gp' and discriminator.norm == 'batch':
    facts['gradient penalty'] = (
      'is defined for each image alone, but batch norm mixes images: set '
      "config.discriminator.norm='instance' (arXiv:1704.00028, section 4)"
    )
  return facts


def print_facts(
  config: Config,
  facts: Mapping[str, str],
  workdir: pathlib.Path,
  start_step: int,
  console: rich.console.Console,
) -> None:
  """Prints the options that differ from the defaults, and facts of a run.

  Args:
    config: as the user gave it, so that counts of 0 are not printed.
    facts: texts by name.
    workdir: the run's folder.
    start_step: the step from which a run is resumed; 0 for a new run.
    console: destination.
  """
  changed = differences(Config(), config)
  lines = [
    f'{path}={value!r}  (default {default!r})'
    for path, (default, value) in changed.items()
  ]
  width = max(len(name) for name in facts) + 2
  rows = {**facts, 'folder': str(workdir)}
  lines += [f'{name:{width}}{text}' for name, text in rows.items()]
  if start_step:
    lines.append(f'resuming from step {start_step:,}')
  for line in lines:
    # Soft wrap keeps paths in one piece.
    console.print(line, markup=False, highlight=False, soft_wrap=True)
