"""The files of onnxruntime-web, which runs ONNX in browsers."""

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
_OTHER_SOURCE = (
  f'or run `npm pack {PACKAGE}` elsewhere and give the file with '
  '--onnxruntime-web'
)


class Runtime(NamedTuple):
  """Files that a browser loads, by their names in the package's dist/.

  Attributes:
    script: JavaScript module.
    wasm: WebAssembly that the module runs.
  """

  script: str
  wasm: str


# The runtime with WebGPU is twice as large, and slower on a CPU.
RUNTIMES = {
  'webgpu': Runtime(
    'ort.webgpu.bundle.min.mjs', 'ort-wasm-simd-threaded.asyncify.wasm'
  ),
  'wasm': Runtime('ort.wasm.bundle.min.mjs', 'ort-wasm-simd-threaded.wasm'),
}
# Only these files of this version are accepted.
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
_MAX_FILE_BYTES = 2**26
# From the Python package: the one on npm has no copy of its license.
_LICENSES = ('LICENSE', 'ThirdPartyNotices.txt')


def check_runtime_source(source: pathlib.Path | None) -> None:
  """Raises UserError if `copy_runtime` would have no source."""
  if source is None and not shutil.which('npm'):
    raise UserError(
      '--format web takes onnxruntime-web from npm, which is not on the PATH: '
      f'install Node.js, {_OTHER_SOURCE}'
    )
  if source is not None and not source.exists():
    raise UserError(
      f'--onnxruntime-web={source} does not exist: give the file of `npm pack`'
    )


def copy_runtime(
  folder: pathlib.Path, source: pathlib.Path | None = None
) -> None:
  """Writes the files that browsers need, and their licenses, to a new folder.

  Modules get the ending .js, whose type every web server knows.

  Args:
    folder: created by this function.
    source: the package, unpacked or as npm packs it (.tgz); None to have npm
      download it.

  Raises:
    UserError: the package cannot be downloaded or read, or is of another
      version.
  """
  if source is None:
    with tempfile.TemporaryDirectory() as scratch:
      copy_runtime(folder, _download(pathlib.Path(scratch)))
    return
  contents = _read_folder(source) if source.is_dir() else _read_tgz(source)
  for name, expected in _SHA256.items():
    if name not in contents:
      raise UserError(
        f'{source} has no dist/{name}: it is not {PACKAGE}, {_OTHER_SOURCE}'
      )
    if hashlib.sha256(contents[name]).hexdigest() != expected:
      raise UserError(
        f'{source}: dist/{name} is not that of {PACKAGE}; it is damaged or of '
        f'another version: leave out --onnxruntime-web, {_OTHER_SOURCE}'
      )
  folder.mkdir()
  for name, content in contents.items():
    (folder / served_name(name)).write_bytes(content)
  for name in _LICENSES:
    text = importlib.resources.files('onnxruntime') / name
    (folder / name).write_bytes(text.read_bytes())


def served_name(name: str) -> str:
  """Name in the exported folder of a file of the package."""
  return name.replace('.mjs', '.js')


def _download(folder: pathlib.Path) -> pathlib.Path:
  """Lets npm download the package, whose checksum npm verifies."""
  command = ['npm', 'pack', PACKAGE, '--ignore-scripts', '--loglevel=error']
  try:
    process = subprocess.run(
      command,
      cwd=folder,  # no project's npm settings apply here
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      errors='replace',
      timeout=_NPM_SECONDS,
    )
  except subprocess.TimeoutExpired as error:
    raise UserError(
      f'npm did not download {PACKAGE} in {_NPM_SECONDS} seconds: check the '
      f'network, {_OTHER_SOURCE}'
    ) from error
  except OSError as error:
    raise UserError(
      f'npm cannot be started ({error}): repair Node.js, {_OTHER_SOURCE}'
    ) from error
  files = list(folder.glob('*.tgz'))
  if process.returncode or not files:
    lines = [line for line in process.stderr.splitlines() if line.strip()]
    reason = ' / '.join(lines[:2]) or f'status {process.returncode}'
    raise UserError(
      f'npm cannot download {PACKAGE} ({reason}): check the network, '
      f'{_OTHER_SOURCE}'
    )
  return files[0]


def _read_folder(source: pathlib.Path) -> dict[str, bytes]:
  """The known files of an unpacked package, by name."""
  try:
    return {
      name: path.read_bytes()
      for name in _SHA256
      if (path := source / 'dist' / name).is_file()
    }
  except OSError as error:
    raise UserError(f'{source} cannot be read ({error})') from error


def _read_tgz(source: pathlib.Path) -> dict[str, bytes]:
  """The known files of an archive, read without unpacking it."""
  wanted = {f'package/dist/{name}': name for name in _SHA256}
  contents = {}
  try:
    with tarfile.open(source, 'r:gz') as archive:
      for member in archive:
        name = wanted.get(member.name)
        if not name or not member.isfile() or member.size > _MAX_FILE_BYTES:
          continue
        file = archive.extractfile(member)
        assert file is not None  # only of members that are not files
        contents[name] = file.read()
  except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
    raise UserError(
      f'{source} cannot be read as a package of npm ({error}): run `npm pack '
      f'{PACKAGE}` again'
    ) from error
  return contents
