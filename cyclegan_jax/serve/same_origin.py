"""Refuses requests that pages of other sites make.

A page of another site can send requests to 127.0.0.1, and read the answers
through a host name of its own that resolves there (DNS rebinding). So requests
must name this host, and those that ask for work must come from its own page or
from a program.
"""

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HOSTS = ('127.0.0.1', 'localhost')
_HTTP_PORT = 80  # browsers leave it out of the header Host
_CONTENT_POLICY = (
  "default-src 'none'; script-src 'self'; style-src 'self'; "
  "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; "
  "form-action 'none'; frame-ancestors 'none'"
)
_SECURITY_HEADERS = {
  'cache-control': 'no-store',
  'content-security-policy': _CONTENT_POLICY,
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'permissions-policy': 'camera=(self), microphone=(), geolocation=()',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
}


class SameOriginMiddleware:
  """Checks requests to an ASGI application; adds headers to its answers."""

  def __init__(self, app: ASGIApp, port: int):
    self._app = app
    self._url = f'http://127.0.0.1:{port}'
    self._hosts = {f'{host}:{port}' for host in _HOSTS}
    if port == _HTTP_PORT:
      self._hosts.update(_HOSTS)

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a refused request; passes on the others."""
    if scope['type'] != 'http':
      return

    async def send_with_headers(message: Message) -> None:
      if message['type'] == 'http.response.start':
        MutableHeaders(scope=message).update(_SECURITY_HEADERS)
      await send(message)

    refusal = self._refusal(scope['method'], Headers(scope=scope))
    await (refusal or self._app)(scope, receive, send_with_headers)

  def _refusal(self, method: str, headers: Headers) -> JSONResponse | None:
    host = headers.get('host', '').lower()
    if host not in self._hosts:
      return _error(421, f'this server is only reachable as {self._url}')
    if method in ('GET', 'HEAD'):
      return None
    origins = headers.getlist('origin')  # programs send none
    site = headers.get('sec-fetch-site', 'same-origin')
    if site != 'same-origin' or any(
      origin.lower() != f'http://{host}' for origin in origins
    ):
      return _error(403, 'the request comes from a page of another site')
    return None


def _error(status: int, reason: str) -> JSONResponse:
  return JSONResponse({'error': reason}, status)
