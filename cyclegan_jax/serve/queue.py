"""One thing at a time, and a line of few before it."""

import asyncio
import collections
import itertools
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self, TypeVar

T = TypeVar('T')

_LOOK_SECONDS = 0.25  # between looks at whether a job has run for too long


class FullError(Exception):
  """As many jobs are in the queue as it holds."""


class GoneError(Exception):
  """Nobody waits for the job any more."""


class TooLongError(Exception):
  """The job ran for longer than it may."""


class Job:
  """A place in the queue, until it is left.

  Attributes:
    name: by which it is found again; '' where that is not wanted.
    share: of the work that is done, in [0, 1]; None where that is not known.
    number: by which its turn comes; infinite until it has work.
    started_at: by the monotonic clock; None while it waits.
  """

  def __init__(self, queue: 'Queue', name: str):
    self.name = name
    self.share: float | None = None
    self.number = math.inf
    self.started_at: float | None = None
    self._queue = queue
    self._is_given_up = False

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    # The thread can't be stopped: while it works the place is taken.
    self._is_given_up = True
    if self.started_at is None:
      self._queue.leave(self)

  def on_progress(self, done: int, total: int) -> None:
    """Takes what is done, for the work to call between its parts.

    Raises:
      GoneError: nobody waits for it any more.
    """
    self._check()
    self.share = done / total

  def _check(self) -> None:
    if self._is_given_up:
      raise GoneError

  async def run(
    self, work: Callable[[], T], *, gone: Awaitable[object], seconds: float
  ) -> T:
    """Waits for its turn, and for what the work returns.

    Args:
      work: is called in the queue's thread, once.
      gone: comes true when nobody waits any more.
      seconds: that the work may take.

    Raises:
      GoneError: it did.
      TooLongError: the work took longer; what is left of it is given up.
      Exception: that of the work.
    """
    result = asyncio.wrap_future(self._queue.submit(self, work))
    watcher = asyncio.ensure_future(gone)
    ends: set[asyncio.Future[Any]] = {result, watcher}
    try:
      while not result.done():
        await asyncio.wait(
          ends, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        if result.done():
          break
        if watcher.done():
          raise GoneError
        since = self.started_at
        if since is not None and time.monotonic() - since > seconds:
          raise TooLongError
      return await result
    finally:
      watcher.cancel()
      result.cancel()

  def call(self, work: Callable[[], T]) -> T:
    """Calls the work, in the queue's thread; then the place is free."""
    self.started_at = time.monotonic()
    try:
      self._check()
      return work()
    finally:
      self._queue.leave(self)


class Queue:
  """A thread that does one job after another.

  Attributes:
    size: the most jobs that wait or run at once.
    num_idle: tasks that were given to `use_idle`.
    num_idle_done: those of them that are done.
  """

  def __init__(self, size: int):
    self.size = size
    self.num_idle = self.num_idle_done = 0
    self._jobs: set[Job] = set()
    self._numbers = itertools.count()
    self._lock = threading.Lock()
    self._thread = ThreadPoolExecutor(1, 'translate')

  def __len__(self) -> int:
    return len(self._jobs)

  def enter(self, name: str = '') -> Job:
    """Takes the last place.

    Raises:
      FullError: there is none.
    """
    with self._lock:
      if len(self._jobs) >= self.size:
        raise FullError
      job = Job(self, name)
      self._jobs.add(job)
    return job

  def leave(self, job: Job) -> None:
    """Frees a place."""
    with self._lock:
      self._jobs.discard(job)

  def find(self, name: str) -> tuple[int, Job] | None:
    """How many are before a job, and the job; None where it is not here."""
    with self._lock:
      for job in self._jobs:
        if job.name == name:
          return sum(each.number < job.number for each in self._jobs), job
    return None

  def submit(self, job: Job, work: Callable[[], T]) -> Future[T]:
    """Has the thread do the work when it is its turn."""
    job.number = next(self._numbers)
    return self._thread.submit(job.call, work)

  def use_idle(self, tasks: Sequence[Callable[[], object]]) -> None:
    """Does tasks one by one; jobs that come meanwhile go before the next."""
    self.num_idle += len(tasks)
    self._next_idle(collections.deque(tasks))

  def _next_idle(self, tasks: collections.deque[Callable[[], object]]) -> None:
    if tasks:
      self._thread.submit(self._do_idle, tasks)

  def _do_idle(self, tasks: collections.deque[Callable[[], object]]) -> None:
    try:
      tasks.popleft()()
    except Exception as error:  # the jobs that come will tell of it
      logging.getLogger('cyclegan_jax').warning('warming up: %s', error)
    self.num_idle_done += 1
    self._next_idle(tasks)

  def close(self) -> None:
    """Drops what waits; what runs is left to itself."""
    self._thread.shutdown(wait=False, cancel_futures=True)
