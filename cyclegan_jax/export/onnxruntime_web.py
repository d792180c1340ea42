"""The files of onnxruntime-web, which runs ONNX in browsers, from npm."""

import hashlib
import importlib.resources
import pathlib
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from typing import NamedTuple

from cyclegan_jax.errors import UserError

VERSION = '1.30.0'
PACKAGE = f'onnxruntime-web@{VERSION}'
_NPM_SECONDS = 600
_HOW_ELSE = (
  f'or get it elsewhere by `npm pack {PACKAGE}` and give the file with '
  '--onnxruntime-web'
)


class Runtime(NamedTuple):
  """What a browser loads of the package, names in its folder dist/.

  Attributes:
    script: a JavaScript module.
    wasm: what it runs.
  """

  script: str
  wasm: str


# The one with WebGPU is twice as large, and slower on a CPU.
RUNTIMES = {
  'webgpu': Runtime(
    'ort.webgpu.bundle.min.mjs', 'ort-wasm-simd-threaded.asyncify.wasm'
  ),
  'wasm': Runtime('ort.wasm.bundle.min.mjs', 'ort-wasm-simd-threaded.wasm'),
}
# Of the files in this version: no others are taken.
_SHA256 = {
  'ort.webgpu.bundle.min.mjs': '0730816731ce2cdfb06f273da065d4a1'
  'c7091eb9d1756a83b2916c8a89d015e2',
  'ort-wasm-simd-threaded.asyncify.wasm': '39f9f0894d478800487ed9f7dbe92618'
  '498db320cf55c8e3d89adff8dce658da',
  'ort.wasm.bundle.min.mjs': '11e64bd8ffe11bd1a2a2f0d6275fdfbb'
  'ba7262f0b76b99b53d228a8a22ef3d90',
  'ort-wasm-simd-threaded.wasm': '3398c10d07d229bd91b364548e130e0e'
  '51a8e5704b88c7c083ebbeb78842dee2',
}
_MAX_BYTES = 2**26  # of one of them
# The package on npm has no copy of its license, the one for Python does.
_NOTICES = ('LICENSE', 'ThirdPartyNotices.txt')


def check_source(source: pathlib.Path | None) -> None:
  """Raises UserError where `vendor` would have nowhere to take files from."""
  if source is None and not shutil.which('npm'):
    raise UserError(
      '--format web takes onnxruntime-web from npm, which is not on the PATH: '
      f'install Node.js, {_HOW_ELSE}'
    )
  if source is not None and not source.exists():
    raise UserError(f'--onnxruntime-web {source} is not there')


def vendor(folder: pathlib.Path, source: pathlib.Path | None = None) -> None:
  """Writes the files that browsers need, and their licenses, to a new folder.

  Modules get the ending .js, which every web server has a type for.

  Args:
    folder: that is made.
    source: the package, unpacked or as npm packs it (.tgz); None for npm's.

  Raises:
    UserError: it is not to be had, or not this version's.
  """
  if source is None:
    with tempfile.TemporaryDirectory() as scratch:
      vendor(folder, _fetch(pathlib.Path(scratch)))
    return
  contents = _read_folder(source) if source.is_dir() else _read_tgz(source)
  for name, expected in _SHA256.items():
    if name not in contents:
      raise UserError(
        f'{source} has no dist/{name}: it is not {PACKAGE}, {_HOW_ELSE}'
      )
    if hashlib.sha256(contents[name]).hexdigest() != expected:
      raise UserError(
        f'{source}: dist/{name} is not that of {PACKAGE}; it is damaged, or of '
        f'another version: leave out --onnxruntime-web, {_HOW_ELSE}'
      )
  folder.mkdir()
  for name, content in contents.items():
    (folder / served_name(name)).write_bytes(content)
  for name in _NOTICES:
    notice = importlib.resources.files('onnxruntime') / name
    (folder / name).write_bytes(notice.read_bytes())


def served_name(name: str) -> str:
  """What a file of the package is called in the folder."""
  return name.replace('.mjs', '.js')


def _fetch(scratch: pathlib.Path) -> pathlib.Path:
  """Has npm download the package, whose checksum it verifies."""
  command = ['npm', 'pack', PACKAGE, '--ignore-scripts', '--loglevel=error']
  try:
    done = subprocess.run(
      command,
      cwd=scratch,  # where no project has settings of its own
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      errors='replace',
      timeout=_NPM_SECONDS,
    )
  except subprocess.TimeoutExpired as error:
    raise UserError(
      f'npm could not fetch {PACKAGE} in {_NPM_SECONDS} seconds: check the '
      f'network, {_HOW_ELSE}'
    ) from error
  except OSError as error:
    raise UserError(
      f'npm can not be started ({error}): mend Node.js, {_HOW_ELSE}'
    ) from error
  files = list(scratch.glob('*.tgz'))
  if done.returncode or not files:
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    reason = ' / '.join(lines[:2]) or f'status {done.returncode}'
    raise UserError(
      f'npm can not fetch {PACKAGE} ({reason}): check the network, {_HOW_ELSE}'
    )
  return files[0]


def _read_folder(source: pathlib.Path) -> dict[str, bytes]:
  """The files that are known, by name."""
  try:
    return {
      name: path.read_bytes()
      for name in _SHA256
      if (path := source / 'dist' / name).is_file()
    }
  except OSError as error:
    raise UserError(f'{source} can not be read ({error})') from error


def _read_tgz(source: pathlib.Path) -> dict[str, bytes]:
  """The same, of an archive; nothing is unpacked by the names in it."""
  wanted = {f'package/dist/{name}': name for name in _SHA256}
  contents = {}
  try:
    with tarfile.open(source, 'r:gz') as archive:
      for member in archive:
        name = wanted.get(member.name)
        if not name or not member.isfile() or member.size > _MAX_BYTES:
          continue
        file = archive.extractfile(member)
        assert file is not None  # of a file it never is
        contents[name] = file.read()
  except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
    raise UserError(
      f'{source} can not be read as what npm packs ({error}): {_HOW_ELSE[3:]}'
    ) from error
  return contents
