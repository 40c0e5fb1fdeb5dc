"""Which forecasts run together, in which order, and until when."""
