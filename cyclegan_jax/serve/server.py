"""The server process: its port, its connections and its end."""

import contextlib
import errno
import logging
import pathlib
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from cyclegan_jax import signals
from cyclegan_jax.errors import UserError
from cyclegan_jax.serve.app import make_app
from cyclegan_jax.serve.job_queue import JobQueue
from cyclegan_jax.serve.limits import Limits
from cyclegan_jax.serve.models import load_models, warm_up_tasks

_ADDRESS = '127.0.0.1'
_MAX_CONNECTIONS = 512
_MAX_HEADER_BYTES = 2**14
_SHUTDOWN_SECONDS = 1


def serve(
  paths: Sequence[pathlib.Path],
  *,
  port: int,
  limits: Limits,
  title: str = '',
  on_start: Callable[[str], None],
) -> None:
  """Serves the page until a signal arrives, which is raised again.

  Args:
    paths: folders of runs or of checkpoints.
    port: 0 for any free port.
    limits: of requests.
    title: heading of the page; '' for the default.
    on_start: called with the page's URL when it can be opened.

  Raises:
    UserError: the port is taken, or a checkpoint cannot be used.
  """
  with (
    _listen(port) as listener,
    tempfile.TemporaryDirectory(
      prefix='cyclegan_serve_', ignore_cleanup_errors=True
    ) as folder,
  ):
    scratch = pathlib.Path(folder)
    models = load_models(paths, scratch)
    port = listener.getsockname()[1]
    queue = JobQueue(limits.queue)
    queue.run_when_idle(warm_up_tasks(models))
    config = uvicorn.Config(
      make_app(models, queue, limits, scratch, port, title),
      http=_protocol_with_timeout(limits.header_seconds),
      ws='none',
      lifespan='off',
      loop='asyncio',
      log_config=None,
      log_level=logging.CRITICAL,
      access_log=False,
      server_header=False,
      proxy_headers=False,
      h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
      limit_concurrency=_MAX_CONNECTIONS,
      timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    server = _Server(config, lambda: on_start(f'http://{_ADDRESS}:{port}'))
    try:
      server.run([listener])
    finally:
      queue.close()


def _listen(port: int) -> socket.socket:
  listener = socket.socket()
  listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
  try:
    listener.bind((_ADDRESS, port))
  except OSError as error:
    listener.close()
    reason = (
      'is in use'
      if error.errno == errno.EADDRINUSE
      else f'cannot be opened ({error.strerror})'
    )
    raise UserError(
      f'port {port} {reason}: give another --port, or --port=0 for any free '
      'port'
    ) from error
  return listener


class _Server(uvicorn.Server):
  """A server that reports when it listens, and answers signals."""

  def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]):
    super().__init__(config)
    self._on_start = on_start

  @contextlib.contextmanager
  def capture_signals(self) -> Iterator[None]:
    """Stops on the signals that end any command, and on no others."""
    old = {number: signal.getsignal(number) for number in signals.SIGNALS}
    with super().capture_signals():
      for number, handler in old.items():
        is_ignored = handler is signal.SIG_IGN
        signal.signal(number, handler if is_ignored else self.handle_exit)
      try:
        yield
      finally:
        for number, handler in old.items():
          signal.signal(number, handler)

  async def startup(self, sockets: list[socket.socket] | None = None) -> None:
    """Listens."""
    await super().startup(sockets=sockets)
    self._on_start()


def _protocol_with_timeout(seconds: float) -> type[H11Protocol]:
  """A protocol that closes connections that do not complete a request.

  Uvicorn's own timeout only covers silence between two requests: a client that
  sends a byte now and then could stay forever.
  """

  class Connection(H11Protocol):
    def __init__(self, *args: Any, **options: Any):
      super().__init__(*args, **options)
      self._limit_time()

    def on_response_complete(self) -> None:
      # First: the next request may be here already.
      self._limit_time()
      super().on_response_complete()

    def _limit_time(self) -> None:
      self.loop.call_later(seconds, self._close_if_still_in, self.cycle)

    def _close_if_still_in(self, cycle: object) -> None:
      if self.cycle is cycle:
        self.transport.abort()

  return Connection
