"""Animations and videos, by the endings of their names."""

import pathlib

from cyclegan_jax.media.animations import convert_animation
from cyclegan_jax.media.video_writer import CODECS
from cyclegan_jax.media.videos import (
  VIDEO_EXTENSIONS,
  convert_video,
)

__all__ = [
  'GIF_EXTENSIONS',
  'VIDEO_EXTENSIONS',
  'clip_target',
  'convert_animation',
  'convert_video',
]

GIF_EXTENSIONS = ('.gif',)


def clip_target(path: pathlib.Path) -> pathlib.Path:
  """The path with the ending that a translated clip has."""
  suffix = path.suffix.lower()
  if suffix in GIF_EXTENSIONS or suffix in CODECS:
    return path
  return path.with_suffix('.mkv')
