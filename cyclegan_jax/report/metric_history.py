"""A run's metrics.jsonl as curves of few points, however long it is.

The file is read a line at a time and thinned meanwhile, so that memory grows
with the number of metrics alone.
"""

import json
import math
import re
from pathlib import Path
from typing import NamedTuple

MAX_POINTS = 512  # of a curve: about what a chart has pixels for; even
_MAX_LINE = 1 << 20  # bytes; a longer one is no record
_NOT_A_RECORD = (
  ValueError,
  TypeError,
  AttributeError,
  LookupError,
  OverflowError,
  RecursionError,
)


class Curve(NamedTuple):
  """A metric over steps; a point stands for a stretch of equal many values.

  Attributes:
    steps: of each point, rising.
    means: of a stretch's finite values; None where it has none.
    lows: the least of them, likewise.
    highs: the largest of them, likewise.
    not_finite: a step of each stretch that has a NaN or an infinity.
    last: the last value of all, whatever it is.
  """

  steps: list[int]
  means: list[float | None]
  lows: list[float | None]
  highs: list[float | None]
  not_finite: list[int]
  last: float


class Records(NamedTuple):
  """What a metrics.jsonl holds.

  Attributes:
    curves: by the metric's name, in the order in which they first come.
    names: of all metrics, also of those that were not asked for.
    last_step: of the last record; None where there is none.
    num_damaged: lines that are no records, and were passed over.
  """

  curves: dict[str, Curve]
  names: list[str]
  last_step: int | None
  num_damaged: int


def read_curves(
  path: Path,
  *,
  pattern: re.Pattern[str] | None = None,
  end_step: int | None = None,
  max_points: int = MAX_POINTS,
) -> Records:
  """Reads a metrics.jsonl, which may be growing.

  A last line that is being written is left out, and a file that does not
  exist has no records.

  Args:
    path: of the file.
    pattern: of the metrics' names; None for all.
    end_step: records of later steps are left out; None for none.
    max_points: of a curve, an even number.

  Raises:
    OSError: it can't be read.
  """
  thinners: dict[str, _Thinner | None] = {}
  last_step, num_damaged = None, 0
  try:
    file = path.open('rb')
  except FileNotFoundError:
    return Records({}, [], None, 0)
  with file:
    while line := file.readline(_MAX_LINE):
      if not line.endswith(b'\n') and len(line) < _MAX_LINE:
        break  # torn, or still being written
      try:
        step, values = _parse(line)
      except _NOT_A_RECORD:
        num_damaged += 1
        continue
      if end_step is not None and step > end_step:
        continue
      last_step = step
      for name, value in values.items():
        if name not in thinners:
          is_asked_for = pattern is None or pattern.search(name)
          thinners[name] = _Thinner(max_points) if is_asked_for else None
        if thinner := thinners[name]:
          thinner.add(step, value)
  curves = {
    name: thinner.curve() for name, thinner in thinners.items() if thinner
  }
  return Records(curves, list(thinners), last_step, num_damaged)


def _parse(line: bytes) -> tuple[int, dict[str, float]]:
  record = json.loads(line)
  step = int(record.pop('step'))
  return step, {name: float(value) for name, value in record.items()}


class _Stretch:
  """Values that follow each other."""

  __slots__ = ('count', 'first', 'high', 'last', 'low', 'mean', 'num', 'odd')

  def __init__(self, step: int) -> None:
    self.first = self.last = step
    self.count = self.num = 0  # of values, and of the finite among them
    self.low, self.high, self.mean = math.inf, -math.inf, 0.0
    self.odd: int | None = None  # the step of one that is not finite

  def add(self, step: int, value: float) -> None:
    self.last = step
    self.count += 1
    if not math.isfinite(value):
      self.odd = step
      return
    self.num += 1
    self.mean += (value - self.mean) / self.num
    if value < self.low:
      self.low = value
    if value > self.high:
      self.high = value

  def join(self, other: '_Stretch') -> '_Stretch':
    self.last = other.last
    self.count += other.count
    self.num += other.num
    if other.num:
      share = other.num / self.num
      self.mean = self.mean * (1 - share) + other.mean * share
    self.low = min(self.low, other.low)
    self.high = max(self.high, other.high)
    self.odd = other.odd if self.odd is None else self.odd
    return self


class _Thinner:
  """Keeps at most `limit` stretches of values, all of them equally long.

  When there are more, two and two become one, and the next are twice as long.
  """

  def __init__(self, limit: int) -> None:
    self._limit = limit
    self._length = 1
    self._stretches: list[_Stretch] = []
    self._last = math.nan

  def add(self, step: int, value: float) -> None:
    stretches = self._stretches
    if not stretches or stretches[-1].count == self._length:
      if len(stretches) == self._limit:
        pairs = zip(stretches[::2], stretches[1::2], strict=True)
        stretches = self._stretches = [one.join(two) for one, two in pairs]
        self._length *= 2
      stretches.append(_Stretch(step))
    stretches[-1].add(step, value)
    self._last = value

  def curve(self) -> Curve:
    # Steps go back where a file was put together by hand.
    parts = sorted(self._stretches, key=lambda each: each.first)
    return Curve(
      steps=[(each.first + each.last) // 2 for each in parts],
      means=[each.mean if each.num else None for each in parts],
      lows=[each.low if each.num else None for each in parts],
      highs=[each.high if each.num else None for each in parts],
      not_finite=[each.odd for each in parts if each.odd is not None],
      last=self._last,
    )
