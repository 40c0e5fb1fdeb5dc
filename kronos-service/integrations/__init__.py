"""Forecasts for other tools: one module a tool, imported only where that tool is installed."""
