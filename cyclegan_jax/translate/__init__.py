"""Translation of files, folders and images of any size."""
