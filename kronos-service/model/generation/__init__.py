"""Sample paths from a history: prefill once, then decode with cached keys and values."""
