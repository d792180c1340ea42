"""The script that measures a GPU or TPU, with tiny networks on this machine."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

ROOT = pathlib.Path(__file__).parent.parent
SCRIPT = ROOT / 'experiments' / 'accelerator.py'

pytestmark = pytest.mark.process


def run(folder, *options):
  subprocess.run(
    [sys.executable, SCRIPT, '--tiny', f'--to={folder}', *options],
    check=True,
    cwd=ROOT,
    timeout=600,
  )


def test_rows_are_measured_or_say_why_not(tmp_path):
  run(tmp_path, '--only=m')
  report = json.loads((tmp_path / 'accelerator.json').read_text())
  rows = report['rows']
  assert set(rows) == {
    'matrix products',
    'from JPEG files',
    'remat, accumulate, deterministic',
    'memory',
    'compilation',
  }
  assert 'TFLOP/s' in rows['matrix products']['bfloat16']
  assert rows['remat, accumulate, deterministic']['remat']['pairs/s'] > 0
  assert rows['compilation']
  assert rows['memory']['not measured']  # CPUs do not count it
  page = (tmp_path / 'accelerator.md').read_text()
  assert all(f'## {name}' in page for name in rows)


def test_no_time_is_a_reason(tmp_path):
  run(tmp_path, '--minutes=0')
  rows = json.loads((tmp_path / 'accelerator.json').read_text())['rows']
  del rows['compilation']
  assert len(rows) > 5
  assert all('time' in row['not measured'] for row in rows.values())


def test_training_leaves_what_is_worth_keeping(tmp_path):
  data, to = tmp_path / 'data', tmp_path / 'results'
  rng = np.random.default_rng(0)
  for name in ('trainA', 'trainB', 'testA', 'testB'):
    (data / name).mkdir(parents=True)
    for number in range(3):
      pixels = rng.integers(0, 256, (40, 40, 3), np.uint8)
      Image.fromarray(pixels).save(data / name / f'{number}.png')
  run(to, f'--train={data}', '--minutes=9', '--preset=throughput')
  assert (to / 'metrics.jsonl').exists()
  assert list(to.glob('*.png'))
  assert json.loads((to / 'scores.json').read_text())
  for direction in ('ab', 'ba'):
    parts = sorted(to.glob(f'generator_{direction}.safetensors.*'))
    arrays = safetensors.numpy.load(b''.join(p.read_bytes() for p in parts))
    assert {array.dtype for array in arrays.values()} == {np.dtype('float16')}
