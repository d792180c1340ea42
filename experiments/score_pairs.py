"""Scores translated files against their counterparts of the same name.

  python experiments/score_pairs.py SOURCE TRANSLATED TARGET

SOURCE is the folder that was translated, TRANSLATED what `cyclegan translate`
made of it, TARGET the true counterparts. Prints L1 (share of the range) and
SSIM of the translation beside those of the untranslated copy, with the
standard error over images.
"""

import argparse
import pathlib

import numpy as np

from cyclegan_jax.images import to_float
from cyclegan_jax.media.decoding import decode
from cyclegan_jax.metrics.paired import l1, ssim


def read(folder, names):
  images = []
  for name in names:
    with (folder / name).open('rb') as file:
      images.append(decode(file, name, channels=3, max_pixels=10**8))
  return to_float(np.stack(images))


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  for name in ('source', 'translated', 'target'):
    parser.add_argument(name, type=pathlib.Path)
  options = parser.parse_args()
  names = sorted(path.name for path in options.translated.glob('*.png'))
  target = read(options.target, names)
  print(f'{len(names)} images        L1                SSIM')
  for title, folder in (
    ('translated', options.translated),
    ('copy', options.source),
  ):
    images = read(folder, names)
    cells = []
    for score in (l1(images, target), ssim(images, target)):
      error = score.std(ddof=1) / np.sqrt(len(score))
      cells.append(f'{score.mean():.4f} +- {error:.4f}')
    print(f'{title:12}  {"   ".join(cells)}')


if __name__ == '__main__':
  main()
