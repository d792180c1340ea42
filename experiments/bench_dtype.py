"""Trains the default recipe in float32 and in bfloat16, and compares scores.

  python experiments/bench_dtype.py --to FOLDER [--steps 900] [--seeds 0,1,2]

Runs and their scores stay in FOLDER: the same command goes on where it was
stopped, and repeats no run that has ended. The first table has each run's
scores on the test drawings, as the end of a run prints them (background: how
far it moved, as a share of the range); the second the means over the seeds,
with the least and the greatest, by which to see whether the types lie further
apart than the seeds.
"""

import argparse
import json
import pathlib
import runpy
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from cyclegan_jax.config import Config, from_config_dict
from cyclegan_jax.training.train import train
from experiments.common import machine

RECIPE = pathlib.Path(__file__).parent.parent / 'configs' / 'default.py'
DTYPES = ('float32', 'bfloat16')
HEADER = """\
| {} | a -> b: stripes | background | b -> a: stripes | background |
|---|---:|---:|---:|---:|"""

Scores = list[float]  # in the order of the header


def make_config(dtype: str, seed: int, steps: int) -> Config:
  config = from_config_dict(runpy.run_path(str(RECIPE))['get_config']())
  return config.replace(
    seed=seed,
    steps=steps,
    generator={'dtype': dtype},
    discriminator={'dtype': dtype},
  )


def scores_of(config: Config, workdir: pathlib.Path) -> Scores:
  """The scores of a run, which is trained to its end if it is not there."""
  known = workdir.with_suffix('.json')
  if not known.exists():
    result = train(config, workdir)
    if result.signal is not None:
      sys.exit(128 + result.signal)
    score = result.score
    assert score
    of = [
      getattr(each, name)
      for each in (score.ab, score.ba)
      for name in ('stripes', 'background_l1')
    ]
    known.write_text(json.dumps([float(each) for each in of]))
  return list(json.loads(known.read_text()))


def row(name: str, texts: list[str]) -> str:
  return f'| {name} | {" | ".join(texts)} |'


def shown(values: Scores) -> list[str]:
  return [
    f'{each:.1%}' if column % 2 else f'{each:.3f}'
    for column, each in enumerate(values)
  ]


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--to', type=pathlib.Path, required=True)
  parser.add_argument('--seeds', default='0,1,2')
  parser.add_argument('--dtypes', default=','.join(DTYPES))
  parser.add_argument('--steps', type=int, default=0, help="0: the recipe's")
  given = parser.parse_args()
  given.to.mkdir(parents=True, exist_ok=True)
  seeds = [int(seed) for seed in given.seeds.split(',')]
  found: dict[str, list[Scores]] = {
    dtype: [] for dtype in given.dtypes.split(',')
  }
  # By seeds, so that a part of the runs compares the types already.
  for seed in seeds:
    for dtype, scores in found.items():
      config = make_config(dtype, seed, given.steps)
      name = f'{dtype}-seed{seed}-{given.steps or "all"}'
      scores.append(scores_of(config, given.to / name))
  print(f'{machine()}\n{" ".join(["python", *sys.argv])}\n')
  print(HEADER.format('dtype, seed'))
  for dtype, scores in found.items():
    for seed, each in zip(seeds, scores, strict=True):
      print(row(f'{dtype}, {seed}', shown(each)))
  print(f'\n{HEADER.format("mean over the seeds (least to greatest)")}')
  for dtype, scores in found.items():
    columns = list(zip(*scores, strict=True))
    means = shown([statistics.mean(each) for each in columns])
    lows = shown([min(each) for each in columns])
    highs = shown([max(each) for each in columns])
    texts = [
      f'{mean} ({low} to {high})'
      for mean, low, high in zip(means, lows, highs, strict=True)
    ]
    print(row(dtype, texts))


if __name__ == '__main__':
  main()
