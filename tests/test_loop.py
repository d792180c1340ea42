"""Around a loss that is not finite: back, round it, and on to the same bits.

The infinity is a real one: the weight of the cycle loss is so large that only
the step at which the white image of a meets the white image of b overflows.
"""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.data.loader import image_at
from cyclegan_jax.errors import TrainingError
from cyclegan_jax.report.metric_writer import read_metrics
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.training import train as train_module
from cyclegan_jax.training.loop import read_skipped
from cyclegan_jax.training.train import train

NUM_IMAGES = 4
WHITE = 2
STEPS = 24


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('images')
  for name in ('trainA', 'trainB'):
    (folder / name).mkdir()
    for index in range(NUM_IMAGES):
      value = 255 if index == WHITE else 120 + 3 * index
      image = Image.fromarray(np.full((16, 16, 3), value, np.uint8))
      image.save(folder / name / f'{index}.png')
  return folder


@pytest.fixture
def config(load_preset, folder):
  return load_preset('tiny').replace(
    batch_size=1,
    steps=STEPS,
    data={
      'name': 'folder',
      'path': str(folder),
      'load_size': 16,
      'num_workers': 2,
    },
    generator={'norm': 'none', 'dropout': 0.0},
    optimizer={'name': 'sgd', 'b1': 0.0, 'learning_rate': 1e-41},
    loss={'cycle_a': 2.1e38, 'cycle_b': 2.1e38},
  )


def lost_steps(seed):
  """When white meets white."""
  return [
    position + 1
    for position in range(STEPS)
    if all(image_at(position, NUM_IMAGES, seed, d) == WHITE for d in 'ab')
  ]


@pytest.mark.slow
def test_the_steps_that_lose_it_are_left_out_and_written_down(
  config, folder, tmp_path, capfd
):
  lost = lost_steps(config.seed)
  assert len(lost) > 1
  result = train(config, tmp_path)
  assert int(result.state.step) == STEPS
  assert read_skipped(tmp_path) == [
    {
      'step': step,
      'a': [f'{folder}/trainA/{WHITE}.png'],
      'b': [f'{folder}/trainB/{WHITE}.png'],
    }
    for step in lost
  ]
  records = read_metrics(tmp_path / 'metrics.jsonl')
  steps = [each['step'] for each in records]
  assert steps == sorted({*range(2, STEPS + 1, 2), *lost})
  for record in records:
    assert all(np.isfinite(value) for value in record.values())
    assert (record['step'] in lost) == ('diagnostics/not_finite' in record)
  output = capfd.readouterr().err
  for number, step in enumerate(lost, start=1):
    assert f'not finite at step {step}' in output
    assert f'skipping step {step} ({number} of at most 10)' in output
  assert f'{tmp_path}/skipped.jsonl' in output
  assert output.count('the loss was NaN or infinite') == 1


@pytest.mark.slow
@pytest.mark.parametrize('num_devices', [1, 2])
def test_several_are_lost_since_the_last_checkpoint(
  config, tmp_path, num_devices
):
  config = config.replace(
    batch_size=num_devices,
    num_devices=num_devices,
    checkpoint={'every_steps': 100},
  )
  if num_devices == 2:
    # One white pair of two has half the loss of one alone.
    config = config.replace(loss={'cycle_a': 2.6e38, 'cycle_b': 2.6e38})
  train(config, tmp_path / 'one')
  skipped = [each['step'] for each in read_skipped(tmp_path / 'one')]
  if num_devices == 1:
    assert skipped == lost_steps(config.seed)
  assert len(skipped) > 1
  assert skipped == sorted(set(skipped))
  records = read_metrics(tmp_path / 'one' / 'metrics.jsonl')
  steps = [each['step'] for each in records]
  assert steps == sorted({*range(2, STEPS + 1, 2), *skipped})
  train(config.replace(steps=skipped[1]), tmp_path / 'two')
  train(config, tmp_path / 'two')
  for name in ('metrics.jsonl', 'skipped.jsonl'):
    one, two = ((tmp_path / run / name).read_text() for run in ('one', 'two'))
    assert one == two


@pytest.mark.slow
@pytest.mark.parametrize('stop_after', ['lost', 'before'])
def test_in_two_parts_it_comes_to_the_same(config, tmp_path, stop_after):
  one, two = tmp_path / 'one', tmp_path / 'two'
  expected = train(config, one)
  lost = lost_steps(config.seed)
  stop = lost[1] if stop_after == 'lost' else lost[1] - 1
  part = train(config.replace(steps=stop), two)
  assert int(part.state.step) == stop
  result = train(config, two)
  assert result.start_step == stop
  for x, y in zip(
    jax.tree.leaves(result.state.gen),
    jax.tree.leaves(expected.state.gen),
    strict=True,
  ):
    np.testing.assert_array_equal(x, y)
  for name in ('metrics.jsonl', 'skipped.jsonl'):
    assert (one / name).read_text() == (two / name).read_text()


@pytest.mark.slow
def test_a_kill_before_the_next_checkpoint_takes_the_skip_back(
  config, tmp_path
):
  lost = lost_steps(config.seed)
  expected = train(config, tmp_path / 'one')
  workdir = tmp_path / 'two'
  train(config.replace(steps=lost[0] - 1), workdir)
  # What a run that died after the skip, and before it saved, has written.
  record = {'step': lost[0], 'a': ['x'], 'b': ['y']}
  (workdir / 'skipped.jsonl').write_text(json.dumps(record) + '\n')
  result = train(config, workdir)
  assert [each['step'] for each in read_skipped(workdir)] == lost
  assert read_skipped(workdir) == read_skipped(tmp_path / 'one')
  for x, y in zip(
    jax.tree.leaves(result.state.gen),
    jax.tree.leaves(expected.state.gen),
    strict=True,
  ):
    np.testing.assert_array_equal(x, y)


@pytest.mark.slow
def test_more_are_lost_than_the_budget(config, tmp_path):
  lost = lost_steps(config.seed)
  with pytest.raises(TrainingError, match=r'max_skipped_steps=1\b') as caught:
    train(config.replace(faults={'max_skipped_steps': 1}), tmp_path)
  assert f'{tmp_path}/skipped.jsonl' in str(caught.value)
  assert [each['step'] for each in read_skipped(tmp_path)] == lost[:2]
  # The last good checkpoint is there, and a larger budget goes on from it.
  last = checkpoint.list_steps(tmp_path / 'checkpoints')[-1]
  assert 0 < last < lost[1]
  assert int(train(config, tmp_path).state.step) == STEPS


@pytest.mark.slow
def test_a_gradient_that_overflows_while_the_loss_does_not(config, tmp_path):
  """Adam squares it: infinite in the state, where no loss will show it."""
  config = config.replace(
    optimizer={'name': 'adam', 'learning_rate': 1e-4, 'b1': 0.5},
    loss={'cycle_a': 1e25, 'cycle_b': 1e25},
    faults={'max_skipped_steps': 0},
    checkpoint={'every_steps': 4},
    log={'samples_every_steps': 8},
  )
  with pytest.raises(TrainingError, match='not finite at 1 steps'):
    train(config, tmp_path)
  assert [each['step'] for each in read_skipped(tmp_path)] == [1]
  assert checkpoint.list_steps(tmp_path / 'checkpoints') == [0]


@pytest.mark.slow
def test_a_rate_that_is_far_too_high_ends_soon(config, tmp_path):
  config = config.replace(
    optimizer={'name': 'adam', 'learning_rate': 1e30},
    loss={'cycle_a': 10.0, 'cycle_b': 10.0},
    faults={'max_skipped_steps': 2},
  )
  with pytest.raises(TrainingError, match='not finite at 3 steps'):
    train(config, tmp_path)
  assert checkpoint.list_steps(tmp_path / 'checkpoints') == [0]


@pytest.mark.slow
def test_a_machine_that_errs_once(config, tmp_path, monkeypatch, capfd):
  """A bit that flips in the chip, which nothing here can make it do."""
  config = config.replace(loss={'cycle_a': 10.0, 'cycle_b': 10.0})
  config = config.replace(optimizer={'learning_rate': 1e-3})
  expected = train(config, tmp_path / 'one')
  compile_step = train_module.compile_step
  calls = itertools.count(1)

  def compile_flaky(config, state):
    step = compile_step(config, state)

    def run(state, raw):
      output = step.run(state, raw)
      if next(calls) != 7:
        return output
      broken = jax.tree.map(lambda x: x * jnp.nan, output.state.gen)
      return output._replace(state=output.state.replace(gen=broken))

    return step._replace(run=run)

  monkeypatch.setattr(train_module, 'compile_step', compile_flaky)
  result = train(config, tmp_path / 'two')
  output = capfd.readouterr().err
  assert 'the loss is not finite at step 8' in output
  assert 'step 8 is finite when repeated' in output
  assert read_skipped(tmp_path / 'two') == []
  for x, y in zip(
    jax.tree.leaves(result.state.gen),
    jax.tree.leaves(expected.state.gen),
    strict=True,
  ):
    np.testing.assert_array_equal(x, y)
  name = 'metrics.jsonl'
  one, two = tmp_path / 'one', tmp_path / 'two'
  assert (one / name).read_text() == (two / name).read_text()
