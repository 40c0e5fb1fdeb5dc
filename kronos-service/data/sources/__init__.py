"""Where tables are read from: one Protocol, and a registry of its implementations."""
