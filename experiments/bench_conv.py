"""Measures the rewrites of cyclegan_jax/ops/conv.py against their plain forms.

  python experiments/bench_conv.py

Prints a Markdown table, in a minute or two. The two forms take turns, so that
another load on the machine moves their times far more than their ratio.
"""

import datetime
import functools
import os
import pathlib
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from cyclegan_jax.nets import ops
from cyclegan_jax.nets.ops import reflected
from cyclegan_jax.types import Array

NUM_TURNS = 7
SECONDS_PER_TURN = 0.05

# Kernel, batch, input's height and width, channels of input and output: the
# default recipe's U-Net (64 px, 24 filters), a ResNet (128 px, 32 filters).
TRANSPOSED = (
  (4, 4, 32, 48, 3),
  (4, 4, 16, 96, 24),
  (4, 4, 8, 192, 48),
  (4, 4, 4, 384, 96),
  (4, 4, 2, 384, 192),
  (4, 4, 1, 192, 192),
  (3, 1, 32, 128, 64),
  (3, 1, 64, 64, 32),
  (3, 1, 64, 256, 128),
  (3, 1, 128, 128, 64),
)
# Likewise of ResNets, and of a PatchGAN's logits; the border that was reflected
# is added to the input.
VALID = (
  (3, 4, 16, 64, 64),
  (3, 1, 64, 256, 256),
  (7, 1, 128, 64, 3),
  (7, 1, 256, 64, 3),
  (4, 1, 31, 512, 1),
)


# Batch, height and width, channels of ResNet blocks with a reflected border.
REFLECTED = ((1, 64, 256), (1, 64, 128), (4, 64, 64), (1, 128, 64))


class Case(NamedTuple):
  name: str
  plain: Callable
  ours: Callable
  arguments: tuple[Array, ...]


def plain_conv_transpose(x: Array, kernel: Array, *, extra: int) -> Array:
  low = kernel.shape[0] - 2
  return lax.conv_general_dilated(
    x,
    lax.rev(kernel, (0, 1)),
    window_strides=(1, 1),
    padding=((low, low + extra),) * 2,
    lhs_dilation=(2, 2),
    dimension_numbers=('NHWC', 'HWOI', 'NHWC'),
  )


def plain_conv_valid(x: Array, kernel: Array) -> Array:
  return lax.conv_general_dilated(
    x, kernel, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def gradients_of(function: Callable) -> Callable:
  """Both gradients; of a bilinear function, so without its forward pass."""

  def loss(x: Array, kernel: Array, weights: Array) -> Array:
    return jnp.sum(function(x, kernel) * weights)

  return jax.grad(loss, argnums=(0, 1))


def normal(*shape: int) -> Array:
  return jax.random.normal(jax.random.key(sum(shape)), shape)


def all_cases() -> Iterator[Case]:
  for size, batch, height, inner, outer in TRANSPOSED:
    extra, wide = size % 2, 2 * height
    plain = functools.partial(plain_conv_transpose, extra=extra)
    ours = functools.partial(
      ops.conv_transpose, stride=2, padding=((1, 1), (1, 1)), extra=extra
    )
    x = normal(batch, height, height, inner)
    kernel = normal(size, size, outer, inner)
    weights = normal(batch, wide, wide, outer)
    shape = f'{size}x{size} | {batch} x {height} x {height} x {inner} | {outer}'
    yield Case(f'transpose {shape} | forward', plain, ours, (x, kernel))
    pair = gradients_of(plain), gradients_of(ours)
    yield Case(f'transpose {shape} | gradients', *pair, (x, kernel, weights))
  for size, batch, height, inner, outer in VALID:
    wide = height + size - 1
    x = normal(batch, wide, wide, inner)
    kernel = normal(size, size, inner, outer)
    weights = normal(batch, height, height, outer)
    shape = f'{size}x{size} | {batch} x {wide} x {wide} x {inner} | {outer}'
    pair = plain_conv_valid, ops.conv_valid
    yield Case(f'valid {shape} | forward', *pair, (x, kernel))
    pair = gradients_of(plain_conv_valid), gradients_of(ops.conv_valid)
    yield Case(f'valid {shape} | gradients', *pair, (x, kernel, weights))

  for batch, height, channels in REFLECTED:
    x = normal(batch, height, height, channels)
    kernel = normal(3, 3, channels, channels)
    shape = f'3x3 | {batch} x {height} x {height} x {channels} | {channels}'
    pair = reflected.reflect_then_conv, ops.conv_reflected
    yield Case(f'reflected {shape} | forward', *pair, (x, kernel))


def milliseconds(form: Callable, arguments: tuple, num_calls: int) -> float:
  start = time.perf_counter()
  for _ in range(num_calls):
    jax.block_until_ready(form(*arguments))
  return 1000 * (time.perf_counter() - start) / num_calls


def compare(case: Case) -> str:
  """The case's row; each turn gives one ratio."""
  forms = []
  for function in (case.plain, case.ours):
    form = jax.jit(function)
    milliseconds(form, case.arguments, 1)  # compiles
    once = milliseconds(form, case.arguments, 2) / 1000
    forms.append((form, case.arguments, max(1, round(SECONDS_PER_TURN / once))))
  turns = [[milliseconds(*form) for form in forms] for _ in range(NUM_TURNS)]
  ratios = [plain / ours for plain, ours in turns]
  plain, ours = (statistics.median(times) for times in zip(*turns, strict=True))
  return (
    f'| {case.name} | {plain:.2f} | {ours:.2f} | '
    f'{statistics.median(ratios):.2f} | {min(ratios):.2f} - {max(ratios):.2f} |'
  )


def processor() -> str:
  path = pathlib.Path('/proc/cpuinfo')
  text = path.read_text() if path.exists() else ''
  found = re.search(r'model name\s*: (.+)', text)
  return found[1] if found else platform.machine()


def main() -> None:
  print(f'{datetime.date.today()}: {processor()}, {os.cpu_count()} cores,')
  print(f'jax {jax.__version__} on {jax.devices()[0]}, {NUM_TURNS} turns\n')
  print('| kernel | input | out | pass | plain, ms | ours, ms ', end='')
  print('| plain / ours | min - max |')
  print('|---|---|---:|---|---:|---:|---:|---:|')
  for case in all_cases():
    print(compare(case), flush=True)


if __name__ == '__main__':
  main()
