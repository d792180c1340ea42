"""Training runs: set-up, loop, recovery, evaluation while training."""
