"""`cyclegan train`."""

import contextlib
import pathlib
import shlex
import signal

from cyclegan_jax import register
from cyclegan_jax.commands import train_flags
from cyclegan_jax.errors import ConfigError
from cyclegan_jax.storage.workdir import make_workdir
from cyclegan_jax.training import processes
from cyclegan_jax.training.train import TrainResult, train


def run(argv: list[str], program: str) -> int:
  """Trains a new run, or resumes one."""
  if '--help' in argv or '-h' in argv:
    print(f'{train_flags.USAGE}\n{train_flags.options_help()}')
    return 0
  flags = train_flags.parse_train_flags(argv)
  if flags.config.distributed.initialize and not flags.workdir:
    raise ConfigError(
      'config.distributed.initialize=True needs --workdir: all processes of a '
      'run share one'
    )
  workdir = flags.workdir or make_workdir()
  try:
    result = train(
      flags.config,
      workdir,
      explicit=flags.explicit,
      may_change=flags.may_change,
    )
  except BaseException:
    if not flags.workdir:
      with contextlib.suppress(OSError):  # something was written
        workdir.rmdir()
    raise
  resume_argv = argv if flags.workdir else [*argv, f'--workdir={workdir}']
  if processes.is_first():
    _print_summary(result, workdir, f'{program} {shlex.join(resume_argv)}')
  return 128 + result.signal if result.signal else 0


def _print_summary(
  result: TrainResult, workdir: pathlib.Path, resume_command: str
) -> None:
  step, steps = int(result.state.step), result.config.steps
  if result.signal:
    name = signal.Signals(result.signal).name
    print(
      f'\n{name}: stopped and saved at step {step:,} of {steps:,}. Resume with'
      f'\n  {resume_command}'
    )
    return
  if result.score:
    print(f'\n{result.score}')
  if result.evaluation:
    print(f'\nevaluation of {result.evaluation}')
  if result.start_step >= steps:
    print(
      f'\n{workdir} already has all of its {steps:,} steps. To train longer, '
      'raise --config.epochs or --config.steps'
    )
  else:
    print(f'\ntrained {step:,} steps')
  a, b = (result.config.data.name_of(domain) for domain in 'ab')
  quoted = shlex.quote(str(workdir))
  print(
    f'  run page    {workdir / "index.html"}'
    f'\n  checkpoint  {workdir / "checkpoints" / str(step)}'
    f'\n  metrics     {workdir / "metrics.jsonl"}, or with TensorBoard: '
    f'tensorboard --logdir={quoted}'
    f'\nTranslate a folder of images from {a} to {b} with'
    f'\n  cyclegan translate {quoted} FOLDER --to OUT --direction ab'
    f'{_plugin_flags(result)}'
  )


def _plugin_flags(result: TrainResult) -> str:
  """The flags that load the generator, if a plugin registered it."""
  if result.config.generator.name in register.BUILT_IN['generator']:
    return ''
  plugins = register.parse_plugins(result.config.plugins)
  return ''.join(f' --plugin={shlex.quote(path)}' for path, _ in plugins)
