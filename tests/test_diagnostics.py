"""Failures built into real generators are measured and warned of."""

import math

import jax
import numpy as np
import pytest

from cyclegan_jax.losses import ADVERSARIAL_LOSSES
from cyclegan_jax.report.diagnostics import Diagnostics
from cyclegan_jax.report.samples import translate_samples
from cyclegan_jax.state import create_train_state

FILTERS = 12  # as many as 2 x 2 pixels of 3 channels have numbers
IDENTITY, INVERTED, CONSTANT = (3, 3, 3), (-3, -3, -3), (0, 0, 0)
# Red is visible; green and blue are less than one of 255 levels.
HIDING, FINDING = (3, 0.005, 0.005), (3, 600, 600)


@pytest.fixture
def config(tiny_config):
  """The Keras networks, with enough filters at the top to copy an image."""
  return tiny_config.replace(
    steps=100,
    generator={
      'filters': FILTERS,
      'fixed_input_size': False,
      'isize': 4,
      'dropout': 0.0,
    },
  )


@pytest.fixture
def reals():
  """Black, white and the six pure colors, at random."""
  rng = np.random.default_rng(0)
  return {
    d: 255 * rng.integers(0, 2, (3, 16, 16, 3), dtype=np.uint8) for d in 'ab'
  }


def make_generator(config, gains):
  """The generator x -> tanh(gain * x), with a gain for each color.

  The outermost convolution splits 2 x 2 pixels into 12 channels, which skip
  the inner layers and are put together again.
  """
  params = create_train_state(config, jax.random.key(0)).gen['ab']
  params = jax.tree.map(lambda x: np.zeros_like(np.asarray(x)), params)
  isize = config.generator.isize
  down, up = params[f'conv_{isize}'], params[f'convt_{isize}']
  up = up['ConvTranspose_0']
  for channel in range(FILTERS):
    (row, column), color = divmod(channel // 3, 2), channel % 3
    down['kernel'][1 + row, 1 + column, color, channel] = 1
    up['kernel'][1 + row, 1 + column, color, channel] = gains[color]
  down['bias'][:] = 1  # makes [-1, 1] positive, for the ReLU
  up['bias'][:] = -np.asarray(gains)
  return params


def translate(config, reals, ab, ba):
  gen = {'ab': make_generator(config, ab), 'ba': make_generator(config, ba)}
  return translate_samples(config, gen, reals)


def measure(config, reals, ab, ba):
  """Metrics without their prefix."""
  samples = translate(config, reals, ab, ba)
  metrics = Diagnostics(config).measure(samples)
  return {name.removeprefix('diagnostics/'): x for name, x in metrics.items()}


def warnings_after(config, *records):
  """Warnings of measurements that are recorded from step 30 on."""
  diagnostics = Diagnostics(config)
  return [
    text
    for index, record in enumerate(records)
    for text in diagnostics.update(
      30 + 10 * index, {f'diagnostics/{name}': x for name, x in record.items()}
    )
  ]


@pytest.mark.parametrize(
  'ab, name, low, high, option',
  [
    (CONSTANT, 'diversity', 0, 0, 'config.loss.cycle_a'),
    (IDENTITY, 'change', 0, 0.01, 'config.loss.identity_b'),
    (INVERTED, 'luminance', -1.001, -0.999, 'config.loss.identity_b'),
  ],
)
def test_a_failure_is_measured_and_warned_of(
  config, reals, ab, name, low, high, option
):
  values = measure(config, reals, ab, FINDING)
  assert low <= values[f'{name}_ab'] <= high
  failing = {f'{name}_ab': values[f'{name}_ab']}
  assert warnings_after(config, *[failing] * 2) == []
  (text,) = warnings_after(config, *[failing] * 6)
  assert text.startswith('horse to zebra ')
  assert option in text
  assert text.endswith('(step 50)')


def test_generators_without_failures(config, reals):
  values = measure(config, reals, (0.3, 0.3, 0.3), (9, 9, 9))
  assert values['diversity_ab'] > 0.25
  assert values['diversity_ba'] == pytest.approx(1, abs=0.1)
  assert values['change_ab'] > 0.3
  assert values['luminance_ab'] > 0.9
  # Noise passes through, and the way back is nearly perfect without it.
  assert values['hidden_ab'] < 1.2


def test_a_cycle_that_is_hidden_in_noise(config, reals):
  images = translate(config, reals, HIDING, FINDING)['ab']
  # The failure is there: the image is red, but all colors come back.
  assert np.abs(images.fake[..., 1:]).max() < 2 / 255
  assert np.abs(images.back - images.real).max() < 0.1
  values = measure(config, reals, HIDING, FINDING)
  assert values['hidden_ab'] > 4
  hidden = {'hidden_ab': values['hidden_ab']}
  (text,) = warnings_after(config, *[hidden] * 3)
  assert 'config.loss.cycle_a' in text


def test_equal_images_have_no_diversity_to_lose(config, reals):
  for equal in (reals['a'][:1], reals['a'][[0, 0]]):
    values = measure(config, {**reals, 'a': equal}, CONSTANT, IDENTITY)
    assert not any(name.startswith('diversity') for name in values)


def test_a_constant_image_has_no_luminance_correlation(config, reals):
  values = measure(config, reals, CONSTANT, IDENTITY)
  assert values['luminance_ab'] == 0


def test_different_channels_have_no_change_to_measure(config, reals):
  config = config.replace(data={'channels_b': 1})
  state = create_train_state(config, jax.random.key(0))
  reals = {'a': reals['a'], 'b': reals['b'][..., :1]}
  samples = translate_samples(config, state.gen, reals)
  assert Diagnostics(config).measure(samples).keys() == {
    f'diagnostics/{check}_{direction}'
    for check in ('diversity', 'luminance', 'hidden')
    for direction in ('ab', 'ba')
  }


def test_generators_may_start_near_the_identity(config):
  diagnostics = Diagnostics(config)
  record = {'diagnostics/change_ab': 0.0}
  warned = [
    bool(diagnostics.update(step, record)) for step in range(0, 100, 10)
  ]
  assert warned.index(True) == 5  # measured at 30, 40 and 50


def test_failures_that_pass_cause_no_warning(config):
  bad, good = {'luminance_ab': -0.9}, {'luminance_ab': 0.1}
  assert warnings_after(config, bad, bad, good, bad, bad) == []
  assert warnings_after(config, bad, {'generator/loss': 1.0}, bad, bad) != []
  nan = {'luminance_ab': math.nan}
  assert warnings_after(config, nan, nan, nan) == []


def test_each_direction_is_warned_of_once(config):
  bad = {'luminance_ab': -0.9, 'luminance_ba': -0.9}
  warnings = warnings_after(config, *[bad] * 6)
  assert [text[:14] for text in warnings] == [
    'horse to zebra',
    'zebra to horse',
  ]


@pytest.mark.parametrize('name', ['vanilla', 'minimax', 'lsgan', 'hinge'])
def test_a_discriminator_that_wins(config, name):
  """Sure on both sides: the loss by its own formula is near zero."""
  config = config.replace(loss={'adversarial': name})
  loss = ADVERSARIAL_LOSSES[name].discriminator
  best = {'lsgan': (0.95, 0.05), 'hinge': (1.5, -0.98)}.get(name, (5.0, -5.0))
  even = {'lsgan': (0.5, 0.5)}.get(name, (0.0, 0.0))
  for logits, share in ((best, 1.0), (even, 0.0)):
    value = float(loss(*(np.full((1, 2, 2, 1), each) for each in logits)))
    diagnostics = Diagnostics(config)
    for step in range(1, 21):
      diagnostics.update(
        step, {'discriminator/a': value, 'discriminator/b': 9.0}
      )
    assert diagnostics.measure({}) == {
      'diagnostics/near_zero_a': share,
      'diagnostics/near_zero_b': 0.0,
    }


def test_the_loss_of_a_critic_is_not_checked(config):
  diagnostics = Diagnostics(config.replace(loss={'adversarial': 'wgan_gp'}))
  for step in range(40):
    diagnostics.update(step, {'discriminator/a': 0.0, 'discriminator/b': 0.0})
  assert diagnostics.measure({}) == {}


def test_only_lost_steps_count_in_a_warm_up(config):
  diagnostics = Diagnostics(config.replace(warmup_steps=40))
  bad = {'discriminator/a': 0.0, 'diagnostics/luminance_ab': -0.9}
  lost = {'diagnostics/not_finite': 1.0}
  warned = [len(diagnostics.update(step, bad | lost)) for step in range(1, 41)]
  assert warned == [1] + [0] * 39
  # A tenth of the 60 steps that remain.
  warned = [bool(diagnostics.update(step, bad)) for step in range(41, 61)]
  assert warned.index(True) == 7  # measured at 46, 47 and 48
  metrics = diagnostics.measure({})
  assert metrics['diagnostics/near_zero_a'] == 1  # of these 20 alone
  assert len(diagnostics.warnings) == 2

  diagnostics.restore({'step': step} | bad for step in range(1, 60))
  assert diagnostics.measure({}) == {}
  assert len(diagnostics.warnings) == 2
