"""From history to prices: prefill once, then decode many paths with cached keys and values."""
