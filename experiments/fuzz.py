"""Fuzzes what reads files of unknown origin, guided by coverage.

  pip install atheris
  python experiments/fuzz.py image --seconds 3600

Targets are image (decoding), archive (zip files), config (JSON), argv (the
command line) and checkpoint (its record and its manifest). Each may raise the
errors that it documents; anything else is a finding, and so is an input that
takes 10 seconds or far more memory than it should. Findings and the corpus
are kept in runs/fuzz/TARGET, and the next call goes on from there.
"""

import argparse
import collections
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
MAX_PIXELS = 2**18
UNIT_SECONDS = 10
MAX_BYTES = 2**16
SCRATCH = f'cyclegan_jax_fuzz_{os.getuid()}_'
INSTRUMENTED = ['cyclegan_jax', 'PIL', 'zipfile', 'json']

Check = Callable[[bytes], None]


def expect_line(error: Exception) -> None:
  """A message is one line, whatever was in the input."""
  if len(str(error).splitlines()) != 1:
    raise ValueError(f'not one line: {str(error)!r}') from error


def image_target(folder: pathlib.Path) -> tuple[Check, Iterable[bytes]]:
  """Pixels or ImageError, and the size that the header told."""
  from cyclegan_jax.media.decoding import (
    ImageError,
    decode,
    decoded_shape,
  )

  del folder
  options: dict[str, Any] = {'max_pixels': MAX_PIXELS}

  def check(data: bytes) -> None:
    shape = None
    try:
      shape = decoded_shape(io.BytesIO(data), 'x', **options)
    except ImageError as error:
      expect_line(error)
    for channels in (1, 2, 3, 4):
      try:
        image = decode(io.BytesIO(data), 'x', channels=channels, **options)
      except ImageError as error:
        expect_line(error)
        return
      assert image.shape == (*(shape or ()), channels), (image.shape, shape)
      assert str(image.dtype) == 'uint8'

  return check, image_seeds()


def archive_target(folder: pathlib.Path) -> tuple[Check, Iterable[bytes]]:
  """Members of the listed sizes, or DataError."""
  from cyclegan_jax.data import archive
  from cyclegan_jax.errors import DataError

  path = str(folder / 'fuzzed.zip')

  def check(data: bytes) -> None:
    pathlib.Path(path).write_bytes(data)
    try:
      found = archive.Archive(path)
    except DataError as error:
      expect_line(error)
      return
    for member in found.images[:8]:
      assert '..' not in member.filename.split('/'), member
      assert not member.filename.startswith('/'), member
      try:
        assert len(found.read(member)) == member.file_size
      except DataError as error:
        expect_line(error)

  return check, archive_seeds()


def config_target(folder: pathlib.Path) -> tuple[Check, Iterable[bytes]]:
  """A config that survives a round trip, or ConfigError."""
  import dataclasses

  from cyclegan_jax.config import from_config_dict
  from cyclegan_jax.errors import ConfigError

  del folder

  def check(data: bytes) -> None:
    try:
      values = json.loads(data)
    except (ValueError, RecursionError):
      return
    try:
      config = from_config_dict(values)
    except ConfigError as error:
      expect_line(error)
      return
    again = from_config_dict(json.loads(json.dumps(dataclasses.asdict(config))))
    assert again == config
    assert hash(again) == hash(config)

  return check, config_seeds()


def argv_target(folder: pathlib.Path) -> tuple[Check, Iterable[bytes]]:
  """What a command line asks for, or ConfigError."""
  from cyclegan_jax.commands.train_flags import parse_train_flags
  from cyclegan_jax.errors import ConfigError

  del folder

  def check(data: bytes) -> None:
    words = data.decode(errors='surrogateescape').split('\0')
    # A config file is Python, and would be run.
    if any(re.match('--?config(=|$)', word) for word in words):
      return
    try:
      parse_train_flags(words)
    except ConfigError as error:
      expect_line(error)

  return check, argv_seeds()


def checkpoint_target(folder: pathlib.Path) -> tuple[Check, Iterable[bytes]]:
  """What describes a checkpoint: read, or named as damaged."""
  from cyclegan_jax.config import from_config_dict
  from cyclegan_jax.errors import ConfigError, WorkdirError
  from cyclegan_jax.storage import checkpoint, checksums

  inside = folder / 'checkpoints' / '7'
  inside.mkdir(parents=True)

  def check_record(data: bytes) -> None:
    (inside / checkpoint.RECORD_FILE).write_bytes(data)
    checkpoint.best_step(folder / 'checkpoints', 'loss', 'min')
    try:
      from_config_dict(checkpoint._read_record(inside)['config'])
    except (checksums.DamagedError, ConfigError) as error:
      expect_line(error)

  def check_manifest(data: bytes) -> None:
    (inside / checksums.MANIFEST_FILE).write_bytes(data)
    for read in (checkpoint._check_format, checksums.check_manifest):
      try:
        read(inside)
      except (checksums.DamagedError, WorkdirError) as error:
        expect_line(error)

  def check(data: bytes) -> None:
    check_record(data)
    check_manifest(data)
    # Its own checksum is easily made right, by whoever wants to.
    try:
      values = json.loads(data)
      check_manifest(checksums._encode(values))
    except (ValueError, TypeError, RecursionError):
      return

  return check, checkpoint_seeds()


TARGETS = {
  'image': image_target,
  'archive': archive_target,
  'config': config_target,
  'argv': argv_target,
  'checkpoint': checkpoint_target,
}


def image_seeds() -> Iterable[bytes]:
  """Small files of every format and mode that Pillow writes."""
  import numpy as np
  from PIL import Image, PngImagePlugin

  pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 4), np.uint8)
  base = Image.fromarray(pixels, 'RGBA')
  exif = Image.Exif()
  exif[0x0112] = 6
  text = PngImagePlugin.PngInfo()
  text.add_itxt('XML:com.adobe.xmp', 'tiff:Orientation="3"', zip=True)
  variants: dict[str, list[dict[str, Any]]] = {
    'PNG': [{}, {'exif': exif}, {'pnginfo': text}, {'icc_profile': b'x' * 99}],
    'JPEG': [{}, {'exif': exif}, {'progressive': True}, {'quality': 5}],
    'WEBP': [{}, {'exif': exif}, {'lossless': True}],
    'BMP': [{}],
    'TIFF': [
      {},
      {'exif': exif},
      {'big_tiff': True},
      *(
        {'compression': each}
        for each in ('tiff_lzw', 'jpeg', 'packbits', 'tiff_adobe_deflate')
      ),
    ],
    'MPO': [{}],
  }
  modes = ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'I;16')
  for kind, options in variants.items():
    for mode in modes:
      for each in options:
        image = base.convert('L' if mode == 'I;16' else mode)
        image = image.convert('I;16') if mode == 'I;16' else image
        file = io.BytesIO()
        try:
          image.save(file, kind, **each)
        except (OSError, ValueError, KeyError):  # not in this format
          continue
        yield file.getvalue()
  for kind in ('PNG', 'WEBP', 'TIFF', 'MPO'):
    file = io.BytesIO()
    frames = [base.convert('RGB').rotate(90 * i) for i in range(3)]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    yield file.getvalue()


def archive_seeds() -> Iterable[bytes]:
  """Archives of several kinds."""
  for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    for names in (
      ['a.png'],
      ['h/', 'h/trainA/1.png', 'h/trainB/é.png', '__MACOSX/._1.png', 'x.txt'],
    ):
      file = io.BytesIO()
      with zipfile.ZipFile(file, 'w', method) as archive:
        archive.comment = b'comment' * (len(names) > 1)
        for name in names:
          archive.writestr(name, b'' if name[-1] == '/' else name.encode() * 30)
      yield file.getvalue()
  file = io.BytesIO()
  with (
    zipfile.ZipFile(file, 'w') as archive,
    archive.open('a.png', 'w', force_zip64=True) as member,
  ):
    member.write(b'x' * 50)
  yield file.getvalue()


def config_seeds() -> Iterable[bytes]:
  """The default, and its sections."""
  import dataclasses

  from cyclegan_jax.config import Config

  whole = dataclasses.asdict(Config())
  yield json.dumps(whole).encode()
  for name, value in whole.items():
    yield json.dumps({name: value}).encode()


def argv_seeds() -> Iterable[bytes]:
  """Every option in several spellings."""
  from cyclegan_jax.config import option_at, option_paths

  for path in option_paths():
    default = option_at(path).default
    yield f'--{path}={default}'.encode()
    yield f'--{path}\0{default}\0--workdir=x\0--debug'.encode()
    if isinstance(default, bool):
      yield f'--no{path}\0--{path}'.encode()
  yield b'--help\0--nodebug\0-h\0--\0x'


def checkpoint_seeds() -> Iterable[bytes]:
  """A record and a manifest."""
  import dataclasses

  from cyclegan_jax.config import Config

  yield json.dumps(
    {
      'config': dataclasses.asdict(Config()),
      'versions': {'jax': '0.1'},
      'data': {'train_a': {'count': 3, 'sha256': '00'}},
      'metrics': {'loss': 1.5},
    }
  ).encode()
  yield b'{"config": {}, "versions": {}, "data": {}, "metrics": {"loss": 1}}'
  entry = {'size': 3, 'sha256': '00'}
  files = {'record.json': entry, 'state/a': entry}
  yield json.dumps({'format': 2, 'files': files}).encode()
  yield b'{"format": 1, "files": {}}'


def mend_png(data: bytes) -> bytes:
  """Makes the checksums of a PNG file right, which mutation breaks."""
  if not data.startswith(b'\x89PNG\r\n\x1a\n'):
    return data
  mended = bytearray(data)
  at = 8
  while at + 12 <= len(data):
    (length,) = struct.unpack_from('>I', data, at)
    end = at + 8 + length
    if end + 4 > len(data):
      break
    struct.pack_into('>I', mended, end, zlib.crc32(data[at + 4 : end]))
    at = end + 4
  return bytes(mended)


class Findings:
  """Saves each kind of surprise once, with its input."""

  def __init__(self, folder: pathlib.Path) -> None:
    self._folder = folder
    self._known: set[str] = {path.stem for path in folder.glob('*.txt')}

  def note(self, error: Exception, data: bytes) -> None:
    """Notes an error by its type and by where in our code it came from."""
    first = error.__cause__ or error
    frames = traceback.extract_tb(first.__traceback__)
    places = [f'{each.filename}:{each.lineno}' for each in frames]
    ours = [each for each in places if 'cyclegan_jax/' in each]
    key = f'{type(error).__name__} {(ours or places)[-1]} {places[-1]}'
    name = 'error-' + hashlib.sha256(key.encode()).hexdigest()[:12]
    if name in self._known:
      return
    self._known.add(name)
    (self._folder / name).write_bytes(data)
    text = ''.join(traceback.format_exception(error))
    (self._folder / f'{name}.txt').write_text(text, errors='replace')


def work(target: str, folder: pathlib.Path, seconds: float) -> None:
  """Fuzzes in this process, which libFuzzer ends."""
  import atheris

  sys.path.insert(0, str(ROOT))
  warnings.simplefilter('ignore')
  corpus, found = folder / 'corpus', folder / 'findings'
  with atheris.instrument_imports(include=INSTRUMENTED):
    inside = pathlib.Path(tempfile.mkdtemp(prefix=SCRATCH, dir=_memory()))
    check, seeds = TARGETS[target](inside)
  for seed in seeds:
    (corpus / hashlib.sha256(seed).hexdigest()[:20]).write_bytes(seed)
  findings = Findings(found)

  def test_one(data: bytes) -> None:
    try:
      check(data)
    except Exception as error:  # every one is a finding
      findings.note(error, data)

  def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    del seed
    return mend_png(atheris.Mutate(data, max_size))

  options = {
    'max_total_time': int(seconds),
    'timeout': UNIT_SECONDS,
    'rss_limit_mb': 4096 if target == 'checkpoint' else 1024,
    'max_len': MAX_BYTES,
    'artifact_prefix': f'{found}/',
    'print_final_stats': 1,
  }
  argv = [sys.argv[0], str(corpus)]
  argv += [f'-{name}={value}' for name, value in options.items()]
  atheris.Setup(
    argv, test_one, custom_mutator=mutate if target == 'image' else None
  )
  atheris.Fuzz()


def _memory() -> str:
  """A folder for files that are written again and again."""
  return '/dev/shm' if os.path.isdir('/dev/shm') else tempfile.gettempdir()


def run(target: str, folder: pathlib.Path, seconds: float) -> None:
  """Fuzzes in processes, as one may crash, and reports."""
  for name in ('corpus', 'findings'):
    (folder / name).mkdir(parents=True, exist_ok=True)
  before = {path.name for path in (folder / 'findings').iterdir()}
  executions = 0
  began = time.monotonic()
  while (left := seconds - (time.monotonic() - began)) > 1:
    command = [sys.executable, __file__, target, '--seconds', str(left)]
    command += ['--folder', str(folder), '--worker']
    with subprocess.Popen(
      command, stderr=subprocess.PIPE, text=True, errors='replace'
    ) as process:
      assert process.stderr
      last = collections.deque(process.stderr, maxlen=10**5)
    counts = [re.match(r'#(\d+)\s', line) for line in last]
    counts += [
      re.match(r'stat::number_of_executed_units: (\d+)', x) for x in last
    ]
    count = max((int(each[1]) for each in counts if each), default=0)
    executions += count
    if not count:
      sys.exit(f'{target} does not start:\n{"".join(list(last)[-20:])}')
  took = time.monotonic() - began
  for path in pathlib.Path(_memory()).glob(f'{SCRATCH}*'):
    shutil.rmtree(path)
  names = sorted(path.name for path in (folder / 'findings').iterdir())
  found = [name for name in names if not name.endswith('.txt')]
  new = [name for name in found if name not in before]
  print(
    f'{target}: {executions:,} executions in {took:.0f} s '
    f'({executions / took:,.0f}/s), {len(new)} findings'
    f'{f" and {len(found) - len(new)} of before" if found != new else ""}'
  )
  for name in new:
    print(f'  {folder}/findings/{name}')
    text = folder / 'findings' / f'{name}.txt'
    if text.exists():
      print(f'    {text.read_text().splitlines()[-1][:200]}')


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('target', choices=TARGETS)
  parser.add_argument('--seconds', type=float, default=180)
  parser.add_argument('--folder', type=pathlib.Path)
  parser.add_argument('--worker', action='store_true', help=argparse.SUPPRESS)
  args = parser.parse_args()
  folder = args.folder or ROOT / 'runs' / 'fuzz' / args.target
  (work if args.worker else run)(args.target, folder, args.seconds)


if __name__ == '__main__':
  main()
