"""The commands of `cyclegan`, a file each, with a function `run`."""
