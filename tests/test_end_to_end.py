"""All commands in a row, and the README's own lines."""

import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax import (
  cli,
  step,
)
from cyclegan_jax.storage import checkpoint

ROOT = pathlib.Path(__file__).parent.parent


@pytest.mark.slow
def test_folders_in_translations_out(tmp_path, monkeypatch, capsys):
  """Two folders, a run, a gallery, translated files; one trace in all."""
  traces = []
  loss = step.generator_loss
  monkeypatch.setattr(
    step, 'generator_loss', lambda *a, **k: traces.append(1) or loss(*a, **k)
  )
  rng = np.random.default_rng(0)
  for name in (
    'trainA/1.png',
    'trainA/in/2.jpg',
    'trainB/3.webp',
    'testA/4.bmp',
  ):
    path = tmp_path / 'data' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 255, (30, 25, 3), np.uint8)).save(path)
  run, out = tmp_path / 'run', tmp_path / 'out'
  assert not cli.main(
    [
      'train',
      f'--config={ROOT}/configs/tiny.py',
      f'--workdir={run}',
      '--config.data.name=folder',
      f'--config.data.path={tmp_path}/data',
    ]
  )
  assert len(traces) == 1
  assert int(checkpoint.load(run).state.step) == 8
  assert 'samples/step_00000008.png' in (run / 'index.html').read_text()
  assert f'translate {run} FOLDER' in capsys.readouterr().out
  inputs = str(tmp_path / 'data' / 'trainA')
  assert not cli.main(['translate', str(run), inputs, '--to', str(out)])
  for name in ('1.png', 'in/2.png'):
    with Image.open(out / name) as translated:
      assert translated.size == (25, 30)


@pytest.mark.slow
def test_the_readme_s_five_lines_run(tiny_config):
  """The programmatic use stands in the README as it is run here."""
  text = (ROOT / 'README.md').read_text()
  blocks = re.findall(r'```python\n(.*?)```', text, re.S)
  (block,) = [each for each in blocks if 'train_step' in each]
  assert 'config = cg.Config()' in block
  size = tiny_config.data.size
  batch = {d: np.zeros((2, size, size, 3), np.float32) for d in 'ab'}
  names = {'batches': [batch, batch], 'tiny_config': tiny_config}
  exec(block.replace('cg.Config()', 'tiny_config'), names)
  assert int(names['state'].step) == 2
  assert names['zebras'].shape == (2, size, size, 3)
