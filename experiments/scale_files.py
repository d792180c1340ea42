"""Folders of many files, and what a run takes for them."""

import os
import pathlib
import re
import shutil
import time
from typing import Any

import jax
import numpy as np
from PIL import Image

from cyclegan_jax.config import Config
from cyclegan_jax.data.fingerprint import fingerprint, listing
from cyclegan_jax.data.loader import TrainBatches
from cyclegan_jax.data.sources import open_images
from cyclegan_jax.data.synthetic.drawings import draw
from cyclegan_jax.state import create_train_state
from cyclegan_jax.storage.checkpoint import Saver
from cyclegan_jax.training.preflight import resolve

NUM_DRAWINGS = 16
A_FOLDER = 1000  # files, half of them a's


def memory(name: str) -> float:
  """MiB of this process: 'VmRSS' now, 'VmHWM' the most so far.

  Not getrusage, whose peak begins with that of the process that started it.
  """
  text = pathlib.Path('/proc/self/status').read_text()
  found = re.search(rf'{name}:\s+(\d+) kB', text)
  assert found, name
  return int(found[1]) / 2**10


def make_files(folder: pathlib.Path, start: int, stop: int) -> None:
  """Adds files to trainA and trainB, in folders of folders.

  A folder's first file is a drawing, the others are hard links to it: file
  systems limit how many links a file may have.
  """
  drawings = folder / 'drawings'
  if not drawings.exists():
    drawings.mkdir()
    for index in range(NUM_DRAWINGS):
      image = draw(index, size=64, domain='ab'[index % 2], split='train')
      Image.fromarray(image).save(drawings / f'{index}.jpg')
  for index in range(start, stop):
    group = index // A_FOLDER
    inner = folder / f'train{"AB"[index % 2]}' / f'{group // 100}/{group % 100}'
    first = inner / f'{A_FOLDER * group + index % 2:07}.jpg'
    path = inner / f'{index:07}.jpg'
    if path != first:
      os.link(first, path)
      continue
    inner.mkdir(parents=True, exist_ok=True)
    drawing = index % 2 + 2 * (group % (NUM_DRAWINGS // 2))
    shutil.copyfile(drawings / f'{drawing}.jpg', path)


def measure_files(folder: str, config: Config) -> dict[str, Any]:
  """What it takes to open the files, and to save their list in a checkpoint.

  Args:
    folder: from `make_files`; it gets a folder of checkpoints.
    config: of the networks.

  Returns:
    CPU seconds to open them, to the first batch, for the fingerprint and for a
    checkpoint; MiB that the loader holds, that a run holds, and that it took
    at most; and the MiB of the list in a checkpoint.
  """
  path = pathlib.Path(folder)
  drawings = str(path / 'drawings')
  data = {'name': 'folder', 'path': folder, 'cache_gib': 0.0}
  config = config.replace(data=data | {'test_a': drawings, 'test_b': drawings})
  before, marks = memory('VmRSS'), [time.process_time()]
  images = open_images(config.data)
  marks.append(time.process_time())
  with TrainBatches(config, images) as batches:
    next(batches)
    marks.append(time.process_time())
    config, loader = resolve(config, images), memory('VmRSS')
    with Saver(
      path / 'checkpoints',
      config,
      data=fingerprint(images),
      image_list=listing(images),
    ) as saver:
      marks.append(time.process_time())
      run, peak = memory('VmRSS'), memory('VmHWM')
      state = create_train_state(config, jax.random.key(0))
      for step in range(3):
        began = time.process_time()
        saver.save(state.replace(step=state.step + step))
        saver.wait()
      saved = time.process_time() - began
      assert saver.last_step == 2, saver.take_failure()
  (listed,) = (path / 'checkpoints' / '2').glob('data.json*')
  return {
    'seconds': [*np.diff(marks), saved],
    'mib': [each - before for each in (loader, run, peak)],
    'listed': listed.stat().st_size / 2**20,
  }
