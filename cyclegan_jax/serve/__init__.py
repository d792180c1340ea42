"""A server on this machine with a page that translates images."""
