"""Measures what each CPU rewrite of a convolution saves of a whole program.

  python experiments/bench_rewrites.py step resnet --size 128
  python experiments/bench_rewrites.py translation default --rounds 21

Compiles a training step or a translation with all rewrites of
cyclegan_jax/nets/ops/conv.py, and once without each. `--without A,B+C` selects
the variants: one without A, and one without both B and C. A variant that lowers
to the same program as the complete one is skipped.

The variants take turns in one process; nothing else should run beside it. The
table has the median seconds, the median of the ratios to the complete program
in the same round (quartiles in parentheses), and the processor seconds of
compilation.
"""

import argparse
import contextlib
import functools
import importlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

sys.path.insert(0, str(Path(__file__).parent.parent))
from configs import default, keras, paper
from cyclegan_jax.config import Config, from_config_dict
from cyclegan_jax.inference import make_translator
from cyclegan_jax.state import create_train_state
from cyclegan_jax.step import train_step
from experiments.common import machine

RECIPES = {'default': default, 'keras': keras, 'resnet': paper}
# The attribute `ops.conv` is the function; this is the module of that name.
conv = importlib.import_module('cyclegan_jax.nets.ops.conv')
NEVER = 10**12

Run = Callable[[Any], Any]  # from the state to the state
Prepare = Callable[[Any], Run]  # of a compiled program


def _plain_gradient(x, cotangent):
  """Stands in for winograd.kernel_gradient."""
  shape = (3, 3, x.shape[3], cotangent.shape[3])
  _, pull_back = jax.vjp(
    lambda kernel: conv._plain(x, kernel, padding=conv._NONE),
    jnp.zeros(shape, x.dtype),
  )
  return pull_back(cotangent)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _xla_gradient(x, kernel, stride, padding):
  return _adjoint(x, kernel, stride, padding)


def _forward(x, kernel, stride, padding):
  return _adjoint(x, kernel, stride, padding), (x, kernel)


def _backward(stride, padding, saved, cotangent):
  dilated = functools.partial(conv._dilated, stride=stride, padding=padding)
  return jax.vjp(dilated, *saved)[1](cotangent)


_xla_gradient.defvjp(_forward, _backward)
_adjoint = conv._adjoint


def _plain_conv(x, kernel, stride, padding):
  return conv._plain(x, kernel, stride=stride, padding=padding)


def _plain_adjoint(x, kernel, stride, padding):
  return conv._dilated(x, kernel, stride=stride, padding=padding)


# Rewrite -> the names to replace, and what by.
REWRITES: dict[str, list[tuple[Any, str, Any]]] = {
  'pad_and_crop': [(conv, '_NONE', None)],
  'few_features': [(conv, '_FEW', 0)],
  'winograd': [(conv, '_MAX_WINOGRAD_NUMBERS', 0)],
  'winograd_gradient': [(conv.winograd, 'kernel_gradient', _plain_gradient)],
  'parity': [(conv, '_MANY_PIXELS', NEVER)],
  'taps': [(conv, '_FEW_PIXELS', 0)],
  'adjoint_gradient': [(conv, '_adjoint', _xla_gradient)],
  'all': [(conv, '_conv', _plain_conv), (conv, '_adjoint', _plain_adjoint)],
}


@contextlib.contextmanager
def without(names: str) -> Iterator[None]:
  """Replaces the named rewrites ('a+b', or 'all') by XLA's own forms."""
  jax.clear_caches()
  with contextlib.ExitStack() as stack:
    for name in filter(None, names.split('+')):
      for module, attribute, plain in REWRITES[name]:
        stack.enter_context(mock.patch.object(module, attribute, plain))
    yield
  jax.clear_caches()


def make_config(recipe: str, size: int) -> Config:
  """The recipe, its networks at another size where one is given."""
  config = from_config_dict(RECIPES[recipe].get_config())
  if size:
    config = config.replace(data={'size': size, 'load_size': size})
  return config


def lower_step(config: Config, state: Any) -> tuple[Any, Prepare]:
  """A training step that takes over the state's memory, as in a run."""
  images = random_images(config)
  step = jax.jit(
    lambda state, images: train_step(state, images, config=config)[0],
    donate_argnums=0,
  )
  return step.lower(
    state, images
  ), lambda compiled: lambda state: compiled(state, images)


def lower_translation(config: Config, state: Any) -> tuple[Any, Prepare]:
  """A translation of as many images as the recipe's batch."""
  images = random_images(config)['a']

  def translate(params: Any, images: jax.Array) -> jax.Array:
    return make_translator(config, params, 'ab')(images)

  def prepare(compiled: Any) -> Run:
    def run(state: Any) -> Any:
      jax.block_until_ready(compiled(state.gen, images))
      return state

    return run

  return jax.jit(translate).lower(state.gen, images), prepare


def random_images(config: Config) -> dict[str, jax.Array]:
  size, count = config.data.size, config.batch_size
  return {
    domain: jax.random.uniform(
      jax.random.key(ord(domain)),
      (count, size, size, config.channels(domain)),
      minval=-1,
    )
    for domain in 'ab'
  }


def compile_variants(
  lower: Callable[[Config, Any], tuple[Any, Prepare]],
  config: Config,
  state: Any,
  variants: list[str],
) -> tuple[dict[str, Run], dict[str, float]]:
  """The programs by variant, and the processor seconds each took to compile.

  A variant that lowers to the program with all rewrites is left out.
  """
  programs: dict[str, Run] = {}
  seconds = {}
  for variant in variants:
    start = time.process_time()
    with without(variant):
      lowered, prepare = lower(config, state)
    text = lowered.as_text()
    if not variant:
      complete = text
    elif text == complete:
      print(f'{variant}: not used', file=sys.stderr, flush=True)
      continue
    programs[variant] = prepare(lowered.compile())
    seconds[variant] = time.process_time() - start
    print(f'{variant or "-"}: compiled', file=sys.stderr, flush=True)
  return programs, seconds


def measure(
  programs: dict[str, Run], state: Any, rounds: int, calls: int
) -> tuple[dict[str, list[float]], Any]:
  """Seconds of a call by variant and round, and the state after them.

  Each round starts with another variant, so that none always follows the same
  one; a round before them warms up.
  """
  names = list(programs)
  seconds: dict[str, list[float]] = {name: [] for name in names}
  for turn in range(rounds + 1):
    first = turn % len(names)
    for name in names[first:] + names[:first]:
      start = time.perf_counter()
      for _ in range(calls):
        state = programs[name](state)
      jax.block_until_ready(state)
      if turn:
        seconds[name].append((time.perf_counter() - start) / calls)
  return seconds, state


def print_table(
  title: str, seconds: dict[str, list[float]], compiling: dict[str, float]
) -> None:
  print('| program | without | s | times as long | compiling, CPU s |')
  print('|---|---|---:|---:|---:|')
  for name, times in seconds.items():
    ratios = [a / b for a, b in zip(times, seconds[''], strict=True)]
    low, ratio, high = statistics.quantiles(ratios, n=4)
    shown = f'{ratio:.3f} ({low:.3f} to {high:.3f})' if name else ''
    print(
      f'| {title} | {name or "-"} | {statistics.median(times):.4g} | {shown} | '
      f'{compiling[name]:.1f} |'
    )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('program', choices=('step', 'translation'))
  parser.add_argument('recipe', choices=RECIPES)
  parser.add_argument('--size', type=int, default=0, help="0: the recipe's")
  parser.add_argument('--without', default=','.join(REWRITES))
  parser.add_argument('--rounds', type=int, default=9)
  parser.add_argument('--calls', type=int, default=1, help='per turn')
  args = parser.parse_args()
  config = make_config(args.recipe, args.size)
  lower = lower_step if args.program == 'step' else lower_translation
  state = jax.tree.map(jnp.copy, create_train_state(config, jax.random.key(0)))
  programs, compiling = compile_variants(
    lower, config, state, ['', *args.without.split(',')]
  )
  seconds, _ = measure(programs, state, args.rounds, args.calls)
  print(f'{machine()}\n{" ".join(["python", *sys.argv])}\n')
  title = f'{args.program}, {args.recipe}, {config.data.size} px'
  print_table(title, seconds, compiling)


if __name__ == '__main__':
  main()
