# ---
# jupyter:
#   accelerator: TPU
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # CycleGAN on a TPU
#
# From two piles of images to two translators: install, choose images, train on
# all devices that there are, watch samples, translate, score, export. On Colab
# choose *Runtime, Change runtime type, TPU* first; a GPU or a CPU do as well.
#
# What there is to choose is in the next cell but one. To go on with a run that
# was stopped, or that Colab ended, run all cells again: with `drive = True` it
# goes on from its last checkpoint, to the same bits.

# %%
import os
import pathlib
import subprocess
import sys
import time

from IPython.display import Image, Markdown, clear_output, display

# %% tags=["parameters"]
# Where the code comes from: put the address of its git repository, or your
# fork's; '' where the folder cyclegan_jax is here already, and installed.
repository = 'https://github.com/OWNER/cyclegan_jax'

# 'embedded': horses and zebras that the code draws itself, no download.
# 'cycle_gan/horse2zebra', or another of TFDS's cycle_gan sets: photographs.
# Or a folder with trainA and trainB, and testA and testB if you have them, or
# a .zip of one: '/content/drive/MyDrive/apples_to_oranges.zip'. What is not in
# Drive is looked for beside this notebook, as 'apples_to_oranges.zip'.
data = 'embedded'

# A recipe of configs/, and what to change of it. configs/tpu.py is the paper's
# at 256 px, and wants photographs.
recipe = 'configs/default.py'
options = []  # such as ['--config.epochs=20', '--config.ema_decay=0.99']

# The run's folder; with drive = True it is kept in your Google Drive.
run = 'runs/colab'
drive = False

# Images to translate when it is trained: a folder, a file or a pattern.
photos = ''

# %% [markdown]
# ## Install
#
# JAX stays the one that the runtime came with, which knows its TPU.

# %%
root = pathlib.Path('cyclegan_jax').resolve()
if repository and not root.exists():
  if 'OWNER' in repository:
    raise ValueError(f'repository={repository!r}: put the address to clone')
  subprocess.run(['git', 'clone', '-q', repository, root], check=True)


def pip_install(*what):
  if repository:
    command = [sys.executable, '-m', 'pip', 'install', '-q', *what]
    subprocess.run(command, check=True, cwd=root)


is_tfds = data.startswith('cycle_gan/')
pip_install('-e', '.[export]')


def cyclegan(*arguments):
  """Runs a command of the project, and shows what it prints."""
  command = [sys.executable, '-m', 'cyclegan_jax', *map(str, arguments)]
  done = subprocess.run(
    command,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    cwd=root,
  )
  print(done.stdout)
  done.check_returncode()


# %% [markdown]
# The devices. In a process of its own, since a TPU is lent to one at a time.

# %%
code = 'import jax; print(*jax.devices(), sep=chr(10))'
devices = subprocess.check_output([sys.executable, '-c', code], text=True)
print(devices)
num_devices = len(devices.splitlines())
# Each has a part of every batch.
batch = [f'--config.batch_size={num_devices}'] if num_devices > 1 else []

# %% [markdown]
# ## Where the run is kept

# %%
if drive or any(each.startswith('/content/drive/') for each in (data, photos)):
  from google.colab import drive as google_drive

  google_drive.mount('/content/drive')
if drive:
  run = pathlib.Path('/content/drive/MyDrive/cyclegan_jax') / run
run = pathlib.Path(run).absolute()

if is_tfds:
  images = ['--config.data.name=tfds', f'--config.data.dataset={data}']
elif data == 'embedded':
  images = ['--config.data.name=embedded']
else:
  images = [
    '--config.data.name=folder',
    f'--config.data.path={os.path.abspath(data)}',
  ]

# %% [markdown]
# ## Train
#
# Each sample sheet is shown when it is made: real images, their translations,
# the way back. Stop the cell whenever you like: the run saves itself, and
# running the cell again goes on.


# %%
def newest_sheet():
  sheets = sorted((run / 'samples').glob('*.png'))
  return sheets[-1] if sheets else None


def train():
  command = [sys.executable, 'main.py', f'--config={recipe}', *images]
  command += [*batch, *options, f'--workdir={run}']
  log = run.with_name(run.name + '.log')
  log.parent.mkdir(parents=True, exist_ok=True)
  with log.open('w') as out:
    process = subprocess.Popen(command, stdout=out, stderr=out, cwd=root)
  shown = None
  try:
    while True:
      ended = process.poll() is not None
      lines = log.read_text(errors='replace').splitlines()
      sheet = newest_sheet()
      if ended or sheet != shown:
        clear_output(wait=True)
        print('\n'.join(lines[-8:]))
        if sheet:
          display(Markdown(f'`{sheet.name}`'), Image(filename=str(sheet)))
        shown = sheet
      if ended:
        break
      time.sleep(1)
  except KeyboardInterrupt:
    # Jupyter tells the run too, which saves itself and leaves; told twice, it
    # would leave at once.
    time.sleep(2)
    if 'stopping after this step' not in log.read_text(errors='replace'):
      process.send_signal(2)
  if process.wait() not in (0, 130):
    raise RuntimeError(log.read_text(errors='replace')[-2000:])


train()

# %% [markdown]
# ## Scores
#
# Of the test images, beside those of an untranslated copy.

# %%
cyclegan('evaluate', run)

# %% [markdown]
# ## Translate
#
# Any images: photographs, folders, animations; each keeps its size.

# %%
if photos:
  translated = run / 'translated'
  given = ['translate', run, os.path.abspath(photos), '--to', translated]
  cyclegan(*given, '--direction', 'ab', '--overwrite')
  for path in sorted(translated.rglob('*.png'))[:4]:
    display(Image(filename=str(path)))

# %% [markdown]
# ## Export
#
# A file for each direction that needs neither this code nor a checkpoint: ONNX
# for onnxruntime and browsers; `--format stablehlo` for JAX on CPUs, GPUs and
# TPUs.

# %%
cyclegan(
  'export', run, '--format', 'onnx', '--to', run / 'export', '--overwrite'
)
