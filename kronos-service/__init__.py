"""Event-conditioned Kronos: fine-tuning and serving."""
