"""Files in, translated files out: images, animations and videos."""

import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import rich.console
import rich.progress

from cyclegan_jax.errors import ConfigError, UserError, WorkdirError, printable
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.storage.atomic import remove_abandoned
from cyclegan_jax.storage.disk_errors import explain_disk_errors
from cyclegan_jax.translate.clips import translate_clip
from cyclegan_jax.translate.context import Work
from cyclegan_jax.translate.large import is_large, translate_large
from cyclegan_jax.translate.options import Options
from cyclegan_jax.translate.output_record import claim
from cyclegan_jax.translate.plan import Job, make_plan
from cyclegan_jax.translate.stills import OF_ONE_FILE, translate_stills


class Outcome(NamedTuple):
  """What came of the inputs."""

  num_made: int  # outputs
  num_kept: int  # outputs that were there
  failed: list[str]  # a message for each input that was not translated
  notes: list[str]  # messages on what was left out
  page: pathlib.Path | None  # of the gallery


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
  found = checkpoint.load(run, direction=options.direction)
  if options.samples > 1 and not found.config.generator.dropout:
    raise ConfigError(
      f'--samples={options.samples}, but this generator has no dropout: it '
      'gives the same each time'
    )
  plan = make_plan(inputs, to, found.config, options)
  with (
    explain_disk_errors(to, option='--to'),
    rich.progress.Progress(
      *rich.progress.Progress.get_default_columns(),
      rich.progress.MofNCompleteColumn(),
      console=rich.console.Console(stderr=True),
    ) as progress,
  ):
    to.mkdir(parents=True, exist_ok=True)
    foreign = claim(to, plan.names, found.path, options)
    remove_abandoned(to)
    work = Work(
      found.config,
      found.state.translators,
      to,
      options,
      len(plan.names),
      progress,
    )
    failed = plan.failed + [
      f'{printable(str(job.source))} is not translated: '
      f'{printable(str(job.target))} is there and was not made by this '
      'command: give another --to'
      for job in plan.jobs
      if job.name in foreign
    ]
    jobs = [job for job in plan.jobs if job.name not in foreign]
    left = [job for job in jobs if options.overwrite or not work.is_done(job)]
    num_made = 0
    bar = progress.add_task('translating', total=len(left))
    for failure in _translate(work, left):
      num_made += not failure
      failed += [failure] if failure else []
      progress.advance(bar)
    page = work.gallery.finish() if work.gallery else None
  return Outcome(
    num_made, len(jobs) - len(left), failed, plan.notes + work.notes, page
  )


def _translate(work: Work, jobs: Sequence[Job]) -> Iterator[str]:
  """Yields for each job what went wrong, or ''."""
  clips = [job for job in jobs if job.is_clip]
  stills = [job for job in jobs if not job.is_clip]
  large = {job for job in stills if is_large(work, job)}
  small = [job for job in stills if job not in large]
  yield from translate_stills(work, small, on_animation=clips.append)
  for job in stills:
    if job in large:
      yield _alone(translate_large, work, job)
  for job in clips:  # with those that were found among the stills
    yield _alone(translate_clip, work, job)


def _alone(translate: Callable[[Work, Job], None], work: Work, job: Job) -> str:
  """Translates a large image or a clip; what went wrong, or ''."""
  try:
    translate(work, job)
  except WorkdirError:
    raise
  except UserError as error:  # of the file, or a package is missing
    return str(error)
  except OSError as error:
    if error.errno not in OF_ONE_FILE:
      raise
    return f"{printable(str(job.target))} can't be written: {error.strerror}"
  return ''
