"""The server: its answers, its process and its page."""

import asyncio
import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib

import jax
import numpy as np
import pages
import pytest

from cyclegan_jax.config import Config
from cyclegan_jax.errors import UserError, WorkdirError
from cyclegan_jax.media.image_files import write_photo
from cyclegan_jax.state import create_train_state
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.translate.files import translate_files
from cyclegan_jax.translate.options import Options
from cyclegan_jax.translate.translator import load_translator

pytest.importorskip('uvicorn', reason='needs the extra `serve`')
pytest.importorskip('starlette', reason='needs the extra `serve`')

from cyclegan_jax.serve.app import make_app
from cyclegan_jax.serve.job_queue import (
  DisconnectedError,
  FullError,
  JobQueue,
  TimeLimitError,
)
from cyclegan_jax.serve.limits import Limits
from cyclegan_jax.serve.models import load_models
from cyclegan_jax.serve.server import serve

MAX_PIXELS = 2**18
QUEUE = 4
PORT = 1234
RESNET = Config().replace(
  data={'size': 16, 'load_size': 16},
  generator={'name': 'resnet', 'filters': 2, 'blocks': 1, 'dropout': 0.0},
  discriminator={'filters': 2, 'layers': 1},
)
BYTES = {'Content-Type': 'application/octet-stream'}


def noise(*shape, dtype=np.uint8):
  full = np.iinfo(dtype).max
  return np.random.default_rng(0).integers(0, full, shape, dtype=dtype)


PIXELS = noise(20, 28, 3)
IMAGE = pages.encode(PIXELS)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """Three checkpoints; the last one's b has floats."""
  folder = tmp_path_factory.mktemp('runs')
  floats = RESNET.replace(
    data={'dtype_b': 'float32', 'low_b': 0.0, 'high_b': 4.0}
  )
  paths = [folder / 'first', folder / '<b>second', folder / 'floats']
  for seed, path in enumerate(paths):
    config = floats if path.name == 'floats' else RESNET
    state = create_train_state(config, jax.random.key(seed))
    with checkpoint.Saver(path / 'checkpoints', config) as saver:
      saver.save(state)
  return paths


# Answers of the application, without a process or a connection.


class Client:
  """Calls an ASGI application."""

  def __init__(self, app, queue):
    self.app = app
    self.queue = queue

  async def request(self, method, path, chunks=(), headers=None, until=None):
    """Sends a request.

    Args:
      method: 'GET' and so on.
      path: with the query.
      chunks: of the body.
      headers: by name.
      until: an event: then the client leaves, in the middle of the body.

    Returns:
      (status, headers, body)
    """
    messages = [
      {'type': 'http.request', 'body': chunk, 'more_body': True}
      for chunk in chunks
    ]
    if until is None:
      messages.append({'type': 'http.request', 'body': b'', 'more_body': False})
    is_answered = asyncio.Event()
    sent = []

    async def receive():
      if messages:
        return messages.pop(0)
      await (until or is_answered).wait()
      return {'type': 'http.disconnect'}

    async def send(message):
      sent.append(message)
      if not message.get('more_body', True):
        is_answered.set()

    path, _, query = path.partition('?')
    headers = {'Host': f'127.0.0.1:{PORT}'} | (headers or {})
    scope = {
      'type': 'http',
      'http_version': '1.1',
      'method': method,
      'path': path,
      'raw_path': path.encode(),
      'root_path': '',
      'query_string': query.encode(),
      'headers': [(k.lower().encode(), v.encode()) for k, v in headers.items()],
    }
    await self.app(scope, receive, send)
    start, *rest = sent
    headers = {k.decode(): v.decode() for k, v in start['headers']}
    return start['status'], headers, b''.join(each['body'] for each in rest)

  def ask(self, method, path, body=b'', headers=None):
    return asyncio.run(self.request(method, path, [body], headers))

  def translate(self, body, query='direction=ab', headers=BYTES):
    return self.ask('POST', f'/translate?{query}', body, headers)


@pytest.fixture(scope='module')
def make_client(runs, tmp_path_factory):
  scratch = tmp_path_factory.mktemp('scratch')
  models = load_models(runs, scratch)

  def make(**limits):
    limits = Limits(max_pixels=MAX_PIXELS, queue=QUEUE, **limits)
    queue = JobQueue(limits.queue)
    return Client(make_app(models, queue, limits, scratch, PORT), queue)

  yield make
  assert not list(scratch.iterdir())


@pytest.fixture(scope='module')
def client(make_client):
  return make_client()


@pytest.mark.parametrize('title', ['', '<b>Horses & zebras'])
def test_the_heading_and_the_names_on_the_page(title, runs, tmp_path):
  models = load_models(runs[:1], tmp_path)
  queue = JobQueue(QUEUE)
  app = make_app(models, queue, Limits(), tmp_path, PORT, title)
  _, _, body = Client(app, queue).ask('GET', '/')
  page = pages.Page(body.decode())
  for tag in ('title', 'h1'):
    assert page.texts(tag) == [title or 'Translate images']
  (about,) = [e[1] for e in page.elements if e[1].get('id') == 'about']
  assert ('hidden' in about) == bool(title)
  assert page.data['models'][0]['names'] == {'a': 'horse', 'b': 'zebra'}


def reason(answer):
  return json.loads(answer[2])['error']


@pytest.mark.parametrize(
  ('query', 'run', 'direction'),
  [
    ('direction=ab', 0, 'ab'),
    ('model=1&direction=ba', 1, 'ba'),
    ('direction=ab&job=../../x', 0, 'ab'),
  ],
)
def test_the_translation_is_the_translators(
  client, runs, query, run, direction
):
  status, headers, body = client.translate(IMAGE, query)
  assert (status, headers['content-type']) == (200, 'image/png')
  expected = load_translator(runs[run], direction)(PIXELS)
  np.testing.assert_array_equal(pages.decode(body), expected)


def test_files_are_translated_as_by_the_command(client, runs, tmp_path):
  files = {
    'alpha.png': pages.encode(noise(17, 23, 4)),
    '16_bits.png': pages.encode(noise(17, 23, dtype=np.uint16)),
    'tiff.tif': pages.encode(noise(17, 23, 3), 'TIFF'),
  }
  (tmp_path / 'in').mkdir()
  for name, data in files.items():
    (tmp_path / 'in' / name).write_bytes(data)
  options = Options(file_format='png')
  translate_files(runs[0], [tmp_path / 'in'], tmp_path / 'out', options)
  for name, data in files.items():
    expected = (tmp_path / 'out' / name).with_suffix('.png').read_bytes()
    assert client.translate(data)[2] == expected


def test_floats_come_as_tiff_and_have_a_preview(client, runs):
  status, headers, made = client.translate(IMAGE, 'model=2&direction=ab')
  assert (status, headers['content-type']) == (200, 'image/tiff')
  path = '/preview?model=2&domain=b'
  status, headers, preview = client.ask('POST', path, made, BYTES)
  assert (status, headers['content-type']) == (200, 'image/png')
  floats = (PIXELS.astype(np.float32) * 2 - 255) / 255
  expected = (load_translator(runs[2], 'ab')(floats) + 1) * 127.5
  np.testing.assert_allclose(pages.decode(preview), expected, atol=0.51)
  assert client.translate(made, 'model=2&direction=ba')[0] == 200


def test_the_page_loads_nothing_from_elsewhere(client):
  status, headers, body = client.ask('GET', '/')
  assert status == 200
  policy = headers['content-security-policy']
  assert policy.startswith("default-src 'none'; script-src 'self'; ")
  assert 'unsafe' not in policy
  assert headers['x-content-type-options'] == 'nosniff'
  assert headers['cache-control'] == 'no-store'
  page = pages.Page(body.decode())
  assert page.texts('option') == ['first', '<b>second', 'floats']
  for _, attrs, _ in page.elements:
    for url in {attrs.get('href'), attrs.get('src')} - {None}:
      assert re.fullmatch(r'[a-z]+\.[a-z]+', url)
      status, _, part = client.ask('GET', f'/{url}')
      assert status == 200
      addresses = set(re.findall(b'https?://[^\'"]+', part))
      assert addresses <= {b'http://www.w3.org/2000/svg'}


def png_of_size(side):
  """A PNG file of a kilobyte that claims to be of any size."""

  def chunk(kind, content):
    crc = struct.pack('>I', zlib.crc32(kind + content))
    return struct.pack('>I', len(content)) + kind + content + crc

  header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
  return (
    b'\x89PNG\r\n\x1a\n'
    + chunk(b'IHDR', header)
    + chunk(b'IDAT', zlib.compress(bytes(10**5)))
    + chunk(b'IEND', b'')
  )


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
BAD_IMAGES = {
  'svg': (SVG, 415),
  'tga': (pages.encode(PIXELS, 'TGA'), 415),
  'empty': (b'', 415),
  'cut': (IMAGE[:-300], 422),
  'cut_jpeg': (pages.encode(PIXELS, 'JPEG')[:200], 422),
  'only_header': (IMAGE[:40], 415),
  'huge_size': (png_of_size(60_000), 413),
  'too_large': (png_of_size(513), 413),
  'too_few_pixels': (png_of_size(512), 422),
  'nan': (pages.encode(np.full((9, 9), np.nan, np.float32), 'TIFF'), 422),
}


@pytest.mark.parametrize('name', BAD_IMAGES)
def test_bad_images_are_refused(client, name):
  data, status = BAD_IMAGES[name]
  answer = client.translate(data)
  assert answer[0] == status
  assert 'Traceback' not in reason(answer)
  assert '/tmp' not in reason(answer)


@pytest.mark.parametrize(
  'query',
  [
    'direction=ab&model=3',
    'direction=ab&model=-1',
    'direction=ab&model=../../etc/passwd',
    'direction=ab&model=%D9%A1',  # a digit, but not an ASCII one
    'direction=aa',
    '',
  ],
)
def test_unknown_models_and_directions(client, query):
  assert client.translate(IMAGE, query)[0] == 404


@pytest.mark.parametrize(
  ('headers', 'status'),
  [
    ({'Host': 'evil.example'}, 421),
    ({'Host': '127.0.0.1'}, 421),
    ({'Host': f'localhost.evil.example:{PORT}'}, 421),
    ({'Host': f'LOCALHOST:{PORT}'}, 200),
    ({'Origin': 'null'}, 403),
    ({'Origin': 'http://127.0.0.1:1'}, 403),
    ({'Origin': f'https://127.0.0.1:{PORT}'}, 403),
    ({'Origin': f'http://localhost:{PORT}'}, 403),  # unlike the host
    ({'Origin': f'http://127.0.0.1:{PORT}'}, 200),
    ({'Sec-Fetch-Site': 'same-site'}, 403),
    ({'Content-Type': 'text/plain'}, 415),
    ({'Content-Type': 'multipart/form-data; boundary=x'}, 415),
    ({'Content-Type': 'image/jpeg'}, 200),
  ],
)
def test_pages_of_other_sites_are_refused(client, headers, status):
  answer = client.translate(IMAGE, headers=BYTES | headers)
  assert answer[0] == status
  assert not [name for name in answer[1] if 'access-control' in name]


def test_other_hosts_and_methods_read_nothing(client):
  for path in ('/', '/status', '/page.js'):
    assert client.ask('GET', path, headers={'Host': 'a.example'})[0] == 421
  preflight = {
    'Origin': 'http://evil.example',
    'Access-Control-Request-Method': 'POST',
  }
  assert client.ask('OPTIONS', '/translate', headers=preflight)[0] == 403
  assert client.ask('GET', '/translate')[0] == 405
  assert client.ask('GET', '/../../etc/passwd')[0] == 404


def test_too_many_bytes(client):
  length = {'Content-Length': str(2**26 + 1)}
  assert client.translate(b'', headers=BYTES | length)[0] == 413
  chunks = [*[bytes(2**20)] * 64, b'x']  # of no known length
  path = '/translate?direction=ab'
  assert asyncio.run(client.request('POST', path, chunks, BYTES))[0] == 413


@pytest.mark.parametrize(
  ('name', 'dtype', 'channels'), [('x.png', 'uint16', 4), ('x.tif', 'f4', 3)]
)
def test_the_largest_translation_can_be_sent_back(
  tmp_path, name, dtype, channels
):
  side = 512
  pixels = noise(side, side, channels, dtype=np.uint32)  # does not compress
  pixels = pixels / 2**16 if dtype == 'uint16' else pixels / 2**32
  write_photo(str(tmp_path / name), pixels.astype(dtype))
  num_bytes = (tmp_path / name).stat().st_size
  limits = Limits()
  assert num_bytes * limits.max_pixels / side**2 <= limits.max_bytes


def test_a_full_queue_and_clients_that_leave(client):
  """Places are taken before the body arrives, and freed with the client."""
  path = '/translate?direction=ab'

  async def run():
    leave = asyncio.Event()
    requests = [
      asyncio.create_task(
        client.request('POST', f'{path}&job={i:032x}', [], BYTES, leave)
      )
      for i in range(QUEUE)
    ]
    while len(client.queue) < QUEUE:
      await asyncio.sleep(0.01)
    status, headers, _ = await client.request('POST', path, [IMAGE], BYTES)
    assert status == 503
    assert int(headers['retry-after']) > 0
    _, _, body = await client.request('GET', f'/status?job={2:032x}')
    facts = json.loads(body)
    assert facts['queue'] == QUEUE
    assert facts['job'] == {'ahead': 0, 'running': False, 'share': None}
    leave.set()
    await asyncio.gather(*requests)

  asyncio.run(run())
  assert len(client.queue) == 0
  assert client.translate(IMAGE)[0] == 200


def test_a_body_that_does_not_arrive(make_client):
  client = make_client(body_seconds=0.05)

  async def run():
    path, never = '/translate?direction=ab', asyncio.Event()
    return await client.request('POST', path, [b'x'], BYTES, never)

  assert asyncio.run(run())[0] == 408
  assert len(client.queue) == 0


def test_a_translation_that_takes_too_long(make_client):
  client = make_client(work_seconds=0.01)
  image = pages.encode(noise(300, 308, 3))  # of a size that is not compiled
  assert client.translate(image)[0] == 504
  wait_until(lambda: len(client.queue) == 0)


def wait_until(is_true, seconds=60):
  end = time.monotonic() + seconds
  while not is_true():
    assert time.monotonic() < end
    time.sleep(0.02)


def test_the_job_queue():
  async def run():
    queue = JobQueue(2)
    done = []

    async def do(job, name, seconds=0.0):
      with job:
        return await job.run(
          lambda: (time.sleep(seconds), done.append(name)),
          disconnected=asyncio.Event().wait(),
          seconds=0.1 if name == 'long' else 60,
        )

    jobs = [queue.enter('first'), queue.enter('second')]
    with pytest.raises(FullError):
      queue.enter()
    are_submitted = threading.Event()
    queue.run_when_idle(
      [are_submitted.wait, lambda: 1 / 0, lambda: done.append('idle')]
    )
    running = asyncio.gather(*map(do, jobs, ('first', 'second'), (0.3, 0)))
    while max(job.number for job in jobs) > 1:
      await asyncio.sleep(0)
    assert [queue.find(job.name)[0] for job in jobs] == [0, 1]
    are_submitted.set()
    await running
    assert len(queue) == 0
    while queue.num_idle_tasks_done < queue.num_idle_tasks:
      await asyncio.sleep(0.01)
    assert done == ['first', 'second', 'idle']
    with pytest.raises(TimeLimitError):
      await do(queue.enter(), 'long', 0.6)
    assert len(queue) == 1  # the thread is not free yet
    with pytest.raises(DisconnectedError), queue.enter() as job:
      await job.run(list, disconnected=asyncio.sleep(0), seconds=9)
    queue.close()

  asyncio.run(run())


def test_a_port_that_is_taken_and_a_folder_without_a_checkpoint(tmp_path):
  with socket.create_server(('127.0.0.1', 0)) as other:
    port = other.getsockname()[1]
    with pytest.raises(UserError, match=f'port {port} .* --port'):
      serve([tmp_path], port=port, limits=Limits(), on_start=print)
  with pytest.raises(WorkdirError, match=str(tmp_path)):
    serve([tmp_path], port=0, limits=Limits(), on_start=print)


# The process.


class Server:
  """A process that serves, and a client of it."""

  def __init__(self, process):
    self.process = process
    line = process.stdout.readline()
    match = re.match(r'http://127\.0\.0\.1:(\d+) ', line)
    assert match, line
    self.port = int(match[1])
    self.host = f'127.0.0.1:{self.port}'

  def ask(self, method, path, body=None, headers=None):
    """(status, headers, body)"""
    connection = http.client.HTTPConnection(self.host, timeout=60)
    with contextlib.closing(connection):
      connection.request(method, path, body, headers or {})
      response = connection.getresponse()
      return response.status, response.headers, response.read()

  def translate(self, body):
    return self.ask('POST', '/translate?direction=ab', body, BYTES)

  def queue_length(self):
    return json.loads(self.ask('GET', '/status')[2])['queue']

  def most_memory(self):
    """The most bytes that it ever had."""
    text = pathlib.Path(f'/proc/{self.process.pid}/status').read_text()
    return int(re.search(r'VmHWM:\s+(\d+) kB', text)[1]) * 1024


@contextlib.contextmanager
def serving(runs, *options, **popen_options):
  command = [sys.executable, '-m', 'cyclegan_jax', 'serve', *map(str, runs)]
  with subprocess.Popen(
    [*command, '--port=0', *options],
    stdout=subprocess.PIPE,
    text=True,
    **popen_options,
  ) as process:
    try:
      yield Server(process)
    finally:
      process.terminate()


@pytest.fixture(scope='module')
def server(runs):
  limits = [f'--max-pixels={MAX_PIXELS}', f'--queue={QUEUE}']
  with serving(runs, *limits) as server:
    yield server


@pytest.mark.process
def test_two_hundred_requests_at_once(server):
  expected = server.translate(IMAGE)[2]
  memory = server.most_memory()
  # Decoders ignore what follows the image; it would be a gigabyte in memory.
  body = IMAGE + bytes(5 * 2**20)
  with concurrent.futures.ThreadPoolExecutor(200) as pool:
    answers = list(pool.map(lambda _: server.translate(body), range(200)))
  statuses = [status for status, _, _ in answers]
  assert set(statuses) == {200, 503}
  assert statuses.count(200) >= QUEUE
  assert {body for status, _, body in answers if status == 200} == {expected}
  assert server.most_memory() - memory < 200 * 2**20
  assert server.queue_length() == 0
  assert server.translate(IMAGE)[0] == 200


@pytest.mark.process
def test_huge_headers(server):
  for name, value in (('X-Long', 'x' * 10**6), ('Cookie', 'a=1; ' * 10**5)):
    with contextlib.suppress(ConnectionError):
      assert server.ask('GET', '/', headers={name: value})[0] == 400
  assert server.ask('GET', '/')[0] == 200


@pytest.fixture(scope='module')
def hasty_port(runs):
  """Port of a server that gives connections one second."""
  code = (
    'import pathlib, sys\n'
    'from cyclegan_jax.serve.limits import Limits\n'
    'from cyclegan_jax.serve.server import serve\n'
    'show = lambda url: print(url, "", flush=True)\n'
    'path = pathlib.Path(sys.argv[1])\n'
    'serve([path], port=0, limits=Limits(header_seconds=1), on_start=show)\n'
  )
  command = [sys.executable, '-c', code, str(runs[0])]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
    yield Server(process).port
    process.terminate()


@pytest.mark.process
@pytest.mark.parametrize(
  'sent', [b'', b'GET / HTTP/1.1\r\nX-A: ', b'GET /status HTTP/1.1\r\n\r\nGET']
)
def test_a_connection_without_progress_is_closed(hasty_port, sent):
  with socket.create_connection(('127.0.0.1', hasty_port), 20) as connection:
    begin = time.monotonic()
    connection.sendall(sent)
    connection.settimeout(0.1)
    with contextlib.suppress(ConnectionError):
      while time.monotonic() < begin + 20:
        try:
          if not connection.recv(2**16):
            break
        except TimeoutError:
          connection.sendall(b'x' if sent else b'')  # a byte now and then
    assert time.monotonic() - begin < 10


@pytest.mark.process
@pytest.mark.usefixtures('hangup')
@pytest.mark.parametrize(
  'number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
)
def test_a_signal_ends_the_server(runs, tmp_path, number):
  env = {**os.environ, 'TMPDIR': str(tmp_path)}
  image = pages.encode(np.zeros((900, 900, 3), np.uint8))
  with (
    serving(runs[:1], stderr=subprocess.PIPE, env=env) as server,
    socket.create_connection(('127.0.0.1', server.port)) as connection,
  ):
    assert list(tmp_path.iterdir())
    headers = (
      f'POST /translate?direction=ab HTTP/1.1\r\nHost: {server.host}\r\n'
      f'Content-Type: image/png\r\nContent-Length: {len(image)}\r\n\r\n'
    )
    connection.sendall(headers.encode() + image)
    wait_until(lambda: server.queue_length() == 1)
    server.process.send_signal(number)
    _, printed = server.process.communicate(timeout=30)
  assert server.process.returncode == 128 + number
  assert printed == 'stopped\n'
  assert not list(tmp_path.iterdir())


# The page in a browser.


@pytest.fixture(scope='module')
def browser():
  with pages.chromium('--disable-gpu') as browser:
    yield browser


@pytest.fixture
def page(browser, server):
  with pages.open_page(browser, f'http://{server.host}/') as page:
    yield page


@pytest.fixture(scope='module')
def expected(server):
  """Translations of PIXELS by model and direction: the server's own."""

  def translate(model, direction, image=IMAGE):
    query = f'/translate?model={model}&direction={direction}'
    return server.ask('POST', query, image, BYTES)[2]

  back = translate(0, 'ba', translate(0, 'ab'))
  return {
    'ab': pages.decode(translate(0, 'ab')),
    'aba': pages.decode(back),
    'second': pages.decode(translate(1, 'ba')),
  }


@pytest.mark.browser
def test_the_page_shows_and_saves_translations(page, expected):
  pages.choose_files(page, {'horse.png': IMAGE})
  page.wait_for_selector('.slider .after img')
  before, after = (
    pages.pixels_of(page, f'.slider .{side} img')
    for side in ('before', 'after')
  )
  np.testing.assert_array_equal(before, PIXELS)
  np.testing.assert_array_equal(after, expected['ab'])
  name, data = pages.download(page)
  assert name == 'horse_ab.png'
  np.testing.assert_array_equal(pages.decode(data), expected['ab'])

  page.get_by_role('button', name='All').click()
  page.locator('#stage figure').nth(2).wait_for()
  back = pages.pixels_of(page, '#stage .cell:nth-child(3) img')
  np.testing.assert_array_equal(back, expected['aba'])

  page.get_by_role('button', name='Compare').click()
  page.get_by_label('From zebra to horse').check()
  page.wait_for_selector('.slider .after img[alt^="Translated (horse)"]')
  url = page.get_attribute('#download', 'href')
  page.get_by_label('Checkpoint').select_option('<b>second')
  page.wait_for_selector(f'#download[href]:not([href="{url}"])')
  page.wait_for_selector('.slider .after img')
  after = pages.pixels_of(page, '.slider .after img')
  np.testing.assert_array_equal(after, expected['second'])
  assert pages.download(page)[0] == 'horse_ba.png'


@pytest.mark.browser
def test_the_page_by_keyboard(page):
  pages.choose_files(page, {'a.png': IMAGE})
  page.wait_for_selector('.slider .after img')
  slider = page.get_by_role('slider')
  slider.focus()
  page.keyboard.press('Home')
  assert slider.get_attribute('aria-valuetext') == '0 % of the input'
  page.keyboard.press('ArrowRight')
  assert slider.input_value() == '1'
  page.keyboard.press('2')
  page.wait_for_selector('.slider .after img[alt^="Back again (horse)"]')
  page.get_by_label('From horse to zebra').focus()
  page.keyboard.press('ArrowRight')
  assert page.get_by_label('From zebra to horse').is_checked()
  page.wait_for_selector('.slider .after img[alt^="Back again (zebra)"]')
  page.get_by_role('button', name='Remove a.png').press('Enter')
  assert page.locator('#work').is_hidden()


@pytest.mark.browser
def test_tiffs_floats_and_bad_files_on_the_page(page):
  page.get_by_label('Checkpoint').select_option('floats')
  files = {'a.tif': pages.encode(PIXELS, 'TIFF'), 'evil.svg': SVG}
  pages.choose_files(page, files | {'cut.png': IMAGE[:-300]})
  page.wait_for_selector('.slider .after img')
  before = pages.pixels_of(page, '.slider .before img')
  np.testing.assert_array_equal(before, PIXELS)
  name, data = pages.download(page)
  assert name == 'a_ab.tif'
  assert data[:2] == b'II'
  page.locator('.thumb.failed').nth(1).wait_for()
  page.get_by_role('button', name='evil.svg', exact=True).click()
  assert page.get_by_role('alert').is_visible()
  assert page.get_by_role('button', name='Try again').is_hidden()


@pytest.mark.browser
def test_images_are_dropped_pasted_and_taken_with_the_camera(page):
  page.evaluate(pages.DROP_AND_PASTE, list(IMAGE))
  page.locator('.thumb.done').nth(1).wait_for()
  pages.take_picture(page)
  page.get_by_role('button', name='camera 3.png', exact=True).wait_for()
  assert page.locator('#images li').count() == 3


@pytest.mark.browser
def test_the_page_of_a_server_that_is_gone(browser, runs):
  with serving(runs[:1]) as server:
    page = browser.new_page()
    page.goto(f'http://{server.host}/')
    server.process.terminate()
    server.process.wait()
  pages.choose_files(page, {'a.png': IMAGE})
  page.get_by_role('button', name='Try again').wait_for()
  assert page.get_by_role('alert').is_visible()
  page.wait_for_selector('#state.lost')
  page.close()
