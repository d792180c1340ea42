"""What is settled, checked and told before the first step."""

import pathlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import rich.console
import rich.progress

from cyclegan_jax.config import Config, to_config_dict
from cyclegan_jax.data.pairs import training_pairs
from cyclegan_jax.data.ranges import resolve_values
from cyclegan_jax.data.resizing import raw_size, too_small
from cyclegan_jax.data.sources import ImageError, Images
from cyclegan_jax.errors import ConfigError, DataError
from cyclegan_jax.media.value_range import (
  raw_dtype,
  values_of,
)
from cyclegan_jax.state import TrainState
from cyclegan_jax.training import processes

# Headers of more files than this would hold up the start of a run.
_MAX_HEADERS = 20_000


def resolve(
  config: Config,
  images: Mapping[str, Images],
  *,
  saved: Config | None = None,
  init_sha256: str = '',
) -> Config:
  """Fills in what depends on the data and on the machine.

  Args:
    config: as the user gave it.
    images: 'train_a' and 'train_b'.
    saved: the resolved config of the run to go on with, if there is one; its
      epochs keep their length, and its images their range of values.
    init_sha256: of the networks that a new run begins with.

  Returns:
    A config whose counts and values are all set.

  Raises:
    ConfigError: the batch can't be divided over the devices, the images are
      not of the type asked for, or the generators would never learn.
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
      f'config.batch_size={config.batch_size} can not be divided over '
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
    config.data, images, saved=saved.data if saved else None
  )
  larger = max(len(images['train_a']), len(images['train_b']))
  steps_per_epoch = config.steps_per_epoch or (
    saved.steps_per_epoch if saved else -(-larger // config.batch_size)
  )
  steps = config.steps or config.epochs * steps_per_epoch
  if config.warmup_steps >= steps:
    raise ConfigError(
      f'config.warmup_steps={config.warmup_steps} leaves the generators none '
      f'of the {steps} steps: lower it, or raise config.epochs'
    )
  return config.replace(
    data=data,
    init_sha256=init_sha256
    or config.init_sha256
    or (saved.init_sha256 if saved else ''),
    num_devices=num_devices,
    steps_per_epoch=steps_per_epoch,
    steps=steps,
    epochs=-(-steps // steps_per_epoch),
    log={
      'samples_every_steps': config.log.samples_every_steps
      or max(1, steps // 16)
    },
    checkpoint={
      'every_steps': config.checkpoint.every_steps or max(1, steps // 10)
    },
  )


def check_images(config: Config, images: Mapping[str, Images]) -> None:
  """Reads the headers of the training images, in threads.

  A header that can't be read is left to the decoder, which counts it.

  Raises:
    UserError: an image is smaller than the crop, or there are no pairs where
      the config asks for them.
  """
  training_pairs(config, images)
  if config.data.preprocess != 'crop':
    return
  for split in ('train_a', 'train_b'):
    of_split = images[split]
    shape_of = of_split.shape_of
    if shape_of is None:
      continue
    stride = -(-len(of_split) // _MAX_HEADERS)
    indices = range(0, len(of_split), stride)

    def check(
      index: int, of_split: Images = of_split, shape_of: Any = shape_of
    ) -> None:
      try:
        height, width = shape_of(index)
      except ImageError:
        return
      if min(height, width) < config.data.size:
        name = of_split.names[index]
        raise DataError(too_small(name, height, width, config.data))

    threads = ThreadPoolExecutor(max(1, config.data.num_workers))
    try:
      for _ in rich.progress.track(
        threads.map(check, indices),
        f'checking {split}',
        len(indices),
        transient=True,
        console=rich.console.Console(stderr=True),
      ):
        pass
    finally:  # without waiting for a disk that hangs
      threads.shutdown(wait=False, cancel_futures=True)


def num_parameters(params: Any) -> int:
  """The number of scalars in a tree."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def num_bytes(tree: Any) -> int:
  """The memory of a tree's arrays, or of those of such shapes, in bytes."""
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def check_memory(config: Config, num_bytes: int | None) -> None:
  """Compares what XLA counted with what a device has, where it is known.

  Raises:
    ConfigError: a step takes more than there is.
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
  """A size in memory for people."""
  if num_bytes < 2**30:
    return f'{num_bytes / 2**20:.1f} MiB'
  return f'{num_bytes / 2**30:.1f} GiB'


def describe(
  config: Config,
  images: Mapping[str, Images],
  state: TrainState,
  step_bytes: int | None = None,
) -> dict[str, str]:
  """The rows of the table that a run begins with.

  Args:
    config: resolved.
    images: of both splits of both domains.
    state: of the run.
    step_bytes: what a step takes on a device, if it is known.

  Returns:
    Texts by name.
  """
  sizes = {split: f'{len(images[split]):,}' for split in images}
  rows = {
    'training images': f'{sizes["train_a"]} of a, {sizes["train_b"]} of b',
    'test images': f'{sizes["test_a"]} of a, {sizes["test_b"]} of b',
    'generators': f'{config.generator.name}, '
    f'{num_parameters(state.gen):,} parameters in both',
    'discriminators': f'{config.discriminator.name}, '
    f'{num_parameters(state.disc):,} parameters in both',
    'devices': f'{config.num_devices} x {jax.local_devices()[0].device_kind}'
    + (f' in {processes.count()} processes' if processes.count() > 1 else ''),
    'steps': f'{config.steps:,} of {config.batch_size} pairs, '
    f'{config.steps_per_epoch:,} an epoch',
  }
  cached = config.data.cache_gib * 2**30
  if config.data.preprocess not in ('crop', 'scale_and_crop'):
    height, width = raw_size(config.data)
    of_pixels = sum(
      len(images[f'train_{d}'])
      * config.channels(d)
      * np.dtype(raw_dtype(config.data, d)).itemsize
      for d in 'ab'
    )
    cached = min(cached, height * width * of_pixels)
  rows['memory'] = f'up to {gib(int(cached))} of decoded images'
  values = {domain: values_of(config.data, domain) for domain in 'ab'}
  if not all(each.is_plain for each in values.values()):
    told = (f'{each} of {domain}' for domain, each in values.items())
    rows['values'] = ', '.join(told)
  if pairs := training_pairs(config, images):
    share = f'{config.data.paired_share:.0%}'
    rows['pairs'] = f'{len(pairs):,}, which are {share} of the examples'
  if config.init_from:
    rows['begins with'] = f'the networks of {config.init_from}'
  if config.warmup_steps:
    rows['warm-up'] = (
      f'the discriminators learn alone for {config.warmup_steps:,} steps'
    )
  if step_bytes is not None:
    of_step = f'about {gib(step_bytes)} a device for a step'
    rows['memory'] = f'{of_step}, {rows["memory"]}'
  return rows | _at_odds(config)


def _at_odds(config: Config) -> dict[str, str]:
  """What is asked for, but undone by something else; texts by name."""
  rows = {}
  if max(config.loss.identity_a, config.loss.identity_b) and (
    not config.uses_identity
  ):
    rows['identity loss'] = (
      f'off: a has {config.data.channels_a} channels and b '
      f'{config.data.channels_b}'
    )
  judges = config.discriminator
  if judges.spectral_norm and judges.norm != 'none':
    rows['spectral norm'] = (
      f'undone by the {judges.norm} norm behind it: set '
      "config.discriminator.norm='none'"
    )
  if config.loss.adversarial == 'wgan_gp' and judges.norm == 'batch':
    rows['gradient penalty'] = (
      'of each image alone, which batch norm mixes: set '
      "config.discriminator.norm='instance' (arXiv:1704.00028, section 4)"
    )
  return rows


def tell(
  config: Config,
  facts: Mapping[str, str],
  workdir: pathlib.Path,
  *,
  start_step: int,
  console: rich.console.Console,
) -> None:
  """Prints the resolved config and the table."""
  width = max(len(name) for name in facts) + 2
  rows = {**facts, 'folder': str(workdir)}
  lines = [f'{name:{width}}{text}' for name, text in rows.items()]
  if start_step:
    lines.append(f'going on from step {start_step:,}')
  for line in (str(to_config_dict(config)), *lines):
    # Whole lines, in which paths stay whole.
    console.print(line, markup=False, highlight=False, soft_wrap=True)
