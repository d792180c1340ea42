"""Set-up of a run: everything that is known before the step is compiled."""

import dataclasses
import logging
import os
import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from cyclegan_jax import register
from cyclegan_jax.config import (
  Config,
  check_sizes,
  from_config_dict,
  source_options,
)
from cyclegan_jax.data.fingerprint import changes, fingerprint, listing
from cyclegan_jax.data.image_list import Images
from cyclegan_jax.data.loader import sample_images
from cyclegan_jax.data.own_source import ArraySequence, images_of_sequences
from cyclegan_jax.data.ranges import with_values
from cyclegan_jax.data.sources import open_stored_images
from cyclegan_jax.errors import DataError, WorkdirError
from cyclegan_jax.metrics.goals import check_best_metric
from cyclegan_jax.report.metric_writer import METRICS_FILE, check_metrics
from cyclegan_jax.report.run_page import PAGE_FILE
from cyclegan_jax.state import (
  TrainState,
  abstract_train_state,
  create_train_state,
)
from cyclegan_jax.step import metric_names
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.storage.hub_folder import HUB_PREFIX, is_hub_folder
from cyclegan_jax.storage.workdir import (
  check_free_space,
  read_config,
)
from cyclegan_jax.training import preflight, processes
from cyclegan_jax.training.changes import (
  changed_options,
  continued,
)
from cyclegan_jax.training.fine_tune import (
  Networks,
  read_networks,
  with_network_options,
  with_networks,
)
from cyclegan_jax.training.periodic_evaluation import (
  EVALUATION_FILE,
)


class Setup(NamedTuple):
  """Everything that is known before the training step is compiled."""

  config: Config  # resolved
  given: Config  # before counts were filled in
  images: Mapping[str, Images]  # by split: 'train_a', ...
  state: TrainState
  resumed: checkpoint.Checkpoint | None
  networks: Networks | None  # that a new run starts from
  samples: Mapping[str, np.ndarray]  # test images of the sample sheets
  data: dict[str, Any]  # fingerprint of the images
  image_list: dict[str, Any]  # names and sizes of the images
  survey: dict[str, str]  # what of the files is left out or converted
  history: list[dict[str, Any]]  # changes of the config
  start_step: int  # number of completed steps


def set_up(
  config: Config,
  workdir: pathlib.Path,
  explicit: Collection[str] | None,
  may_change: bool,
  sources: Mapping[str, ArraySequence] | None,
) -> Setup:
  """Reads, resolves and checks everything that a run needs.

  Only the first of several processes reads the folder; it sends the others
  the resolved config and the state.
  """
  resumed, saved, networks = None, None, None
  if processes.is_first():
    checkpoint.recover_replaced(workdir / 'checkpoints')
    resumed = checkpoint.load_newest(workdir / 'checkpoints')
    saved = resumed.config if resumed else read_config(workdir)
    if saved is None:
      _check_no_foreign_files(workdir)
    step = int(resumed.state.step) if resumed else 0
    check_metrics(workdir, resume_step=step)
    if resumed is None and is_hub_folder(workdir):
      raise WorkdirError(
        f'{workdir} holds exported generators, not a run: pass another '
        '--workdir'
      )
    if saved is not None and resumed is None:
      _check_no_lost_checkpoints(workdir)
    # A resumed run reads them only to find out whether they have moved.
    has_moved = resumed and config.init_from != resumed.config.init_from
    is_there = config.init_from.startswith(HUB_PREFIX) or os.path.isdir(
      config.init_from
    )
    if config.init_from and (resumed is None or (has_moved and is_there)):
      sha256 = config.init_sha256 or (saved.init_sha256 if saved else '')
      networks = read_networks(config, sha256=sha256, explicit=explicit)
      config = networks.config
    elif config.init_from and saved is not None and explicit is not None:
      config = with_network_options(
        config, saved, explicit, discriminators=config.init_discriminators
      )
    check_sizes(config)  # not checked before, with init_from
    preflight.check_effects(config, explicit or (), is_new=saved is None)
  if config.init_from and explicit is not None:
    adapted = processes.from_first(lambda: dataclasses.asdict(config))
    config = from_config_dict(adapted)
  given = config
  is_same_source = networks is not None or bool(
    saved and config.init_sha256 and config.init_sha256 == saved.init_sha256
  )
  if sources is None:
    stored = open_stored_images(config.data)
  else:
    stored = images_of_sequences(config.data, sources)
  data, image_list = fingerprint(stored), listing(stored)
  moved: set[str] = set()  # options that name the same under another path
  if resumed is not None and resumed.data == data:
    moved |= {f'config.data.{name}' for name in source_options()}
  if is_same_source:
    moved.add('config.init_from')

  def complete(resolved: Config) -> Config:
    if saved is None:
      return resolved
    return continued(
      workdir,
      saved,
      resolved,
      step=int(resumed.state.step) if resumed else None,
      explicit=explicit or (),
      moved=moved,
      may_change=may_change,
    )

  other_domains: list[str] = []
  if may_change and resumed:
    other_domains = [
      domain
      for domain in 'ab'
      if resumed.data.get(f'train_{domain}') != data[f'train_{domain}']
    ]
  config = _resolve(config, stored, saved, networks, complete, other_domains)
  if saved is not None:
    _report_changed_plugins(saved, config)
  history = list(resumed.history) if resumed else []
  if resumed and (changed := changed_options(resumed.config, config, moved)):
    history.append({'step': int(resumed.state.step), 'changes': changed})
  images = with_values(stored, config.data)
  preflight.check_images(config, images)
  check_best_metric(config, metric_names(config))
  if resumed is not None:
    state, networks = resumed.state, None
    if resumed.data and resumed.data != data:
      _report_changed_images(resumed, config, image_list)
  else:
    state = create_train_state(config, jax.random.key(config.seed))
    if networks is not None:
      state = with_networks(state, networks)
  if processes.is_first():
    check_free_space(workdir, config, preflight.num_bytes(state))
  state = processes.tree_from_first(lambda: state, abstract_train_state(config))
  samples = sample_images(config, images)
  survey = preflight.survey(config, images) if processes.is_first() else {}
  return Setup(
    config,
    given,
    images,
    state,
    resumed,
    networks,
    samples,
    data,
    image_list,
    survey,
    history,
    int(state.step),
  )


def _check_no_foreign_files(workdir: pathlib.Path) -> None:
  """Checks that a new run would not write over files of others.

  Raises:
    WorkdirError: a file of that name exists.
  """
  for name in (METRICS_FILE, PAGE_FILE, EVALUATION_FILE):
    if (workdir / name).exists():
      raise WorkdirError(
        f'{workdir / name} exists, but {workdir} holds no run that could be '
        'resumed: pass another --workdir, or move the file away'
      )


def _check_no_lost_checkpoints(workdir: pathlib.Path) -> None:
  """Checks that a run without checkpoints has not been trained.

  It would start anew and remove its records.

  Raises:
    WorkdirError: there are records of it.
  """
  path = workdir / METRICS_FILE
  if path.exists() and path.stat().st_size:
    raise WorkdirError(
      f'{path} has records, but {workdir / "checkpoints"} has no checkpoint to '
      'resume from: restore it, pass another --workdir, or move the file away '
      'to start anew'
    )


def _resolve(
  config: Config,
  images: Mapping[str, Images],
  saved: Config | None,
  networks: Networks | None,
  complete: Callable[[Config], Config],
  other_domains: Collection[str],
) -> Config:
  """Resolves the config in the first process, for all processes.

  Raises:
    DataError: this process has other images than the first.
  """

  def resolve() -> Config:
    resolved = preflight.resolve(
      config,
      images,
      saved=saved,
      other_domains=other_domains,
      init_sha256=networks.sha256 if networks else '',
    )
    return complete(resolved)

  if processes.count() == 1:
    return resolve()
  resolved, first = processes.from_first(
    lambda: (dataclasses.asdict(resolve()), fingerprint(images))
  )
  if first != fingerprint(images):
    raise DataError(
      f'process {processes.index()} has other images than the first: give all '
      'processes the same'
    )
  return from_config_dict(resolved)


def _report_changed_images(
  resumed: checkpoint.Checkpoint, config: Config, image_list: dict[str, Any]
) -> None:
  """Warns of images that changed since a checkpoint was saved.

  Raises:
    DataError: config.data.strict is set.
  """
  old = checkpoint.load_image_list(resumed.path)
  text = (
    'the images changed since this run began '
    f'({"; ".join(changes(old, image_list))})'
  )
  if config.data.strict:
    raise DataError(
      f'{text}: restore them, or set config.data.strict=False to continue with '
      'the present images'
    )
  logging.getLogger('cyclegan_jax').warning(
    '%s: training continues with the present images, so the result will '
    'differ from an uninterrupted run',
    text,
  )


def _report_changed_plugins(saved: Config, config: Config) -> None:
  old = dict(register.parse_plugins(saved.plugins))
  for path, sha256 in register.parse_plugins(config.plugins):
    if old.get(path, sha256) != sha256:
      logging.getLogger('cyclegan_jax').warning(
        'the plugin %s changed since this run was saved', path
      )
