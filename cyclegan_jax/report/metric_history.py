"""Metrics of a run as curves with few points, however long the run is.

The file is read line by line and thinned meanwhile, so that memory grows only
with the number of metrics.
"""

import dataclasses
import math
import re
from pathlib import Path
from typing import NamedTuple

from cyclegan_jax.report.metric_writer import parse_record

MAX_POINTS = 512  # per curve: about the pixels that a chart is wide; even
_MAX_LINE = 1 << 20  # bytes; a longer line is not a record


class Curve(NamedTuple):
  """A metric over steps; each point summarizes equally many values.

  Attributes:
    steps: step of each point, rising.
    means: mean of the finite values of each point; None if there are none.
    lows: least finite value of each point, or None.
    highs: largest finite value of each point, or None.
    not_finite: for each point with a NaN or an infinity, the step of one.
    last: the last value, finite or not.
  """

  steps: list[int]
  means: list[float | None]
  lows: list[float | None]
  highs: list[float | None]
  not_finite: list[int]
  last: float


class MetricHistory(NamedTuple):
  """Content of a metrics.jsonl.

  Attributes:
    curves: curves by metric name, in order of first appearance.
    names: names of all metrics, including those that were not requested.
    last_step: step of the last record; None without records.
    num_damaged: number of lines that are not records, which are skipped.
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
) -> MetricHistory:
  """Reads a metrics.jsonl, which may be growing.

  An incomplete last line is ignored, and a missing file has no records.

  Args:
    path: path of the file.
    pattern: pattern that the metrics' names must match; None for all.
    end_step: last step to read; None for all.
    max_points: most points of a curve, an even number.

  Raises:
    OSError: the file cannot be read.
  """
  thinners: dict[str, _Thinner | None] = {}
  last_step, num_damaged = None, 0
  try:
    file = path.open('rb')
  except FileNotFoundError:
    return MetricHistory({}, [], None, 0)
  with file:
    while line := file.readline(_MAX_LINE):
      if not line.endswith(b'\n') and len(line) < _MAX_LINE:
        break  # incomplete
      try:
        values = parse_record(line)
      except ValueError:
        num_damaged += 1
        continue
      step = values.pop('step')
      if end_step is not None and step > end_step:
        continue
      last_step = step
      for name, value in values.items():
        if name not in thinners:
          is_requested = pattern is None or pattern.search(name)
          thinners[name] = _Thinner(max_points) if is_requested else None
        if thinner := thinners[name]:
          thinner.add(step, value)
  curves = {
    name: thinner.to_curve() for name, thinner in thinners.items() if thinner
  }
  return MetricHistory(curves, list(thinners), last_step, num_damaged)


@dataclasses.dataclass(slots=True)
class _Bin:
  """Summary of consecutive values."""

  first_step: int
  last_step: int
  count: int = 0  # of values
  num_finite: int = 0
  mean: float = 0.0  # of the finite values, as are low and high
  low: float = math.inf
  high: float = -math.inf
  not_finite: int | None = None  # step of a value that is not finite

  def add(self, step: int, value: float) -> None:
    self.last_step = step
    self.count += 1
    if not math.isfinite(value):
      self.not_finite = step
      return
    self.num_finite += 1
    self.mean += (value - self.mean) / self.num_finite
    if value < self.low:
      self.low = value
    if value > self.high:
      self.high = value

  def merge(self, other: '_Bin') -> '_Bin':
    self.last_step = other.last_step
    self.count += other.count
    self.num_finite += other.num_finite
    if other.num_finite:
      share = other.num_finite / self.num_finite
      self.mean = self.mean * (1 - share) + other.mean * share
    self.low = min(self.low, other.low)
    self.high = max(self.high, other.high)
    if self.not_finite is None:
      self.not_finite = other.not_finite
    return self


class _Thinner:
  """Keeps at most `limit` bins with equally many values.

  When they are full, neighbors are merged, and later bins hold twice as many.
  """

  def __init__(self, limit: int) -> None:
    self._limit = limit
    self._bin_size = 1
    self._bins: list[_Bin] = []
    self._last = math.nan

  def add(self, step: int, value: float) -> None:
    if not self._bins or self._bins[-1].count == self._bin_size:
      if len(self._bins) == self._limit:
        pairs = zip(self._bins[::2], self._bins[1::2], strict=True)
        self._bins = [left.merge(right) for left, right in pairs]
        self._bin_size *= 2
      self._bins.append(_Bin(step, step))
    self._bins[-1].add(step, value)
    self._last = value

  def to_curve(self) -> Curve:
    # In a file that was edited by hand, steps may go back.
    bins = sorted(self._bins, key=lambda each: each.first_step)
    return Curve(
      steps=[(each.first_step + each.last_step) // 2 for each in bins],
      means=[each.mean if each.num_finite else None for each in bins],
      lows=[each.low if each.num_finite else None for each in bins],
      highs=[each.high if each.num_finite else None for each in bins],
      not_finite=[
        each.not_finite for each in bins if each.not_finite is not None
      ],
      last=self._last,
    )
