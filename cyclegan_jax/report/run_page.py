"""The page of a run: sample sheets over time, curves of metrics, config.

The page loads the sample sheets next to it and nothing else.
"""

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cyclegan_jax.report.html_page import chart_data, write_page
from cyclegan_jax.report.metric_history import read_curves
from cyclegan_jax.report.metric_writer import METRICS_FILE

PAGE_FILE = 'index.html'


def sample_path(workdir: Path, step: int) -> Path:
  """Returns the path of the sample sheet of a step."""
  return workdir / 'samples' / f'step_{step:08}.png'


def write_run_page(
  workdir: Path,
  *,
  title: str,
  facts: Mapping[str, str],
  history: Sequence[Mapping[str, Any]] = (),
  config_text: str,
  step: int,
  total_steps: int,
) -> None:
  """Writes `workdir/index.html` from the run's sample sheets and metrics.

  Args:
    workdir: folder of the run, with samples/step_*.png and metrics.jsonl; both
      may be missing.
    title: heading of the page, as plain text like all other texts.
    facts: rows of a table, such as 'images': '400 + 400'.
    history: changes of the config, {'step', 'changes': {path: [old, new]}},
      which are lines in the curves.
    config_text: the config as it is displayed.
    step: number of completed steps; files of later steps, left by an
      interrupted run, are ignored.
    total_steps: number of steps of the run.

  Raises:
    OSError: a file cannot be read or written.
  """
  metrics = read_curves(workdir / METRICS_FILE, end_step=step)
  samples = [
    {'step': sample_step, 'src': f'samples/{name}'}
    for sample_step, name in list_samples(workdir)
    if sample_step <= step
  ]
  # One chart for each prefix of the metrics' names, one curve for each name.
  curves = []
  for name, curve in metrics.curves.items():
    prefix, _, rest = name.partition('/')
    curves.append((prefix, {'name': rest or prefix}, curve))
  last_sheet = ''
  if samples:
    last_sheet = f'<img src="{samples[-1]["src"]}" alt="The last sample sheet">'
  changes = [
    {
      'step': change['step'],
      'text': '; '.join(
        f'{path} {old} -> {new}'
        for path, (old, new) in change['changes'].items()
      ),
    }
    for change in history
  ]
  rows = [
    f'<tr><th scope="row">{html.escape(name)}</th>'
    f'<td>{html.escape(text)}</td></tr>'
    for name, text in [
      *facts.items(),
      *((f'changed at step {c["step"]:,}', c['text']) for c in changes),
    ]
  ]
  write_page(
    workdir / PAGE_FILE,
    'run_page',
    {
      'last_sheet': last_sheet,
      'facts': '\n'.join(rows),
      'config': html.escape(config_text),
    },
    {'samples': samples, 'changes': changes, **chart_data(curves)},
    title=title,
    status=_status(step, total_steps, metrics.num_damaged),
    done=min(1.0, step / total_steps),
    shared=['charts'],
    command='train',
  )


def list_samples(workdir: Path) -> list[tuple[int, str]]:
  """Returns step and file name of the sample sheets in a run's folder."""
  names = [path.name for path in (workdir / 'samples').glob('step_*.png')]
  return sorted(
    (int(match[1]), name)
    for name in names
    if (match := re.fullmatch(r'step_(\d+)\.png', name))
  )


def _status(step: int, total_steps: int, num_damaged: int) -> str:
  is_done = step >= total_steps
  share = 'finished' if is_done else f'{100 * step // total_steps} %'
  parts = [f'step {step:,} of {total_steps:,}', share]
  if num_damaged:
    lines = 'line is' if num_damaged == 1 else 'lines are'
    parts.append(f'{num_damaged:,} {lines} damaged in {METRICS_FILE}')
  return ' · '.join(parts)
