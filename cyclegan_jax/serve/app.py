"""What the server answers: the page, how far things are, and translations."""

import asyncio
import contextlib
import functools
import html
import logging
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from PIL import UnidentifiedImageError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from cyclegan_jax.errors import UserError, WorkdirError, one_line
from cyclegan_jax.media.decoding import ImageError
from cyclegan_jax.media.header_limits import (
  MAX_SIDE,
  TooLargeError,
)
from cyclegan_jax.report.html_page import (
  fill,
  json_for_script,
  read_part,
)
from cyclegan_jax.report.translate_page import (
  studio_body,
  studio_script,
  studio_style,
)
from cyclegan_jax.serve.guard import Guard
from cyclegan_jax.serve.limits import Limits
from cyclegan_jax.serve.models import Model, preview_file, translate_file
from cyclegan_jax.serve.queue import (
  FullError,
  GoneError,
  Job,
  Queue,
  TooLongError,
)

_RETRY_SECONDS = 3
_DRAIN_SECONDS = 10
# Neither is what a form of another page could send without being asked.
_BODY_TYPES = re.compile(r'(image/[\w.+-]+|application/octet-stream)$')
_ACCEPTED = 'image/jpeg,image/png,image/webp,image/bmp,image/tiff'


def make_app(
  models: Sequence[Model],
  queue: Queue,
  limits: Limits,
  scratch: pathlib.Path,
  port: int,
) -> ASGIApp:
  """The server as an ASGI application.

  Args:
    models: to choose from.
    queue: in which they translate.
    limits: of requests.
    scratch: folder for the files of requests, each in one of its own.
    port: at which the application is.
  """
  service = _Service(models, queue, limits, scratch)
  parts = {
    '/': (_page(models, limits), 'text/html'),
    '/page.css': (studio_style(), 'text/css'),
    '/page.js': (studio_script(_own('serve.js')), 'text/javascript'),
    '/icon.svg': (read_part('icon.svg'), 'image/svg+xml'),
  }
  routes = [
    Route(path, functools.partial(_constant, text, kind))
    for path, (text, kind) in parts.items()
  ]
  routes += [
    Route('/status', service.status),
    Route('/translate', service.translate, methods=['POST']),
    Route('/preview', service.preview, methods=['POST']),
  ]
  handlers = {HTTPException: _refuse, ClientDisconnect: _leave}
  return Guard(Starlette(routes=routes, exception_handlers=handlers), port)


async def _constant(text: str, kind: str, request: Request) -> Response:
  del request
  return Response(text, media_type=kind)


def _own(name: str) -> str:
  return read_part(name, 'serve')


def _page(models: Sequence[Model], limits: Limits) -> str:
  known = [
    {
      'name': model.name,
      'about': model.about,
      'directions': list(model.translators),
    }
    for model in models
  ]
  data = {'models': known, 'max_bytes': limits.max_bytes}
  options = ''.join(
    f'<option value="{index}">{html.escape(model.name)}</option>'
    for index, model in enumerate(models)
  )
  parts = {
    'studio': studio_body(
      model='<label class="field">Checkpoint '
      f'<select id="model">{options}</select></label>\n',
      accept=_ACCEPTED,
    ),
    'max_megapixels': f'{limits.max_pixels / 1e6:.3g}',
    'max_megabytes': f'{limits.max_bytes / 2**20:.0f}',
    'data': json_for_script(data),
  }
  return fill(_own('serve.html'), parts)


class _Service:
  """The endpoints that have to do with the queue."""

  def __init__(
    self,
    models: Sequence[Model],
    queue: Queue,
    limits: Limits,
    scratch: pathlib.Path,
  ):
    self._models = models
    self._queue = queue
    self._limits = limits
    self._scratch = scratch

  async def status(self, request: Request) -> Response:
    """How long the queue is, and how far a job of it."""
    found = self._queue.find(_job_name(request))
    status: dict[str, Any] = {
      'queue': len(self._queue),
      'size': self._queue.size,
      'warming': self._queue.num_idle - self._queue.num_idle_done,
      'networks': self._queue.num_idle,
    }
    if found:
      ahead, job = found
      is_running = job.started_at is not None
      status['job'] = {
        'ahead': ahead,
        'running': is_running,
        'share': job.share,
      }
    return JSONResponse(status)

  async def translate(self, request: Request) -> Response:
    """An image in, its translation out."""
    model = self._model(request)
    direction = request.query_params.get('direction', '')
    if direction not in model.translators:
      known = ' or '.join(model.translators)
      raise HTTPException(404, f'direction={direction} is not {known}')

    def work(job: Job, source: pathlib.Path) -> pathlib.Path:
      return translate_file(
        model.translators[direction],
        source,
        self._limits.max_pixels,
        job.on_progress,
      )

    return await self._answer(request, work)

  async def preview(self, request: Request) -> Response:
    """An image that browsers don't show in, one that they do out."""
    model = self._model(request)
    domain = request.query_params.get('domain', '')
    if domain not in ('a', 'b'):
      raise HTTPException(404, f'domain={domain} is not a or b')
    config = next(iter(model.translators.values())).config.data

    def work(job: Job, source: pathlib.Path) -> pathlib.Path:
      del job
      return preview_file(config, domain, source, self._limits.max_pixels)

    return await self._answer(request, work)

  def _model(self, request: Request) -> Model:
    text = request.query_params.get('model', '0')
    if not re.fullmatch('[0-9]{1,4}', text) or int(text) >= len(self._models):
      raise HTTPException(404, f'model={text} is none of this server')
    return self._models[int(text)]

  async def _answer(
    self, request: Request, work: Callable[[Job, pathlib.Path], pathlib.Path]
  ) -> Response:
    """The file that the work makes of the one in the request's body."""
    _check_type(request)
    self._check_length(request)
    folder = pathlib.Path(tempfile.mkdtemp(dir=self._scratch))
    source = folder / 'image'
    try:
      # Taken before the body is: what is not worked on isn't kept either.
      with self._queue.enter(_job_name(request)) as job:
        await self._receive(request, source)
        made = await job.run(
          functools.partial(work, job, source),
          gone=_gone(request),
          seconds=self._limits.work_seconds,
        )
      return _Result(made, self._limits.send_seconds)
    except BaseException as error:
      shutil.rmtree(folder, ignore_errors=True)
      answer = _explained(error, source, self._limits)
      if answer is error:
        raise
      raise answer from error

  def _check_length(self, request: Request) -> None:
    length = request.headers.get('content-length', '0')
    if not length.isdecimal() or len(length) > 15:
      raise _too_many_bytes(self._limits)
    if int(length) > self._limits.max_bytes:
      raise _too_many_bytes(self._limits)

  async def _receive(self, request: Request, path: pathlib.Path) -> None:
    """Writes the body to a file."""
    num_bytes = 0
    try:
      with path.open('xb') as file:
        async with asyncio.timeout(self._limits.body_seconds):
          async for chunk in request.stream():
            num_bytes += len(chunk)
            if num_bytes > self._limits.max_bytes:
              raise _too_many_bytes(self._limits)
            file.write(chunk)
    except TimeoutError as error:
      raise HTTPException(
        408,
        f'the image was not here in {self._limits.body_seconds:g} seconds',
        {'connection': 'close'},
      ) from error


class _Result(FileResponse):
  """A file that goes, with its folder, when it is sent or nobody takes it."""

  def __init__(self, path: pathlib.Path, seconds: float):
    super().__init__(path)
    self._folder = path.parent
    self._seconds = seconds

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Sends it."""
    try:
      async with asyncio.timeout(self._seconds):
        await super().__call__(scope, receive, send)
    finally:
      shutil.rmtree(self._folder, ignore_errors=True)


def _job_name(request: Request) -> str:
  """What the page calls its job, for its own eyes."""
  name = request.query_params.get('job', '')
  return name if re.fullmatch('[0-9a-f]{32}', name) else ''


def _check_type(request: Request) -> None:
  kind = request.headers.get('content-type', '')
  if not _BODY_TYPES.match(kind):
    raise HTTPException(
      415,
      'send the image as it is, with the header Content-Type: '
      'application/octet-stream',
    )


def _too_many_bytes(limits: Limits) -> HTTPException:
  return HTTPException(
    413,
    f'the file is larger than the {limits.max_bytes / 2**20:.0f} MB that this '
    'server takes',
  )


async def _gone(request: Request) -> None:
  """Returns when the client has hung up."""
  while (await request.receive())['type'] != 'http.disconnect':
    pass


def _explained(
  error: BaseException, source: pathlib.Path, limits: Limits
) -> BaseException:
  """What is answered where a translation failed."""
  match error:
    case FullError():
      return HTTPException(
        503,
        'too many images are in the queue: try again',
        {'retry-after': str(_RETRY_SECONDS)},
      )
    case GoneError():
      return ClientDisconnect()
    case TooLongError():
      return HTTPException(
        504, f'it took longer than {limits.work_seconds:g} seconds'
      )
    case ImageError(__cause__=TooLargeError()):
      return HTTPException(
        413,
        f'the image is too large: this server takes {limits.max_pixels:,} '
        f'pixels, and no side above {MAX_SIDE:,}',
      )
    case ImageError(__cause__=UnidentifiedImageError()):
      return HTTPException(415, error.reason)
    case ImageError():
      return HTTPException(422, error.reason)
    case UserError() if not isinstance(error, WorkdirError):
      reason = str(error).replace(str(source), 'the image')
      return HTTPException(422, reason)
    case HTTPException() | ClientDisconnect():
      return error
    case MemoryError():
      return HTTPException(500, 'there is not enough memory for it')
    case Exception():
      logging.getLogger('cyclegan_jax').error(
        'an image was not translated: %s: %s',
        type(error).__name__,
        one_line(error),
      )
      return HTTPException(500, 'the translation failed')
  return error


async def _refuse(request: Request, error: Exception) -> Response:
  """An error as JSON, when the client has sent all of what it sends.

  One that still sends when the connection is closed would not see the answer.
  """
  assert isinstance(error, HTTPException)
  if error.status_code != 408:  # who was waited for already
    with contextlib.suppress(TimeoutError, ClientDisconnect, RuntimeError):
      async with asyncio.timeout(_DRAIN_SECONDS):
        async for _ in request.stream():  # RuntimeError: it was read
          pass
  reason = {'error': error.detail}
  return JSONResponse(reason, error.status_code, headers=error.headers)


async def _leave(request: Request, error: Exception) -> Response:
  del request, error
  return Response()  # for nobody
