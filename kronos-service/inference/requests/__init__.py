"""From a validated request to what the model reads, and from its paths to the response."""
