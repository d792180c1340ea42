"""Drawn horses and zebras, a data set without files."""
