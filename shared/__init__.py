"""Contracts that every service shares: candle columns, event types, schema, adapter manifest."""
