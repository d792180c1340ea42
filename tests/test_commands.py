"""Each command once, as a user calls it, on one trained run."""

import http.client
import json
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
from PIL import Image

from cyclegan_jax import cli
from cyclegan_jax.report.metric_writer import read_metrics
from cyclegan_jax.storage import checkpoint


def command(*argv):
  assert cli.main([*map(str, argv)]) == 0


def write_image(path, height, width):
  pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3))
  Image.fromarray(pixels.astype(np.uint8)).save(path)
  return path


def test_train(trained_run):
  loaded = checkpoint.load(trained_run)
  state, config = loaded.state, loaded.config
  assert int(state.step) == config.steps == 8
  records = read_metrics(trained_run / 'metrics.jsonl')
  assert [each['step'] for each in records if 'generator/loss' in each] == [
    2,
    4,
    6,
    8,
  ]
  page = (trained_run / 'index.html').read_text()
  for step in (0, 4, 8):
    name = f'samples/step_{step:08d}.png'
    assert name in page
    assert (trained_run / name).exists()


def test_translate(trained_run, tmp_path):
  image = write_image(tmp_path / 'in.png', 30, 25)
  command('translate', trained_run, image, '--to', tmp_path / 'out')
  with Image.open(tmp_path / 'out' / 'in.png') as translated:
    assert translated.size == (25, 30)


def test_evaluate(trained_run, tmp_path):
  to = tmp_path / 'scores.json'
  command('evaluate', trained_run, '--features', 'none', '--to', to)
  assert json.loads(to.read_text())['step'] == 8
  assert '| stripes' in to.with_suffix('.md').read_text()


def test_compare(trained_run, tmp_path):
  other = tmp_path / 'other'
  shutil.copytree(trained_run, other)
  page = tmp_path / 'page.html'
  command('compare', trained_run, other, '--images', 1, '--to', page)
  assert '>other<' in page.read_text()


def test_export_and_import(trained_run, tmp_path):
  files, to = tmp_path / 'files', tmp_path / 'imported'
  command('export', trained_run, '--format', 'safetensors', '--to', files)
  command('import', *sorted(files.glob('*.safetensors')), '--to', to)
  exported, imported = (
    checkpoint.load(folder).state for folder in (trained_run, to)
  )
  jax.tree.map(
    np.testing.assert_array_equal, exported.translators, imported.gen
  )


def test_serve(trained_run, tmp_path):
  image = write_image(tmp_path / 'in.png', 16, 16)
  argv = [sys.executable, '-m', 'cyclegan_jax', 'serve', str(trained_run)]
  with subprocess.Popen(
    [*argv, '--port=0'], stdout=subprocess.PIPE, text=True
  ) as server:
    try:
      address = re.match(r'http://(\S+:\d+) ', server.stdout.readline())[1]
      client = http.client.HTTPConnection(address, timeout=60)
      client.request(
        'POST',
        '/translate?direction=ab',
        image.read_bytes(),
        {'Content-Type': 'application/octet-stream'},
      )
      response = client.getresponse()
      assert response.status == 200
      assert response.read().startswith(b'\x89PNG')
      client.close()
    finally:
      server.terminate()
