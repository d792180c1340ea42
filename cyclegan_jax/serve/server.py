"""The process that answers: its port, its connections, its end."""

import asyncio
import errno
import functools
import logging
import pathlib
import socket
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from cyclegan_jax.errors import UserError
from cyclegan_jax.serve.app import make_app
from cyclegan_jax.serve.limits import Limits
from cyclegan_jax.serve.models import load_models, warm_ups
from cyclegan_jax.serve.queue import Queue

_ADDRESS = '127.0.0.1'
_MAX_CONNECTIONS = 512
_MAX_HEADER_BYTES = 2**14
_FAREWELL_SECONDS = 1


def serve(
  paths: Sequence[pathlib.Path],
  *,
  port: int,
  limits: Limits,
  on_start: Callable[[str], None],
) -> None:
  """Serves the page until a signal comes, which is raised again.

  Args:
    paths: runs' folders, or checkpoints'.
    port: 0 for any that is free.
    limits: of requests.
    on_start: is given the page's address, when it can be opened.

  Raises:
    UserError: the port is taken, or a checkpoint can't be used.
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
    queue = Queue(limits.queue)
    queue.use_idle(list(warm_ups(models)))
    config = uvicorn.Config(
      make_app(models, queue, limits, scratch, port),
      # A bare function would be asked for as a class.
      http=functools.partial(_Connection, limits.header_seconds),  # type: ignore[arg-type]
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
      timeout_graceful_shutdown=_FAREWELL_SECONDS,
    )
    tell = functools.partial(on_start, f'http://{_ADDRESS}:{port}')
    try:
      _Server(config, tell).run([listener])
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
      else f"can't be had ({error.strerror})"
    )
    raise UserError(
      f'port {port} {reason}: give another --port, or --port=0 for any that is '
      'free'
    ) from error
  return listener


class _Server(uvicorn.Server):
  """Tells when it listens, and answers signals."""

  def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]):
    super().__init__(config)
    self._on_start = on_start

  async def startup(self, sockets: list[socket.socket] | None = None) -> None:
    """Listens."""
    await super().startup(sockets=sockets)
    self._on_start()


class _Connection(H11Protocol):
  """A connection that is closed when it doesn't get on with a request.

  The server itself has a limit for silence between two requests alone: one
  that sends a byte now and then could stay forever.
  """

  def __init__(self, seconds: float, *args: Any, **options: Any):
    super().__init__(*args, **options)
    self._seconds = seconds

  def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
    """Gives it time for the first request."""
    super().connection_made(transport)
    self._watch()

  def on_response_complete(self) -> None:
    """Gives it time for the next one, which may be here already."""
    self._watch()
    super().on_response_complete()

  def _watch(self) -> None:
    self.loop.call_later(self._seconds, self._close_after, self.cycle)

  def _close_after(self, cycle: object) -> None:
    if self.cycle is cycle:
      self.transport.abort()
