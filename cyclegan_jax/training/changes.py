"""Runs that continue with other options than before."""

import json
import logging
import pathlib
from collections.abc import Collection, Sequence
from typing import Any

import jax

from cyclegan_jax.config import (
  Config,
  differences,
  option_at,
)
from cyclegan_jax.errors import ConfigError, WorkdirError
from cyclegan_jax.optimizers import learning_rate_schedule
from cyclegan_jax.state import abstract_train_state
from cyclegan_jax.storage.atomic import replace_text

HISTORY_FILE = 'config_history.jsonl'
_MAX_RATE = 'config.schedule.max_rate'
_LENGTH = {'config.steps', 'config.epochs', _MAX_RATE}

# A change: {'step': completed steps, 'changes': {path: [old, new]}}.
History = Sequence[dict[str, Any]]


def changed_options(
  old: Config, new: Config, moved: Collection[str] = ()
) -> dict[str, list[Any]]:
  """The options that change what is learned: path -> [old, new].

  Args:
    old: the run's config.
    new: the config for the steps to come.
    moved: dotted paths of options that name the same files as before.
  """
  return {
    path: [before, after]
    for path, (before, after) in differences(old, new).items()
    if not option_at(path).metadata['may_change'] and path not in moved
  }


def continued(
  folder: pathlib.Path,
  old: Config,
  new: Config,
  *,
  step: int | None,
  explicit: Collection[str] = (),
  moved: Collection[str] = (),
  may_change: bool = False,
) -> Config:
  """Checks and completes the config of a run that continues.

  A longer run needs no permission. Its learning rate does not rise again, nor
  does that of a run whose epochs have another length: at most it keeps the one
  that it had, unless the user sets another.

  Args:
    folder: of the run.
    old: the run's resolved config.
    new: the resolved config for the steps to come.
    step: number of completed steps; None if there is no checkpoint.
    explicit: dotted paths of the options that the user set.
    moved: dotted paths of options that name the same files as before.
    may_change: whether any option that keeps the state's shapes may differ.

  Raises:
    WorkdirError: an option differs that may not.
    ConfigError: an option differs that changes the shapes of the state, the
      run would end before its last checkpoint, or its rate has fallen to 0.
  """
  if not new.schedule.max_rate and 'config.optimizer.learning_rate' not in (
    changed_options(old, new)
  ):
    new = new.replace(schedule={'max_rate': old.schedule.max_rate})
  changed = changed_options(old, new, moved)
  if not changed:
    return new
  longer = new.steps > old.steps
  # With other schedules, the rate of each step depends on the run's length.
  may_end_earlier = new.schedule.name in ('constant', 'step')
  is_free = set(changed) <= _LENGTH and (longer or may_end_earlier)
  if not (may_change or is_free):
    advice = 'pass another --workdir, or the same options to resume that run'
    if step is not None and _same_shapes(old, new):
      advice = f'--change continues it with these; or {advice}'
    raise WorkdirError(
      f'{folder} belongs to a run with another config ({describe(changed)}): '
      f'{advice}'
    )
  if not _same_shapes(old, new):
    raise ConfigError(
      f'--change: {describe(changed)} changes the shapes of the networks, '
      'optimizers or pools: pass another --workdir. There '
      f'config.init_from={str(folder)!r} begins with the networks of this run, '
      'if they stay the same'
    )
  if step and new.steps < step and not set(changed) <= _LENGTH:
    raise ConfigError(
      f'config.steps={new.steps} ({new.epochs} epochs of '
      f'{new.steps_per_epoch} steps) is less than the {step} steps that '
      f'{folder} has: raise config.epochs or config.steps'
    )
  is_rate_set = (
    _MAX_RATE in {*explicit, *changed}
    or 'config.optimizer.learning_rate' in changed
  )
  has_other_epochs = new.steps_per_epoch != old.steps_per_epoch
  if step and (longer or has_other_epochs) and not is_rate_set:
    rates = [learning_rate_schedule(each, side='gen') for each in (old, new)]
    last, following = float(rates[0](step - 1)), float(rates[1](step))
    if following > last == 0:
      raise ConfigError(
        f'the learning rate of {folder} has fallen to 0: set --{_MAX_RATE}, up '
        f'to {following:.3g}, for the steps to come'
      )
    if following > last:
      new = new.replace(schedule={'max_rate': last})
      logging.getLogger('cyclegan_jax').warning(
        'the learning rate stays at %.3g, which it had reached; a larger '
        '--%s, up to %.3g, raises it',
        *(last, _MAX_RATE, following),
      )
  return new


def describe(changed: dict[str, list[Any]]) -> str:
  """Changes as a text, such as 'config.batch_size: 4 -> 8'."""
  return '; '.join(
    f'{path}: {before!r} -> {after!r}'
    for path, (before, after) in changed.items()
  )


def write_history(folder: pathlib.Path, history: History) -> None:
  """Writes config_history.jsonl, if a run has any changes."""
  if history:
    lines = [json.dumps(change) + '\n' for change in history]
    replace_text(folder / HISTORY_FILE, ''.join(lines))


def _same_shapes(old: Config, new: Config) -> bool:
  one, two = (
    [
      (path, leaf.shape, leaf.dtype)
      for path, leaf in jax.tree.leaves_with_path(abstract_train_state(config))
    ]
    for config in (old, new)
  )
  return one == two
