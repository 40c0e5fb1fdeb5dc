"""Where candles and calendar come from."""
