"""The page of translations: names, sizes, and several processes."""

import multiprocessing
import re
import urllib.parse

import jax.numpy as jnp
import numpy as np
import pages
import pytest
from PIL import Image

from cyclegan_jax.report.translation_gallery import TranslationGallery

HOSTILE_NAMES = [
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


def plain(*shape, value=128):
  return np.full(shape, value, np.uint8)


def make(folder, *, direction='ab', title='run', total=None, names=None):
  return TranslationGallery(
    folder, title=title, direction=direction, total=total, names=names
  )


def finish(gallery):
  return pages.Page(gallery.finish().read_text(encoding='utf-8'))


def names(page):
  return [entry[0] for entry in page.data['entries']]


def pictures(page, folder, name):
  """Paths of an entry's preview and thumbnail by role, as the script does."""
  data = page.data
  paths = {}
  for other, key, sizes, _ in data['entries']:
    if other != name:
      continue
    for role, size in zip(data['roles'], sizes, strict=False):
      stem = folder / data['folder'] / key[:2] / f'{key}_{role}'
      is_small = max(size) <= data['thumbnail']
      paths[role] = tuple(
        stem.with_name(stem.name + ('.png' if is_small else ending))
        for ending in ('.jpg', '_thumb.jpg')
      )
  return paths


def first_pixel(path):
  with Image.open(path) as picture:
    return picture.getpixel((0, 0))


def test_pictures_of_an_entry(tmp_path):
  folder = tmp_path / 'to' / 'here'
  gallery = make(folder)
  gallery.add(
    'a.tif',
    plain(600, 1500, 3, value=(200, 30, 40)),
    plain(300, 200, 1, value=77),
    plain(20, 30, 3, value=(1, 2, 3)),
  )
  page = finish(gallery)
  ((name, _, sizes, kind),) = page.data['entries']
  assert (name, kind) == ('a.tif', 'image')
  assert sizes == [[1500, 600], [200, 300], [30, 20]]
  expected = {
    'source': ((1024, 410), (256, 102), (200, 30, 40), 'JPEG'),
    'translated': ((200, 300), (171, 256), (77, 77, 77), 'JPEG'),
    'back': ((30, 20), (30, 20), (1, 2, 3), 'PNG'),
  }
  paths = pictures(page, folder, 'a.tif')
  assert list(paths) == list(expected)
  for role, (preview, thumbnail, color, kind) in expected.items():
    for path, size in zip(paths[role], (preview, thumbnail), strict=True):
      with Image.open(path) as picture:
        assert (picture.size, picture.format) == (size, kind)
        np.testing.assert_allclose(picture.getpixel((5, 5)), color, atol=2)


@pytest.mark.parametrize(
  ('image', 'color'),
  [
    (np.full((8, 9, 3), [2.0, -1.0, np.nan], np.float64), (255, 0, 0)),
    (np.full((8, 9, 4), [1.0, 0, 0, -1], np.float16), (255, 255, 255)),
    (jnp.full((8, 9, 1), 0.0, jnp.bfloat16), (128, 128, 128)),
    (plain(8, 9, 2, value=(7, 255)), (7, 7, 7)),
    (plain(8, 9, 5, value=(1, 2, 3, 4, 5)), (1, 2, 3)),
  ],
)
def test_channels_and_types(tmp_path, image, color):
  gallery = make(tmp_path)
  gallery.add('x', image, plain(8, 9, 3))
  (path, _) = pictures(finish(gallery), tmp_path, 'x')['source']
  with Image.open(path) as picture:
    assert (picture.mode, picture.size) == ('RGB', (9, 8))
    assert (np.asarray(picture) == color).all()


@pytest.mark.parametrize(
  ('shape', 'preview', 'thumbnail'),
  [
    ((1, 5000), (1024, 1), (256, 1)),
    ((5000, 1), (1, 1024), (1, 256)),
    ((256, 257), (257, 256), (256, 255)),
    ((256, 256), (256, 256), (256, 256)),
  ],
)
def test_shapes(tmp_path, shape, preview, thumbnail):
  gallery = make(tmp_path)
  gallery.add('x', plain(*shape, 3), plain(*shape, 1))
  page = finish(gallery)
  assert page.data['entries'][0][2] == [[shape[1], shape[0]]] * 2
  for paths in pictures(page, tmp_path, 'x').values():
    for path, size in zip(paths, (preview, thumbnail), strict=True):
      with Image.open(path) as picture:
        assert picture.size == size
      assert first_pixel(path) == (128, 128, 128)


def test_a_huge_image_is_reduced_evenly(tmp_path):
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
  ('shape', 'dtype'),
  [((4, 4), np.uint8), ((0, 4, 3), np.uint8), ((4, 4, 3), np.uint16)],
)
def test_an_array_that_is_no_image_adds_nothing(tmp_path, shape, dtype):
  gallery = make(tmp_path)
  with pytest.raises(ValueError, match=re.escape(str(list(shape)))):
    gallery.add('x', plain(4, 4, 3), np.zeros(shape, dtype))
  assert not gallery.has('x')
  assert names(finish(gallery)) == []


def test_an_unknown_direction(tmp_path):
  with pytest.raises(ValueError, match='direction'):
    make(tmp_path, direction='a')


def test_hostile_names_and_titles_stay_text(tmp_path):
  folder = tmp_path / 'page'
  title = '</title></script><script>alert(1)</script>&amp;{{data}}\'"<!--'
  gallery = make(folder, title=f'{title}\udcff')
  for i, name in enumerate(HOSTILE_NAMES):
    assert not gallery.has(name)
    gallery.add(name, plain(3, 4, 3, value=i), plain(3, 4, 3))
    assert gallery.has(name)
  page = finish(gallery)
  assert sorted(names(page)) == sorted(HOSTILE_NAMES)
  assert len(page.texts('script')) == 2  # the data and the page's own
  assert page.texts('title') == page.texts('h1') == [f'{title}?']
  for i, name in enumerate(HOSTILE_NAMES):
    (path, _) = pictures(page, folder, name)['source']
    assert first_pixel(path) == (i, i, i)
  assert [path.name for path in tmp_path.iterdir()] == ['page']
  for path in folder.rglob('*'):
    assert re.fullmatch(r'[a-z0-9_.]+', path.name)


def test_the_page_loads_nothing_from_elsewhere(tmp_path):
  gallery = make(tmp_path)
  gallery.add('x', plain(300, 300, 3), plain(300, 300, 3))
  text = gallery.finish().read_text(encoding='utf-8')
  namespace = 'http://www.w3.org/2000/svg'  # a name, which is never fetched
  assert not re.search(r'https?:|["\'(]//|@import', text.replace(namespace, ''))
  assert not re.search(r'\bfetch\(|XMLHttpRequest|import\(|eval\(', text)
  page = pages.Page(text)
  for _, attrs, _ in page.elements:
    assert not {'src', 'href', 'srcset'} & attrs.keys()
  for paths in pictures(page, tmp_path, 'x').values():
    for path in paths:
      address = path.relative_to(tmp_path).as_posix()
      assert urllib.parse.quote(address) == address
      assert path.is_file()


def test_names_are_in_natural_order(tmp_path):
  unsorted = ['b/1', 'img2.png', 'img10.png', 'Img3.png', 'a b/x', 'a/y']
  unsorted += ['a/b/z', 'img002.png', '9' * 5000, '0', '007']
  gallery = make(tmp_path)
  for name in unsorted:
    gallery.add(name, plain(1, 1, 1), plain(1, 1, 1))
  # fmt: off
  assert names(finish(gallery)) == [
    '0', '007', '9' * 5000, 'a/b/z', 'a/y', 'a b/x', 'b/1',
    'img002.png', 'img2.png', 'Img3.png', 'img10.png',
  ]
  # fmt: on


@pytest.mark.parametrize(
  ('count', 'total', 'width'),
  [(1, None, None), (2, 1, None), (1, 4000, '0.03%'), (0, 8, '0.00%')],
)
def test_the_progress_of_a_page(tmp_path, count, total, width):
  gallery = make(tmp_path, total=total)
  for i in range(count):
    gallery.add(f'{i}', plain(1, 1, 1), plain(1, 1, 1))
  page = finish(gallery)
  (bar,) = [e[1] for e in page.elements if e[1].get('class') == 'done']
  assert ('hidden' in bar) == (width is None)
  if width:
    assert f'width: {width}' in [e[1].get('style') for e in page.elements]
    assert f'{count} of {total:,}' in page.texts('p')[0]


@pytest.mark.parametrize('names', [None, ('<zebra>', 'horse')])
def test_labels_of_the_other_direction(names, tmp_path):
  gallery = make(tmp_path, direction='ba', names=names)
  gallery.add('x', *[plain(1, 1, 1)] * 3)
  labels = finish(gallery).data['labels']
  b, a = names or 'ba'
  assert labels == [f'Input ({b})', f'Translated ({a})', f'Back again ({b})']


def test_nested_names_do_not_collide(tmp_path):
  nested = ['a/b.png', 'a_b.png', 'a\\b.png', 'A/b.png', 'a/b', 'b.png']
  gallery = make(tmp_path)
  for i, name in enumerate(nested):
    gallery.add(name, plain(2, 2, 3, value=10 * i), plain(2, 2, 3))
  page = finish(gallery)
  for i, name in enumerate(nested):
    (path, _) = pictures(page, tmp_path, name)['source']
    assert first_pixel(path) == (10 * i,) * 3


def test_a_gallery_is_resumed(tmp_path):
  make(tmp_path).add('old', plain(9, 9, 3), plain(9, 9, 3))
  # No page yet: the first process died here.
  resumed = make(tmp_path, title='resumed')
  assert resumed.has('old')
  assert not resumed.has('new')
  resumed.add('new', plain(9, 9, 3), plain(9, 9, 3))
  page = finish(resumed)
  assert names(page) == ['new', 'old']
  assert page.texts('h1') == ['resumed']


@pytest.mark.parametrize('damage', ['cut', 'list', 'lost', 'short'])
def test_a_damaged_entry_is_left_out(tmp_path, damage):
  gallery = make(tmp_path)
  for name in ('good', 'broken'):
    gallery.add(name, plain(300, 300, 3), plain(300, 300, 3))
  (path, _) = pictures(finish(gallery), tmp_path, 'broken')['translated']
  key = path.name.partition('_')[0]
  record = path.with_name(f'{key}.json')
  match damage:
    case 'cut':
      record.write_bytes(record.read_bytes()[:-9])
    case 'list':
      record.write_bytes(b'[1, 2]')
    case 'lost':
      path.unlink()
    case 'short':
      path.write_bytes(path.read_bytes()[:100])
  (record.parent / f'.{key}.json.0.tmp').write_bytes(b'{')
  again = make(tmp_path)
  assert not again.has('broken')
  assert again.has('good')
  assert names(finish(again)) == ['good']
  again.add('broken', plain(2, 2, 3), plain(2, 2, 3))
  assert again.has('broken')
  assert names(finish(again)) == ['broken', 'good']


def test_an_entry_is_replaced_whole(tmp_path):
  gallery = make(tmp_path)
  gallery.add('x', *[plain(300, 300, 3)] * 3)
  gallery.add('x', plain(300, 300, 3), plain(2, 2, 3, value=5))
  page = finish(gallery)
  assert page.data['entries'][0][2] == [[300, 300], [2, 2]]
  paths = pictures(page, tmp_path, 'x').values()
  stored = {
    path for path in tmp_path.glob('.gallery/*/*') if path.suffix != '.json'
  }
  assert stored == {path for pair in paths for path in pair}


def test_a_failed_write_leaves_no_entry(tmp_path):
  gallery = make(tmp_path)
  gallery.add('x', plain(300, 300, 3), plain(300, 300, 3))
  (path, _) = pictures(finish(gallery), tmp_path, 'x')['translated']
  path.unlink()
  path.mkdir()  # no file can replace it
  with pytest.raises(OSError, match='irectory'):
    gallery.add('x', plain(300, 300, 3), plain(300, 300, 3))
  assert not gallery.has('x')
  assert names(finish(gallery)) == []
  assert not list(tmp_path.rglob('*.tmp'))


def test_each_direction_has_its_own_entries(tmp_path):
  ab, ba = make(tmp_path), make(tmp_path, direction='ba')
  for name in 'xy':
    ab.add(name, plain(2, 2, 3), plain(2, 2, 3))
  assert not ba.has('x')
  ba.add('x', plain(2, 2, 3), plain(2, 2, 3))
  assert names(finish(ba)) == ['x']
  assert not ab.has('x')
  assert ab.has('y')


def add_share(folder, first):
  gallery = make(folder, total=24)
  for i in range(first, 24, 3):
    gallery.add(f'{i}', plain(2, 2, 3, value=i), plain(2, 2, 3))
    gallery.finish()


@pytest.mark.process
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
  # The page as the last process left it.
  page = pages.Page((tmp_path / 'index.html').read_text(encoding='utf-8'))
  assert names(page) == [str(i) for i in range(24)]
  assert not list(tmp_path.rglob('*.tmp'))


@pytest.fixture(scope='module')
def browser():
  with pages.chromium('--disable-gpu') as browser:
    yield browser


@pytest.mark.browser
def test_a_browser_shows_every_entry(tmp_path, browser):
  folder = tmp_path / 'page #1?'
  gallery = make(folder)
  for name in HOSTILE_NAMES:
    gallery.add(name, *[plain(2, 3, 3)] * 3)
  number = names(finish(gallery)).index('two  spaces .png') + 1
  page = browser.new_page(viewport={'width': 1200, 'height': 3000})
  page.goto(f'{(folder / "index.html").as_uri()}#{number}')
  assert page.locator('.card').count() == len(HOSTILE_NAMES)
  assert page.locator('#viewer').is_visible()
  assert page.locator('h2').inner_text() == 'two  spaces .png'
  captions = page.locator('figcaption').all_inner_texts()
  assert captions == ['Translated (b)', 'Input (a)']
  loaded = page.evaluate(
    """async () => {
      const images = [...document.querySelectorAll('img')];
      for (const img of images) img.loading = 'eager';
      await Promise.all(images.map(img => img.decode()));
      return images.length;
    }"""
  )
  assert loaded == 3 * len(HOSTILE_NAMES) + 2
  assert page.get_attribute('#file', 'href') == './two%20%20spaces%20.png'


@pytest.mark.browser
def test_the_gallery_by_keyboard(tmp_path, browser):
  gallery = make(tmp_path)
  for i in range(12):
    gallery.add(f'in/{i}.png', plain(20, 30, 3), plain(20, 30, 3))
  gallery.finish()
  page = browser.new_page(viewport={'width': 1400, 'height': 700})
  page.goto((tmp_path / 'index.html').as_uri())

  def focused():
    label = page.evaluate('document.activeElement.ariaLabel')
    return label.removeprefix('in/').removesuffix('.png')

  for key, name in (
    ('ArrowRight', '0'),
    ('ArrowRight', '1'),
    ('End', '11'),
    ('ArrowRight', '11'),
    ('ArrowLeft', '10'),
    ('Home', '0'),
    ('ArrowUp', '0'),
  ):
    page.keyboard.press(key)
    assert focused() == name
  page.keyboard.press('ArrowDown')  # a row of several cards
  assert 2 <= int(focused()) <= 6
  page.keyboard.press('Enter')
  page.keyboard.press('Home')
  assert page.locator('h2').inner_text() == 'in/0.png'
  page.keyboard.press('Escape')
  page.keyboard.press('/')
  page.keyboard.type('1 png')
  assert page.locator('.card').count() == 3
  page.keyboard.press('Enter')
  assert focused() == '1'


@pytest.mark.browser
@pytest.mark.parametrize('name', ['a/#1?.png', '50%é &"\'\udcff.png'])
def test_the_viewer_links_to_the_file(tmp_path, browser, name):
  gallery = make(tmp_path)
  sizes = [(3000, 2000)] * 2
  gallery.add(name, *[plain(2, 3, 3)] * 2, sizes=sizes, kind='clip')
  gallery.finish()
  page = browser.new_page()
  page.goto(f'{(tmp_path / "index.html").as_uri()}#1')
  link = page.get_attribute('#file', 'href')
  assert urllib.parse.unquote_to_bytes(link) == b'./' + name.encode(
    'utf-8', 'surrogateescape'
  )
  facts = page.locator('#facts').inner_text()
  assert 'clip' in facts
  assert '3,000 \xd7 2,000' in facts
