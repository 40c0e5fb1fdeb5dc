"""Commands that prepare data and train adapters."""
