"""From a snapshot to batches: series, windows, tokens, datasets, splits."""
