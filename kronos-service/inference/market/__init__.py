"""The candles and calendar that the service looks symbols up in, kept fresh."""
