"""The served model: loading, caching, pinning and rolling back adapters."""
