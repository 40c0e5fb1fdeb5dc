"""One training: set-up, loop, loss, validation, checkpoints, progress."""
