"""The user's cache folder, and JAX's compilation cache in it."""

import hashlib
import os
import pathlib
import platform
import stat

import jax


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

  Does nothing if the user has set JAX's cache, if there is no folder for ours,
  or if other users could write to it, since JAX executes what is in it.
  """
  if 'JAX_COMPILATION_CACHE_DIR' in os.environ:
    return
  if not jax.config.jax_enable_compilation_cache:  # type: ignore[attr-defined]
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
