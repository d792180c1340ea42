"""The user's cache folder, and JAX's compilation cache in it."""

import hashlib
import logging
import os
import pathlib
import platform
import stat
import tempfile

import jax

from cyclegan_jax.errors import one_line

_VARIABLE = 'JAX_COMPILATION_CACHE_DIR'


def cache_folder() -> pathlib.Path | None:
  """Returns $XDG_CACHE_HOME/cyclegan_jax, or ~/.cache/cyclegan_jax.

  None for a user without a home folder, as in containers.
  """
  base = os.environ.get('XDG_CACHE_HOME', '')
  if not os.path.isabs(base):  # as the XDG specification demands
    base = os.path.expanduser('~/.cache')
  return pathlib.Path(base, 'cyclegan_jax') if os.path.isabs(base) else None


def keep_compiled_programs() -> None:
  """Makes JAX keep compiled programs, so that the next start is fast.

  Does nothing if the user has set JAX's cache, except for a warning if it
  cannot be used; if there is no folder for ours; or if other users could write
  to it, since JAX executes what is in it.
  """
  if not jax.config.jax_enable_compilation_cache:  # type: ignore[attr-defined]
    return
  if _VARIABLE in os.environ:
    _check_own_cache(os.environ[_VARIABLE])
    return
  root = cache_folder()
  if root is None:
    return
  folder = root / 'compiled' / _processor_digest()
  try:
    root.mkdir(parents=True, exist_ok=True)
    for path in (folder.parent, folder):
      path.mkdir(mode=0o700, exist_ok=True)
      status = path.stat()
      is_shared = stat.S_IMODE(status.st_mode) & (stat.S_IWGRP | stat.S_IWOTH)
      # Windows has no user ids; its home folders are private.
      is_ours = not hasattr(os, 'getuid') or status.st_uid == os.getuid()
      if not is_ours or (is_shared and os.name != 'nt'):
        return
  except OSError:  # read-only
    return
  jax.config.update('jax_compilation_cache_dir', str(folder))


def _check_own_cache(folder: str) -> None:
  """Warns of a folder of the user's that cannot be used."""
  if not folder or '://' in folder:  # none, or of a cloud's
    return
  try:
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except (OSError, ValueError) as error:
    logging.getLogger('cyclegan_jax').warning(
      '%s=%s cannot be written (%s): what is compiled is not kept',
      _VARIABLE,
      folder,
      one_line(error),
    )
    if not os.path.isdir(folder):  # else it may hold programs to read
      jax.config.update('jax_compilation_cache_dir', None)


def _processor_digest() -> str:
  """Returns a digest of the CPU's model and instruction set.

  Programs for CPUs depend on it, JAX's cache keys do not, and several machines
  may share a home folder.
  """
  text = platform.machine() + platform.processor()
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    lines = []
  for kind in ('model name', ('flags', 'Features')):
    text += next((line for line in lines if line.startswith(kind)), '')
  return hashlib.sha256(text.encode()).hexdigest()[:16]
