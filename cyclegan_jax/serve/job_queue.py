"""Bounded job queue with one worker thread."""

import asyncio
import collections
import itertools
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self, TypeVar

T = TypeVar('T')

_POLL_SECONDS = 0.25  # between checks of a job's time limit


class FullError(Exception):
  """The queue holds as many jobs as it may."""


class DisconnectedError(Exception):
  """Nobody waits for the job any more."""


class TimeLimitError(Exception):
  """The job ran for longer than it may."""


class QueuedJob:
  """A place in the queue; a context manager that frees it.

  Attributes:
    name: to find the job by; '' for none.
    share: done share of the work in [0, 1]; None if unknown.
    number: jobs run in the order of their numbers; infinite before `run`.
    started_at: by the monotonic clock; None while it waits.
  """

  def __init__(self, queue: 'JobQueue', name: str):
    self.name = name
    self.share: float | None = None
    self.number = math.inf
    self.started_at: float | None = None
    self._queue = queue
    self._is_abandoned = False

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    # The thread cannot be stopped: the place stays taken while it works.
    self._is_abandoned = True
    if self.started_at is None:
      self._queue.leave(self)

  def on_progress(self, done: int, total: int) -> None:
    """Records progress; to be called between parts of the work.

    Raises:
      DisconnectedError: nobody waits for the job any more.
    """
    self._check_wanted()
    self.share = done / total

  def _check_wanted(self) -> None:
    if self._is_abandoned:
      raise DisconnectedError

  async def run(
    self,
    work: Callable[[], T],
    *,
    disconnected: Awaitable[object],
    seconds: float,
  ) -> T:
    """Waits for the job's turn and for the result of its work.

    Args:
      work: called once, in the queue's thread.
      disconnected: completes when the client disconnects.
      seconds: time limit of the work.

    Raises:
      DisconnectedError: the client disconnected.
      TimeLimitError: the work took longer; the rest of it is abandoned.
      Exception: the work raised it.
    """
    result = asyncio.wrap_future(self._queue.submit(self, work))
    watcher = asyncio.ensure_future(disconnected)
    events: set[asyncio.Future[Any]] = {result, watcher}
    try:
      while not result.done():
        await asyncio.wait(
          events, timeout=_POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        if result.done():
          break
        if watcher.done():
          raise DisconnectedError
        started_at = self.started_at
        if started_at and time.monotonic() - started_at > seconds:
          raise TimeLimitError
      return await result
    finally:
      watcher.cancel()
      result.cancel()

  def call(self, work: Callable[[], T]) -> T:
    """Does the work, in the queue's thread, and frees the place."""
    self.started_at = time.monotonic()
    try:
      self._check_wanted()
      return work()
    finally:
      self._queue.leave(self)


class JobQueue:
  """A thread that does one job after another.

  Attributes:
    size: the most jobs that wait or run at once.
    num_idle_tasks: tasks given to `run_when_idle`.
    num_idle_tasks_done: those of them that are done.
  """

  def __init__(self, size: int):
    self.size = size
    self.num_idle_tasks = self.num_idle_tasks_done = 0
    self._jobs: set[QueuedJob] = set()
    self._numbers = itertools.count()
    self._lock = threading.Lock()
    self._thread = ThreadPoolExecutor(1, 'translate')

  def __len__(self) -> int:
    return len(self._jobs)

  def enter(self, name: str = '') -> QueuedJob:
    """Takes a place in the queue.

    Raises:
      FullError: no place is free.
    """
    with self._lock:
      if len(self._jobs) >= self.size:
        raise FullError
      job = QueuedJob(self, name)
      self._jobs.add(job)
    return job

  def leave(self, job: QueuedJob) -> None:
    """Frees the place of a job."""
    with self._lock:
      self._jobs.discard(job)

  def find(self, name: str) -> tuple[int, QueuedJob] | None:
    """The number of jobs before the job of a name, and the job, if any."""
    with self._lock:
      for job in self._jobs:
        if job.name == name:
          ahead = sum(other.number < job.number for other in self._jobs)
          return ahead, job
    return None

  def submit(self, job: QueuedJob, work: Callable[[], T]) -> Future[T]:
    """Lets the thread do the work of a job in its turn."""
    job.number = next(self._numbers)
    return self._thread.submit(job.call, work)

  def run_when_idle(self, tasks: Iterable[Callable[[], object]]) -> None:
    """Runs tasks one by one; jobs that arrive run before the next task."""
    pending = collections.deque(tasks)
    self.num_idle_tasks += len(pending)

    def run_next() -> None:
      try:
        pending.popleft()()
      except Exception as error:  # it will recur in the jobs
        logging.getLogger('cyclegan_jax').warning('warming up: %s', error)
      self.num_idle_tasks_done += 1
      submit_next()

    def submit_next() -> None:
      if pending:
        self._thread.submit(run_next)

    submit_next()

  def close(self) -> None:
    """Drops waiting jobs; does not wait for the running one."""
    self._thread.shutdown(wait=False, cancel_futures=True)
