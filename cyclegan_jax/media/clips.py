"""File name extensions of animations and videos, in and out."""

import pathlib
from typing import NamedTuple

GIF_EXTENSIONS = ('.gif',)
VIDEO_EXTENSIONS = (
  '.avi',
  '.m4v',
  '.mkv',
  '.mov',
  '.mp4',
  '.mpeg',
  '.mpg',
  '.webm',
)


class VideoContainer(NamedTuple):
  """Format of a video file, in FFmpeg's names."""

  format: str
  codec: str


# Videos of other extensions become Matroska files, which hold any sound.
CONTAINERS = {
  '.m4v': VideoContainer('mp4', 'libx264'),
  '.mkv': VideoContainer('matroska', 'libx264'),
  '.mov': VideoContainer('mov', 'libx264'),
  '.mp4': VideoContainer('mp4', 'libx264'),
  '.webm': VideoContainer('webm', 'libvpx-vp9'),
}


def clip_target(path: pathlib.Path) -> pathlib.Path:
  """Replaces the extension by one that can be written, if necessary."""
  extension = path.suffix.lower()
  if extension in GIF_EXTENSIONS or extension in CONTAINERS:
    return path
  return path.with_suffix('.mkv')
