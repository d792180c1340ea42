"""Files that survive a crash: checkpoints, run folders, checksums."""
