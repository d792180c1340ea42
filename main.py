"""Trains: python main.py --config=configs/default.py [--workdir=FOLDER]."""

import sys

from cyclegan_jax.cli import main

if __name__ == '__main__':
  sys.exit(main(['train', *sys.argv[1:]], program='python main.py'))
