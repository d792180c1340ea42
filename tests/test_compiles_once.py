"""After its first step a run compiles nothing more."""

import jax
import pytest

from cyclegan_jax.report.metric_writer import read_metrics
from cyclegan_jax.training.train import train


@pytest.mark.slow
@pytest.mark.parametrize('num_devices', [1, 2])
def test_nothing_is_compiled_after_the_first_step(
  load_preset, tmp_path, num_devices
):
  config = load_preset('tiny').replace(
    steps=7,
    num_devices=num_devices,
    log={'metrics_every_steps': 1, 'samples_every_steps': 3},
    checkpoint={'every_steps': 2},
  )
  metrics = tmp_path / 'metrics.jsonl'
  before, after = [], []

  # It stays, and listens to no purpose: not every JAX can take it off again.
  @jax.monitoring.register_event_duration_secs_listener
  def listen(name, *_, **__):
    if 'backend_compile' in name:
      steps = [each['step'] for each in read_metrics(metrics)]
      # What judges the drawings' coats in the end is no part of the steps.
      if not steps or steps[-1] < 7:
        (after if steps else before).append(name)

  train(config, tmp_path)
  assert len(before) > 0
  assert [each['step'] for each in read_metrics(metrics)][-1] == 7
  assert after == []
