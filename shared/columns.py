"""Names of the columns, asset classes and impacts that every part of the project agrees on."""

FEATURES = ("open", "high", "low", "close", "volume", "amount")
"""The model's six inputs per bar, in this order."""

OPEN, HIGH, LOW, CLOSE, VOLUME, AMOUNT = range(len(FEATURES))
PRICES = slice(OPEN, CLOSE + 1)
"""Positions of the inputs in a bar's last dimension; the first four are prices."""

BAR_COLUMNS = ("symbol", "ts", *FEATURES)
INTERVAL = "interval"
"""Column of the table of bars shorter than a day: how long each is."""
SYMBOL_COLUMNS = ("symbol", "asset_class", "tradable")
CALENDAR_COLUMNS = (
    "event_id",
    "event_type",
    "event_name",
    "currency",
    "impact",
    "release_at",
    "actual",
    "forecast",
    "previous",
    "first_seen_at",
    "symbol",
)

ASSET_CLASSES = ("crypto", "us_equity", "index", "fx")
IMPACTS = ("high", "medium", "low")
