"""Each disease is planted in real generators or a real run, and is told."""

import io
import math

import jax
import numpy as np
import pytest
import rich.console

from cyclegan_jax.config import Config
from cyclegan_jax.data.loader import TrainBatches, sample_images
from cyclegan_jax.data.sources import open_images
from cyclegan_jax.losses import ADVERSARIAL_LOSSES
from cyclegan_jax.report.diagnostics import (
  SIGNS,
  Doctor,
)
from cyclegan_jax.report.metric_writer import read_metrics
from cyclegan_jax.report.run_log import Recorder
from cyclegan_jax.report.samples import translate_samples
from cyclegan_jax.state import create_train_state
from cyclegan_jax.training import preflight
from cyclegan_jax.training.compiled_step import compile_step

FILTERS = 12  # as many as 2 x 2 pixels of 3 channels have numbers


@pytest.fixture
def config(tiny_config):
  """The seed's networks, wide enough at the top to carry a picture."""
  return tiny_config.replace(
    steps=100,
    generator={
      'filters': FILTERS,
      'fixed_input_size': False,
      'isize': 4,
      'dropout': 0.0,
    },
    log={'samples_every_steps': 10},
  )


@pytest.fixture
def reals():
  """Black, white and the six pure colours, at random."""
  rng = np.random.default_rng(0)
  return {
    d: 255 * rng.integers(0, 2, (3, 16, 16, 3), dtype=np.uint8) for d in 'ab'
  }


@pytest.fixture
def make_recorder(tmp_path, reals):
  """Recorders of one folder, whose lines go to `recorder.lines()`."""

  def make(config, start_step=0, reals=reals):
    text = io.StringIO()
    recorder = Recorder(
      tmp_path,
      config,
      facts={},
      reals=reals,
      start_step=start_step,
      console=rich.console.Console(file=text),
    )
    recorder.lines = lambda: text.getvalue().splitlines()
    return recorder

  return make


def make_generator(config, gains):
  """The generator x -> tanh(gain * x), with a gain for each colour.

  The outermost convolution takes 2 x 2 pixels apart into 12 channels, which
  go round all that lies inside and are put together again.
  """
  params = create_train_state(config, jax.random.key(0)).gen['ab']
  params = jax.tree.map(lambda x: np.zeros_like(np.asarray(x)), params)
  down, up = (params[f'{name}_{config.generator.isize}'] for name in NAMES)
  up = up['ConvTranspose_0']
  for channel in range(FILTERS):
    (row, column), colour = divmod(channel // 3, 2), channel % 3
    down['kernel'][1 + row, 1 + column, colour, channel] = 1
    up['kernel'][1 + row, 1 + column, colour, channel] = gains[colour]
  down['bias'][:] = 1  # keeps [-1, 1] out of the reach of the ReLU
  up['bias'][:] = -np.asarray(gains)
  return params


NAMES = ('conv', 'convt')
SAME, INVERTED, CONSTANT = (3, 3, 3), (-3, -3, -3), (0, 0, 0)
# Red is seen; green and blue are less than one of 255 levels.
HIDING, FINDING = (3, 0.005, 0.005), (3, 600, 600)


def examine(config, reals, ab, ba):
  gen = {'ab': make_generator(config, ab), 'ba': make_generator(config, ba)}
  return Doctor(config).examine(translate_samples(config, gen, reals))


def told_after(config, *records):
  """What a doctor tells at the sample times from step 30 on."""
  watching = Doctor(config)
  return [
    text
    for index, record in enumerate(records)
    for text in watching.read(30 + 10 * index, record)
  ]


def test_constant_generator_has_no_diversity(config, reals):
  signs = examine(config, reals, CONSTANT, SAME)
  assert signs['doctor/diversity_ab'] == 0
  assert signs['doctor/diversity_ba'] == pytest.approx(1, abs=0.1)
  assert told_after(config, *[signs] * 2) == []
  told = told_after(config, *[signs] * 3)
  assert told[0] == (
    'a to b has no diversity: it makes nearly the same of different images '
    '(0% of the differences between images are left); raise '
    'config.loss.cycle_a, lower config.optimizer.learning_rate, or start anew '
    'with another config.seed (step 50)'
  )


def test_inputs_that_do_not_differ_have_no_diversity_to_lose(config, reals):
  for alike in (reals['a'][:1], reals['a'][[0, 0]]):
    signs = examine(config, {**reals, 'a': alike}, CONSTANT, SAME)
    assert not any(name.startswith('doctor/diversity') for name in signs)


def test_generator_that_returns_its_input(config, reals):
  signs = examine(config, reals, SAME, INVERTED)
  assert signs['doctor/change_ab'] < 0.01
  assert signs['doctor/change_ba'] > 1.9
  told = told_after(config, *[signs] * 3)
  assert [text for text in told if text.startswith('a to b')] == [
    'a to b changes nothing: its translations are nearly its input (they '
    'differ by 0.005 on the scale of -1 to 1); lower config.loss.identity_b '
    'or config.loss.cycle_a, or make the networks larger by '
    'config.generator.filters (step 50)'
  ]


def test_generators_may_begin_near_the_identity(config):
  watching = Doctor(config)
  record = {'doctor/change_ab': 0.0}
  told = [bool(watching.read(step, record)) for step in range(0, 100, 10)]
  assert told.index(True) == 5  # seen at 30, 40 and 50


def test_other_channels_have_no_change_to_measure(config, reals):
  config = config.replace(data={'channels_b': 1})
  state = create_train_state(config, jax.random.key(0))
  reals = {'a': reals['a'], 'b': reals['b'][..., :1]}
  samples = translate_samples(config, state.gen, reals)
  signs = Doctor(config).examine(samples)
  assert {name[len('doctor/') :] for name in signs} == {
    f'{sign}_{direction}'
    for sign in ('diversity', 'luminance', 'hidden')
    for direction in ('ab', 'ba')
  }


def test_inverting_generator(config, reals):
  signs = examine(config, reals, INVERTED, SAME)
  assert signs['doctor/luminance_ab'] == pytest.approx(-1)
  assert signs['doctor/luminance_ba'] == pytest.approx(1)
  told = told_after(config, *[signs] * 3)
  assert [text for text in told if text.startswith('a to b')] == [
    'a to b inverts colours: what is bright becomes dark (correlation -1.00), '
    'which the cycle allows; unless b is a negative of a, set '
    'config.loss.identity_b to 5 (it needs equal channels) or start anew with '
    'another config.seed (step 50)'
  ]


def test_luminance_of_a_flat_image_is_no_sign(config, reals):
  signs = examine(config, reals, CONSTANT, SAME)
  assert signs['doctor/luminance_ab'] == 0


def test_cycle_that_is_hidden_in_noise(config, reals):
  signs = examine(config, reals, HIDING, FINDING)
  samples = translate_samples(
    config,
    {
      'ab': make_generator(config, HIDING),
      'ba': make_generator(config, FINDING),
    },
    reals,
  )['ab']
  # The disease is there: the picture is red, and yet all colours come back.
  assert np.abs(samples.fake[..., 1:]).max() < 2 / 255
  assert np.abs(samples.back - samples.real).max() < 0.1
  assert signs['doctor/hidden_ab'] > 4
  told = told_after(config, *[signs] * 3)
  (words,) = [text for text in told if 'noise' in text]
  factor = signs['doctor/hidden_ab']
  assert words == (
    f'a to b hides its input in noise: the way back is {factor:.1f} times as '
    'wrong as it should be when noise that no eye sees is added to the '
    "translations, so 'back again' shows less than it seems "
    '(arXiv:1712.02950); lower config.loss.cycle_a (step 50)'
  )


def test_noise_that_passes_through_is_no_sign(config, reals):
  """Nor is it where the way back is nearly perfect without."""
  signs = examine(config, reals, (0.3, 0.3, 0.3), (9, 9, 9))
  assert signs['doctor/hidden_ab'] < 1.2


def test_a_sign_that_comes_and_goes_is_not_told(config):
  ill, well = {'doctor/luminance_ab': -0.9}, {'doctor/luminance_ab': 0.1}
  assert told_after(config, ill, ill, well, ill, ill) == []
  assert told_after(config, ill, {'generator/loss': 1.0}, ill, ill) != []
  lost = {'doctor/luminance_ab': math.nan}
  assert told_after(config, lost, lost, lost) == []


def test_each_disease_of_each_direction_is_told_once(config):
  ill = {'doctor/luminance_ab': -0.9, 'doctor/luminance_ba': -0.9}
  told = told_after(config, *[ill] * 6)
  assert [text[:6] for text in told] == ['a to b', 'b to a']


@pytest.mark.parametrize('name', ['vanilla', 'minimax', 'lsgan', 'hinge'])
def test_discriminator_that_wins_at_any_loss(config, name):
  """Sure on both sides: the loss by its own formula is near zero."""
  config = config.replace(loss={'adversarial': name})
  loss = ADVERSARIAL_LOSSES[name].discriminator
  best = {'lsgan': (0.95, 0.05), 'hinge': (1.5, -0.98)}.get(name, (5.0, -5.0))
  even = {'lsgan': (0.5, 0.5)}.get(name, (0.0, 0.0))
  for logits, share in ((best, 1.0), (even, 0.0)):
    value = float(loss(*(np.full((1, 2, 2, 1), each) for each in logits)))
    watching = Doctor(config)
    for step in range(1, 21):
      watching.read(step, {'discriminator/a': value, 'discriminator/b': 9.0})
    assert watching.examine({}) == {
      'doctor/near_zero_a': share,
      'doctor/near_zero_b': 0.0,
    }


def test_a_critic_s_loss_says_nothing(config):
  watching = Doctor(config.replace(loss={'adversarial': 'wgan_gp'}))
  for step in range(40):
    watching.read(step, {'discriminator/a': 0.0, 'discriminator/b': 0.0})
  assert watching.examine({}) == {}


def test_a_warm_up_is_not_judged(config):
  watching = Doctor(config.replace(warmup_steps=40))
  ill = {'discriminator/a': 0.0, 'doctor/luminance_ab': -0.9}
  lost = {'doctor/not_finite': 1.0}
  told = [watching.read(step, ill | lost) for step in range(1, 41)]
  assert [len(each) for each in told[:2]] == [1, 0]  # lost steps are told
  assert not any(told[2:])
  # A tenth of the 60 steps that are left.
  told = [bool(watching.read(step, ill)) for step in range(41, 61)]
  assert told.index(True) == 7  # seen at 46, 47 and 48
  assert watching.examine({})['doctor/near_zero_a'] == 1  # of these alone

  watching.reread({'step': step} | ill for step in range(1, 60))
  assert watching.examine({}) == {}


def run(config, recorder, sources):
  """A short training, with what the loop tells the recorder."""
  state = create_train_state(config, jax.random.key(config.seed))
  update = compile_step(config, state)
  with recorder, TrainBatches(config, sources) as batches:
    recorder.samples(0, state.translators)
    for step in range(1, config.steps + 1):
      recorder.flush()  # before the memory of the generators is taken over
      outcome = update.run(state, next(batches))
      state = outcome.state
      if step % config.log.samples_every_steps == 0:
        recorder.samples(step, state.translators)
      recorder.step(step, outcome.metrics)
  return read_metrics(recorder._workdir / 'metrics.jsonl')


def cut_down(size, **changes):
  """The default recipe at a size for tests, with its images."""
  config = (
    Config()
    .replace(
      steps=60,
      num_devices=1,
      data={
        'num_train': 48,
        'num_test': 4,
        'size': size,
        'load_size': size,
        'num_workers': 0,
      },
      generator={'filters': 4, 'isize': size},
      discriminator={'filters': 4, 'layers': 1},
      log={'num_samples': 4, 'metrics_every_steps': 2},
    )
    .replace(**changes)
  )
  sources = open_images(config.data)
  config = preflight.resolve(config, sources, saved=None)
  return config, sources, sample_images(config, sources)


def test_healthy_run_is_silent(make_recorder, tmp_path):
  """Every sign is taken, and none is told."""
  config, sources, reals = cut_down(16)
  recorder = make_recorder(config, reals=reals)
  records = run(config, recorder, sources)
  signs = {name for record in records for name in record}
  for name in SIGNS.keys() - {'not_finite'}:
    places = ('a', 'b') if name == 'near_zero' else ('ab', 'ba')
    assert {f'doctor/{name}_{where}' for where in places} <= signs
  assert [line for line in recorder.lines() if 'doctor' in line] == []
  page = (tmp_path / 'index.html').read_text()
  assert 'nothing to complain of' in page
  steps = [record['step'] for record in records]
  assert steps == sorted(set(steps))  # signs and losses share a line


# Generators that hardly learn, against discriminators that do.
UNEVEN = {
  'discriminator': {'norm': 'none'},
  'optimizer': {'learning_rate': 1e-6, 'disc_learning_rate_ratio': 1e4},
}


def test_discriminators_may_win_while_they_learn_alone(make_recorder):
  config, sources, reals = cut_down(8, **UNEVEN, warmup_steps=59)
  recorder = make_recorder(config, reals=reals)
  records = run(config, recorder, sources)
  assert [line for line in recorder.lines() if 'doctor' in line] == []
  limit = 0.05 * 2 * math.log(2)
  late = [each for each in records if each['step'] >= 40]
  assert all(each[f'discriminator/{d}'] < limit for each in late for d in 'ab')
  assert not any('near_zero' in name for each in records for name in each)


def test_discriminators_that_win_a_run(make_recorder, tmp_path):
  config, sources, reals = cut_down(8, **UNEVEN)
  recorder = make_recorder(config, reals=reals)
  records = run(config, recorder, sources)
  told = [line for line in recorder.lines() if 'has won' in line]
  assert len(told) == 2  # once each
  page = (tmp_path / 'index.html').read_text()
  for domain in 'ab':
    words = (
      f'the discriminator of {domain} has won: its loss is near zero in 100% '
      'of the last records, so the generator learns nothing from it; lower '
      'config.optimizer.disc_learning_rate_ratio or raise config.loss.r1 (step '
    )
    assert any(line.startswith(f'doctor: {words}') for line in told)
    assert words in page
    assert records[-1][f'doctor/near_zero_{domain}'] == 1

  # Another process that goes on knows what was told, and what was seen.
  again = make_recorder(config, config.steps, reals)
  with again:
    again.gallery(config.steps)
    again.flush()
    assert words in (tmp_path / 'index.html').read_text()
    records[-1].pop('step')
    again.step(config.steps + 1, records[-1])
  assert [line for line in again.lines() if 'doctor' in line] == []


LOSSES = {
  f'{side}/{name}': np.float32(1)
  for side, name in (
    ('generator', 'loss'),
    ('discriminator', 'a'),
    ('discriminator', 'b'),
  )
}


@pytest.fixture
def inverting(config):
  return {d: make_generator(config, INVERTED) for d in ('ab', 'ba')}


def test_signs_are_taken_at_their_own_times(
  config, make_recorder, inverting, tmp_path
):
  """An end in between and step 0 leave no record that a straight run lacks."""
  config = config.replace(log={'metrics_every_steps': 1000})
  for doctor in (True, False):
    with make_recorder(
      config.replace(diagnostics={'enabled': doctor})
    ) as recorder:
      recorder.samples(0, inverting)
      for step in (25, 30):
        recorder.samples(step, inverting)
        recorder.step(step, LOSSES)
    steps = [each['step'] for each in read_metrics(tmp_path / 'metrics.jsonl')]
    assert steps == ([30] if doctor else [])


def test_signs_make_a_record_at_any_step(
  config, make_recorder, inverting, tmp_path
):
  config = config.replace(
    log={'samples_every_steps': 15, 'metrics_every_steps': 10}
  )
  with make_recorder(config) as recorder:
    for step in range(1, 46):
      if step % 15 == 0:
        recorder.samples(step, inverting)
      recorder.step(step, LOSSES)
    recorder.flush()
    told = [line for line in recorder.lines() if 'a to b' in line]
  records = read_metrics(tmp_path / 'metrics.jsonl')
  assert [each['step'] for each in records] == [10, 15, 20, 30, 40, 45]
  assert all('generator/loss' in record for record in records)
  assert [line[:29] for line in told] == ['doctor: a to b inverts colour']
  assert told[0].endswith('(step 45)')


def test_rewinding_forgets_what_was_seen_but_not_what_was_told(
  config, make_recorder
):
  ill = LOSSES | {'doctor/luminance_ab': -0.9}
  with make_recorder(config) as recorder:
    recorder.step(10, ill)
    recorder.step(20, ill)
    recorder.rewind(10)
    recorder.step(20, ill)
    recorder.flush()
    assert recorder.lines()[1:] == []  # the first shows the progress
    recorder.step(30, ill)
    recorder.rewind(0)
    for step in (10, 20, 30):
      recorder.step(step, ill)
  told = [line for line in recorder.lines() if 'inverts' in line]
  assert len(told) == 1


def test_steps_that_are_left_out(config, make_recorder, tmp_path):
  with make_recorder(config) as recorder:
    recorder.step_skipped(3)
    recorder.step_skipped(7)
  assert recorder.lines() == [
    'doctor: the loss was NaN or infinite, so this step was left out; if there '
    'are more, lower config.optimizer.learning_rate, look at the images of '
    'these steps, and try config.generator.dtype=float32 if it is another '
    '(step 3)'
  ]
  assert read_metrics(tmp_path / 'metrics.jsonl') == [
    {'step': 3, 'doctor/not_finite': 1.0},
    {'step': 7, 'doctor/not_finite': 1.0},
  ]


def test_nothing_compiles_after_the_first_sheet(
  config, make_recorder, inverting
):
  """Wherever training has put the generators."""
  events = []
  # It stays, and listens to no purpose: not every JAX can take it off again.
  jax.monitoring.register_event_duration_secs_listener(
    lambda name, *_, **__: events.append(name)
  )

  def compiled():
    return [name for name in events if 'backend_compile' in name]

  with make_recorder(config) as recorder:
    recorder.samples(0, inverting)
    recorder.flush()
    events.clear()
    recorder.samples(10, jax.device_put(inverting, jax.devices()[-1]))
    recorder.flush()
    assert compiled() == []
    jax.jit(lambda x: x + 41)(1)  # would be seen
    assert compiled() != []


def test_what_the_disk_refuses_does_not_end_a_run(
  config, make_recorder, inverting, tmp_path
):
  (tmp_path / 'samples').write_text('a file where a folder should be')
  with make_recorder(config) as recorder:
    recorder.samples(10, inverting)
    recorder.samples(20, inverting)
    recorder.flush()
    (tmp_path / 'samples').unlink()
    recorder.samples(30, inverting)
    recorder.flush()
    assert (tmp_path / 'samples' / 'step_00000030.png').exists()
  (line,) = recorder.lines()
  assert line.startswith('the sample sheet could not be written (')
  assert line.endswith('); going on')


def test_waiting_on_data_is_told_where_it_is_much(config, make_recorder):
  with make_recorder(config) as recorder:
    recorder.waited(0.0)
    assert recorder.lines() == []
    recorder.waited(5.0)
  (line,) = recorder.lines()
  assert line.startswith('steps waited on data for ')
  assert line.endswith(' of the time (5.0 s)')
