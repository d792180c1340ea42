"""The server's application: the page, the queue's status and translations."""

import asyncio
import contextlib
import dataclasses
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
from cyclegan_jax.report import translate_page
from cyclegan_jax.report.html_page import read_page_part
from cyclegan_jax.serve.job_queue import (
  DisconnectedError,
  FullError,
  JobQueue,
  QueuedJob,
  TimeLimitError,
)
from cyclegan_jax.serve.limits import Limits
from cyclegan_jax.serve.models import (
  ServedModel,
  preview_file,
  translate_file,
)
from cyclegan_jax.serve.same_origin import SameOriginMiddleware

_RETRY_SECONDS = 3
_DRAIN_SECONDS = 10
# A form on another site's page could send other types without a preflight.
_BODY_TYPES = re.compile(r'(image/[\w.+-]+|application/octet-stream)$')
_ACCEPTED_TYPES = (
  'image/jpeg,image/png,image/webp,image/bmp,image/tiff,image/avif'
)


def make_app(
  models: Sequence[ServedModel],
  queue: JobQueue,
  limits: Limits,
  scratch: pathlib.Path,
  port: int,
  title: str = '',
) -> ASGIApp:
  """The server as an ASGI application.

  Args:
    models: the checkpoints to choose from.
    queue: runs the translations.
    limits: of requests.
    scratch: folder for files; each request has a folder of its own in it.
    port: port of the server.
    title: heading of the page; '' for the default.
  """
  endpoints = _Endpoints(models, queue, limits, scratch)
  script = translate_page.script(read_page_part('serve.js', 'serve'))
  files = {
    '/': (_page(models, limits, title), 'text/html'),
    '/page.css': (translate_page.style_sheet(), 'text/css'),
    '/page.js': (script, 'text/javascript'),
    '/icon.svg': (read_page_part('icon.svg'), 'image/svg+xml'),
  }
  routes = [
    Route(path, functools.partial(_file, text, media_type))
    for path, (text, media_type) in files.items()
  ]
  routes += [
    Route('/status', endpoints.status),
    Route('/translate', endpoints.translate, methods=['POST']),
    Route('/preview', endpoints.preview, methods=['POST']),
  ]
  handlers = {HTTPException: _answer_error, ClientDisconnect: _answer_nobody}
  app = Starlette(routes=routes, exception_handlers=handlers)
  return SameOriginMiddleware(app, port)


async def _file(text: str, media_type: str, request: Request) -> Response:
  del request
  return Response(text, media_type=media_type)


def _page(models: Sequence[ServedModel], limits: Limits, title: str) -> str:
  options = ''.join(
    f'<option value="{index}">{html.escape(model.name)}</option>'
    for index, model in enumerate(models)
  )
  return translate_page.page(
    {
      'models': [model.description for model in models],
      'max_bytes': limits.max_bytes,
    },
    style_url='page.css',
    script_url='page.js',
    model_choice='<label class="field">Checkpoint '
    f'<select id="model">{options}</select></label>',
    accept=_ACCEPTED_TYPES,
    title=title,
    footer='JPEG, PNG, WebP, BMP and TIFF, up to '
    f'{limits.max_pixels / 1e6:.3g} megapixels and '
    f'{limits.max_bytes / 2**20:.0f} MB. Images are only sent to the machine '
    'that serves this page, and are not kept there.',
  )


@dataclasses.dataclass
class _Endpoints:
  """The endpoints that use the queue; see `make_app` for the attributes."""

  models: Sequence[ServedModel]
  queue: JobQueue
  limits: Limits
  scratch: pathlib.Path

  async def status(self, request: Request) -> Response:
    """The length of the queue, and the progress of a job in it."""
    status: dict[str, Any] = {
      'queue': len(self.queue),
      'size': self.queue.size,
      'networks': self.queue.num_idle_tasks,
      'warm_networks': self.queue.num_idle_tasks_done,
    }
    if found := self.queue.find(_job_name(request)):
      ahead, job = found
      status['job'] = {
        'ahead': ahead,
        'running': job.started_at is not None,
        'share': job.share,
      }
    return JSONResponse(status)

  async def translate(self, request: Request) -> Response:
    """Translates the image in the request's body."""
    model = self._model(request)
    direction = request.query_params.get('direction', '')
    if direction not in model.translators:
      choices = ' or '.join(model.translators)
      raise HTTPException(404, f'direction={direction} is not {choices}')

    def work(job: QueuedJob, source: pathlib.Path) -> pathlib.Path:
      return translate_file(
        model.translators[direction],
        source,
        self.limits.max_pixels,
        job.on_progress,
      )

    return await self._answer_with_file(request, work)

  async def preview(self, request: Request) -> Response:
    """Converts the image in the body to one that browsers can show."""
    model = self._model(request)
    domain = request.query_params.get('domain', '')
    if domain not in ('a', 'b'):
      raise HTTPException(404, f'domain={domain} is not a or b')
    config = next(iter(model.translators.values())).config.data

    def work(job: QueuedJob, source: pathlib.Path) -> pathlib.Path:
      del job
      return preview_file(config, domain, source, self.limits.max_pixels)

    return await self._answer_with_file(request, work)

  def _model(self, request: Request) -> ServedModel:
    text = request.query_params.get('model', '0')
    if not re.fullmatch('[0-9]{1,4}', text) or int(text) >= len(self.models):
      raise HTTPException(404, f'model={text} does not exist on this server')
    return self.models[int(text)]

  async def _answer_with_file(
    self,
    request: Request,
    work: Callable[[QueuedJob, pathlib.Path], pathlib.Path],
  ) -> Response:
    """Answers with the file that `work` makes of the file in the body."""
    self._check_headers(request)
    folder = pathlib.Path(tempfile.mkdtemp(dir=self.scratch))
    source = folder / 'image'
    try:
      # A place before the body: without one the file is not even received.
      with self.queue.enter(_job_name(request)) as job:
        await self._receive(request, source)
        result = await job.run(
          functools.partial(work, job, source),
          disconnected=_wait_for_disconnect(request),
          seconds=self.limits.work_seconds,
        )
      return _TemporaryFileResponse(result, self.limits.send_seconds)
    except BaseException as error:
      shutil.rmtree(folder, ignore_errors=True)
      answer = _error_to_answer(error, source, self.limits)
      if answer is error:
        raise
      raise answer from error

  def _check_headers(self, request: Request) -> None:
    if not _BODY_TYPES.match(request.headers.get('content-type', '')):
      raise HTTPException(
        415,
        'send the image as the body, with the header Content-Type: '
        'application/octet-stream',
      )
    length = request.headers.get('content-length', '0')
    is_number = length.isdecimal() and len(length) <= 15
    if not is_number or int(length) > self.limits.max_bytes:
      raise _too_many_bytes(self.limits)

  async def _receive(self, request: Request, path: pathlib.Path) -> None:
    """Writes the body to a file."""
    num_bytes = 0
    try:
      with path.open('xb') as file:
        async with asyncio.timeout(self.limits.body_seconds):
          async for chunk in request.stream():
            num_bytes += len(chunk)
            if num_bytes > self.limits.max_bytes:
              raise _too_many_bytes(self.limits)
            file.write(chunk)
    except TimeoutError as error:
      raise HTTPException(
        408,
        f'the image did not arrive in {self.limits.body_seconds:g} seconds',
        {'connection': 'close'},
      ) from error


class _TemporaryFileResponse(FileResponse):
  """A file whose folder is removed after it is sent, or cannot be."""

  def __init__(self, path: pathlib.Path, seconds: float):
    super().__init__(path)
    self._folder = path.parent
    self._seconds = seconds

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Sends the file."""
    try:
      async with asyncio.timeout(self._seconds):
        await super().__call__(scope, receive, send)
    finally:
      shutil.rmtree(self._folder, ignore_errors=True)


def _job_name(request: Request) -> str:
  """A name that the page chose, so that only it can ask for the job."""
  name = request.query_params.get('job', '')
  return name if re.fullmatch('[0-9a-f]{32}', name) else ''


def _too_many_bytes(limits: Limits) -> HTTPException:
  return HTTPException(
    413,
    f'the file is larger than {limits.max_bytes / 2**20:.0f} MB, the limit of '
    'this server',
  )


async def _wait_for_disconnect(request: Request) -> None:
  while (await request.receive())['type'] != 'http.disconnect':
    pass


def _error_to_answer(
  error: BaseException, source: pathlib.Path, limits: Limits
) -> BaseException:
  """The HTTP error for an error of a translation; others unchanged."""
  match error:
    case FullError():
      return HTTPException(
        503,
        'the queue is full: try again',
        {'retry-after': str(_RETRY_SECONDS)},
      )
    case DisconnectedError():
      return ClientDisconnect()
    case TimeLimitError():
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
      return HTTPException(500, 'there is not enough memory for the image')
    case Exception():
      logging.getLogger('cyclegan_jax').error(
        'an image was not translated: %s: %s',
        type(error).__name__,
        one_line(error),
      )
      return HTTPException(500, 'the translation failed')
  return error


async def _answer_error(request: Request, error: Exception) -> Response:
  """Answers with the error as JSON, after the client has sent everything.

  A client that is still sending when the connection closes would not see the
  answer.
  """
  assert isinstance(error, HTTPException)
  if error.status_code != 408:  # that client had its time
    with contextlib.suppress(TimeoutError, ClientDisconnect, RuntimeError):
      async with asyncio.timeout(_DRAIN_SECONDS):
        async for _ in request.stream():  # RuntimeError: already read
          pass
  reason = {'error': error.detail}
  return JSONResponse(reason, error.status_code, headers=error.headers)


async def _answer_nobody(request: Request, error: Exception) -> Response:
  del request, error
  return Response()
