"""A snapshot on disk: parquet tables under a manifest, written atomically, extended incrementally."""
