"""The exported page: its files, and translations in a real browser."""

import contextlib
import hashlib
import io
import re
import shutil
import subprocess
import sys
import tarfile

import jax
import numpy as np
import pages
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
from cyclegan_jax.export.web_page import check_browser_can_show

# Vulkan on the CPU, where there is no graphics card.
WEBGPU = (
  '--enable-unsafe-webgpu',
  '--use-webgpu-adapter=swiftshader',
  '--enable-features=Vulkan',
)
SMALL = {
  'data': {'size': 16, 'load_size': 16},
  'discriminator': {'filters': 1, 'layers': 1},
}
RESNET = {'name': 'resnet', 'filters': 4, 'blocks': 1, 'dropout': 0.0}
UNET = {'name': 'keras_unet', 'filters': 4, 'isize': 16, 'dropout': 0.5}
CONFIGS = {
  # Takes any size, padded by reflection. Its b is gray.
  'resnet': Config().replace(
    **SMALL | {'data': SMALL['data'] | {'channels_b': 1}}, generator=RESNET
  ),
  # Takes one size: other images are resized there and back.
  'unet': Config().replace(**SMALL, generator=UNET),
}
RUNTIME_FILES = list(onnxruntime_web._SHA256)
FILES = sorted(
  [
    *('index.html', 'icon.svg', 'page.css', 'page.js', 'worker.js'),
    *('onnxruntime/LICENSE', 'onnxruntime/ThirdPartyNotices.txt'),
    *(f'onnxruntime/{n.replace(".mjs", ".js")}' for n in RUNTIME_FILES),
  ]
)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """Checkpoints of random networks that use the whole range of values."""
  paths = {}
  for name, config in CONFIGS.items():
    state = create_train_state(config, jax.random.key(0))
    leaves, tree = jax.tree.flatten(state.gen)
    rng = np.random.default_rng(1)
    leaves = [x + np.float32(0.1 * rng.normal(size=x.shape)) for x in leaves]
    gen = jax.tree.unflatten(tree, leaves)
    paths[name] = tmp_path_factory.mktemp(name)
    with checkpoint.Saver(paths[name] / 'checkpoints', config) as saver:
      saver.save(state.replace(gen=gen))
  return paths


def export(run, to, *options):
  argv = ['export', run, '--format', 'web', '--to', to, *options]
  return cli.main([str(each) for each in argv])


def names_in(folder):
  return sorted(
    path.relative_to(folder).as_posix()
    for path in folder.rglob('*')
    if path.is_file()
  )


# The command, with other files in the place of onnxruntime-web.


@pytest.fixture
def fake_package(tmp_path, monkeypatch):
  """A package, unpacked, with the names of the real one."""
  folder = tmp_path / 'package'
  (folder / 'dist').mkdir(parents=True)
  for name in RUNTIME_FILES:
    (folder / 'dist' / name).write_text(name)
    digest = hashlib.sha256(name.encode()).hexdigest()
    monkeypatch.setitem(onnxruntime_web._SHA256, name, digest)
  return folder


def pack(path, files):
  with tarfile.open(path, 'w:gz') as archive:
    for name, content in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))
  return path


@pytest.mark.slow
def test_the_folder(runs, fake_package, tmp_path, capsys):
  to = tmp_path / 'site'
  to.mkdir()
  (to / 'mine.txt').write_text('mine')
  (to / 'page.css').write_text('old')
  options = ['--direction', 'ab', '--onnxruntime-web', fake_package]
  assert export(runs['resnet'], to, *options) == 1
  assert '--overwrite' in capsys.readouterr().err
  assert names_in(to) == ['mine.txt', 'page.css']
  assert export(runs['resnet'], to, *options, '--overwrite') == 0
  assert f'python -m http.server --directory {to}' in capsys.readouterr().out
  assert names_in(to) == sorted([*FILES, 'ab.onnx', 'mine.txt'])
  assert (to / 'page.css').read_text() != 'old'
  for path in (to / name for name in names_in(to)):
    if path.suffix not in ('.html', '.css', '.js') or path.parent != to:
      continue
    addresses = set(re.findall(r'https?://[^"<\s\',)]+', path.read_text()))
    assert addresses <= {
      'http://localhost:8000',
      'http://www.w3.org/2000/svg',
    }
  assert not list(tmp_path.glob('.*'))


def test_packages(fake_package, tmp_path):
  """Only this version's files are taken, from a folder or an archive."""
  files = {f'package/dist/{name}': name.encode() for name in RUNTIME_FILES}
  path = pack(tmp_path / 'good.tgz', files)
  onnxruntime_web.copy_runtime(tmp_path / 'copy', path)
  assert len(names_in(tmp_path / 'copy')) == len(RUNTIME_FILES) + 2
  empty = tmp_path / 'empty'
  empty.mkdir()
  (tmp_path / 'text.tgz').write_bytes(b'hello' * 100)
  (tmp_path / 'cut.tgz').write_bytes(path.read_bytes()[:-60])
  for bad in (
    tmp_path / 'text.tgz',
    tmp_path / 'cut.tgz',
    pack(tmp_path / 'none.tgz', {'package/package.json': b'{}'}),
    pack(tmp_path / 'other.tgz', dict.fromkeys(files, b'//')),
    pack(tmp_path / 'out.tgz', {f'../{k}': v for k, v in files.items()}),
    empty,
  ):
    with pytest.raises(UserError, match=str(bad)):
      onnxruntime_web.copy_runtime(tmp_path / 'bad', bad)
    assert not (tmp_path / 'bad').exists()
  with pytest.raises(UserError, match=f'--onnxruntime-web={tmp_path}/no'):
    onnxruntime_web.check_runtime_source(tmp_path / 'no')


def test_without_npm(monkeypatch):
  monkeypatch.setenv('PATH', '')
  with pytest.raises(UserError, match='--onnxruntime-web'):
    onnxruntime_web.check_runtime_source(None)


@pytest.mark.process
@pytest.mark.skipif(not shutil.which('npm'), reason='needs npm')
def test_without_a_network(tmp_path, monkeypatch):
  # A port at which nothing listens.
  monkeypatch.setenv('npm_config_registry', 'http://127.0.0.1:9/')
  monkeypatch.setenv('npm_config_cache', str(tmp_path / 'cache'))
  monkeypatch.setenv('npm_config_fetch_retries', '0')
  with pytest.raises(UserError, match=r'ECONNREFUSED.*--onnxruntime-web'):
    onnxruntime_web.copy_runtime(tmp_path / 'site')


@pytest.mark.parametrize(
  ('options', 'domain'),
  [
    ({'channels_a': 4}, 'a'),
    ({'dtype_b': 'uint16', 'low_b': 0.0, 'high_b': 4095.0}, 'b'),
  ],
)
def test_images_that_browsers_can_not_show(options, domain):
  with pytest.raises(UserError, match=f'domain {domain}'):
    check_browser_can_show(CONFIGS['resnet'].replace(data=options))


def test_a_file_in_the_way(tmp_path, capsys):
  (tmp_path / 'file').touch()
  assert export(tmp_path, tmp_path / 'file', '--overwrite') == 1
  assert str(tmp_path / 'file') in capsys.readouterr().err


# Translations in a browser.


@pytest.fixture(scope='module')
def sites(runs, tmp_path_factory):
  """Exported folders by name; 'half' is the ResNet in float16."""
  if not shutil.which('npm'):
    pytest.skip('needs npm')
  folder = tmp_path_factory.mktemp('npm')
  command = ['npm', 'pack', onnxruntime_web.PACKAGE]
  done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
  if done.returncode:
    pytest.skip(f'npm has no network: {done.stderr[:200]}')
  (package,) = folder.glob('*.tgz')
  folder = tmp_path_factory.mktemp('sites')
  ab = ['--direction', 'ab']
  for name, run, options in (
    ('resnet', 'resnet', []),
    ('unet', 'unet', ab),
    ('half', 'resnet', [*ab, '--dtype', 'float16']),
  ):
    options = [*options, '--onnxruntime-web', package]
    assert export(runs[run], folder / name, *options) == 0
  return {path.name: path for path in folder.iterdir()}


@contextlib.contextmanager
def serving(folder):
  """The URL of a plain web server."""
  command = [sys.executable, '-u', '-m', 'http.server', '0']
  with subprocess.Popen(
    [*command, '--bind', '127.0.0.1', '--directory', str(folder)],
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
  ) as process:
    try:
      port = re.search(r'port (\d+)', process.stdout.readline())[1]
      yield f'http://127.0.0.1:{port}/'
    finally:
      process.terminate()


@contextlib.contextmanager
def opened(browser, folder):
  with serving(folder) as url, pages.open_page(browser, url) as page:
    yield page


@pytest.fixture(scope='module')
def browser():
  with pages.chromium('--disable-gpu') as browser:
    yield browser


def drawing(height, width):
  size = max(height, width, 32)
  whole = drawings.draw(0, size=size, domain='a', split='test')
  return whole[:height, :width]


def decode(data):
  """[h, w, C], also of gray images."""
  pixels = pages.decode(data)
  return pixels[..., None] if pixels.ndim == 2 else pixels


def translate(page, data, name='a.png'):
  """Lets the page translate a file."""
  pages.choose_files(page, {name: data})
  return decode(pages.download(page)[1])


def difference(made, expected):
  assert made.shape == expected.shape
  assert expected.std() > 5  # not flat
  return np.abs(made.astype(int) - expected).max()


@pytest.mark.browser
@pytest.mark.parametrize(
  ('name', 'shapes'),
  [
    ('resnet', [(16, 16), (37, 91), (3, 130)]),
    ('unet', [(16, 16), (45, 23), (9, 120)]),
  ],
)
def test_pixels_match_the_translator(name, shapes, browser, sites, runs):
  translator = load_translator(runs[name], 'ab')
  with opened(browser, sites[name]) as page:
    for shape in shapes:
      pixels = drawing(*shape)
      made = translate(page, pages.encode(pixels))
      assert difference(made, translator(pixels)) <= 1
    assert page.inner_text('#state') == 'Ready: WASM'


@pytest.mark.browser
def test_there_and_back_and_from_gray(browser, sites, runs):
  pixels = drawing(30, 50)
  ab, ba = (load_translator(runs['resnet'], way) for way in ('ab', 'ba'))
  with opened(browser, sites['resnet']) as page:
    pages.choose_files(page, {'horse.jpeg.png': pages.encode(pixels)})
    page.get_by_role('button', name='All').click()
    page.locator('#stage figure').nth(2).wait_for()
    back = pages.pixels_of(page, '#stage .cell:nth-child(3) img')
    name, data = pages.download(page)
    assert name == 'horse.jpeg_ab.png'
    assert Image.open(io.BytesIO(data)).mode == 'L'
    assert difference(back, ba(decode(data))) <= 1
    assert difference(decode(data), ab(pixels)) <= 1

    url = page.get_attribute('#download', 'href')
    page.get_by_label('From zebra to horse').check()
    page.wait_for_selector(f'#download[href]:not([href="{url}"])')
    name, data = pages.download(page)
    assert name == 'horse.jpeg_ba.png'
  gray = np.asarray(Image.fromarray(pixels).convert('L'))[..., None]
  assert difference(decode(data), ba(gray)) <= 1


@pytest.mark.browser
def test_alpha_is_kept_and_photos_are_upright(browser, sites, runs):
  pixels = drawing(24, 40)
  alpha = np.full((24, 40, 1), 255, np.uint8)
  alpha[:8], alpha[8:16] = 0, 128
  exif = Image.Exif()
  exif[0x0112] = 6  # it lies on its side
  photo = pages.encode(pixels, 'JPEG', quality=95, exif=exif.tobytes())
  translator = load_translator(runs['unet'], 'ab')
  with opened(browser, sites['unet']) as page:
    made = translate(page, pages.encode(np.concatenate([pixels, alpha], -1)))
    turned = translate(page, photo, 'b.jpg')
  np.testing.assert_array_equal(made[..., 3:], alpha)
  whitened = np.where(alpha == 0, 255, pixels).astype(np.uint8)
  # Browsers store colors multiplied by alpha, so with 128 they lose a bit.
  assert difference(made[..., :3], translator(whitened)) <= 2
  upright = np.rot90(pages.decode(photo), -1)
  assert difference(turned, translator(upright)) <= 2


@pytest.mark.browser
def test_float16(browser, sites, runs):
  """Weights have 11 bits, so pixels may differ by a few units."""
  sizes = [
    (sites[name] / 'ab.onnx').stat().st_size for name in ('resnet', 'half')
  ]
  assert sizes[1] < 0.8 * sizes[0]
  pixels = drawing(20, 28)
  with opened(browser, sites['half']) as page:
    assert page.get_by_label('From zebra to horse').is_hidden()
    made = translate(page, pages.encode(pixels))
  assert difference(made, load_translator(runs['resnet'], 'ab')(pixels)) <= 3


@pytest.mark.browser
def test_webgpu_and_its_fallback(browser, sites, runs, tmp_path):
  pixels = drawing(16, 16)
  expected = load_translator(runs['resnet'], 'ab')(pixels)
  shutil.copytree(sites['resnet'], tmp_path / 'broken')
  (tmp_path / 'broken/onnxruntime/ort.webgpu.bundle.min.js').unlink()
  with pages.launch(browser.browser_type, *WEBGPU) as with_gpu:
    with opened(with_gpu, sites['resnet']) as page:
      page.wait_for_selector('#state:not(:empty)')
      if not page.inner_text('#state').startswith('WebGPU'):
        pytest.skip('this Chromium has no WebGPU, not even on the CPU')
      made = translate(page, pages.encode(pixels))
      assert page.inner_text('#state') == 'Ready: WebGPU'
    assert difference(made, expected) <= 1
    with opened(with_gpu, tmp_path / 'broken') as page:
      made = translate(page, pages.encode(pixels))
      assert page.inner_text('#state') == 'Ready: WASM (WebGPU failed)'
    assert difference(made, expected) <= 1


@pytest.mark.browser
def test_images_are_dropped_pasted_and_taken_with_the_camera(browser, sites):
  with opened(browser, sites['unet']) as page:
    page.evaluate(pages.DROP_AND_PASTE, list(pages.encode(drawing(20, 20))))
    page.locator('.thumb.done').nth(1).wait_for()
    pages.take_picture(page)
    page.locator('.thumb.done').nth(2).wait_for()


@pytest.mark.browser
def test_the_network_is_loaded_once(browser, sites):
  with opened(browser, sites['unet']) as page:
    page.wait_for_selector('#state:not(:empty)')
    assert page.inner_text('#state') == 'WASM, 14 MB to load once'
    page.evaluate(
      """() => {
        window.shares = [];
        const progress = document.querySelector('#progress');
        new MutationObserver(() => shares.push(progress.value)).observe(
          progress, { attributeFilter: ['value'] });
      }"""
    )
    translate(page, pages.encode(drawing(20, 20)))
    # Every part that arrives moves the bar.
    assert len({x for x in page.evaluate('shares') if 0 < x < 1}) > 3
    page.evaluate('shares.length = 0')
    translate(page, pages.encode(drawing(21, 20)), 'b.png')
    assert not any(page.evaluate('shares'))


@pytest.mark.browser
def test_files_that_are_no_images(browser, sites):
  good = pages.encode(drawing(20, 20))
  with opened(browser, sites['unet']) as page:
    pages.choose_files(page, {'cut.png': good[:200], 'text.png': b'no image'})
    for name in ('cut.png', 'text.png'):
      page.get_by_role('button', name=name, exact=True).click()
      page.get_by_role('alert').filter(has_text='cannot read').wait_for()
      assert page.get_by_role('button', name='Try again').is_hidden()
    translate(page, good, 'good.png')


@pytest.mark.browser
def test_an_image_that_is_too_large_is_reduced(browser, sites, tmp_path):
  site = shutil.copytree(sites['resnet'], tmp_path / 'site')
  index = (site / 'index.html').read_text()
  limited = re.sub('"max_pixels":[0-9]+', '"max_pixels":1000', index)
  (site / 'index.html').write_text(limited)
  with opened(browser, site) as page:
    pages.choose_files(page, {'a.png': pages.encode(drawing(40, 60))})
    button = page.get_by_role('button', name='Make it smaller')
    button.wait_for()
    assert '60 x 40' in page.get_by_role('alert').inner_text()
    button.click()
    page.locator('.thumb.done').wait_for()
    assert decode(pages.download(page)[1]).shape == (25, 38, 1)


@pytest.mark.browser
def test_a_damaged_folder_can_be_repaired(browser, sites, tmp_path):
  """Each damage is reported, and a retry works without reloading the page."""
  site = shutil.copytree(sites['unet'], tmp_path / 'site')
  network = site / 'ab.onnx'
  content = network.read_bytes()
  (site / 'worker.js').unlink()
  with opened(browser, site) as page:

    def wait_for(text):
      page.get_by_role('alert').filter(has_text=text).wait_for()
      return page.get_by_role('button', name='Try again')

    pages.choose_files(page, {'a.png': pages.encode(drawing(20, 20))})
    retry = wait_for('worker cannot be loaded')
    shutil.copy2(sites['unet'] / 'worker.js', site)
    network.unlink()
    retry.click()
    retry = wait_for('no ab.onnx (status 404)')
    network.write_bytes(content[:-10])
    retry.click()
    retry = wait_for('is not the file that was exported with this page')
    network.write_bytes(content[::-1])
    retry.click()
    retry = wait_for('The network failed: ')
    # With its old date, by which browsers take it for the cached file.
    shutil.copy2(sites['unet'] / 'ab.onnx', network)
    retry.click()
    page.locator('.thumb.done').wait_for()


@pytest.mark.browser
def test_the_page_from_a_disk(browser, sites):
  page = browser.new_page()
  page.goto((sites['unet'] / 'index.html').as_uri())
  assert page.locator('#from-disk').is_visible()
  assert page.locator('#drop').is_hidden()
  page.close()
