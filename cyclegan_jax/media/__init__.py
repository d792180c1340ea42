"""Image, TIFF, animation and video files: bytes to arrays and back."""
