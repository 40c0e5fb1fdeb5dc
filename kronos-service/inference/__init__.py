"""Serving forecasts."""
