"""What a run tells: records, pictures, progress."""
