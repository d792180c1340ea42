"""The page that translates: a real process, real clients, a real browser."""

import asyncio
import concurrent.futures
import contextlib
import http.client
import io
import json
import os
import pathlib
import re
import shutil
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
import pytest
from PIL import Image

from cyclegan_jax.config import Config
from cyclegan_jax.media.image_files import write_photo
from cyclegan_jax.state import create_train_state
from cyclegan_jax.storage import checkpoint

pytest.importorskip('uvicorn', reason='needs the extra `serve`')
pytest.importorskip('starlette', reason='needs the extra `serve`')

from cyclegan_jax.serve.limits import Limits
from cyclegan_jax.serve.queue import FullError, GoneError, Queue, TooLongError

CHROMIUM = shutil.which('chromium')
MAX_PIXELS = 2**18
QUEUE = 4
RESNET = Config().replace(
  data={'size': 16, 'load_size': 16},
  generator={'name': 'resnet', 'filters': 2, 'blocks': 1, 'dropout': 0.0},
  discriminator={'filters': 2, 'layers': 1},
)
BYTES = {'Content-Type': 'application/octet-stream'}


def save_run(folder, config, seed=0):
  state = create_train_state(config, jax.random.key(seed))
  with checkpoint.Saver(folder / 'checkpoints', config) as saver:
    saver.save(state)
  return folder


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs')
  floats = RESNET.replace(
    data={'dtype_b': 'float32', 'low_b': 0.0, 'high_b': 4.0}
  )
  return [
    save_run(folder / 'first', RESNET),
    save_run(folder / '<b>second', RESNET, seed=1),
    save_run(folder / 'floats', floats),
  ]


class Server:
  """A process that serves, and a client of it."""

  def __init__(self, process):
    self.process = process
    line = process.stdout.readline()
    match = re.match(r'http://127\.0\.0\.1:(\d+) ', line)
    assert match, line
    self.port = int(match[1])
    self.host = f'127.0.0.1:{self.port}'

  def ask(self, method, path, body=None, headers=None, **options):
    """(status, headers, body)"""
    connection = http.client.HTTPConnection(self.host, timeout=60)
    with contextlib.closing(connection):
      connection.request(method, path, body, headers or {}, **options)
      answer = connection.getresponse()
      return answer.status, answer.headers, answer.read()

  def translate(self, body, query='direction=ab', headers=BYTES):
    return self.ask('POST', f'/translate?{query}', body, headers)

  def status(self):
    return json.loads(self.ask('GET', '/status')[2])

  def memory(self):
    """The most that it ever had, in bytes."""
    text = pathlib.Path(f'/proc/{self.process.pid}/status').read_text()
    return int(re.search(r'VmHWM:\s+(\d+) kB', text)[1]) * 1024


@contextlib.contextmanager
def serving(command, **options):
  with subprocess.Popen(
    list(map(str, command)), stdout=subprocess.PIPE, text=True, **options
  ) as process:
    try:
      yield Server(process)
    finally:
      process.terminate()  # its files go with it


def command(*argv):
  return [sys.executable, '-m', 'cyclegan_jax', 'serve', *argv]


@pytest.fixture(scope='module')
def server(runs):
  options = ['--port=0', f'--max-pixels={MAX_PIXELS}', f'--queue={QUEUE}']
  with serving(command(*runs, *options)) as found:
    yield found


def noise(*shape, dtype=np.uint8, seed=0):
  full = np.iinfo(dtype).max
  return np.random.default_rng(seed).integers(0, full, shape, dtype=dtype)


def encoded(pixels, kind='PNG', **options):
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, kind, **options)
  return file.getvalue()


def decoded(data):
  with Image.open(io.BytesIO(data)) as image:
    return np.asarray(image)


def reason(answer):
  return json.loads(answer[2])['error']


def turned():
  exif = Image.Exif()
  exif[0x0112] = 6
  return encoded(noise(20, 28, 3), 'JPEG', exif=exif.tobytes())


PIXELS = noise(20, 28, 3)
IMAGE = encoded(PIXELS)
FILES = {
  'turned.jpg': turned(),
  'alpha.png': encoded(noise(17, 23, 4)),
  '16_bits.png': encoded(noise(17, 23, dtype=np.uint16)),
  'tiff.tif': encoded(noise(17, 23, 3), 'TIFF'),
  'webp.webp': encoded(noise(17, 23, 3), 'WEBP'),
}
# On the one device that the server has, too: eight share the work otherwise,
# and round otherwise.
OWN = """
import pathlib, sys
import numpy as np
from cyclegan_jax.translate.files import translate_files
from cyclegan_jax.translate.options import Options
from cyclegan_jax.translator import load_translator

folder, *runs = map(pathlib.Path, sys.argv[1:])
pixels = np.load(folder / 'pixels.npy')
floats = (pixels.astype(np.float32) * 2 - 255) / 255
ab, ba = (load_translator(runs[0], each) for each in ('ab', 'ba'))
second = load_translator(runs[1], 'ba')
np.savez(
  folder / 'own.npz',
  ab=ab(pixels),
  aba=ba(ab(pixels)),
  ba=ba(pixels),
  second=second(pixels),
  floats=load_translator(runs[2], 'ab')(floats),
)
options = Options(file_format='png')
made = translate_files(runs[0], [folder / 'in'], folder / 'out', options)
assert made.failed == []
"""


@pytest.fixture(scope='module')
def own(runs, tmp_path_factory):
  """What the translator makes of PIXELS, and the command of FILES."""
  folder = tmp_path_factory.mktemp('own')
  np.save(folder / 'pixels.npy', PIXELS)
  (folder / 'in').mkdir()
  for name, data in FILES.items():
    (folder / 'in' / name).write_bytes(data)
  subprocess.run(
    [sys.executable, '-c', OWN, folder, *runs], check=True, capture_output=True
  )
  with np.load(folder / 'own.npz') as arrays:
    made = {path.name: path.read_bytes() for path in folder.glob('out/*.png')}
    return dict(arrays) | made


# What comes out.


@pytest.mark.parametrize(
  'query, name',
  [
    ('direction=ab', 'ab'),
    ('model=0&direction=ba', 'ba'),
    ('model=1&direction=ba', 'second'),
  ],
)
def test_a_translation_is_the_translator_s_own(server, own, query, name):
  status, headers, body = server.translate(IMAGE, query)
  assert (status, headers['Content-Type']) == (200, 'image/png')
  np.testing.assert_array_equal(decoded(body), own[name])


@pytest.mark.parametrize('name', FILES)
def test_a_file_becomes_what_the_command_makes_of_it(server, own, name):
  status, _, body = server.translate(FILES[name])
  assert status == 200
  assert body == own[f'{name[: name.index(".")]}.png']


def test_floats_come_as_tiff_and_can_be_looked_at(server, own):
  status, headers, made = server.translate(IMAGE, 'model=2&direction=ab')
  assert (status, headers['Content-Type']) == (200, 'image/tiff')
  path = '/preview?model=2&domain=b'
  status, headers, shown = server.ask('POST', path, made, BYTES)
  assert (status, headers['Content-Type']) == (200, 'image/png')
  expected = (own['floats'] + 1) * 127.5
  np.testing.assert_allclose(decoded(shown), expected, atol=0.51)
  assert server.translate(made, 'model=2&direction=ba')[0] == 200


def test_the_page_holds_nothing_from_elsewhere(server):
  status, headers, body = server.ask('GET', '/')
  assert status == 200
  policy = headers['Content-Security-Policy']
  assert policy.startswith("default-src 'none'; script-src 'self'; ")
  assert 'unsafe' not in policy
  assert headers['X-Content-Type-Options'] == 'nosniff'
  assert headers['Cache-Control'] == 'no-store'
  text = body.decode()
  assert '&lt;b&gt;second' in text
  assert '<b>second' not in text
  for name in re.findall('(?:href|src)="([^"]+)"', text):
    assert re.fullmatch(r'/[a-z]+\.[a-z]+', name)
    status, _, part = server.ask('GET', name)
    assert status == 200
    found = set(re.findall(b'https?://[^\'"]+', part))
    assert found <= {b'http://www.w3.org/2000/svg'}


# What is refused.


def chunk(kind, content):
  crc = struct.pack('>I', zlib.crc32(kind + content))
  return struct.pack('>I', len(content)) + kind + content + crc


def bomb(side):
  """A PNG file of a kilobyte that claims to be of any size."""
  header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
  return (
    b'\x89PNG\r\n\x1a\n'
    + chunk(b'IHDR', header)
    + chunk(b'IDAT', zlib.compress(bytes(10**5)))
    + chunk(b'IEND', b'')
  )


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


@pytest.mark.parametrize(
  'data, status, told',
  [
    (SVG, 415, 'not a JPEG, PNG, WebP, BMP or TIFF image'),
    (b'<!doctype html><script>1</script>', 415, 'not a JPEG'),
    (encoded(PIXELS, 'GIF'), 415, 'not a JPEG'),
    (b'', 415, 'the file is empty'),
    (IMAGE[:-300], 422, ''),
    (encoded(PIXELS, 'JPEG')[:200], 422, ''),
    (IMAGE[:40], 415, 'not a JPEG'),
    (bomb(60_000), 413, 'too large: this server takes 262,144 pixels'),
    (bomb(513), 413, 'too large'),
    (bomb(512), 422, ''),
    (encoded(np.full((9, 9), np.nan, np.float32), 'TIFF'), 422, 'no range'),
  ],
  ids=[
    *('svg', 'html', 'gif', 'empty', 'cut_png', 'cut_jpeg', 'header_only'),
    *('bomb', 'too_large', 'hollow', 'nan'),
  ],
)
def test_bad_images_are_refused_and_the_next_is_translated(
  server, data, status, told
):
  answer = server.translate(data)
  assert answer[0] == status
  assert told in reason(answer)
  assert 'Traceback' not in reason(answer)
  assert '/tmp' not in reason(answer)
  assert server.translate(IMAGE)[0] == 200


@pytest.mark.parametrize(
  'query, status',
  [
    ('direction=ab&model=3', 404),
    ('direction=ab&model=-1', 404),
    ('direction=ab&model=../../etc/passwd', 404),
    ('direction=ab&model=%D9%A1', 404),
    ('direction=aa', 404),
    ('', 404),
    ('direction=ab&job=../../x', 200),
  ],
)
def test_queries(server, query, status):
  assert server.translate(IMAGE, query)[0] == status


@pytest.mark.parametrize(
  'headers, status',
  [
    ({'Host': 'evil.example'}, 421),
    ({'Host': '127.0.0.1'}, 421),
    ({'Host': 'localhost.evil.example:{port}'}, 421),
    ({'Host': 'LOCALHOST:{port}'}, 200),
    ({'Origin': 'http://evil.example'}, 403),
    ({'Origin': 'null'}, 403),
    ({'Origin': 'http://127.0.0.1:1'}, 403),
    ({'Origin': 'https://127.0.0.1:{port}'}, 403),
    ({'Origin': 'http://localhost:{port}'}, 403),  # of another host than asked
    ({'Origin': 'http://127.0.0.1:{port}'}, 200),
    ({'Sec-Fetch-Site': 'cross-site'}, 403),
    ({'Sec-Fetch-Site': 'same-site'}, 403),
    ({'Content-Type': 'text/plain'}, 415),
    ({'Content-Type': 'multipart/form-data; boundary=x'}, 415),
    ({'Content-Type': 'application/x-www-form-urlencoded'}, 415),
    ({'Content-Type': 'image/jpeg'}, 200),
  ],
)
def test_pages_of_other_sites_are_refused(server, headers, status):
  headers = {k: v.format(port=server.port) for k, v in headers.items()}
  answer = server.translate(IMAGE, headers=BYTES | headers)
  assert answer[0] == status
  assert not [each for each in answer[1] if 'access-control' in each.lower()]


def test_no_other_name_reads_anything(server):
  for path in ('/', '/status', '/page.js'):
    assert server.ask('GET', path, headers={'Host': 'a.example'})[0] == 421
  asked = {
    'Origin': 'http://evil.example',
    'Access-Control-Request-Method': 'POST',
  }
  status, headers, _ = server.ask('OPTIONS', '/translate', headers=asked)
  assert status == 403
  assert not [each for each in headers if 'access-control' in each.lower()]
  assert server.ask('GET', '/translate')[0] == 405
  assert server.ask('GET', '/../../etc/passwd')[0] == 404
  assert server.ask('GET', '/docs')[0] == 404


def test_too_many_bytes(server):
  answer = server.translate(bytes(2**26 + 1))
  assert answer[0] == 413
  assert '64 MB' in reason(answer)

  def chunks():
    for _ in range(65):
      yield bytes(2**20)
    yield b'x'

  answer = server.ask(
    'POST', '/translate?direction=ab', chunks(), BYTES, encode_chunked=True
  )
  assert answer[0] == 413
  # Of no length, and not too long.
  answer = server.ask(
    'POST', '/translate?direction=ab', iter([IMAGE[:50], IMAGE[50:]]), BYTES
  )
  assert answer[0] == 200


@pytest.mark.parametrize(
  'name, dtype, channels',
  [('x.png', np.uint8, 3), ('x.png', np.uint16, 4), ('x.tif', np.float32, 3)],
)
def test_what_was_translated_may_be_sent_back(tmp_path, name, dtype, channels):
  """The way back of the largest image, of noise, which no format shrinks."""
  side = 512
  pixels = noise(side, side, channels, dtype=np.uint32)
  full = 2**32 / np.iinfo(dtype).max if dtype != np.float32 else 2**32
  write_photo(str(tmp_path / name), (pixels / full).astype(dtype))
  num_bytes = (tmp_path / name).stat().st_size
  limits = Limits()
  assert num_bytes * limits.max_pixels / side**2 <= limits.max_bytes


def test_huge_headers(server):
  for name, value in (('X-Long', 'x' * 10**6), ('Cookie', 'a=1; ' * 10**5)):
    with contextlib.suppress(ConnectionError):
      assert server.ask('GET', '/', headers={name: value})[0] == 400
  assert server.ask('GET', '/')[0] == 200


# Many at once.


def test_two_hundred_requests_at_once(server):
  expected = server.translate(IMAGE)[2]
  before = server.memory()
  # Decoders don't mind what follows; it would be a gigabyte in memory.
  body = IMAGE + bytes(5 * 2**20)
  with concurrent.futures.ThreadPoolExecutor(200) as pool:
    answers = list(pool.map(lambda _: server.translate(body), range(200)))
  statuses = [status for status, _, _ in answers]
  assert set(statuses) == {200, 503}
  assert statuses.count(200) >= QUEUE
  for status, headers, content in answers:
    if status == 200:
      assert content == expected
    else:
      assert int(headers['Retry-After']) > 0
      assert 'try again' in json.loads(content)['error']
  assert server.memory() - before < 200 * 2**20
  assert server.status()['queue'] == 0
  assert server.translate(IMAGE)[0] == 200


def test_who_hangs_up_leaves_the_queue(server):
  held = []
  for index in range(QUEUE):
    connection = socket.create_connection(('127.0.0.1', server.port))
    job = f'&job={index:032x}'
    connection.sendall(request_of(server, len(IMAGE), job) + IMAGE[:-1])
    held.append(connection)
  wait_until(lambda: server.status()['queue'] == QUEUE)
  assert server.translate(IMAGE)[0] == 503
  job = json.loads(server.ask('GET', f'/status?job={2:032x}')[2])['job']
  assert job == {'ahead': 0, 'running': False, 'share': None}
  for connection in held:
    connection.close()
  wait_until(lambda: server.status()['queue'] == 0)
  assert server.translate(IMAGE)[0] == 200


def request_of(server, num_bytes, query=''):
  """What comes before the image."""
  return (
    f'POST /translate?direction=ab{query} HTTP/1.1\r\nHost: {server.host}\r\n'
    f'Content-Type: image/png\r\nContent-Length: {num_bytes}\r\n\r\n'
  ).encode()


def wait_until(is_true, seconds=20):
  end = time.monotonic() + seconds
  while not is_true():
    assert time.monotonic() < end
    time.sleep(0.02)


# Who is slow.


@pytest.fixture(scope='module')
def hasty(runs):
  """A server without patience."""
  code = (
    'import pathlib, sys\n'
    'from cyclegan_jax.serve.limits import Limits\n'
    'from cyclegan_jax.serve.server import serve\n'
    'limits = Limits(header_seconds=1, body_seconds=1, work_seconds=0.01)\n'
    'tell = lambda address: print(address, "", flush=True)\n'
    'paths = [pathlib.Path(sys.argv[1])]\n'
    'serve(paths, port=0, limits=limits, on_start=tell)\n'
  )
  with serving([sys.executable, '-c', code, runs[0]]) as found:
    yield found


@pytest.mark.parametrize(
  'sent', [b'', b'GET / HTTP/1.1\r\nX-A: ', b'GET /status HTTP/1.1\r\n\r\nGET']
)
def test_a_connection_that_does_not_get_on_is_closed(hasty, sent):
  with socket.create_connection(('127.0.0.1', hasty.port), 20) as connection:
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


def test_a_body_that_does_not_come(hasty):
  with socket.create_connection(('127.0.0.1', hasty.port), 30) as connection:
    connection.sendall(request_of(hasty, 99) + b'x')
    answer = connection.makefile('rb').readline()
  assert b' 408 ' in answer
  assert hasty.status()['queue'] == 0


def test_a_translation_that_takes_too_long(hasty):
  image = encoded(noise(1500, 1500, 3))  # of a size that is not compiled
  answer = hasty.translate(image)
  assert answer[0] == 504
  assert reason(answer) == 'it took longer than 0.01 seconds'
  wait_until(lambda: hasty.status()['queue'] == 0, 60)


def test_the_queue_itself():
  async def run():
    queue = Queue(2)
    done = []

    async def never():
      await asyncio.Event().wait()

    async def take(job, name, seconds=0.0):
      with job:
        return await job.run(
          lambda: (time.sleep(seconds), done.append(name)),
          gone=never(),
          seconds=0.1 if name == 'long' else 60,
        )

    jobs = [queue.enter('first'), queue.enter('second')]
    with pytest.raises(FullError):
      queue.enter()
    both = threading.Event()
    queue.use_idle([both.wait, lambda: 1 / 0, lambda: done.append('idle')])
    taken = asyncio.gather(*map(take, jobs, ('first', 'second'), (0.3, 0)))
    while max(job.number for job in jobs) > 1:
      await asyncio.sleep(0)
    assert [queue.find(job.name)[0] for job in jobs] == [0, 1]
    both.set()
    await taken
    assert len(queue) == 0
    while queue.num_idle_done < queue.num_idle:
      await asyncio.sleep(0.01)
    assert done == ['first', 'second', 'idle']
    with pytest.raises(TooLongError):
      await take(queue.enter(), 'long', 0.6)
    assert len(queue) == 1  # the thread is not free yet
    with pytest.raises(GoneError), queue.enter() as job:
      await job.run(list, gone=asyncio.sleep(0), seconds=9)
    queue.close()

  asyncio.run(run())


# The process.


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(runs, tmp_path, number):
  with serving(
    command(runs[0], '--port=0'),
    stderr=subprocess.PIPE,
    env={**os.environ, 'TMPDIR': str(tmp_path)},
  ) as server:
    assert list(tmp_path.iterdir())
    with socket.create_connection(('127.0.0.1', server.port)) as connection:
      image = encoded(np.zeros((900, 900, 3), np.uint8))
      connection.sendall(request_of(server, len(image)) + image)
      wait_until(lambda: server.status()['queue'] == 1)
      server.process.send_signal(number)
      _, told = server.process.communicate(timeout=30)
  assert server.process.returncode == 128 + number
  assert told == 'stopped\n'
  assert not list(tmp_path.iterdir())


def test_a_port_that_is_taken(server, runs):
  found = subprocess.run(
    command(runs[0], f'--port={server.port}'), capture_output=True, text=True
  )
  assert found.returncode == 1
  assert found.stderr == (
    f'error: port {server.port} is in use: give another --port, or --port=0 '
    'for any that is free\n'
  )


def test_no_checkpoint(tmp_path):
  found = subprocess.run(
    command(tmp_path, '--port=0'), capture_output=True, text=True
  )
  assert found.returncode == 1
  assert found.stderr.startswith(f'error: {tmp_path} holds no checkpoint')


# The page in a browser.


@pytest.fixture(scope='module')
def browser():
  sync_api = pytest.importorskip(
    'playwright.sync_api', reason='needs Playwright'
  )
  if not CHROMIUM:
    pytest.skip('needs Chromium')
  with sync_api.sync_playwright() as playwright:
    flags = ('--no-sandbox', '--disable-gpu', '--disable-quic')
    camera = (
      '--use-fake-device-for-media-stream',
      '--use-fake-ui-for-media-stream',
    )
    chromium = playwright.chromium.launch(
      executable_path=CHROMIUM, args=[*flags, *camera]
    )
    yield chromium
    chromium.close()


@pytest.fixture
def page(browser, server):
  """The page, which may ask no one else and complain of nothing."""
  context = browser.new_context(permissions=['camera'])
  page = context.new_page()
  page.set_default_timeout(30_000)
  problems = []
  page.on('pageerror', lambda error: problems.append(str(error)))
  page.on(
    'console',
    lambda message: (
      message.type in ('error', 'warning')
      and 'status of 4' not in message.text
      and problems.append(message.text)
    ),
  )
  asked = []
  page.on('request', lambda request: asked.append(request.url))
  page.goto(f'http://{server.host}/')
  yield page
  context.close()
  assert not problems
  own = (f'http://{server.host}/', f'blob:http://{server.host}/')
  assert all(url.startswith(own) for url in asked)


def put(page, *files):
  page.set_input_files(
    '#files',
    [
      {'name': name, 'mimeType': 'image/png', 'buffer': data}
      for name, data in files
    ],
  )


def downloaded(page):
  with page.expect_download() as found:
    page.click('#download[href]')
  return found.value.suggested_filename, found.value.path().read_bytes()


def drawn(page, selector):
  """The pixels of a picture as the browser has them."""
  width, height, pixels = page.eval_on_selector(
    selector,
    """img => {
      const canvas = document.createElement('canvas');
      canvas.width = img.naturalWidth;
      canvas.height = img.naturalHeight;
      const context = canvas.getContext('2d');
      context.drawImage(img, 0, 0);
      return [canvas.width, canvas.height, Array.from(
        context.getImageData(0, 0, canvas.width, canvas.height).data)];
    }""",
  )
  return np.array(pixels, np.uint8).reshape(height, width, 4)[..., :3]


def test_the_page_shows_and_saves_what_the_translator_makes(page, own):
  put(page, ('horse.png', IMAGE))
  page.wait_for_selector('.slider .after img')
  np.testing.assert_array_equal(drawn(page, '.slider .before img'), PIXELS)
  np.testing.assert_array_equal(drawn(page, '.slider .after img'), own['ab'])
  name, data = downloaded(page)
  assert name == 'horse_ab.png'
  np.testing.assert_array_equal(decoded(data), own['ab'])

  page.get_by_role('button', name='All').click()
  page.locator('#stage figure').nth(2).wait_for()
  np.testing.assert_array_equal(
    drawn(page, '#stage .cell:nth-child(3) img'), own['aba']
  )

  page.get_by_role('button', name='Compare').click()
  page.get_by_label('From B to A').check()
  page.wait_for_selector('.slider .after img[alt^="Translated (A)"]')
  before = page.get_attribute('#download', 'href')
  page.get_by_label('Checkpoint').select_option('<b>second')
  page.wait_for_selector(f'#download[href]:not([href="{before}"])')
  page.wait_for_selector('.slider .after img')
  np.testing.assert_array_equal(
    drawn(page, '.slider .after img'), own['second']
  )
  assert downloaded(page)[0] == 'horse_ba.png'


def test_by_keys_alone(page):
  put(page, ('a.png', IMAGE))
  page.wait_for_selector('.slider .after img')
  slider = page.get_by_role('slider')
  slider.focus()
  page.keyboard.press('Home')
  assert slider.get_attribute('aria-valuetext') == '0 % of the input'
  page.keyboard.press('ArrowRight')
  assert slider.input_value() == '1'
  page.keyboard.press('2')
  page.wait_for_selector('.slider .after img[alt^="Back again (A)"]')
  page.get_by_label('From A to B').focus()
  page.keyboard.press('ArrowRight')
  assert page.get_by_label('From B to A').is_checked()
  page.wait_for_selector('.slider .after img[alt^="Back again (B)"]')
  page.get_by_role('button', name='Remove a.png').press('Enter')
  assert page.locator('#work').is_hidden()


def test_tiffs_floats_and_bad_files_on_the_page(page):
  page.get_by_label('Checkpoint').select_option('floats')
  put(
    page,
    ('a.tif', encoded(PIXELS, 'TIFF')),
    ('evil.svg', SVG),
    ('cut.png', IMAGE[:-300]),
  )
  page.wait_for_selector('.slider .after img')
  np.testing.assert_array_equal(drawn(page, '.slider .before img'), PIXELS)
  name, data = downloaded(page)
  assert name == 'a_ab.tif'
  assert data[:2] == b'II'
  page.locator('.thumb.failed').nth(1).wait_for()
  page.get_by_role('button', name='evil.svg', exact=True).click()
  alert = page.get_by_role('alert')
  assert 'Not a JPEG' in alert.inner_text()
  assert page.get_by_role('button', name='Try again').is_hidden()


def test_dropped_pasted_and_taken_with_the_camera(page):
  page.evaluate(
    """async ([name, bytes]) => {
      for (const kind of ['drop', 'paste']) {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], kind + name));
        dispatchEvent(kind === 'drop'
          ? new DragEvent(kind, { dataTransfer: transfer, cancelable: true })
          : new ClipboardEvent(kind, { clipboardData: transfer }));
      }
    }""",
    ['.png', list(IMAGE)],
  )
  page.locator('.thumb.done').nth(1).wait_for()
  page.get_by_role('button', name='Use the camera').click()
  page.wait_for_selector('#shoot:enabled')
  time.sleep(0.3)
  page.get_by_role('button', name='Take the picture').click()
  page.get_by_role('button', name='camera 3.png', exact=True).wait_for()
  assert page.locator('#images li').count() == 3


def test_a_server_that_is_gone(browser, runs):
  with serving(command(runs[0], '--port=0')) as server:
    page = browser.new_page()
    page.goto(f'http://{server.host}/')
    server.process.terminate()
    server.process.wait()
  put(page, ('a.png', IMAGE))
  page.get_by_role('button', name='Try again').wait_for()
  assert 'The server does not answer.' in page.get_by_role('alert').inner_text()
  page.wait_for_selector('#state.lost')
  page.close()
