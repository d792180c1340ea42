"""Measures the rows of performance.md, one after another, and writes it.

  python experiments/performance.py             # all that this machine can
  python experiments/performance.py --only step # those with it in their name
  python experiments/performance.py --quick     # in 3 minutes, to the screen

Each row is a script's, in a process of its own: nothing else should run
beside it. Rows of another kind of machine keep what they had; all figures are
in performance.json. `--quick` measures the default recipe's step and
translation against PyTorch's, to see whether a change made them slower.
"""

import argparse
import json
import pathlib
import re
import shlex
import subprocess
import sys
from typing import NamedTuple

import jax

FOLDER = pathlib.Path(__file__).parent
FIGURES = FOLDER / 'performance.json'
PAGE = FOLDER / 'performance.md'


class Row(NamedTuple):
  """A line of the table."""

  name: str
  platform: str  # cpu, gpu, or '' for any
  target: str
  command: str  # of a script in this folder


STEP, TRANSLATE = 'bench_step.py --recipe', 'bench_translate.py'
ROWS = (
  Row('step, ResNet-9, 128 px', 'cpu', '1.0', f'{STEP} resnet9 --size 128'),
  Row(
    'step, ResNet-9, 256 px',
    'cpu',
    '1.0',
    f'{STEP} resnet9 --size 256 --rounds 5',
  ),
  Row(
    "step, the Keras note's U-Net, 128 px",
    'cpu',
    '1.0',
    f'{STEP} unet --size 128 --rounds 9',
  ),
  Row(
    'step, default recipe, batch 4',
    'cpu',
    '1.0',
    f'{STEP} default --size 64 --batch 4 --steps 4 --rounds 9',
  ),
  Row(
    'step, ResNet-9, 128 px, tuned peer',
    'cpu',
    '',
    f'{STEP} resnet9 --size 128 --peer tuned',
  ),
  Row('translation, ResNet-9, 256 px', 'cpu', '1.0', f'{TRANSLATE} --size 256'),
  Row(
    'step, ResNet-9, 256 px',
    'gpu',
    '8',
    f'{STEP} resnet9 --size 256 --steps 20',
  ),
  Row(
    'step, ResNet-9, 256 px, tuned peer',
    'gpu',
    '1.1; 7 ms',
    f'{STEP} resnet9 --size 256 --steps 20 --peer tuned --dtype bfloat16',
  ),
  Row(
    'step, ResNet-9, 256 px, batch 16',
    'gpu',
    '85 ms (189 pairs/s)',
    f'{STEP} resnet9 --size 256 --batch 16 --steps 5 --peer tuned '
    '--dtype bfloat16',
  ),
  Row(
    'translation, ResNet-9, 256 px',
    'gpu',
    '0.5 ms',
    f'{TRANSLATE} --size 256 --calls 50 --dtype bfloat16',
  ),
  Row(
    'translation, ResNet-9, 256 px, batch 32',
    'gpu',
    '8 ms (4,000 images/s)',
    f'{TRANSLATE} --size 256 --batch 32 --calls 10 --dtype bfloat16',
  ),
  Row(
    'from JPEGs on disk, of the speed with synthetic input',
    '',
    '97%',
    'bench_run.py input --rounds 11',
  ),
  Row(
    'checkpoints, logging and samples, of the time',
    '',
    '1% at most',
    'bench_run.py records --rounds 3',
  ),
  Row('time to the first step', '', '10 s at most', 'bench_run.py start'),
)
QUICK = (
  f'{STEP} default --size 64 --batch 4 --steps 2 --rounds 5',
  f'{TRANSLATE} --recipe default --size 64 --batch 4 --calls 20 --rounds 5',
)
HEADER = """\
# Performance

Written by `python experiments/performance.py`, which measures each row in a
process of its own. Ratios are times as fast as PyTorch, which takes turns with
ours in one process (A B A B) after its losses, over 20 steps, or its outputs
have agreed with ours: the median of neighbouring turns' ratios, with quartiles.
PyTorch is [peers/torch_cyclegan.py](peers/torch_cyclegan.py): eager, in
float32 and the authors' order of work, or tuned (`torch.compile`, fused Adam,
paired forwards, on a GPU also channels_last, bfloat16 and CUDA graphs).

"""


def run(command: str) -> str:
  """What a script prints.

  Raises:
    CalledProcessError: it failed.
  """
  script, *rest = shlex.split(command)
  return subprocess.run(
    [sys.executable, str(FOLDER / script), *rest],
    check=True,
    stdout=subprocess.PIPE,
    text=True,
    cwd=FOLDER.parent,
  ).stdout


def table(printed: str) -> list[list[str]]:
  """The cells of the lines of the Markdown table in it, without its head."""
  lines = [line for line in printed.splitlines() if line.startswith('|')]
  return [
    [cell.strip() for cell in line[1:-1].split('|')] for line in lines[2:]
  ]


def figures(printed: str) -> str:
  """The measured cells as one text."""
  texts = []
  for cells in table(printed):
    if len(cells) == 2:
      texts.append(
        cells[1] if ':' not in cells[0] else f'{cells[1]}; {cells[0]}'
      )
    else:
      texts.append(
        f'{cells[6]} x {cells[3]}; {cells[5]} s against {cells[4]} s'
      )
  return '<br>'.join(texts)


def write_page(known: dict[str, dict[str, str]]) -> None:
  """Writes the table of all rows."""
  lines = [
    '| what | where | target | measured | machine | command |',
    '|---|---|---|---|---|---|',
  ]
  for row in ROWS:
    found = known.get(f'{row.platform} {row.name}')
    measured = found['measured'] if found else 'not measured'
    machine = found['machine'] if found else ''
    lines.append(
      f'| {row.name} | {row.platform or "anywhere"} | {row.target} | '
      f'{measured} | {machine} | `{row.command}` |'
    )
  rest = PAGE.read_text() if PAGE.exists() else ''
  _, mark, tail = rest.partition('<!-- by hand -->\n')
  text = HEADER + '\n'.join(lines) + '\n\n<!-- by hand -->\n'
  PAGE.write_text(text + (tail if mark else ''))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--only', default='', help='part of rows to measure')
  parser.add_argument('--quick', action='store_true')
  given = parser.parse_args()
  if given.quick:
    for command in QUICK:
      print(run(command), flush=True)
    return
  known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
  for row in ROWS:
    is_here = row.platform in ('', jax.default_backend())
    if not is_here or given.only not in row.name:
      continue
    print(f'{row.name} ...', file=sys.stderr, flush=True)
    try:
      printed = run(row.command)
    except subprocess.CalledProcessError as error:
      print(f'not measured: {error}', file=sys.stderr, flush=True)
      continue
    machine = re.sub(r'\s+', ' ', printed.splitlines()[0])
    known[f'{row.platform} {row.name}'] = {
      'machine': machine,
      'measured': figures(printed),
    }
    FIGURES.write_text(json.dumps(known, indent=1) + '\n')
    write_page(known)
  write_page(known)


if __name__ == '__main__':
  main()
