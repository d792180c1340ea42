"""How much a page may ask of the machine that it runs on."""

from typing import NamedTuple

# Of what a translation may be: three channels of floats, four of 16 bits.
_PIXEL_BYTES = 12
_LEAST_BYTES = 2**26  # small images too may have much beside their pixels


class Limits(NamedTuple):
  """What is refused.

  Attributes:
    max_pixels: images with more are.
    queue: images that wait or are translated at once; more have to come again.
    header_seconds: until a connection has sent what a request begins with.
    body_seconds: until it has sent the image.
    work_seconds: that a translation may take.
    send_seconds: until the client has taken the result.
  """

  max_pixels: int = 2**25
  queue: int = 16
  header_seconds: float = 10
  body_seconds: float = 60
  work_seconds: float = 1800
  send_seconds: float = 120

  @property
  def max_bytes(self) -> int:
    """Files with more are refused; what was translated may be sent back."""
    return max(_LEAST_BYTES, _PIXEL_BYTES * self.max_pixels)
