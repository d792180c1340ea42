"""A page on this machine that translates images: drop one, see both ways."""
