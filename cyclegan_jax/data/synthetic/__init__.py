"""Horses and zebras drawn by code."""
