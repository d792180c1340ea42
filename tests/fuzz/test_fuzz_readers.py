"""Mutated images, archives, configs, command lines and checkpoint records.

  CYCLEGAN_FUZZ_SECONDS=1800 pytest -n 0 -s -m fuzz tests/fuzz

Each reader may raise the errors that it documents. Any other error fails, and
so does an input that takes seconds. The input of a failure is shown.
"""

import dataclasses
import io
import json
import os
import random
import re
import struct
import time
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, features

from cyclegan_jax.commands.train_flags import parse_train_flags
from cyclegan_jax.config import (
  Config,
  from_config_dict,
  option_at,
  option_paths,
)
from cyclegan_jax.data import archive
from cyclegan_jax.errors import ConfigError, DataError, WorkdirError
from cyclegan_jax.media.decoding import ImageError, decode, decoded_shape
from cyclegan_jax.storage import checkpoint, checksums

pytestmark = pytest.mark.fuzz

SECONDS = float(os.environ.get('CYCLEGAN_FUZZ_SECONDS', '6'))
SEED = int(os.environ.get('CYCLEGAN_FUZZ_SEED', '0'))
MAX_BYTES = 2**16
MAX_SECONDS = 10  # for one input
MAX_PIXELS = 2**18


def mutate(rng, corpus):
  """A member of the corpus with some bytes changed, moved, cut or joined."""
  data = bytearray(rng.choice(corpus))
  for _ in range(rng.choice([1, 1, 2, 4, 16])):
    at = rng.randrange(len(data) + 1)
    length = rng.choice([1, 2, 4, 8, rng.randint(1, 100)])
    match rng.randrange(7):
      case 0 if at < len(data):
        data[at] ^= 1 << rng.randrange(8)
      case 1 if at < len(data):
        data[at] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
      case 2:
        del data[at : at + length]
      case 3:
        data[at:at] = data[at : at + length] * rng.choice([1, 1, 50])
      case 4:
        number = rng.choice([0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1])
        kind = rng.choice(['<H', '>H', '<I', '>I'])
        number &= 2 ** (8 * struct.calcsize(kind)) - 1
        data[at : at + struct.calcsize(kind)] = struct.pack(kind, number)
      case 5:
        other = rng.choice(corpus)
        start = rng.randrange(len(other) + 1)
        data[at:at] = other[start : start + length]
      case 6 if rng.random() < 0.2:
        del data[at:]
  return bytes(data[:MAX_BYTES])


def fuzz(check, corpus, *, repair=bytes):
  """Gives mutated members of a corpus to a function until time is over.

  Args:
    check: a function of bytes that raises whatever is a finding.
    corpus: valid inputs.
    repair: applied to each mutated input.
  """
  rng, corpus, count = random.Random(SEED), list(corpus), 0
  for data in corpus:
    check(data)
  end = time.monotonic() + SECONDS
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    while time.monotonic() < end:
      data = repair(mutate(rng, corpus))
      began = time.process_time()
      try:
        check(data)
      except Exception as error:
        raise AssertionError(f'finding: {data!r}') from error
      assert time.process_time() - began < MAX_SECONDS, data
      count += 1
  print(f'{count:,} inputs')


def expect_line(error):
  """A message is one line, whatever was in the input."""
  assert len(str(error).splitlines()) == 1, str(error)


# Images.


def image_files():
  """Small files of each format and mode that Pillow writes."""
  pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 4), np.uint8)
  base = Image.fromarray(pixels)
  exif = Image.Exif()
  exif[0x0112] = 6
  text = PngImagePlugin.PngInfo()
  text.add_itxt('XML:com.adobe.xmp', 'tiff:Orientation="3"', zip=True)
  variants = {
    'PNG': [{}, {'exif': exif}, {'pnginfo': text}, {'icc_profile': b'x' * 99}],
    'JPEG': [{}, {'exif': exif}, {'progressive': True}],
    'WEBP': [{}, {'exif': exif}, {'lossless': True}],
    'BMP': [{}],
    'GIF': [{}],
    'PPM': [{}],
    **({'AVIF': [{}, {'exif': exif}]} if features.check('avif') else {}),
    'TIFF': [{}, {'exif': exif}, {'big_tiff': True}]
    + [{'compression': name} for name in ('tiff_lzw', 'jpeg', 'packbits')],
    'MPO': [{}],
  }
  modes = ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'I;16')
  for kind, options in variants.items():
    for mode in modes:
      for option in options:
        image = base.convert('L' if mode == 'I;16' else mode).convert(mode)
        file = io.BytesIO()
        try:
          image.save(file, kind, **option)
        except (OSError, ValueError, KeyError):  # not in this format
          continue
        yield file.getvalue()
  for kind in ('PNG', 'WEBP', 'TIFF', 'MPO'):
    file = io.BytesIO()
    frames = [base.convert('RGB').rotate(90 * i) for i in range(3)]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    yield file.getvalue()


def repair_png(data):
  """Corrects the checksums of a PNG file, which mutation breaks."""
  if not data.startswith(b'\x89PNG\r\n\x1a\n'):
    return data
  repaired, at = bytearray(data), 8
  while at + 12 <= len(data):
    (length,) = struct.unpack_from('>I', data, at)
    end = at + 8 + length
    if end + 4 > len(data):
      break
    struct.pack_into('>I', repaired, end, zlib.crc32(data[at + 4 : end]))
    at = end + 4
  return bytes(repaired)


def check_image(data):
  shape = None
  try:
    shape = decoded_shape(io.BytesIO(data), 'x', max_pixels=MAX_PIXELS)
  except ImageError as error:
    expect_line(error)
  for channels in (1, 2, 3, 4):
    try:
      image = decode(
        io.BytesIO(data), 'x', channels=channels, max_pixels=MAX_PIXELS
      )
    except ImageError as error:
      expect_line(error)
      return
    assert image.shape == (*(shape or ()), channels)
    assert image.dtype == np.uint8


def test_images():
  fuzz(check_image, image_files(), repair=repair_png)


# Archives.


def archives():
  for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    for names in (
      ['a.png'],
      ['h/', 'h/trainA/1.png', 'h/trainB/é.png', '__MACOSX/._1.png', 'x.txt'],
    ):
      file = io.BytesIO()
      with zipfile.ZipFile(file, 'w', method) as writer:
        writer.comment = b'comment' * (len(names) > 1)
        for name in names:
          writer.writestr(name, b'' if name[-1] == '/' else name.encode() * 30)
      yield file.getvalue()
  file = io.BytesIO()
  with (
    zipfile.ZipFile(file, 'w') as writer,
    writer.open('a.png', 'w', force_zip64=True) as member,
  ):
    member.write(b'x' * 50)
  yield file.getvalue()


def test_archives(tmp_path):
  path = tmp_path / 'x.zip'

  def check(data):
    path.write_bytes(data)
    try:
      opened = archive.Archive(str(path))
    except DataError as error:
      expect_line(error)
      return
    for member in opened.images[:8]:
      assert '..' not in member.filename.split('/')
      assert not member.filename.startswith('/')
      try:
        assert len(opened.read(member)) == member.file_size
      except DataError as error:
        expect_line(error)

  fuzz(check, archives())


# Configs and command lines.


def check_config(data):
  try:
    config = from_config_dict(json.loads(data))
  except (ValueError, RecursionError):  # no JSON
    return
  except ConfigError as error:
    expect_line(error)
    return
  again = from_config_dict(json.loads(json.dumps(dataclasses.asdict(config))))
  assert again == config
  assert hash(again) == hash(config)


def test_configs():
  config = dataclasses.asdict(Config())
  sections = [config, *({name: value} for name, value in config.items())]
  fuzz(check_config, [json.dumps(section).encode() for section in sections])


def command_lines():
  for path in option_paths():
    default = option_at(path).default
    yield f'--{path}={default}'.encode()
    yield f'--{path}\0{default}\0--workdir=x\0--debug'.encode()
    if isinstance(default, bool):
      yield f'--no{path}\0--{path}'.encode()
  yield b'--help\0--nodebug\0-h\0--\0x'


def check_command_line(data):
  words = data.decode(errors='surrogateescape').split('\0')
  # A config file is Python, which would run.
  if any(re.match('--?config(=|$)', word) for word in words):
    return
  try:
    parse_train_flags(words)
  except ConfigError as error:
    expect_line(error)


def test_command_lines(capsys):
  fuzz(check_command_line, command_lines())


# Checkpoints.


def records():
  entry = {'size': 3, 'sha256': '00'}
  files = {checkpoint.RECORD_FILE: entry, 'state/a': entry}
  for values in (
    {
      'config': dataclasses.asdict(Config()),
      'versions': {'jax': '0.1'},
      'data': {'train_a': {'count': 3, 'sha256': '00'}},
      'metrics': {'loss': 1.5},
    },
    {'config': {}, 'versions': {}, 'data': {}, 'metrics': {'loss': 1}},
    {'format': 1, 'files': files},
    {'format': 1, 'files': {}},
  ):
    yield json.dumps(values).encode()


def test_records_of_checkpoints(tmp_path):
  folder = tmp_path / 'checkpoints' / '7'
  folder.mkdir(parents=True)

  def check_manifest(data):
    (folder / checksums.MANIFEST_FILE).write_bytes(data)
    for read in (checkpoint._check_format, checksums.check_manifest):
      try:
        read(folder)
      except (checksums.DamagedError, WorkdirError) as error:
        expect_line(error)

  def check(data):
    (folder / checkpoint.RECORD_FILE).write_bytes(data)
    checkpoint.best_step(folder.parent, 'loss', 'min')
    try:
      from_config_dict(checkpoint._read_record(folder)['config'])
    except (checksums.DamagedError, ConfigError) as error:
      expect_line(error)
    check_manifest(data)
    # Anybody can write a manifest with a valid checksum of its own.
    try:
      manifest = checksums._encode(json.loads(data))
    except (ValueError, TypeError, RecursionError):
      return
    check_manifest(manifest)

  fuzz(check, records())
