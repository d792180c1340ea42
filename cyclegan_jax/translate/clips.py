"""Animations and videos, frame by frame."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from cyclegan_jax import images
from cyclegan_jax.errors import printable
from cyclegan_jax.media import clips
from cyclegan_jax.media.decoding import ImageError
from cyclegan_jax.translate.context import (
  InMemory,
  Work,
)
from cyclegan_jax.translate.plan import Job

_ANIMATED = ('.gif', '.png', '.webp')


def translate_clip(work: Work, job: Job) -> None:
  """Translates every frame.

  Raises:
    UserError: of the file, or a package is missing.
    OSError: of the output.
  """
  if set(work.channels) - {1, 3}:
    raise ImageError(
      str(job.source), 'clips are grey or RGB, as this generator is not'
    )
  ending = job.target.suffix.lower()
  is_video = job.source.suffix.lower() in clips.VIDEO_EXTENSIONS
  if not is_video and ending not in _ANIMATED:
    raise ImageError(
      str(job.source),
      f'it is an animation, which {ending} has no room for: '
      'give --format png or webp',
    )
  job.target.parent.mkdir(parents=True, exist_ok=True)
  first: list[np.ndarray] = []  # frames: the source's, and its translation
  common: dict[str, Any] = {
    'channels': work.channels[0],
    'batch_size': work.options.batch_size,
    'max_pixels': work.max_pixels,
  }
  convert = functools.partial(_convert, work, job, first)
  run = clips.convert_video if is_video else clips.convert_animation
  with work.bar(printable(job.source.name)) as on_frame:
    run(job.source, job.target, convert, on_frame=on_frame, **common)
  if work.gallery and work.back:
    first.append(_bytes(work.back, first[1]))
    work.show(job, [InMemory(each) for each in first], 'clip')


def _convert(
  work: Work, job: Job, first: list[np.ndarray], frames: np.ndarray
) -> np.ndarray:
  if work.options.size is not None:
    size = work.new_size(frames.shape[1:3], job)
    frames = np.stack([work.resize(each, *size) for each in frames])
  translated = _bytes(work.translators[job.sample], frames)
  if not first:
    first += [frames[0], translated[0]]
  return translated


def _bytes(
  translator: Callable[[np.ndarray], np.ndarray], frames: np.ndarray
) -> np.ndarray:
  """Frames are bytes, whatever the domains' values: as shares of a range."""
  return images.to_uint8(translator(images.to_float(frames)))
