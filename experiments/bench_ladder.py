"""Trains a recipe with each option of the quality ladder alone.

  python experiments/bench_ladder.py --to FOLDER [--seeds 0,1,2]
  python experiments/bench_ladder.py --to FOLDER --emoji EMOJI

The recipe is the default one on its drawings, or with --emoji on EMOJI, the
folder of experiments/README.md with trainA, trainB, testA and testB. Runs and
their scores stay in FOLDER: the same command goes on where it was stopped, and
repeats no run that has ended. The first table has each run's scores on the test
images at its last step, the second their means over the seeds, with the least
and the greatest; an option helps where these leave those of the recipe.
"""

import argparse
import json
import pathlib
import runpy
import statistics
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from cyclegan_jax.config import Config, from_config_dict
from cyclegan_jax.report.metric_writer import (
  METRICS_FILE,
  read_metrics,
)
from cyclegan_jax.training.train import train
from experiments.bench_dtype import row
from experiments.common import machine

PRESETS = pathlib.Path(__file__).parent.parent / 'configs'
# One change each; papers stand beside the table in experiments/README.md.
OPTIONS: dict[str, dict[str, Any]] = {
  'recipe': {},
  # No rung, but what the paper has against colours that come out inverted.
  'identity': {'loss': {'identity_a': 5.0, 'identity_b': 5.0}},
  'ema': {'ema_decay': 0.99},
  'r1': {'loss': {'r1': 1.0}},
  'two_rates': {'optimizer': {'disc_learning_rate_ratio': 2.0}},
  # What the next one has to be compared with, as a norm would undo it.
  'no_norm': {'discriminator': {'norm': 'none'}},
  'spectral_norm': {'discriminator': {'norm': 'none', 'spectral_norm': True}},
  'diff_augment': {'diff_augment': 'color,translation,cutout'},
  'cycle_decay': {'schedule': {'cycle_end': 0.1}},
  'cycle_blur': {'loss': {'cycle_blur': 0.5}},
  # About as many operations for an image as the default recipe's U-Net.
  'vit_unet': {
    'generator': {
      'name': 'vit_unet',
      'filters': 8,
      'blocks': 4,
      'norm': 'instance',
      'affine': False,
      'padding': 'zero',
      'dropout': 0.0,
    }
  },
}
# A metric and its format.
COLUMNS = {
  'embedded': {'stripes': '.3f', 'background_l1': '.1%'},
  'emoji': {'l1': '.4f', 'ssim': '.3f'},
}


def make_config(option: str, seed: int, steps: int, emoji: str) -> Config:
  path = PRESETS / 'default.py'
  config = from_config_dict(runpy.run_path(str(path))['get_config']())
  if emoji:
    data = {'name': 'folder', 'path': emoji, 'load_size': 72}
    config = config.replace(data=data)
  # Scores at the last step only, and nothing to look at before it.
  never = 10**9
  config = config.replace(
    seed=seed,
    steps=steps,
    log={'metrics_every_steps': 100, 'samples_every_steps': never},
    checkpoint={'every_steps': never},
    evaluation={'every_steps': never, 'features': 'none'},
    diagnostics={'enabled': False},
  )
  return config.replace(**OPTIONS[option])


def scores_of(
  config: Config, workdir: pathlib.Path, names: list[str]
) -> list[float]:
  """The scores of a run, which is trained to its end if it is not there."""
  known = workdir.with_suffix('.json')
  if not known.exists():
    result = train(config, workdir)
    if result.signal is not None:
      sys.exit(128 + result.signal)
    last = read_metrics(workdir / METRICS_FILE)[-1]
    known.write_text(json.dumps([last[name] for name in names]))
  return list(json.loads(known.read_text()))


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--to', type=pathlib.Path, required=True)
  parser.add_argument('--seeds', default='0,1,2')
  parser.add_argument('--options', default=','.join(OPTIONS))
  parser.add_argument('--steps', type=int, default=0, help="0: the recipe's")
  parser.add_argument('--emoji', default='', help='folder of the emoji')
  given = parser.parse_args()
  for option in given.options.split(','):
    if option not in OPTIONS:
      parser.error(f'--options: {option!r} is none of {", ".join(OPTIONS)}')
  given.to.mkdir(parents=True, exist_ok=True)
  data = 'emoji' if given.emoji else 'embedded'
  columns = [
    (f'evaluation/{way}/{name}', form)
    for way in ('ab', 'ba')
    for name, form in COLUMNS[data].items()
  ]
  names, forms = zip(*columns, strict=True)
  seeds = [int(seed) for seed in given.seeds.split(',')]
  found: dict[str, list[list[float]]] = {
    option: [] for option in given.options.split(',')
  }
  # By seeds, so that a part of the runs compares the options already.
  for seed in seeds:
    for option, runs in found.items():
      config = make_config(option, seed, given.steps, given.emoji)
      name = f'{data}-{option}-seed{seed}-{given.steps or "all"}'
      runs.append(scores_of(config, given.to / name, list(names)))
  titles = [name.removeprefix('evaluation/') for name in names]
  rule = f'|---|{"---:|" * len(titles)}'
  print(f'{machine()}\n{" ".join(["python", *sys.argv])}\n')
  print(row('option, seed', titles), rule, sep='\n')
  for option, runs in found.items():
    for seed, scores in zip(seeds, runs, strict=True):
      texts = [format(*each) for each in zip(scores, forms, strict=True)]
      print(row(f'{option}, {seed}', texts))
  print()
  print(row('mean over the seeds (least to greatest)', titles), rule, sep='\n')
  for option, runs in found.items():
    texts = [
      '{0:{3}} ({1:{3}} to {2:{3}})'.format(
        statistics.mean(each), min(each), max(each), form
      )
      for each, form in zip(zip(*runs, strict=True), forms, strict=True)
    ]
    print(row(option, texts))


if __name__ == '__main__':
  main()
