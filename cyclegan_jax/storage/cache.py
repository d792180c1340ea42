"""The user's cache folder, and the compiled programs in it."""

import hashlib
import os
import pathlib
import platform
import stat

import jax


def cache_folder() -> pathlib.Path:
  """$XDG_CACHE_HOME/cyclegan_jax, or the same in ~/.cache."""
  given = os.environ.get('XDG_CACHE_HOME', '')
  # A relative path is to be ignored, as the XDG specification has it.
  base = given if os.path.isabs(given) else '~/.cache'
  return pathlib.Path(base).expanduser() / 'cyclegan_jax'


def keep_compiled_programs() -> None:
  """Has JAX keep what it compiles, so that the next start is quick.

  Nothing is done where the user has given JAX a folder or turned the cache
  off, nor where others could write into ours: JAX runs what is in it.
  """
  if 'JAX_COMPILATION_CACHE_DIR' in os.environ:
    return
  if not jax.config.jax_enable_compilation_cache:  # type: ignore[attr-defined]
    return
  folder = cache_folder() / 'compiled' / _processor()
  try:
    folder.parent.parent.mkdir(parents=True, exist_ok=True)
    for each in (folder.parent, folder):
      each.mkdir(mode=0o700, exist_ok=True)
      found = each.stat()
      is_shared = stat.S_IMODE(found.st_mode) & (stat.S_IWGRP | stat.S_IWOTH)
      if found.st_uid != os.getuid() or is_shared:
        return
  except (OSError, RuntimeError):  # read-only, or a user without a home
    return
  jax.config.update('jax_compilation_cache_dir', str(folder))


def _processor() -> str:
  """What tells CPUs apart: a home may be shared by several machines.

  Programs for CPUs hold instructions of the one that compiled them, of which
  JAX's keys know nothing.
  """
  text = platform.machine() + platform.processor()
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    lines = []
  kinds = ('model name', 'flags', 'Features')
  text += next((each for each in lines if each.startswith(kinds[0])), '')
  text += next((each for each in lines if each.startswith(kinds[1:])), '')
  return hashlib.sha256(text.encode()).hexdigest()[:16]
