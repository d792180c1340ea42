"""The faults of faults.py: how each is injected, and what is to come of it.

Each entry of FAULTS is a function (lab, kills) -> tasks; a task injects one
fault or a chain of them and returns their trials. A fault that came too late,
or where nothing happens, is tried again at another place, and is no trial.
"""

import contextlib
import functools
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

import numpy as np
from fault_lab import STEPS, Trial, saved_steps
from PIL import Image

# Operations of one save, from its first folder to the last file of the
# checkpoint that it replaces; a few more cost nothing.
OPS_OF_SAVE = 230
KEEP_ONE = '--config.checkpoint.keep=1'
# Of a busy machine; how long it really took is in the table.
SECONDS_TO_STOP = 30
SECONDS_TO_LEAVE = 5
MAX_TRIES = 5  # to hit
DAMAGE_TASKS = 6
ALL_KILLS = 500  # for which all that is planned is done


class Skipped(Exception):  # noqa: N818 (no error)
  """A fault can not be injected here; the text says why."""


def needs_shim(lab):
  if lab.shim is None:
    raise Skipped('needs Linux and a C compiler')


def part_of(plan, kills, *, least=1):
  """Some of a plan, from all over it; all for ALL_KILLS."""
  count = round(len(plan) * min(1, kills / ALL_KILLS))
  picked = np.linspace(0, len(plan) - 1, max(least, count)).round()
  return [plan[i] for i in picked.astype(int)]


def until_hit(inject):
  """Calls a function (tries before) -> trials until there are any."""

  @functools.wraps(inject)
  def task(*args, **kwargs):
    for tries in range(MAX_TRIES):
      if trials := inject(*args, tries=tries, **kwargs):
        return trials
    return []

  return task


# SIGKILL


def kill_at(lab, workdir, rng, *_, reference, **__):
  """Kills a process anywhere in its life; one in 20 starts from scratch."""
  real = rng.random() < 0.05
  run = lab.start(workdir, real=real)
  run.poll(rng.uniform(0, reference.seconds + 5 * real))
  run.send(signal.SIGKILL)
  run.wait()
  return run


def kill_in_save(lab, workdir, rng, at, *, tries, **_):
  """Kills a process at an operation of its first save, or at one before."""
  do = rng.choice(('kill', 'torn'))
  at = max(1, at // (1 + tries))
  under = workdir / 'checkpoints'
  return lab.run(workdir, KEEP_ONE, under=under, since='mkdir', at=at, do=do)


def kill_at_operation(lab, workdir, rng, *_, **__):
  """Kills a process at any operation on any file of its run."""
  do = rng.choice(('kill', 'torn'))
  at = rng.randint(1, 2 * OPS_OF_SAVE)
  return lab.run(workdir, KEEP_ONE, under=workdir, at=at, do=do)


def kill_chain(lab, strike, places, seed):
  """Kills, starts again, kills again ..., and lets the last one finish.

  Args:
    lab: the place.
    strike: starts a process that is killed, if it does not end before.
    places: an argument of `strike` for each kill.
    seed: of what is random.

  Returns:
    A trial for each kill, and one for what went wrong without.
  """
  reference, rng = lab.reference(), random.Random(seed)
  trials, places, tries = [], list(places), 0
  while places:
    workdir, of_chain = lab.path('killed'), []
    while True:
      if places:
        run = strike(
          lab, workdir, rng, places[0], reference=reference, tries=tries
        )
      else:
        run = lab.run(workdir)
      if of_chain:
        of_chain[-1].saw = run.line('going on from', 'compiling')
      if run.status != -signal.SIGKILL:
        break
      places.pop(0)
      tries = 0
      had = of_chain and of_chain[-1].had_checkpoint
      trial = Trial()
      trial.had_checkpoint = bool(saved_steps(workdir))
      if trial.had_checkpoint:
        trial.problem = reference.compare_saved(workdir)
      elif had:
        trial.problem = 'no checkpoint is left'
      of_chain.append(trial)
    problem = reference.compare_end(workdir)
    if run.status != 0:
      problem = run.told
    if of_chain:
      of_chain[-1].problem = of_chain[-1].problem or problem
    else:
      tries += 1
      if problem:
        of_chain.append(Trial(problem))
    if tries == MAX_TRIES:
      places.pop(0)
      tries = 0
    trials += of_chain
    shutil.rmtree(workdir)
  return trials


def chains(lab, strike, places):
  length = max(1, min(25, -(-len(places) // lab.jobs)))
  return [
    functools.partial(kill_chain, lab, strike, places[i : i + length], i)
    for i in range(0, len(places), length)
  ]


def sigkill_in_save(lab, kills):
  needs_shim(lab)
  places = np.linspace(1, OPS_OF_SAVE, int(0.46 * kills)).astype(int)
  return chains(lab, kill_in_save, places.tolist())


def sigkill_at_operations(lab, kills):
  needs_shim(lab)
  return chains(lab, kill_at_operation, [None] * int(0.18 * kills))


def sigkill_at_random(lab, kills):
  return chains(lab, kill_at, [None] * (kills - int(0.64 * kills)))


# SIGTERM and SIGINT


def anywhere(run, rng, reference):
  run.poll(rng.uniform(0, reference.seconds))


def in_imports(run, rng, *_):
  run.poll(rng.uniform(0, 4))


def in_compilation(run, rng, *_):
  run.wait_until(lambda: 'compiling' in run.stderr)
  run.poll(rng.uniform(0.3, 5))


def in_a_save(run, rng, *_):
  folder = run.workdir / 'checkpoints'
  step = rng.randrange(0, STEPS, 2)
  run.wait_until(lambda: list(folder.glob(f'.{step}.tmp')))
  run.poll(rng.uniform(0, 0.1))


@until_hit
def stop(lab, number, moment, seed, *, tries, real=False, twice=False):
  """Sends a signal, looks at what it leaves, and goes on to the end."""
  reference, rng = lab.reference(), random.Random(f'{seed} {tries}')
  env = {'JAX_ENABLE_COMPILATION_CACHE': 'false'} if real else {}
  workdir = lab.path('stopped')
  run = lab.start(workdir, real=real, env=env)
  run.workdir = workdir
  moment(run, rng, reference)
  sent = time.monotonic()
  run.send(number)
  if twice:
    run.poll(rng.uniform(0, 0.3))
    sent = time.monotonic()
    run.send(number)
  is_late = run.status is not None
  run.wait()
  seconds = time.monotonic() - sent
  trial = Trial(seconds=seconds, saw=run.line(': stopped and saved at'))
  if twice:
    trial.saw = run.line('once more leaves at once')
  # Python's first hundredths of a second know no handler; and the work may
  # have been done when the signal came.
  expected = {128 + number, 0} | ({-number} if not workdir.exists() else set())
  if run.status not in expected or 'Traceback' in run.stderr:
    trial.problem = run.told
  elif seconds > (SECONDS_TO_LEAVE if twice else SECONDS_TO_STOP):
    trial.problem = f'it took {seconds:.1f} s to stop'
  elif is_late or run.status == 0:
    return []
  elif twice and ': stopped and saved at' in run.stdout:
    return []  # the second came after that
  elif saved_steps(workdir):
    trial.problem = reference.compare_saved(workdir)
  elif 'stopping after' in run.stderr and not twice:
    trial.problem = f'no checkpoint: {run.told}'
  return [finish(lab, reference, workdir, trial)]


def finish(lab, reference, workdir, trial, *options):
  """Runs on to the end, and notes what is not as it should be."""
  run = lab.run(workdir, *options)
  problem = reference.compare_end(workdir)
  if run.status != 0:
    problem = f'at the end: {run.told}'
  trial.problem = trial.problem or problem
  shutil.rmtree(workdir)
  return trial


def stops(lab, number, kills, moments):
  plan = [*moments * 4, in_imports, in_compilation]
  return [
    functools.partial(
      stop, lab, number, moment, seed, real=moment not in moments
    )
    for seed in range(max(1, kills // 10))
    for moment in [plan[seed % len(plan)]]
  ]


def sigterm(lab, kills):
  return stops(lab, signal.SIGTERM, kills, [anywhere, in_a_save])


def sigint(lab, kills):
  return stops(lab, signal.SIGINT, kills, [in_a_save, anywhere])


def second_signal(lab, kills):
  plan = [
    (number, moment)
    for number in (signal.SIGTERM, signal.SIGINT)
    for moment in (anywhere, in_a_save)
  ]
  return [
    functools.partial(stop, lab, *plan[seed % 4], seed, twice=True)
    for seed in range(max(1, kills // 25))
  ]


# The disk of the checkpoints


@until_hit
def failing_save(lab, error, at, *options, tries, count=1):
  """Lets operations of a save fail: one, or all from then on."""
  reference, workdir = lab.reference(), lab.path('failing')
  under = workdir / 'checkpoints'
  at = max(1, at - tries * OPS_OF_SAVE // 4)
  run = lab.run(workdir, *options, under=under, at=at, count=count, do=error)
  if run.status == 0 and not run.spoiled():
    return []
  trial = Trial(
    saw=run.line('^error: ', 'could not be written', 'going on from')
  )
  told = run.line('^error: ').startswith('error: ')
  if run.status not in (0, 1) or told != (run.status == 1):
    trial.problem = run.told
  elif count == 0 and run.status == 0:
    trial.problem = 'a disk that fails for good was not told of'
  elif 'Traceback' in run.stderr:
    trial.problem = run.told
  elif saved_steps(workdir):
    trial.problem = reference.compare_saved(workdir)
  if run.status == 1:
    return [finish(lab, reference, workdir, trial)]
  trial.problem = trial.problem or reference.compare_end(workdir)
  return [trial]


def failing(lab, error, kills):
  needs_shim(lab)
  # In the third save, when there are good ones.
  places = np.linspace(2.1, 3, max(1, kills // 25)) * OPS_OF_SAVE * 0.7
  return [functools.partial(failing_save, lab, error, int(at)) for at in places]


def io_error(lab, kills):
  return failing(lab, 'EIO', kills)


def no_space(lab, kills):
  return failing(lab, 'ENOSPC', kills)


def failing_for_good(lab, kills):
  needs_shim(lab)
  plan = [
    functools.partial(failing_save, lab, error, at, count=0)
    for at in (350, 1, 500)
    for error in ('EIO', 'ENOSPC')
  ]
  return part_of(plan, kills)


def stopping_at_a_failure(lab, kills):
  needs_shim(lab)
  option = '--config.faults.on_save_error=stop'
  plan = [
    functools.partial(failing_save, lab, error, 350, option, count=0)
    for error in ('ENOSPC', 'EIO')
  ]
  return part_of(plan, kills)


def mount(*args):
  command = ['mount', *map(str, args)]
  done = subprocess.run(command, capture_output=True, text=True)
  if done.returncode:
    raise Skipped(f'needs the right to mount: {done.stderr.strip()}')


@contextlib.contextmanager
def small_disk(lab):
  folder = lab.path('disk')
  folder.mkdir()
  mount('-t', 'tmpfs', '-o', 'size=8m', 'faults', folder)
  try:
    yield folder
  finally:
    subprocess.run(['umount', '-l', folder], check=True)


def fill(path):
  with path.open('wb', buffering=0) as file, contextlib.suppress(OSError):
    while True:
      file.write(bytes(4096))


@until_hit
def full_disk(lab, *, frees, tries):
  """Fills the disk in mid-run; frees it when the run complains, or after."""
  reference = lab.reference()
  with small_disk(lab) as disk:
    workdir, filler = disk / 'run', disk / 'filler'
    run = lab.start(workdir)
    run.wait_until(lambda: len(saved_steps(workdir)) > 1)
    fill(filler)
    run.wait_until(lambda: 'checkpoint of step' in run.stderr)
    if frees:
      filler.unlink()
    run.wait()
    filler.unlink(missing_ok=True)
    if run.status == 0 and 'checkpoint of step' not in run.stderr:
      return []  # it had saved the last before
    saw = ('could not be written', '^error: ') if frees else ('^error: ',)
    trial = Trial(saw=run.line(*saw))
    if run.status != (0 if frees else 1):
      trial.problem = run.told
    else:
      trial.problem = reference.compare_saved(workdir)
    if frees and run.status == 0:
      trial.problem = trial.problem or reference.compare_end(workdir)
    return [finish(lab, reference, workdir, trial)]


def disk_full(lab, kills):
  return part_of([functools.partial(full_disk, lab, frees=True)] * 3, kills)


def disk_full_for_good(lab, kills):
  return part_of([functools.partial(full_disk, lab, frees=False)] * 2, kills)


def read_only(lab, kills):
  return part_of([functools.partial(read_only_folder, lab)] * 2, kills)


@until_hit
def read_only_folder(lab, *, tries):
  """Makes the checkpoints' folder read-only in mid-run, then writable."""
  reference, workdir = lab.reference(), lab.path('read_only')
  folder = workdir / 'checkpoints'
  run = lab.start(workdir)
  run.wait_until(lambda: len(saved_steps(workdir)) > 1)
  with contextlib.ExitStack() as stack:
    if os.geteuid():
      folder.chmod(0o555)
      stack.callback(folder.chmod, 0o755)
    else:  # whom modes don't stop
      mount('--bind', folder, folder)
      stack.callback(subprocess.run, ['umount', '-l', folder], check=True)
      mount('-o', 'remount,bind,ro', folder)
    run.wait_until(lambda: 'checkpoint of step' in run.stderr)
  run.wait()
  if run.status == 0 and 'could not be written' not in run.stderr:
    return []
  trial = Trial(saw=run.line('could not be written'))
  if run.status != 0:
    trial.problem = run.told
  return [finish(lab, reference, workdir, trial)]


# Checkpoints that are not what was written


def flip_bit(path):
  data = bytearray(path.read_bytes())
  if data:
    data[len(data) // 2] ^= 4
  path.write_bytes(bytes(data) or b'\0')


def halve(path):
  data = path.read_bytes()
  path.write_bytes(data[: len(data) // 2] if data else b'\0')


def stopped_at_12(lab):
  workdir = lab.path('whole')
  lab.run(workdir, '--config.steps=12')
  return workdir


def damage(lab, how, part, kills):
  """Damages files of a run's newest checkpoint, one in each trial."""
  reference, whole = lab.reference(), lab.once(stopped_at_12)
  trials = []
  newest = whole / 'checkpoints' / '12'
  names = sorted(p.relative_to(whole) for p in newest.rglob('*') if p.is_file())
  for name in part_of(names, kills, least=2)[part::DAMAGE_TASKS]:
    workdir = lab.path('damaged')
    shutil.copytree(whole, workdir)
    how(workdir / name)
    run = lab.run(workdir)
    trial = Trial(run.status and run.told, run.line('is damaged'))
    if name.relative_to('checkpoints/12').as_posix() not in trial.saw:
      trial.problem = f'{name} was not named: {run.told}'
    trial.problem = trial.problem or reference.compare_end(workdir)
    trials.append(trial)
    shutil.rmtree(workdir)
  return trials


def damages(lab, how, kills):
  return [
    functools.partial(damage, lab, how, part, kills)
    for part in range(DAMAGE_TASKS)
  ]


def flipped_bit(lab, kills):
  return damages(lab, flip_bit, kills)


def truncated_file(lab, kills):
  return damages(lab, halve, kills)


def missing_file(lab, kills):
  return damages(lab, pathlib.Path.unlink, kills)


def unreadable_checkpoint(lab, kills):
  needs_shim(lab)
  plan = [functools.partial(unreadable, lab, at) for at in (3, 1, 10, 30, 80)]
  return part_of(plan, kills)


@until_hit
def unreadable(lab, at, *, tries):
  """Lets all reads of the newest checkpoint fail, from one of them on."""
  reference, workdir = lab.reference(), lab.path('unreadable')
  shutil.copytree(lab.once(stopped_at_12), workdir)
  under = workdir / 'checkpoints' / '12'
  at = max(1, at // (1 + tries))
  run = lab.run(workdir, kind='read', under=under, at=at, do='EIO')
  if run.status == 0 and not run.spoiled():
    return []
  trial = Trial(run.status and run.told, run.line('is damaged'))
  if 'is unreadable (Input/output error)' not in trial.saw:
    trial.problem = f'an I/O error was not told of: {run.told}'
  trial.problem = trial.problem or reference.compare_end(workdir)
  return [trial]


# Two runs at once


def two_runs(lab, kills):
  return [functools.partial(second_run, lab)] * max(1, kills // 100)


def second_run(lab):
  reference, workdir = lab.reference(), lab.path('shared')
  first = lab.start(workdir)
  first.wait_until(lambda: 'compiling' in first.stderr)
  first.send(signal.SIGSTOP)  # it would be done too soon
  second = lab.run(workdir, real=True)
  first.send(signal.SIGCONT)
  first.wait()
  trial = Trial(saw=second.line('^error: '))
  if second.status != 1 or f'process {first.pid} ' not in trial.saw:
    trial.problem = second.told
  trial.problem = trial.problem or reference.compare_end(workdir)
  return [trial]


def stale_lock(lab, kills):
  return [functools.partial(dead_owner, lab)] * max(1, kills // 100)


@until_hit
def dead_owner(lab, *, tries):
  reference, workdir = lab.reference(), lab.path('lock')
  run = lab.start(workdir)
  run.wait_until(lambda: 'compiling' in run.stderr)
  run.send(signal.SIGKILL)
  if run.wait() != -signal.SIGKILL:
    return []
  trial = Trial()
  again = lab.run(workdir)
  trial.saw = again.line('has died while it trained')
  if again.status != 0 or f'process {run.pid} ' not in trial.saw:
    trial.problem = again.told
  trial.problem = trial.problem or reference.compare_end(workdir)
  return [trial]


# Images that go bad under a run


def make_images(folder, seed=0):
  rng = np.random.default_rng(seed)
  for name in ('trainA', 'trainB', 'testA', 'testB'):
    (folder / name).mkdir(parents=True)
    for i in range(6):
      pixels = rng.integers(0, 256, (10, 10, 3), np.uint8)
      Image.fromarray(pixels).save(folder / name / f'{i}.png')
  return folder


def folder_options(data):
  return (
    '--config.data.name=folder',
    f'--config.data.path={data}',
    '--config.data.cache_gib=0.0',
  )


def folder_reference(lab):
  return lab.once(make_folder_reference)


def make_folder_reference(lab):
  return lab.reference(*folder_options(make_images(lab.path('images'))))


@until_hit
def bad_image(lab, how, *, budget, tries):
  """Spoils an image in mid-run; without a budget, mends it and goes on."""
  reference = folder_reference(lab)
  workdir, data = lab.path('bad_image'), make_images(lab.path('images'))
  options = folder_options(data)
  bad = data / 'trainA' / '3.png'
  run = lab.start(workdir, *options, f'--config.data.max_corrupt={budget}')
  run.wait_until(lambda: len(saved_steps(workdir)) > 1)
  good = bad.read_bytes()
  how(bad)
  run.wait()
  if run.status == 0 and str(bad) not in run.stderr:
    return []  # it had been read for the last time
  trial = Trial(
    is_compared=not budget, saw=run.line('^warning: skipped', '^error: ')
  )
  if run.status != (0 if budget else 1) or str(bad) not in trial.saw:
    trial.problem = run.told
  if budget:
    return [trial]
  bad.write_bytes(good)
  return [finish(lab, reference, workdir, trial, *options)]


def overwrite(path):
  path.write_bytes(bytes(range(256)))


def bad_images(lab, kills, budget, *hows):
  plan = [functools.partial(bad_image, lab, how, budget=budget) for how in hows]
  return part_of(plan, kills)


def bad_images_skipped(lab, kills):
  return bad_images(lab, kills, 10, overwrite, halve, pathlib.Path.unlink)


def bad_images_refused(lab, kills):
  return bad_images(lab, kills, 0, pathlib.Path.unlink, overwrite, halve)


def changed_images(lab, kills):
  plan = [functools.partial(changed_data, lab, strict) for strict in (1, 0)]
  return part_of(plan, kills)


def changed_data(lab, strict):
  """Removes an image between two starts; then brings it back."""
  reference = folder_reference(lab)
  workdir, data = lab.path('changed'), make_images(lab.path('images'))
  options = folder_options(data)
  lab.run(workdir, *options, '--config.steps=8')
  gone = data / 'trainB' / '2.png'
  good = gone.read_bytes()
  gone.unlink()
  run = lab.run(workdir, *options, f'--config.data.strict={bool(strict)}')
  trial = Trial(saw=run.line('the images are not'), is_compared=bool(strict))
  if (
    run.status != strict or 'train_b: 1 image removed (2.png)' not in trial.saw
  ):
    trial.problem = run.told
  if not strict:
    return [trial]
  gone.write_bytes(good)
  return [finish(lab, reference, workdir, trial, *options)]


@until_hit
def late_images(lab, told, at, *, tries, **faults):
  reference = folder_reference(lab)
  workdir, data = lab.path('late'), make_images(lab.path('images'))
  orders = {'kind': 'read', 'under': data / 'trainA', 'do': 'sleep', **faults}
  at = max(1, at // (1 + tries))
  run = lab.run(workdir, *folder_options(data), at=at, **orders)
  if run.status == 0 and not run.spoiled():
    return []
  trial = Trial(saw=run.line(told))
  if run.status != 0 or told not in trial.saw:
    trial.problem = run.told
  trial.problem = trial.problem or reference.compare_end(workdir)
  return [trial]


def slow_disk(lab, *_):
  needs_shim(lab)
  return [functools.partial(late_images, lab, 'waited on data', 1, seconds=0.1)]


def hung_disk(lab, *_):
  needs_shim(lab)
  hang = {'count': 1, 'seconds': 8}
  return [functools.partial(late_images, lab, 'waiting on data', 50, **hang)]


# A loss that is not finite


def white_images(folder):
  """One white image a side, the others grey."""
  for name in ('trainA', 'trainB', 'testA', 'testB'):
    (folder / name).mkdir(parents=True)
    for i in range(4):
      pixels = np.full((8, 8, 3), 255 if i == 2 else 120 + 3 * i, np.uint8)
      Image.fromarray(pixels).save(folder / name / f'{i}.png')
  return folder


def infinite_options(data):
  """The loss overflows where white meets white, and there alone."""
  return (
    *folder_options(data),
    '--config.batch_size=1',
    '--config.data.load_size=8',
    '--config.generator.norm=none',
    '--config.generator.dropout=0.0',
    '--config.optimizer.name=sgd',
    '--config.optimizer.b1=0.0',
    '--config.optimizer.learning_rate=1e-41',
    '--config.loss.cycle_a=2.1e38',
    '--config.loss.cycle_b=2.1e38',
  )


def infinite_loss(lab, kills):
  return [
    functools.partial(lost_loss, lab, n) for n in range(max(1, kills // 50))
  ]


@until_hit
def lost_loss(lab, number, *, tries):
  """Loses it; then the same, killed on the way back from it."""
  data = lab.once(make_white_images)
  options = infinite_options(data)
  if number % 2 == 0:  # all of the losses go back to the first checkpoint
    options += ('--config.checkpoint.every_steps=100',)
  reference, workdir = lab.reference(*options), lab.path('infinite')
  run = lab.start(workdir, *options)
  run.wait_until(lambda: 'going back' in run.stderr)
  run.poll(number * 0.05 / (1 + tries))
  run.send(signal.SIGKILL)
  run.wait()
  if run.status in (0, -signal.SIGKILL) and (
    run.status == 0 or 'going back' not in run.stderr
  ):
    return []
  trial = Trial(saw=run.line('going back'))
  run = lab.run(workdir, *options)
  skipped = workdir / 'skipped.jsonl'
  if run.status != 0 or len(skipped.read_text().splitlines()) < 2:
    trial.problem = run.told
  trial.problem = trial.problem or reference.compare_end(workdir)
  return [trial]


def make_white_images(lab):
  return white_images(lab.path('white'))


FAULTS = {
  'SIGKILL at random moments': sigkill_at_random,
  'SIGKILL at each file operation of a save': sigkill_in_save,
  'SIGKILL at any file operation': sigkill_at_operations,
  'SIGTERM': sigterm,
  'SIGINT': sigint,
  'a second signal': second_signal,
  'disk full, then freed (tmpfs)': disk_full,
  'disk full for good (tmpfs)': disk_full_for_good,
  'no space for one operation of a save': no_space,
  'I/O error in one operation of a save': io_error,
  'I/O error or no space from then on': failing_for_good,
  'the same, with on_save_error=stop': stopping_at_a_failure,
  'checkpoints become read-only, for a while': read_only,
  'a flipped bit in each file of a checkpoint': flipped_bit,
  'each file of a checkpoint cut in half': truncated_file,
  'each file of a checkpoint missing': missing_file,
  'I/O error while a checkpoint is read': unreadable_checkpoint,
  'a second run on the same workdir': two_runs,
  "a dead run's lock": stale_lock,
  'an image vanishes or turns corrupt': bad_images_skipped,
  'the same, with max_corrupt=0, then mended': bad_images_refused,
  'images changed between two starts': changed_images,
  'the loss overflows; SIGKILL on the way back': infinite_loss,
  'slow disk of images': slow_disk,
  'hung disk of images': hung_disk,
}
