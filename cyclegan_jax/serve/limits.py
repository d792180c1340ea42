"""Limits on what requests may take from the machine."""

from typing import NamedTuple

# The largest pixel of a translation: three floats, or four channels of 16 bits.
_PIXEL_BYTES = 12
_MIN_BYTES = 2**26  # small images may hold much metadata


class Limits(NamedTuple):
  """Limits on requests.

  Attributes:
    max_pixels: pixels of an image.
    queue: images that wait or are translated at once.
    header_seconds: until a connection has sent the headers of a request.
    body_seconds: until it has sent the image.
    work_seconds: until an image is translated.
    send_seconds: until the client has received the result.
  """

  max_pixels: int = 2**25
  queue: int = 16
  header_seconds: float = 10
  body_seconds: float = 60
  work_seconds: float = 1800
  send_seconds: float = 120

  @property
  def max_bytes(self) -> int:
    """Bytes of a file; enough to send the largest translation back."""
    return max(_MIN_BYTES, _PIXEL_BYTES * self.max_pixels)
