"""Who may talk to the server: pages that it served itself, and programs.

A page of another site can send requests to 127.0.0.1, and by a name of its
own that leads there (DNS rebinding) even read the answers. So requests have
to name this server, and those that ask for work have to come from its page.
"""

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_NAMES = ('127.0.0.1', 'localhost')
_HTTP_PORT = 80  # which browsers leave out
_POLICY = (
  "default-src 'none'; script-src 'self'; style-src 'self'; "
  "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; "
  "form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
  'cache-control': 'no-store',
  'content-security-policy': _POLICY,
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'permissions-policy': 'camera=(self), microphone=(), geolocation=()',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
}


class Guard:
  """An ASGI application around another one."""

  def __init__(self, app: ASGIApp, port: int):
    self._app = app
    self._url = f'http://127.0.0.1:{port}'
    self._hosts = {f'{name}:{port}' for name in _NAMES}
    if port == _HTTP_PORT:
      self._hosts.update(_NAMES)

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers, or has the other application answer."""
    if scope['type'] != 'http':
      return

    async def send_guarded(message: Message) -> None:
      if message['type'] == 'http.response.start':
        MutableHeaders(scope=message).update(_HEADERS)
      await send(message)

    refusal = self._refusal(scope['method'], Headers(scope=scope))
    await (refusal or self._app)(scope, receive, send_guarded)

  def _refusal(self, method: str, headers: Headers) -> JSONResponse | None:
    host = headers.get('host', '').lower()
    if host not in self._hosts:
      return _refuse(421, f'this server is {self._url}, and no other name')
    if method in ('GET', 'HEAD'):
      return None
    origins = headers.getlist('origin')  # none of a program
    site = headers.get('sec-fetch-site', 'same-origin')
    if site != 'same-origin' or any(
      each.lower() != f'http://{host}' for each in origins
    ):
      return _refuse(403, 'a page of another site asks for this')
    return None


def _refuse(status: int, reason: str) -> JSONResponse:
  return JSONResponse({'error': reason}, status)
