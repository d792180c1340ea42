"""The faults of faults.py: how each is injected, and what is to come of it.

Each entry of FAULTS is a function (lab, kills) -> tasks; a task injects one
fault or a chain of them and returns their trials.
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
KEEP_ONE = '--config.log.keep_checkpoints=1'
SECONDS_TO_STOP = 10


class Skipped(Exception):  # noqa: N818 (no error)
  """A fault can not be injected here; the text says why."""


def needs_shim(lab):
  if lab.shim is None:
    raise Skipped('needs Linux and a C compiler')


# SIGKILL


def kill_at(lab, workdir, rng, *_, reference):
  """Kills a process anywhere in its life; one in 20 starts from scratch."""
  real = rng.random() < 0.05
  run = lab.start(workdir, real=real)
  run.poll(rng.uniform(0, reference.seconds + 5 * real))
  run.send(signal.SIGKILL)
  run.wait()
  return run


def kill_in_save(lab, workdir, rng, at, **_):
  """Kills a process at an operation of its first save."""
  do = rng.choice(('kill', 'torn'))
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
    A trial for each kill.
  """
  reference, rng = lab.reference(), random.Random(seed)
  trials, places = [], list(places)
  while places:
    workdir, of_chain = lab.path('killed'), []
    while True:
      if places:
        run = strike(lab, workdir, rng, places[0], reference=reference)
      else:
        run = lab.run(workdir)
      if of_chain:
        of_chain[-1].saw = run.line('going on from', 'compiling')
      if run.status != -signal.SIGKILL:
        break
      places.pop(0)
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
    if not of_chain:
      of_chain.append(Trial())
      places = places[1:]
    of_chain[-1].problem = of_chain[-1].problem or problem
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


def stop(lab, number, moment, seed, *, real=False, twice=False):
  """Sends a signal, looks at what it leaves, and goes on to the end."""
  reference, rng = lab.reference(), random.Random(seed)
  env = {'JAX_ENABLE_COMPILATION_CACHE': 'false'} if real else {}
  while True:
    workdir = lab.path('stopped')
    run = lab.start(workdir, real=real, env=env)
    run.workdir = workdir
    moment(run, rng, reference)
    if run.status is None:
      break
  sent = time.monotonic()
  run.send(number)
  if twice:
    run.poll(rng.uniform(0, 0.3))
    sent = time.monotonic()
    run.send(number)
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
  elif seconds > (2 if twice else SECONDS_TO_STOP):
    trial.problem = f'it took {seconds:.1f} s to stop'
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


def stops(lab, number, kills):
  count = max(1, kills // 25)
  plan = [
    *[(anywhere, {})] * count,
    *[(in_a_save, {})] * count,
    *[(in_imports, {'real': True})] * (count // 4),
    *[(in_compilation, {'real': True})] * (count // 4),
  ]
  return [
    functools.partial(stop, lab, number, moment, seed, **how)
    for seed, (moment, how) in enumerate(plan)
  ]


def sigterm(lab, kills):
  return stops(lab, signal.SIGTERM, kills)


def sigint(lab, kills):
  return stops(lab, signal.SIGINT, kills)


def second_signal(lab, kills):
  return [
    functools.partial(stop, lab, number, moment, seed, twice=True)
    for seed in range(max(1, kills // 100))
    for number in (signal.SIGTERM, signal.SIGINT)
    for moment in (anywhere, in_a_save)
  ]


# The disk of the checkpoints


def failing_save(lab, error, at, *options, count=1):
  """Lets operations of a save fail: one, or all from then on."""
  reference, workdir = lab.reference(), lab.path('failing')
  under = workdir / 'checkpoints'
  run = lab.run(workdir, *options, under=under, at=at, count=count, do=error)
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
  places = np.linspace(2.1, 3, max(2, kills // 25)) * OPS_OF_SAVE * 0.7
  return [functools.partial(failing_save, lab, error, int(at)) for at in places]


def io_error(lab, kills):
  return failing(lab, 'EIO', kills)


def no_space(lab, kills):
  return failing(lab, 'ENOSPC', kills)


def failing_for_good(lab, *_):
  needs_shim(lab)
  return [
    functools.partial(failing_save, lab, error, at, count=0)
    for error in ('EIO', 'ENOSPC')
    for at in (1, 350, 500)
  ]


def stopping_at_a_failure(lab, *_):
  needs_shim(lab)
  option = '--config.log.on_save_error=stop'
  return [
    functools.partial(failing_save, lab, error, 350, option, count=0)
    for error in ('EIO', 'ENOSPC')
  ]


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


def full_disk(lab, *, frees):
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
    saw = ('could not be written', '^error: ') if frees else ('^error: ',)
    trial = Trial(saw=run.line(*saw))
    if frees and 'checkpoint of step' not in run.stderr:
      trial.problem = 'the run ended before the disk was full'
    elif run.status != (0 if frees else 1):
      trial.problem = run.told
    else:
      trial.problem = reference.compare_saved(workdir)
    if frees and run.status == 0:
      trial.problem = trial.problem or reference.compare_end(workdir)
    return [finish(lab, reference, workdir, trial)]


def disk_full(lab, *_):
  return [functools.partial(full_disk, lab, frees=True)] * 3


def disk_full_for_good(lab, *_):
  return [functools.partial(full_disk, lab, frees=False)] * 2


def read_only(lab, *_):
  return [functools.partial(read_only_folder, lab)] * 2


def read_only_folder(lab):
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
  trial = Trial(saw=run.line('could not be written'))
  if run.status != 0:
    trial.problem = run.told
  elif 'could not be written' not in run.stderr:
    trial.problem = 'nothing was told'
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


def damage(lab, how, skip, take):
  """Damages each file of a run's newest checkpoint, one in each trial."""
  reference, whole = lab.reference(), lab.once(stopped_at_12)
  trials = []
  newest = whole / 'checkpoints' / '12'
  names = sorted(p.relative_to(whole) for p in newest.rglob('*') if p.is_file())
  for name in names[skip::take]:
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


def damages(lab, how):
  return [functools.partial(damage, lab, how, part, 6) for part in range(6)]


def flipped_bit(lab, *_):
  return damages(lab, flip_bit)


def truncated_file(lab, *_):
  return damages(lab, halve)


def missing_file(lab, *_):
  return damages(lab, pathlib.Path.unlink)


def unreadable_checkpoint(lab, *_):
  needs_shim(lab)
  return [functools.partial(unreadable, lab)]


def unreadable(lab):
  reference, workdir = lab.reference(), lab.path('unreadable')
  lab.run(workdir, '--config.steps=12')
  under = workdir / 'checkpoints' / '12'
  run = lab.run(workdir, kind='read', under=under, at=3, do='EIO')
  trial = Trial(run.status and run.told, run.line('is damaged'))
  trial.problem = trial.problem or reference.compare_end(workdir)
  return [trial]


# Two runs at once


def two_runs(lab, kills):
  return [functools.partial(second_run, lab)] * max(1, kills // 100)


def second_run(lab):
  reference, workdir = lab.reference(), lab.path('shared')
  first = lab.start(workdir)
  first.wait_until(lambda: 'compiling' in first.stderr)
  second = lab.run(workdir, real=True)
  first.wait()
  trial = Trial(saw=second.line('^error: '))
  if second.status != 1 or f'process {first.pid} ' not in trial.saw:
    trial.problem = second.told
  trial.problem = trial.problem or reference.compare_end(workdir)
  return [trial]


def stale_lock(lab, kills):
  return [functools.partial(dead_owner, lab)] * max(1, kills // 100)


def dead_owner(lab):
  reference, workdir = lab.reference(), lab.path('lock')
  run = lab.start(workdir)
  run.wait_until(lambda: 'compiling' in run.stderr)
  run.send(signal.SIGKILL)
  run.wait()
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


def bad_image(lab, how, *, budget):
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


def bad_images(lab, budget):
  return [
    functools.partial(bad_image, lab, how, budget=budget)
    for how in (pathlib.Path.unlink, overwrite, halve)
  ]


def bad_images_skipped(lab, *_):
  return bad_images(lab, 10)


def bad_images_refused(lab, *_):
  return bad_images(lab, 0)


def changed_images(lab, *_):
  return [functools.partial(changed_data, lab, strict) for strict in (0, 1)]


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


def late_images(lab, **faults):
  reference = folder_reference(lab)
  workdir, data = lab.path('late'), make_images(lab.path('images'))
  train = data / 'trainA'
  orders = {'kind': 'read', 'under': train, 'do': 'sleep', **faults}
  run = lab.run(workdir, *folder_options(data), **orders)
  saw = [run.line(words) for words in ('waiting on data', 'waited on data')]
  trial = Trial(saw=' / '.join(dict.fromkeys(saw)))
  if run.status != 0 or 'data' not in trial.saw:
    trial.problem = run.told
  trial.problem = trial.problem or reference.compare_end(workdir)
  return [trial]


def slow_disk(lab, *_):
  needs_shim(lab)
  return [functools.partial(late_images, lab, at=1, seconds=0.1)]


def hung_disk(lab, *_):
  needs_shim(lab)
  return [functools.partial(late_images, lab, at=50, count=1, seconds=12)]


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


def lost_loss(lab, number):
  """Loses it; then the same, killed on the way back from it."""
  data = lab.once(make_white_images)
  options = infinite_options(data)
  reference, workdir = lab.reference(*options), lab.path('infinite')
  run = lab.start(workdir, *options)
  run.wait_until(lambda: 'going back' in run.stderr)
  time.sleep(number * 0.05)
  run.send(signal.SIGKILL)
  run.wait()
  trial = Trial(saw=run.line('going back'))
  run = lab.run(workdir, *options)
  if run.status != 0 or not (workdir / 'skipped.jsonl').exists():
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
