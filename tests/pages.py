"""What the tests of HTML pages share: a parser, images and a browser."""

import contextlib
import html.parser
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

_VOID_TAGS = {'meta', 'img', 'input', 'link', 'br'}
_CAMERA_FLAGS = (
  '--use-fake-device-for-media-stream',
  '--use-fake-ui-for-media-stream',
)
DROP_AND_PASTE = """
  async bytes => {
    for (const kind of ['drop', 'paste']) {
      const transfer = new DataTransfer();
      transfer.items.add(new File([new Uint8Array(bytes)], kind + '.png'));
      dispatchEvent(kind === 'drop'
        ? new DragEvent(kind, { dataTransfer: transfer, cancelable: true })
        : new ClipboardEvent(kind, { clipboardData: transfer }));
    }
  }"""
_READ_PIXELS = """
  img => {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [img.naturalWidth, img.naturalHeight];
    const context = canvas.getContext('2d');
    context.drawImage(img, 0, 0);
    return [canvas.width, canvas.height, Array.from(
      context.getImageData(0, 0, canvas.width, canvas.height).data)];
  }"""


class Page(html.parser.HTMLParser):
  """Elements with their texts; fails on a tag that is not closed in order."""

  def __init__(self, text):
    super().__init__()
    self.elements = []  # (tag, attributes, texts)
    self.open = []
    self.feed(text)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs), []))
    if tag not in _VOID_TAGS:
      self.open.append(self.elements[-1])

  def handle_startendtag(self, tag, attrs):
    self.elements.append((tag, dict(attrs), []))

  def handle_endtag(self, tag):
    assert self.open.pop()[0] == tag

  def handle_data(self, data):
    for _, _, texts in self.open:
      texts.append(data)

  def texts(self, tag, **attrs):
    """The texts of the elements that have these attributes."""
    return [
      ''.join(texts)
      for name, element_attrs, texts in self.elements
      if name == tag and attrs.items() <= element_attrs.items()
    ]

  @property
  def data(self):
    """The data of the page's script."""
    (text,) = self.texts('script', id='data')
    return json.loads(text, parse_constant=pytest.fail)


def encode(pixels, kind='PNG', **options):
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, kind, **options)
  return file.getvalue()


def decode(data):
  with Image.open(io.BytesIO(data)) as image:
    return np.asarray(image)


@contextlib.contextmanager
def chromium(*flags):
  """A browser with a camera; skips the test where there is none."""
  sync_api = pytest.importorskip(
    'playwright.sync_api', reason='needs Playwright'
  )
  with (
    sync_api.sync_playwright() as playwright,
    launch(playwright.chromium, *flags) as browser,
  ):
    yield browser


def launch(browser_type, *flags):
  """Starts Chromium; `browser.browser_type` starts another in one process."""
  path = shutil.which('chromium')
  if not path:
    pytest.skip('needs Chromium')
  flags = ('--no-sandbox', '--disable-quic', *_CAMERA_FLAGS, *flags)
  return browser_type.launch(executable_path=path, args=flags)


@contextlib.contextmanager
def open_page(browser, url):
  """A page, which may not log errors or load anything from elsewhere."""
  context = browser.new_context(permissions=['camera'])
  page = context.new_page()
  page.set_default_timeout(60_000)
  problems, urls = [], []
  page.on('pageerror', lambda error: problems.append(str(error)))
  page.on(
    'console',
    lambda message: (
      message.type == 'error'
      and 'status of 4' not in message.text
      and problems.append(message.text)
    ),
  )
  context.on('request', lambda request: urls.append(request.url))
  page.goto(url)
  yield page
  context.close()
  assert not problems
  assert urls
  assert all(each.startswith((url, f'blob:{url}', 'data:')) for each in urls)


def choose_files(page, files):
  """Chooses files, a dict of contents by name."""
  page.set_input_files(
    '#files',
    [
      {'name': name, 'mimeType': 'image/png', 'buffer': data}
      for name, data in files.items()
    ],
  )


def download(page):
  """The name and the content of the translated file."""
  page.locator('#download[href], #error:not([hidden])').first.wait_for()
  assert not page.is_visible('#error'), page.inner_text('#error')
  with page.expect_download() as event:
    page.click('#download')
  return event.value.suggested_filename, event.value.path().read_bytes()


def take_picture(page):
  """Takes a picture with the browser's fake camera."""
  page.get_by_role('button', name='Use the camera').click()
  page.wait_for_selector('#take-picture:enabled')
  page.locator('#camera video').evaluate(
    """async video => {
      while (!video.videoWidth)
        await new Promise(done => setTimeout(done, 20));
    }"""
  )
  page.get_by_role('button', name='Take the picture').click()


def pixels_of(page, selector):
  """The pixels of a picture as the browser has them: [h, w, 3]."""
  width, height, values = page.locator(selector).evaluate(_READ_PIXELS)
  return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]
