"""Runs that are killed or stopped resume to the same bits.

CYCLEGAN_FAULT_KILLS=500 pytest -n 0 -m faults tests/faults/test_kills.py
"""

import os
import random
import shutil
import signal
import time

import pytest
from fault_lab import (
  KEEP_ONE,
  STEPS,
  digest,
  is_killed,
  metrics,
  saved_steps,
  scalars,
)

from cyclegan_jax.storage import checkpoint

pytestmark = pytest.mark.faults

KILLS = int(os.environ.get('CYCLEGAN_FAULT_KILLS', '40'))
# Operations of one save, from its first folder to the last file of the
# checkpoint that it replaces; a few more cost nothing.
OPERATIONS = 230
KILLS_OF_A_RUN = 8
SECONDS_TO_STOP = 30  # on a busy machine


def kill_at_any_time(lab, workdir, rng, _):
  run = lab.start(workdir)
  run.sleep(rng.uniform(0, lab.reference().seconds))
  run.send(signal.SIGKILL)
  run.wait()
  return run


def kill_in_a_save(lab, workdir, rng, share):
  """Kills at an operation of the first save: `share` of them are before it."""
  return lab.run(
    workdir,
    KEEP_ONE,
    under=workdir / 'checkpoints',
    since='mkdir',
    at=1 + int(share * OPERATIONS),
    do=rng.choice(['kill', 'torn']),
  )


def kill_at_any_operation(lab, workdir, rng, _):
  return lab.run(
    workdir,
    KEEP_ONE,
    under=workdir,
    at=rng.randint(1, 2 * OPERATIONS),
    do=rng.choice(['kill', 'torn']),
  )


@pytest.mark.parametrize(
  'kill, share_of_kills',
  [
    (kill_at_any_time, 0.3),
    (kill_in_a_save, 0.5),
    (kill_at_any_operation, 0.2),
  ],
)
def test_killed_again_and_again(kill, share_of_kills, lab):
  """Each run is killed several times, then finished."""
  reference, rng = lab.reference(), random.Random(0)
  num_kills = round(share_of_kills * KILLS)
  done = 0
  while done < num_kills:
    workdir, had_checkpoint = lab.path('killed'), False
    for _ in range(KILLS_OF_A_RUN):
      run = kill(lab, workdir, rng, done / num_kills)
      if not is_killed(run):
        assert run.status == 0, run.stderr
        break
      done += 1
      has_checkpoint = bool(saved_steps(workdir))
      assert has_checkpoint or not had_checkpoint
      had_checkpoint = has_checkpoint
      if has_checkpoint:
        reference.check_saved(workdir)
    lab.finish(workdir)


def anywhere(lab, run, workdir, rng):
  run.sleep(rng.uniform(0, lab.reference().seconds))


def in_a_save(lab, run, workdir, rng):
  step = rng.randrange(0, STEPS, 2)
  run.wait_until(lambda: (workdir / f'checkpoints/.{step}.tmp').exists())


def while_compiling(lab, run, workdir, rng):
  run.wait_until(lambda: 'compiling' in run.stderr)
  run.sleep(rng.uniform(0.1, 2))


@pytest.mark.parametrize(
  'number, moment, is_sent_twice',
  [
    (signal.SIGTERM, anywhere, False),
    (signal.SIGINT, anywhere, True),
    (signal.SIGINT, in_a_save, False),
    (signal.SIGTERM, in_a_save, True),
    (signal.SIGTERM, while_compiling, False),
    (signal.SIGINT, while_compiling, True),
  ],
)
@pytest.mark.parametrize('seed', range(2))
def test_stopped_by_a_signal(number, moment, is_sent_twice, seed, lab):
  reference, rng = lab.reference(), random.Random(seed)
  workdir = lab.path('stopped')
  run = lab.start(workdir, caches_programs=moment is not while_compiling)
  moment(lab, run, workdir, rng)
  run.send(number)
  if is_sent_twice:
    run.sleep(rng.uniform(0, 0.3))
    run.send(number)
  sent = time.monotonic()
  status = run.wait()
  assert time.monotonic() - sent < SECONDS_TO_STOP
  # The run may be over before, and Python's first moments have no handler.
  allowed = {128 + number, 0} | (set() if workdir.exists() else {-number})
  assert status in allowed, run.stderr
  assert 'Traceback' not in run.stderr
  if saved_steps(workdir):
    reference.check_saved(workdir)
  lab.finish(workdir)


PLUGIN = """
import flax.linen as nn
import jax.numpy as jnp
import cyclegan_jax as cg

@cg.register.adversarial_loss('own')
class Own:
  def generator(fake_logits):
    return jnp.mean(nn.softplus(-fake_logits))

  def discriminator(real_logits, fake_logits):
    real = jnp.mean(nn.softplus(-real_logits))
    return real + jnp.mean(nn.softplus(fake_logits))

@cg.register.loss_term('total_variation')
def total_variation(real, fake, cycled):
  return jnp.abs(jnp.diff(fake, axis=1)).mean()
"""


def kill_while_it_trains(lab, workdir, options, begin):
  run = lab.start(workdir, *options)
  later = workdir / f'checkpoints/.{begin + 4}.tmp'
  run.wait_until(later.exists)
  run.send(signal.SIGKILL)
  run.wait()
  return run


@pytest.fixture(scope='module')
def commands(lab):
  """(options, first step) of a run that is extended twice, then changed."""
  plugin = lab.path('own').with_suffix('.py')
  plugin.write_text(PLUGIN)
  own = (f'--plugin={plugin}', '--config.loss.adversarial=own')
  term = '--config.loss.terms=total_variation='
  first = (*own, f'{term}0.5', '--config.schedule.name=linear')
  changed = (*own, f'{term}0.25', '--config.schedule.name=linear', '--change')
  changed += ('--config.optimizer.learning_rate=1e-4',)
  return [
    ((*first, '--config.steps=6'), 0),
    ((*first, '--config.steps=12'), 6),
    ((*first, '--config.steps=18'), 12),
    ((*changed, '--config.steps=24'), 18),
  ]


def records(workdir):
  """What a run of several commands left: its state, curves and changes."""
  return (
    saved_steps(workdir),
    digest(checkpoint.load(workdir).state),
    metrics(workdir),
    scalars(workdir),
    (workdir / 'config_history.jsonl').read_text(),
    (workdir / 'config.json').read_text(),
  )


@pytest.fixture(scope='module')
def undisturbed(lab, commands):
  """The records, and a copy of the run before its change."""
  workdir, copy = lab.path('own_undisturbed'), lab.path('own_unchanged')
  for options, _ in commands:
    shutil.rmtree(copy, ignore_errors=True)
    if workdir.exists():
      shutil.copytree(workdir, copy)
    run = lab.run(workdir, *options)
    assert run.status == 0, run.stderr
  left = records(workdir)
  assert 'generator/total_variation_ab' in left[2][-1]
  assert len(left[4].splitlines()) == 3
  assert checkpoint.load(workdir).state.pools
  return left, copy


def test_own_losses_killed_in_each_stretch(lab, commands, undisturbed):
  workdir = lab.path('own_killed')
  for options, begin in commands:
    assert is_killed(kill_while_it_trains(lab, workdir, options, begin))
    run = lab.run(workdir, *options)
    assert run.status == 0, run.stderr
  assert records(workdir) == undisturbed[0]


@pytest.mark.parametrize('share', [0.3, 0.9, 0.97])
def test_own_losses_killed_while_the_change_is_saved(
  share, lab, commands, undisturbed
):
  """This save replaces the checkpoint from which the run continues."""
  records_of_all, unchanged = undisturbed
  workdir = lab.path('own_killed')
  shutil.copytree(unchanged, workdir)
  options, _ = commands[-1]
  killed = lab.run(
    workdir,
    *options,
    under=workdir / 'checkpoints',
    since='mkdir',
    at=1 + int(share * OPERATIONS),
    do='kill',
  )
  assert is_killed(killed)
  run = lab.run(workdir, *options)
  assert run.status == 0, run.stderr
  assert records(workdir) == records_of_all


def test_a_second_run_is_refused_until_the_first_dies(lab):
  workdir = lab.path('shared')
  lab.reference()
  first = lab.start(workdir)
  first.wait_until(lambda: 'compiling' in first.stderr)
  first.send(signal.SIGSTOP)  # else it would be done too soon
  second = lab.run(workdir)
  assert second.status == 1
  assert str(first.pid) in second.stderr
  first.send(signal.SIGKILL)
  first.wait()
  lab.finish(workdir)


@pytest.mark.parametrize(
  'spoil',
  [
    lambda run: (run / 'metrics.jsonl').write_text('{}'),
    lambda run: next((run / 'tensorboard').iterdir()).write_bytes(b''),
    lambda run: (run / f'checkpoints/{STEPS}/record.json').write_text('{}'),
    lambda run: shutil.rmtree(run / f'checkpoints/{STEPS}'),
  ],
  ids=['metrics', 'events', 'damaged checkpoint', 'missing checkpoint'],
)
def test_a_difference_is_noticed(spoil, lab):
  workdir = lab.path('spoiled')
  lab.finish(workdir)
  spoil(workdir)
  with pytest.raises(AssertionError):
    lab.reference().check_finished(workdir)


def test_another_state_is_noticed(lab):
  workdir = lab.path('other')
  assert lab.run(workdir, '--config.seed=1').status == 0
  with pytest.raises(AssertionError, match='another state'):
    lab.reference().check_saved(workdir)
