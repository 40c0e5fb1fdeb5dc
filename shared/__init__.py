"""What every service shares: candle columns, event types, schema, adapters on disk, command lines."""
