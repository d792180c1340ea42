"""Trains: python main.py --config=configs/default.py [--workdir=FOLDER]."""

from cyclegan_jax.__main__ import run

if __name__ == '__main__':
  run('train', program='python main.py')
