"""Translation of files and folders: images, stacks, animations, videos."""

import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import rich.console
import rich.progress

from cyclegan_jax.errors import ConfigError, UserError, WorkdirError, printable
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.storage.atomic import remove_abandoned
from cyclegan_jax.storage.disk_errors import explain_disk_errors
from cyclegan_jax.terminal import stderr_console
from cyclegan_jax.translate.clips import translate_clip
from cyclegan_jax.translate.context import Context
from cyclegan_jax.translate.large import is_large, translate_large
from cyclegan_jax.translate.options import Options
from cyclegan_jax.translate.output_record import claim, describe
from cyclegan_jax.translate.plan import Job, make_plan
from cyclegan_jax.translate.stacks import is_stack, translate_stack
from cyclegan_jax.translate.stills import OF_ONE_FILE, translate_stills


class Outcome(NamedTuple):
  """Result of a translation.

  Attributes:
    num_made: number of new outputs.
    num_kept: number of outputs that existed already.
    failed: a message for each input that was not translated.
    notes: messages about files that were skipped.
    page: page of the gallery, if there is one.
  """

  num_made: int
  num_kept: int
  failed: list[str]
  notes: list[str]
  page: pathlib.Path | None


def translate_files(
  run: pathlib.Path,
  inputs: Sequence[pathlib.Path],
  to: pathlib.Path,
  options: Options = Options(),
) -> Outcome:
  """Translates files, folders and the matches of patterns.

  An output has its input's size, depth and name, and the same place below the
  folder. It is written completely or not at all. Existing outputs are kept, so
  that the same call continues after an interruption.

  Args:
    run: folder of a run, or of one of its checkpoints.
    inputs: files, folders, and patterns with * ? [] and **.
    to: folder of the outputs.
    options: options of the translation.

  Raises:
    UserError: the checkpoint, the options or the output folder cannot be used,
      or there is no input.
  """
  loaded = checkpoint.load(run, direction=options.direction)
  if options.samples > 1 and not loaded.config.generator.dropout:
    raise ConfigError(
      f'--samples={options.samples} needs a generator with dropout: without '
      'it all samples are equal'
    )
  plan = make_plan(inputs, to, loaded.config, options)
  with (
    explain_disk_errors(to, option='--to'),
    rich.progress.Progress(
      *rich.progress.Progress.get_default_columns(),
      rich.progress.MofNCompleteColumn(),
      console=stderr_console(),
    ) as progress,
  ):
    to.mkdir(parents=True, exist_ok=True)
    foreign = claim(to, plan.names, loaded.path, options)
    remove_abandoned(to)
    work = Context(
      loaded.config,
      loaded.state.translators,
      to,
      options,
      len(plan.names),
      progress,
      identity=json.dumps(describe(loaded.path, options)),
    )
    failed = plan.failed + [
      f'{printable(str(job.source))} is not translated: '
      f'{printable(str(job.target))} exists and was not written by this '
      'command. Use another --to'
      for job in plan.jobs
      if job.name in foreign
    ]
    jobs = [job for job in plan.jobs if job.name not in foreign]
    todo = [job for job in jobs if options.overwrite or not work.is_done(job)]
    num_made = 0
    bar = progress.add_task('translating', total=len(todo))
    for failure in _translate(work, todo):
      num_made += not failure
      failed += [failure] if failure else []
      progress.advance(bar)
    work.note_clipped()
    page = work.gallery.finish() if work.gallery else None
  return Outcome(
    num_made, len(jobs) - len(todo), failed, plan.notes + work.notes, page
  )


def _translate(work: Context, jobs: Sequence[Job]) -> Iterator[str]:
  """Yields an error message for each job, or ''."""
  clips = [job for job in jobs if job.is_clip]
  stacks = [job for job in jobs if not job.is_clip and is_stack(work, job)]
  stills = [job for job in jobs if not job.is_clip and job not in set(stacks)]
  large = {job for job in stills if is_large(work, job)}
  small = [job for job in stills if job not in large]
  yield from translate_stills(work, small, on_animation=clips.append)
  for job in stills:
    if job in large:
      yield _error_of(translate_large, work, job)
  for job in stacks:
    yield _error_of(translate_stack, work, job)
  for job in clips:  # including animations that were found among the stills
    yield _error_of(translate_clip, work, job)


def _error_of(
  translate: Callable[[Context, Job], None], work: Context, job: Job
) -> str:
  """Translates an image, a stack or a clip; returns an error message or ''."""
  try:
    translate(work, job)
  except WorkdirError:
    raise
  except UserError as error:  # about the file, or a missing package
    return str(error)
  except OSError as error:
    if error.errno not in OF_ONE_FILE:
      raise
    return f'{printable(str(job.target))} cannot be written: {error.strerror}'
  return ''
