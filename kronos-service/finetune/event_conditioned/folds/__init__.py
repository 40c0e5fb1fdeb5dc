"""Walk-forward folds: their dates, their runs, and what their targets come to when pooled."""
