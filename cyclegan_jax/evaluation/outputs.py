"""Files that an evaluation writes."""

import json

from cyclegan_jax.config import Config
from cyclegan_jax.evaluation.table import Evaluation
from cyclegan_jax.metrics.label_maps import Palette, read_palette

EVALUATION_FOLDER = 'evaluation'


def palette_of(config: Config) -> Palette | None:
  """The colours of a run's label maps, if it has any.

  Raises:
    DataError: they can't be read.
  """
  path = config.evaluation.palette
  return read_palette(path) if path else None


def file_texts(
  evaluation: Evaluation, step: int, *, stem: str = ''
) -> dict[str, str]:
  """The files of an evaluation by their names: <step>.json and <step>.md.

  Args:
    evaluation: what was found.
    step: of the checkpoint.
    stem: in place of the step, in the names.
  """
  content = {'step': step, **evaluation.to_json()}
  stem = stem or str(step)
  title = f'Evaluation at step {step:,}'
  return {
    f'{stem}.json': json.dumps(content, indent=2, allow_nan=False) + '\n',
    f'{stem}.md': evaluation.to_markdown(title=title),
  }
