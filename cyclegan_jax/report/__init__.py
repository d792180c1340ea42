"""Metrics, sample sheets, diagnostics and progress of a run."""
