"""The event-conditioned fine-tuning job."""
