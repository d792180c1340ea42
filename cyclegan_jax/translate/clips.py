"""Translates animations and videos frame by frame."""

from collections.abc import Callable

import numpy as np

from cyclegan_jax import images
from cyclegan_jax.errors import printable
from cyclegan_jax.media.animations import EXTENSIONS, convert_animation
from cyclegan_jax.media.clips import VIDEO_EXTENSIONS
from cyclegan_jax.media.decoding import ImageError
from cyclegan_jax.media.videos import convert_video
from cyclegan_jax.translate.context import (
  Context,
  InMemory,
)
from cyclegan_jax.translate.plan import Job


def translate_clip(work: Context, job: Job) -> None:
  """Translates every frame of an animation or a video.

  Raises:
    UserError: the file cannot be translated, or a package is missing.
    OSError: the output cannot be written.
  """
  if set(work.channels) - {1, 3}:
    raise ImageError(
      str(job.source),
      'clips have 1 or 3 channels, and this generator translates '
      f'{work.channels[0]} channels to {work.channels[1]}',
    )
  extension = job.target.suffix.lower()
  is_video = job.source.suffix.lower() in VIDEO_EXTENSIONS
  if not is_video and extension not in EXTENSIONS:
    raise ImageError(
      str(job.source),
      f'it is an animation, which {extension} cannot hold: give --format png '
      'or webp',
    )
  job.target.parent.mkdir(parents=True, exist_ok=True)
  samples: list[np.ndarray] = []  # the first frame and its translation

  def convert(frames: np.ndarray) -> np.ndarray:
    if work.options.size is not None:
      size = work.new_size(frames.shape[1:3], job)
      frames = np.stack([work.resize(frame, *size) for frame in frames])
    translated = _translate(work.translators[job.sample], frames)
    if not samples:
      samples.extend((frames[0], translated[0]))
    return translated

  convert_clip = convert_video if is_video else convert_animation
  with work.bar(printable(job.source.name)) as on_frame:
    convert_clip(
      job.source,
      job.target,
      convert,
      channels=work.channels[0],
      batch_size=work.options.batch_size,
      max_pixels=work.max_pixels,
      on_frame=on_frame,
    )
  if work.gallery and work.back:
    samples.append(_translate(work.back, samples[1]))
    work.show(job, [InMemory(sample) for sample in samples], 'clip')


def _translate(
  translator: Callable[[np.ndarray], np.ndarray], frames: np.ndarray
) -> np.ndarray:
  """Translates uint8 frames to uint8, whatever values the domains have."""
  return images.to_uint8(translator(images.to_float(frames)))
