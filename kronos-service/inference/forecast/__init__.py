"""The forecast command: a table and a fan chart from a snapshot and an adapter."""
