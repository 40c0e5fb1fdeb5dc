"""An adapter on disk: its files, reading, writing, and the canary that proves it."""
