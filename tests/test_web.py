"""The exported page: a real browser translates, from a plain web server."""

import contextlib
import io
import re
import shutil
import subprocess
import sys
import tarfile

import jax
import numpy as np
import pytest
from PIL import Image

from cyclegan_jax import cli
from cyclegan_jax.config import Config
from cyclegan_jax.data.synthetic import drawings
from cyclegan_jax.errors import UserError
from cyclegan_jax.state import create_train_state
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.translate.translator import load_translator

pytest.importorskip('onnxruntime', reason='needs the extra `export`')
pytest.importorskip('onnx', reason='needs the extra `export`')

from cyclegan_jax.export import onnxruntime_web
from cyclegan_jax.export.web import check_values

CHROMIUM = shutil.which('chromium')
# Vulkan on the CPU, where there is no graphics card.
WEBGPU = (
  '--enable-unsafe-webgpu',
  '--use-webgpu-adapter=swiftshader',
  '--enable-features=Vulkan',
)
NO_WEBGPU = ('--disable-gpu',)
CAMERA = (
  '--use-fake-device-for-media-stream',
  '--use-fake-ui-for-media-stream',
)
SMALL = {
  'data': {'size': 16, 'load_size': 16},
  'discriminator': {'filters': 1, 'layers': 1},
}
RESNET = {'name': 'resnet', 'filters': 4, 'blocks': 1, 'dropout': 0.0}
UNET = {'name': 'keras_unet', 'filters': 4, 'isize': 16, 'dropout': 0.5}
CONFIGS = {
  # Of any size: padded by reflection. Its b is grey.
  'resnet': Config().replace(
    **SMALL | {'data': SMALL['data'] | {'channels_b': 1}}, generator=RESNET
  ),
  # Of one size: other images are resized there and back.
  'unet': Config().replace(**SMALL, generator=UNET),
}
FILES = [
  'index.html',
  'icon.svg',
  'onnxruntime/LICENSE',
  'onnxruntime/ThirdPartyNotices.txt',
  'onnxruntime/ort-wasm-simd-threaded.asyncify.wasm',
  'onnxruntime/ort-wasm-simd-threaded.wasm',
  'onnxruntime/ort.wasm.bundle.min.js',
  'onnxruntime/ort.webgpu.bundle.min.js',
  'page.css',
  'page.js',
  'worker.js',
]


def make_run(folder, config):
  """A checkpoint of random networks that use all of their range."""
  state = create_train_state(config, jax.random.key(0))
  rng = np.random.default_rng(1)
  gen = jax.tree.map(
    lambda leaf: leaf + np.float32(0.1 * rng.normal(size=leaf.shape)),
    state.gen,
  )
  with checkpoint.Saver(folder / 'checkpoints', config) as saver:
    saver.save(state.replace(gen=gen))
  return folder


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs')
  return {
    name: make_run(folder / name, config) for name, config in CONFIGS.items()
  }


@pytest.fixture(scope='session')
def package(tmp_path_factory):
  """What npm packs, once."""
  if not shutil.which('npm'):
    pytest.skip('needs npm')
  folder = tmp_path_factory.mktemp('npm')
  command = ['npm', 'pack', onnxruntime_web.PACKAGE]
  done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
  if done.returncode:
    pytest.skip(f'npm has no network: {done.stderr[:200]}')
  (path,) = folder.glob('*.tgz')
  return path


def export(run, to, *options):
  argv = ['export', run, '--format', 'web', '--to', to, *options]
  return cli.main([str(each) for each in argv])


@pytest.fixture(scope='module')
def sites(runs, package, tmp_path_factory):
  """The exported folders by name; 'half' is the ResNet in 16 bits."""
  folder = tmp_path_factory.mktemp('sites')
  one = ['--direction', 'ab']
  for name, run, *options in (
    ('resnet', runs['resnet']),
    ('unet', runs['unet'], *one),
    ('half', runs['resnet'], *one, '--dtype', 'float16'),
  ):
    options += ['--onnxruntime-web', package]
    assert export(run, folder / name, *options) == 0
  return {each.name: each for each in folder.iterdir()}


@contextlib.contextmanager
def serving(folder):
  """The address of a plain web server."""
  command = [sys.executable, '-u', '-m', 'http.server', '0']
  options = ['--bind', '127.0.0.1', '--directory', str(folder)]
  with subprocess.Popen(
    [*command, *options],
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
  ) as process:
    try:
      match = re.search(r'port (\d+)', process.stdout.readline())
      yield f'http://127.0.0.1:{match[1]}/'
    finally:
      process.terminate()


@pytest.fixture(scope='module')
def launch():
  sync_api = pytest.importorskip(
    'playwright.sync_api', reason='needs Playwright'
  )
  if not CHROMIUM:
    pytest.skip('needs Chromium')
  with sync_api.sync_playwright() as playwright:

    def launch(*flags):
      return playwright.chromium.launch(
        executable_path=CHROMIUM,
        args=['--no-sandbox', '--disable-quic', *CAMERA, *flags],
      )

    yield launch


@pytest.fixture(scope='module')
def browser(launch):
  with launch(*NO_WEBGPU) as browser:
    yield browser


@contextlib.contextmanager
def opened(browser, folder):
  """The page of a folder, which may ask no one else and break no rule."""
  with serving(folder) as url:
    context = browser.new_context(permissions=['camera'])
    page = context.new_page()
    page.set_default_timeout(60_000)
    problems, asked = [], []
    page.on('pageerror', lambda error: problems.append(str(error)))
    page.on(
      'console',
      lambda message: (
        message.type == 'error'
        and 'status of 404' not in message.text
        and problems.append(message.text)
      ),
    )
    context.on('request', lambda request: asked.append(request.url))
    page.goto(url)
    yield page
    context.close()
  assert not problems
  assert asked
  assert all(each.startswith((url, f'blob:{url}')) for each in asked)


def encoded(pixels, kind='PNG', **options):
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, kind, **options)
  return file.getvalue()


def decoded(data):
  with Image.open(io.BytesIO(data)) as image:
    pixels = np.asarray(image)
  return pixels[..., None] if pixels.ndim == 2 else pixels


def drawing(height, width):
  size = max(height, width, 32)
  whole = drawings.draw(0, size=size, domain='a', split='test')
  return whole[:height, :width]


def put(page, *files):
  page.set_input_files(
    '#files',
    [
      {'name': name, 'mimeType': 'image/png', 'buffer': data}
      for name, data in files
    ],
  )


def translated(page, data, name='a.png'):
  """The file that the page makes of one."""
  put(page, (name, data))
  return downloaded(page)[1]


def downloaded(page):
  page.locator('#download[href], #trouble:not([hidden])').first.wait_for()
  assert not page.is_visible('#trouble'), page.inner_text('#trouble')
  with page.expect_download() as found:
    page.click('#download')
  return found.value.suggested_filename, found.value.path().read_bytes()


def apart(made, expected):
  assert made.shape == expected.shape
  assert expected.std() > 5  # a picture, not a plane
  return np.abs(made.astype(int) - expected).max()


# What it makes.


@pytest.mark.parametrize(
  ('name', 'shapes'),
  [
    ('resnet', [(16, 16), (37, 91), (3, 130)]),
    ('unet', [(16, 16), (45, 23), (9, 120)]),
  ],
)
def test_pixels_are_the_translator_s(name, shapes, browser, sites, runs):
  translate = load_translator(runs[name], 'ab')
  with opened(browser, sites[name]) as page:
    for shape in shapes:
      pixels = drawing(*shape)
      made = decoded(translated(page, encoded(pixels)))
      assert apart(made, translate(pixels)) <= 1
    assert page.inner_text('#state') == 'Ready: WASM'


def drawn(page, selector):
  """The pixels of a picture as the browser has them."""
  width, height, pixels = page.locator(selector).evaluate(
    """img => {
      const canvas = document.createElement('canvas');
      [canvas.width, canvas.height] = [img.naturalWidth, img.naturalHeight];
      const context = canvas.getContext('2d');
      context.drawImage(img, 0, 0);
      return [canvas.width, canvas.height, Array.from(
        context.getImageData(0, 0, canvas.width, canvas.height).data)];
    }"""
  )
  return np.array(pixels, np.uint8).reshape(height, width, 4)[..., :3]


def test_there_and_back_and_from_grey(browser, sites, runs):
  pixels = drawing(30, 50)
  ab, ba = (load_translator(runs['resnet'], way) for way in ('ab', 'ba'))
  with opened(browser, sites['resnet']) as page:
    put(page, ('horse.jpeg.png', encoded(pixels)))
    page.get_by_role('button', name='All').click()
    page.locator('#stage figure').nth(2).wait_for()
    back = drawn(page, '#stage .cell:nth-child(3) img')
    name, data = downloaded(page)
    assert name == 'horse.jpeg_ab.png'
    assert Image.open(io.BytesIO(data)).mode == 'L'
    assert apart(back, ba(decoded(data))) <= 1
    assert apart(decoded(data), ab(pixels)) <= 1

    before = page.get_attribute('#download', 'href')
    page.get_by_label('From B to A').check()
    page.wait_for_selector(f'#download[href]:not([href="{before}"])')
    name, data = downloaded(page)
    assert name == 'horse.jpeg_ba.png'
  grey = np.asarray(Image.fromarray(pixels).convert('L'))[..., None]
  assert apart(decoded(data), ba(grey)) <= 1


def test_alpha_comes_out_and_photographs_are_upright(browser, sites, runs):
  pixels = drawing(24, 40)
  alpha = np.full((24, 40, 1), 255, np.uint8)
  alpha[:8], alpha[8:16] = 0, 128
  exif = Image.Exif()
  exif[0x0112] = 6  # it lies on its side
  photo = encoded(pixels, 'JPEG', quality=95, exif=exif.tobytes())
  translate = load_translator(runs['unet'], 'ab')
  with opened(browser, sites['unet']) as page:
    made = decoded(
      translated(page, encoded(np.concatenate([pixels, alpha], -1)))
    )
    turned = decoded(translated(page, photo, 'b.jpg'))
  np.testing.assert_array_equal(made[..., 3:], alpha)
  whitened = np.where(alpha == 0, 255, pixels).astype(np.uint8)
  # Browsers keep colours multiplied by alpha, so of 128 they lose a bit.
  assert apart(made[..., :3], translate(whitened)) <= 2
  with Image.open(io.BytesIO(photo)) as image:
    upright = np.rot90(np.asarray(image), -1)
  assert apart(turned, translate(upright)) <= 2


def test_sixteen_bits(browser, sites, runs):
  """The network's weights have 11 of them, so pixels may be a few off."""
  sizes = [
    (sites[each] / 'ab.onnx').stat().st_size for each in ('resnet', 'half')
  ]
  assert sizes[1] < 0.8 * sizes[0]
  pixels = drawing(20, 28)
  with opened(browser, sites['half']) as page:
    assert page.get_by_label('From B to A').is_hidden()
    made = decoded(translated(page, encoded(pixels)))
  assert apart(made, load_translator(runs['resnet'], 'ab')(pixels)) <= 3


def test_webgpu_and_what_is_done_without(launch, sites, runs, tmp_path):
  pixels = drawing(16, 16)
  expected = load_translator(runs['resnet'], 'ab')(pixels)
  shutil.copytree(sites['resnet'], tmp_path / 'broken')
  (tmp_path / 'broken/onnxruntime/ort.webgpu.bundle.min.js').unlink()
  with launch(*WEBGPU) as browser:
    with opened(browser, sites['resnet']) as page:
      page.wait_for_selector('#state:not(:empty)')
      if not page.inner_text('#state').startswith('WebGPU'):
        pytest.skip('this Chromium has no WebGPU, not even on the CPU')
      made = decoded(translated(page, encoded(pixels)))
      assert page.inner_text('#state') == 'Ready: WebGPU'
    assert apart(made, expected) <= 1
    with opened(browser, tmp_path / 'broken') as page:
      made = decoded(translated(page, encoded(pixels)))
      assert page.inner_text('#state') == 'Ready: WASM (WebGPU failed)'
    assert apart(made, expected) <= 1


# What the page says.


def test_dropped_pasted_and_taken_with_the_camera(browser, sites):
  with opened(browser, sites['unet']) as page:
    page.evaluate(
      """async bytes => {
        for (const kind of ['drop', 'paste']) {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], kind + '.png'));
          dispatchEvent(kind === 'drop'
            ? new DragEvent(kind, { dataTransfer: transfer, cancelable: true })
            : new ClipboardEvent(kind, { clipboardData: transfer }));
        }
      }""",
      list(encoded(drawing(20, 20))),
    )
    page.locator('.thumb.done').nth(1).wait_for()
    page.get_by_role('button', name='Use the camera').click()
    page.wait_for_selector('#shoot:enabled')
    page.locator('#film').evaluate(
      """async film => {
        while (!film.videoWidth)
          await new Promise(done => setTimeout(done, 20));
      }"""
    )
    page.get_by_role('button', name='Take the picture').click()
    page.locator('.thumb.done').nth(2).wait_for()


def test_how_much_is_loaded(browser, sites):
  """A server that is slow, and one that sends half of a file."""
  with opened(browser, sites['unet']) as page:
    page.wait_for_selector('#state:not(:empty)')
    assert page.inner_text('#state') == 'WASM, 14 MB to load once'
    page.evaluate(
      """() => {
        window.shares = [];
        new MutationObserver(() => shares.push(document.querySelector(
          '#share').value)).observe(document.querySelector('#share'),
          { attributeFilter: ['value'] });
      }"""
    )
    translated(page, encoded(drawing(20, 20)))
    shares = page.evaluate('shares')
    # It comes in pieces, each of which moves the bar.
    assert len({each for each in shares if 0 < each < 1}) > 3
    # Once is enough.
    page.evaluate('shares.length = 0')
    translated(page, encoded(drawing(21, 20)), 'b.png')
    assert not any(page.evaluate('shares'))


def test_files_that_are_no_images(browser, sites):
  good = encoded(drawing(20, 20))
  with opened(browser, sites['unet']) as page:
    put(page, ('cut.png', good[:200]), ('text.png', b'no image'))
    for name in ('cut.png', 'text.png'):
      page.get_by_role('button', name=name, exact=True).click()
      alert = page.get_by_role('alert')
      alert.filter(has_text='can not read this file').wait_for()
      assert page.get_by_role('button', name='Try again').is_hidden()
    translated(page, good, 'good.png')


def test_an_image_that_is_too_large_is_made_smaller(browser, sites, tmp_path):
  site = tmp_path / 'site'
  shutil.copytree(sites['resnet'], site)
  index = (site / 'index.html').read_text()
  less = re.sub('"max_pixels":[0-9]+', '"max_pixels":1000', index)
  (site / 'index.html').write_text(less)
  with opened(browser, site) as page:
    put(page, ('a.png', encoded(drawing(40, 60))))
    button = page.get_by_role('button', name='Make it smaller')
    button.wait_for()
    assert 'has 60 x 40 pixels' in page.get_by_role('alert').inner_text()
    button.click()
    page.locator('.thumb.done').wait_for()
    assert decoded(downloaded(page)[1]).shape == (25, 38, 1)


def test_a_folder_that_is_damaged_and_mended(browser, sites, tmp_path):
  """Each damage is told, and mended without a new page."""
  site = tmp_path / 'site'
  shutil.copytree(sites['unet'], site)
  network = site / 'ab.onnx'
  content = network.read_bytes()
  (site / 'worker.js').unlink()
  with opened(browser, site) as page:
    alert = page.get_by_role('alert')

    def wait_for(text):
      alert.filter(has_text=text).wait_for()
      return page.get_by_role('button', name='Try again')

    put(page, ('a.png', encoded(drawing(20, 20))))
    button = wait_for('its worker can not be loaded')
    shutil.copy2(sites['unet'] / 'worker.js', site)
    network.unlink()
    button.click()
    button = wait_for('The server has no ab.onnx (status 404).')
    network.write_bytes(content[:-10])
    button.click()
    button = wait_for('is not the file that was exported with this page')
    network.write_bytes(content[::-1])
    button.click()
    button = wait_for('The network failed: ')
    # With its old date, by which browsers take it for what they have.
    shutil.copy2(sites['unet'] / 'ab.onnx', network)
    button.click()
    page.locator('.thumb.done').wait_for()


def test_from_a_disk(browser, sites):
  page = browser.new_page()
  page.goto((sites['unet'] / 'index.html').as_uri())
  assert 'has to come from a web server' in page.inner_text('main')
  assert page.locator('#drop').is_hidden()
  page.close()


# The command.


def test_the_folder(sites):
  for name, site in sites.items():
    networks = ['ab.onnx', *(['ba.onnx'] if name == 'resnet' else [])]
    files = [each for each in site.rglob('*') if each.is_file()]
    names = sorted(str(each.relative_to(site)) for each in files)
    assert names == sorted([*networks, *FILES])
    for file in files:
      if file.suffix in ('.html', '.css', '.js') and file.parent == site:
        found = set(re.findall(r'https?://[^"<\s]+', file.read_text()))
        known = {'http://localhost:8000', 'http://www.w3.org/2000/svg'}
        assert {each.rstrip("',)") for each in found} <= known
  assert not list(sites['unet'].parent.glob('.*'))


def test_a_folder_that_is_there(runs, package, sites, tmp_path, capsys):
  to = tmp_path / 'site'
  to.mkdir()
  (to / 'mine.txt').write_text('mine')
  (to / 'page.css').write_text('old')
  options = ['--onnxruntime-web', package]
  assert export(runs['resnet'], to, *options) == 1
  assert 'give another --to, or --overwrite' in capsys.readouterr().err
  assert sorted(each.name for each in to.iterdir()) == ['mine.txt', 'page.css']
  # The package unpacked will do as well.
  safe = {'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}
  with tarfile.open(package) as archive:
    archive.extractall(tmp_path, **safe)
  options = ['--onnxruntime-web', tmp_path / 'package', '--overwrite']
  assert export(runs['resnet'], to, *options) == 0
  printed = capsys.readouterr().out
  assert 'ab.onnx: ab, ' in printed
  assert 'from the translator' in printed
  assert 'python -m http.server --directory' in printed
  assert (to / 'mine.txt').read_text() == 'mine'
  for name in FILES:
    assert (to / name).read_bytes() == (sites['resnet'] / name).read_bytes()
  assert [each.name for each in tmp_path.glob('.*')] == []


def pack(path, files):
  with tarfile.open(path, 'w:gz') as archive:
    for name, content in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))


NAMES = [f'package/dist/{each}' for each in onnxruntime_web._SHA256]


@pytest.mark.parametrize(
  ('kind', 'said'),
  [
    ('none', 'is not there'),
    ('no archive', 'can not be read as what npm packs'),
    ('cut', 'can not be read as what npm packs'),
    ('empty', 'has no dist/ort.webgpu.bundle.min.mjs'),
    ('other version', 'is not that of onnxruntime-web@'),
    ('climbing', 'has no dist/ort.webgpu.bundle.min.mjs'),
    ('folder', 'has no dist/ort.webgpu.bundle.min.mjs'),
  ],
)
def test_packages_that_are_refused(kind, said, runs, tmp_path, capsys):
  path = tmp_path / 'ort.tgz'
  files = dict.fromkeys(NAMES, b'//')
  match kind:
    case 'no archive':
      path.write_bytes(b'hello' * 100)
    case 'cut':
      pack(path, files)
      path.write_bytes(path.read_bytes()[:-60])
    case 'empty':
      pack(path, {'package/package.json': b'{}'})
    case 'other version':
      pack(path, files)
    case 'climbing':
      pack(path, {f'../{each}': b'//' for each in NAMES})
    case 'folder':
      path.mkdir()
  to = tmp_path / 'site'
  assert export(runs['unet'], to, '--onnxruntime-web', path) == 1
  message = capsys.readouterr().err
  assert str(path) in message
  assert said in message
  assert list(tmp_path.glob('*')) == ([path] if path.exists() else [])


def test_without_npm_and_without_a_network(runs, tmp_path, monkeypatch, capsys):
  to = tmp_path / 'site'
  # A port at which nobody is.
  monkeypatch.setenv('npm_config_registry', 'http://127.0.0.1:9/')
  monkeypatch.setenv('npm_config_cache', str(tmp_path / 'cache'))
  monkeypatch.setenv('npm_config_fetch_retries', '0')
  if shutil.which('npm'):
    assert export(runs['unet'], to) == 1
    message = capsys.readouterr().err
    assert f'npm can not fetch {onnxruntime_web.PACKAGE} (' in message
    assert 'ECONNREFUSED' in message
    assert '--onnxruntime-web' in message
  monkeypatch.setenv('PATH', '')
  assert export(runs['unet'], to) == 1
  assert 'takes onnxruntime-web from npm' in capsys.readouterr().err
  assert not to.exists()


@pytest.mark.parametrize(
  ('edit', 'said'),
  [
    ({'channels_a': 4}, 'domain a has 4 channels of uint8'),
    (
      {'dtype_b': 'uint16', 'low_b': 0.0, 'high_b': 4095.0},
      'domain b has 1 channels of uint16 from 0 to 4095',
    ),
  ],
)
def test_images_that_browsers_do_not_have(edit, said):
  with pytest.raises(UserError, match=said):
    check_values(CONFIGS['resnet'].replace(data=edit))


def test_wrong_command_lines(tmp_path, capsys):
  common = ['export', str(tmp_path), '--to', str(tmp_path / 'x')]
  for argv, message in (
    (['--format', 'pth', '--dtype', 'float16'], 'onnx and web alone'),
    (['--format', 'onnx', '--onnxruntime-web', 'x'], 'for --format web alone'),
  ):
    assert cli.main([*common, *argv]) == 2
    assert message in capsys.readouterr().err
  (tmp_path / 'file').touch()
  assert export(tmp_path, tmp_path / 'file', '--overwrite') == 1
  assert 'file is a file: give a folder' in capsys.readouterr().err
