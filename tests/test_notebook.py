"""The notebook is run as Colab would, on tiny settings."""

import os
import pathlib
import signal
import sys
import threading
import time

import pytest
from PIL import Image

jupytext = pytest.importorskip('jupytext')
nbclient = pytest.importorskip('nbclient')
pytest.importorskip('ipykernel')
pytest.importorskip('onnxruntime')

pytestmark = pytest.mark.process

ROOT = pathlib.Path(__file__).parent.parent
SOURCE = ROOT / 'experiments' / 'colab_tpu.py'
TINY = [
  '--config.steps=2',
  '--config.batch_size=2',
  '--config.num_devices=1',
  '--config.data.num_train=4',
  '--config.data.num_test=4',
  '--config.data.size=16',
  '--config.data.load_size=16',
  '--config.generator.filters=2',
  '--config.generator.isize=16',
  '--config.discriminator.filters=2',
  '--config.discriminator.layers=2',
]


def test_the_notebook_is_its_source():
  written = jupytext.read(SOURCE.with_suffix('.ipynb'))
  source = jupytext.read(SOURCE)
  cells = [
    [(each.cell_type, each.source) for each in notebook.cells]
    for notebook in (written, source)
  ]
  assert cells[0] == cells[1], (
    'jupytext --to ipynb experiments/colab_tpu.py writes it anew'
  )
  assert not any(each.get('outputs') for each in written.cells)
  assert written.metadata['accelerator'] == 'TPU'


def interrupt(client, path):
  """The stop button, once a file is there."""
  while not path.exists():
    time.sleep(0.1)
  # As Jupyter does: the kernel's process group, with the run in it.
  os.killpg(client.km.provisioner.pgid, signal.SIGINT)


@pytest.fixture
def run_notebook(tmp_path, monkeypatch):
  """Runs it with other parameters; gives what each cell printed and showed."""
  monkeypatch.delenv('PYTHONSTARTUP', raising=False)
  (tmp_path / 'cyclegan_jax').symlink_to(ROOT)

  def run(interrupt_at='', **parameters):
    notebook = jupytext.read(SOURCE)
    (cell,) = (
      each
      for each in notebook.cells
      if 'parameters' in each.metadata.get('tags', [])
    )
    cell.source += ''.join(f'\n{k} = {v!r}' for k, v in parameters.items())
    client = nbclient.NotebookClient(
      notebook,
      timeout=300,
      kernel_name='python3',
      resources={'metadata': {'path': str(tmp_path)}},
    )
    if interrupt_at:
      threading.Thread(
        target=interrupt, args=(client, tmp_path / interrupt_at), daemon=True
      ).start()
    client.execute()
    outputs = [
      out for each in notebook.cells for out in each.get('outputs', [])
    ]
    text = ''.join(out.get('text', '') for out in outputs)
    pictures = [out for out in outputs if 'image/png' in out.get('data', {})]
    return text, pictures

  return run


@pytest.mark.skipif(sys.platform == 'win32', reason='it stops runs by signals')
def test_it_trains_translates_scores_and_exports(run_notebook, tmp_path):
  photo = tmp_path / 'photo.png'
  Image.new('RGB', (40, 24), 'brown').save(photo)
  run = tmp_path / 'run'
  # Paths as one writes them, beside the notebook.
  given = {'repository': '', 'options': TINY, 'run': 'run'}
  given['photos'] = 'photo.png'
  text, pictures = run_notebook(**given)
  assert 'trained 2 steps' in text
  assert 'at most' in text  # of both exports
  assert len(pictures) == 2  # the newest sheet, and the photo's translation
  with Image.open(run / 'translated' / 'photo.png') as translated:
    assert translated.size == (40, 24)
  names = sorted(each.name for each in (run / 'export').iterdir())
  assert names == ['ab.onnx', 'ba.onnx']
  # All cells again, as after Colab has ended it: it goes on with the run, and
  # makes the files of its newest checkpoint.
  longer = ['--config.steps=3', *TINY[1:]]
  text, _ = run_notebook(**(given | {'options': longer}))
  assert 'trained 3 steps' in text
  assert 'resuming from step 2' in (tmp_path / 'run.log').read_text()


@pytest.mark.skipif(sys.platform == 'win32', reason='it stops runs by signals')
def test_a_run_that_is_stopped_saves_itself(run_notebook, tmp_path):
  seldom = '--config.checkpoint.every_steps=1000000'
  endless = ['--config.steps=1000000', *TINY[1:], seldom]
  run_notebook(
    repository='',
    run='run',
    options=[*endless, '--config.log.samples_every_steps=20'],
    interrupt_at='run/samples/step_00000020.png',
  )
  steps = [int(each.name) for each in (tmp_path / 'run/checkpoints').iterdir()]
  assert max(steps) >= 20
