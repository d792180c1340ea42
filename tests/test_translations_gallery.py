"""The page of translations: every name, size and start of it."""

import html.parser
import json
import multiprocessing
import re
import shutil
import subprocess
import urllib.parse

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.report.translation_gallery import TranslationGallery

VOID = {'meta', 'img', 'input', 'link', 'br'}
HOSTILE = [
  '</script><script>alert(1)</script>.png',
  '"quotes\' & <b>.png',
  '100% #1?a=b&c.png',
  'line\nbreak\r\ttab\0.png',
  'two  spaces .png',
  '日本語/馬 🦓.png',
  '../../outside.png',
  '/absolute.png',
  'no utf-8 \udcff.png',
  '{{title}} {{data}}.png',
  'x' * 3000 + '.png',
  '<!--',
  '',
]


class Page(html.parser.HTMLParser):
  """What a browser would see; fails on a tag not closed in order."""

  def __init__(self, text: str):
    super().__init__()
    self.elements: list[tuple[str, dict, list[str]]] = []
    self.open: list[tuple[str, dict, list[str]]] = []
    self.feed(text)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs), []))
    if tag not in VOID:
      self.open.append(self.elements[-1])

  def handle_startendtag(self, tag, attrs):
    self.elements.append((tag, dict(attrs), []))

  def handle_endtag(self, tag):
    assert self.open.pop()[0] == tag

  def handle_data(self, data):
    for _, _, texts in self.open:
      texts.append(data)

  def texts(self, tag: str) -> list[str]:
    return [''.join(texts) for name, _, texts in self.elements if name == tag]

  @property
  def data(self) -> dict:
    (text,) = [
      ''.join(texts)
      for _, attrs, texts in self.elements
      if attrs.get('id') == 'data'
    ]
    return json.loads(text)

  @property
  def names(self) -> list[str]:
    return [entry[0] for entry in self.data['entries']]


def plain(*shape, value=128):
  return np.full(shape, value, np.uint8)


def make(folder, *, direction='ab', title='run', total=None):
  return TranslationGallery(
    folder, title=title, direction=direction, total=total
  )


def finish(gallery) -> Page:
  return Page(gallery.finish().read_text(encoding='utf-8'))


def pictures(page, folder, name):
  """Paths of an entry's preview and thumbnail, by role, as the script does."""
  data = page.data
  found = {}
  for other, key, sizes, _ in data['entries']:
    if other != name:
      continue
    for role, size in zip(data['roles'], sizes, strict=False):
      stem = folder / data['folder'] / key[:2] / f'{key}_{role}'
      small = max(size) <= data['thumbnail']
      found[role] = tuple(
        stem.with_name(stem.name + ('.png' if small else end))
        for end in ('.jpg', '_thumb.jpg')
      )
  return found


def test_pictures_of_an_entry(tmp_path):
  gallery = make(tmp_path / 'to' / 'here')
  gallery.add(
    'a.tif',
    plain(600, 1500, 3, value=(200, 30, 40)),
    plain(300, 200, 1, value=77),
    plain(20, 30, 3, value=(1, 2, 3)),
  )
  page = finish(gallery)
  ((name, _, sizes, kind),) = page.data['entries']
  assert (name, sizes) == ('a.tif', [[1500, 600], [200, 300], [30, 20]])
  assert kind == 'image'
  expected = {
    'source': ((1024, 410), (256, 102), (200, 30, 40), 'JPEG'),
    'translated': ((200, 300), (171, 256), (77, 77, 77), 'JPEG'),
    'back': ((30, 20), (30, 20), (1, 2, 3), 'PNG'),
  }
  found = pictures(page, tmp_path / 'to' / 'here', 'a.tif')
  assert list(found) == list(expected)
  for role, (preview, thumbnail, colour, kind) in expected.items():
    for path, size in zip(found[role], (preview, thumbnail), strict=True):
      with Image.open(path) as picture:
        assert (picture.size, picture.format) == (size, kind)
        np.testing.assert_allclose(picture.getpixel((5, 5)), colour, atol=2)


@pytest.mark.parametrize(
  'image, colour',
  [
    (np.full((8, 9, 1), 0.0, np.float32), (128, 128, 128)),
    (np.full((8, 9, 3), [2.0, -1.0, np.nan], np.float64), (255, 0, 0)),
    (np.full((8, 9, 4), [1.0, 0, 0, -1], np.float16), (255, 255, 255)),
    (jnp.full((8, 9, 1), 1.0, jnp.bfloat16), (255, 255, 255)),
    (jnp.full((8, 9, 3), 9, jnp.uint8), (9, 9, 9)),
    (plain(8, 9, 2, value=(7, 255)), (7, 7, 7)),
    (plain(8, 9, 5, value=(1, 2, 3, 4, 5)), (1, 2, 3)),
  ],
)
def test_any_channels_and_types(tmp_path, image, colour):
  gallery = make(tmp_path)
  gallery.add('x', image, plain(8, 9, 3))
  (path, _) = pictures(finish(gallery), tmp_path, 'x')['source']
  with Image.open(path) as picture:
    assert (picture.mode, picture.size) == ('RGB', (9, 8))
    assert (np.asarray(picture) == colour).all()


@pytest.mark.parametrize(
  'shape, preview, thumbnail',
  [
    ((1, 1), (1, 1), (1, 1)),
    ((1, 5000), (1024, 1), (256, 1)),
    ((5000, 1), (1, 1024), (1, 256)),
    ((7, 30_001), (1024, 1), (256, 1)),
    ((4097, 2049), (512, 1024), (128, 256)),
    ((256, 257), (257, 256), (256, 255)),
    ((256, 256), (256, 256), (256, 256)),
  ],
)
def test_any_shape(tmp_path, shape, preview, thumbnail):
  gallery = make(tmp_path)
  gallery.add('x', plain(*shape, 3), plain(*shape, 1))
  page = finish(gallery)
  assert page.data['entries'][0][2] == [[shape[1], shape[0]]] * 2
  for paths in pictures(page, tmp_path, 'x').values():
    for path, size in zip(paths, (preview, thumbnail), strict=True):
      with Image.open(path) as picture:
        assert picture.size == size
        assert picture.getpixel((0, 0)) == (128, 128, 128)


def test_a_huge_image_is_shrunk_in_its_place(tmp_path):
  ramp = np.linspace(0, 255, 9000).astype(np.uint8)
  image = np.broadcast_to(ramp[:, None, None], (9000, 3000, 1))
  gallery = make(tmp_path)
  gallery.add('x', image, plain(4, 4, 3))
  ((path, _), _) = pictures(finish(gallery), tmp_path, 'x').values()
  with Image.open(path) as picture:
    assert picture.size == (341, 1024)
    column = np.asarray(picture)[:, 100, 0]
  np.testing.assert_allclose(column, np.linspace(0, 255, 1024), atol=2)


@pytest.mark.parametrize(
  'image, what',
  [
    (np.zeros((4, 4), np.uint8), '[4, 4] of uint8'),
    (np.zeros((0, 4, 3), np.uint8), '[0, 4, 3] of uint8'),
    (np.zeros((4, 4, 3), np.uint16), '[4, 4, 3] of uint16'),
    (np.zeros((1, 4, 4, 3), np.float32), '[1, 4, 4, 3] of float32'),
  ],
)
def test_what_is_no_image_adds_nothing(tmp_path, image, what):
  gallery = make(tmp_path)
  message = f'an image is [h, w, C] of uint8 or floats, not {what}'
  with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
    gallery.add('x', plain(4, 4, 3), image)
  assert not gallery.has('x')
  assert finish(gallery).names == []


def test_another_direction_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r"^direction is 'ab' or 'ba', not 'a'$"):
    make(tmp_path, direction='a')


def test_nothing_breaks_out(tmp_path):
  folder = tmp_path / 'page'
  title = '</title></script><script>alert(1)</script>&amp;{{data}}\'"<!--'
  gallery = make(folder, title=title)
  for i, name in enumerate(HOSTILE):
    assert not gallery.has(name)
    gallery.add(name, plain(3, 4, 3, value=i), plain(3, 4, 3))
    assert gallery.has(name)
  page = finish(gallery)
  assert sorted(page.names) == sorted(HOSTILE)
  assert len(page.texts('script')) == 2  # the data and the page's own
  assert page.texts('title') == page.texts('h1') == [title]
  for i, name in enumerate(HOSTILE):
    (path, _) = pictures(page, folder, name)['source']
    with Image.open(path) as picture:
      assert picture.getpixel((0, 0)) == (i, i, i)
  assert [each.name for each in tmp_path.iterdir()] == ['page']
  for path in folder.rglob('*'):
    assert re.fullmatch(r'[a-z0-9_.]+', path.name)


def test_a_title_of_no_encoding(tmp_path):
  assert finish(make(tmp_path, title='a\udcffb')).texts('h1') == ['a?b']


def test_page_refers_to_nothing_outside(tmp_path):
  gallery = make(tmp_path)
  gallery.add('x', plain(300, 300, 3), plain(300, 300, 3))
  text = gallery.finish().read_text(encoding='utf-8')
  namespace = 'http://www.w3.org/2000/svg'  # a name, which is never fetched
  assert not re.search(r'https?:|["\'(]//|@import', text.replace(namespace, ''))
  assert not re.search(r'\bfetch\(|XMLHttpRequest|import\(|eval\(', text)
  page = Page(text)
  for _, attrs, _ in page.elements:
    assert not {'src', 'href', 'srcset'} & attrs.keys()
  for paths in pictures(page, tmp_path, 'x').values():
    for path in paths:
      address = path.relative_to(tmp_path).as_posix()
      assert urllib.parse.quote(address) == address
      assert path.is_file()


def dump(tmp_path, address, place):
  """What a browser makes of a page, opened at an image."""
  # What it would fetch for itself is no concern of the page.
  flags = (
    '--headless --no-sandbox --disable-gpu --no-first-run --disable-sync '
    '--disable-background-networking --disable-component-update'
  )
  command = [
    'chromium',
    *flags.split(),
    f'--user-data-dir={tmp_path / "profile"}',
    '--window-size=1200,3000',
    '--dump-dom',
    f'{address}#{place}',
  ]
  return subprocess.run(
    command, capture_output=True, check=True, timeout=120
  ).stdout.decode()


@pytest.mark.skipif(not shutil.which('chromium'), reason='needs Chromium')
def test_a_browser_shows_what_was_added(tmp_path):
  gallery = make(tmp_path / 'page #1?')
  # Chromium shows a name of no encoding too, but dumps none.
  names = [name for name in HOSTILE if '\udcff' not in name]
  for name in names:
    gallery.add(name, plain(2, 3, 3), plain(2, 3, 3), plain(2, 3, 3))
  place = finish(gallery).names.index('two  spaces .png') + 1
  address = (tmp_path / 'page #1?' / 'index.html').as_uri()
  page = Page(dump(tmp_path, address, place))
  assert len(page.texts('script')) == 2
  cards = [e for e in page.elements if e[1].get('class') == 'card']
  assert len(cards) == len(names)
  (viewer,) = [e for e in page.elements if e[1].get('id') == 'viewer']
  assert 'open' in viewer[1]
  assert page.texts('h2') == ['two  spaces .png']
  assert page.texts('figcaption') == ['Translated (b)', 'Input (a)']
  sources = [e[1]['src'] for e in page.elements if e[0] == 'img']
  assert len(sources) == 3 * len(names) + 2
  for each in sources:
    assert (tmp_path / 'page #1?' / each).is_file()
  (link,) = [e[1]['href'] for e in page.elements if e[1].get('id') == 'file']
  assert link == './two%20%20spaces%20.png'


@pytest.mark.skipif(not shutil.which('chromium'), reason='needs Chromium')
@pytest.mark.parametrize('name', ['a/#1?.png', '50%é &"\'.png'])
def test_a_browser_finds_the_file(tmp_path, name):
  gallery = make(tmp_path / 'page')
  gallery.add(
    name,
    plain(2, 3, 3),
    plain(2, 3, 3),
    sizes=[(3000, 2000)] * 2,
    kind='clip',
  )
  finish(gallery)
  page = Page(dump(tmp_path, (tmp_path / 'page' / 'index.html').as_uri(), 1))
  (link,) = [e[1]['href'] for e in page.elements if e[1].get('id') == 'file']
  assert urllib.parse.unquote_to_bytes(link) == b'./' + name.encode()
  assert 'clip' in ' '.join(page.texts('p'))
  assert '3,000 \xd7 2,000' in ' '.join(page.texts('p'))


def test_a_record_of_before_there_were_clips(tmp_path):
  gallery = make(tmp_path)
  gallery.add('a.png', plain(2, 3, 3), plain(2, 3, 3))
  (record,) = tmp_path.rglob('*.json')
  old = json.loads(record.read_text())
  del old['kind']
  record.write_text(json.dumps(old))
  assert finish(gallery).data['entries'][0][3] == 'image'


def test_natural_order(tmp_path):
  names = ['b/1', 'img2.png', 'img10.png', 'Img3.png', 'a b/x', 'a/y', 'a/b/z']
  names += ['img002.png', '9' * 5000, '0', '007']
  gallery = make(tmp_path)
  for name in names:
    gallery.add(name, plain(1, 1, 1), plain(1, 1, 1))
  # fmt: off
  assert finish(gallery).names == [
    '0', '007', '9' * 5000, 'a/b/z', 'a/y', 'a b/x', 'b/1',
    'img002.png', 'img2.png', 'Img3.png', 'img10.png',
  ]
  # fmt: on


@pytest.mark.parametrize(
  'names, total, status, width',
  [
    ('', None, '0 images · a → b', None),
    ('x', None, '1 image · a → b', None),
    ('xy', 2, '2 images · a → b', None),
    ('xy', 1, '2 images · a → b', None),
    ('x', 4000, '1 of 4,000 images · a → b', '0.03%'),
    ('', 8, '0 of 8 images · a → b', '0.00%'),
  ],
)
def test_status(tmp_path, names, total, status, width):
  gallery = make(tmp_path, total=total)
  for name in names:
    gallery.add(name, plain(1, 1, 1), plain(1, 1, 1))
  page = finish(gallery)
  assert page.texts('p')[0] == status
  (bar,) = [e[1] for e in page.elements if e[1].get('class') == 'done']
  assert ('hidden' in bar) == (width is None)
  if width:
    assert f'width: {width}' in [e[1].get('style') for e in page.elements]


def test_back_is_said_where_there_is_one(tmp_path):
  gallery = make(tmp_path, direction='ba')
  gallery.add('x', *[plain(1, 1, 1)] * 3)
  page = finish(gallery)
  assert page.texts('p')[0] == '1 image · b → a and back'
  assert page.data['labels'] == [
    'Input (b)',
    'Translated (a)',
    'Back again (b)',
  ]


def test_nested_names_do_not_collide(tmp_path):
  names = ['a/b.png', 'a_b.png', 'a\\b.png', 'A/b.png', 'a/b', 'b.png']
  gallery = make(tmp_path)
  for i, name in enumerate(names):
    gallery.add(name, plain(2, 2, 3, value=10 * i), plain(2, 2, 3))
  page = finish(gallery)
  for i, name in enumerate(names):
    (path, _) = pictures(page, tmp_path, name)['source']
    with Image.open(path) as picture:
      assert picture.getpixel((0, 0)) == (10 * i,) * 3


def test_resumed(tmp_path):
  first = make(tmp_path)
  first.add('old', plain(9, 9, 3), plain(9, 9, 3))
  # No page yet: the first process died here.
  second = make(tmp_path, title='resumed')
  assert second.has('old')
  assert not second.has('new')
  second.add('new', plain(9, 9, 3), plain(9, 9, 3))
  page = finish(second)
  assert page.names == ['new', 'old']
  assert page.texts('h1') == ['resumed']


@pytest.mark.parametrize('damage', ['torn', 'empty', 'list', 'lost', 'short'])
def test_what_is_not_whole_is_not_there(tmp_path, damage):
  gallery = make(tmp_path)
  for name in ('kept', 'broken'):
    gallery.add(name, plain(300, 300, 3), plain(300, 300, 3))
  (path, _) = pictures(finish(gallery), tmp_path, 'broken')['translated']
  key = path.name.partition('_')[0]
  record = path.with_name(f'{key}.json')
  if damage == 'torn':
    record.write_bytes(record.read_bytes()[:-9])
  elif damage == 'empty':
    record.write_bytes(b'')
  elif damage == 'list':
    record.write_bytes(b'[1, 2]')
  elif damage == 'lost':
    path.unlink()
  else:
    path.write_bytes(path.read_bytes()[:100])
  (record.parent / f'.{key}.json.0.tmp').write_bytes(b'{')
  again = make(tmp_path)
  assert not again.has('broken')
  assert again.has('kept')
  assert finish(again).names == ['kept']
  again.add('broken', plain(2, 2, 3), plain(2, 2, 3))
  assert again.has('broken')
  assert finish(again).names == ['broken', 'kept']


def test_an_entry_is_replaced_whole(tmp_path):
  gallery = make(tmp_path)
  gallery.add('x', *[plain(300, 300, 3)] * 3)
  gallery.add('x', plain(300, 300, 3), plain(2, 2, 3, value=5))
  page = finish(gallery)
  assert page.data['entries'][0][2] == [[300, 300], [2, 2]]
  kept = {
    path for each in pictures(page, tmp_path, 'x').values() for path in each
  }
  stored = {
    path for path in tmp_path.glob('.gallery/*/*') if path.suffix != '.json'
  }
  assert stored == kept


def test_a_failed_write_leaves_no_entry(tmp_path):
  gallery = make(tmp_path)
  gallery.add('x', plain(300, 300, 3), plain(300, 300, 3))
  (path, _) = pictures(finish(gallery), tmp_path, 'x')['translated']
  path.unlink()
  path.mkdir()  # no file can take its place
  with pytest.raises(OSError, match='irectory'):
    gallery.add('x', plain(300, 300, 3), plain(300, 300, 3))
  assert not gallery.has('x')
  assert finish(gallery).names == []
  assert not list(tmp_path.rglob('*.tmp'))


def test_the_other_direction_is_another_gallery(tmp_path):
  ab = make(tmp_path)
  for name in 'xy':
    ab.add(name, plain(2, 2, 3), plain(2, 2, 3))
  assert finish(ab).names == ['x', 'y']
  ba = make(tmp_path, direction='ba')
  assert not ba.has('x')
  ba.add('x', plain(2, 2, 3), plain(2, 2, 3))
  page = finish(ba)
  assert page.names == ['x']
  assert page.data['labels'][0] == 'Input (b)'
  assert not ab.has('x')
  assert ab.has('y')


def add_share(folder, first):
  gallery = make(folder, total=24)
  for i in range(first, 24, 3):
    gallery.add(f'{i}', plain(2, 2, 3, value=i), plain(2, 2, 3))
    gallery.finish()


def test_processes_share_a_folder(tmp_path):
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload(['cyclegan_jax.report.translation_gallery'])
  shares = [
    context.Process(target=add_share, args=(tmp_path, i)) for i in range(3)
  ]
  for share in shares:
    share.start()
  for share in shares:
    share.join()
    assert share.exitcode == 0
  # The page as the last of them left it.
  page = Page((tmp_path / 'index.html').read_text(encoding='utf-8'))
  assert page.names == [str(i) for i in range(24)]
  assert not list(tmp_path.rglob('*.tmp'))
