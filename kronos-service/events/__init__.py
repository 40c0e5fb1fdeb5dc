"""The calendar side: taxonomy, sessions and the event encoder (no torch)."""
